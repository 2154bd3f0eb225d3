/** One execution: what it is and why it is there, its timeline, state, ledger and payloads. */
import { ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { requireInteger, requireOneOf, requireText } from "../base/option.ts";
import { InterruptRecord } from "../execution/interrupt.ts";
import { isLedgerEventType } from "../ledger/event.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { Explanation } from "../ledger/explanation.ts";
import { askedIn, entriesOf, newTimeline, rowsAfter, timeOn } from "../ledger/timeline-fold.ts";
import { TimelineRow } from "../ledger/timeline.ts";
import type { Header } from "../store/headers.ts";
import type { EventShown, Overview, Page, StateShown, TimelinePage, TimelineShown } from "./api.ts";
import { lookBack, wholeOfPast } from "./pasts.ts";
import { questionFor, shared, visibleOf, type AskedOfOne } from "./desk.ts";
import { optionsOf } from "./filters.ts";
import { json } from "./http.ts";
import type { Showing } from "./shown.ts";
import { errorOf, isoOf, questionOf } from "./views.ts";

/** Events that one look for some types goes through. */
const mostFiltered = 10_000;
/** Rows of one timeline, which are kept while it is looked at. */
const mostRows = 100_000;
/** Rows of a timeline, and events of a ledger, in one answer. */
const pageRows = 200;

export async function overview(asked: AskedOfOne): Promise<Overview> {
  const { id, query } = asked;
  optionsOf(query, {});
  return shared(asked, `overview ${id}`, () => overviewOf(asked));
}

async function overviewOf(asked: AskedOfOne): Promise<Overview> {
  const { desk, id } = asked;
  const { showing, settings } = desk;
  const store = await desk.store();
  const header = (await store.reads.headers([id])).get(id);
  if (!header) throw new ExecutionNotFoundError(id);
  const { flow } = header;
  const [explained, beginnings, interrupts, parked, redriven] = await Promise.all([
    store.console.explain(id).then((given) => Explanation.parse(given)),
    store.console.beginnings(id, settings.previewBytes * 4),
    header.closedAt === null ? store.reads.pendingInterrupts(id) : [],
    header.status === "parked" ? store.operators.parked(id) : [],
    store.operators.redrivenBy(id),
  ]);
  const records = interrupts.map((record) => InterruptRecord.parse(record));
  const waits = explained.kind === "waiting" ? explained.waits : [];
  const created = beginnings.find(({ type }) => type === "execution.created");
  const started = beginnings.find(({ type }) => type === "execution.started");
  const forkedFrom = idIn(created?.payload?.["forkedFrom"]);
  const named = waits.flatMap((wait) => ("executionId" in wait ? [wait.executionId] : []));
  const others = [
    header.parentId,
    forkedFrom,
    ...redriven,
    ...named,
    ...records.map((record) => record.projectedFrom?.executionId),
  ];
  const visible = await visibleOf(asked, [...others, ...parked.map(({ executionId }) => executionId as ExecutionId)]);
  const isSeen = (other: string | null | undefined) => other !== null && other !== undefined && visible.has(other);
  const isMasked = named.some((other) => other !== id && !isSeen(other));
  const { error, closeSnapshot } = header;
  return {
    id,
    flow,
    status: header.status,
    lifecycle: header.lifecycle,
    fingerprint: header.fingerprint,
    createdAt: new Date(header.createdAt).toISOString(),
    startedAt: isoOf(header.startedAt),
    sealedAt: isoOf(header.sealedAt),
    closedAt: isoOf(header.closedAt),
    closeReason: header.closeReason,
    seq: header.seq,
    parentId: isSeen(header.parentId) ? header.parentId : null,
    forkedFrom: isSeen(forkedFrom) ? forkedFrom : null,
    redrivenBy: redriven.filter(isSeen),
    metadata: showing.show(header.metadata ?? {}, { flow, part: "metadata" }, `executions/${id}/payload?part=metadata`),
    sentence: isMasked
      ? "It waits for an execution that you do not see."
      : showing.text(explained.sentence, { flow, part: "sentence" }),
    kind: explained.kind,
    isPaused: explained.kind === "paused",
    waits: [...new Set(waits.map(({ kind }) => kind))],
    error: error && errorOf(showing, flow, error),
    input: started
      ? started.payload
        ? showing.show(started.payload["input"] ?? null, { flow, part: "input" }, `executions/${id}/payload?part=input`)
        : { preview: "", bytes: started.bytes, load: `executions/${id}/payload?part=input` }
      : null,
    output:
      closeSnapshot && showing.show(closeSnapshot, { flow, part: "output" }, `executions/${id}/payload?part=output`),
    questions: records
      .filter(
        ({ projectedFrom }) =>
          projectedFrom === null || projectedFrom.executionId === id || isSeen(projectedFrom.executionId),
      )
      .map((record) => questionOf(asked, record)),
    parked: parked.filter(({ executionId }) => executionId === id || isSeen(executionId)).slice(0, pageRows),
    traceUrl: traceUrlOf(settings.trace, created?.payload?.["traceparent"]),
    takesInterventions: created?.payload?.["settings"] !== undefined && interveneMode(created.payload) !== null,
  };
}

export async function timeline(asked: AskedOfOne): Promise<TimelinePage> {
  const { desk, id, query } = asked;
  // `after` is the event that the page has: the same answer is not given again.
  const given = optionsOf<{ cursor?: string; seq?: number; after?: number }>(query, {
    cursor: "text",
    seq: "count",
    after: "count",
  });
  const at = given.seq === undefined ? null : requireInteger(given.seq, "seq", { min: 1 });
  const cursor = given.cursor === undefined ? null : placeOf(given.cursor);
  if (given.after !== undefined) requireInteger(given.after, "after", { min: 0 });
  return shared(asked, `timeline ${id} ${query.toString()}`, async () => {
    const store = await desk.store();
    const header = (await store.reads.headers([id])).get(id);
    const last = header?.seq ?? 0;
    if (at !== null && at > last) throw beyond(at, last);
    const of = at ?? last;
    let now = new Date(0).toISOString();
    const fold = await desk.timelines.goOn(`${id} ${at}`, newTimeline, async (known) => {
      if (known.rows.length >= mostRows) return;
      const page = await store.timed.page(id, known.seq, of);
      for (const event of page.events) timeOn(known, event);
      known.seq = page.seq ?? known.seq;
      known.at = page.at ?? known.at;
      now = page.now;
    });
    const rows = rowsAfter(fold, cursor, pageRows);
    const waits = await store.timed.waits(id, askedIn(rows, at ?? undefined));
    const then = at === null ? null : fold.at;
    const found = entriesOf(fold, rows, waits, then ?? now).map((row) => TimelineRow.parse(row));
    const visible = await visibleOf(
      asked,
      found.map((row) => (row.kind === "child" ? row.executionId : null)),
    );
    return {
      rows: found.map((row) => timelineRow(desk.showing, header?.flow ?? "", row, visible)),
      nextCursor: found.length === pageRows ? (found.at(-1)?.cursor ?? null) : null,
      seq: Math.min(fold.seq, of),
      of,
      at: then,
    };
  });
}

function placeOf(cursor: string): { seq: number; place: number } {
  const [, seq, place] = /^(\d{1,9})\.(\d{1,9})$/.exec(cursor) ?? [];
  if (seq === undefined || place === undefined)
    throw new UsageError(
      `cursor ${JSON.stringify(cursor.slice(0, 40))} is not a cursor of a timeline`,
      "use the one that the page before gave",
    );
  return { seq: Number(seq), place: Number(place) };
}

function timelineRow(showing: Showing, flow: string, row: TimelineRow, visible: ReadonlySet<string>): TimelineShown {
  const { cursor, kind, queuedAt, startedAt, endedAt } = row;
  const isHidden = row.kind === "child" && !visible.has(row.executionId);
  const attempts = "attempts" in row ? row.attempts : [];
  const name = {
    chunk: () => ("chunk" in row ? row.chunk : ""),
    step: () => ("step" in row ? row.step : ""),
    sleep: () => "sleep",
    wait: () => ("type" in row ? row.type : ""),
    child: () => (isHidden ? "an execution that you do not see" : "flow" in row ? row.flow : ""),
    items: () => "items",
  }[kind]();
  return {
    cursor,
    kind,
    name,
    status: row.status,
    queuedAt: queuedAt?.toISOString() ?? null,
    startedAt: startedAt?.toISOString() ?? null,
    endedAt: endedAt?.toISOString() ?? null,
    until: "until" in row ? (row.until?.toISOString() ?? null) : null,
    attempts: attempts.map((attempt) => ({
      attempt: attempt.attempt,
      status: attempt.status,
      queuedAt: attempt.queuedAt?.toISOString() ?? null,
      startedAt: attempt.startedAt?.toISOString() ?? null,
      endedAt: attempt.endedAt.toISOString(),
      error: attempt.error && errorOf(showing, flow, attempt.error),
    })),
    executionId: row.kind === "child" && !isHidden ? row.executionId : null,
    actor: "actor" in row ? row.actor : null,
    error: row.kind === "child" && row.error && !isHidden ? errorOf(showing, flow, row.error) : null,
    size: "size" in row ? row.size : null,
  };
}

/** As it is now, or as it was after an event. */
export async function state(asked: AskedOfOne): Promise<StateShown> {
  const { desk, id, query } = asked;
  // `after` is the event that the page has: the same answer is not given again.
  const { seq, after } = optionsOf<{ seq?: number; after?: number }>(query, { seq: "count", after: "count" });
  const at = seq === undefined ? null : requireInteger(seq, "seq", { min: 1 });
  if (after !== undefined) requireInteger(after, "after", { min: 0 });
  return shared(asked, `state ${id} ${query.toString()}`, async () => {
    const load = `executions/${id}/payload?part=state${at === null ? "" : `&seq=${at}`}`;
    const show = (value: JsonObject, flow: string) => desk.showing.show(value, { flow, part: "state" }, load);
    if (at !== null) {
      const header = (await (await desk.store()).reads.headers([id])).get(id);
      if (at > (header?.seq ?? 0)) throw beyond(at, header?.seq ?? 0);
      const past = await lookBack(desk, id, at);
      return { state: show(past.state, header?.flow ?? ""), seq: past.seq, of: at, problem: null };
    }
    const look = await (await desk.lookout()).look(id, { events: 1 });
    const { stateVersion: of, flowName: flow } = look.meta;
    const problem =
      look.state === null && look.problem ? desk.showing.text(look.problem.message, { flow, part: "error" }) : null;
    return { state: show(look.state ?? {}, flow), seq: look.stateSeq, of, problem };
  });
}

export async function ledger(asked: AskedOfOne): Promise<Page<EventShown>> {
  const { desk, id, query } = asked;
  const given = optionsOf<{ before?: number; type?: string[] }>(query, { before: "count", type: "texts" });
  const before = given.before === undefined ? null : requireInteger(given.before, "before", { min: 1 });
  const types = given.type ?? null;
  for (const type of types ?? [])
    if (!isLedgerEventType(type))
      throw new UsageError(`type "${type}" is not the type of a ledger event`, 'use one like "chunk.completed"');
  return shared(asked, `ledger ${id} ${query.toString()}`, async () => {
    const store = await desk.store();
    const header = (await store.reads.headers([id])).get(id);
    const flow = header?.flow ?? "";
    const bytes = desk.settings.previewBytes;
    // Few of many events may be of the types asked for, so the search is bounded.
    const from = types === null ? 1 : Math.max(1, (before ?? (header?.seq ?? 0) + 1) - mostFiltered);
    const events = await store.console.ledger(id, { before, types, limit: pageRows, bytes, from });
    const rows = events.map(({ seq, at, type, chunk, actor, payload, bytes: stored }) => {
      const load = `executions/${id}/payload?part=event&seq=${seq}`;
      const shown = payload
        ? desk.showing.show(payload, { flow, part: "event" }, load)
        : stored > 0
          ? { preview: "", bytes: stored, load }
          : null;
      return { seq, at: at.toISOString(), type, chunk, actor, payload: shown };
    });
    if (events.length === pageRows) return { rows, nextCursor: String(events.at(-1)?.seq ?? "") };
    return { rows, nextCursor: from > 1 ? String(from) : null };
  });
}

const parts = ["input", "output", "state", "metadata", "event", "question"] as const;

/** The whole of a value that was shown in part. */
export async function payload(asked: AskedOfOne): Promise<Response> {
  const { desk, id, query } = asked;
  const given = optionsOf<{ part?: string; seq?: number; interrupt?: string }>(query, {
    part: "text",
    seq: "count",
    interrupt: "text",
  });
  const part = requireOneOf(given.part, parts, "part");
  const store = await desk.store();
  const header = (await store.reads.headers([id])).get(id);
  if (!header) throw new ExecutionNotFoundError(id);
  const value = await wholeOf(asked, header, part, given);
  return json(desk.showing.whole(value, { flow: header.flow, part }));
}

async function wholeOf(
  asked: AskedOfOne,
  header: Header,
  part: (typeof parts)[number],
  given: { readonly seq?: number; readonly interrupt?: string },
): Promise<Json> {
  const { desk, id } = asked;
  const store = await desk.store();
  const read = async (seq: number): Promise<JsonObject> =>
    JSON.parse((await store.console.payload(id, seq)) ?? "{}") as JsonObject;
  switch (part) {
    case "metadata":
      return header.metadata ?? {};
    case "output":
      return header.closeSnapshot;
    case "input": {
      const started = (await store.console.beginnings(id, 0)).find(({ type }) => type === "execution.started");
      return started ? ((await read(started.seq))["input"] ?? null) : null;
    }
    case "event": {
      const at = requireInteger(given.seq, "seq", { min: 1 });
      if (at > header.seq) throw beyond(at, header.seq);
      return read(at);
    }
    case "question":
      return (await questionFor(asked, requireText(given.interrupt, "interrupt", { max: 1000 })))?.payload ?? null;
    case "state": {
      const at = given.seq === undefined ? header.seq : requireInteger(given.seq, "seq", { min: 1 });
      if (at > header.seq) throw beyond(at, header.seq);
      return wholeOfPast(desk, id, at);
    }
  }
}

function beyond(seq: number, last: number): UsageError {
  return new UsageError(`seq ${seq} is beyond the ledger, which has ${last} events`, "use one that it has");
}

function idIn(value: Json | undefined): ExecutionId | null {
  const id = typeof value === "object" && value !== null && "id" in value ? value["id"] : null;
  return typeof id === "string" ? (id as ExecutionId) : null;
}

function interveneMode(created: JsonObject): Json {
  const settings = created["settings"];
  return typeof settings === "object" && settings !== null && !Array.isArray(settings)
    ? (settings["interventionMode"] ?? null)
    : null;
}

/** A link of the application's own; what is no web address leads nowhere. */
function traceUrlOf(link: ((traceId: string) => string) | null, traceparent: Json | undefined): string | null {
  const traceId = typeof traceparent === "string" ? traceparent.split("-")[1] : undefined;
  if (link === null || traceId === undefined) return null;
  try {
    const url = new URL(link(traceId));
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}
