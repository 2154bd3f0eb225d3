/** The console for servers that speak Node's own requests: Express, NestJS, Fastify, `node:http`. */
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";

/**
 * `app.use("/admin/flows", toNodeHandler(console))` of Express and NestJS. A body that the application has parsed already
 * (`express.json()`) is read from there; a route of Fastify hands its own over:
 * `(request, reply) => { reply.hijack(); void handler(Object.assign(request.raw, { body: request.body }), reply.raw); }`.
 */
export function toNodeHandler(console: {
  readonly fetch: (request: Request) => Promise<Response>;
}): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  return async (incoming, outgoing) => {
    const gone = new AbortController();
    outgoing.once("close", () => gone.abort());
    const request = requestOf(incoming, gone.signal);
    if (request === null) return void outgoing.writeHead(400).end();
    const answer = await console.fetch(request);
    // An unread body would stand before the connection's next request.
    if (request.body && !request.bodyUsed) void request.body.cancel().catch(() => {});
    await send(answer, incoming.method === "HEAD", outgoing, gone.signal);
  };
}

/** Null where its address or its method is none. */
function requestOf(incoming: IncomingMessage, signal: AbortSignal): Request | null {
  const { method = "GET", url = "/", rawHeaders } = incoming;
  const headers = new Headers();
  try {
    for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
      const [name = "", value = ""] = rawHeaders.slice(index, index + 2);
      // Names with a colon are HTTP/2's own.
      if (!name.startsWith(":")) headers.append(name, value);
    }
    const scheme = "encrypted" in incoming.socket ? "https" : "http";
    const host = headers.get("host") ?? String(incoming.headers[":authority"] ?? "localhost");
    return new Request(new URL(`${scheme}://${host}${url.startsWith("/") ? url : `/${url}`}`), {
      method,
      headers,
      signal,
      ...(method !== "GET" && method !== "HEAD" && { body: bodyOf(incoming), duplex: "half" }),
    });
  } catch {
    return null;
  }
}

function bodyOf(incoming: IncomingMessage): ReadableStream | string {
  const parsed: unknown = Reflect.get(incoming, "body");
  if (parsed === undefined || !incoming.readableEnded) return streamOf(incoming);
  return typeof parsed === "string" ? parsed : JSON.stringify(parsed);
}

/** So much of a body that was refused is still taken off the wire, so that the connection can be used again. */
const mostDropped = 67_108_864;

/** What is not read to its end does not end the connection, as the stream of Node would: the answer is on its way on it. */
function streamOf(incoming: IncomingMessage): ReadableStream {
  let isOver = false;
  return new ReadableStream({
    start(controller) {
      const end = (last: () => void) => () => {
        if (!isOver) last();
        isOver = true;
      };
      incoming.on("data", (part: Buffer) => {
        if (isOver) return;
        controller.enqueue(part);
        if ((controller.desiredSize ?? 0) <= 0) incoming.pause();
      });
      incoming.once(
        "end",
        end(() => controller.close()),
      );
      incoming.once(
        "close",
        end(() => controller.error(new Error("the request was cut off"))),
      );
      incoming.on(
        "error",
        end(() => controller.error(new Error("the request was cut off"))),
      );
    },
    pull: () => void incoming.resume(),
    cancel() {
      isOver = true;
      let dropped = 0;
      incoming.on("data", (part: Buffer) => {
        dropped += part.length;
        if (dropped > mostDropped) incoming.destroy();
      });
      incoming.resume();
    },
  });
}

async function send(answer: Response, isHead: boolean, outgoing: ServerResponse, gone: AbortSignal): Promise<void> {
  const { status, headers, body } = answer;
  for (const [name, value] of headers) {
    // Policies add up: what the host allows, and what the page needs.
    if (name === "content-security-policy") outgoing.appendHeader(name, value);
    else if (name !== "set-cookie") outgoing.setHeader(name, value);
  }
  const cookies = headers.getSetCookie();
  if (cookies.length > 0) outgoing.setHeader("set-cookie", cookies);
  outgoing.writeHead(status);
  if (body === null || isHead) {
    outgoing.end();
    await body?.cancel();
    return;
  }
  outgoing.flushHeaders();
  const reader = body.getReader();
  gone.addEventListener("abort", () => void reader.cancel().catch(() => {}));
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done || gone.aborted) break;
      if (!outgoing.write(value)) await once(outgoing, "drain", { signal: gone });
    }
    outgoing.end();
  } catch {
    // The response had begun: its reader sees that it was cut off, and comes back.
    outgoing.destroy();
  }
}
