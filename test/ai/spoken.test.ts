/** What a model says past the SDK is what the SDK would have told, whatever the provider sends. */
import { readUIMessageStream, streamText, toUIMessageChunk, tool, type LanguageModel, type UIMessageChunk } from "ai";
import fc from "fast-check";
import { expect, test } from "vitest";
import { z } from "zod";
import { Spoken, type Part } from "../../src/ai/spoken.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const kinds = ["text", "reasoning", "tool-input"] as const;
const op = fc.record({
  kind: fc.constantFrom(...kinds),
  id: fc.constantFrom("0", "1"),
  does: fc.constantFrom("start", "start", "delta", "delta", "delta", "delta", "end", "source", "wait"),
  words: fc.constantFrom("a", "bc", "", "d ", "{}"),
  hasMetadata: fc.constantFrom(true, false, false, false),
});
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never;

/** What a provider may send: pieces of parts that have begun, several parts open at once, ids that come again. */
function partsOf(ops: readonly Op[]): (Part | "wait")[] {
  const parts: (Part | "wait")[] = [];
  const open = new Map<string, Part[]>();
  let calls = 0;
  for (const { kind, id, does, words, hasMetadata } of ops) {
    const key = `${kind} ${id}`;
    const ends = open.get(key);
    const more = hasMetadata ? { providerMetadata: { test: { words } } } : {};
    if (does === "wait") parts.push("wait");
    else if (does === "source")
      parts.push({ type: "source", sourceType: "url", id: `s${parts.length}`, url: "http://a" });
    else if (does === "start" && !ends) {
      if (kind === "tool-input") {
        const call = `call-${calls++}`;
        parts.push({ type: "tool-input-start", id: call, toolName: "look" });
        open.set(key, [
          { type: "tool-input-end", id: call },
          { type: "tool-call", toolCallId: call, toolName: "look", input: "{}" },
        ]);
      } else {
        parts.push({ type: `${kind}-start`, id, ...more });
        open.set(key, [{ type: `${kind}-end`, id }]);
      }
    } else if (does === "delta" && ends) {
      const [end] = ends;
      const whose = end && "id" in end ? end.id : id;
      parts.push({ type: `${kind}-delta`, id: whose, delta: words, ...more });
    } else if (does === "end" && ends) {
      parts.push(...ends);
      open.delete(key);
    }
  }
  return [...parts, ...[...open.values()].flat()];
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

function modelOf(parts: readonly (Part | "wait")[]): LanguageModel {
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 1, text: 1, reasoning: undefined },
  };
  async function* say(): AsyncGenerator<Part> {
    for (const part of parts)
      if (part === "wait") await turn();
      else yield part;
    yield { type: "finish", finishReason: { unified: "stop", raw: "stop" }, usage };
  }
  return {
    specificationVersion: "v4",
    provider: "test",
    modelId: "test",
    supportedUrls: {},
    doGenerate: () => Promise.reject(new Error("it only streams")),
    doStream: async () => ({ stream: ReadableStream.from(say()) }),
  };
}

const tools = { look: tool({ inputSchema: z.object({}), outputSchema: z.json() }) };

async function told(model: LanguageModel, tell: (chunk: UIMessageChunk) => Promise<void>, toolChoice: "auto" | "none") {
  const result = streamText({ model, prompt: "?", tools, toolChoice, onError: () => {} });
  for await (const part of result.stream) {
    const chunk = toUIMessageChunk(part, { tools, sendSources: true });
    if (chunk) await tell(chunk);
  }
  return (await result.finalStep).content;
}

/** What the page has in the end, and what it could make nothing of. */
async function messageOf(chunks: readonly UIMessageChunk[]) {
  let last: unknown;
  const errors: string[] = [];
  const onError = (error: unknown) => void errors.push(String(error));
  for await (const { parts } of readUIMessageStream({ stream: ReadableStream.from(chunks), onError })) last = parts;
  return { last, errors };
}

/** Of an id that comes again the SDK makes another one. */
function withoutMadeIds(value: unknown): string {
  return JSON.stringify(value, null, 1).replaceAll(/"ai[a-z]+-\w+"/g, '"made"');
}

test("a page and the SDK get of any stream what they would have got without us between them", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(op, { maxLength: 60, size: "max" }),
      fc.constantFrom("auto", "auto", "none"),
      fc.nat(2),
      async (ops, choice, lag) => {
        const [theirs, ours]: UIMessageChunk[][] = [[], []];
        const plain = await told(modelOf(partsOf(ops)), async (chunk) => void theirs?.push(chunk), choice);
        const spoken = new Spoken(
          async (chunk) => {
            await Promise.resolve();
            ours?.push(chunk);
          },
          async () => {
            for (let n = 0; n < lag; n++) await turn();
          },
        );
        const content = await told(
          spoken.of(modelOf(partsOf(ops))),
          async (chunk) => {
            for (let n = 0; n < lag; n++) await turn();
            await spoken.tell(chunk);
          },
          choice,
        );
        await spoken.end();
        spoken.stop();

        expect(withoutMadeIds(content)).toEqual(withoutMadeIds(plain));
        expect(withoutMadeIds(await messageOf(ours ?? []))).toEqual(withoutMadeIds(await messageOf(theirs ?? [])));
      },
    ),
    fuzzRuns(0.1),
  );
});
