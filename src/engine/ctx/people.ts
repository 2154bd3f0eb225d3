/** The part of `ctx` for what people answer and correct: pauses and interventions. */
import type { z } from "zod";
import { InterruptNotPendingError, NoResumeHandleError, SelfResumeLimitError, UsageError } from "../../base/errors.ts";
import { copyJson, isObject, toJson, type Json } from "../../base/json.ts";
import { parseDuration } from "../../base/duration.ts";
import { isStorable, requireInteger, requireKnown, requireName, requireText, show } from "../../base/option.ts";
import type {
  answer,
  ConsumeOptions,
  Ctx,
  Intervention,
  InterventionFilters,
  Paused,
  PauseOptions,
  Resume,
  WithdrawOptions,
} from "../../flow/context.ts";
import { noticeEvent } from "../../flow/contract.ts";
import { answerSchema } from "../../ledger/answers.ts";
import { requireConsumption, requireFilters } from "../../ledger/interventions.ts";
import type { PauseRequest } from "../../ledger/command.ts";
import { idOfPause, isIdFor, takenError } from "../../ledger/pauses.ts";
import { pendingInterrupts } from "../../ledger/state.ts";
import type { Intervention as FoldedIntervention } from "../../ledger/parts.ts";
import { matchesIntervention, publicIntervention } from "../../ledger/views.ts";
import { own, type CtxAttempt } from "./attempt.ts";
import { asks, parseAsking } from "./asking.ts";
import { parseOnExpire } from "./expiry.ts";
import { EventsCtx } from "./events.ts";

const pauseOptions = Object.keys({
  type: true,
  payload: true,
  resumeTo: true,
  interruptId: true,
  maxResumes: true,
  expiresIn: true,
  onExpire: true,
  response: true,
  title: true,
  assign: true,
  due: true,
  remind: true,
  escalate: true,
  link: true,
} satisfies Record<keyof PauseOptions, true>);

/** @throws {UsageError} */
function requireSchema(schema: unknown, where: string): void {
  if (typeof schema === "object" && schema !== null && "_zod" in schema) return;
  throw new UsageError(`${where} must be a zod schema, got ${show(schema)}`, "use a schema of zod 4");
}

/** What `pauseFor` returns: the engine takes the request out of it. */
export class PauseMark implements Paused<never> {
  declare readonly [answer]: never;
  readonly request: PauseRequest;

  constructor(request: PauseRequest) {
    this.request = request;
  }
}

