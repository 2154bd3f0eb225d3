/** Rules that stand on both sides, in TypeScript and in SQL: on random histories both must say the same. */
import { dueAt } from "../../src/ledger/handling.ts";
import { randomInt } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import type { ExecutionId, LedgerEvent, Recorded } from "../../src/ledger/event.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import { initialState, isItem, pendingInterrupts, type ExecutionState } from "../../src/ledger/state.ts";
import type { Interrupt } from "../../src/ledger/parts.ts";
import { plain, type Json, type JsonObject } from "../../src/base/json.ts";
import { askedIn, entriesOf, newTimeline, rowsAfter, timeOn } from "../../src/ledger/timeline-fold.ts";
import { TimelineRow } from "../../src/ledger/timeline.ts";
import { closeSnapshot, finalResultKey, interventionJson } from "../../src/ledger/views.ts";
import { channelsOf, defaultNames } from "../../src/store/names.ts";
import { testDatabase } from "../support/database.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { metaOf } from "../support/ledger.ts";
import { Family, isWaiting, type Member, type Written } from "../support/played.ts";
import { anyPlay } from "../support/random.ts";
import { storeOn } from "../support/store.ts";

const { sql } = await testDatabase();
/** `SEED=… npm test -- test/store/rules.test.ts` plays the same histories again. */
const seed = Number(process.env["SEED"] ?? randomInt(2 ** 31));

/** A member of a family, with what its ledger says after each of its events. */
interface Played {
  readonly name: string;
  readonly member: Member;
  readonly states: readonly ExecutionState[];
  readonly isWaiting: boolean;
}

const played: Played[] = [];
const written: Written[] = [];

/** Most are always the same, and reach what the rules are about. */
const plays = [14, 23, 31, seed].flatMap((chosen) =>
  fc.sample(anyPlay({ minLength: 1, maxLength: 60 }), {
    numRuns: chosen === seed ? fuzzRuns(1 / 300).numRuns : 35,
    seed: chosen,
  }),
);

beforeAll(async () => {
  for (const [index, { flow, choices }] of plays.entries()) {
    const family = await Family.begin(sql, flow, choices[0] ?? 0);
    for (const choice of choices) await family.step(choice);
    if (index % 2) await family.finish();
    written.push(...family.compared);
    for (const member of family.members)
      played.push({
        name: `SEED=${seed}, history ${index}, execution ${member.id}`,
        member,
        states: statesOf(member),
        isWaiting: isWaiting(member, family.members),
      });
  }
}, 1_200_000);

function statesOf({ history }: Member): ExecutionState[] {
  const state = initialState();
  return history.map((recorded) => structuredClone(evolve(state, structuredClone(recorded))));
}

test("an interrupt's row is what the fold says, after each event", async () => {
  for (const { name, member, states } of played) {
    const ids = [...member.state.interrupts.keys()];
    const rows = await sql<{ seq: number; row: JsonObject }[]>`
      select s.seq, jsonb_build_object('id', i.id, 'type', i.type, 'status', i.status, 'payload', i.payload, 'resumeTo', i.resume_to,
        'maxResumes', i.max_resumes, 'resumeCount', i.resume_count, 'chunk', i.chunk, 'createdAt', flowledger.to_ms(i.created_at),
        'expiresAt', flowledger.to_ms(i.expires_at), 'resolvedAt', flowledger.to_ms(i.resolved_at), 'value', i.value, 'requestId', i.request_id,
        'actor', i.actor, 'response', i.response)
          || jsonb_strip_nulls(jsonb_build_object('title', i.title, 'assignees', i.assignees, 'dueAt', flowledger.to_ms(i.due_at), 'claimedBy', i.claimed_by,
            'claimedAt', flowledger.to_ms(i.claimed_at), 'isExclusive', i.is_exclusive, 'snoozedUntil', flowledger.to_ms(i.snoozed_until))) as row
      from generate_series(1, ${states.length}::int) s(seq), unnest(${ids}::text[]) n(id),
        flowledger.interrupt_of(${member.id}, n.id, s.seq) i
      order by s.seq, i.id`;
    const expected = states.flatMap(({ interrupts }, index) =>
      [...interrupts.values()]
        .toSorted((a, b) => (a.id < b.id ? -1 : 1))
        .map((interrupt) => ({ seq: index + 1, row: interruptRow(interrupt) })),
    );

    expect({ [name]: rows.map(({ seq, row }) => ({ seq, row: inMicroseconds(row) })) }).toEqual({ [name]: expected });
  }
});

