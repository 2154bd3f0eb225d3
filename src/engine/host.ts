/** What the engine needs of the process it runs in, and what an attempt needs of the owner that runs it. */
import type { Timers } from "../base/timers.ts";
import type { Json } from "../base/json.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Graph } from "../flow/graph.ts";
import type { Effect } from "../ledger/command.ts";
import type { ExecutionId, Recorded, WorkerId } from "../ledger/event.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Dispatch } from "../ledger/parts.ts";
import type { CloseHeader } from "../store/append.ts";
import type { RetryMark } from "../store/streams.ts";
import type { Send, Transactions } from "../store/transactions.ts";
import type { Meter } from "../telemetry/meter.ts";
import type { OwnerTrace, Tracing } from "../telemetry/trace.ts";
import type { NewChild } from "./child.ts";
import type { DatabaseClock } from "./clock.ts";
import type { Committer } from "./committer.ts";
import type { NewId } from "./ids.ts";
import type { Items } from "./items.ts";
import type { ExecutionResources, Resources, WorkerResources } from "./resources.ts";
import type { StateContract } from "./state-contract.ts";
import type { InterventionsSize, StateSize } from "./state-size.ts";
import type { Put, StreamTarget } from "./streamer.ts";

/** What the owners of one worker share. */
export interface Engine {
  readonly workerId: WorkerId;
  readonly committer: Committer;
  readonly transactions: Transactions;
  readonly clock: DatabaseClock;
  /** For everything that a flow's user sees. */
  readonly timers: Timers;
  readonly newId: NewId;
  readonly hooks: Hooks;
  readonly log: Logger;
  /** Where `ctx.log` writes. */
  readonly userLog: Logger;
  readonly meter: Meter;
  readonly tracing: Tracing;
  readonly resources: WorkerResources;
  flowResources(flow: string): Resources;
  executionResources(id: ExecutionId): Resources;
  flowData(flow: string): FlowDataAccess;
  putIntoStream(target: StreamTarget, item: Json, dispatch: number, mark: RetryMark | null): Put;
  /** Creates a child, once, and resolves with how it ended; rejects when the signal aborts. */
  runChild(child: NewChild, options: ChildOptions): Promise<ClosedExecution>;
  /** Executions that are items of a distributed collection. */
  readonly items: Items;
  /** The execution waits for others from now on: it takes no capacity of the worker. */
  waitsForOthers(id: ExecutionId): void;
  /** Asks for the end of children, until that is in their ledgers. One that is not there yet comes within moments, or never. */
  cancelChildren(parent: ExecutionId, children: readonly ExecutionId[]): Promise<void>;
  /** Tells a closed execution's parent and children of its end. */
  propagateClose(id: ExecutionId): void;
  /** Ledger events after a seq. */
  readEvents(id: ExecutionId, after: number): Promise<readonly Recorded[]>;
  /** Tells everybody who waits on the execution that there is something new. */
  announce(id: ExecutionId, closed: ClosedExecution | null): void;
  /** An owner's resources are being disposed. Only the worker's shutdown waits for it. */
  onDispose(disposed: Promise<void>): void;
  /** Executions of which Postgres refused a commit that several attempts had a part in: next time each commits alone. */
  readonly committingAlone: Set<ExecutionId>;
  /** An operator paused the flow: nothing new of it starts. */
  isFlowPaused(flow: string): boolean;
  /** Where links to answers lead, without a slash at its end; null is nowhere. */
  readonly publicUrl: string | null;
  /** Grace that running chunks get after a cancel. */
  readonly cancelGraceMs: number;
  /** Whether short waits stay in memory, and items hear of each other's end here. */
  readonly hasShortcuts: boolean;
}

/** What a test kit hears of the engine, and where it may step in. */
export interface Hooks {
  /** A chunk's handler, or the work of a step or transaction, begins: said before it is called. */
  readonly onBegin?: (begun: Begun) => void;
  /** Stands between the owners and the database. */
  readonly committer?: (committer: Committer) => Committer;
}

/** User code that begins. */
export interface Begun {
  readonly executionId: ExecutionId;
  readonly flow: string;
  readonly chunk: string;
  /** Which attempt of the chunk, from 1. */
  readonly attempt: number;
  /** The step or transaction; null for the handler itself. */
  readonly step: string | null;
  readonly idempotencyKey: string;
}

export interface ChildOptions {
  /** Called when the child is in the database: from then on its end will be in its parent's ledger. */
  readonly onCreated: () => void;
  readonly signal: AbortSignal;
}

/** How an execution ended, for those in this process who wait for it. */
export type ClosedExecution = CloseHeader & { readonly flow: string };

export interface FlowDataAccess {
  get(key: string): Promise<Json | undefined>;
  set(key: string, value: Json): Promise<void>;
  append(key: string, value: Json): Promise<void>;
  delete(key: string): Promise<void>;
}

/** The owner of an execution, as an attempt sees it. A wait for which the attempt was cut off never ends. */
export interface AttemptHost {
  readonly flow: FlowDefinition;
  readonly graph: Graph;
  readonly info: ExecutionInfo;
  readonly resources: ExecutionResources;
  readonly log: Logger;
  readonly userLog: Logger;
  /** Null where nothing is traced. */
  readonly trace: OwnerTrace | null;
  /** Whether steps have spans of their own. */
  readonly tracesSteps: boolean;
  readonly timers: Timers;
  readonly transactions: Transactions;
  readonly flowData: FlowDataAccess;
  /** What is folded so far; read only. */
  readonly state: ExecutionState;
  readonly stateSize: StateSize;
  readonly stateContract: StateContract;
  readonly interventionsSize: InterventionsSize;
  readonly newId: NewId;
  /** Where links to answers lead; null is nowhere. */
  readonly publicUrl: string | null;
  /** The database's time, in milliseconds since 1970. */
  now(): number;
  /** User code is about to begin; only where somebody hears it. */
  readonly began: ((begun: Omit<Begun, "executionId" | "flow">) => void) | undefined;
  /** Resolves when the effects are in the ledger. */
  commit(dispatch: number, effects: readonly Effect[]): Promise<void>;
  /** Resolves when the effect is in the ledger, by a commit that `send` makes together with rows of the application's. */
  record(dispatch: number, effect: Effect, send: Send): Promise<void>;
  /** Something runs in the attempt that a park would cut off. Returns what says that it has ended. */
  busy(dispatch: number): () => void;
  /** Resolves at a time of the database's clock; a far one may let the execution go, and the attempt with it. */
  waitUntil(dispatch: number, time: number): Promise<void>;
  /** Resolves when everything that follows from the emit has run. */
  groupEnd(dispatch: number, group: number): Promise<void>;
  /** Creates a child and resolves with how it ended; giving the same id again attaches to the same child. The signal ends the wait alone. */
  runChild(
    dispatch: number,
    child: Omit<NewChild, "parent"> & { readonly ordinal: number },
    signal?: AbortSignal,
  ): Promise<ClosedExecution>;
  /** Children whose end an attempt has heard of; the ledger may tell it later. */
  readonly ended: Set<ExecutionId>;
  /** Whether the child's end was asked for from outside. */
  isCancelledExternally(child: ExecutionId): Promise<boolean>;
  putIntoStream(dispatch: Dispatch, item: Json): Put;
}
