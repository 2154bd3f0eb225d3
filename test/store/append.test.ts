/** The group commit, alone on a real Postgres: each item is accepted, fenced, repeated, moved or busy by itself. */
import { expect, test } from "vitest";
import { upTo } from "../../src/execution/history.ts";
import { append } from "../../src/store/append.ts";
import { verify } from "../../src/store/verify.ts";
import type { LedgerEvent } from "../../src/ledger/event.ts";
import { freezeState } from "../../src/ledger/state.ts";
import { testDatabase } from "../support/database.ts";
import { appendTo, expectGuarantees, leases, ledgerOf, someWorker } from "../support/ledger.ts";
import { storeOn } from "../support/store.ts";

const { sql } = await testDatabase();

const claimed: LedgerEvent = { type: "execution.claimed", worker: someWorker };
const closed: LedgerEvent = { type: "execution.closed", outcome: "completed", reason: "done" };
const close = { outcome: "completed", reason: "done", error: null, snapshot: {} } as const;
const go = { event: "Go", payload: 1, idempotencyKey: null, actor: null };

test("an owner's events are appended with its epoch, and the row counts them", async () => {
  const [lease] = await one();

  const [result] = await append(sql, [appendTo(lease, { events: [claimed, claimed] })]);

  expect(result).toMatchObject({ verdict: "ok", firstSeq: 3, foreign: null });
  expect((await storeOn(sql).reads.history(lease.id, 2, null)).map(({ seq, epoch }) => [seq, epoch])).toEqual([
    [3, 1],
    [4, 1],
  ]);
  await expectGuarantees(sql, lease.id);
});

test("only what goes on resets how many workers were lost with it", async () => {
  const [lease] = await one();
  await sql`update flowledger.executions set takeovers = 3 where id = ${lease.id}`;
  const takeovers = async () => (await sql`select takeovers::int from flowledger.executions where id = ${lease.id}`)[0];

  await append(sql, [appendTo(lease, { events: [claimed] })]);
  expect(await takeovers()).toEqual({ takeovers: 3 });
});

test("the time of a commit is the database's, and that of its events", async () => {
  const [lease] = await one();

  const [result] = await append(sql, [appendTo(lease)]);

  expect(await storeOn(sql).reads.history(lease.id, 2, null)).toMatchObject([
    { at: result?.verdict === "ok" ? result.at : 0 },
  ]);
});

test.each([
  ["an older epoch", { epoch: 0 }],
  ["another token", { token: crypto.randomUUID() }],
  ["a commit that is not the next", { commitNo: 3 }],
])("%s is refused and writes nothing", async (_, changes) => {
  const [lease] = await one();

  const [result] = await append(sql, [appendTo(lease, changes)]);

  expect(result?.verdict).not.toBe("ok");
  expect(await ledgerOf(sql, lease.id)).toEqual(["execution.created", "execution.started"]);
});

test("F2: an owner that was replaced is fenced", async () => {
  const [old] = await one();
  await sql`update flowledger.executions set owner = null where id = ${old.id}`;
  const next = (await storeOn(sql).claims.claim(someWorker, [old.id])).get(old.id);

  const results = await append(sql, [appendTo(old)]);

  expect(results).toEqual([{ verdict: "fenced" }]);
  expect(next?.epoch).toBe(2);
  expect(await ledgerOf(sql, old.id)).toHaveLength(2);
});

test("F13: an owner whose database has forgotten what came in, or what it committed, is fenced", async () => {
  const [heard] = await one();
  const [wrote] = await one();
  await storeOn(sql).commands.emit(heard.id, go);
  await append(sql, [appendTo(wrote, { events: [claimed] })]);
  const next = [appendTo(heard, { base: 3 }), appendTo(wrote, { base: 3, commitNo: 2, events: [claimed] })];
  // As a standby without the last transactions.
  const ids = next.map(({ id }) => id);
  await sql.begin(async (tx) => {
    await tx`alter table flowledger.ledger disable trigger ledger_append_only`;
    await tx`delete from flowledger.ledger where execution_id in ${tx(ids)} and seq = 3`;
    await tx`alter table flowledger.ledger enable always trigger ledger_append_only`;
    await tx`update flowledger.executions set seq = 2, commit_no = 0 where id in ${tx(ids)}`;
  });

  expect(await append(sql, next)).toEqual([{ verdict: "fenced" }, { verdict: "fenced" }]);
  for (const id of ids) expect(await ledgerOf(sql, id)).toEqual(["execution.created", "execution.started"]);
});

