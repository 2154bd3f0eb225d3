/** Claims take what is due and free, once; and neither they nor appends read a whole table. */
import postgres from "postgres";
import { expect, test } from "vitest";
import { append } from "../../src/store/append.ts";
import { foldClaims } from "../../src/store/claims.ts";
import type { Claim } from "../../src/store/claims.ts";
import { list } from "../../src/store/columns.ts";
import { commandSendersOf } from "../../src/store/command-senders.ts";
import { testDatabase } from "../support/database.ts";
import { present } from "../support/doors.ts";
import { appendTo, expectGuarantees, leases, newExecution, someWorker } from "../support/ledger.ts";
import { storeOn } from "../support/store.ts";
import type { ExecutionId } from "../../src/ledger/event.ts";

const database = await testDatabase();
const { sql } = database;

test("a claim raises the epoch, gives a fresh token and the folded state", async () => {
  const [made] = await storeOn(sql).starts.create([newExecution({ input: { n: 1 } })]);
  if (!made) throw new Error("nothing was made");

  const taken = (await storeOn(sql).claims.claim(someWorker, [made.id])).get(made.id);

  expect(taken).toMatchObject({ epoch: 1, flow: "f", state: { seq: 2, inbox: [{ kind: "start", value: { n: 1 } }] } });
  expect(taken?.token).toMatch(/^[0-9a-f-]{36}$/);
});

