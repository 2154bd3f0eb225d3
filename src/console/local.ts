/** The console of this machine: on loopback, with a token in its URL that ends after twelve hours. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { UsageError } from "../base/errors.ts";
import { requireActor } from "../base/option.ts";
import { systemTimers } from "../base/timers.ts";
import type { Timers } from "../base/timers.ts";
import { consoleWith } from "./create.ts";
import type { Orchestrator } from "../orchestrator.ts";
import { json, securityHeaders } from "./http.ts";
import { toNodeHandler } from "./node.ts";

/** A console that listens on this machine. */
export interface LocalConsole extends AsyncDisposable {
  /** With the token behind `#`, where no server, proxy or log sees it. */
  readonly url: string;
}

/** Of `openConsole()`. */
export interface LocalOptions {
  /** On 127.0.0.1. @default a free one */
  port?: number | undefined;
  /** Nothing can be done, only looked at. @default false */
  readOnly?: boolean | undefined;
  /** Who does what is done. @default "console" */
  as?: string | undefined;
  /** By which the token ends. */
  timers?: Pick<Timers, "now">;
}

/** Scripts call it by the second. */
const calls = ["/-/", "/api/"];
const tokenMs = 12 * 3_600_000;

/** @throws {UsageError} the port is taken, or the name is none */
export async function openConsole(orchestrator: Orchestrator, options: LocalOptions = {}): Promise<LocalConsole> {
  const { port = 0, readOnly = false, as = "console", timers = systemTimers } = options;
  const actor = requireActor(as, "--as of console");
  const token = randomBytes(32).toString("base64url");
  const wanted = digest(token);
  const endsAt = timers.now() + tokenMs;
  const access = { actor, role: readOnly ? "viewer" : "admin" } as const;
  const authorize = (request: Request) => {
    // The page has no data, and is loaded before a token can be sent.
    const { pathname } = new URL(request.url);
    if (!calls.some((mark) => pathname.includes(mark))) return access;
    const given = /^Bearer (.+)$/.exec(request.headers.get("authorization") ?? "")?.[1] ?? "";
    if (!timingSafeEqual(digest(given), wanted))
      return json({ code: "TOKEN_WRONG", message: "open the URL that the console printed" }, 401);
    if (timers.now() >= endsAt)
      return json({ code: "TOKEN_ENDED", message: "the token ended after twelve hours: start the console again" }, 401);
    return access;
  };
  const app = consoleWith({ orchestrator, authorize }, calls);
  const headers = Object.entries(securityHeaders(null));
  const handler = toNodeHandler({
    async fetch(request) {
      // Refuses other host names: a stranger's DNS may point one at this address.
      const isOurs = ["127.0.0.1", "localhost", "[::1]"].includes(new URL(request.url).hostname);
      const answer = isOurs ? await app.fetch(request) : json({ code: "HOST_WRONG", message: "not here" }, 403);
      for (const [name, value] of headers) answer.headers.set(name, value);
      return answer;
    },
  });
  const server = createServer((request, response) => void handler(request, response));
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", (error) =>
    reject(new UsageError(`the console cannot listen on port ${port} (${error.message})`, "choose another --port")),
  );
  server.listen(port, "127.0.0.1", resolve);
  await listening;
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/#${token}`,
    async [Symbol.asyncDispose]() {
      const { promise: closed, resolve: done } = Promise.withResolvers<void>();
      server.close(() => done());
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Of one length, so that the comparison takes one time. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
