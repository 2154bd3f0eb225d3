/**
 * postgres.js as this library uses it: what 3.4.9 does when connections die is made good here, and `stack.test.ts` kills
 * connections to see it. Apart from `connection.ts`, because the heartbeat's thread loads it and little else.
 */
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
