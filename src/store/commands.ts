/** Commands from outside: which function of ours each is, with which arguments. How it is sent is `command-senders.ts`. */
import type { Json, JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";

export interface EmitCommand {
  readonly event: string;
  readonly payload: Json;
  readonly idempotencyKey: string | null;
  readonly actor: string | null;
  /** The span of who sends it. */
  readonly traceparent?: string | null;
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
  /** The hash of the schema by which the answer has been checked; null is none. */
  readonly checked: string | null;
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
  /** The interrupt as it is after the answer; or `Unchecked`, where it asks for something else than was checked, and nothing was accepted. */
  continueWith(id: ExecutionId, interrupt: string, command: ResumeCommand): Promise<Json>;
  /** The interrupt as it is then. */
  withdraw(id: ExecutionId, interrupt: string, command: WithdrawCommand): Promise<Json>;
  /** What a link asks, as its interrupt's record. @throws {TokenUnknownError | TokenUsedError | TokenClosedError} */
  askedByToken(token: string): Promise<Json>;
  /** The interrupt as it is then. @param actor null is the link */
  answerByToken(
    token: string,
    value: Json,
    options: { readonly actor: string | null; readonly traceparent: string | null },
  ): Promise<Json>;
  /** The interrupt as it is then. @param options with who, as the function takes them */
  handle(id: ExecutionId, interrupt: string, handling: Handling, options: JsonObject): Promise<Json>;
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

/** What a transaction of the caller's may hold: a close would wait for what cannot come before it commits. */
export type CommandsIn = Omit<Commands, "close" | "askedByToken" | "answerByToken">;

/** A worker of this process. */
export interface Sender {
  /** Sends a command, and claims what that wakes in the same statement; null where it can take nothing now. */
  send<T>(
    id: ExecutionId,
    flow: string,
    send: (commands: CommandsIn) => Promise<T>,
  ): Promise<{ readonly answer: T; readonly isClaimed: boolean }> | null;
}

export type Argument = readonly [type: "uuid" | "text" | "jsonb" | "bool", value: string | boolean | null];

/** Calls a function of ours about an execution, whose id comes first. @param about what was asked, for what is refused */
export type Call = (
  name: string,
  about: { readonly id: ExecutionId; readonly what: string; readonly refused?: string },
  ...args: readonly Argument[]
) => Promise<Json>;

const uuid = (value: ExecutionId): Argument => ["uuid", value];
const text = (value: string | null): Argument => ["text", value];
const json = (value: Json): Argument => ["jsonb", JSON.stringify(value)];
const flag = (value: boolean): Argument => ["bool", value];

const operations = {
  retry: "retry",
  skip: "skip",
  editState: "edit_state",
  pause: "pause",
  unpause: "unpause",
} as const satisfies Record<Operation, string>;
const handlings = {
  claim: "claim_interrupt",
  release: "release_interrupt",
  delegate: "delegate_interrupt",
  snooze: "snooze_interrupt",
} as const satisfies Record<Handling, string>;

/** @param notifies owners and readers hear of it by the database */
export function commandsBy(call: Call, { notifies }: { readonly notifies: boolean }): CommandsIn {
  const notify = flag(notifies);
  const done = async (called: Promise<Json>) => (await called) === true;
  return {
    async emit(id, { event, payload, idempotencyKey, actor, traceparent = null }) {
      const args = [text(event), json(payload), text(idempotencyKey), text(actor), notify, flag(false)];
      await call("emit", { id, what: `"${event}"` }, ...args, text(traceparent));
    },
    seal: (id, actor) => done(call("seal", { id, what: "seal" }, text(actor), notify)),
    cancel: (id, { reason, actor }) => done(call("cancel", { id, what: "cancel" }, text(reason), text(actor), notify)),
    continueWith(id, interrupt, { value, requestId, actor, onlyIfPending, checked, traceparent }) {
      const about = { id, what: interrupt, refused: `continueWith("${interrupt}")` };
      const answer = [text(interrupt), json(value), text(requestId), text(actor), notify];
      const more = [flag(true), flag(onlyIfPending), text(traceparent), text(checked ?? "")];
      return call("continue_with", about, ...answer, ...more);
    },
    withdraw(id, interrupt, { reason, actor }) {
      const about = { id, what: interrupt, refused: `withdraw("${interrupt}")` };
      return call("withdraw", about, text(interrupt), text(reason), text(actor), notify);
    },
    handle(id, interrupt, handling, options) {
      const about = { id, what: interrupt, refused: `${handling}("${interrupt}")` };
      return call(handlings[handling], about, text(interrupt), json(options), notify);
    },
    intervene: (id, flow, payload, options) =>
      call("intervene", { id, what: flow, refused: "intervene()" }, json(payload), json(options), notify),
    markInterventionConsumed(id, intervention, { consumer, status, note, metadata }) {
      const about = { id, what: intervention, refused: "markInterventionConsumed()" };
      const mark = [text(consumer), text(status), text(note), json(metadata)];
      return call("mark_intervention_consumed", about, text(intervention), ...mark, notify);
    },
    operate(id, operation, { changes, ...options }, raw) {
      const edited = operation === "editState" ? [json(changes ?? null)] : [];
      const isRaw = operation === "editState" || operation === "skip" ? [flag(raw)] : [];
      const about = { id, what: `${operation}()` };
      return call(operations[operation], about, ...edited, json(options), notify, ...isRaw);
    },
    async emitToSubFlow(id, subFlow, { event, payload, idempotencyKey, actor, traceparent = null }) {
      const args = [text(event), json(payload), text(idempotencyKey), text(actor), notify, flag(false)];
      await call("emit_to_sub_flow", { id, what: `"${event}"` }, uuid(subFlow), ...args, text(traceparent));
    },
    cancelSubFlow(id, subFlow, { reason, actor }) {
      const about = { id, what: "cancelSubFlow()" };
      return done(call("cancel_sub_flow", about, uuid(subFlow), text(reason), text(actor), notify));
    },
  };
}
