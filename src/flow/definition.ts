/** What a flow is, for the other rooms: its graph, its contract, and what it asks of those who run it. Types only. */
import type { z } from "zod";
import type { Duration } from "../base/duration.ts";
import type { Json } from "../base/json.ts";
import type { RetryOptions } from "./context.ts";
import type { ParkOptions } from "./failure.ts";
import type { Contract } from "./contract.ts";
import type { Graph } from "./graph.ts";
import type { FlowLimits, StreamLimits } from "./limits.ts";

/** What the other rooms see of a flow. Every chain of one flow reads the same. */
export interface FlowDefinition<C extends Contract = Contract> {
  readonly name: string;
  readonly contract: C;
  /** The flow as it is now; a later definition call makes a new one and leaves this one as it is. */
  readonly graph: Graph;
  /** SHA-256 of the graph's structure, in hex. */
  readonly fingerprint: string;
  readonly requirements: readonly ResourceRequirement[];
  readonly interventionPoints: readonly InterventionPoint[];
  /** The flows that `toSubFlow` names, by name. */
  readonly subFlows: ReadonlyMap<string, FlowDefinition>;
  /** The contract as JSON Schema, of a flow that came from a blueprint without its zod schemas. */
  readonly contractSchemas: Json;
  readonly limits: FlowLimits | null;
  readonly maxDurationMs: number | null;
  readonly streamLimits: StreamLimits;
}

/** A live object that a flow needs, and how it is made where nobody gives it. */
export interface ResourceRequirement {
  readonly name: string;
  /** Makes the resource in a worker where it was not given, when it is first needed; null leaves it missing. */
  readonly resolver: ResourceResolver | null;
  /** Where it cannot be had: "closed" refuses a load, and a resolver that throws fails the chunk; "open" warns, and the chunk gets its fallback. */
  readonly failPolicy: "closed" | "open";
}

/** Makes a live object for one execution; null is none, and what it throws follows `failPolicy`. */
export type ResourceResolver<T = unknown> = (request: {
  readonly name: string;
  readonly executionId: string;
  readonly flow: string;
  readonly metadata: Readonly<Record<string, Json>>;
}) => T | null | undefined;

/** A place in a flow where corrections are read. */
export interface InterventionPoint {
  readonly name: string;
  readonly target: string | null;
}

/** How a chunk runs. `input` and `output` are parsed when it starts and when it returns. */
export interface ChunkOptions<
  I extends z.ZodType | null = z.ZodType | null,
  R extends z.ZodType | null = z.ZodType | null,
  Cleanup = unknown,
> extends ParkOptions {
  /** What is done when it throws. @default it is tried once */
  readonly retry?: RetryOptions;
  /** Longest time of one attempt. @default none */
  readonly timeout?: Duration | null;
  /** What its input must be; a value that does not fit is a `ContractError`. @default any JSON */
  readonly input?: I;
  /** What it must return; a value that does not fit is a `ContractError`. @default any JSON */
  readonly output?: R;
  /**
   * Runs before the close when the execution is cancelled while this chunk runs, sleeps, pauses, waits for its retry or is about to
   * begin: a run of its own with the input of the chunk, its steps and the state. It has the worker's `cancelGrace`; where it fails the
   * ledger says so, and the execution closes all the same. @default none
   */
  readonly onCancel?: Cleanup;
}

/** Of `toSubFlow()`: what goes into the sub-flow, and what of it comes back. */
export interface SubFlowOptions<
  W = Readonly<Record<string, string>> | null,
  P = Readonly<Record<string, string>> | null,
> {
  /**
   * Target path of the child → source path of the parent, e.g. `{ "input.topic": "value.topic" }`.
   * Targets begin with input, state or resources; sources with value, state, flowData or resources.
   * @default the value becomes the input
   */
  readonly capture?: P;
  /**
   * Target path of the parent → source path of the child, e.g. `{ "state.report": "result.report" }`.
   * Targets begin with value, state or flowData; sources with result or snapshot.
   * @default the result becomes the value
   */
  readonly writeBack?: W;
  /** Children of this step at once. @default unlimited */
  readonly concurrency?: number | null;
}
