/** What a page is told of an execution: the items of its stream as chunks of one message, each step once. Pure. */
import type { UIMessageChunk } from "ai";
import { isObject } from "../base/json.ts";
import { pauses, Question } from "./approval.ts";
import { modelChunk } from "./contract.ts";

/** An item of the stream, as `streamItems()` gives it. */
export interface Entry {
  readonly kind: string | null;
  readonly item: unknown;
}

type Shown = UIMessageChunk;

/**
 * A page shows one step at a time, and can take back the last one only. So a step that begins anew, because its attempt was cut off,
 * takes back what the page has of it, and the steps of agents that run beside each other come one after the other.
 */
export class Page {
  /** Steps that have begun, by the call that they are of. */
  readonly #steps = new Map<string, "shown" | "waiting" | "done" | "muted">();
  /** What belongs to steps that wait for the one that is shown. */
  readonly #queues = new Map<string, Shown[]>();
  /** The step that the page is in, and the last one that it was in. */
  #current: string | null = null;
  #last: string | null = null;
  /** Tool calls that the page knows of. */
  readonly #calls = new Map<string, { step: string | null; is: "open" | "asked" | "done" }>();
  /** What is about calls that the page does not know of yet. */
  #later: Shown[] = [];
  readonly #pending = new Set<string>();
  readonly #asked = new Set<string>();
  #finishReason: Extract<Shown, { type: "finish" }>["finishReason"];

  readonly #execution: string;

  /** @param execution whose stream it is */
  constructor(execution = "") {
    this.#execution = execution;
  }

  /** Questions that nobody has answered, as far as the items tell. */
  get pending(): ReadonlySet<string> {
    return this.#pending;
  }

  /** Questions that were asked so far. */
  get asked(): ReadonlySet<string> {
    return this.#asked;
  }

  /** Nothing comes before somebody answers. */
  get isWaiting(): boolean {
    const isBusy = [...this.#calls.values()].some(({ is }) => is === "open");
    return this.#pending.size > 0 && this.#current === null && !isBusy && this.#later.length === 0;
  }

  get finishReason() {
    return this.#finishReason;
  }

  /** The chunks that an item makes. */
  take({ kind, item }: Entry): Shown[] {
    const shown: Shown[] = [];
    if (kind === "interrupt") this.#interrupt(item, shown);
    else if (kind === "retry") this.#retry(item, shown);
    else if (kind === null) this.#item(item, shown);
    return shown;
  }

  /** What still waited for a step that never ended. */
  end(): Shown[] {
    const shown: Shown[] = [];
    while (this.#current !== null || this.#queues.size > 0) this.#leave(shown);
    return shown;
  }

  #item(item: unknown, shown: Shown[]): void {
    if (!isChunk(item)) return;
    const { from = null, ...chunk } = item;
    if (chunk.type === "finish") this.#finishReason = chunk.finishReason;
    else if (chunk.type === "start-step") this.#begin(from ?? "", chunk, shown);
    else if (chunk.type === "finish-step") this.#end(from ?? "", chunk, shown);
    else this.#inStep(from, chunk, shown);
  }

  /** The next attempt may be a while: what the one before had told of the step goes at once. */
  #retry(item: unknown, shown: Shown[]): void {
    if (!isObject(item) || this.#current === null) return;
    const { chunk, executionId = this.#execution } = item;
    // Model calls of an agent come one after the other; in other chunks the next telling of the step says which one it is.
    const [ran, name, ...run] = this.#current.split("/");
    if (chunk === modelChunk && name === chunk && ran === executionId && run.length === 1)
      shown.push({ type: "reset-step" });
  }

  #begin(step: string, chunk: Shown, shown: Shown[]): void {
    const known = this.#steps.get(step);
    if (known === "waiting") {
      this.#queues.set(step, [chunk]);
    } else if (known !== undefined && step !== "" && this.#last === step) {
      for (const [id, call] of this.#calls) if (call.step === step) this.#calls.delete(id);
      this.#current = step;
      this.#steps.set(step, "shown");
      shown.push({ type: "reset-step" });
    } else if (known !== undefined && step !== "") {
      // Another step came in between: the page keeps what it was told first.
      this.#steps.set(step, "muted");
    } else if (this.#current !== null && this.#current !== step && !follows(this.#current, step)) {
      this.#steps.set(step, "waiting");
      this.#queues.set(step, [chunk]);
    } else {
      // The step before gave no end: it was skipped, or its call failed for good.
      if (this.#current !== null) this.#steps.set(this.#current, "done");
      this.#enter(step, chunk, shown);
    }
  }

  #enter(step: string, chunk: Shown, shown: Shown[]): void {
    this.#current = step;
    this.#last = step;
    this.#steps.set(step, "shown");
    this.#tell(step, chunk, shown);
  }

  #end(step: string, chunk: Shown, shown: Shown[]): void {
    const queue = this.#queues.get(step);
    if (queue) queue.push(chunk);
    else if (this.#current === step) {
      this.#tell(step, chunk, shown);
      this.#leave(shown);
    } else this.#steps.set(step, "done");
  }

  /** The steps that have waited, as far as they have come. */
  #leave(shown: Shown[]): void {
    if (this.#current !== null) this.#steps.set(this.#current, "done");
    this.#current = null;
    for (const [step, queue] of this.#queues) {
      this.#queues.delete(step);
      const [first, ...rest] = queue;
      if (!first) continue;
      this.#enter(step, first, shown);
      for (const chunk of rest) this.#tell(step, chunk, shown);
      if (rest.at(-1)?.type !== "finish-step") break;
      this.#steps.set(step, "done");
      this.#current = null;
    }
  }

  #inStep(step: string | null, chunk: Shown, shown: Shown[]): void {
    const is = step === null ? undefined : this.#steps.get(step);
    if (is === "muted") return;
    if (step !== null && is === "waiting") this.#queues.get(step)?.push(chunk);
    else this.#tell(is === undefined ? null : step, chunk, shown);
  }

