/** A TCP proxy before Postgres that reads the protocol: it delays, cuts, goes silent, loses answers and notifications. */
import { createServer, connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";

export interface Proxy extends AsyncDisposable {
  readonly port: number;
  readonly counts: {
    connections: number;
    cut: number;
    silenced: number;
    lostAnswers: number;
    lostNotifications: number;
  };
  /** The first letters of every statement that was sent. */
  readonly statements: ReadonlySet<string>;
  /** Added to everything from the server. */
  delayMs: number;
  /** Notifications do not get through. */
  isDeaf: boolean;
  cutAll(): void;
  /** Lets the next statement that contains the text reach its commit, and cuts its connection before the answer. */
  loseAnswerOf(text: string): void;
  /** Lets the answer of the next statement that contains the text come so much later. Asked several times, each is for one statement. */
  delayAnswerOf(text: string, ms: number): void;
  /** Nothing gets through on open connections that match, until `heal`; those it silenced are then cut. */
  silence(matches: (connection: Connection) => boolean): void;
  heal(): void;
}

export interface Connection {
  /** application_name of its start-up message. */
  readonly name: string;
}

interface Pipe extends Connection {
  name: string;
  readonly client: Socket;
  readonly server: Socket;
  readonly statements: Map<string, string>;
  isSilent: boolean;
  synced: number;
  answered: number;
  /** The number of the answer that must not get through. */
  losing: number;
  /** Of that which comes late, and by how much. */
  slow: { readonly number: number; readonly ms: number } | null;
  readonly late: { readonly frame: Buffer; readonly due: number }[];
}

export async function openProxy(target: { host: string; port: () => number }): Promise<Proxy> {
  const pipes = new Set<Pipe>();
  const armed: Armed[] = [];
  const statements = new Set<string>();
  const counts = { connections: 0, cut: 0, silenced: 0, lostAnswers: 0, lostNotifications: 0 };

  const cut = (pipe: Pipe) => {
    pipe.client.destroy();
    pipe.server.destroy();
    pipes.delete(pipe);
  };
  const server = createServer((client) => {
    const upstream = connect(target.port(), target.host);
    counts.connections += 1;
    const pipe: Pipe = {
      name: "",
      client,
      server: upstream,
      statements: new Map(),
      isSilent: false,
      synced: 0,
      answered: 0,
      losing: 0,
      slow: null,
      late: [],
    };
    pipes.add(pipe);
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => cut(pipe));
    }
    const fromClient = newFrames(true, (frame, isStartup) => {
      if (isStartup) pipe.name = /application_name\0([^\0]*)/.exec(frame.toString("latin1"))?.[1] ?? "";
      else noteRequest(pipe, frame, armed, statements);
      if (!pipe.isSilent) upstream.write(frame);
    });
    const fromServer = newFrames(false, (frame) => {
      const kind = String.fromCharCode(frame[0] ?? 0);
      if (kind === "Z") pipe.answered += 1;
      if (pipe.isSilent) return;
      if (pipe.losing > 0 && pipe.answered >= pipe.losing - 1) {
        if (kind !== "Z" || pipe.answered < pipe.losing) return;
        counts.lostAnswers += 1;
        return cut(pipe);
      }
      if (kind === "A" && proxy.isDeaf) {
        counts.lostNotifications += 1;
        return;
      }
      const delayMs = pipe.slow && pipe.answered >= pipe.slow.number - 1 ? pipe.slow.ms : proxy.delayMs;
      if (kind === "Z" && pipe.answered === pipe.slow?.number) pipe.slow = null;
      if (delayMs === 0 && pipe.late.length === 0) return void client.write(frame);
      // In order, as TCP does it, also when the delay has changed meanwhile.
      if (pipe.late.push({ frame, due: performance.now() + delayMs }) === 1) deliver(pipe);
    });
    client.on("data", fromClient);
    upstream.on("data", fromServer);
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));

  const close = async () => {
    for (const pipe of pipes) cut(pipe);
    await new Promise((resolve) => server.close(resolve));
  };
  const proxy: Proxy = {
    port: (server.address() as AddressInfo).port,
    counts,
    statements,
    delayMs: 0,
    isDeaf: false,
    cutAll() {
      counts.cut += pipes.size;
      for (const pipe of pipes) cut(pipe);
    },
    loseAnswerOf: (text) => void armed.push({ text, slowMs: null }),
    delayAnswerOf: (text, ms) => void armed.push({ text, slowMs: ms }),
    silence(matches) {
      for (const pipe of pipes)
        if (matches(pipe) && !pipe.isSilent) {
          pipe.isSilent = true;
          counts.silenced += 1;
        }
    },
    heal() {
      armed.length = 0;
      proxy.delayMs = 0;
      proxy.isDeaf = false;
      for (const pipe of pipes) if (pipe.isSilent) cut(pipe);
    },
    [Symbol.asyncDispose]: close,
  };
  return proxy;
}

function deliver(pipe: Pipe): void {
  for (let [next] = pipe.late; next; [next] = pipe.late) {
    const wait = next.due - performance.now();
    if (wait > 0) return void setTimeout(deliver, wait, pipe);
    if (pipe.client.writable && !pipe.isSilent) pipe.client.write(next.frame);
    pipe.late.shift();
  }
}

/** A statement whose answer is to be late by so much; null is lost. */
interface Armed {
  readonly text: string;
  readonly slowMs: number | null;
}

/** Counts what will be answered, and marks the answer to lose or to hold back. */
function noteRequest(pipe: Pipe, frame: Buffer, armed: Armed[], statements: Set<string>): void {
  const kind = String.fromCharCode(frame[0] ?? 0);
  if (kind === "P") {
    const [name = "", text = ""] = frame.toString("utf8", 5).split("\0");
    pipe.statements.set(name, text);
  }
  if (kind === "B" || kind === "Q") {
    const words = frame.toString("latin1", 5, Math.min(frame.length, 400)).split("\0");
    const text = kind === "Q" ? (words[0] ?? "") : (pipe.statements.get(words[1] ?? "") ?? "");
    if (text !== "") statements.add(text.slice(0, 90));
    const index = pipe.losing > 0 ? -1 : armed.findIndex((wanted) => text.includes(wanted.text));
    const [found] = index >= 0 ? armed.splice(index, 1) : [];
    // The connection's first answer is that of its start.
    const number = pipe.synced + 2;
    if (found?.slowMs === null) pipe.losing = number;
    else if (found) pipe.slow = { number, ms: found.slowMs };
  }
  if (kind === "S" || kind === "Q") pipe.synced += 1;
}

/** Cuts a byte stream into protocol messages. The first one of a client has no type. */
function newFrames(isClient: boolean, onFrame: (frame: Buffer, isStartup: boolean) => void): (data: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  let isStartup = isClient;
  return (data) => {
    rest = rest.length === 0 ? data : Buffer.concat([rest, data]);
    for (;;) {
      const header = isStartup ? 4 : 5;
      if (rest.length < header) return;
      const length = isStartup ? rest.readUInt32BE(0) : rest.readUInt32BE(1) + 1;
      if (rest.length < length) return;
      const frame = rest.subarray(0, length);
      rest = rest.subarray(length);
      const wasStartup = isStartup;
      isStartup = false;
      onFrame(frame, wasStartup);
    }
  };
}
