/**
 * The sockets of postgres.js, connected and encrypted here. Left to itself (3.4.9) it connects again at once and for ever where a
 * connection is closed before Postgres has answered, and begins TLS with a server that has none.
 */
import { connect, isIP, Socket } from "node:net";
import { connect as encrypt } from "node:tls";
import type { ConnectionOptions } from "node:tls";
import { withTimeout } from "../base/async.ts";

/** What there is of the driver's parsed options that says where to connect to, and how. */
export interface SocketOptions {
  readonly host: readonly string[];
  readonly port: readonly number[];
  /** Of a Unix socket. */
  readonly path?: string | false | undefined;
  readonly ssl: SslOption;
  readonly sslnegotiation?: string | null;
  /** Seconds. */
  readonly connect_timeout: number;
  readonly target_session_attrs?: string | null | undefined;
}

/** As in `sslmode`, or options of `tls.connect()`. True verifies. */
export type SslOption = "require" | "allow" | "prefer" | "verify-full" | boolean | object;

/** sslmode=verify-ca: the certificate counts, whatever name stands in it. Data, because it goes to threads too. */
export const anyName = { rejectUnauthorized: true, isAnyName: true };

/** Where connections lead to just now. */
export interface Link {
  readonly host: string;
  readonly port: number;
  readonly isEncrypted: boolean;
}

export interface Sockets {
  /** One that is connected; one that fails at once, as the driver cannot hear of it otherwise. */
  open(): Promise<Socket>;
  /** Null before the first. */
  readonly link: Link | null;
  /** Nothing is connected any more that is not yet. */
  close(): void;
}

/** Codes of what no error of Node's stands for. */
export const socketCodes = {
  closed: "CONNECTION_CLOSED",
  closedEarly: "CLOSED_EARLY",
  notPostgres: "NOT_POSTGRES",
  noTls: "NO_TLS",
  noPassword: "NO_PASSWORD",
  timeout: "CONNECT_TIMEOUT",
  wrongSession: "WRONG_SESSION",
  ended: "CONNECTION_ENDED",
} as const;

export function openSockets(options: SocketOptions): Sockets {
  const { host, port, path, connect_timeout: seconds, target_session_attrs: wanted } = options;
  const connecting = new Set<Socket>();
  // Hosts that let somebody in and were not what is wanted, and why, until one is.
  const unfit = new Map<number, Error>();
  let link: Link | null = null;
  let isClosed = false;
  let isAnyGood = false;

  /** Is another host to be asked instead of one that has said this? */
  const refuse = (index: number, said: Error | Greeting, found: Link): boolean => {
    const reason = said instanceof Error ? said : isAnyGood ? null : misfit(said, wanted);
    if (reason !== null) {
      if (host.length === 1 && reason === said) return false;
      unfit.set(index, reason);
      return true;
    }
    unfit.clear();
    isAnyGood = false;
    link = found;
    return false;
  };

  const reach = async (index: number): Promise<Socket> => {
    const to = { host: host[index] ?? "localhost", port: port[index] ?? 5432 };
    const socket = path ? connect({ path }) : connect(to);
    connecting.add(socket);
    try {
      const ready = prepare(socket, to.host, options);
      const connected = await withTimeout(ready, seconds > 0 ? seconds * 1000 : null, () => {
        throw problem(socketCodes.timeout, `no connection within ${seconds} s`);
      });
      if (isClosed) throw problem(socketCodes.ended, "the client was ended");
      const found = { ...to, isEncrypted: connected !== socket };
      link ??= found;
      return outspoken(connected, (said) => refuse(index, said, found));
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      connecting.delete(socket);
    }
  };

  return {
    async open() {
      let failure: unknown;
      for (let pass = 0; pass < 2; pass++) {
        for (let index = 0; index < host.length && !isClosed; index++) {
          if (unfit.has(index)) continue;
          try {
            return await reach(index);
          } catch (error) {
            failure = error;
          }
        }
        isAnyGood = wanted === "prefer-standby" && unfit.size > 0;
        failure ??= Array.from(unfit.values()).at(-1);
        unfit.clear();
        if (!isAnyGood) break;
      }
      return failing(failure ?? problem(socketCodes.ended, "the client was ended"));
    },
    get link() {
      return link;
    },
    close() {
      isClosed = true;
      for (const socket of connecting) socket.destroy();
    },
  };
}

async function prepare(socket: Socket, host: string, { ssl, sslnegotiation }: SocketOptions): Promise<Socket> {
  await arrived(socket, "connect");
  if (!ssl) return socket;
  if (sslnegotiation !== "direct") {
    socket.write(sslRequest);
    const answer = String(await arrived(socket, "data"));
    // Where there is TLS, allow takes it too: no more can be read that way.
    if (answer === "N" && isOptional(ssl)) return socket;
    if (answer === "N") throw problem(socketCodes.noTls, "the server offers no TLS");
    // Nor may anything follow that byte: whoever stands in between could have put it there, unencrypted.
    if (answer !== "S") throw problem(socketCodes.notPostgres, "the answer to the request for TLS is none");
  }
  const options: ConnectionOptions = {
    socket,
    host,
    ...(isIP(host) === 0 && { servername: host }),
    ...(sslnegotiation === "direct" && { ALPNProtocols: ["postgresql"] }),
    ...tlsOptions(ssl),
  };
  const encrypted = encrypt(options);
  await arrived(encrypted, "secureConnect");
  return encrypted;
}

function isOptional(ssl: SslOption): boolean {
  return ssl === "prefer" || ssl === "allow" || (typeof ssl === "object" && "isOptional" in ssl);
}