test("a commit sent again after its answer was lost counts as done, and writes nothing twice", async () => {
  const [lease] = await one();
  const item = appendTo(lease, { events: [claimed, claimed] });
  await append(sql, [item]);

  const again = await append(sql, [item]);

  expect(again).toEqual([{ verdict: "repeat" }]);
  expect(await ledgerOf(sql, lease.id)).toHaveLength(4);
});

test("F16: a commit sent again while the first is still under way waits for it, and finds it", async () => {
  const [lease] = await one();
  const item = appendTo(lease, { events: [claimed, claimed] });
  const holder = await sql.reserve();
  await holder`begin`;
  await holder`select from flowledger.executions where id = ${lease.id} for update`;

  const both = Promise.all([append(sql, [item]), append(sql, [item])]);
  await untilBlocked(2);
  await holder`rollback`;
  holder.release();

  expect(new Set((await both).map(([result]) => result?.verdict))).toEqual(new Set(["ok", "repeat"]));
  expect(await ledgerOf(sql, lease.id)).toHaveLength(4);
});

test("a commit that closed or released, sent again, counts as done", async () => {
  const [closing, releasing] = await leases(sql, 2);
  if (!closing || !releasing) throw new Error("no leases");
  const items = [
    appendTo(closing, { events: [claimed, closed], conditional: 1, close }),
    appendTo(releasing, { release: { wakeInMs: null } }),
  ];
  await append(sql, items);

  expect(await append(sql, items)).toEqual([{ verdict: "repeat" }, { verdict: "repeat" }]);
});

test("what came in meanwhile is handed over, and the conditional part does not happen", async () => {
  const [lease] = await one();
  await storeOn(sql).commands.emit(lease.id, go);

  const [result] = await append(sql, [appendTo(lease, { events: [claimed, closed], conditional: 1, close })]);

  expect(result).toMatchObject({ verdict: "ok", firstSeq: 4 });
  expect(result?.verdict === "ok" && result.foreign?.map(({ seq, event }) => [seq, event])).toEqual([
    [3, { type: "event.emitted", event: "Go", payload: 1 }],
  ]);
  expect(await ledgerOf(sql, lease.id)).toEqual([
    "execution.created",
    "execution.started",
    "event.emitted",
    "execution.claimed",
  ]);
  const [row] = await sql`select owner, closed_at, close_snapshot from flowledger.executions where id = ${lease.id}`;
  expect(row).toEqual({ owner: someWorker, closed_at: null, close_snapshot: null });
  // Whoever claimed is known all the same.
  const roles = sql`
    select role = session_user as own from flowledger.ledger where execution_id = ${lease.id} and type = 'execution.claimed'`;
  expect(await roles).toEqual([{ own: true }]);
  await expectGuarantees(sql, lease.id);
});

test("F34: a release does not happen when something came in, so the owner goes on", async () => {
  const [lease] = await one();
  await storeOn(sql).commands.emit(lease.id, go);

  await append(sql, [appendTo(lease, { release: { wakeInMs: null } })]);

  const [row] = await sql`select owner, wake_at is null as asleep from flowledger.executions where id = ${lease.id}`;
  expect(row).toEqual({ owner: someWorker, asleep: false });
});

test("what must happen anyway closes in spite of what came in", async () => {
  const [lease] = await one();
  await storeOn(sql).commands.emit(lease.id, go);
  const failed: LedgerEvent = {
    type: "execution.closed",
    outcome: "failed",
    reason: "failed",
    error: { name: "E", message: "m" },
  };

  await append(sql, [
    appendTo(lease, {
      events: [claimed, failed],
      close: { outcome: "failed", reason: "failed", error: { name: "E", message: "m" }, snapshot: {} },
    }),
  ]);

  expect((await ledgerOf(sql, lease.id)).slice(2)).toEqual(["event.emitted", "execution.claimed", "execution.closed"]);
  await expectGuarantees(sql, lease.id);
});