test("a claim reads a long ledger by pages of at most 16 MiB, and folds all of it", { timeout: 60_000 }, async () => {
  const [made] = await storeOn(sql).starts.create([newExecution()]);
  if (!made) throw new Error("nothing was made");
  // Compressed in the table, it is no shorter in the answer.
  await sql`select flowledger.emit(${made.id}::uuid, 'Big', to_jsonb(repeat('x', 1000000)), null, null, false)`;
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select l.execution_id, l.seq + n, l.epoch, l.at, l.type, l.payload from flowledger.ledger l, generate_series(1, 20) n
    where l.execution_id = ${made.id} and l.seq = 3`;
  await sql`update flowledger.executions set seq = 23 where id = ${made.id}`;

  const taken = (await storeOn(sql).claims.claim(someWorker, [made.id])).get(made.id);

  expect(taken?.state).toMatchObject({ seq: 23, inbox: { length: 22 } });
  expect(taken?.bytes).toBeGreaterThan(15_000_000);
  await sql`update flowledger.executions set owner = null, wake_at = flowledger.now() where id = ${made.id}`;
  const [page] = await sql`
    select octet_length(events::text) as bytes, json_array_length(events) as events
    from flowledger.claim(${someWorker}, gen_random_uuid(), array[${made.id}::uuid], 0, true)`;
  expect(page?.["bytes"]).toBeLessThan(17_000_000);
  expect(page?.["events"]).toBe(18);
});

test("a claim of many events asks once where its page ends, and not for each event", async () => {
  const [made] = await storeOn(sql).starts.create([newExecution()]);
  if (!made) throw new Error("nothing was made");
  await sql`select count(flowledger.emit(${made.id}::uuid, 'E', '1', null, null, false)) from generate_series(1, 6000)`;

  // Asked for each event it takes half a minute.
  const claimed = sql.begin(async (tx) => {
    await tx`set local statement_timeout = '3s'`;
    return tx`select json_array_length(events) as events from flowledger.claim(${someWorker}, gen_random_uuid(), array[${made.id}::uuid], 0, true)`;
  });

  expect(await claimed).toEqual([{ events: 6002 }]);
});

test("what is not due, not started, owned or unknown is left alone", async () => {
  const executions = [
    newExecution({ delayMs: 60_000 }),
    newExecution({ startAt: new Date(Date.now() + 60_000) }),
    newExecution({ input: undefined }),
    newExecution(),
  ];
  await storeOn(sql).starts.create(executions);
  const due = executions[3]?.id;
  if (!due) throw new Error("nothing was made");

  const taken = await storeOn(sql).claims.claim(someWorker, [...executions.map(({ id }) => id), newExecution().id]);

  expect([...taken.keys()]).toEqual([due]);
  expect((await storeOn(sql).claims.claim(someWorker, [due])).size).toBe(0);
});

test("F6: an execution that was claimed twice at once has one owner", async () => {
  const executions = Array.from({ length: 50 }, () => newExecution());
  await storeOn(sql).starts.create(executions);
  const ids = executions.map(({ id }) => id);

  const claims = await Promise.all([1, 2, 3, 4].map(() => storeOn(sql).claims.claim(someWorker, ids)));

  expect(claims.flatMap((taken) => [...taken.keys()]).toSorted()).toEqual(ids.toSorted());
  expect(claims.flatMap((taken) => [...taken.values()]).every(({ epoch }) => epoch === 1)).toBe(true);
});

test("a claim does not wait for a row that somebody has locked", async () => {
  const [locked, free] = [newExecution(), newExecution()];
  await storeOn(sql).starts.create([locked, free]);

  const taken = await sql.begin(async (tx) => {
    await tx`select 1 from flowledger.executions where id = ${locked.id} for update`;
    return storeOn(sql).claims.claim(someWorker, [locked.id, free.id]);
  });

  expect([...taken.keys()]).toEqual([free.id]);
});

test("an emit to an execution that waits makes it due, with a job", async () => {
  const [lease] = await leases(sql, 1);
  if (!lease) throw new Error("no lease");
  await append(sql, [appendTo(lease, { release: { wakeInMs: null } })]);
  expect((await storeOn(sql).claims.claim(someWorker, [lease.id])).size).toBe(0);

  await storeOn(sql).commands.emit(lease.id, { event: "Go", payload: null, idempotencyKey: null, actor: null });

  expect((await storeOn(sql).claims.claim(someWorker, [lease.id])).get(lease.id)?.epoch).toBe(2);
  await expectGuarantees(sql, lease.id);
});

/** Sends an event that is claimed with: what it claimed, and the jobs that are there then. */
async function tell(id: ExecutionId) {
  const told: Claim[] = [];
  const claimant = { worker: someWorker, token: crypto.randomUUID(), claimed: (claim: Claim) => void told.push(claim) };
  await sql`delete from flowledger_jobs._private_jobs`;
  await commandSendersOf({ sql, target: { place: "", user: "", schema: "flowledger" } })
    .commandsClaiming(claimant)
    .emit(id, { event: "Go", payload: null, idempotencyKey: null, actor: null });
  const jobs = await sql`select 1 from flowledger_jobs._private_jobs where payload::text like ${`%${id}%`}`;
  return { told, jobs: jobs.length, token: claimant.token };
}

test("a command that claims what it wakes takes what waits and is free, with what it said itself, and leaves no job", async () => {
  const [lease] = await leases(sql, 1);
  if (!lease) throw new Error("no lease");
  await append(sql, [appendTo(lease, { release: { wakeInMs: null } })]);

  const { told, jobs, token } = await tell(lease.id);

  expect(told).toMatchObject([
    { id: lease.id, epoch: 2, token, state: { inbox: [{ kind: "start" }, { event: "Go" }] } },
  ]);
  expect(jobs).toBe(0);
  await expectGuarantees(sql, lease.id);
});

test.each<[string, number, (id: ExecutionId) => Promise<unknown>]>([
  [
    "what took several workers down: it gets its job",
    1,
    (id) => sql`update flowledger.executions set takeovers = 2 where id = ${id}`,
  ],
  ["what another worker owns: that one hears of it", 0, (id) => storeOn(sql).claims.claim(someWorker, [id])],
  [
    "what begins later: its job comes then",
    1,
    (id) =>
      sql`update flowledger.executions set due_at = flowledger.now() + interval '1 hour', wake_at = null where id = ${id}`,
  ],
  [
    "what is of a flow that is paused",
    1,
    () => sql`select flowledger.pause_flow('f', '{"actor": "ann", "reason": "test"}')`,
  ],
])("a command that claims what it wakes leaves %s", async (_, jobs, before) => {
  const execution = newExecution();
  await storeOn(sql).starts.create([execution]);
  await before(execution.id);

  expect(await tell(execution.id)).toMatchObject({ told: [], jobs });

  await sql`select flowledger.unpause_flow('f', '{"actor": "ann", "reason": "test"}')`;
});

/** Jobs of the executions, and how many milliseconds their timers are away. */
async function jobsOf(ids: readonly ExecutionId[]) {
  return sql<{ id: string; jobs: number; away: number }[]>`
    select e.id, count(j.id)::int as jobs, max(abs(extract(epoch from j.run_at - e.wake_at) * 1000))::float8 as away
    from flowledger.executions e left join flowledger_jobs._private_jobs j on j.payload::text like '%' || e.id || '%'
    where e.id = any(${list(ids)}::text::uuid[]) group by e.id`;
}

test.each([
  ["a flow", "early"],
  ["a flow with a limit", "early-limited"],
])(
  "a job that comes before its time, as the timer of its execution has moved on, is followed by one on time: %s",
  async (_, flow) => {
    const executions = [newExecution({ flow }), newExecution({ flow })];
    await storeOn(sql).starts.create(executions);
    const ids = executions.map(({ id }) => id);
    // The time of its job has come; that of its timer has not.
    await sql`
    update flowledger.executions set job_at = flowledger.now(), wake_at = flowledger.now() + interval '20 seconds'
    where id = ${ids[0] ?? ""}`;
    // The job that brings this claim is done.
    await sql`delete from flowledger_jobs._private_jobs`;

    const claimed =
      flow === "early"
        ? sql`select id from flowledger.claim(${someWorker}, gen_random_uuid(), ${list(ids)}::text::uuid[], 0, false)`
        : sql`select id from flowledger.claim_limited(${someWorker}, gen_random_uuid(), ${list(ids)}::text::uuid[], '{}', array[${flow}], array[10], 0, false)`;

    expect(await claimed).toEqual([{ id: ids[1] }]);
    const [early] = await jobsOf(ids.slice(0, 1));
    expect(early).toMatchObject({ jobs: 1 });
    expect(early?.away).toBeLessThan(1000);
  },
);

test.each([
  ["its answer was lost: its job comes again, and no worker counts as lost", false, 0],
  ["its owner was lost in the middle of it: its job comes again, and a worker counts as lost", true, 1],
])("what a claim took is freed where %s", async (_, hasBegun, takeovers) => {
  const execution = newExecution({ flow: "freed" });
  await storeOn(sql).starts.create([execution]);
  const taken = (await storeOn(sql).claims.claim(someWorker, [execution.id])).get(execution.id);
  await sql`delete from flowledger_jobs._private_jobs`;
  const lost = { token: taken?.token ?? "", ids: [execution.id], flows: [], hasBegun };

  expect(await storeOn(sql).claims.free(lost)).toBe(1);

  const jobs = await sql`select 1 from flowledger_jobs._private_jobs where payload::text like ${`%${execution.id}%`}`;
  expect(jobs).toHaveLength(1);
  expect((await storeOn(sql).claims.claim(someWorker, [execution.id])).get(execution.id)).toMatchObject({ takeovers });
});

test("what its owner has given back by then is left as it is, and nobody counts as lost", async () => {
  const execution = newExecution({ flow: "freed" });
  const { starts, claims } = storeOn(sql);
  await starts.create([execution]);
  const taken = present((await claims.claim(someWorker, [execution.id])).get(execution.id));
  await append(sql, [appendTo(taken, { release: { wakeInMs: null } })]);

  expect(await claims.free({ token: taken.token, ids: [execution.id], flows: [], hasBegun: true })).toBe(0);

  const [row] = await sql`select wake_at, takeovers from flowledger.executions where id = ${execution.id}`;
  expect(row).toEqual({ wake_at: null, takeovers: 0 });
});

test("a version that was tried in vain may be tried again once another has gone on", async () => {
  const { id } = newExecution();
  await storeOn(sql).starts.create([newExecution({ id, flow: "tried" })]);
  const events = ["claimed", "blocked B", "claimed", "chunk", "claimed", "blocked C"];
  const rows = events.map((what) => {
    const [type, fingerprint] = what.split(" ");
    return {
      type: type === "chunk" ? "chunk.completed" : `execution.${type}`,
      payload: { fingerprint: fingerprint ?? "A" },
    };
  });
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select ${id}, 2 + r.ord, 1, now(), r.row ->> 'type', r.row -> 'payload'
    from jsonb_array_elements(${JSON.stringify(rows)}::text::jsonb) with ordinality r(row, ord)`;

  expect(await sql`select flowledger.tried_versions(${id}) as tried`).toEqual([{ tried: ["C"] }]);
});

