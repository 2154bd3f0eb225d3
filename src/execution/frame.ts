/** A sub-flow as the execution that began it sees it. */
import { show } from "../base/option.ts";
import type { SubFlowRow } from "../store/children.ts";
import { resultOf } from "../engine/child.ts";
import { UsageError, type SerializedError } from "../base/errors.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Json } from "../base/json.ts";
import { executionIdOf } from "./ids.ts";
import { InterruptRecord } from "./interrupt.ts";

/** A sub-flow that an execution has called. */
export interface SubFlowFrame {
  /** The sub-flow's own execution id. */
  readonly id: ExecutionId;
  readonly parentId: ExecutionId;
  /** The node of the parent's graph that runs it. */
  readonly node: string;
  readonly flow: string;
  readonly status: "running" | "waiting" | "completed" | "failed" | "cancel_requested" | "cancelled";
  readonly input: Json;
  /** Names of the live objects it got from its parent. */
  readonly resourceKeys: readonly string[];
  /** What it waits for, under the ids that the parent's `continueWith` takes. */
  readonly interrupts: readonly InterruptRecord[];
  /** null until it has completed. */
  readonly result: Json;
  readonly error: SerializedError | null;
  readonly cancelReason: string | null;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
}

export function frameOf(parentId: ExecutionId, row: SubFlowRow): SubFlowFrame {
  const { id, flow, node, input, outcome, isCancelled, isWaiting, snapshot, error, cancelReason } = row;
  return {
    id,
    parentId,
    node,
    flow,
    status: isCancelled
      ? outcome
        ? "cancelled"
        : "cancel_requested"
      : (outcome ?? (isWaiting ? "waiting" : "running")),
    input,
    resourceKeys: row.resourceKeys ?? [],
    interrupts: row.interrupts.map((record) => InterruptRecord.parse(record)),
    result: outcome === "completed" && snapshot ? resultOf(snapshot) : null,
    error,
    cancelReason,
    createdAt: new Date(row.createdAt),
    startedAt: row.startedAt === null ? null : new Date(row.startedAt),
    endedAt: row.endedAt === null ? null : new Date(row.endedAt),
  };
}

/** @throws {UsageError} */
export function parseFrameId(execution: ExecutionId, frame: string): ExecutionId {
  const id = executionIdOf(frame);
  if (id) return id;
  throw noFrame(execution, frame);
}

export function noFrame(execution: ExecutionId, frame: string): UsageError {
  return new UsageError(`execution ${execution} has no sub-flow ${show(frame)}`, "use an id of getSubFlowFrames()");
}
