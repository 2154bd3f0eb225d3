/** `chatRoutes()`: the server that the stock `useChat({ resume: true })` needs, with the ledger as its only store. */
import type { ModelMessage, UIMessage } from "ai";
import { z } from "zod";
import { ContractError, FlowledgerError, UsageError } from "../base/errors.ts";
import { isObject, toJson, type JsonObject } from "../base/json.ts";
import { isResponse, requireActor, requireFunction, requireKnown, requireOneOf, show } from "../base/option.ts";
import { statusOf } from "../console/http.ts";
import type { Execution } from "../execution/execution.ts";
import { isTooLate } from "../execution/interrupt.ts";
import { requireFlow } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Orchestrator } from "../orchestrator.ts";
import { pauses, Question } from "./approval.ts";
import { ai } from "./sdk.ts";
import { decisions } from "./settings.ts";
import { beginTurn, busy, contentOf, historyAfter, messagesOf, turnsOf, type Chat } from "./turns.ts";
import { toUIMessageStreamResponse, type UIMessageStreamOptions } from "./ui.ts";

/** Who uses a chat, as `authorize` says it. */
export interface ChatAccess {
  /** Who it is, for the ledger: of each answer and each stop. */
  readonly actor: string;
  /** Kept with each turn, and asked of each: whoever has other ones has no such chat. @default { user: actor } */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

/** What a request wants of which chat. */
export interface ChatRequest {
  /** As the page named it: a text of 1 to 200 characters that anybody may guess. */
  readonly chat: string;
  readonly action: "send" | "read" | "answer" | "stop";
}

/** Of `chatRoutes()`. */
export interface ChatRoutesOptions {
  /** Which database the chats are in. */
  readonly orchestrator: Orchestrator;
  /** An agent, or a flow with agents in it: then `input` says what it takes. */
  readonly flow: FlowDefinition;
  /** Who may do this: null is answered with 401, a Response is sent as it is. */
  readonly authorize: (
    request: Request,
    asked: ChatRequest,
  ) => ChatAccess | Response | null | Promise<ChatAccess | Response | null>;
  /** What a turn begins with. @default { messages: [...history, ...said] } */
  readonly input?: (turn: {
    readonly chat: string;
    readonly actor: string;
    /** What the person says now. */
    readonly said: readonly ModelMessage[];
    /** The conversation before it, from the ledger. */
    readonly history: readonly ModelMessage[];
  }) => unknown;
  /** @default "finish" */
  readonly onPause?: UIMessageStreamOptions["onPause"];
  /** What the page is told of a failure. @default a sentence that says nothing of the inside */
  readonly onError?: UIMessageStreamOptions["onError"];
}

/** The routes of a chat, as handlers of requests. */
export interface ChatRoutes {
  /** `POST /chat` (a message, or what a person decided), `POST /chat/:id/stop`, `POST /chat/:id/answer`. */
  POST(this: void, request: Request): Promise<Response>;
  /** `GET /chat/:id/stream` (204 when nothing runs), `GET /chat/:id` (its messages). */
  GET(this: void, request: Request): Promise<Response>;
  /** All of them, for servers with one handler. */
  fetch(this: void, request: Request): Promise<Response>;
}

/** Bytes of a request: the stock transport sends the whole chat along. */
const maxBodyBytes = 8 * 1_048_576;
const Id = z.string().min(1).max(200);
const actions = ["stream", "stop", "answer"];
const Sent = z.looseObject({
  id: Id.refine((id) => ![...actions, ".", ".."].includes(id), "is part of a path: name the chat otherwise"),
  messages: z.array(z.looseObject({ id: Id, role: z.string(), parts: z.array(z.unknown()) })).min(1),
  trigger: z.enum(["submit-message", "regenerate-message"]).default("submit-message"),
});
const interrupt = z.string().min(1).max(1000);
const Answer = z.union([
  /** To a tool call. */
  z.strictObject({
    approvalId: interrupt,
    decision: z.enum(decisions),
    input: z.unknown().optional(),
    message: z.string().max(100_000).optional(),
  }),
  /** To any question. */
  z.strictObject({ interrupt, value: z.unknown() }),
]);

/**
 * Handlers for the routes that `useChat({ id, resume: true })` of `@ai-sdk/react` calls. Each message of the person is one execution.
 * Of what the page sends only the last message counts: the conversation, and what was asked of people, are those of the ledger.
 *
 * @throws {UsageError} an option that is invalid
 */
export function chatRoutes(options: ChatRoutesOptions): ChatRoutes {
  const where = "chatRoutes()";
  requireKnown(options, ["orchestrator", "flow", "authorize", "input", "onPause", "onError"], where);
  const { orchestrator, flow, authorize, input, onPause, onError } = options;
  if (!isObject(orchestrator) || typeof orchestrator["getExecution"] !== "function")
    throw new UsageError(
      `orchestrator of ${where} is ${show(orchestrator)}`,
      "pass what createOrchestrator() returned",
    );
  requireFlow(flow, `the flow of ${where}`);
  requireFunction(authorize, `authorize of ${where}`);
  for (const [name, given] of Object.entries({ input, onError }))
    if (given !== undefined) requireFunction(given, `${name} of ${where}`);
  if (onPause !== undefined) requireOneOf(onPause, ["finish", "hold"], `onPause of ${where}`);

  const stream = (execution: Execution, request: Request, after: readonly string[] = []) => {
    const shown = { ...(onPause && { onPause }), ...(onError && { onError }) };
    const response = toUIMessageStreamResponse(execution, { request, after, ...shown });
    response.headers.set("x-flowledger-execution", execution.id);
    return response;
  };
  const enter = async (request: Request, asked: ChatRequest): Promise<{ chat: Chat; actor: string }> => {
    const access = await authorize(request, asked);
    if (isResponse(access)) throw new Answered(access);
    if (!access) throw new Answered(refused(401, "UNAUTHORIZED", "log in"));
    const actor = requireActor(access.actor, `actor of authorize of ${where}`);
    return { chat: { orchestrator, flow, id: asked.chat, owner: ownerOf(access, actor) }, actor };
  };

  const send = async (request: Request): Promise<Response> => {
    const { id, messages, trigger } = await bodyOf(request, Sent);
    const { chat, actor } = await enter(request, { chat: id, action: "send" });
    const last = await lastMessage(messages);
    const turns = await turnsOf(chat);
    const [newest] = turns;
    if (last.role === "assistant") {
      if (!newest) return refused(404, "CHAT_NOT_FOUND", `there is no chat "${id}"`);
      const execution = await orchestrator.getExecution(newest.id);
      return stream(execution, request, await decide(execution, last, actor));
    }
    const content = contentOf(last);
    // The same request was sent again.
    const isSame = trigger === "submit-message" && newest?.message === last.id && newest.content === content;
    if (newest && isSame) return stream(await orchestrator.getExecution(newest.id), request);
    if (newest && !newest.isClosed) throw busy(id);
    const replaced = turns.find(({ message }) => message === last.id);
    const previous = replaced ? replaced.previous : (newest?.id ?? null);
    const [history, said] = [await historyAfter(chat, previous), await ai.convertToModelMessages([last])];
    if (said.every(({ content }) => content.length === 0))
      return refused(400, "CONTRACT_VIOLATED", "the message says nothing that a model can be told");
    const given = input ? input({ chat: id, actor, said, history }) : { messages: [...history, ...said] };
    const begun = toJson(plain(given), `input of a turn of chat "${id}"`);
    return stream(await beginTurn(chat, begun, { message: last.id, content, previous }, newest?.id ?? null), request);
  };

  const post = async (request: Request): Promise<Response> => {
    const { id, action } = placeOf(request);
    if (action === null) return send(request);
    if (action === "stop") {
      requireJson(request);
      const { chat, actor } = await enter(request, { chat: id, action: "stop" });
      const [newest] = await turnsOf(chat, 1);
      if (!newest) return refused(404, "CHAT_NOT_FOUND", `there is no chat "${id}"`);
      const isStopped = await (await orchestrator.getExecution(newest.id)).cancel("stopped", { actor });
      return Response.json({ stopped: isStopped });
    }
    if (action !== "answer") return refused(404, "NOT_FOUND", "there is no such route");
    const body = await bodyOf(request, Answer);
    const { chat, actor } = await enter(request, { chat: id, action: "answer" });
    const [newest] = await turnsOf(chat, 1);
    if (!newest) return refused(404, "CHAT_NOT_FOUND", `there is no chat "${id}"`);
    const execution = await orchestrator.getExecution(newest.id);
    const { id: about, value } = "interrupt" in body ? { id: body.interrupt, value: body.value } : approvalOf(body);
    return Response.json({ answered: await answer(execution, about, value, actor) });
  };

  const get = async (request: Request): Promise<Response> => {
    const { id, action } = placeOf(request);
    if (id === "" || (action !== null && action !== "stream"))
      return refused(404, "NOT_FOUND", "there is no such route");
    const { chat } = await enter(request, { chat: id, action: "read" });
    if (action === null) return Response.json({ messages: await messagesOf(chat) });
    const [newest] = await turnsOf(chat, 1);
    if (!newest || newest.isClosed) return new Response(null, { status: 204 });
    return stream(await orchestrator.getExecution(newest.id), request);
  };

  const POST = guarded(post);
  const GET = guarded(get);
  const other = async () => refused(405, "METHOD_NOT_ALLOWED", "use GET or POST");
  const handlers: Readonly<Record<string, (request: Request) => Promise<Response>>> = { GET, POST };
  return { POST, GET, fetch: (request) => (handlers[request.method] ?? other)(request) };
}

/** Answers what the page has answers to and the execution still asks. @returns what they are about, for the stream that follows */
async function decide(execution: Execution, message: UIMessage, actor: string): Promise<string[]> {
  const pending = await execution.getPendingInterrupts();
  const about: string[] = [];
  for (const part of message.parts) {
    if (!ai.isToolUIPart(part)) continue;
    if (part.state === "approval-responded") {
      const { id, approved, reason } = part.approval;
      about.push(id);
      // Only what this execution asks counts, whatever the page has in its history.
      if (!pending.some((one) => one.id === id && one.type === pauses.approval)) continue;
      const message = reason === undefined ? {} : { message: reason };
      await answer(execution, id, approved ? { decision: "approve" } : { decision: "reject", ...message }, actor);
    } else if (part.state === "output-available" || part.state === "output-error") {
      const { toolCallId } = part;
      const asked = pending.find(({ type, payload }) => {
        return type === pauses.output && Question.safeParse(payload).data?.toolCallId === toolCallId;
      });
      if (!asked) continue;
      about.push(asked.id);
      await answer(execution, asked.id, part.state === "output-error" ? { error: part.errorText } : part.output, actor);
    }
  }
  return about;
}

function approvalOf<T extends { approvalId: string }>({ approvalId, ...value }: T) {
  return { id: approvalId, value };
}

/** False where somebody else was first, or the execution has ended. */
async function answer(execution: Execution, id: string, value: unknown, actor: string): Promise<boolean> {
  try {
    await execution.continueWith(id, value, { actor, onlyIfPending: true });
    return true;
  } catch (error) {
    if (isTooLate(error)) return false;
    throw error;
  }
}

function ownerOf(access: ChatAccess, actor: string): JsonObject {
  const owner = toJson(access.metadata ?? { user: actor }, "metadata of authorize of chatRoutes()");
  if (!isObject(owner) || "chat" in owner || "turn" in owner)
    throw new UsageError(
      `metadata of authorize of chatRoutes() is ${show(access.metadata)}`,
      "give an object without chat and turn, such as { tenant }",
    );
  return owner;
}

/** The chat and what is asked of it, by the end of the path. */
function placeOf(request: Request): { id: string; action: string | null } {
  const parts = new URL(request.url).pathname.split("/").filter((part) => part !== "");
  const last = parts.at(-1) ?? "";
  if (parts.length > 1 && actions.includes(last)) return { id: named(parts.at(-2)), action: last };
  return { id: request.method === "GET" ? named(last) : "", action: null };
}

function named(part: string | undefined): string {
  try {
    return Id.parse(decodeURIComponent(part ?? ""));
  } catch {
    throw new Answered(refused(400, "USAGE_INVALID", "the id of a chat has 1 to 200 characters"));
  }
}

/** A page of another origin cannot send this without asking first. */
function requireJson(request: Request): void {
  if (/^application\/json\b/.test(request.headers.get("content-type") ?? "")) return;
  throw new Answered(refused(415, "USAGE_INVALID", "send content-type: application/json"));
}

async function bodyOf<T>(request: Request, schema: z.ZodType<T>): Promise<T> {
  requireJson(request);
  const tooLarge = () => new Answered(refused(413, "BODY_TOO_LARGE", `a request has at most ${maxBodyBytes} bytes`));
  if (Number(request.headers.get("content-length") ?? 0) > maxBodyBytes) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of request.body ?? []) {
    bytes += piece.byteLength;
    if (bytes > maxBodyBytes) throw tooLarge();
    pieces.push(piece);
  }
  const parsed = schema.safeParse(parse(Buffer.concat(pieces).toString("utf8")));
  if (parsed.success) return parsed.data;
  throw new ContractError(`body of ${new URL(request.url).pathname}`, parsed.error.issues);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function lastMessage(messages: readonly unknown[]): Promise<UIMessage> {
  const checked = await ai.safeValidateUIMessages({ messages: messages.slice(-1) });
  const last = checked.success ? checked.data.at(-1) : undefined;
  if (!last || last.role === "system" || (last.role === "user" && last.parts.length === 0))
    throw new Answered(refused(400, "CONTRACT_VIOLATED", "the last message is none of a person or an assistant"));
  return last;
}

/** What has no value is left out, as a page's JSON does. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value ?? null));
}

/** An answer from within. */
class Answered extends Error {
  readonly response: Response;

  constructor(response: Response) {
    super("answered");
    this.response = response;
  }
}

function guarded(handle: (request: Request) => Promise<Response>): (request: Request) => Promise<Response> {
  return async (request) => {
    try {
      return await handle(request);
    } catch (error) {
      if (error instanceof Answered) return error.response;
      if (!(error instanceof FlowledgerError)) return refused(500, "INTERNAL", "internal error");
      const isConflict =
        error instanceof UsageError && ("chat" in error.details || /idempotency key/.test(error.message));
      const status = isConflict ? 409 : statusOf(error);
      // The message may name the database's host.
      if (status === undefined) return refused(503, error.code, "not now: try again in a moment");
      return refused(status, error.code, error.message);
    }
  };
}

function refused(status: number, code: string, message: string): Response {
  return Response.json({ code, message }, { status });
}
