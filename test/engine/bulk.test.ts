/** What operators do to many executions at once: targets are fixed, each gets its command once, and the report says what became of it. */
import { expect, test } from "vitest";
import {
  defineFlow,
  DefinitionError,
  ExecutionCancelledError,
  ExecutionNotFoundError,
  UsageError,
} from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { bulkFlow } from "../../src/worker/bulk.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const by = { actor: "ann", reason: "INC-12" };

/** A flow of two chunks; the second parks, or fails, until it is mended. */
function fragile(name: string, onFailure: "park" | "fail") {
  const state = { isMended: false, ran: [] as string[] };
  const flow = defineFlow(name, {}, { onFailure });
  flow
    .to("first", (ctx) => void state.ran.push(`first ${ctx.execution.id}`))
    .to("second", (ctx) => {
      if (!state.isMended) throw new Error("ECONNREFUSED 10.0.0.1");
      state.ran.push(`second ${ctx.execution.id}`);
      return "done";
    });
  return { flow, state };
}

async function expectSound(...executions: readonly { readonly id: string }[]): Promise<void> {
  for (const { id } of executions) {
    expect(await verify(sql, { id })).toEqual([]);
    expect(await rebuild(sql, { id })).toEqual([]);
  }
}

async function untilAll(executions: readonly Execution[], type: "chunk.parked" | "execution.closed"): Promise<void> {
  for (const one of executions) await untilEvent(one, type);
}

test("a bulk retry runs all that is parked of its filter again, each once, with who and why and which bulk", async () => {
  const { flow, state } = fragile("bulk.retried", "park");
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow(flow);
  const start = (tenant: string) => bound.startExecution(null, { autoCloseTimeout: 0, metadata: { tenant } });
  const ours = await Promise.all(Array.from({ length: 120 }, () => start("acme")));
  const other = await start("bolt");
  await untilAll([...ours, other], "chunk.parked");
  state.isMended = true;

  const where = { flow: "bulk.retried", metadata: { tenant: "acme" }, errorLike: "econn%10.0" };
  const preview = await orchestrator.bulk({ action: "retry", where, dryRun: true, ...by });
  expect(preview).toMatchObject({ matched: 120, isMore: false });
  expect(preview.samples.map(({ id }) => id)).toEqual(
    ours
      .map(({ id }) => id)
      .toSorted()
      .slice(0, 20),
  );
  expect(preview.samples[0]).toMatchObject({ flow: "bulk.retried", status: "parked", metadata: { tenant: "acme" } });
  expect(await orchestrator.bulk({ action: "retry", where, dryRun: true, limit: 100, ...by })).toMatchObject({
    matched: 100,
    isMore: true,
  });

  const bulk = await orchestrator.bulk({ action: "retry", where, ...by });
  expect(await bulk.wait()).toEqual({ matched: 120, done: 120, skipped: 0, failed: 0 });
  await Promise.all(ours.map((one) => one.waitForClose()));
  expect(state.ran.toSorted()).toEqual(
    [...ours.flatMap(({ id }) => [`first ${id}`, `second ${id}`]), `first ${other.id}`].toSorted(),
  );
  expect((await other.result.getMeta()).status).toBe("parked");
  expect(await ours[7]?.history({ types: ["chunk.retried"] })).toMatchObject([
    { ...by, bulk: bulk.id, chunk: "second" },
  ]);
  expect(await bulk.execution.result.getState()).toEqual({ matched: 120, done: 120, skipped: 0, failed: 0 });
  await expectSound(bulk, ...ours.slice(0, 5), other);

  // From any process, and by its id.
  await using elsewhere = visiting(database);
  expect(await (await elsewhere.getBulk(bulk.id)).report()).toEqual({ matched: 120, done: 120, skipped: 0, failed: 0 });
  expect(await refusal(elsewhere.getBulk(other.id))).toBeInstanceOf(ExecutionNotFoundError);
  const again = await orchestrator.bulk({ action: "retry", where, ...by });
  expect(await again.wait()).toEqual({ matched: 0, done: 0, skipped: 0, failed: 0 });
}, 60_000);

