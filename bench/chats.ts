/** Chats: how old a token is when its page has it, with many chats at once. Worker, routes and Postgres share the machine. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { getRequestListener } from "@hono/node-server";
import type { LanguageModel } from "ai";
import { agentFlow, chatRoutes } from "../src/ai.ts";
import { cpuOfServer } from "./cpu.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

/** `CHATS=100 npm run bench -- chats` is a look. */
const chats = Number(process.env["CHATS"] ?? 1000);
const tokensPerSecond = 50;
const seconds = 10;

export async function chatting(bench: Bench): Promise<Figure[]> {
  const speaking = Promise.withResolvers<void>();
  let there = 0;
  const come = () => {
    if (++there >= chats) speaking.resolve();
  };
  const flow = agentFlow("bench-chat", { model: tickingAfter(speaking.promise, come) });
  await using orchestrator = await openWorker(bench, [flow], chats);
  const routes = chatRoutes({ orchestrator, flow, authorize: () => ({ actor: "bench" }) });
  const listener = getRequestListener(async (request) => {
    const response = await routes.fetch(request);
    // The others speak without it.
    if (!response.ok) come();
    return response;
  });
  const server = createServer((request, response) => void listener(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const pages = new URL("./chats-pages.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [pages, `http://127.0.0.1:${port}/chat`, String(chats)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const ended = once(child, "close");
  await Promise.race([speaking.promise, ended]);
  const cpu = process.cpuUsage();
  const ofServer = await cpuOfServer(bench.serverPid());
  await ended;
  const { user, system } = process.cpuUsage(cpu);
  const serverMs = ((await cpuOfServer(bench.serverPid())) ?? Number.NaN) - (ofServer ?? 0);
  server.closeAllConnections();
  server.close();
  const { tokens, lost, p50, p95, cpuUs } = JSON.parse(output) as Pages;
  const name = `${chats} chats × ${tokensPerSecond} tokens/s: token → page`;
  const note = `${tokens} of ${chats * tokensPerSecond * seconds} tokens came, ${lost} pages broke off`;
  return [
    { name: `${name}, p50`, value: p50, unit: "ms", note },
    { name: `${name}, p95`, value: p95, unit: "ms" },
    { name: `${name}, worker and routes`, value: (user + system) / tokens, unit: "µs", note: "of a core per token" },
    { name: `${name}, Postgres`, value: (serverMs * 1000) / tokens, unit: "µs", note: "of a core per token" },
    { name: `${name}, the pages`, value: cpuUs / tokens, unit: "µs", note: "of a core per token, on the same machine" },
  ];
}

interface Pages {
  readonly tokens: number;
  /** Pages whose response was refused, or had no end. */
  readonly lost: number;
  readonly p50: number;
  readonly p95: number;
  readonly cpuUs: number;
}

type Model = Extract<LanguageModel, { specificationVersion: "v4" }>;
type Part = Awaited<ReturnType<Model["doStream"]>>["stream"] extends ReadableStream<infer P> ? P : never;

/** Says when it speaks: at once with all others, when all are there. */
function tickingAfter(speaking: Promise<void>, come: () => void): Model {
  return {
    specificationVersion: "v4",
    provider: "bench",
    modelId: "ticking",
    supportedUrls: {},
    doGenerate: () => Promise.reject(new Error("it only streams")),
    doStream: async () => {
      come();
      return { stream: ReadableStream.from(tick(speaking)) };
    },
  };
}

async function* tick(speaking: Promise<void>): AsyncGenerator<Part> {
  yield { type: "text-start", id: "text" };
  await speaking;
  // As providers do, each in its own time.
  const began = performance.now() + (Math.random() * 1000) / tokensPerSecond;
  for (let n = 0; n < tokensPerSecond * seconds; n++) {
    await sleep(Math.max(0, began + (n * 1000) / tokensPerSecond - performance.now()));
    yield { type: "text-delta", id: "text", delta: `${(performance.timeOrigin + performance.now()).toFixed(1)} ` };
  }
  yield { type: "text-end", id: "text" };
  yield {
    type: "finish",
    finishReason: { unified: "stop", raw: "stop" },
    usage: {
      inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: 1, text: 1, reasoning: undefined },
    },
  };
}