function interruptRow(interrupt: Interrupt): JsonObject {
  const row = plain(interrupt);
  delete row["paused"];
  delete row["expiresInMs"];
  delete row["onExpire"];
  delete row["answeredFrom"];
  delete row["answeredBy"];
  delete row["hears"];
  delete row["tells"];
  delete row["handling"];
  const { title, assignees, claim, snoozedUntil } = interrupt.handling ?? {};
  const set = { title, assignees, dueAt: dueAt(interrupt), snoozedUntil, claimedBy: claim?.actor };
  for (const [name, value] of Object.entries({ ...set, claimedAt: claim?.at, isExclusive: claim?.isExclusive }))
    if (value !== null && value !== undefined) row[name] = value;
  return inMicroseconds(row);
}

/** As a page of the console has it: folded by pieces, each one further than the look before. */
async function timelineOf(id: ExecutionId, seq: number, pieces: number): Promise<TimelineRow[]> {
  const { timed } = storeOn(sql);
  const folded = newTimeline();
  let now = "";
  for (let piece = 1; piece <= pieces; piece++) {
    const page = await timed.page(id, folded.seq, Math.ceil((seq * piece) / pieces));
    for (const event of page.events) timeOn(folded, event);
    folded.seq = page.seq ?? folded.seq;
    now = page.now;
  }
  const rows = rowsAfter(folded, null, 1000);
  const entries = entriesOf(folded, rows, await timed.waits(id, askedIn(rows)), now);
  return entries.map((entry) => TimelineRow.parse(entry));
}

test("a timeline that is folded by pieces is what the database gathers from the whole ledger", async () => {
  const kinds = new Set<string>();
  for (const [index, { name, member }] of played.entries()) {
    const rows = await sql<{ entry: unknown }[]>`
      select t.entry from flowledger.timeline(${member.id}, null, 1000) with ordinality t(entry, ord) order by t.ord`;
    const whole = rows.map(({ entry }) => TimelineRow.parse(entry));
    for (const { kind, status } of whole) kinds.add(`${kind} ${status}`);

    expect({ [name]: await timelineOf(member.id, member.history.length, 1 + (index % 4)) }).toEqual({ [name]: whole });
  }
  // They reach what it is about.
  expect(kinds.size).toBeGreaterThan(12);
});

/** Sums of milliseconds are rounded in another way than those of Postgres. */
function inMicroseconds(row: JsonObject): JsonObject {
  const rounded = Object.entries(row).map(([key, value]): [string, Json] => [
    key,
    key.endsWith("At") && typeof value === "number" ? Math.round(value * 1000) : value,
  ]);
  return Object.fromEntries(rounded);
}

test("an intervention's record is what the fold says, after each event", async () => {
  for (const { name, member, states } of played) {
    const ids = member.state.interventions.map(({ id }) => id);
    const rows = await sql<{ seq: number; record: JsonObject }[]>`
      select s.seq, v.record
      from generate_series(1, ${states.length}::int) s(seq), unnest(${ids}::text[]) n(id),
        flowledger.intervention_of(${member.id}, n.id, s.seq) v
      order by s.seq, v.version`;
    const expected = states.flatMap(({ interventions }, index) =>
      interventions.map((record) => ({ seq: index + 1, record: interventionJson(record) })),
    );

    expect({ [name]: [...rows] }).toEqual({ [name]: expected });
  }
});

test("the application state is what the fold says, after each event", async () => {
  for (const { name, member, states } of played) {
    const rows = await sql<{ state: JsonObject }[]>`
      select flowledger.state_at(${member.id}, s.seq) as state from generate_series(1, ${states.length}::int) s(seq) order by s.seq`;

    expect({ [name]: rows.map(({ state }) => state) }).toEqual({ [name]: states.map(({ values }) => values) });
  }
});

test("the close snapshot is what the fold says, and there is none before the close", async () => {
  for (const { name, member } of played) {
    const [row] = await sql<{ snapshot: JsonObject | null; kept: JsonObject | null }[]>`
      select flowledger.close_snapshot(e.id) as snapshot, e.close_snapshot as kept from flowledger.executions e where e.id = ${member.id}`;
    const expected = member.state.closed ? closeSnapshot(member.state) : null;

    expect({ [name]: row }).toEqual({ [name]: { snapshot: expected, kept: expected } });
  }
});

/** An item has that of its parent. */
function startInputOf({ state }: Member): Json {
  const above = isItem(state) ? played.find(({ member }) => member.id === state.parent?.id) : undefined;
  return above ? startInputOf(above.member) : (state.startInput?.value ?? null);
}

test("status, lifecycle and the rest of the meta are what the fold says, in the header and by SQL", async () => {
  for (const { name, member, isWaiting: waits } of played) {
    const [row] = await sql<{ meta: JsonObject; status: string; lifecycle: string }[]>`
      select flowledger.meta(e.id) as meta, e.status, e.lifecycle from flowledger.executions e where e.id = ${member.id}`;
    const byLibrary: unknown = JSON.parse(JSON.stringify(await storeOn(sql).reads.meta(member.id)));
    const meta: JsonObject = {
      ...metaOf(member.id, member.state, waits),
      ...expiredOf(member),
      ...earlyOf(member),
      startInput: startInputOf(member),
    };

    const { status, lifecycleState: lifecycle } = meta;
    expect({ [name]: { ...row, byLibrary } }).toEqual({ [name]: { meta, byLibrary: meta, status, lifecycle } });
  }
});

