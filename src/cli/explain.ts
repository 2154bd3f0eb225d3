/** What an open execution waits for, in sentences: from its folded state, its interrupts and whether anybody serves it. */
import { systemTimers } from "../base/timers.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { Dispatch, ExecutionState } from "../ledger/state.ts";
import { readyAt } from "../ledger/waits.ts";
import type { Meta } from "../ledger/views.ts";

export interface Known {
  readonly meta: Meta;
  /** Null where this role may not read it. */
  readonly state: ExecutionState | null;
  readonly interrupts: readonly InterruptRecord[];
  readonly isServed: boolean;
}

/** Empty when it runs just now, or has closed. */
export function waitsOf({ meta, state, interrupts, isServed }: Known): string[] {
  if (meta.lifecycleState === "closed") return [];
  const waits: string[] = [];
  if (meta.blocked !== null) waits.push(`no worker's version of flow "${meta.flowName}" fits: ${meta.blocked}`);
  if (!isServed) waits.push(`no worker that is alive serves flow "${meta.flowName}": start one`);
  if (meta.startedAt === null) waits.push("it was created and not started: it waits for its input");
  for (const { id, chunk, type, expiresAt } of interrupts)
    waits.push(
      `an answer to interrupt "${id}" (${type}, chunk "${chunk}")${expiresAt ? `, until ${expiresAt.toISOString()}` : ""}`,
    );
  if (state) waits.push(...ofState(state, interrupts.length > 0));
  return waits;
}

function ofState(state: ExecutionState, hasInterrupts: boolean): string[] {
  const waits: string[] = [];
  for (const dispatch of state.dispatches.values()) waits.push(...ofDispatch(state, dispatch));
  for (const [id, { flow, closed }] of state.children)
    if (closed === null) waits.push(`execution ${id} of flow "${flow}", which it called`);
  for (const [key, values] of state.joins)
    waits.push(`the other half of a join (${key}): ${Object.keys(values).join(", ")} came`);
  const isIdle = waits.length === 0 && !hasInterrupts && state.dispatches.size === 0 && state.inbox.length === 0;
  if (isIdle && state.startedAt !== null)
    waits.push(
      "nothing is left to do: it closes by itself after its idle time, or takes events until somebody closes it",
    );
  return waits;
}

function ofDispatch(state: ExecutionState, dispatch: Dispatch): string[] {
  const { chunk, failures, lastError, notBefore } = dispatch;
  const at = readyAt(state, dispatch);
  const name = `chunk "${chunk ?? dispatch.node}"`;
  if (notBefore !== null && notBefore > systemTimers.now())
    return [
      `${name} tries again at ${iso(notBefore)}${lastError ? `, after ${failures} failed with ${lastError.name}: ${lastError.message}` : ""}`,
    ];
  if (at === Infinity) return [`${name} waits for what it called or emitted`];
  return at > systemTimers.now() ? [`${name} sleeps until ${iso(at)}`] : [];
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