test("a bulk redrive makes one new execution of each that failed, and leaves alone what was redriven before", async () => {
  const { flow, state } = fragile("bulk.redriven", "fail");
  await using orchestrator = await serving(database, [flow]);
  const failed = await Promise.all(
    Array.from({ length: 3 }, () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 })),
  );
  await untilAll(failed, "execution.closed");
  state.isMended = true;

  const where = { flow: "bulk.redriven" };
  const bulk = await orchestrator.bulk({ action: "redrive", where, ...by });
  expect(await bulk.wait()).toEqual({ matched: 3, done: 3, skipped: 0, failed: 0 });
  for (const one of failed) {
    const [next, ...more] = await one.redrivenBy();
    expect(more).toEqual([]);
    const copy = await orchestrator.getExecution(next ?? "");
    expect(await copy.waitForClose()).toEqual({});
    expect(await copy.history({ types: ["execution.redriven"] })).toMatchObject([{ ...by, of: one.id, bulk: bulk.id }]);
    await expectSound(one, copy);
  }
  // What still waits for somebody, and what goes on elsewhere, apart.
  const idsOf = async (redriven: boolean) =>
    (await orchestrator.listExecutions({ ...where, status: "failed", redriven })).executions.map(({ id }) => id);
  expect(await idsOf(false)).toEqual([]);
  expect((await idsOf(true)).toSorted()).toEqual(failed.map(({ id }) => id).toSorted());
  expect(await orchestrator.countExecutions({ ...where, redriven: false })).toMatchObject({ count: 3 });
  expect(
    await orchestrator.bulk({ action: "redrive", where: { ...where, redriven: false }, dryRun: true, ...by }),
  ).toMatchObject({ matched: 0 });
  expect(await failed[0]?.explain()).toMatchObject({
    redrivenAs: await failed[0]?.redrivenBy(),
    sentence: expect.stringMatching(/; it was redriven as [0-9a-f-]{36}\.$/),
  });
  const second = await orchestrator.bulk({ action: "redrive", where, ...by });
  expect(await second.wait()).toEqual({ matched: 3, done: 0, skipped: 3, failed: 0 });
}, 60_000);

test("what refuses its command is listed, page by page, and the others have it", async () => {
  const { flow } = fragile("bulk.refused", "park");
  const single = defineFlow("bulk.refused.typed", {}, { onFailure: "park" }).to("charge", () => {
    throw new Error("declined");
  });
  await using orchestrator = await serving(database, [flow, single]);
  const [one, two, right] = [
    await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 }),
    await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 }),
    await orchestrator.flow(single).startExecution(null, { autoCloseTimeout: 0 }),
  ];
  await untilAll([one, two, right], "chunk.parked");

  const bulk = await orchestrator.bulk({
    action: "skip",
    where: { flow: ["bulk.refused", "bulk.refused.typed"], status: "parked" },
    options: { chunk: "charge", output: "by hand" },
    ...by,
  });
  expect(await bulk.wait()).toEqual({ matched: 3, done: 1, skipped: 0, failed: 2 });
  const first = await bulk.failures({ limit: 1 });
  expect(first).toMatchObject({
    failures: [
      {
        id: one.id,
        code: "USAGE_INVALID",
        message: expect.stringContaining('nothing to skip at "charge"'),
        at: expect.any(Date),
      },
    ],
    nextCursor: "1",
  });
  expect(await bulk.failures({ cursor: first.nextCursor ?? "" })).toMatchObject({
    failures: [{ id: two.id }],
    nextCursor: null,
  });
  await right.waitForClose();
  await expectSound(bulk, one, right);
}, 60_000);