test("with 50,000 executions neither a claim nor an append scans a table", async () => {
  await using many = await testDatabase();
  await using only = disposable(postgres(many.url, { max: 1 }));
  await leases(only.sql, 1);
  await many.sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, wake_at)
    select gen_random_uuid(), 2, 'f', now(), now(), now() from generate_series(1, 50000)`;
  await many.sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select e.id, s.seq, 0, now(), s.type, s.payload from flowledger.executions e,
      (values (1, 'execution.created', '{"flow": "f"}'::jsonb), (2, 'execution.started', '{"input": null}')) as s(seq, type, payload)
    where not exists (select 1 from flowledger.ledger l where l.execution_id = e.id)`;
  const ids = (
    await many.sql<{ id: ExecutionId }[]>`select id from flowledger.executions where owner is null limit 100`
  ).map(({ id }) => id);
  const before = await scans(only.sql);

  const claims = [...(await storeOn(only.sql).claims.claim(someWorker, ids)).values()];
  for (let commitNo = 1; commitNo <= 7; commitNo++)
    await append(
      only.sql,
      claims.map((lease) => appendTo(lease, { commitNo, base: 1 + commitNo })),
    );

  expect(claims).toHaveLength(100);
  expect(await scans(only.sql)).toEqual(before);
});

/** Sequential scans that tables have seen, by table. */
async function scans(one: postgres.Sql) {
  await one`select pg_stat_force_next_flush()`;
  const rows = await one<{ relname: string; seq_scan: number }[]>`
    select relname, seq_scan::int from pg_stat_user_tables
    where schemaname = 'flowledger' and relname in ('executions', 'ledger') order by 1`;
  return [...rows];
}

