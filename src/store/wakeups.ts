/** Wake-ups: hints that there is something to read, by id only. One LISTEN connection in, one coalesced NOTIFY out; any may be lost. */
import { systemTimers as liveness } from "../base/timers.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { Batcher } from "./batcher.ts";
import type { Database, Sql } from "./client.ts";
import { openListener } from "./driver.ts";
import type { Listener } from "./driver.ts";
import { channelsOf } from "./names.ts";
import { list } from "./columns.ts";

/** Postgres refuses payloads of 8000 bytes and more. */
const idsPerNotify = 200;
/** Before the id in a message that does not concern the owner. */
const forReaders = "~";
/** Anybody who can connect may send anything: what is no id is not heard. */
const messages = /~?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;
/** Of whom a wake-up tells that flows were paused or go on: no execution has that id. */
export const nobody = "00000000-0000-0000-0000-000000000000";
/** How often a listener looks anyway. */
const lookEveryMs = 2000;

export interface Wakeups extends AsyncDisposable {
  /** Notifies readers in every process, this one first, that an execution has something new. */
  notifyReaders(id: ExecutionId): void;
  /** Notifies the owner too: something came in from outside. */
  notifyOwner(id: ExecutionId): void;
  /**
   * Calls back on wake-ups of one execution, and every two seconds in case one was lost. Returns how to stop.
   *
   * @param listener isLocal: this process told it, before the database does
   */
  subscribe(id: ExecutionId, listener: (isLocal: boolean) => void): () => void;
  /** Calls back when something came in from outside for any execution. */
  onOwnerWakeup(listener: (id: ExecutionId) => void): () => void;
  /** Calls back on every wake-up of readers, of any execution. */
  onReaderWakeup(listener: (id: ExecutionId) => void): () => void;
  /** Calls back once the database itself has brought a wake-up of the id. */
  onDatabaseWakeup(id: ExecutionId, listener: () => void): () => void;
  /** Calls back everybody who listens to one execution: there may be something to see, whatever it is. */
  callAll(): void;
  /** Resolves when LISTEN stands: what is sent from now on is heard. */
  ready(): Promise<void>;
  readonly isListening: boolean;
  /** Somebody waits to be called. */
  readonly isAwaited: boolean;
  /** Calls back when LISTEN is lost, and when it stands again. */
  onChange(listener: (isListening: boolean) => void): () => void;
  close(): Promise<void>;
}

/** @param hasShortcuts whether a process hears itself before the database does, and those who wait look again unasked */
export function openWakeups({ sql, names }: Pick<Database, "sql" | "names">, hasShortcuts = true): Wakeups {
  const listeners = new Map<string, Set<(isLocal: boolean) => void>>();
  const databaseListeners = new Map<string, () => void>();
  const ownerListeners = new Set<(id: ExecutionId) => void>();
  const changeListeners = new Set<(isListening: boolean) => void>();
  const readerListeners = new Set<(id: ExecutionId) => void>();
  const outgoing = new Batcher<string, null>({
    maxItems: 10_000,
    send: async (ids) => {
      await notify(sql, new Set(ids));
      return ids.map(() => null);
    },
  });
  let session: Listener | undefined;
  let isListening = false;
  let isClosed = false;
  const callAll = () => {
    for (const set of listeners.values()) for (const listener of set) listener(false);
  };
  const look = hasShortcuts ? liveness.every(lookEveryMs, callAll).unref() : null;

  const deliver = (message: string, isLocal: boolean) => {
    const isForReaders = message.startsWith(forReaders);
    const id = isForReaders ? message.slice(forReaders.length) : message;
    const set = listeners.get(id);
    if (set) for (const listener of set) listener(isLocal);
    // A notification for readers is no news to owners.
    if (isForReaders) for (const listener of readerListeners) listener(id as ExecutionId);
    else for (const listener of ownerListeners) listener(id as ExecutionId);
  };
  const publish = (message: string) => {
    if (hasShortcuts) deliver(message, true);
    if (!isClosed) outgoing.submit(message).catch(() => {});
  };
  const deliverAll = (payload: string) => {
    for (const message of new Set(payload.match(messages))) {
      databaseListeners.get(message)?.();
      deliver(message, false);
    }
  };
  const change = (isUp: boolean) => {
    const isNews = isListening !== isUp && !isClosed;
    isListening = isUp;
    if (isNews) for (const listener of changeListeners) listener(isUp);
    // Notifications may have been missed while the connection was down.
    if (isUp) listeners.forEach((_, id) => deliver(id, false));
  };
  const listen = () => {
    if (!isClosed) session ??= openListener(sql, channelsOf(names), deliverAll, change);
    return session;
  };
  const close = async () => {
    if (isClosed) return;
    isClosed = true;
    look?.cancel();
    await session?.close();
  };

  return {
    notifyReaders: (id) => publish(`${forReaders}${id}`),
    notifyOwner: (id) => publish(id),
    subscribe(id, listener) {
      listen();
      const set = listeners.get(id) ?? new Set();
      set.add(listener);
      listeners.set(id, set);
      return () => {
        set.delete(listener);
        if (set.size === 0 && listeners.get(id) === set) listeners.delete(id);
      };
    },
    onOwnerWakeup(listener) {
      listen();
      ownerListeners.add(listener);
      return () => ownerListeners.delete(listener);
    },
    onReaderWakeup(listener) {
      readerListeners.add(listener);
      return () => readerListeners.delete(listener);
    },
    onDatabaseWakeup(id, listener) {
      databaseListeners.set(id, listener);
      return () => databaseListeners.delete(id);
    },
    callAll,
    async ready() {
      await listen()?.tried;
    },
    get isListening() {
      return isListening;
    },
    get isAwaited() {
      return listeners.size + ownerListeners.size + databaseListeners.size > 0;
    },
    onChange(listener) {
      changeListeners.add(listener);
      return () => changeListeners.delete(listener);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

// NOTIFY takes a database-wide lock at commit, so it goes out on its own and does not wait for the disk.
async function notify(sql: Sql, messages: ReadonlySet<string>): Promise<void> {
  await sql`
    select pg_notify(m.channel, m.payload), set_config('synchronous_commit', 'off', true)
    from (
      select n.channel, string_agg(n.message, ',') as payload
      from (
        select x.message, flowledger.channel(right(x.message, 36)::uuid) as channel, row_number() over () / ${idsPerNotify}::int as part
        from unnest(${list([...messages])}::text::text[]) x(message)
      ) n
      group by n.channel, n.part
    ) m`;
}