test("it pauses, unpauses and cancels many, and skips what is that way already", async () => {
  const flow = defineFlow("bulk.waiting").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using orchestrator = await serving(database, [flow]);
  const all = await Promise.all(
    Array.from({ length: 4 }, () => orchestrator.flow(flow).startExecution(null, { autoClose: false })),
  );
  for (const one of all) await untilEvent(one, "interrupt.raised");
  await all[0]?.pause(by);
  await all[3]?.cancel("by hand");
  await all[3]?.waitForClose().catch(() => null);
  const where = { flow: "bulk.waiting" };
  const reportOf = async (action: "pause" | "unpause" | "cancel") =>
    (await orchestrator.bulk({ action, where, ...by })).wait();

  expect(await reportOf("pause")).toEqual({ matched: 3, done: 2, skipped: 1, failed: 0 });
  expect((await all[1]?.result.getMeta())?.paused).toMatchObject(by);
  expect(await reportOf("unpause")).toEqual({ matched: 3, done: 3, skipped: 0, failed: 0 });
  expect(await reportOf("cancel")).toEqual({ matched: 3, done: 3, skipped: 0, failed: 0 });
  for (const one of all) expect(await refusal(one.waitForClose())).toBeInstanceOf(ExecutionCancelledError);
  expect(await all[1]?.history({ types: ["cancel.requested"] })).toMatchObject([{ ...by, bulk: expect.any(String) }]);
  await expectSound(...all);
}, 60_000);

test("what it writes is what the command of one writes: by which role too, and in the chain at once", async () => {
  const flow = defineFlow("bulk.alike").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using orchestrator = await serving(database, [flow]);
  const start = () => orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const [alone, other] = [await start(), await start()];
  for (const one of [alone, other]) await untilEvent(one, "interrupt.raised");
  const written = ({ id }: Execution) => sql`
    select l.type, l.actor, l.role, l.payload - 'bulk' as payload, exists (
      select from flowledger.chain c where c.execution_id = l.execution_id and c.seq = l.seq) as is_chained
    from flowledger.ledger l where l.execution_id = ${id} and l.actor = 'ann' order by l.seq`;

  for (const action of ["pause", "unpause"] as const) {
    await alone[action](by);
    const bulk = await orchestrator.bulk({ action, where: { idPrefix: other.id }, ...by });
    expect(await bulk.wait()).toMatchObject({ done: 1 });
  }

  const expected = await written(alone);
  expect(expected).toMatchObject([{ is_chained: true }, { is_chained: true }]);
  expect([...(await written(other))]).toEqual([...expected]);
  for (const one of [alone, other]) await one.cancel();
});

test("it keeps to its rate, and a cancel stops it where it is", async () => {
  const { flow } = fragile("bulk.rated", "park");
  await using orchestrator = await serving(database, [flow]);
  const all = await Promise.all(
    Array.from({ length: 12 }, () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 })),
  );
  await untilAll(all, "chunk.parked");
  const where = { flow: "bulk.rated" };
  const rated = await orchestrator.bulk({ action: "pause", where, rate: { limit: 4, per: "400ms" }, ...by });
  expect(await rated.wait()).toMatchObject({ done: 12 });
  const times = await sql<{ ms: number }[]>`
    select extract(epoch from l.at)::float8 * 1000 as ms from flowledger.ledger l
    where l.type = 'execution.paused' and l.execution_id = any(${all.map(({ id }) => id)}) order by l.at`;
  const waits = times.slice(4).map(({ ms }, index) => ms - (times[index]?.ms ?? 0));
  expect(waits.filter((wait) => wait < 399)).toEqual([]);

  const slow = await orchestrator.bulk({ action: "unpause", where, rate: { limit: 1, per: "1h" }, ...by });
  await expect.poll(() => slow.report(), { timeout: 8000 }).toMatchObject({ done: 1 });
  await expect.poll(async () => (await slow.execution.explain()).kind, { timeout: 8000 }).toBe("waiting");
  await slow.execution.cancel("enough");
  expect(await refusal(slow.wait())).toBeInstanceOf(ExecutionCancelledError);
  expect(await slow.report()).toEqual({ matched: 12, done: 1, skipped: 0, failed: 0 });
  await expectSound(slow, rated);
}, 60_000);

