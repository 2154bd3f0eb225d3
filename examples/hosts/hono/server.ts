/** Hono, with the worker in the same process. */
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { approve, begin, look, orchestrator } from "./order.ts";

const app = new Hono();
app.post("/orders", async (c) => c.json(await begin(await c.req.json()), 201));
app.get("/orders/:id", async (c) => c.json(await look(c.req.param("id"))));
app.post("/orders/:id/approval", async (c) => c.json(await approve(c.req.param("id"), await c.req.json())));

await orchestrator.migrate();
await orchestrator.startWorker();
const server = serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) });
process.once("SIGTERM", () => {
  server.close();
  void orchestrator.close();
});