test("F37: one fenced, one moved and one repeated item leave the others alone", async () => {
  const all = await leases(sql, 6);
  const [fenced, moved, repeated, ...good] = all;
  if (!fenced || !moved || !repeated) throw new Error("no leases");
  await storeOn(sql).commands.seal(moved.id, "ann");
  await append(sql, [appendTo(repeated)]);
  const items = [
    appendTo(fenced, { token: crypto.randomUUID(), events: [claimed, closed], close }),
    appendTo(moved, { events: [claimed, closed], conditional: 1, close }),
    appendTo(repeated),
    ...good.map((lease) => appendTo(lease, { events: [claimed, closed], conditional: 1, close })),
  ];

  const results = await append(sql, items);

  expect(results.map(({ verdict }) => verdict)).toEqual(["fenced", "ok", "repeat", "ok", "ok", "ok"]);
  expect(await Promise.all(all.map(async ({ id }) => (await ledgerOf(sql, id)).length))).toEqual([2, 4, 3, 4, 4, 4]);
  for (const { id } of all) await expectGuarantees(sql, id);
});

test("items need not come sorted: every answer is that of its item", async () => {
  const all = (await leases(sql, 5)).toReversed();

  const results = await append(
    sql,
    all.map((lease, index) => appendTo(lease, { events: Array.from({ length: index + 1 }, () => claimed) })),
  );

  expect(results.map((result) => result.verdict === "ok" && result.firstSeq)).toEqual([3, 3, 3, 3, 3]);
  expect(await Promise.all(all.map(async ({ id }) => (await ledgerOf(sql, id)).length))).toEqual([3, 4, 5, 6, 7]);
});

test("F21: batches in opposite orders do not wait for each other for ever", async () => {
  const all = await leases(sql, 20);
  const half = all.map((lease) => appendTo(lease));

  const [first, second] = await Promise.all([append(sql, half), append(sql, half.toReversed())]);

  const verdicts = [...(first ?? []), ...(second ?? [])].map(({ verdict }) => verdict);
  expect(verdicts.filter((verdict) => verdict === "ok")).toHaveLength(20);
  expect(verdicts.filter((verdict) => verdict === "repeat")).toHaveLength(20);
});

test("a row that somebody else has locked is busy for a careful batch, and the others are committed", async () => {
  const [locked, free] = await leases(sql, 2);
  if (!locked || !free) throw new Error("no leases");
  const items = [appendTo(locked), appendTo(free)];

  const results = await sql.begin(async (tx) => {
    await tx`select 1 from flowledger.executions where id = ${locked.id} for update`;
    return append(sql, items, true);
  });

  expect(results.map(({ verdict }) => verdict)).toEqual(["busy", "ok"]);
  expect((await append(sql, items, true)).map(({ verdict }) => verdict)).toEqual(["ok", "repeat"]);
});

test("an end that waits for the lock of a seal has an earlier time and a later seq: it was sealed when the ledger says first", async () => {
  const [lease] = await one();
  let ending: ReturnType<typeof append> | undefined;

  await sql.begin(async (tx) => {
    await tx`select 1 from flowledger.executions where id = ${lease.id} for no key update`;
    ending = append(sql, [appendTo(lease, { events: [claimed, closed], close })]);
    await untilBlocked(1);
    await tx`select pg_sleep(0.005)`;
    await tx`select flowledger.seal(${lease.id})`;
  });

  expect(await ending).toMatchObject([{ verdict: "ok" }]);
  const events = await storeOn(sql).reads.history(lease.id, 0, null);
  const [sealed, , end] = events.slice(2);
  expect([sealed?.event.type, end?.event.type]).toEqual(["execution.sealed", "execution.closed"]);
  const between = new Date(Math.ceil(end?.at ?? 0));
  expect(sealed?.at).toBeGreaterThan(between.getTime());
  expect(upTo(lease.id, events, between)).toEqual(events.slice(0, 2));
  expect(await verify(sql, { id: lease.id })).toEqual([]);
});