test("it is paused and goes on like any other, and one that was cancelled is redriven over what it left", async () => {
  const { flow } = fragile("bulk.stopped", "park");
  await using orchestrator = await serving(database, [flow]);
  const all = await Promise.all(
    Array.from({ length: 12 }, () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 })),
  );
  await untilAll(all, "chunk.parked");
  const rate = { limit: 2, per: "200ms" };
  const bulk = await orchestrator.bulk({ action: "pause", where: { flow: "bulk.stopped" }, rate, ...by });
  const report = () => bulk.report();
  await expect.poll(report, { timeout: 8000, interval: 5 }).toMatchObject({ done: 2 });
  await bulk.execution.pause(by);
  await untilEvent(bulk.execution, "chunk.completed");
  const { done } = await report();
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect((await report()).done).toBeLessThanOrEqual(done + 2);
  expect((await report()).done).toBeLessThan(12);

  await bulk.execution.unpause(by);
  await expect.poll(async () => (await report()).done, { timeout: 8000 }).toBeGreaterThan(done + 2);
  await bulk.execution.cancel("enough");
  expect(await refusal(bulk.wait())).toBeInstanceOf(ExecutionCancelledError);
  expect((await report()).done).toBeLessThan(12);
  const next = await bulk.execution.redrive(by);
  expect(await next.waitForClose()).toEqual({ matched: 12, done: 12, skipped: 0, failed: 0 });
  expect(await report()).toEqual({ matched: 12, done: 12, skipped: 0, failed: 0 });
  for (const one of all) expect(await one.history({ types: ["execution.paused"] })).toHaveLength(1);
  await expectSound(bulk, next, ...all);
}, 60_000);

test("a target that somebody's transaction has is done when that has ended", async () => {
  const { flow } = fragile("bulk.locked", "park");
  await using orchestrator = await serving(database, [flow]);
  const all = await Promise.all(
    Array.from({ length: 3 }, () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 })),
  );
  await untilAll(all, "chunk.parked");
  await database.sql.begin(async (tx) => {
    await tx`select from flowledger.executions where id = ${all[1]?.id ?? ""} for update`;
    const bulk = await orchestrator.bulk({ action: "pause", where: { flow: "bulk.locked" }, ...by });
    await expect.poll(() => bulk.report(), { timeout: 8000 }).toMatchObject({ done: 2 });
    await tx`commit and chain`;
    expect(await bulk.wait()).toEqual({ matched: 3, done: 3, skipped: 0, failed: 0 });
  });
}, 60_000);

test("a target that somebody else redrives meanwhile is not redriven again", async () => {
  const { flow } = fragile("bulk.raced", "fail");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilAll([execution], "execution.closed");
  const waiting = () => sql`
    select from pg_stat_activity where wait_event_type = 'Lock' and query like '%run_bulk%' and datname = current_database()`;
  await database.sql.begin(async (tx) => {
    await tx`select from flowledger.executions where id = ${execution.id} for update`;
    const bulk = await orchestrator.bulk({ action: "redrive", where: { flow: "bulk.raced" }, ...by });
    await expect.poll(waiting, { timeout: 8000, interval: 5 }).toHaveLength(1);
    await tx`select flowledger.redrive(${execution.id}, ${sql.json(by)}::jsonb)`;
    await tx`commit and chain`;

    expect(await bulk.wait()).toEqual({ matched: 1, done: 0, skipped: 1, failed: 0 });
  });
  expect((await orchestrator.listExecutions({ flow: "bulk.raced" })).executions).toHaveLength(2);
}, 60_000);

