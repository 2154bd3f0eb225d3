/** The routes of `examples/live` for other servers: items arrive, a cursor resumes, a reader that goes away is let go. */
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import fastify from "fastify";
import { expect, test, vi } from "vitest";
import { storyStream } from "../../examples/live/fastify.ts";
import { story } from "../../examples/live/flow.ts";
import { liveApp } from "../../examples/live/server.ts";
import { cursorOf, defineFlow, toSSE } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving, visiting } from "../support/flows.ts";

const database = await testDatabase();
process.env["DATABASE_URL"] = database.url;
const words = ["Once", "upon", "a", "time"];

/** Asks the route for a stream, as a browser would. */
type Ask = (id: string, init?: RequestInit) => Promise<Response>;

async function openFastify(orchestrator: Orchestrator) {
  const app = fastify();
  app.get("/stories/:id/stream", storyStream(orchestrator));
  const url = await app.listen({ port: 0, host: "127.0.0.1" });
  const ask: Ask = (id, init) => fetch(`${url}/stories/${id}/stream`, init);
  return { ask, [Symbol.asyncDispose]: () => app.close() };
}

async function openHono(orchestrator: Orchestrator) {
  const server = await listening(liveApp(orchestrator).fetch);
  const ask: Ask = (id, init) => fetch(`http://127.0.0.1:${server.port}/stories/${id}/stream`, init);
  return { ask, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

async function openNext() {
  const { GET } = await import("../../examples/live/next-route.ts");
  const ask: Ask = (id, init) =>
    GET(new Request(`http://localhost/stories/${id}/stream`, init), { params: Promise.resolve({ id }) });
  return { ask, [Symbol.asyncDispose]: async () => {} };
}

test.each([
  ["Fastify", openFastify],
  ["Hono", openHono],
  ["Next.js", openNext],
])("LI-SRV-04: %s: items arrive, Last-Event-ID goes on after the last one, and the end is told", async (_, open) => {
  await using orchestrator = await serving(database, [story]);
  await using reader = visiting(database);
  await using server = await open(reader);
  const { id } = await orchestrator.flow(story).startExecution({ words, everyMs: 5 }, { autoCloseTimeout: 0 });

  const all = await (await server.ask(id)).text();
  const rest = await (await server.ask(id, { headers: { "last-event-id": `2-${id.slice(-8)}` } })).text();

  expect(all).toBe(`: open\n\n${words.map(messageOf(id)).join("")}event: end\ndata: null\n\n`);
  expect(rest).toBe(`: open\n\n${words.map(messageOf(id)).slice(2).join("")}event: end\ndata: null\n\n`);
});

test.each([
  ["Fastify", openFastify],
  ["Hono", openHono],
  ["Next.js", openNext],
])("%s: a reader that goes away ends its response, and the execution goes on", async (_, open) => {
  await using orchestrator = await serving(database, [story]);
  const { ended, watched } = watching(visiting(database));
  await using server = await open(watched);
  const input = { words, everyMs: 60_000 };
  const execution = await orchestrator.flow(story).startExecution(input, { autoCloseTimeout: 0 });
  const gone = new AbortController();
  const body = (await server.ask(execution.id, { signal: gone.signal })).body?.getReader();
  while (!new TextDecoder().decode((await body?.read())?.value).includes("Once"));

  gone.abort();

  // Next.js takes its orchestrator from the environment: there the body tells.
  const left = open === openNext ? (await body?.read())?.done : await ended;
  expect(left).toBe(true);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open" });
  await execution.cancel();
  await watched.close();
});

const lots = defineFlow("live-lots").to("put", async (ctx) => {
  for (let n = 1; n <= 200; n++) await ctx.putIntoStream("x".repeat(100_000));
});

test.each([
  ["Fastify", lotsByFastify],
  ["Hono", lotsByHono],
])(
  "%s: a reader that takes nothing loses its connection, and what it missed is there for it (F46)",
  async (_, open) => {
    await using orchestrator = await serving(database, [lots]);
    const { ended, watched } = watching(visiting(database));
    vi.spyOn(console, "error").mockImplementation(() => {});
    await using server = await open(watched);
    const execution = await orchestrator.flow(lots).startExecution(null, { autoCloseTimeout: 0 });
    await execution.waitForClose();
    const socket = connect(server.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.pause();
    socket.write(`GET /${execution.id} HTTP/1.1\r\nhost: localhost\r\n\r\n`);

    await ended;
    const closed = once(socket, "close");
    socket.resume();
    await closed;
    const rest = await fetch(`http://127.0.0.1:${server.port}/${execution.id}?from=190`);

    expect((await rest.text()).match(/^id: \d+/gm)).toEqual(Array.from({ length: 10 }, (__, n) => `id: ${191 + n}`));
    vi.restoreAllMocks();
    await watched.close();
  },
);

function lotsResponse(orchestrator: Orchestrator, id: string, url: string): Promise<Response> {
  const from = cursorOf({ url, headers: new Headers() });
  return orchestrator
    .getExecution(id)
    .then((execution) => toSSE(execution.streamItems({ timeout: null, from }), { stallTimeout: 200 }));
}

async function lotsByFastify(orchestrator: Orchestrator) {
  const app = fastify();
  app.get("/:id", async (request, reply) =>
    reply.send(await lotsResponse(orchestrator, (request.params as { id: string }).id, request.url)),
  );
  await app.listen({ port: 0, host: "127.0.0.1" });
  return { port: (app.server.address() as AddressInfo).port, [Symbol.asyncDispose]: () => app.close() };
}

function lotsByHono(orchestrator: Orchestrator) {
  return listening((request) => lotsResponse(orchestrator, new URL(request.url).pathname.slice(1), request.url));
}

async function listening(handle: (request: Request) => Response | Promise<Response>) {
  const listener = getRequestListener(handle);
  const server = createServer((request, response) => void listener(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: close };
}

function messageOf(id: string) {
  return (word: string, index: number) => `id: ${index + 1}-${id.slice(-8)}\ndata: ${JSON.stringify({ word })}\n\n`;
}

/** Tells when the reader of a stream has left it. */
function watching(orchestrator: Orchestrator) {
  const { promise: ended, resolve } = Promise.withResolvers<true>();
  const getExecution = orchestrator.getExecution.bind(orchestrator);
  orchestrator.getExecution = async (id) => {
    const execution = await getExecution(id);
    const streamItems = execution.streamItems.bind(execution);
    execution.streamItems = (options) => {
      const items = streamItems(options);
      const leave = items.return.bind(items);
      items.return = (value) => {
        resolve(true);
        return leave(value);
      };
      return items;
    };
    return execution;
  };
  return { ended, watched: orchestrator };
}
