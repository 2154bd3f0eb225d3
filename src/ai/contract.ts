/** What an agent takes, keeps and puts into its stream. */
import type { ModelMessage, UIMessageChunk } from "ai";
import { z } from "zod";
import { ContractError } from "../base/errors.ts";
import { toJson, type Json } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import { ai } from "./sdk.ts";

/** A message of a model, as the AI SDK has it, in JSON: files are base64. */
export const Message = z.looseObject({ role: z.enum(["system", "user", "assistant", "tool"]) });
export type Message = z.infer<typeof Message>;

/** The chunk of an agent in which the model is called. */
export const modelChunk = "model";

const Count = z.int().nonnegative();

/** Of all model calls so far; what a provider does not say counts as 0. */
export const Usage = z.object({ inputTokens: Count, outputTokens: Count, totalTokens: Count });
export type Usage = z.infer<typeof Usage>;

/** One model call. Its messages are those of the state from `from` on, up to the next one's. */
export const Step = z.object({ from: Count, finishReason: z.string(), model: z.string(), usage: Usage });
export type Step = z.infer<typeof Step>;

const text = z.string().min(1);

export const agentContract = {
  /** A text, `{ prompt }`, or `{ messages }` as the AI SDK has them. */
  input: z.union([text, z.strictObject({ prompt: text }), z.strictObject({ messages: z.array(Message).min(1) })]),
  state: z
    .object({
      /** The conversation: what came in, what the model said, what tools gave. */
      messages: z.array(Message),
      steps: z.array(Step),
      usage: Usage,
      /** Tokens that it may use; a person may have raised it. */
      budget: Count,
      /** What the model said last. */
      text: z.string(),
      /** What `output` of the settings made of it. */
      output: JsonValue,
      /** Why it ended: what the model said, "stopped" by `stopWhen`, or "budget". */
      finishReason: z.string(),
    })
    .partial(),
  events: { ModelCall: z.strictObject({ step: z.int().positive() }) },
  /** Chunks of the AI SDK's UI message stream, with whose they are. */
  stream: z.looseObject({ type: z.string() }),
};
/** What every agent takes, keeps in its state, and puts into its stream. */
export type AgentContract = typeof agentContract;

/** A stream item: a chunk for the page. `from` is the same for all that one model call or tool call puts, in each of its attempts. */
export type AgentItem = UIMessageChunk & { readonly from?: string };

/**
 * Keeps what a model or tool gave as JSON: bytes as base64, moments and addresses as text, texts as Postgres can hold them, and nothing
 * undefined.
 */
export function toStorable(value: unknown, where: string): Json {
  return toJson(inJson(value), where);
}

/** What reads the world reads zeros and halves of pairs too, and no code of the user's made them: each becomes U+FFFD. */
export function inText(text: string): string {
  return text.toWellFormed().replaceAll("\0", "\uFFFD");
}

/** @param within what it is part of: where one of them comes again `toJson` says so */
export function inJson(value: unknown, within: readonly unknown[] = []): unknown {
  if (typeof value === "string") return inText(value);
  if (typeof value !== "object" || value === null || within.includes(value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (value instanceof ArrayBuffer) return Buffer.from(value).toString("base64");
  if (value instanceof URL) return value.href;
  if (value instanceof Date) return value.toISOString();
  const here = [...within, value];
  if (Array.isArray(value)) return value.map((item) => (item === undefined ? null : inJson(item, here)));
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(fields.map(([key, field]) => [inText(key), inJson(field, here)]));
}

export function toMessages(messages: readonly ModelMessage[], where: string): Message[] {
  return messages.map((message, index) => Message.parse(toStorable(message, `${where}[${index}]`)));
}

/** @throws {ContractError} they are no messages of the AI SDK */
export function toModelMessages(messages: unknown, where: string): ModelMessage[] {
  const parsed = z.array(ai.modelMessageSchema).safeParse(messages);
  if (parsed.success) return parsed.data;
  throw new ContractError(where, parsed.error.issues);
}
