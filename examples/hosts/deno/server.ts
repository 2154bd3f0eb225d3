/** Deno, with its own server and the worker in the same process. */
import process from "node:process";
import { approve, begin, look, orchestrator } from "./order.ts";

async function answer(request: Request): Promise<Response> {
  const [, , id = "", what] = new URL(request.url).pathname.split("/");
  if (request.method === "GET") return Response.json(await look(id));
  if (what === "approval") return Response.json(await approve(id, await request.json()));
  return Response.json(await begin(await request.json()), { status: 201 });
}

await orchestrator.migrate();
await orchestrator.startWorker();
const server = Deno.serve({ port: Number(process.env.PORT ?? 3000) }, answer);
process.once("SIGTERM", async () => {
  await server.shutdown();
  await orchestrator.close();
});