test("F54: hostile names and payloads come back as they went", async () => {
  const [lease] = await one();
  const names = [
    '"',
    "'",
    "{}",
    "{a,b}",
    "\\",
    '\\"',
    "null",
    "NULL",
    "",
    " ",
    "a b",
    "ünïcödé €",
    "😀",
    "a\nb",
    "a\tb",
    "a,b",
    "'; drop table x; --",
    "$1",
    "%s",
    "\u2028",
  ];
  const events = names.map((name): LedgerEvent => ({
    type: "event.emitted",
    dispatch: 1,
    chunk: name,
    actor: name,
    ordinal: 0,
    event: name,
    payload: { [name]: [name, null, {}] },
  }));

  await append(sql, [appendTo(lease, { events })]);

  expect((await storeOn(sql).reads.history(lease.id, 2, null)).map(({ event }) => event)).toEqual(events);
});

test("an output that is null, false, 0 or empty comes back as it went", async () => {
  const [lease] = await one();
  const events = [null, false, 0, "", [], {}].map((output): LedgerEvent => ({
    type: "chunk.completed",
    dispatch: 1,
    chunk: "a",
    output,
  }));

  await append(sql, [appendTo(lease, { events })]);

  expect((await storeOn(sql).reads.history(lease.id, 2, null)).map(({ event }) => event)).toEqual(events);
});

test("a snapshot is kept with its commit and read by the next load; a fenced one is not", async () => {
  const [lease, fenced] = await leases(sql, 2);
  if (!lease || !fenced) throw new Error("no leases");
  const snapshot = { seq: 2, state: freezeState(lease.state) };

  await append(sql, [appendTo(lease, { snapshot }), appendTo(fenced, { snapshot, epoch: 0 })]);

  const kept = await sql`select execution_id, seq from flowledger.snapshots`;
  expect([...kept]).toEqual([{ execution_id: lease.id, seq: 2 }]);
  expect((await storeOn(sql).reads.loadState(lease.id))?.seq).toBe(3);
});

test("a release with a time to wake adds a job for that time", async () => {
  const [lease] = await one();

  await append(sql, [appendTo(lease, { release: { wakeInMs: 60_000 } })]);

  const [row] = await sql`
    select e.wake_at = j.run_at as same, e.owner, e.wake_at > now() + interval '50 seconds' as later
    from flowledger.executions e
    join flowledger_jobs._private_jobs j on j.payload::jsonb @> jsonb_build_array(e.id::text) and j.run_at > now()
    where e.id = ${lease.id}`;
  expect(row).toEqual({ same: true, owner: null, later: true });
});

async function one() {
  const [lease] = await leases(sql, 1);
  if (!lease) throw new Error("nothing was claimed");
  return [lease] as const;
}

/** Statements that wait for a lock. */
async function untilBlocked(count: number): Promise<void> {
  for (let blocked = 0; blocked < count;) {
    const rows = await sql<{ blocked: number }[]>`
      select count(*)::int as blocked from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
    blocked = rows[0]?.blocked ?? 0;
  }
}

test("no index has a column that each commit of an owner may change: otherwise none were a HOT update, and all indexes grew with each", async () => {
  const rows = await sql<{ column: string }[]>`
    select distinct a.attname as column from pg_depend d join pg_index i on i.indexrelid = d.objid
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where i.indrelid = 'flowledger.executions'::regclass`;
  const indexed = new Set(rows.map(({ column }) => column));

  // What the index of due executions, or that of a flow's status, is for changes with a claim or a close anyway.
  expect(indexed).toContain("closed_version");
  for (const column of ["seq", "commit_no", "commit_seq", "stream_no", "stream_seq", "takeovers", "fingerprint"])
    expect(indexed).not.toContain(column);
});
