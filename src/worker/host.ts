/** A worker as its process has it, and what it needs of that. */
import type { Timers } from "../base/timers.ts";
import type { NewChild } from "../engine/child.ts";
import type { ChildOptions, ClosedExecution, FlowDataAccess, Hooks } from "../engine/host.ts";
import type { NewId } from "../engine/ids.ts";
import type { Owner } from "../engine/owner.ts";
import type { Resources, WorkerResources } from "../engine/resources.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ExecutionId, WorkerId } from "../ledger/event.ts";
import type { Sender } from "../store/commands.ts";
import type { CreateResult, NewExecution } from "../store/starts.ts";
import type { Store } from "../store/store.ts";
import type { Meter } from "../telemetry/meter.ts";
import type { Tracing } from "../telemetry/trace.ts";
import type { Vitals } from "../telemetry/vitals.ts";
import type { Schedule } from "./schedules.ts";

/** What a worker needs of the orchestrator it runs in. */
export interface WorkerHost {
  readonly store: Store;
  readonly log: Logger;
  readonly userLog: Logger;
  readonly meter: Meter;
  readonly tracing: Tracing;
  readonly timers: Timers;
  readonly newId: NewId;
  readonly hooks: Hooks;
  readonly resources: WorkerResources;
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  readonly schedules: readonly Schedule[];
  flowResources(flow: string): Resources;
  executionResources(id: ExecutionId): Resources;
  flowData(flow: string): FlowDataAccess;
  announce(id: ExecutionId, closed: ClosedExecution | null): void;
  runChild(child: NewChild, options: ChildOptions): Promise<ClosedExecution>;
}

export interface WorkerSettings {
  readonly concurrency: number;
  readonly drainTimeoutMs: number;
  readonly cancelGraceMs: number;
  readonly publicUrl: string | null;
  /** Whether it goes on without a job where it can, and looks for what no job came for. */
  readonly hasShortcuts: boolean;
}

/** A worker in this process; `stop()` drains it. */
export interface Worker extends AsyncDisposable {
  readonly id: WorkerId;
  /** Executions that this worker owns now. */
  readonly owned: number;
  /** Takes nothing new, lets chunks reach a commit point, gives back what is left. Idempotent. */
  stop(): Promise<void>;
}

/** The worker as its own process has it. */
export interface LocalWorker extends Worker, Sender {
  /** Creates executions; those that can begin here and now are claimed in the same statement, and need no job. */
  create(executions: readonly NewExecution[]): Promise<CreateResult[]>;
  /** Looks which flows are paused: before a wake-up tells it. */
  lookAtPauses(): Promise<void>;
  readonly inside: WorkerInside;
  readonly vitals: Vitals;
}

/** What a test kit sees of a worker, and does to it. */
export interface WorkerInside {
  readonly owners: ReadonlyMap<ExecutionId, Owner>;
  /** Nothing is on its way that shows neither in an owner nor in the database. */
  readonly isQuiet: boolean;
  /** Looks after an execution, as its job would make it do. Resolves when it has done what it can. */
  advance(id: ExecutionId, flow: string): Promise<void>;
  readonly isCrashed: boolean;
  /** Drops whatever it owns without a word, as a process that is gone; takes nothing until `revive()`. */
  crash(): void;
  revive(): void;
}