function disposable(client: postgres.Sql) {
  return { sql: client, [Symbol.asyncDispose]: () => client.end() };
}

test("of a ledger that comes in pages each is counted, and one that cannot be folded leaves the others their claims", async () => {
  const claimed = (seq: number) => [seq, 1, 0, "execution.claimed", null, null, null, { worker: someWorker }];
  const page = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => claimed(from + index));
  const first = [[1, 0, 0, "execution.created", null, null, null, { flow: "f", settings: {} }], ...page(2, 11)];
  const row = (id: string, seq: number, events: unknown) => ({
    id,
    seq,
    events,
    flow: "f",
    snapshot: null,
    epoch: 1,
    token: "t",
    fingerprint: null,
    takeovers: 0,
    now_ms: 0,
    items: 0,
  });
  const rest = page(11, 31);
  const read = async () => [{ events: rest }];
  const broken: string[] = [];
  const rows = [row("broken", 1, [[1, 0, 0, "nobody.knows", null, null, null, {}]]), row("long", 30, first)];

  // Of a client only what is asked here.
  const claims = await foldClaims(read as unknown as Parameters<typeof foldClaims>[0], rows, someWorker, {
    onBroken: ({ id }) => broken.push(id),
  });

  expect(broken).toEqual(["broken"]);
  const [long] = claims.values();
  expect(long).toMatchObject({ id: "long", state: { seq: 30 } });
  expect(long?.bytes).toBe(JSON.stringify(first).length + JSON.stringify(rest).length);
});