test("what one target is refused for takes no other of its round along", async () => {
  const { flow, state } = fragile("bulk.apart", "park");
  await using orchestrator = await serving(database, [flow]);
  const all = await Promise.all(
    Array.from({ length: 5 }, () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 })),
  );
  await untilAll(all, "chunk.parked");
  const [sealed, refused, ...others] = all;
  await sealed?.seal();
  await sql.unsafe(`
    create function public.refuse_one() returns trigger language plpgsql as $$
    begin
      if new.execution_id = '${refused?.id}' and new.actor = 'ann' then raise exception 'not this one'; end if;
      return new;
    end $$;
    create trigger refuse_one before insert on flowledger.ledger for each row execute function public.refuse_one()`);
  const where = { flow: "bulk.apart" };
  const paused = await orchestrator.bulk({ action: "pause", where, ...by });
  expect(await paused.wait()).toEqual({ matched: 5, done: 3, skipped: 0, failed: 2 });
  const failures = new Map((await paused.failures()).failures.map((failure) => [failure.id, failure]));
  expect([sealed, refused].map((one) => one && failures.get(one.id))).toMatchObject([
    { code: "EXECUTION_SEALED" },
    { message: expect.stringContaining("not this one") },
  ]);
  expect(await (await orchestrator.bulk({ action: "unpause", where, ...by })).wait()).toMatchObject({
    done: 3,
    skipped: 2,
  });
  state.isMended = true;
  const retried = await orchestrator.bulk({ action: "retry", where, ...by });
  expect(await retried.wait()).toEqual({ matched: 5, done: 4, skipped: 0, failed: 1 });
  await sql.unsafe("drop trigger refuse_one on flowledger.ledger; drop function public.refuse_one()");
  await untilAll(others, "execution.closed");
  expect((await refused?.result.getMeta())?.status).toBe("parked");
  for (const one of others)
    expect((await one.history({ types: ["execution.paused", "execution.unpaused", "chunk.retried"] })).length).toBe(3);
  await expectSound(...all);
}, 60_000);

test("a round of many gives their workers a job for many", async () => {
  const { flow } = fragile("bulk.jobs", "park");
  const ids: string[] = [];
  {
    await using before = await serving(database, [flow]);
    ids.push(
      ...(await before.flow(flow).startMany(
        Array.from({ length: 60 }, () => null),
        { autoCloseTimeout: 0 },
      )),
    );
    const count = async () => (await before.countExecutions({ flow: "bulk.jobs", status: "parked" })).count;
    await expect.poll(count, { timeout: 20_000 }).toBe(60);
  }
  await using orchestrator = await serving(database, [defineFlow("bulk.jobs.other").to("work", () => 1)]);
  const bulk = await orchestrator.bulk({ action: "retry", where: { flow: "bulk.jobs" }, ...by });
  expect(await bulk.wait()).toEqual({ matched: 60, done: 60, skipped: 0, failed: 0 });
  const [jobs] = await sql<[{ jobs: number; ids: number }]>`
    select count(*)::int as jobs, count(distinct i.id)::int as ids
    from flowledger_jobs.jobs j join flowledger_jobs._private_jobs p on p.id = j.id cross join lateral jsonb_array_elements_text(p.payload::jsonb) i(id)
    where j.task_identifier = 'flowledger:bulk.jobs' and i.id = any(${ids})`;
  expect(jobs).toEqual({ jobs: 60, ids: 60 });
  expect(await sql`select from flowledger_jobs.jobs j where j.task_identifier = 'flowledger:bulk.jobs'`).toHaveLength(
    3,
  );
  const due =
    await sql`select from flowledger.executions where id = any(${ids}) and wake_at <= flowledger.now() and parked = 0`;
  expect(due).toHaveLength(60);
}, 60_000);

test("the library's own names are nobody else's", async () => {
  expect(() => defineFlow("flowledger.mine")).toThrow(DefinitionError);
  await using orchestrator = await serving(database, [defineFlow("bulk.served").to("work", () => 1)]);
  await expect(
    sql`select flowledger.start('flowledger.bulk', '{"bulk": "01a1fc3d-d432-71f2-8231-53efb707e3d2"}')`,
  ).rejects.toMatchObject({ code: "FL008" });
  const forged = Object.create(defineFlow("bulk.forged"), { name: { value: "flowledger.bulk" } });
  expect(
    await refusal((async () => orchestrator.flow(forged).startExecution(null, { allowUnknown: true }))()),
  ).toBeInstanceOf(Error);
}, 60_000);

