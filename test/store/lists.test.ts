/** Lists and counts of executions: each filter against a model, and what takes too long. */
import { randomUUID } from "node:crypto";
import { beforeAll, expect, test } from "vitest";
import { createOrchestrator, SearchTimeoutError, UsageError } from "../../src/index.ts";
import type { ExecutionSummary, ListOptions, Orchestrator } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { ExecutionFilter } from "../../src/store/list-filter.ts";
import { administer, testDatabase } from "../support/database.ts";
import { refusal } from "../support/flows.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;

interface Row {
  readonly id: string;
  readonly flow: string;
  readonly status: string;
  readonly fingerprint: string;
  readonly created: Date;
  readonly closed: Date | null;
  readonly parent: string | null;
  readonly key: string | null;
  readonly metadata: { readonly tenant: string } | null;
  readonly error: { readonly name: string; readonly message: string } | null;
}

const begin = Date.parse("2026-01-01T00:00Z");
const minute = 60_000;
const statuses = ["created", "running", "waiting", "completed", "failed", "cancelled"] as const;

/** A minute apart; every tenth has an id of its own that does not sort by time. */
const rows: Row[] = Array.from({ length: 600 }, (_, index) => {
  const status = statuses[index % 6] ?? "created";
  const isClosed = index % 6 > 2;
  const created = begin + index * minute;
  const id = `${created
    .toString(16)
    .padStart(12, "0")
    .replace(/^(.{8})/, "$1-")}-7000-8000-${index.toString(16).padStart(12, "0")}`;
  return {
    id: index % 10 === 0 ? randomUUID() : id,
    flow: `flow.${index % 7}`,
    status,
    fingerprint: index % 3 ? "abc1" : "def2",
    created: new Date(created),
    closed: isClosed ? new Date(created + (600 - index) * minute) : null,
    parent: index % 50 === 1 ? "0190a000-0000-7000-8000-00000000000a" : null,
    key: index % 5 === 0 ? `key_${index}` : null,
    metadata: index % 9 ? { tenant: `t${index % 4}` } : null,
    error: status === "failed" ? { name: "CardError", message: `card ${index} was 100% declined by a_b` } : null,
  };
});

let orchestrator: Orchestrator;

beforeAll(async () => {
  orchestrator = createOrchestrator({ connection: database.url });
  const json = rows.map((row) => ({
    ...row,
    started: row.status === "created" ? null : row.created,
    pending: row.status === "waiting" ? 1 : 0,
    outcome: row.closed ? row.status : null,
  }));
  await sql`
    insert into flowledger.executions
      (id, seq, flow, fingerprint, created_at, started_at, closed_at, parent_id, idempotency_key, metadata, error, pending_interrupts, outcome)
    select r.id, 1, r.flow, r.fingerprint, r.created, r.started, r.closed, r.parent, r.key, nullif(r.metadata, 'null'), nullif(r.error, 'null'), r.pending, r.outcome
    from jsonb_to_recordset(${sql.json(json as never)}) r(id uuid, flow text, fingerprint text, created timestamptz, started timestamptz, closed timestamptz,
      parent uuid, key text, metadata jsonb, error jsonb, pending int, outcome text)`;
  return () => orchestrator.close();
});

const ids = (executions: readonly ExecutionSummary[]) => executions.map(({ id }) => String(id));
const at = (index: number) => new Date(begin + index * minute);
const message = ({ error }: Row) => (error ? `${error.name}: ${error.message}`.toLowerCase() : null);