  #tell(step: string | null, chunk: Shown, shown: Shown[]): void {
    if (chunk.type === "tool-input-start" || chunk.type === "tool-input-available")
      this.#calls.set(chunk.toolCallId, { step: this.#calls.get(chunk.toolCallId)?.step ?? step, is: "open" });
    else if (chunk.type === "tool-input-error") this.#calls.set(chunk.toolCallId, { step, is: "done" });
    else if ("toolCallId" in chunk && !this.#calls.has(chunk.toolCallId)) {
      this.#later.push(chunk);
      return;
    }
    shown.push(chunk);
    if (isResult(chunk)) this.#mark(chunk.toolCallId, "done");
    if (chunk.type === "tool-approval-request") this.#mark(chunk.toolCallId, "asked");
    if (this.#later.length === 0 || !("toolCallId" in chunk)) return;
    const later = this.#later.filter((one) => "toolCallId" in one && one.toolCallId === chunk.toolCallId);
    this.#later = this.#later.filter((one) => !later.includes(one));
    for (const one of later) this.#tell(null, one, shown);
  }

  #mark(id: string, is: "open" | "asked" | "done"): void {
    const call = this.#calls.get(id);
    if (call) call.is = is;
  }

  #interrupt(item: unknown, shown: Shown[]): void {
    if (!isObject(item) || !isObject(item["interrupt"])) return;
    const { id, type, payload } = item["interrupt"];
    if (typeof id !== "string") return;
    const { action, value } = item;
    const question = Question.safeParse(payload);
    const isAsked = action === "pause" || action === "project";
    if (isAsked) {
      this.#pending.add(id);
      this.#asked.add(id);
    } else this.#pending.delete(id);
    if (question.success && type === pauses.output) {
      this.#mark(question.data.toolCallId, isAsked ? "asked" : "open");
    } else if (question.success && type === pauses.approval) {
      const { toolCallId } = question.data;
      if (isAsked) {
        const reason = question.data["problem"] ?? question.data["reason"];
        const why = typeof reason === "string" ? { reason } : {};
        this.#tell(null, { type: "tool-approval-request", approvalId: id, toolCallId, ...why }, shown);
      } else {
        this.#mark(toolCallId, "open");
        if (action === "resume") shown.push(responseOf(id, value));
      }
    } else
      // The question may be for others than the reader of this page, so its payload is left out.
      shown.push({ type: "data-interrupt", id, data: { id, type, status: isAsked ? "pending" : action } });
  }
}

/** Calls of one chunk, and those of one run of it, come one after the other. Their names differ in the last part. */
function follows(step: string, next: string): boolean {
  return step.replace(/\/[^/]*$/, "") === next.replace(/\/[^/]*$/, "");
}

function responseOf(approvalId: string, value: unknown): Shown {
  const { decision, message } = isObject(value) ? value : {};
  const approved = decision !== "reject";
  const reason = typeof message === "string" && !approved ? { reason: message } : {};
  return { type: "tool-approval-response", approvalId, approved, ...reason };
}

type Result = Extract<Shown, { type: "tool-output-available" | "tool-output-error" | "tool-output-denied" }>;

function isResult(chunk: Shown): chunk is Result {
  if (chunk.type === "tool-output-available") return chunk.preliminary !== true;
  return chunk.type === "tool-output-error" || chunk.type === "tool-output-denied";
}

/** Kinds of chunks that a page knows; other items of a stream are not for it. */
const kinds = new Set([
  "start-step",
  "finish-step",
  "finish",
  "text-start",
  "text-delta",
  "text-end",
  "reasoning-start",
  "reasoning-delta",
  "reasoning-end",
  "tool-input-start",
  "tool-input-delta",
  "tool-input-available",
  "tool-input-error",
  "tool-output-available",
  "tool-output-error",
  "tool-output-denied",
  "source-url",
  "source-document",
  "file",
  "reasoning-file",
  "custom",
  "message-metadata",
]);

function isChunk(item: unknown): item is Shown & { readonly from?: string } {
  if (!isObject(item) || typeof item["type"] !== "string") return false;
  if (item["from"] !== undefined && typeof item["from"] !== "string") return false;
  return kinds.has(item["type"]) || item["type"].startsWith("data-");
}
