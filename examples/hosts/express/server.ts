/** Express 5, with the worker in the same process, and the console. */
import express from "express";
import { createConsole, toNodeHandler } from "flowledger/console";
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

const app = express();
app.use(express.json());
app.post("/orders", async (request, response) => void response.status(201).json(await begin(request.body)));
app.get("/orders/:id", async (request, response) => void response.json(await look(request.params.id)));
app.post(
  "/orders/:id/approval",
  async (request, response) => void response.json(await approve(request.params.id, request.body)),
);
// The application's own policy holds for the console too.
app.use("/admin", (_request, response, next) => {
  response.appendHeader("content-security-policy", "default-src 'self'; object-src 'none'; base-uri 'none'");
  next();
});
app.use("/admin", toNodeHandler(admin));

await orchestrator.migrate();
await orchestrator.startWorker();
const server = app.listen(Number(process.env.PORT ?? 3000));
process.once("SIGTERM", () => {
  server.close();
  void orchestrator.close();
});