const filters: [string, ListOptions, (row: Row) => boolean][] = [
  ["nothing", {}, () => true],
  ["no metadata in particular", { metadata: {} }, () => true],
  ["a flow", { flow: "flow.3" }, ({ flow }) => flow === "flow.3"],
  ["flows", { flow: ["flow.3", "flow.5", "flow.5"] }, ({ flow }) => flow === "flow.3" || flow === "flow.5"],
  ["no flow at all", { flow: [] }, () => false],
  ["a flow that there is not", { flow: "other" }, () => false],
  ["a status", { status: "failed" }, ({ status }) => status === "failed"],
  ["statuses", { status: ["failed", "waiting"] }, ({ status }) => status === "failed" || status === "waiting"],
  [
    "a flow and a status",
    { flow: "flow.1", status: "running" },
    (row) => row.flow === "flow.1" && row.status === "running",
  ],
  ["a version", { version: "def2" }, ({ fingerprint }) => fingerprint === "def2"],
  [
    "how a version begins",
    { version: "ab", flow: "flow.2" },
    (row) => row.fingerprint === "abc1" && row.flow === "flow.2",
  ],
  ["created after", { createdAfter: at(500) }, ({ created }) => created > at(500)],
  ["created before", { createdBefore: at(50) }, ({ created }) => created < at(50)],
  [
    "created between, of a flow",
    { createdAfter: at(100), createdBefore: at(200), flow: "flow.0" },
    (row) => row.created > at(100) && row.created < at(200) && row.flow === "flow.0",
  ],
  [
    "closed between",
    { closedAfter: at(599), closedBefore: at(601) },
    ({ closed }) => closed !== null && closed > at(599) && closed < at(601),
  ],
  [
    "closed after, with a status",
    { closedAfter: at(0), status: ["cancelled"] },
    (row) => row.closed !== null && row.status === "cancelled",
  ],
  [
    "closed between, of flows",
    { closedAfter: at(599), closedBefore: at(601), flow: ["flow.1", "flow.3", "flow.4"] },
    ({ closed, flow }) =>
      closed !== null && closed > at(599) && closed < at(601) && ["flow.1", "flow.3", "flow.4"].includes(flow),
  ],
  [
    "created after, a version and metadata",
    { createdAfter: at(200), version: "d", metadata: { tenant: "t1" } },
    (row) => row.created > at(200) && row.fingerprint === "def2" && row.metadata?.tenant === "t1",
  ],
  [
    "an idempotency key of a status",
    { idempotencyKey: "key_25", status: ["running", "completed"] },
    ({ key, status }) => key === "key_25" && (status === "running" || status === "completed"),
  ],
  ["an error of what has none", { errorLike: "card", status: "completed" }, () => false],
  ["a parent", { parent: "0190A000-0000-7000-8000-00000000000a" }, ({ parent }) => parent !== null],
  [
    "how an id begins",
    { idPrefix: rows[7]?.id.slice(0, 14) ?? "" },
    ({ id }) => id.startsWith(rows[7]?.id.slice(0, 14) ?? "?"),
  ],
  ["a whole id", { idPrefix: rows[7]?.id ?? "" }, ({ id }) => id === rows[7]?.id],
  ["an idempotency key", { idempotencyKey: "key_25" }, ({ key }) => key === "key_25"],
  ["an idempotency key of a flow", { idempotencyKey: "key_25", flow: "flow.4" }, ({ key }) => key === "key_25"],
  ["a part of an error", { errorLike: "CARD 4 was" }, (row) => message(row)?.includes("card 4 was") ?? false],
  ["a pattern of an error", { errorLike: "carderror%1_% declined", status: "failed" }, () => false],
  [
    "a text with an underscore",
    { errorLike: "a_b", flow: "flow.4" },
    (row) => row.error !== null && row.flow === "flow.4",
  ],
  [
    "parts of an error",
    { errorLike: "CardError%declined", flow: "flow.4" },
    (row) => row.error !== null && row.flow === "flow.4",
  ],
  ["metadata", { metadata: { tenant: "t2" } }, ({ metadata }) => metadata?.tenant === "t2"],
  [
    "metadata of a status",
    { metadata: { tenant: "t2" }, status: "waiting" },
    (row) => row.metadata?.tenant === "t2" && row.status === "waiting",
  ],
];

const byId = (a: Row, b: Row) => (a.id < b.id ? 1 : -1);
const byTime = (a: Row, b: Row) => b.created.getTime() - a.created.getTime() || byId(a, b);
const byClose = (a: Row, b: Row) => (b.closed?.getTime() ?? 0) - (a.closed?.getTime() ?? 0) || byId(a, b);

test.each(filters)("by %s: pages in each order, and a count", async (_, options, isMeant) => {
  const meant = rows.filter(isMeant);
  const newest = meant.toSorted(options.createdAfter || options.createdBefore ? byTime : byId).map(({ id }) => id);
  const lastClosed = meant.filter(({ closed }) => closed !== null).toSorted(byClose);

  const first = await orchestrator.listExecutions({ ...options, limit: 7 });
  const all = await everyPage(options, 97);
  const oldest = await everyPage({ ...options, order: "oldest" }, 97);
  const closed = await everyPage({ ...options, order: "lastClosed" }, 97);
  const counted = await orchestrator.countExecutions(options);
  const upTo = await orchestrator.countExecutions({ ...options, upTo: 5 });

  expect(ids(first.executions)).toEqual(newest.slice(0, 7));
  expect(all).toEqual(newest);
  expect(oldest).toEqual(newest.toReversed());
  expect(closed).toEqual(lastClosed.map(({ id }) => id));
  expect(counted).toEqual({ count: meant.length, isMore: false });
  expect(upTo).toEqual({ count: Math.min(5, meant.length), isMore: meant.length > 5 });
});