test("what is wrong with a bulk is said before anything is written", async () => {
  await using orchestrator = await serving(database, [defineFlow("bulk.wrong").to("ask", (ctx) => ctx.pauseFor({}))]);
  for (let index = 0; index < 3; index++) await orchestrator.flow("bulk.wrong").startExecution(null);
  const where = { flow: "bulk.wrong" };
  const right = { action: "cancel", where, ...by } as const;
  type Options = Parameters<typeof orchestrator.bulk>[0];
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ ...right, action: "stop" }, /action of bulk\(\)/],
    [{ ...right, where: {} }, /where of bulk\(\) is empty/],
    [{ ...right, where: { flow: [right.where.flow, "bulk.nobody"] } }, /no flow named "bulk.nobody" is known here/],
    [{ ...right, where: undefined }, /where of bulk\(\)/],
    [{ ...right, where: { flows: "x" } }, /unknown option "flows"|flows/],
    [{ ...right, where: { status: "broken" } }, /status/],
    [{ ...right, where: { closedAfter: "yesterday" } }, /closedAfter/],
    [{ ...right, limit: 2 }, /more than 2 executions match/],
    [{ ...right, limit: 0 }, /limit of bulk\(\)/],
    [{ ...right, rate: { limit: 0, per: "1s" } }, /limit in rate of bulk\(\)/],
    [{ ...right, rate: { limit: 1, per: "0s" } }, /per in rate of bulk\(\)/],
    [{ ...right, rate: { limit: 1 } }, /per in rate of bulk\(\)/],
    [{ ...right, options: { chunk: "ask" } }, /cancel in bulk\(\) has an unknown option "chunk"/],
    [{ ...right, action: "skip", options: { chunk: 1 } }, /chunk of skip in bulk\(\)/],
    [{ ...right, action: "pause", options: { until: new Date(0) } }, /until/],
    [{ ...right, action: "redrive", options: { input: 1, output: 2 } }, /input or output/],
    [{ ...right, reason: "" }, /reason of bulk\(\)/],
    [{ ...right, actor: undefined }, /actor of bulk\(\)/],
    [{ ...right, dryRun: 1 }, /dryRun of bulk\(\)/],
    [{ ...right, more: 1 }, /more/],
  ];
  for (const [options, message] of wrong) {
    const error = await refusal(orchestrator.bulk(options as unknown as Options));
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ message: expect.stringMatching(message) });
  }
  // Sent again it is the same, or refused.
  const sent = (options: object) =>
    sql`select flowledger.bulk(${sql.json({ ...right, id: "01890000-0000-7000-8000-00000000b001", ...options })})`;
  await sent({ action: "pause", where: { parent: "01890000-0000-7000-8000-00000000dead" } });
  for (const other of [{ options: { until: "2999-01-01T00:00:00Z" } }, { actor: "bo" }, { reason: "INC-13" }])
    await expect(
      sent({ action: "pause", where: { parent: "01890000-0000-7000-8000-00000000dead" }, ...other }),
    ).rejects.toMatchObject({ code: "FL008", message: /is taken/ });
  // What nobody has claimed runs under no version yet.
  await orchestrator.flow("bulk.wrong").createExecution();
  expect(
    await sql`select flowledger.bulk_matches('cancel', '{"flow": "bulk.wrong", "version": "nobody has it"}', 10)`,
  ).toEqual([]);
  for (const options of [
    {},
    { ...right, where: {} },
    { ...right, where: { flow: [] } },
    { ...right, rate: 5 },
    { ...right, options: 5 },
    { ...right, bulk: 1 },
    { ...right, id: "x" },
  ])
    await expect(sql`select flowledger.bulk(${sql.json(options)})`).rejects.toMatchObject({ code: "FL008" });
  expect(await sql`select from flowledger.bulks where filter @> '{"flow": "bulk.wrong"}'`).toHaveLength(0);
  expect(
    await sql`select from flowledger.bulk_targets t left join flowledger.bulks b on b.execution_id = t.execution_id where b.execution_id is null`,
  ).toHaveLength(0);
}, 60_000);

