/** Fastify 5: the worker begins when the server is ready, and drains when it closes. */
import Fastify from "fastify";
import { approve, begin, look, orchestrator } from "./order.ts";

const app = Fastify();
app.post<{ Body: { amount: number } }>("/orders", async (request, reply) =>
  reply.code(201).send(await begin(request.body)),
);
app.get<{ Params: { id: string } }>("/orders/:id", (request) => look(request.params.id));
app.post<{ Params: { id: string }; Body: { approved: boolean } }>("/orders/:id/approval", (request) =>
  approve(request.params.id, request.body),
);
app.addHook("onReady", async () => {
  await orchestrator.migrate();
  await orchestrator.startWorker();
});
app.addHook("onClose", () => orchestrator.close());

await app.listen({ port: Number(process.env.PORT ?? 3000) });
process.once("SIGTERM", () => void app.close());