async function everyPage(options: ListOptions, limit: number): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined; ;) {
    const page = await orchestrator.listExecutions({ ...options, limit, ...(cursor !== undefined && { cursor }) });
    found.push(...ids(page.executions));
    if (page.nextCursor === null) return found;
    cursor = page.nextCursor;
  }
}

test.each<[string, ListOptions]>([
  ["the newest first", {}],
  ["the oldest first", { order: "oldest" }],
  ["those created since", { createdAfter: new Date(0) }],
  ["those created since, the oldest first", { createdAfter: new Date(0), order: "oldest" }],
  ["the last closed", { order: "lastClosed" }],
  ["the last closed of a status", { order: "lastClosed", status: "completed" }],
  ["the last closed of a flow, in a range", { order: "lastClosed", flow: "gone", closedAfter: new Date(0) }],
])("%s: a page goes on where the last of the page before was pruned", async (_, options) => {
  await using other = await testDatabase();
  await using orchestrator = createOrchestrator({ connection: other.url });
  // All at the same microsecond but the last, which is one later.
  await other.sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, closed_at, outcome)
    select ('01900000-0000-7000-8000-00000000000' || n)::uuid, 1, 'gone', t.at, t.at, t.at, 'completed'
    from generate_series(1, 6) n cross join lateral (select timestamptz '2026-01-01T00:00:00.123456Z' + (n / 6) * interval '1 microsecond' as at) t`;
  const all = ids((await orchestrator.listExecutions(options)).executions);

  for (const limit of [1, 3]) {
    const { nextCursor } = await orchestrator.listExecutions({ ...options, limit });
    const cursor = nextCursor ?? "";
    const last = all[limit - 1] ?? "";
    await other.sql`delete from flowledger.executions where id = ${last}`;
    expect(ids((await orchestrator.listExecutions({ ...options, cursor })).executions)).toEqual(all.slice(limit));

    const byId = await orchestrator
      .listExecutions({ ...options, cursor: last })
      .then(({ executions }) => ids(executions), String);
    const isByTime = "createdAfter" in options || options.order === "lastClosed";
    const refused = `cursor ${last} has no place in this list: it is by time, and that execution is gone, or has none`;
    expect(isByTime ? String(byId).includes(refused) : byId).toEqual(isByTime || all.slice(limit));
    all.splice(limit - 1, 1);
    all.splice(0, limit - 1);
    await other.sql`delete from flowledger.executions where not id = any(${all})`;
  }
});

test("a cursor of one order is no place in another that the execution has no time for", async () => {
  const open = rows.find(({ closed }) => closed === null)?.id ?? "";

  const error = await refusal(orchestrator.listExecutions({ order: "lastClosed", cursor: open }));

  expect(error).toBeInstanceOf(UsageError);
  expect(String(error)).toMatch(/has no place in this list/);
});

test.each<[string, object, RegExp]>([
  ["an unknown filter", { flwo: "x" }, /unknown option "flwo": use flow, status, version/],
  [
    "a status that there is not",
    { status: ["failed", "broken"] },
    /status of listExecutions\(\) must be .* got "broken"/,
  ],
  ["a flow without a name", { flow: [""] }, /flow of listExecutions\(\)/],
  ["a date that is none", { closedAfter: "yesterday" }, /closedAfter of listExecutions\(\) must be a valid Date/],
  [
    "a prefix that no id has",
    { idPrefix: "0190g" },
    /idPrefix of listExecutions\(\) is not how an id begins, got "0190g"/,
  ],
  ["a prefix with a dash elsewhere", { idPrefix: "01-90" }, /idPrefix/],
  ["a parent that is no id", { parent: "boss" }, /"boss" is not an execution id/],
  ["an empty error", { errorLike: "" }, /errorLike of listExecutions\(\)/],
  ["metadata that are none", { metadata: [1] }, /metadata/],
  ["an order that there is not", { order: "biggest" }, /order of listExecutions\(\) must be/],
  ["a limit beyond", { limit: 1001 }, /limit of listExecutions\(\)/],
])("%s is refused by name", async (_, options, says) => {
  const error = await refusal(orchestrator.listExecutions(options));

  expect(error).toBeInstanceOf(UsageError);
  expect(String(error)).toMatch(says);
});

test("a count refuses what is only a list's, and a bound beyond its own", async () => {
  await expect(orchestrator.countExecutions({ limit: 1 } as object)).rejects.toThrow(
    'countExecutions() has an unknown option "limit"',
  );
  await expect(orchestrator.countExecutions({ upTo: 100_001 })).rejects.toThrow("upTo of countExecutions()");
});

test("a list that takes more than two seconds ends, in the database too, and says what to name beside", async () => {
  const { list, count, left } = await sql.begin(async (holding) => {
    await holding`lock table flowledger.executions in access exclusive mode`;
    const [list, count] = await Promise.all([
      refusal(orchestrator.listExecutions({ errorLike: "declined" })),
      refusal(orchestrator.countExecutions({ metadata: { tenant: "t1" } })),
    ]);
    const waiting = () =>
      sql<{ pid: number }[]>`
        select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%from flowledger.executions e%' and datname = current_database()`;
    await expect.poll(waiting).toEqual([]);
    return { list, count, left: await waiting() };
  });

  expect(list).toBeInstanceOf(SearchTimeoutError);
  expect(list).toMatchObject({ code: "SEARCH_TIMEOUT", details: { timeoutMs: 2000 } });
  expect(String(list)).toContain("took more than 2000 ms: add a flow, a status, or a shorter range of times");
  expect(count).toBeInstanceOf(SearchTimeoutError);
  expect([...left]).toEqual([]);
});

