/** Express 5, with the worker in the same process. */
import express from "express";
import { approve, begin, look, orchestrator } from "./order.ts";

const app = express();
app.use(express.json());
app.post("/orders", async (request, response) => void response.status(201).json(await begin(request.body)));
app.get("/orders/:id", async (request, response) => void response.json(await look(request.params.id)));
app.post(
  "/orders/:id/approval",
  async (request, response) => void response.json(await approve(request.params.id, request.body)),
);

await orchestrator.migrate();
await orchestrator.startWorker();
const server = app.listen(Number(process.env.PORT ?? 3000));
process.once("SIGTERM", () => {
  server.close();
  void orchestrator.close();
});