export class PeopleCtx
  extends EventsCtx
  implements
    Pick<
      Ctx,
      | "pauseFor"
      | "withdraw"
      | "isResume"
      | "resume"
      | "interventions"
      | "getInterventions"
      | "markInterventionConsumed"
    >
{
  readonly #seen: readonly FoldedIntervention[];

  constructor(attempt: CtxAttempt, input: Json) {
    super(attempt, input);
    // The interventions as they were when this dispatch began: they do not change while the chunk runs.
    const { interventions } = attempt.host.state;
    this.#seen = interventions.length === 0 ? [] : interventions.filter(({ status }) => status === "inserted");
  }

  get pauseFor() {
    return (options: PauseOptions<z.ZodType | null> = {}): PauseMark => {
      const { host, chunk } = this[own];
      this[own].requireLive();
      if (host.state.settings.hidden) throw new NoResumeHandleError(host.flow.name, chunk.name);
      const mark = new PauseMark(this.#request(options));
      this[own].asks(mark);
      return mark;
    };
  }

  #request(options: PauseOptions<z.ZodType | null>): PauseRequest {
    const { host, chunk, dispatch } = this[own];
    const where = `pauseFor in chunk "${chunk.name}"`;
    requireKnown(options, pauseOptions, where);
    const { type = "pause", payload = null, resumeTo = "next", maxResumes = 1, expiresIn = null } = options;
    const { response = null } = options;
    if (response !== null) requireSchema(response, `response of ${where}`);
    requireInteger(maxResumes, `maxResumes of ${where}`, { min: 0, orNull: "no limit" });
    if (
      resumeTo !== "next" &&
      resumeTo !== "self" &&
      !(isObject(resumeTo) && isStorable(resumeTo["event"]) && Object.keys(resumeTo).length === 1)
    )
      throw new UsageError(`${where}: resumeTo is ${show(resumeTo)}`, 'use "next", "self" or { event: name }');
    for (const [name, text] of Object.entries({
      type,
      interruptId: options.interruptId === undefined ? "-" : options.interruptId,
    }))
      if (isStorable(text)) requireText(text, `${name} of ${where}`, { max: 500 });
      else
        throw new UsageError(
          `${where}: ${name} is ${show(text)}`,
          "use a text that is not empty, without \\u0000 and half characters",
        );
    if (isObject(resumeTo)) {
      requireText(resumeTo["event"], `event of resumeTo of ${where}`, { max: 500 });
      if (resumeTo["event"] === noticeEvent)
        throw new UsageError(
          `${where}: resumeTo is event "${noticeEvent}", which only the library sends`,
          "name another",
        );
    }
    const resumed = this.resume;
    const wanted = options.interruptId ?? resumed?.interruptId ?? `${chunk.name}:${dispatch.id}`;
    const isAgain = resumed !== null && isIdFor(host.state, dispatch, wanted, resumed.interruptId);
    const id = idOfPause(host.state, dispatch, isAgain ? resumed.interruptId : wanted);
    if (id === null) throw takenError(host.state, wanted, where);
    const asked = response === null ? null : answerSchema(response, `response of ${where}`);
    const resumeCount = isAgain ? resumed.count : 0;
    if (resumeTo === "self" && maxResumes !== null && resumeCount >= maxResumes && resumed)
      throw new SelfResumeLimitError(host.info.id, id, resumeCount, maxResumes);
    const expiresInMs = expiresIn === null ? null : parseDuration(expiresIn, `expiresIn of ${where}`);
    const { flow, publicUrl } = host;
    return {
      id: isAgain ? resumed.interruptId : wanted,
      type,
      payload: toJson(payload, `payload of ${where}`),
      resumeTo: typeof resumeTo === "string" ? resumeTo : { event: resumeTo.event },
      maxResumes,
      resumeCount,
      expiresInMs,
      onExpire: parseOnExpire(options, { flow, interrupt: id, response: asked, where }),
      response: asked,
      ...(asks(options) &&
        parseAsking(options, {
          interrupt: id,
          response: asked,
          expiresInMs,
          publicUrl,
          isHeard: host.graph.telling.size > 0,
          where,
        })),
    };
  }

  get withdraw() {
    return (id: string, options: WithdrawOptions = {}) =>
      this[own].write((): void => {
        const { host, journal } = this[own];
        requireKnown(options, ["reason"], "withdraw()");
        const reason = requireName(
          options.reason === undefined ? "withdrawn" : options.reason,
          "reason of withdraw()",
          { max: 10_000 },
        );
        requireText(id, "interruptId of withdraw()", { max: 1000 });
        const { ordinal, entry } = journal.next("withdraw", id);
        if (entry) return;
        const status = host.state.interrupts.get(id)?.status;
        const pending = pendingInterrupts(host.state).map((interrupt) => interrupt.id);
        if (status === undefined) throw new InterruptNotPendingError(host.info.id, id, { pending });
        // An answer that came first makes the withdrawal void and does not fail the chunk.
        if (status === "pending") journal.buffer({ ordinal, effect: "withdraw", interrupt: id, reason });
      });
  }

  get isResume() {
    return this[own].dispatch.resume !== null;
  }

  get resume(): Resume | null {
    const { dispatch, host } = this[own];
    const interrupt = dispatch.resume === null ? undefined : host.state.interrupts.get(dispatch.resume);
    if (!interrupt) return null;
    return {
      value: copyJson(interrupt.value),
      interruptId: interrupt.id,
      count: interrupt.resumeCount + 1,
      actor: interrupt.actor,
    };
  }

  get interventions(): readonly Intervention[] {
    return this.getInterventions();
  }

  get getInterventions() {
    return (filters: InterventionFilters = {}): readonly Intervention[] => {
      requireFilters(filters, "getInterventions()");
      return this.#seen.filter((record) => matchesIntervention(record, filters)).map(publicIntervention);
    };
  }

  get markInterventionConsumed() {
    return (id: string, options: ConsumeOptions = {}) =>
      this[own].write((): Intervention => {
        const { chunk, host, journal } = this[own];
        requireKnown(options, ["status", "consumer", "note", "metadata"], "markInterventionConsumed()");
        const { status = "applied", consumer = chunk.name, note = null, metadata = {} } = options;
        const parsed = toJson(metadata, "metadata of markInterventionConsumed()");
        requireConsumption(id, { status, consumer, note, metadata });
        const record = this.#seen.find((seen) => seen.id === id);
        if (!record)
          throw new UsageError(
            `intervention ${show(id)} was not inserted when chunk "${chunk.name}" began`,
            "mark one of ctx.interventions",
          );
        const { ordinal, entry } = journal.next("consume", `${id} ${consumer}`);
        const consumption = { intervention: id, status, consumer, note, metadata: isObject(parsed) ? parsed : {} };
        if (entry) return publicIntervention(record);
        host.interventionsSize.grow(consumption, () => [
          host.state.interventions,
          journal.pending().filter(({ effect }) => effect === "consume"),
        ]);
        journal.buffer({ ordinal, effect: "consume", ...consumption });
        return publicIntervention(record);
      });
  }
}
