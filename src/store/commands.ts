/** Commands from outside: the same functions that `psql` calls, with what they refuse as the library's own errors. */
import type { Json, JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { openLane, tryWithin } from "./lane.ts";
import type { Lane } from "./lane.ts";
import { codeOf, mayNot, refusalOf } from "./refusals.ts";

export interface EmitCommand {
  readonly event: string;
  readonly payload: Json;
  readonly idempotencyKey: string | null;
  readonly actor: string | null;
}

export interface CloseCommand {
  readonly reason: string;
  readonly pendingInterrupts: "reject" | "cancel";
  readonly parked: "reject" | "fail";
  readonly actor: string | null;
}

export interface ResumeCommand {
  readonly value: Json;
  readonly requestId: string | null;
  readonly actor: string | null;
  /** What nobody has asked yet is refused. */
  readonly onlyIfPending: boolean;
  /** The answer has been compared with what the interrupt asks for. */
  readonly isChecked: boolean;
  /** The span of who answers. */
  readonly traceparent: string | null;
}

export interface WithdrawCommand {
  readonly reason: string | null;
  readonly actor: string | null;
}

export interface ConsumeCommand {
  readonly consumer: string;
  readonly status: "applied" | "ignored";
  readonly note: string | null;
  readonly metadata: JsonObject;
}

export interface CancelCommand {
  readonly reason: string;
  readonly actor: string | null;
}

/** What people do with an interrupt, by the name of the function that does it. */
export type Handling = "claim" | "release" | "delegate" | "snooze";

/** What an operator does, by the name of the function that does it. */
export type Operation = "retry" | "skip" | "editState" | "pause" | "unpause";

export interface Commands {
  emit(id: ExecutionId, command: EmitCommand): Promise<void>;
  /** False when it was sealed before. */
  seal(id: ExecutionId, actor: string | null): Promise<boolean>;
  /** False when it had closed before. */
  close(id: ExecutionId, command: CloseCommand): Promise<boolean>;
  /** False when it had closed before. */
  cancel(id: ExecutionId, command: CancelCommand): Promise<boolean>;
  /** The interrupt as it is after the answer. */
  continueWith(id: ExecutionId, interrupt: string, command: ResumeCommand): Promise<Json>;
  /** The interrupt as it is then. */
  withdraw(id: ExecutionId, interrupt: string, command: WithdrawCommand): Promise<Json>;
  /** What a link asks, as its interrupt's record. @throws {TokenUnknownError | TokenUsedError | TokenClosedError} */
  askedByToken(token: string): Promise<Json>;
  /** The interrupt as it is then. @param actor null is the link */
  answerByToken(token: string, value: Json, actor: string | null): Promise<Json>;
  /** The interrupt as it is then. @param options with who, as the function takes them */
  handle(id: ExecutionId, interrupt: string, handling: Handling, options: JsonObject): Promise<Json>;
  /** What an answer to the interrupt must be, as JSON Schema; null is any JSON, or no such interrupt. */
  responseSchema(id: ExecutionId, interrupt: string): Promise<Json>;
  /** @param flow names the execution's flow where interventions are off */
  intervene(id: ExecutionId, flow: string, payload: Json, options: JsonObject): Promise<Json>;
  markInterventionConsumed(id: ExecutionId, intervention: string, command: ConsumeCommand): Promise<Json>;
  /**
   * Gives what the function gives.
   *
   * @param options with who and why, as the function takes them
   * @param raw the flow's contract has not seen what they hold
   */
  operate(id: ExecutionId, operation: Operation, options: JsonObject, raw: boolean): Promise<Json>;
  /** Like `emit`, to a running sub-flow of the execution. */
  emitToSubFlow(id: ExecutionId, subFlow: ExecutionId, command: EmitCommand): Promise<void>;
  /** False when it had ended, or was being cancelled, before. */
  cancelSubFlow(id: ExecutionId, subFlow: ExecutionId, command: CancelCommand): Promise<boolean>;
}

export function commandsOf({ sql, target }: Pick<Database, "sql" | "target">): Commands {
  /** @param what names what was asked; `refused` names it where the execution takes nothing any more */
  const refuse =
    (id: ExecutionId, what: string, refused = what) =>
    (error: unknown): never => {
      throw refusalOf(error, target, { id, what, refused });
    };
  let lane: Lane | undefined;
  const inLane = <T>(id: ExecutionId, work: () => Promise<T>): Promise<T> => {
    lane ??= openLane(sql.options.max);
    return lane.run(id, work);
  };
  /** The execution's id, in a statement that does not wait for its row: that is up to the lane. */
  const locking = (id: ExecutionId) =>
    sql`case when set_config('lock_timeout', ${tryWithin}, true) <> '' then ${id}::uuid end`;
  const refuseLink = (error: unknown): never => {
    throw refusalOf(error, target, { what: "a link" });
  };
  const done = (rows: readonly { readonly done: boolean }[]) => rows[0]?.done ?? false;
  const recordOf = (rows: readonly { readonly record: Json }[]) => rows[0]?.record ?? null;
  return {
    async emit(id, { event, payload, idempotencyKey, actor }) {
      await inLane(
        id,
        () => sql`
        select flowledger.emit(${locking(id)}, ${event}, ${JSON.stringify(payload)}::text::jsonb, ${idempotencyKey}, ${actor}, false, false)`,
      ).catch(refuse(id, `"${event}"`));
    },
    seal: (id, actor) =>
      inLane(id, () => sql<{ done: boolean }[]>`select flowledger.seal(${locking(id)}, ${actor}, false) as done`)
        .then(done)
        .catch(refuse(id, "seal")),
    close: (id, { reason, pendingInterrupts, parked, actor }) =>
      inLane(
        id,
        () => sql<{ done: boolean }[]>`
        select flowledger.close(${locking(id)}, ${reason}, ${pendingInterrupts}, ${actor}, false, ${parked}) as done`,
      )
        .then(done)
        .catch(refuse(id, "close")),
    cancel: (id, { reason, actor }) =>
      inLane(
        id,
        () => sql<{ done: boolean }[]>`select flowledger.cancel(${locking(id)}, ${reason}, ${actor}, false) as done`,
      )
        .then(done)
        .catch(refuse(id, "cancel")),
    continueWith: (id, interrupt, { value, requestId, actor, onlyIfPending, isChecked, traceparent }) =>
      inLane(
        id,
        () => sql<{ record: Json }[]>`
        select flowledger.continue_with(${locking(id)}, ${interrupt}, ${JSON.stringify(value)}::text::jsonb, ${requestId}, ${actor}, false, ${!isChecked}, ${onlyIfPending}, ${traceparent}) as record`,
      )
        .then(recordOf)
        .catch(refuse(id, interrupt, `continueWith("${interrupt}")`)),
    withdraw: (id, interrupt, { reason, actor }) =>
      inLane(
        id,
        () => sql<{ record: Json }[]>`
        select flowledger.withdraw(${locking(id)}, ${interrupt}, ${reason}, ${actor}, false) as record`,
      )
        .then(recordOf)
        .catch(refuse(id, interrupt, `withdraw("${interrupt}")`)),
    askedByToken: (token) =>
      sql<{ record: Json }[]>`select flowledger.asked_by_token(${token}) as record`.then(recordOf).catch(refuseLink),
    answerByToken: (token, value, actor) =>
      sql<{ record: Json }[]>`
        select flowledger.answer_by_token(${token}, ${JSON.stringify(value)}::text::jsonb, ${JSON.stringify({ actor })}::text::jsonb) as record`
        .then(recordOf)
        .catch(refuseLink),
    handle(id, interrupt, handling, options) {
      const given = JSON.stringify(options);
      const statements = {
        claim: () => sql<{ record: Json }[]>`
          select flowledger.claim_interrupt(${locking(id)}, ${interrupt}, ${given}::text::jsonb, false) as record`,
        release: () => sql<{ record: Json }[]>`
          select flowledger.release_interrupt(${locking(id)}, ${interrupt}, ${given}::text::jsonb, false) as record`,
        delegate: () => sql<{ record: Json }[]>`
          select flowledger.delegate_interrupt(${locking(id)}, ${interrupt}, ${given}::text::jsonb, false) as record`,
        snooze: () => sql<{ record: Json }[]>`
          select flowledger.snooze_interrupt(${locking(id)}, ${interrupt}, ${given}::text::jsonb, false) as record`,
      } satisfies Record<Handling, () => Promise<unknown>>;
      return inLane(id, statements[handling])
        .then(recordOf)
        .catch(refuse(id, interrupt, `${handling}("${interrupt}")`));
    },
    responseSchema: (id, interrupt) =>
      sql<{ response: Json }[]>`
        select coalesce(i.response, s.response) as response
        from (select flowledger.projected_owner(${id}::uuid, ${interrupt}) as id) owner
        left join flowledger.interrupts i on i.execution_id = ${id}::uuid and i.id = ${interrupt}
        left join flowledger.interrupts s on i.id is null and s.execution_id = owner.id and s.id = substr(${interrupt}, 38)`
        .then((rows) => rows[0]?.response ?? null)
        .catch((error: unknown) => {
          // A client may not look: its answer is compared where it is accepted.
          if (codeOf(error) === mayNot) return null;
          return refuse(id, interrupt)(error);
        }),
    intervene: (id, flow, payload, options) =>
      inLane(
        id,
        () => sql<{ record: Json }[]>`
        select flowledger.intervene(${locking(id)}, ${JSON.stringify(payload)}::text::jsonb, ${JSON.stringify(options)}::text::jsonb, false) as record`,
      )
        .then(recordOf)
        .catch(refuse(id, flow, "intervene()")),
    markInterventionConsumed: (id, intervention, { consumer, status, note, metadata }) =>
      inLane(
        id,
        () => sql<{ record: Json }[]>`
        select flowledger.mark_intervention_consumed(${locking(id)}, ${intervention}, ${consumer}, ${status}, ${note},
          ${JSON.stringify(metadata)}::text::jsonb, false) as record`,
      )
        .then(recordOf)
        .catch(refuse(id, "markInterventionConsumed()")),
    operate(id, operation, { changes, ...options }, raw) {
      const given = JSON.stringify(options);
      const statements = {
        retry: () => sql<{ record: Json }[]>`
          select flowledger.retry(${locking(id)}, ${given}::text::jsonb, false) as record`,
        skip: () => sql<{ record: Json }[]>`
          select flowledger.skip(${locking(id)}, ${given}::text::jsonb, false, ${raw}) as record`,
        pause: () =>
          sql<{ record: Json }[]>`select flowledger.pause(${locking(id)}, ${given}::text::jsonb, false) as record`,
        unpause: () =>
          sql<{ record: Json }[]>`select flowledger.unpause(${locking(id)}, ${given}::text::jsonb, false) as record`,
        editState: () => sql<{ record: Json }[]>`
          select flowledger.edit_state(${locking(id)}, ${JSON.stringify(changes ?? null)}::text::jsonb, ${given}::text::jsonb, false, ${raw}) as record`,
      } satisfies Record<Operation, () => Promise<unknown>>;
      return inLane(id, statements[operation])
        .then(recordOf)
        .catch(refuse(id, `${operation}()`));
    },
    async emitToSubFlow(id, subFlow, { event, payload, idempotencyKey, actor }) {
      await inLane(
        id,
        () => sql`
        select flowledger.emit_to_sub_flow(${locking(id)}, ${subFlow}::uuid, ${event}, ${JSON.stringify(payload)}::text::jsonb, ${idempotencyKey}, ${actor}, false, false)`,
      ).catch(refuse(id, `"${event}"`));
    },
    cancelSubFlow: (id, subFlow, { reason, actor }) =>
      inLane(
        id,
        () => sql<{ done: boolean }[]>`
        select flowledger.cancel_sub_flow(${locking(id)}, ${subFlow}::uuid, ${reason}, ${actor}, false) as done`,
      )
        .then(done)
        .catch(refuse(id, "cancelSubFlow()")),
  };
}