/** The first of the list, what is few and looked through, and a page of each flow and status. */
const most = 4500;

test.each([
  ["a plan of its own", "force_custom_plan"],
  ["a plan for all values", "force_generic_plan"],
])(
  "with 60,000 executions and %s a page reads no more than it shows and looks through",
  async (_, mode) => {
    await using other = await testDatabase();
    const moment = (hours: number) => new Date(begin + hours * 60 * minute);
    await other.sql`
    insert into flowledger.executions (id, seq, flow, fingerprint, created_at, started_at, closed_at, outcome, error, parent_id, idempotency_key, metadata)
    select ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1, 'list.' || case when n % 5 < 4 then 0 else n % 9 end,
      case when n % 20000 = 0 then 'fe00' else 'f000' end, c.at, c.at, c.at + interval '1 minute' * (n % 50), case when n % 100 = 1 then 'failed' else 'completed' end,
      case when n % 100 = 1 then jsonb_build_object('name', 'CardError', 'message', 'card ' || n / 100 || ' was declined') end, case when n % 3000 = 0 then '0190a000-0000-7000-8000-00000000000a'::uuid end,
      'key-' || n, jsonb_build_object('tenant', case when n % 10000 = 0 then 'rare' else 'big' end)
    from generate_series(1, 60000) n cross join lateral (select ${at(0)}::timestamptz + interval '1 minute' * n as at) c`;
    await other.sql`vacuum analyze flowledger.executions`;
    const places: ExecutionFilter[] = [
      { flow: ["list.0"] },
      { flow: ["list.7"] },
      { status: ["completed"] },
      { status: ["failed"] },
      { createdAfter: moment(500), createdBefore: moment(502) },
      { closedAfter: moment(500), closedBefore: moment(502) },
    ];
    const asked: ExecutionFilter[] = [
      {},
      { version: "f000" },
      { version: "fe00" },
      { version: "0000" },
      { parent: ExecutionId.parse("0190a000-0000-7000-8000-00000000000a") },
      { ids: ["0190a000-0000-7000-8000-000000001200", "0190a000-0000-7000-8000-0000000012ff"] },
      { idempotencyKey: "key-1200" },
      { idempotencyKey: "other" },
      { metadata: { tenant: "big" } },
      { metadata: { tenant: "rare" } },
      { metadata: { tenant: "none" } },
      { redriven: true },
      { errorPattern: "%no such%" },
      { errorPattern: "%card 77 was%" },
    ];

    // One session, so that what a list has read is counted at once.
    const wide = await administer(other.url, async (client) => {
      const { reads } = storeOn(client);
      // As sessions of the library have it.
      await client`set jit = off`;
      await client`select set_config('plan_cache_mode', ${mode}, false)`;
      const read = async () => {
        await client`select pg_stat_force_next_flush()`;
        await client`select pg_stat_clear_snapshot()`;
        const [row] = await client<[{ rows: number }]>`
        select (seq_tup_read + idx_tup_fetch)::int as rows from pg_stat_user_tables where relname = 'executions' and schemaname = 'flowledger'`;
        return row.rows;
      };
      const found: string[] = [];
      for (const place of places)
        for (const wanted of asked)
          for (const order of ["newest", "oldest", "lastClosed"] as const) {
            const filter = { ...wanted, ...place };
            const before = await read();
            await reads.listHeaders({ filter, order, limit: 20 });
            const listed = (await read()) - before;
            await reads.countExecutions(filter, 20);
            const counted = (await read()) - before - listed;
            if (listed > most || counted > most)
              found.push(`${JSON.stringify(filter)} ${order}: ${listed}, ${counted}`);
          }
      const pages = async () => {
        await client`select pg_stat_force_next_flush()`;
        await client`select pg_stat_clear_snapshot()`;
        const [row] = await client<[{ pages: number }]>`
        select (idx_blks_read + idx_blks_hit)::int as pages from pg_statio_user_tables where relname = 'executions' and schemaname = 'flowledger'`;
        return row.pages;
      };
      const before = await pages();
      for (const order of ["newest", "oldest", "lastClosed"] as const)
        await reads.listHeaders({ filter: { flow: ["list.0"] }, order, limit: 20 });
      return { found, pages: (await pages()) - before };
    });

    expect(wide.found).toEqual([]);
    // Postgres before 18 reads on in the index where a flow and status have no row: that is no row that is read, but pages.
    expect(wide.pages).toBeLessThan(300);
  },
  120_000,
);