test("a worker that stops hears of it between two rounds of one step, and goes on with no third", async () => {
  const stop = new AbortController();
  const rounds: string[] = [];
  const run = async (bulk: string) => {
    if (rounds.push(bulk) === 2) stop.abort();
    // There is more, at once.
    return 0;
  };
  const work = bulkFlow({ run } as never).graph.chunks.get("work");
  const bulk = crypto.randomUUID();
  const ctx = {
    input: { bulk },
    execution: { id: crypto.randomUUID() },
    signal: stop.signal,
    step: (_name: string, body: () => unknown) => body(),
    emitNoWait: () => {},
  };

  await work?.handler(ctx as never);

  expect(rounds).toEqual([bulk, bulk]);
});

test("each filter of a bulk leaves out what it does not mean, and only what is on its own is redriven", async () => {
  const [parent, key] = ["01890000-0000-7000-8000-00000000aaaa", "order-17"];
  const [early, late] = ["2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z"];
  const row = (name: string, columns: object) => ({ id: `01890000-0000-7000-8000-0000000f${name}`, ...columns });
  const failed = (at: string, message: string) => ({ closed_at: at, outcome: "failed", error: { name: "E", message } });
  const rows = [
    row("0001", {
      created_at: early,
      fingerprint: "aa01",
      parent_id: parent,
      idempotency_key: key,
      metadata: { t: 1 },
    }),
    row("0002", { created_at: late, fingerprint: "ab02", metadata: { t: 2 } }),
    row("0003", { created_at: early, ...failed(early, "a_b") }),
    row("0004", { created_at: early, ...failed(late, "axb") }),
    row("0005", { created_at: early, parent_id: parent, ...failed(late, "axb") }),
  ];
  await sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, closed_at, outcome, error, parent_id, fingerprint, idempotency_key, metadata)
    select x.id, 2, 'bulk.filtered', x.created_at, x.created_at, x.closed_at, x.outcome, x.error, x.parent_id, x.fingerprint, x.idempotency_key, x.metadata
    from jsonb_populate_recordset(null::flowledger.executions, ${JSON.stringify(rows)}::text::jsonb) x`;
  const found = async (action: string, where: object) => {
    const of = JSON.stringify({ flow: "bulk.filtered", ...where });
    const ids = await sql<{ id: string }[]>`
      select id from flowledger.bulk_matches(${action}, ${of}::text::jsonb, 10) with ordinality m(id, ord) order by ord`;
    return ids.map(({ id }) => Number(id.slice(-4)));
  };

  expect(await found("cancel", {})).toEqual([1, 2]);
  expect(await found("cancel", { createdAfter: early })).toEqual([2]);
  expect(await found("cancel", { createdBefore: late })).toEqual([1]);
  expect(await found("cancel", { version: "aa" })).toEqual([1]);
  expect(await found("cancel", { parent })).toEqual([1]);
  expect(await found("cancel", { idempotencyKey: key })).toEqual([1]);
  expect(await found("cancel", { metadata: { t: 2 } })).toEqual([2]);
  expect(await found("redrive", {})).toEqual([3, 4]);
  expect(await found("redrive", { closedAfter: early })).toEqual([4]);
  expect(await found("redrive", { closedBefore: late })).toEqual([3]);
  expect(await found("redrive", { errorLike: "A_B" })).toEqual([3]);
  expect(await found("redrive", { errorLike: "a%b" })).toEqual([3, 4]);
  expect(await found("redrive", { status: "cancelled" })).toEqual([]);

  const preview = (limit: number) =>
    sql`select flowledger.bulk(${sql.json({ action: "redrive", where: { flow: "bulk.filtered" }, dryRun: true, limit, ...by })}) as found`;
  expect(await preview(2)).toMatchObject([{ found: { matched: 2, isMore: false } }]);
  expect(await preview(1)).toMatchObject([{ found: { matched: 1, isMore: true } }]);
});
