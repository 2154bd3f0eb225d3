/** A live execution in the browser, with Hono: `node examples/live/server.ts`, DATABASE_URL set, then open the page. */
import { readFileSync } from "node:fs";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { createOrchestrator, cursorOf, FlowledgerError, toSSE } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { story } from "./flow.ts";

const page = readFileSync(new URL("./page.html", import.meta.url), "utf8");
const words = "Once upon a time a process died in the middle of a sentence and another one went on with it".split(" ");

/** The routes: start one, watch one. Who may do that is for your own middleware to say. */
export function liveApp(orchestrator: Orchestrator): Hono {
  const app = new Hono();
  app.onError((error, c) => {
    if (!(error instanceof FlowledgerError)) return c.text("internal error", 500);
    return c.json({ code: error.code, message: error.message }, error.code === "EXECUTION_NOT_FOUND" ? 404 : 400);
  });
  app.get("/", (c) => c.html(page));
  app.post("/stories", async (c) => {
    const execution = await orchestrator.flow(story).startExecution({ words }, { autoCloseTimeout: 0 });
    return c.json({ id: execution.id });
  });
  app.get("/stories/:id/stream", async (c) => {
    const from = cursorOf(c.req.raw);
    const execution = await orchestrator.getExecution(c.req.param("id"));
    return toSSE(execution.streamItems({ timeout: null, from }), { request: c.req.raw });
  });
  return app;
}

if (import.meta.main) {
  const orchestrator = createOrchestrator({ flows: [story] });
  await orchestrator.migrate();
  await orchestrator.startWorker();
  serve({ fetch: liveApp(orchestrator).fetch, port: 3000 }, ({ port }) => console.log(`http://localhost:${port}`));
}
