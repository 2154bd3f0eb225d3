/** The commands inside of a transaction of the caller's own: they count, and are told, when it commits. */
import { z } from "zod";
import { JsonValue, type Json } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { callerTransactions, type CallerTransaction, type OpenTransaction } from "./caller-transaction.ts";
import type { Database } from "./client.ts";
import type { Commands, Handling, Operation } from "./commands.ts";

/** What a transaction may hold: a close would wait for what cannot come before it commits. */
export type CommandsIn = Omit<Commands, "close" | "askedByToken" | "answerByToken" | "responseSchema">;

type Argument = readonly [type: "uuid" | "text" | "jsonb" | "bool", value: string | boolean | null];

const uuid = (value: ExecutionId): Argument => ["uuid", value];
const text = (value: string | null): Argument => ["text", value];
const json = (value: Json): Argument => ["jsonb", JSON.stringify(value)];
const flag = (value: boolean): Argument => ["bool", value];
/** Owners and readers hear of it, at the commit. */
const notify = flag(true);

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

/** @throws {UsageError} for anything but an open transaction of our database that may write */
export function commandsInOf(database: Pick<Database, "sql" | "names">) {
  const open = callerTransactions(database);
  return async (tx: CallerTransaction): Promise<CommandsIn> => commandsOver(await open(tx));
}

function commandsOver(transaction: OpenTransaction): CommandsIn {
  const call = async (
    name: string,
    about: { readonly id: ExecutionId; readonly what: string; readonly refused?: string },
    ...args: readonly Argument[]
  ): Promise<Json> => {
    const given = args.map(([type], index) => `$${index + 1}::pg_catalog.text::pg_catalog.${type}`);
    const answer = await transaction.ask(
      `coalesce(pg_catalog.to_jsonb(flowledger.${name}(${given.join(", ")})), 'null'::pg_catalog.jsonb)::pg_catalog.text`,
      args.map(([, value]) => (typeof value === "boolean" ? String(value) : value)),
      about,
    );
    return JsonValue.parse(JSON.parse(answer));
  };
  const done = async (called: Promise<Json>) => z.boolean().parse(await called);
  return {
    async emit(id, { event, payload, idempotencyKey, actor }) {
      const args = [uuid(id), text(event), json(payload), text(idempotencyKey), text(actor), notify, flag(false)];
      await call("emit", { id, what: `"${event}"` }, ...args);
    },
    seal: (id, actor) => done(call("seal", { id, what: "seal" }, uuid(id), text(actor), notify)),
    cancel: (id, { reason, actor }) =>
      done(call("cancel", { id, what: "cancel" }, uuid(id), text(reason), text(actor), notify)),
    continueWith(id, interrupt, { value, requestId, actor, onlyIfPending, isChecked, traceparent }) {
      const about = { id, what: interrupt, refused: `continueWith("${interrupt}")` };
      const answer = [uuid(id), text(interrupt), json(value), text(requestId), text(actor), notify];
      return call("continue_with", about, ...answer, flag(!isChecked), flag(onlyIfPending), text(traceparent));
    },
    withdraw(id, interrupt, { reason, actor }) {
      const about = { id, what: interrupt, refused: `withdraw("${interrupt}")` };
      return call("withdraw", about, uuid(id), text(interrupt), text(reason), text(actor), notify);
    },
    handle(id, interrupt, handling, options) {
      const about = { id, what: interrupt, refused: `${handling}("${interrupt}")` };
      return call(handlings[handling], about, uuid(id), text(interrupt), json(options), notify);
    },
    intervene: (id, flow, payload, options) =>
      call("intervene", { id, what: flow, refused: "intervene()" }, uuid(id), json(payload), json(options), notify),
    markInterventionConsumed(id, intervention, { consumer, status, note, metadata }) {
      const about = { id, what: intervention, refused: "markInterventionConsumed()" };
      const mark = [text(consumer), text(status), text(note), json(metadata)];
      return call("mark_intervention_consumed", about, uuid(id), text(intervention), ...mark, notify);
    },
    operate(id, operation, { changes, ...options }, raw) {
      const edited = operation === "editState" ? [json(changes ?? null)] : [];
      const isRaw = operation === "editState" || operation === "skip" ? [flag(raw)] : [];
      const about = { id, what: `${operation}()` };
      return call(operations[operation], about, uuid(id), ...edited, json(options), notify, ...isRaw);
    },
    async emitToSubFlow(id, subFlow, { event, payload, idempotencyKey, actor }) {
      const args = [text(event), json(payload), text(idempotencyKey), text(actor), notify, flag(false)];
      await call("emit_to_sub_flow", { id, what: `"${event}"` }, uuid(id), uuid(subFlow), ...args);
    },
    cancelSubFlow(id, subFlow, { reason, actor }) {
      const about = { id, what: "cancelSubFlow()" };
      return done(call("cancel_sub_flow", about, uuid(id), uuid(subFlow), text(reason), text(actor), notify));
    },
  };
}
