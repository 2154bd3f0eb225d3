/** The model of the example: one of ours that needs no key, or any provider that speaks OpenAI's protocol, by one variable. */
import { setTimeout as sleep } from "node:timers/promises";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import type { LanguageModel } from "ai";

type Model = Extract<LanguageModel, { specificationVersion: "v4" }>;
type Options = Parameters<Model["doStream"]>[0];
type Part = Awaited<ReturnType<Model["doStream"]>>["stream"] extends ReadableStream<infer P> ? P : never;

/**
 * `MODEL_URL=https://KEY@api.openai.com/v1#gpt-5-mini`, or `http://localhost:11434/v1#llama3.2` for one of your own. Without it a model
 * that says what it is told, word by word, and refunds what it is asked for.
 */
export function modelOf(url: string | undefined): LanguageModel {
  if (url === undefined) return script;
  const { username, hash, origin, pathname } = new URL(url);
  const provider = createOpenAICompatible({
    name: "provider",
    baseURL: `${origin}${pathname}`,
    includeUsage: true,
    ...(username !== "" && { apiKey: decodeURIComponent(username) }),
  });
  return provider(hash.slice(1));
}

const script: Model = {
  specificationVersion: "v4",
  provider: "example",
  modelId: "script",
  supportedUrls: {},
  doGenerate: () => Promise.reject(new Error("it only streams")),
  doStream: async (options) => ({ stream: ReadableStream.from(answer(options)) }),
};

async function* answer({ prompt, abortSignal }: Options): AsyncGenerator<Part> {
  yield { type: "stream-start", warnings: [] };
  const last = prompt.at(-1);
  const said =
    last?.role === "user" ? last.content.map((part) => (part.type === "text" ? part.text : "")).join(" ") : "";
  const amount = /refund\D*(\d+)/i.exec(said)?.[1];
  if (amount !== undefined) {
    const input = JSON.stringify({ ticket: "T-1", amount: Number(amount) });
    yield { type: "tool-call", toolCallId: `call-${crypto.randomUUID()}`, toolName: "refund", input };
  } else {
    const text =
      last?.role === "tool" ? `That is done: ${resultOf(last)}.` : `You said “${said}”. Ask me to refund 50, or 500.`;
    yield { type: "text-start", id: "text" };
    for (const word of text.split(/(?<= )/)) {
      yield { type: "text-delta", id: "text", delta: word };
      await sleep(60, null, abortSignal ? { signal: abortSignal } : {});
    }
    yield { type: "text-end", id: "text" };
  }
  const unified = amount === undefined ? "stop" : "tool-calls";
  yield {
    type: "finish",
    finishReason: { unified, raw: unified },
    usage: {
      inputTokens: { total: 20, noCache: 20, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: 10, text: 10, reasoning: undefined },
    },
  };
}

function resultOf({ content }: Extract<Options["prompt"][number], { role: "tool" }>): string {
  const [result] = content;
  if (result?.type !== "tool-result") return "nothing";
  return "value" in result.output ? String(result.output.value) : "it was not allowed";
}
