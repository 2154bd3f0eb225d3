/** The same route for Fastify 5, which takes a web `Response` as a reply: `app.get("/stories/:id/stream", storyStream(orchestrator))`. */
import { cursorOf, toSSE } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";

/** What the route uses of Fastify's request and reply. */
interface FastifyRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly params: unknown;
}
interface FastifyReply {
  readonly raw: { once(event: "close", listener: () => void): unknown };
  send(response: Response): unknown;
}

export function storyStream(orchestrator: Orchestrator) {
  return async (request: FastifyRequest, reply: FastifyReply): Promise<unknown> => {
    const { id } = request.params as { id: string };
    const last = request.headers["last-event-id"];
    const headers = new Headers(typeof last === "string" ? { "last-event-id": last } : {});
    const from = cursorOf({ url: request.url, headers });
    const execution = await orchestrator.getExecution(id);
    const gone = new AbortController();
    reply.raw.once("close", () => gone.abort());
    return reply.send(toSSE(execution.streamItems({ timeout: null, from }), { request: gone }));
  };
}