test("failures are grouped by flow, chunk and error, whatever numbers and ids are in it", async () => {
  await using other = await testDatabase();
  await using orchestrator = createOrchestrator({ connection: other.url });
  const failed = (minutes: number, flow: string, message: string, chunk: string | null = "pay") => other.sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, closed_at, outcome, error, metadata)
    values (${randomUUID()}, 1, ${flow}, ${at(0)}, ${at(0)}, ${at(minutes)}, 'failed', ${other.sql.json({ name: "CardError", message, chunk })}, '{"of": "all"}')
    returning id`;
  await failed(1, "a", "card 4711 of 0190a000-0000-7000-8000-00000000000a declined");
  const [last] = await failed(3, "a", "card 12 of 0190A000-0000-7000-8000-00000000000b declined");
  await failed(2, "a", "card 12 stolen");
  await failed(9, "a", "card 1 of 0190a000-0000-7000-8000-00000000000a declined", "refund");
  await failed(4, "b", "card 1 stolen", null);

  const all = await orchestrator.failures();
  const ofFlow = await orchestrator.failures({ flow: "b" });
  const late = await orchestrator.failures({ lastAfter: at(3), limit: 1 });

  expect(all.map(({ flow, chunk, error, executions }) => [flow, chunk, error, executions])).toEqual([
    ["a", "pay", "CardError: card # of # declined", 2],
    ["a", "refund", "CardError: card # of # declined", 1],
    ["b", null, "CardError: card # stolen", 1],
    ["a", "pay", "CardError: card # stolen", 1],
  ]);
  expect(all[0]).toMatchObject({ firstAt: at(1), lastAt: at(3), lastId: last?.["id"] });
  expect(ofFlow.map(({ flow }) => flow)).toEqual(["b"]);
  expect(late.map(({ chunk }) => chunk)).toEqual(["refund"]);
  // Of some that failed last, and of all, it is the same statement by another way.
  const { reads } = storeOn(other.sql);
  expect(await reads.listFailures({ newest: 100, limit: 100 })).toEqual(all);
  expect(await reads.listFailures({ newest: 100, flow: ["b"], limit: 100 })).toEqual(ofFlow);
  for (const within of [undefined, { of: "all" }]) {
    const lastTwo = await reads.listFailures({ newest: 2, limit: 100, ...(within && { within }) });
    expect(lastTwo.map(({ flow, chunk, executions }) => [flow, chunk, executions])).toEqual([
      ["a", "refund", 1],
      ["b", null, 1],
    ]);
  }
  await expect(orchestrator.failures({ flwo: "b" } as object)).rejects.toThrow(
    'failures() has an unknown option "flwo"',
  );
});
