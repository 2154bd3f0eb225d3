/** Rows, questions and errors, as every screen gets them. */
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { Header } from "../store/headers.ts";
import type { ErrorShown, Question, Row } from "./api.ts";
import type { Asked } from "./desk.ts";
import type { Showing } from "./shown.ts";

/** An error of any kind that is stored. */
type Given = Pick<ErrorShown, "name" | "message"> & { [K in keyof ErrorShown]?: ErrorShown[K] | undefined };

export function questionOf({ desk }: Asked, record: InterruptRecord): Question {
  const { id, executionId, flow, chunk, type, createdAt, expiresAt, payload, response } = record;
  const { title, assignees, dueAt, claimedBy, claimedAt, isExclusive, snoozedUntil } = record;
  return {
    id,
    executionId,
    flow,
    chunk,
    type,
    createdAt: createdAt.toISOString(),
    expiresAt: expiresAt?.toISOString() ?? null,
    title: title === null ? null : desk.showing.text(title, { flow, part: "question" }),
    assignees,
    dueAt: dueAt?.toISOString() ?? null,
    claimedBy,
    claimedAt: claimedAt?.toISOString() ?? null,
    isExclusive: isExclusive ?? false,
    snoozedUntil: snoozedUntil?.toISOString() ?? null,
    payload: desk.showing.show(
      payload,
      { flow, part: "question" },
      `executions/${executionId}/payload?part=question&interrupt=${encodeURIComponent(id)}`,
    ),
    response,
  };
}

export function rowOf({ desk }: Asked, header: Header): Row {
  const { id, flow, status, lifecycle, metadata, pendingInterrupts: pending, parked } = header;
  return {
    id,
    flow,
    status,
    lifecycle,
    pending,
    parked,
    metadata: desk.showing.show(metadata ?? {}, { flow, part: "metadata" }, `executions/${id}/payload?part=metadata`),
    createdAt: new Date(header.createdAt).toISOString(),
    startedAt: isoOf(header.startedAt),
    closedAt: isoOf(header.closedAt),
    error: header.error && errorOf(desk.showing, flow, { ...header.error, stack: null }),
  };
}

export function errorOf(showing: Showing, flow: string, error: Given): ErrorShown {
  const of = { flow, part: "error" } as const;
  const { name, message, stack = null, chunk = null, attempt = null, code = null } = error;
  return {
    name,
    message: message === null ? null : showing.text(message, of),
    stack: stack === null ? null : showing.text(stack, of),
    chunk,
    attempt,
    code,
  };
}

export function isoOf(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
