/** What distributed collections share in one worker: making items, hearing how they end, telling parents that are parked. */
import { systemTimers as liveness } from "../base/timers.ts";
import type { CloseHeader } from "../store/append.ts";
import { Batcher } from "../store/batcher.ts";
import type { ParentOfItems } from "../store/collections.ts";
import type { NewExecution } from "../store/starts.ts";
import type { Store } from "../store/store.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { familyOf, indexOf, itemId } from "../ledger/items.ts";
import type { StateWrite } from "../ledger/parts.ts";

/** How an item ended, where this process closed it; null says to look. */
export type ItemListener = (index: number, ending: CloseHeader | null) => void;

export interface Items {
  /** Creates and starts executions that do not exist yet; the others stay as they are. */
  create(items: readonly NewExecution[]): Promise<void>;
  /** Those from `first` on that exist, and whether they have closed. */
  survey(base: ExecutionId, first: number, size: number): Promise<{ index: number; isClosed: boolean }[]>;
  endings(base: ExecutionId, indices: readonly number[]): Promise<Map<ExecutionId, CloseHeader>>;
  /** What they wrote, whichever of these collections they completed in. */
  writes(bases: readonly ExecutionId[], indices: readonly number[]): Promise<StateWrite[]>;
  cancel(base: ExecutionId, size: number, reason: string): Promise<void>;
  /** Calls back when an item of the collection has ended, here or elsewhere. Returns how to stop. */
  listen(base: ExecutionId, listener: ItemListener): () => void;
  /** An item has closed in this process. */
  closed(id: ExecutionId, ending: CloseHeader): void;
  /** Looks after a parent that may be parked. */
  wake(parent: ExecutionId): void;
  /** Nobody waits to be woken. */
  readonly isQuiet: boolean;
  /** What the items of a parent's collection read of it. Not to be written to. */
  parentAtFanOut(parent: ExecutionId, dispatch: number): Promise<ParentOfItems>;
  /** Resolves when nothing is on its way any more. */
  close(): Promise<void>;
}

/** A parent is woken at most so often: what ends meanwhile is one look of its owner. */
const wakeEveryMs = 50;
/** An answer that takes longer is on a dead connection; everything here may be asked again. */
const answerWithinMs = 15_000;
/** Parents as they were at a fan-out that are kept for the items of this process. */
const keptParents = 16;

export function openItems(store: Store, isOwned: (id: ExecutionId) => boolean): Items {
  const { collections, wakeups } = store;
  const listeners = new Map<string, ItemListener>();
  const parents = new Map<string, Promise<ParentOfItems>>();
  const asks = new Batcher<() => Promise<unknown>, unknown>({
    send: (works) => Promise.all(works.map((work) => work())),
    maxItems: 1,
    maxInFlight: 4,
    isPersistent: true,
    timeoutMs: answerWithinMs,
  });
  const wakes = new Batcher<ExecutionId, null>({
    send: async (ids) => {
      await store.claims.wake([...new Set(ids)]);
      for (const id of ids) unwoken.delete(id);
      await liveness.sleep(wakeEveryMs, { ref: false });
      return ids.map(() => null);
    },
    isPersistent: true,
    timeoutMs: answerWithinMs,
  });
  const waking = new Set<Promise<unknown>>();
  const unwoken = new Set<ExecutionId>();
  /** Waits out a database that is away. */
  const ask = async <T>(work: () => Promise<T>): Promise<T> => {
    let answer: { readonly value: T } | undefined;
    await asks.submit(async () => (answer = { value: await work() }));
    if (!answer) throw new Error("the database gave no answer");
    return answer.value;
  };
  const stopListening = wakeups.onReaderWakeup((id) => {
    if (listeners.size > 0) listeners.get(familyOf(id))?.(indexOf(id), null);
  });
  const idsOf = (base: ExecutionId, indices: readonly number[]) => indices.map((index) => itemId(base, index));
  return {
    create: (items) => ask(async () => void (await store.starts.create(items))),
    survey: (base, first, size) => ask(() => collections.survey(base, first, size)),
    endings: (base, indices) => ask(() => collections.endings(idsOf(base, indices))),
    writes: (bases, indices) => ask(() => collections.writes(bases.flatMap((base) => idsOf(base, indices)))),
    cancel: (base, size, reason) =>
      ask(() => collections.cancel(base, size, reason, (ids) => ids.forEach((id) => wakeups.notifyOwner(id)))),
    listen(base, listener) {
      listeners.set(familyOf(base), listener);
      return () => listeners.get(familyOf(base)) === listener && listeners.delete(familyOf(base));
    },
    closed(id, ending) {
      listeners.get(familyOf(id))?.(indexOf(id), ending);
    },
    wake(parent) {
      if (isOwned(parent)) return;
      unwoken.add(parent);
      const woken = wakes.submit(parent).catch(() => unwoken.delete(parent));
      waking.add(woken);
      void woken.finally(() => waking.delete(woken));
    },
    get isQuiet() {
      return unwoken.size === 0;
    },
    parentAtFanOut(parent, dispatch) {
      const key = `${parent} ${dispatch}`;
      const known = parents.get(key) ?? ask(() => collections.parentAtFanOut(parent, dispatch));
      parents.delete(key);
      parents.set(key, known);
      known.catch(() => parents.delete(key));
      const [oldest] = parents.size > keptParents ? parents.keys() : [];
      if (oldest !== undefined) parents.delete(oldest);
      return known;
    },
    async close() {
      stopListening();
      asks.close();
      wakes.close();
      await Promise.allSettled(waking);
    },
  };
}
