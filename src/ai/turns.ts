/** A chat is a chain of executions: one for each message of the person, each naming the one before it. The ledger is the only store. */
import { createHash } from "node:crypto";
import type { ModelMessage, UIMessage } from "ai";
import { canonical, isObject, type JsonObject } from "../base/json.ts";
import { UsageError } from "../base/errors.ts";
import type { Execution } from "../execution/execution.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { internals, type Orchestrator } from "../orchestrator.ts";
import type { Held } from "../store/lists.ts";
import { toModelMessages } from "./contract.ts";
import { ai } from "./sdk.ts";
import { toUIMessageChunks } from "./ui.ts";

/** One turn, newest first in a list of them. */
export interface Turn {
  readonly id: string;
  /** Of the person's message, as the page named it. */
  readonly message: string;
  /** Of what the message says. */
  readonly content: string;
  readonly previous: string | null;
  readonly isClosed: boolean;
}

export interface Chat {
  readonly orchestrator: Orchestrator;
  readonly flow: FlowDefinition;
  readonly id: string;
  /** Whose chat it is: kept with each turn, and asked of each. */
  readonly owner: JsonObject;
}

/** Turns that are looked through for one that is edited, made anew, or shown. */
const maxTurns = 500;

/** The newest first. */
export async function turnsOf({ orchestrator, flow, id, owner }: Chat, limit = maxTurns): Promise<Turn[]> {
  const { reads } = await orchestrator[internals].store();
  const turns = await reads.listHolding(flow.name, { ...owner, chat: id }, limit);
  return turns.map(turnOf);
}

function turnOf({ id, metadata, lifecycle }: Held): Turn {
  const { message, content, previous } = isObject(metadata?.["turn"]) ? metadata["turn"] : {};
  return {
    id,
    message: typeof message === "string" ? message : "",
    content: typeof content === "string" ? content : "",
    previous: typeof previous === "string" ? previous : null,
    isClosed: lifecycle === "closed",
  };
}

export function contentOf(message: UIMessage): string {
  return createHash("sha256").update(canonical(message.parts)).digest("base64url");
}

/**
 * Begins a turn behind the newest one. Two that begin behind the same are one: the first, where they say the same, and else only it.
 *
 * @throws {UsageError} another turn has begun meanwhile
 */
export async function beginTurn(
  chat: Chat,
  input: unknown,
  turn: Omit<Turn, "id" | "isClosed">,
  newest: string | null,
): Promise<Execution> {
  const { orchestrator, flow, id, owner } = chat;
  const place = createHash("sha256")
    .update(canonical([owner, id, newest]))
    .digest("base64url");
  const { message, content, previous } = turn;
  const execution = await orchestrator.flow(flow).startExecution(input, {
    idempotencyKey: `chat/${place}`,
    metadata: { ...owner, chat: id, turn: { message, content, previous } },
    autoCloseTimeout: 0,
  });
  const { reads } = await orchestrator[internals].store();
  const begun = (await reads.headers([execution.id])).get(execution.id)?.metadata?.["turn"];
  if (isObject(begun) && begun["message"] === message && begun["content"] === content) return execution;
  throw busy(id);
}

export function busy(chat: string): UsageError {
  return new UsageError(
    `chat "${chat}" is in the middle of another turn`,
    "wait for its end, answer what it asks, or stop it",
    { chat },
  );
}

/** The conversation up to the end of a turn, without what was cut off in it. */
export async function historyAfter({ orchestrator }: Chat, turn: string | null): Promise<ModelMessage[]> {
  if (turn === null) return [];
  const execution = await orchestrator.getExecution(turn);
  const kept = (await execution.result.getState("messages")) ?? (await givenTo(execution));
  const messages = toModelMessages(Array.isArray(kept) ? kept : [], `messages of execution ${turn}`);
  return settled(messages);
}

/** Those of the start input: a turn that was stopped before it began has nothing else. */
async function givenTo(execution: Execution): Promise<unknown> {
  const { startInput } = await execution.result.getMeta();
  return isObject(startInput) ? startInput["messages"] : undefined;
}

/**
 * A model refuses calls without results: a turn that was stopped may end with some. The results of a message are right behind it; the
 * ids of its calls may come again in others, as some providers count them anew in each.
 */
function settled(messages: ModelMessage[]): ModelMessage[] {
  const open = messages.findIndex(({ role, content }, index) => {
    if (role !== "assistant" || typeof content === "string") return false;
    const results = new Set<string>();
    for (const next of messages.slice(index + 1)) {
      if (next.role !== "tool") break;
      for (const part of next.content) if ("toolCallId" in part) results.add(part.toolCallId);
    }
    return content.some(
      (part) => part.type === "tool-call" && part.providerExecuted !== true && !results.has(part.toolCallId),
    );
  });
  return open < 0 ? messages : messages.slice(0, open);
}

/** The messages of a chat as a page shows them; that of a turn which still runs comes with its stream. */
export async function messagesOf(chat: Chat): Promise<UIMessage[]> {
  const turns = await turnsOf(chat);
  const byId = new Map(turns.map((turn) => [turn.id, turn]));
  const chain: Turn[] = [];
  for (let turn = turns[0]; turn; turn = byId.get(turn.previous ?? "")) chain.unshift(turn);
  const messages: UIMessage[] = [];
  for (const turn of chain) {
    const execution = await chat.orchestrator.getExecution(turn.id);
    const { startInput } = await execution.result.getMeta();
    messages.push({ id: turn.message, role: "user", parts: partsOf(startInput) });
    if (turn.isClosed) messages.push(...(await answerOf(execution)));
  }
  return messages;
}

async function answerOf(execution: Execution): Promise<UIMessage[]> {
  let last: UIMessage | undefined;
  const stream = ReadableStream.from(toUIMessageChunks(execution));
  for await (const message of ai.readUIMessageStream({ stream, onError: () => {} })) last = message;
  return last ? [last] : [];
}

/** What the person said in a turn. */
function partsOf(startInput: unknown): UIMessage["parts"] {
  const messages = isObject(startInput) ? startInput["messages"] : undefined;
  const [last] =
    ai.userModelMessageSchema.array().safeParse(Array.isArray(messages) ? messages.slice(-1) : []).data ?? [];
  if (!last) return [];
  if (typeof last.content === "string") return [{ type: "text", text: last.content }];
  return last.content.flatMap((part): UIMessage["parts"] => {
    if (part.type === "text") return [{ type: "text", text: part.text }];
    const { mediaType = "image/*" } = part;
    const url = urlOf(part.type === "image" ? part.image : part.data, mediaType);
    if (url === null) return [];
    const named = part.type === "file" && part.filename !== undefined && { filename: part.filename };
    return [{ type: "file", mediaType, url, ...named }];
  });
}

/** Of what a file is, as the ledger has it: a text, or a text with what it is. Null for one that only its provider can read. */
function urlOf(given: unknown, mediaType: string): string | null {
  const data = isObject(given) ? (given["url"] ?? given["data"]) : given;
  if (typeof data !== "string") return null;
  return /^(data|https?):/.test(data) ? data : `data:${mediaType};base64,${data}`;
}