test("the header and all rows are what the ledger says, whoever wrote the events", async () => {
  const ids = played.map(({ member }) => member.id);
  const rows = await sql<
    { id: string; name: string; part: string | null; actual: JsonObject | null; expected: JsonObject | null }[]
  >`
    select * from flowledger.differences(${ids}::uuid[], '{}', '[]')`;
  const differences = rows.map(({ id, name, part, actual, expected }) => ({
    play: played.find(({ member }) => member.id === id)?.name,
    row: [name, part],
    differs: Object.entries({ ...actual, ...expected }).flatMap(([key]) =>
      isDeepStrictEqual(actual?.[key], expected?.[key]) ? [] : [[key, actual?.[key], expected?.[key]]],
    ),
  }));

  expect(differences).toEqual([]);
});

test.each(["emit", "close", "cancel"])("what follows from %s by SQL is what an owner decides", (what) => {
  const found = written.filter((one) => one.what.startsWith(what));
  expect(found.filter(({ expected }) => expected.length > (what === "emit" ? 0 : 1)).length).toBeGreaterThan(0);

  for (const { what: command, written: events, expected } of found)
    expect({ command, events }).toEqual({ command, events: expected });
});

function earlyOf({ state }: Member): JsonObject {
  return state.early.length === 0 ? {} : { earlyAnswers: state.early.map(({ id }) => id) };
}

function expiredOf({ history }: Member): JsonObject {
  const ids = history.flatMap(({ event }) => (event.type === "interrupt.expired" ? [event.id] : [])).toReversed();
  return ids.length === 0 ? {} : { expiredInterrupts: [...new Set(ids)].toReversed() };
}

const reached: Readonly<Record<string, (one: Played) => boolean>> = {
  "an interrupt that waits": ({ member: { state } }) => hasPending(state),
  "an answer from outside": ({ member }) =>
    isRecorded(member, "interrupt.resumed", ({ byEvent }) => byEvent === undefined),
  "an answer by an event": ({ member }) =>
    isRecorded(member, "interrupt.resumed", ({ byEvent }) => byEvent !== undefined),
  "an interrupt that expired": ({ member }) => isRecorded(member, "interrupt.expired"),
  "one that expired and went on": ({ member }) =>
    isRecorded(member, "interrupt.expired", ({ value }) => value !== undefined),
  "one that expired and failed it": ({ member }) =>
    isRecorded(member, "execution.failed", ({ error }) => error.code === "INTERRUPT_EXPIRED"),
  "an interrupt that was cancelled": ({ member }) => isRecorded(member, "interrupt.cancelled"),
  "an early answer that was taken": ({ member }) =>
    isRecorded(member, "interrupt.resumed", ({ early }) => early !== undefined),
  "an early answer that was refused": ({ member }) => isRecorded(member, "interrupt.refused"),
  "an early answer that nobody asked for": ({ member: { state } }) => state.early.length > 0,
  "one that was withdrawn from outside": ({ member }) =>
    isRecorded(
      member,
      "interrupt.cancelled",
      ({ withdrawn, dispatch }) => withdrawn === true && dispatch === undefined,
    ),
  "one that a chunk withdrew": ({ member }) =>
    isRecorded(member, "interrupt.cancelled", ({ dispatch }) => dispatch !== undefined),
  "an id that paused twice": ({ member: { history, state } }) =>
    history.filter(({ event }) => event.type === "interrupt.raised").length > state.interrupts.size,
  "an intervention that was inserted": ({ member }) => isRecorded(member, "intervention.inserted"),
  "one that a consumer marked twice": ({ member: { history } }) => {
    const marks = history.flatMap(({ event }) =>
      event.type === "intervention.consumed" ? [`${event.id} ${event.consumer}`] : [],
    );
    return new Set(marks).size < marks.length;
  },
  "one that expired": ({ member }) => isRecorded(member, "intervention.expired"),
  "a copy": ({ member }) => isRecorded(member, "execution.copied"),
  "an interrupt that had expired when it was copied": ({ states }) =>
    states.some(({ interrupts }, index) =>
      [...interrupts].some(([id, { createdAt }]) => {
        const before = states[index - 1]?.interrupts.get(id);
        return (
          before?.status === "pending" &&
          before.createdAt !== createdAt &&
          states[index]?.epoch === states[index - 1]?.epoch
        );
      }),
    ),
  "an execution that was only created": ({ member: { state } }) => state.startedAt === null && !state.closed,
  "one that is sealed": ({ member: { state } }) => state.sealedAt !== null && !state.closed,
  "one that is blocked": ({ member }) => member.state.blocked !== null,
  "one that completed": ({ member }) => member.state.closed?.outcome === "completed",
  "one that failed": ({ member }) => member.state.closed?.outcome === "failed",
  "one that was cancelled": ({ member }) => member.state.closed?.outcome === "cancelled",
  "one that nobody had claimed": ({ member }) => member.state.closed !== null && member.state.epoch === 0,
  "one that waits for a sub-flow's": ({ member, isWaiting: waits }) => waits && !hasPending(member.state),
  "an item of a collection, closed": ({ member: { state } }) => state.item !== undefined && state.closed !== null,
  "an item that wrote what a result is called": ({ member: { state } }) =>
    state.item !== undefined && state.closed !== null && state.finalResult !== null && finalResultKey in state.values,
  "one that closed between a sub-flow that waits and an execution above": ({ member: { id, state } }) =>
    state.closed !== null &&
    state.parent?.visibleIn !== undefined &&
    played.some(({ member }) => member.id === state.parent?.id && !member.state.closed) &&
    played.some((other) => other.member.state.parent?.visibleIn?.includes(id) === true && other.isWaiting),
  "one that waits for what waits two generations below": ({ member: { id }, isWaiting: waits }) =>
    waits && played.some(({ member: { state } }) => state.parent?.visibleIn?.[1] === id && hasPending(state)),
  "a fork": ({ member }) => member.state.forkedFrom !== null,
  "a fork whose stream was stopped before": ({ member: { history } }) => {
    const [first] = history;
    const copied = first?.event.type === "execution.created" ? (first.event.forkedFrom?.seq ?? 0) : 0;
    return history.slice(0, copied).some(({ event }) => event.type === "stream.stopped");
  },
  "state from the beginning": ({ states }) => Object.keys(states[0]?.values ?? {}).length > 0,
  "a result of end(), closed": ({ member: { state } }) => state.finalResult !== null && state.closed !== null,
  "several results of end(), of which the last counts": ({ member: { state, history } }) =>
    state.closed !== null &&
    state.result === null &&
    !(finalResultKey in state.values) &&
    finalResultsOf(history).size > 1,
  "a result of setResult(), closed": ({ member: { state } }) => state.result !== null && state.closed !== null,
  "a stream that was stopped": ({ member }) => member.state.streamStopped,
};