/** What `tls.connect()` and `pg` are told. */
export function tlsOptions(ssl: SslOption): ConnectionOptions {
  if (typeof ssl !== "object" || ssl === null)
    return { rejectUnauthorized: !["require", "allow", "prefer"].includes(String(ssl)) };
  return "isAnyName" in ssl ? { ...ssl, checkServerIdentity: () => undefined } : ssl;
}

/** Length, then the code of the request. */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);
const cancelRequest = Buffer.from([0, 0, 0, 16, 4, 210, 22, 46]);

/** @returns what the event brings; rejects where the socket fails or closes before */
function arrived(socket: Socket, event: "connect" | "secureConnect" | "data"): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      socket.off(event, succeed).off("error", fail).off("close", end);
      // What comes later is said by what waits then.
      socket.once("error", () => {});
    };
    const succeed = (value: unknown) => {
      stop();
      resolve(value);
    };
    const fail = (error: unknown) => {
      stop();
      reject(error);
    };
    const end = () => fail(closedEarly());
    socket.once(event, succeed).once("error", fail).once("close", end);
  });
}

/** First bytes of what Postgres may say to a start-up message: authentication, an error, a notice, the protocol's version. */
const greetings = new Set(Buffer.from("RENv"));

/** What a server says of a session before it takes statements. */
type Greeting = ReadonlyMap<string, string>;

/** As libpq judges it. A pooler may not say; then the driver asks. */
function misfit(greeting: Greeting, wanted: string | null | undefined): Error | null {
  const [standby, readOnly] = [greeting.get("in_hot_standby"), greeting.get("default_transaction_read_only")];
  const isReadOnly = standby === "on" || readOnly === "on";
  const known = standby !== undefined && readOnly !== undefined;
  const fits: Readonly<Record<string, boolean>> = {
    "read-write": !isReadOnly,
    "read-only": isReadOnly,
    primary: standby !== "on",
    standby: standby !== "off",
    "prefer-standby": standby !== "off",
  };
  if (!wanted || !known || fits[wanted] !== false) return null;
  return problem(socketCodes.wrongSession, `no host has a session that is ${wanted}, as target_session_attrs asks`);
}

/** Reads along until the server is ready, which ends it. Gives what it said when that is clear, or why it lets nobody in now. */
function listening(): (data: Buffer) => Error | Greeting | null {
  const greeting = new Map<string, string>();
  let rest: Buffer = Buffer.alloc(0);
  return (data) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 5) {
      const length = rest.readUInt32BE(1) + 1;
      if (rest.length < length) return null;
      const fields = rest.toString("utf8", 5, length).split("\0");
      const type = rest.toString("latin1", 0, 1);
      rest = rest.subarray(length);
      if (type === "S") greeting.set(fields[0] ?? "", fields[1] ?? "");
      // Starting up, shutting down, or recovering: another host may do.
      if (type === "E" && fields.includes("C57P03"))
        return problem(
          "57P03",
          fields.find((field) => field.startsWith("M"))?.slice(1) ?? "it takes no connections now",
        );
      if (type === "Z" || type === "E") return greeting;
    }
    return null;
  };
}

/**
 * The same socket; it never closes without an error, so that whoever waits for it hears of that.
 *
 * @param refuse what its server said, or why it is none; true leaves it without a word, and the driver asks for another
 */
function outspoken(socket: Socket, refuse: (said: Error | Greeting) => boolean): Socket {
  let hasSpoken = false;
  let isLeft = false;
  let read: ReturnType<typeof listening> | null = listening();
  const leaves = (said: Error | Greeting): boolean => {
    read = null;
    isLeft ||= refuse(said);
    return isLeft;
  };
  let hasFailed = false;
  // To a request to cancel the server only closes, and the driver lets go of whoever would hear an error then.
  let isCancel = false;
  const write = socket.write.bind(socket) as (data: unknown, ...rest: unknown[]) => boolean;
  socket.write = (data: unknown, ...rest: unknown[]): boolean => {
    isCancel ||= data instanceof Uint8Array && Buffer.compare(data.subarray(0, 8), cancelRequest) === 0;
    return write(data, ...rest);
  };
  const emit = socket.emit.bind(socket);
  // Not listeners of its own: the first data must not be missed by the driver's, which come later.
  socket.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    if (event === "data" && !hasSpoken) {
      hasSpoken = true;
      const [first] = args;
      if (!(first instanceof Uint8Array) || !greetings.has(first[0] ?? 0)) {
        socket.destroy(problem(socketCodes.notPostgres, "what answers there is not Postgres"));
        return true;
      }
    }
    if (event === "data" && read && args[0] instanceof Buffer) {
      const said = read(args[0]);
      if (said && leaves(said)) socket.destroy();
    }
    if (isLeft) return event !== "close" || emit(event, false);
    if (event === "error" && !hasSpoken && args[0] instanceof Error && leaves(args[0])) return true;
    if (event === "error") hasFailed = true;
    if (event === "close" && !hasFailed && !isCancel) {
      if (!hasSpoken && leaves(closedEarly())) return emit(event, false);
      emit("error", hasSpoken ? closed() : closedEarly());
    }
    return emit(event, ...args);
  };
  return socket;
}

/** A socket that fails once the driver listens to it. */
export function failing(error: unknown): Socket {
  const socket = new Socket();
  // It says that it is not connected, before it says why.
  socket.write = () => true;
  setImmediate(() => socket.destroy(error instanceof Error ? error : new Error(String(error))));
  return socket;
}

function closed(): Error {
  return problem(socketCodes.closed, "the connection was lost");
}

function closedEarly(): Error {
  return problem(socketCodes.closedEarly, "the server closed the connection before it had answered");
}

export function problem(code: string, message: string, cause?: unknown): Error {
  return Object.assign(new Error(message, { cause }), { code });
}
