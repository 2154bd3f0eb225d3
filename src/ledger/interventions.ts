/** Interventions: what may be said of one, and what becomes of it, folded. */
import { UsageError } from "../base/errors.ts";
import type { InterventionFilters } from "../flow/context.ts";
import {
  isStorable,
  requireInteger,
  requireKnown,
  requireOneOf,
  requireRecord,
  requireText,
  show,
} from "../base/option.ts";
import { journal } from "./dispatches.ts";
import type { EventOf } from "./event.ts";
import type { ExecutionState } from "./state.ts";

/** @throws {UsageError} */
export function requireConsumption(
  id: string,
  { status, consumer, note, metadata }: { readonly [K in "status" | "consumer" | "note" | "metadata"]: unknown },
): void {
  const where = `of intervention ${show(id)}`;
  requireOneOf(status, ["applied", "ignored"], `status ${where}`);
  if (!isStorable(consumer)) throw new UsageError(`intervention ${show(id)} needs a consumer`, "say who consumed it");
  requireText(consumer, `consumer ${where}`, { max: 500 });
  if (note !== null) requireText(note, `note ${where}`, { max: 10_000 });
  requireRecord(metadata, `metadata ${where}`);
}

/** What interventions are searched by. @throws {UsageError} */
export function requireFilters(filters: InterventionFilters, where: string): void {
  requireKnown(filters, ["status", "target", "sinceVersion", "consumedBy"], where);
  const { status, sinceVersion, ...texts } = filters;
  if (status !== undefined) requireOneOf(status, ["pending", "inserted", "rejected", "expired"], `status of ${where}`);
  if (sinceVersion !== undefined) requireInteger(sinceVersion, `sinceVersion of ${where}`, { min: 0 });
  for (const [name, text] of Object.entries(texts))
    if (text !== undefined && typeof text !== "string")
      throw new UsageError(`${name} of ${where} must be a text, got ${show(text)}`, null);
}

export function interventionRecorded(state: ExecutionState, event: EventOf<"intervention.recorded">, at: number): void {
  state.interventions.push({
    id: event.id,
    version: state.interventions.length + 1,
    status: "pending",
    payload: event.payload,
    target: event.target ?? null,
    author: event.author ?? null,
    note: event.note ?? null,
    metadata: event.metadata ?? {},
    createdAt: at,
    insertedAt: null,
    insertion: null,
    rejectedAt: null,
    rejectReason: null,
    expiredAt: null,
    consumers: {},
  });
}

/** It went in where it was meant to, or the execution ended without it. */
export function interventionEnded(
  state: ExecutionState,
  event: EventOf<"intervention.inserted" | "intervention.expired">,
  at: number,
): void {
  const intervention = state.interventions.find(({ id }) => id === event.id);
  if (!intervention) return;
  if (event.type === "intervention.expired") Object.assign(intervention, { status: "expired", expiredAt: at });
  else Object.assign(intervention, { status: "inserted", insertedAt: at, insertion: event.insertion });
}

export function interventionConsumed(state: ExecutionState, event: EventOf<"intervention.consumed">, at: number): void {
  const { id, consumer, status, dispatch, ordinal } = event;
  const intervention = state.interventions.find((known) => known.id === id);
  if (intervention)
    intervention.consumers[consumer] = {
      status,
      note: event.note ?? null,
      metadata: event.metadata ?? {},
      consumedAt: at,
    };
  if (dispatch !== undefined && ordinal !== undefined)
    journal(state, dispatch, { ordinal, effect: "consume", key: `${id} ${consumer}` }, at);
}