function finalResultsOf(history: readonly Recorded[]): Set<string> {
  const moves = history.flatMap(({ event }) => ("moves" in event ? (event.moves ?? []) : []));
  return new Set(moves.flatMap((move) => (move.move === "finalResult" ? [JSON.stringify(move.value)] : [])));
}

function hasPending(state: ExecutionState): boolean {
  return pendingInterrupts(state).length > 0;
}

function isRecorded<T extends LedgerEvent["type"]>(
  { history }: Member,
  type: T,
  holds: (event: Extract<LedgerEvent, { type: T }>) => boolean = () => true,
): boolean {
  return history.some(({ event }) => event.type === type && holds(event as Extract<LedgerEvent, { type: T }>));
}

test.each(Object.entries(reached))("the histories have %s", (_, holds) => {
  expect(played.some(holds)).toBe(true);
});

test("a moment has one ISO text, and lies equally far from another, for both", async () => {
  const year2200 = 7_258_118_400_000_000;
  const pairs = fc.sample(fc.tuple(fc.nat(year2200), fc.nat(36_525 * 86_400_000)), 2000);
  const rows = await sql<{ iso: string; ms: number; wait: number; later: number }[]>`
    select flowledger.iso(t.at) as iso, flowledger.to_ms(t.at) as ms, t.wait, flowledger.to_ms(t.at + flowledger.ms(t.wait)) as later
    from (
      select timestamptz 'epoch' + m * interval '1 microsecond' as at, w as wait
      from unnest(${pairs.map(([at]) => at)}::float8[], ${pairs.map(([, wait]) => wait)}::float8[]) p(m, w)
    ) t`;

  expect(rows.filter(({ iso, ms }) => iso !== new Date(ms).toISOString())).toEqual([]);
  // A sum of doubles is off by a microsecond or two.
  expect(rows.filter(({ ms, wait, later }) => Math.abs(later - (ms + wait)) > 0.002)).toEqual([]);
});

test("every wake-up travels on a channel that is listened to", async () => {
  const ids = fc.sample(fc.uuid(), 500);
  const rows = await sql<{ channel: string }[]>`select flowledger.channel(i) as channel from unnest(${ids}::uuid[]) i`;

  expect([...new Set(rows.map(({ channel }) => channel))].toSorted()).toEqual(channelsOf(defaultNames).toSorted());
});
