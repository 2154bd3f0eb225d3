/**
 * postgres.js as this library uses it: what 3.4.9 does when connections die is made good here, and `stack.test.ts` kills
 * connections to see it. Apart from `client.ts`, because the heartbeat's thread loads it and little else.
 */
import postgres from "postgres";
import { backoff, withTimeout } from "../base/async.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import { failing, openSockets, problem, socketCodes, anyName } from "./socket.ts";
import type { Link, SocketOptions, Sockets, SslOption } from "./socket.ts";

/** Options of postgres.js, e.g. `{ host, port, database, username, password, ssl }`. */
export type DriverOptions = postgres.Options<Record<string, postgres.PostgresType>>;

type Settings = Readonly<Record<string, string>>;

export interface Client {
  readonly sql: postgres.Sql;
  /** host:port/database */
  readonly place: string;
  readonly password: Password;
  /** Start-up parameters of the caller's own, as in `connection: { role }` or `?role=`. */
  readonly connection: Settings;
  /** Where its connections lead to, for other drivers. */
  readonly link: Link & { readonly ssl: SslOption };
  /** From now on connections start with one more, where the caller says nothing else; with null, without it. */
  setDefault(setting: string, value: string | null): void;
  /** From now on connections start without the settings that a pooler may refuse. False where they do already. */
  dropSettings(): boolean;
  /** Queries that were sent and have not been answered. */
  readonly underWay: number;
}

/** A function is asked before each connection, for passwords that expire. */
export type Password = string | (() => string | Promise<string>);

/** Start-up parameters: they cost no round trip, and a pooler that refuses one says so. */
export interface ClientSettings {
  /** Whatever anybody else says. */
  readonly fixed: Settings;
  /** The same, but a pooler may not know them. */
  readonly refusable?: Settings;
  /** Where the caller says nothing else; a pooler may not know them either. */
  readonly defaults?: Settings;
}

export function openClient(options: DriverOptions, settings: ClientSettings): Client {
  const parsed = parse(options);
  const sockets = openSockets(parsed);
  let { refusable = {}, defaults = {} } = settings;
  const open = () =>
    withDenseResults(
      postgres({
        ...guarded(parsed, sockets),
        connection: { ...defaults, ...parsed.connection, ...refusable, ...settings.fixed, DateStyle: paddedDateStyle },
      } as unknown as DriverOptions),
    );
  const renewable = renewed(open, sockets);
  const hosts = parsed.host.map((host, index) => `${host}:${parsed.port[index] ?? 5432}`);
  return {
    sql: renewable.sql,
    get underWay() {
      return renewable.underWay;
    },
    password: parsed.pass,
    connection: parsed.connection,
    place: `${hosts.join(",")}/${renewable.sql.options.database}`,
    get link() {
      const { host, port, ssl } = parsed;
      const first = { host: host[0] ?? "localhost", port: port[0] ?? 5432, isEncrypted: Boolean(ssl) };
      return { ...(sockets.link ?? first), ssl };
    },
    setDefault(setting, value) {
      const { [setting]: _, ...others } = defaults;
      defaults = value === null ? others : { ...others, [setting]: value };
      renewable.renew();
    },
    dropSettings() {
      if (Object.keys({ ...refusable, ...defaults }).length === 0) return false;
      refusable = defaults = {};
      renewable.renew();
      return true;
    },
  };
}

/** What the driver makes of options; not in its types. */
type ParsedOptions = SocketOptions & {
  readonly connection: Settings;
  readonly socket?: unknown;
  readonly pass: Password;
};

function parse(options: DriverOptions): ParsedOptions {
  // A client connects with its first query.
  const { target_session_attrs: wanted } = options;
  // Where that is nothing the driver reads a variable, and knows no "any".
  const all = { onnotice: () => {}, backoff: reconnectDelay, ...options, target_session_attrs: wanted ?? "primary" };
  const { options: found } = postgres(all);
  const parsed = found as unknown as ParsedOptions;
  const mode: unknown = parsed.ssl;
  return { ...parsed, ssl: mode === "verify-ca" ? anyName : parsed.ssl, target_session_attrs: wanted };
}

function guarded(parsed: ParsedOptions, sockets: Sockets): object {
  const { socket, pass, host, port } = parsed;
  let password = pass;
  const open = async () => {
    try {
      // The driver does not catch what the function throws, nor what it throws itself of another type: that would end the process.
      const given: unknown = typeof pass === "function" ? await pass() : pass;
      if (typeof given !== "string") throw new Error(`${given === null ? "null" : typeof given} instead of a text`);
      password = given;
      return await sockets.open();
    } catch (error) {
      return failing(problem(socketCodes.noPassword, error instanceof Error ? error.message : String(error), error));
    }
  };
  return {
    ...parsed,
    // One client's state is not shared with the next.
    shared: { retries: 0, typeArrayMap: {} },
    // A socket function of the caller's stays as it is.
    ...(!socket && { socket: open, ssl: false, pass: () => password, host: host.slice(0, 1), port: port.slice(0, 1) }),
    // The driver would prefer without end.
    ...(parsed.target_session_attrs === "prefer-standby" && { target_session_attrs: null }),
    // The driver asks for array types on every new connection and lets go of the answer: when the connection dies just then,
    // an unhandled rejection ends the process. We read no arrays. Without it `reserve()` never resolves on a new connection,
    // so nothing here uses that, nor `begin()`: one statement is one transaction.
    fetch_types: false,
    // Queries behind another one on its connection: one of them is never answered when that dies.
    max_pipeline: 0,
  };
}

