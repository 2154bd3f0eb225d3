/** node:http, bundled: nothing is installed beside the bundle. */
import { createServer } from "node:http";
import { approve, begin, look, orchestrator } from "./order.ts";

async function answer(method: string, path: string, body: string): Promise<unknown> {
  const [, , id = "", what] = path.split("/");
  if (method === "GET") return look(id);
  return what === "approval" ? approve(id, JSON.parse(body)) : begin(JSON.parse(body));
}

const server = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  try {
    const value = await answer(request.method ?? "GET", request.url ?? "/", body);
    response.end(JSON.stringify(value));
  } catch (error) {
    response.writeHead(400).end(String(error));
  }
});

async function main() {
  await orchestrator.migrate();
  await orchestrator.startWorker();
  server.listen(Number(process.env["PORT"] ?? 3000));
}
void main();
process.once("SIGTERM", () => {
  server.close();
  void orchestrator.close();
});
