/** Which flows of a worker are paused: told by a wake-up of nobody, and asked now and then, should one be lost. */
import { withAnswerLimit } from "../store/batcher.ts";
import type { Operators } from "../store/operators.ts";
import { nobody, type Wakeups } from "../store/wakeups.ts";

export interface FlowPauses {
  /** Nothing new of it starts. */
  has(flow: string): boolean;
  /** Asks the database, and calls back when flows were paused or go on. One question at a time. */
  look(): Promise<void>;
  stop(): void;
}

export interface FlowPausesHost {
  readonly store: {
    readonly operators: Pick<Operators, "pausedFlows">;
    readonly wakeups: Pick<Wakeups, "onOwnerWakeup">;
  };
  readonly flows: readonly string[];
  readonly onChange: (changed: ReadonlySet<string>) => void;
  readonly onTrouble: (error: unknown) => void;
}

export function openFlowPauses({ store, flows, onChange, onTrouble }: FlowPausesHost): FlowPauses {
  let paused: ReadonlySet<string> = new Set();
  let looking: Promise<void> | undefined;
  let isStale = false;
  const ask = async (): Promise<void> => {
    do {
      isStale = false;
      const found = new Set(await withAnswerLimit(store.operators.pausedFlows(flows)));
      const changed = found.symmetricDifference(paused);
      paused = found;
      if (changed.size > 0) onChange(changed);
    } while (isStale);
  };
  const look = (): Promise<void> => {
    // The answer on its way may have been read before the change.
    if (looking) isStale = true;
    return (looking ??= ask().finally(() => (looking = undefined)));
  };
  const stop = store.wakeups.onOwnerWakeup((id) => {
    if (id === nobody) look().catch(onTrouble);
  });
  return { has: (flow) => paused.has(flow), look, stop };
}
