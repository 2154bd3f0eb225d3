/** Commands queue for a few connections of the pool: one that waits for somebody's lock leaves connections to everybody else. */
import { backoff } from "../base/async.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import { isLocked } from "./refusals.ts";

export interface CommandQueue {
  /**
   * Does it as soon as there is room, and again while what it needs is locked; after five seconds it throws what the last try threw.
   *
   * @param key what is waited for: one that is locked takes few permits
   */
  run<T>(key: string, work: () => Promise<T>): Promise<T>;
}

/** How long one try waits for a lock, as Postgres reads it: no longer, because it has a connection meanwhile. */
export const tryWithin = "100ms";

const giveUpAfterMs = 5000;
/** Connections that commands leave to claims, commits and starts. */
export const leftToOthers = 4;
const permitsPerKey = 3;

/** @param connections of the pool */
export function openCommandQueue(connections: number): CommandQueue {
  const permits = Math.max(1, connections - leftToOthers);
  const taken = new Map<string, number>();
  const waiting: { readonly key: string; readonly enter: () => void }[] = [];
  let count = 0;

  function fits(key: string): boolean {
    return count < permits && (taken.get(key) ?? 0) < permitsPerKey;
  }
  function take(key: string): void {
    count += 1;
    taken.set(key, (taken.get(key) ?? 0) + 1);
  }
  function leave(key: string): void {
    count -= 1;
    const left = (taken.get(key) ?? 1) - 1;
    if (left === 0) taken.delete(key);
    else taken.set(key, left);
    const next = waiting.findIndex((one) => fits(one.key));
    if (next >= 0) waiting.splice(next, 1)[0]?.enter();
  }
  async function once<T>(key: string, work: () => Promise<T>): Promise<T> {
    if (fits(key)) take(key);
    else
      await new Promise<void>((resolve) => {
        waiting.push({
          key,
          enter: () => {
            take(key);
            resolve();
          },
        });
      });
    try {
      return await work();
    } finally {
      leave(key);
    }
  }
  return {
    async run(key, work) {
      const deadline = liveness.monotonic() + giveUpAfterMs;
      for (let attempt = 0; ; attempt++) {
        try {
          return await once(key, work);
        } catch (error) {
          if (!isLocked(error) || liveness.monotonic() > deadline) throw error;
          await liveness.sleep(backoff({ attempt, base: 20, max: 500, jitter: 1 }));
        }
      }
    },
  };
}
