/** The finished graph of a flow: what there is and what comes next. Pure data plus the handlers it names. */
import type { Json } from "../base/json.ts";
import type { ChunkHandler, Predicate } from "./context.ts";
import type { z } from "zod";
import type { FailurePolicy } from "./failure.ts";

/** Identifies one place in the graph; stable for one definition (`fingerprint`), e.g. "n3". */
export type NodeId = string;

/** The finished structure of a flow: nodes, and what follows which. */
export interface Graph {
  /** Where the start input enters. */
  readonly roots: readonly NodeId[];
  readonly nodes: ReadonlyMap<NodeId, Node>;
  /** `when` nodes by what wakes them. */
  readonly whenEvent: ReadonlyMap<string, readonly NodeId[]>;
  readonly whenState: ReadonlyMap<string, readonly NodeId[]>;
  /** Nodes that run only to tell of pauses: what follows from `when("$interrupt")`. */
  readonly telling: ReadonlySet<NodeId>;
  readonly chunks: ReadonlyMap<string, Chunk>;
  /** Conditions of `match` and `if`, by name. */
  readonly predicates: ReadonlyMap<string, Predicate>;
  /** The flow's own, when an execution is cancelled. */
  readonly onCancel?: ChunkHandler;
  /** Of what has no policy of its own. */
  readonly onFailure: FailurePolicy;
}

/** A value that leaves a node enters every node of `next`; an empty `next` ends that chain. */
interface Place {
  readonly id: NodeId;
  readonly next: readonly NodeId[];
}

export type Node =
  | ChunkNode
  | MatchNode
  | BatchNode
  | ForEachNode
  | EndNode
  | WhenNode
  | SubFlowNode
  | InterventionPointNode
  | FinalResultNode;

export interface ChunkNode extends Place {
  readonly kind: "chunk";
  readonly chunk: string;
}

/** `match()` and `ifCondition()`: the value enters the first case that matches (mode "first") or every one (mode "all"). */
export interface MatchNode extends Place {
  readonly kind: "match";
  readonly mode: "first" | "all";
  readonly cases: readonly MatchCase[];
  /** Where the value enters when no case matches; `[end]` when there is no else (it passes through unchanged). */
  readonly otherwise: readonly NodeId[];
  readonly end: NodeId;
}

export interface MatchCase {
  /** `predicate` names an entry of `Graph.predicates`; `equals` compares by JSON equality. */
  readonly test: { readonly predicate: string } | { readonly equals: Json };
  /** First nodes of the case's chain; `[end]` when the case is empty. */
  readonly entry: readonly NodeId[];
}

/** Same value into every branch, side by side; `end` collects an object by branch key, in definition order. */
export interface BatchNode extends Place {
  readonly kind: "batch";
  readonly branches: readonly { readonly key: string; readonly entry: NodeId }[];
  readonly concurrency: number | null;
  readonly distribute: boolean;
  readonly end: NodeId;
}

/** One run of the body per item; `end` collects an array in input order. */
export interface ForEachNode extends Place {
  readonly kind: "forEach";
  readonly entry: readonly NodeId[];
  readonly concurrency: number | null;
  readonly distribute: boolean;
  readonly end: NodeId;
}

/** Where the chains of a match, batch or forEach meet again; `of` is the node that opened them. */
export interface EndNode extends Place {
  readonly kind: "endMatch" | "endBatch" | "endForEach";
  readonly of: NodeId;
}

/** Wakes on events, or on a write of one state key. */
export interface WhenNode extends Place {
  readonly kind: "when";
  readonly trigger: { readonly events: readonly string[] } | { readonly state: string };
  /** With several events: "and" waits for all of them, "or" runs on each. */
  readonly mode: "and" | "or";
}

export interface SubFlowNode extends Place {
  readonly kind: "subFlow";
  readonly flow: string;
  /** target path → source path; see `toSubFlow`. */
  readonly capture: Readonly<Record<string, string>> | null;
  readonly writeBack: Readonly<Record<string, string>> | null;
  readonly concurrency: number | null;
}

export interface InterventionPointNode extends Place {
  readonly kind: "interventionPoint";
  readonly name: string;
  readonly target: string | null;
}

/** `end()`: writes what reaches it to `$final_result`. */
export interface FinalResultNode extends Place {
  readonly kind: "finalResult";
}

export interface Chunk {
  readonly name: string;
  readonly handler: ChunkHandler;
  readonly options: ResolvedChunkOptions;
}

/** Defaults applied, durations in milliseconds. */
export interface ResolvedChunkOptions {
  readonly retry: RetryPolicy;
  readonly timeoutMs: number | null;
  /** null is the flow's. */
  readonly onFailure: FailurePolicy | null;
  readonly input: z.ZodType | null;
  readonly output: z.ZodType | null;
  /** When the execution is cancelled while the chunk has begun and not ended. */
  readonly onCancel?: ChunkHandler;
}

export interface RetryPolicy {
  /** Attempts in total, the first included. */
  readonly maxAttempts: number;
  readonly initialIntervalMs: number;
  readonly multiplier: number;
  readonly maxIntervalMs: number;
  /** Before the second attempt, the third …, where each was given by itself. */
  readonly waitsMs?: readonly number[];
  readonly jitter: boolean;
  readonly retryIf: ((error: unknown) => boolean) | null;
}
