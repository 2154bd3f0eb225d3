/** The routes of `examples/live` for other servers: items arrive, a cursor resumes, a reader that goes away is let go. */
import fastify from "fastify";
import { expect, test } from "vitest";
import { storyStream } from "../../examples/live/fastify.ts";
import { story } from "../../examples/live/flow.ts";
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

async function openNext() {
  const { GET } = await import("../../examples/live/next-route.ts");
  const ask: Ask = (id, init) =>
    GET(new Request(`http://localhost/stories/${id}/stream`, init), { params: Promise.resolve({ id }) });
  return { ask, [Symbol.asyncDispose]: async () => {} };
}

test.each([
  ["Fastify", openFastify],
  ["Next.js", openNext],
])("%s: items arrive, Last-Event-ID goes on after the last one, and the end is told", async (_, open) => {
  await using orchestrator = await serving(database, [story]);
  await using reader = visiting(database);
  await using server = await open(reader);
  const { id } = await orchestrator.flow(story).startExecution({ words, everyMs: 5 }, { autoCloseTimeout: 0 });

  const all = await (await server.ask(id)).text();
  const rest = await (await server.ask(id, { headers: { "last-event-id": "2" } })).text();

  expect(all).toBe(`: open\n\n${words.map(messageOf).join("")}event: end\ndata: null\n\n`);
  expect(rest).toBe(`: open\n\n${words.map(messageOf).slice(2).join("")}event: end\ndata: null\n\n`);
});

test.each([
  ["Fastify", openFastify],
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
  const left = open === openFastify ? await ended : (await body?.read())?.done;
  expect(left).toBe(true);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open" });
  await execution.cancel();
  await watched.close();
});

function messageOf(word: string, index: number): string {
  return `id: ${index + 1}\ndata: ${JSON.stringify({ word })}\n\n`;
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
