/** The console: a web page over the same calls as the library. Loopback only; every call needs the token of its URL. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { z } from "zod";
import { Lookout } from "./execution/look.ts";
import { requireExecutionId } from "./execution/ids.ts";
import { page } from "./console-page.ts";
import { ContractError, FlowledgerError, UsageError } from "./base/errors.ts";
import { cursorOf, toSSE } from "./execution/sse.ts";
import { JsonValue } from "./base/json.ts";
import { internals } from "./orchestrator.ts";
import type { Orchestrator } from "./orchestrator.ts";

export interface Console extends AsyncDisposable {
  /** With the token behind `#`, where no server, proxy or log sees it. */
  readonly url: string;
}

/** Bytes of a request. */
const maxBodyBytes = 1_048_576;
/** Ledger events that the page shows. */
const maxEvents = 200;

/** @param port on 127.0.0.1 @default a free one */
export async function openConsole(orchestrator: Orchestrator, { port = 0 }: { port?: number } = {}): Promise<Console> {
  const token = randomBytes(32).toString("base64url");
  const server = createAdaptorServer({ fetch: consoleApp(orchestrator, token).fetch });
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
      if ("closeAllConnections" in server) server.closeAllConnections();
      await closed;
    },
  };
}

const Answer = z.strictObject({ interrupt: z.string(), value: JsonValue, requestId: z.string().min(1) });
const Correction = z.strictObject({ payload: JsonValue, target: z.string().min(1).optional() });
const Cancel = z.strictObject({ reason: z.string().min(1) });

/** The page and its calls. There is no cookie and no CORS: a page of another origin cannot call on the user's behalf. */
export function consoleApp(orchestrator: Orchestrator, token: string): Hono {
  const wanted = digest(token);
  let lookout: Lookout | undefined;
  const app = new Hono();
  app.onError((error, c) => {
    if (!(error instanceof FlowledgerError)) return c.json({ code: "INTERNAL", message: "internal error" }, 500);
    return c.json({ code: error.code, message: error.message }, error.code === "EXECUTION_NOT_FOUND" ? 404 : 400);
  });
  app.use(async (c, next) => {
    // A name that a stranger's DNS points at us is none of ours.
    const { hostname } = new URL(c.req.url);
    const isOurs = ["127.0.0.1", "localhost", "[::1]"].includes(hostname);
    if (isOurs) await next();
    else c.res = c.text("not here", 403);
    c.header("cache-control", "no-store");
    c.header("x-content-type-options", "nosniff");
    c.header("referrer-policy", "no-referrer");
    c.header("cross-origin-resource-policy", "same-origin");
    return;
  });
  app.get("/", (c) => {
    const nonce = randomBytes(16).toString("base64");
    c.header(
      "content-security-policy",
      `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    );
    return c.html(page(nonce));
  });
  app.use("/api/*", async (c, next) => {
    const given = /^Bearer (.+)$/.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
    if (!timingSafeEqual(digest(given), wanted))
      return c.json({ code: "TOKEN_WRONG", message: "open the URL that the console printed" }, 401);
    await next();
    return;
  });
  app.use(
    "/api/*",
    bodyLimit({
      maxSize: maxBodyBytes,
      onError: (c) =>
        c.json({ code: "BODY_TOO_LARGE", message: `a request has at most ${maxBodyBytes} bytes: send less` }, 413),
    }),
  );

  app.get("/api/executions", async (c) => {
    const { flow, cursor } = c.req.query();
    return c.json(await orchestrator.listExecutions({ limit: 50, ...(flow && { flow }), ...(cursor && { cursor }) }));
  });
  app.get("/api/interrupts", async (c) => c.json(await orchestrator.listPendingInterrupts({ limit: 100 })));
  app.get("/api/executions/:id", async (c) => {
    lookout ??= new Lookout(await orchestrator[internals].store());
    return c.json(await lookout.look(requireExecutionId(c.req.param("id")), { events: maxEvents }));
  });
  app.get("/api/executions/:id/stream", async (c) => {
    const from = cursorOf(c.req.raw);
    const execution = await orchestrator.getExecution(c.req.param("id"));
    return toSSE(execution.streamItems({ timeout: null, from }), { request: c.req.raw });
  });
  app.post("/api/executions/:id/resume", async (c) => {
    const { interrupt, value, requestId } = await bodyOf(c.req, Answer);
    const execution = await orchestrator.getExecution(c.req.param("id"));
    return c.json(
      await execution.continueWith(interrupt, value, {
        resumeRequestId: requestId,
        actor: "console",
        onlyIfPending: true,
      }),
    );
  });
  app.post("/api/executions/:id/intervene", async (c) => {
    const { payload, target } = await bodyOf(c.req, Correction);
    const execution = await orchestrator.getExecution(c.req.param("id"));
    return c.json(await execution.intervene(payload, { author: "console", ...(target && { target }) }));
  });
  app.post("/api/executions/:id/cancel", async (c) => {
    const { reason } = await bodyOf(c.req, Cancel);
    const execution = await orchestrator.getExecution(c.req.param("id"));
    return c.json({ cancelled: await execution.cancel(reason, { actor: "console" }) });
  });
  return app;
}

/** @throws {ContractError} */
async function bodyOf<T>(request: { text(): Promise<string>; path: string }, schema: z.ZodType<T>): Promise<T> {
  const parsed = schema.safeParse(parseJson(await request.text()));
  if (parsed.success) return parsed.data;
  throw new ContractError(`body of ${request.path}`, parsed.error.issues);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Of one length, so that the comparison takes one time. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
