/** A provider of our own: an OpenAI-compatible server that streams what a test tells it, and counts what it was asked. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

/** What a model says in one call: text in pieces, or calls of tools. */
export interface Said {
  readonly text?: readonly string[];
  readonly calls?: readonly { readonly name: string; readonly input: unknown; readonly id?: string }[];
  /** Waits before this piece (0 is the first one) until `release()`; the number of pieces is before the end. */
  readonly holdBefore?: number;
  /** Answers with this HTTP status in place of words. */
  readonly status?: number;
  /** Beside that status. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Between two pieces. */
  readonly pauseMs?: number;
  /** Cuts the connection before this piece. */
  readonly cutBefore?: number;
  /** Says in the stream that something went wrong, in place of this piece and the rest. */
  readonly errorBefore?: number;
}

export interface Asked {
  readonly messages: readonly { readonly role: string; readonly content: unknown }[];
  readonly tools?: readonly unknown[];
  readonly stream?: boolean;
}

export interface TestProvider extends AsyncDisposable {
  readonly url: string;
  /** Every request, those that were cut off too. */
  readonly asked: Asked[];
  /** Requests that were answered to the end. */
  completed(): number;
  /** Resolves when a request was answered to the end. */
  ended(): Promise<void>;
  /** Resolves when a request waits at its `holdBefore`. */
  held(): Promise<void>;
  /** Resolves when somebody has hung up before the end of an answer. */
  left(): Promise<void>;
  /** Lets what is held go on, now and later. */
  release(): void;
}

/** What is said to the first request, the second, and so on. */
export function said(...all: readonly Said[]): (asked: unknown, number: number) => Said {
  return (_, number) => all[number - 1] ?? { text: ["?"] };
}

/** @param answer by the request and its number, from 1 */
export async function testProvider(answer: (asked: Asked, number: number) => Said): Promise<TestProvider> {
  const asked: Asked[] = [];
  let completed = 0;
  const end = Promise.withResolvers<void>();
  const leaving = Promise.withResolvers<void>();
  let gate = Promise.withResolvers<void>();
  let holding = Promise.withResolvers<void>();
  const server = createServer((request, response) => {
    response.on("close", () => {
      if (!response.writableFinished) leaving.resolve();
    });
    void (async () => {
      let body = "";
      for await (const piece of request.setEncoding("utf8")) body += String(piece);
      const question = JSON.parse(body) as Asked;
      asked.push(question);
      const said = answer(question, asked.length);
      if (said.status !== undefined) {
        response.writeHead(said.status, { "content-type": "application/json", ...said.headers });
        response.end(JSON.stringify({ error: { message: `status ${said.status}` } }));
        return;
      }
      const id = `chatcmpl-${asked.length}`;
      if (question.stream !== true) {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify(whole(id, said)));
        completed += 1;
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      const send = (delta: object, finish: string | null = null, usage?: object) =>
        response.write(
          `data: ${JSON.stringify({ id, object: "chat.completion.chunk", created: 1, model: "test", choices: [{ index: 0, delta, finish_reason: finish }], usage })}\n\n`,
        );
      const { text = [], calls = [], holdBefore, pauseMs = 0, cutBefore, errorBefore } = said;
      const pieces: object[] = [
        ...text.map((content) => ({ content })),
        ...calls.map(({ name, input, id: callId }, index) => ({
          tool_calls: [
            {
              index,
              id: callId ?? `call-${asked.length}-${index}`,
              type: "function",
              function: { name, arguments: JSON.stringify(input) },
            },
          ],
        })),
      ];
      for (const [index, piece] of [...pieces, null].entries()) {
        if (cutBefore === index) return void response.destroy();
        if (errorBefore === index)
          return void response.end(`data: ${JSON.stringify({ error: { message: "overloaded" } })}\n\n`);
        if (holdBefore === index) {
          holding.resolve();
          await gate.promise;
        }
        if (pauseMs > 0) await sleep(pauseMs);
        if (piece) send(index === 0 ? { role: "assistant", ...piece } : piece);
      }
      send({}, calls.length > 0 ? "tool_calls" : "stop", {
        prompt_tokens: 10,
        completion_tokens: pieces.length,
        total_tokens: 10 + pieces.length,
      });
      response.end("data: [DONE]\n\n");
      if (response.destroyed) return;
      completed += 1;
      end.resolve();
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/v1`,
    asked,
    completed: () => completed,
    ended: () => end.promise,
    left: () => leaving.promise,
    async held() {
      await holding.promise;
      holding = Promise.withResolvers();
    },
    release() {
      gate.resolve();
      gate = Promise.withResolvers();
      gate.resolve();
    },
    async [Symbol.asyncDispose]() {
      gate.resolve();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What is not streamed. */
function whole(id: string, { text = [], calls = [] }: Said): object {
  const tool_calls = calls.map(({ name, input, id: callId }, index) => ({
    id: callId ?? `${id}-${index}`,
    type: "function",
    function: { name, arguments: JSON.stringify(input) },
  }));
  const message = { role: "assistant", content: text.join(""), ...(calls.length > 0 && { tool_calls }) };
  const choices = [{ index: 0, message, finish_reason: calls.length > 0 ? "tool_calls" : "stop" }];
  return {
    id,
    object: "chat.completion",
    created: 1,
    model: "test",
    choices,
    usage: { prompt_tokens: 10, completion_tokens: 1, total_tokens: 11 },
  };
}

export function modelOf(url: string) {
  return createOpenAICompatible({ name: "test", baseURL: url, apiKey: "none", includeUsage: true })("test");
}
