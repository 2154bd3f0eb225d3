/** The host of a handle whose execution is on its way into the database: whatever it asks waits for that. */
import type { ExecutionHost } from "./host.ts";

/** @param begun rejects with what was wrong with the start, and so does whatever is asked then */
export function hostAfter(begun: Promise<void>, host: ExecutionHost): ExecutionHost {
  let hasBegun = false;
  const after = <T>(ask: () => Promise<T>): Promise<T> => (hasBegun ? ask() : begun.then(ask));
  begun.then(
    () => (hasBegun = true),
    () => {},
  );
  const { store, outcomes, streams } = host;
  return {
    ...host,
    send: (id, flow, send) => after(() => host.send(id, flow, send)),
    store: {
      ...store,
      reads: waiting(store.reads, after),
      commands: waiting(store.commands, after),
      commandsIn: (tx) => after(() => store.commandsIn(tx)),
      children: waiting(store.children, after),
      starts: waiting(store.starts, after),
    },
    outcomes: {
      ...outcomes,
      closed: (id, options) => after(() => outcomes.closed(id, options)),
      header: (id) => after(() => outcomes.header(id)),
    },
    streams: {
      timers: streams.timers,
      open(id) {
        const reader = streams.open(id);
        return { ...reader, read: (from) => after(() => reader.read(from)) };
      },
    },
  };
}

/** A group of the store, all of whose functions give a promise. */
function waiting<T extends object>(group: T, after: <R>(ask: () => Promise<R>) => Promise<R>): T {
  return new Proxy(group, {
    get(target, name) {
      const asked: unknown = Reflect.get(target, name);
      return typeof asked === "function"
        ? (...given: unknown[]) => after(async () => Reflect.apply(asked, target, given))
        : asked;
    },
  });
}
