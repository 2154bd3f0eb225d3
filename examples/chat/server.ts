/** A chat that survives its processes: `node examples/chat/server.ts`, DATABASE_URL set, then open the page, in several tabs. */
import { serve } from "@hono/node-server";
import { build } from "esbuild";
import { Hono } from "hono";
import { chatRoutes } from "../../src/ai.ts";
import { createOrchestrator } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { support } from "./agent.ts";

const html = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Support</title><body><main id="root"></main>
<script type="module" src="/page.js"></script></body></html>`;

/** The page, and the routes that its stock `useChat` calls. Who it is, is for your own login to say. */
export async function chatApp(orchestrator: Orchestrator): Promise<Hono> {
  const chat = chatRoutes({
    orchestrator,
    flow: support,
    authorize: () => ({ actor: "ann" }),
    // What others answer, in the console or in another tab, shows at once.
    onPause: "hold",
  });
  const script = await build({
    entryPoints: [new URL("./page.js", import.meta.url).pathname],
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    define: { "process.env.NODE_ENV": '"production"' },
    logLevel: "error",
  });
  const app = new Hono();
  app.get("/", (c) => c.html(html));
  app.get("/page.js", (c) =>
    c.body(script.outputFiles[0]?.text ?? "", 200, { "content-type": "text/javascript; charset=utf-8" }),
  );
  app.all("/chat", (c) => chat.fetch(c.req.raw));
  app.all("/chat/*", (c) => chat.fetch(c.req.raw));
  return app;
}

if (import.meta.main) {
  const orchestrator = createOrchestrator({ flows: [support] });
  await orchestrator.migrate();
  await orchestrator.startWorker();
  const server = serve(
    { fetch: (await chatApp(orchestrator)).fetch, port: Number(process.env["PORT"] ?? 3000) },
    ({ port }) => console.log(`http://localhost:${port}`),
  );
  process.once("SIGINT", () => {
    server.close();
    void orchestrator.close();
  });
}