/**
 * Short messages wait in a buffer, and a connection that closes meanwhile keeps it: that slot of the pool would never send
 * anything again. A start-up message of more than 1 KiB is sent at once and clears the buffer. The padding is in a setting that
 * Postgres and poolers know, and that does not mind spaces.
 */
const paddedDateStyle = "ISO, MDY".padEnd(1100);

/** Queries are under way, and none of them was answered for so long. */
const silentMs = 8000;
/** How long the queries of a client that was replaced may still take. */
const retireSeconds = 5;

/**
 * A connection that goes dead without a word keeps its place in the pool until the kernel gives it up, after a quarter of an
 * hour. Once nothing at all is heard any more, the next query goes to a client of its own, with new connections.
 */
function renewed(
  open: () => postgres.Sql,
  sockets: Sockets,
): { readonly sql: postgres.Sql; readonly underWay: number; renew(): void } {
  let client = open();
  let pulse = { underWay: 0, heardAt: 0 };
  const renew = () => {
    void client.end({ timeout: retireSeconds }).catch(() => {});
    client = open();
    pulse = { underWay: 0, heardAt: 0 };
  };
  const end: postgres.Sql["end"] = (how) => client.end(how).finally(() => sockets.close());
  const sql = new Proxy(client, {
    get: (_client, key): unknown => (key === "end" ? end : Reflect.get(client, key)),
    apply(_client, self, args) {
      if (pulse.underWay > 0 && liveness.monotonic() - pulse.heardAt > silentMs) renew();
      const query: unknown = Reflect.apply(client, self, args);
      if (isQuery(query)) count(query, pulse);
      return query;
    },
  });
  return {
    sql,
    renew,
    get underWay() {
      return pulse.underWay;
    },
  };
}

/** What there is of a query of the driver's that its types do not show. */
interface Query {
  /** Called when it is sent; a fragment of another query never is. */
  handler: (query: unknown) => unknown;
  resolve: (rows: unknown) => void;
  reject: (error: unknown) => void;
}

function isQuery(value: unknown): value is Query {
  return value instanceof Promise && "handler" in value && "resolve" in value && "reject" in value;
}

function count(query: Query, pulse: { underWay: number; heardAt: number }): void {
  const { handler, resolve, reject } = query;
  let isUnderWay = false;
  const hear = () => {
    if (isUnderWay) pulse.underWay -= 1;
    isUnderWay = false;
    pulse.heardAt = liveness.monotonic();
  };
  query.handler = (sent) => {
    if (pulse.underWay === 0) pulse.heardAt = liveness.monotonic();
    pulse.underWay += 1;
    isUnderWay = true;
    return Reflect.apply(handler, query, [sent]);
  };
  query.resolve = (rows) => {
    hear();
    Reflect.apply(resolve, query, [rows]);
  };
  query.reject = (error) => {
    hear();
    Reflect.apply(reject, query, [error]);
  };
}

/**
 * For a session that listens. One whose process stands still reads nothing; its backend waits to write, and what vacuum could
 * remove meanwhile piles up in the whole database. So Postgres gives it up: by the kernel's clock, as that wait ends by no
 * other (a Unix socket has none). Not a start-up parameter: poolers refuse those they do not know.
 */
export const dropWhenStalled =
  "select set_config('tcp_user_timeout', '4000', false) where current_setting('tcp_user_timeout', true) is not null";

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
  const connect = () => postgres(options as unknown as DriverOptions);
  let client = connect();
  const statement = [...channels.map((channel) => `listen ${channel}`), dropWhenStalled].join("; ");
  const giveUp = () => {
    void client.end({ timeout: 0 }).catch(() => {});
    client = connect();
    throw new Error("LISTEN was not answered");
  };
  const listen = async (): Promise<void> => {
    for (let attempt = 0; !isClosed; attempt++) {
      const { promise: lost, resolve } = Promise.withResolvers<void>();
      lose = resolve;
      try {
        await withTimeout(client.unsafe(statement).simple(), silentMs, giveUp);
        attempt = 0;
        onChange(true);
        hasTried();
        await lost;
        onChange(false);
      } catch {
        hasTried();
        await liveness.sleep(reconnectDelay(attempt) * 1000, { ref: false });
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
  return backoff({ attempt, base: 0.02, max: 0.5, jitter: 0.5 });
}

/** A connection that dies in the middle of a result goes on counting there afterwards: the next result begins with holes. */
function withDenseResults(sql: postgres.Sql): postgres.Sql {
  return new Proxy(sql, {
    apply(target, self, args) {
      const query: unknown = Reflect.apply(target, self, args);
      if (isQuery(query)) {
        const settle = query.resolve;
        query.resolve = (rows) => {
          if (Array.isArray(rows)) while (rows.length > 0 && !(0 in rows)) rows.shift();
          Reflect.apply(settle, query, [rows]);
        };
      }
      return query;
    },
  });
}
