/**
 * postgres.js as this library uses it: what 3.4.9 does when connections die is made good here, and `stack.test.ts` kills
 * connections to see it. Apart from `connection.ts`, because the heartbeat's thread loads it and little else.
 */
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";

export type DriverOptions = postgres.Options<Record<string, postgres.PostgresType>>;

export interface Guards {
  /** Queries behind another one on its connection. One of them is never answered when that dies. @default 0 */
  max_pipeline?: number;
}

/** A client; `url` has the last word on nothing but where to connect. */
export function openClient(url: string | null, options: DriverOptions, guards: Guards = {}): postgres.Sql {
  const guarded = {
    onnotice: () => {},
    backoff: reconnectDelay,
    ...options,
    // The driver asks for array types on every new connection and lets go of the answer: when the connection dies just then,
    // an unhandled rejection ends the process. We read no arrays. Without it `reserve()` never resolves on a new connection,
    // so nothing here uses that, nor `begin()`: one statement is one transaction.
    fetch_types: false,
    max_pipeline: 0,
    ...guards,
    connection: {
      ...options.connection,
      // Short messages wait in a buffer, and a connection that closes meanwhile keeps it: that slot of the pool would never
      // send anything again. A start-up message of more than 1 KiB is sent at once and clears the buffer. The padding is in
      // a setting that Postgres and poolers know, and that does not mind spaces.
      DateStyle: "ISO, MDY".padEnd(1100),
    },
  };
  return withDenseResults(url === null ? postgres(guarded) : postgres(url, guarded));
}

/**
 * For a session that listens. One whose process stands still reads nothing; its backend waits to write, and what vacuum could
 * remove meanwhile piles up in the whole database. So Postgres gives it up: by the kernel's clock, as that wait ends by no
 * other (a Unix socket has none). Not a start-up parameter: poolers refuse those they do not know.
 */
export const dropWhenStalled =
  "select set_config('tcp_user_timeout', '4000', false) from pg_settings where name = 'tcp_user_timeout'";

export interface Listener {
  /** Resolves when LISTEN stands, or the first try has failed. */
  readonly tried: Promise<void>;
  close(): Promise<void>;
}

/**
 * A session of its own on these channels, for as long as it takes: when it is lost, another one. Not the driver's `listen()`,
 * which has nowhere to put a setting of that session, and stops trying when Postgres refuses once.
 *
 * @param onChange told when LISTEN stands, and when it is lost
 */
export function openListener(
  sql: postgres.Sql,
  channels: readonly string[],
  hear: (payload: string) => void,
  onChange: (isListening: boolean) => void,
): Listener {
  const { promise: tried, resolve: hasTried } = Promise.withResolvers<void>();
  let isClosed = false;
  let lose = () => {};
  const options = {
    // Parsed already, and taken as it is: so does the driver.
    ...sql.options,
    max: 1,
    idle_timeout: null,
    max_lifetime: null,
    onnotify: (_channel: string, payload: string) => hear(payload),
    onclose: () => lose(),
  };
  const client = postgres(options as unknown as DriverOptions);
  const statement = [...channels.map((channel) => `listen ${channel}`), dropWhenStalled].join("; ");
  const listen = async (): Promise<void> => {
    for (let attempt = 0; !isClosed; attempt++) {
      const { promise: lost, resolve } = Promise.withResolvers<void>();
      lose = resolve;
      try {
        await client.unsafe(statement).simple();
        attempt = 0;
        onChange(true);
        hasTried();
        await lost;
        onChange(false);
      } catch {
        hasTried();
        await delay(reconnectDelay(attempt) * 1000, undefined, { ref: false });
      }
    }
  };
  void listen();
  return {
    tried,
    close() {
      isClosed = true;
      return client.end({ timeout: 1 });
    },
  };
}

/** Seconds to the next try. The driver's own waits grow to twenty seconds, long after Postgres is back. */
function reconnectDelay(attempt: number): number {
  return Math.min(0.5, 0.02 * 2 ** attempt) * (0.5 + Math.random() / 2);
}

/** A connection that dies in the middle of a result goes on counting there afterwards: the next result begins with holes. */
function withDenseResults(sql: postgres.Sql): postgres.Sql {
  return new Proxy(sql, {
    apply(target, self, args) {
      const query: unknown = Reflect.apply(target, self, args);
      if (query instanceof Promise && "resolve" in query && typeof query.resolve === "function") {
        const settle = query.resolve;
        query.resolve = (rows: unknown) => {
          if (Array.isArray(rows)) while (rows.length > 0 && !(0 in rows)) rows.shift();
          Reflect.apply(settle, query, [rows]);
        };
      }
      return query;
    },
  });
}
