/** Hono, with the worker in the same process, and the console. */
import { serve } from "@hono/node-server";
import { createConsole } from "flowledger/console";
import { Hono } from "hono";
import { approve, begin, look, orchestrator } from "./order.ts";

/** Behind the application's own login: here a cookie that ADMIN_SESSION names. */
const admin = createConsole({
  orchestrator,
  authorize(request) {
    const session = process.env.ADMIN_SESSION ?? "";
    const isAnn = session !== "" && (request.headers.get("cookie") ?? "").includes(`session=${session}`);
    return isAnn ? { actor: "ann@acme.example", role: "operator" } : null;
  },
});

const app = new Hono();
app.post("/orders", async (c) => c.json(await begin(await c.req.json()), 201));
app.get("/orders/:id", async (c) => c.json(await look(c.req.param("id"))));
app.post("/orders/:id/approval", async (c) => c.json(await approve(c.req.param("id"), await c.req.json())));
// The application's own policy holds for the console too.
app.use("/admin/*", async (c, next) => {
  await next();
  c.header("content-security-policy", "default-src 'self'; object-src 'none'; base-uri 'none'", { append: true });
});
app.mount("/admin", admin.fetch);

await orchestrator.migrate();
await orchestrator.startWorker();
const server = serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) });
process.once("SIGTERM", () => {
  server.close();
  void orchestrator.close();
});
