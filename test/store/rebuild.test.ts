/** Derived rows, damaged and deleted, come back as they were; on a live system, from the ledger alone. */
import { beforeAll, expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { snapshotVersion } from "../../src/ledger/state.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, untilPending } from "../support/doors.ts";
import { serving, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const closed: Execution[] = [];
const waiting: Execution[] = [];

const flow = defineFlow("rebuilt");
flow
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", payload: { n: ctx.input } }))
  .to("keep", async (ctx) => {
    await ctx.setState("kept.answer", ctx.input);
    for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id);
    await ctx.putIntoStream("item");
    await ctx.flush();
    return ctx.input;
  })
  .end();

beforeAll(async () => {
  // Its end lets go of what waits, so that the rows stand still.
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow(flow);
  for (let n = 0; n < 6; n++) {
    const options = { interventionMode: "auto", metadata: { n }, autoCloseTimeout: 0 } as const;
    const execution = await bound.startExecution(n, options);
    await untilPending(execution);
    await execution.intervene(`correction ${n}`, { author: "ann" });
    if (n % 2) waiting.push(execution);
    else closed.push(execution);
  }
  for (const execution of closed) {
    await execution.continueWith("q", { ok: true }, { resumeRequestId: "r", actor: "bob" });
    await execution.waitForClose();
  }
});

/** All derived rows, as text: equal means byte for byte. */
async function derived(): Promise<string[]> {
  const rows = await sql<{ text: string }[]>`
    select 'e' || (to_jsonb(e) - '{commit_no,commit_seq,stream_no,takeovers,owner,lease_token,wake_at,job_at}'::text[])::text as text from flowledger.executions e
    union all select 'i' || i::text from flowledger.interrupts i
    union all select 'v' || v::text from flowledger.interventions v
    order by text`;
  return rows.map(({ text }) => text);
}

test("nothing differs where nothing was damaged, and nothing is written", async () => {
  const before = await derived();
  const [mark] = await sql`select max(xmin::text::bigint)::text as last from flowledger.executions`;
  await using orchestrator = visiting(database, [flow]);
  const seen: number[] = [];

  const differences = await orchestrator.rebuild({ onProgress: ({ executions }) => seen.push(executions) });

  expect(differences).toEqual([]);
  expect(await orchestrator.verify()).toEqual([]);
  expect(seen.at(-1)).toBe(6);
  expect(await derived()).toEqual(before);
  expect(await sql`select max(xmin::text::bigint)::text as last from flowledger.executions`).toEqual([mark]);
});

test("every damaged or deleted row is named and comes back byte for byte", async () => {
  const before = await derived();
  const [first, second, third] = closed.map(({ id }) => id);
  const [asleep] = waiting.map(({ id }) => id);
  await sql`update flowledger.executions set outcome = 'failed', close_snapshot = '{"forged": true}', metadata = null, seq = 1 where id = ${first ?? ""}`;
  await sql`delete from flowledger.executions where id = ${second ?? ""}`;
  await sql`delete from flowledger.interrupts where execution_id = ${third ?? ""}`;
  await sql`update flowledger.interventions set record = '{}', status = 'x' where execution_id = ${third ?? ""}`;
  await sql`insert into flowledger.interventions select execution_id, 9, 'forged', status, target, author, record, created_at from flowledger.interventions where execution_id = ${third ?? ""}`;
  await sql`update flowledger.executions set pending_interrupts = 0, sealed_at = now() where id = ${asleep ?? ""}`;
  await sql`update flowledger.interrupts set status = 'resumed', actor = 'mallory' where execution_id = ${asleep ?? ""}`;
  await sql`insert into flowledger.snapshots values (${asleep ?? ""}, 2, ${snapshotVersion}, '{"seq": 2}')`;
  await using orchestrator = visiting(database, [flow]);

  const differences = await orchestrator.rebuild();

  const named = differences.map(({ executionId, table, row }) => [executionId, table, row]);
  expect(named).toHaveLength(8);
  expect(named).toEqual(
    expect.arrayContaining([
      [first, "executions", null],
      [second, "executions", null],
      [third, "interrupts", "q"],
      [third, "interventions", "1"],
      [third, "interventions", "9"],
      [asleep, "executions", null],
      [asleep, "interrupts", "q"],
      [asleep, "snapshots", null],
    ]),
  );
  expect(differences.find(({ executionId }) => executionId === second)?.found).toBeNull();
  expect(differences.find(({ row }) => row === "9")?.expected).toBeNull();
  expect(differences.find(({ executionId }) => executionId === asleep)?.found).toMatchObject({ pending_interrupts: 0 });
  expect(await derived()).toEqual(before);
  expect(await orchestrator.rebuild()).toEqual([]);
  expect(await orchestrator.verify()).toEqual([]);
});

test("TF-INV-11: what is inserted and consumed just before the close has the ledger's times in the close snapshot", async () => {
  const quick = defineFlow("quick");
  quick
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
    .to("use", async (ctx) => {
      for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id);
    });
  await using orchestrator = await serving(database, [quick]);
  const execution = await orchestrator.flow(quick).startExecution(1, { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(execution);
  await execution.intervene("a correction", { author: "ann" });
  await execution.continueWith("q", 1);

  const snapshot = await execution.waitForClose();

  expect(snapshot).toHaveProperty("$interventions");
  expect(await orchestrator.verify({ id: execution.id })).toEqual([]);
});

test("what has not begun sleeps on after its header was lost, whatever came in that gives nobody anything to do", async () => {
  await using own = await testDatabase();
  await using orchestrator = visiting(own, [flow]);
  const by = { actor: "ann", reason: "INC-12" };
  const doings: Record<string, (one: Execution) => Promise<unknown>> = {
    nothing: async () => {},
    correction: (one) => one.intervene("a correction"),
    "correction, consumed": async (one) => {
      const { id } = await one.intervene("a correction");
      await one.markInterventionConsumed(id, { consumer: "desk" });
    },
    edit: (one) => one.editState({ set: { kept: 1 } }, by),
    pause: (one) => one.pause(by),
    "pause, over": async (one) => {
      await one.pause(by);
      await one.unpause(by);
    },
    "early answer": (one) => one.continueWith("later", 1),
    seal: (one) => one.seal(),
  };
  const created: Record<string, Execution> = {};
  for (const [name, act] of Object.entries(doings)) {
    const one = await orchestrator.flow(flow).createExecution({ interventionMode: "auto" });
    await act(one);
    created[name] = one;
  }
  await own.sql`delete from flowledger.executions`;

  await orchestrator.rebuild();

  const woken = [];
  for (const [name, { id }] of Object.entries(created))
    if ((await own.sql`select from flowledger.executions where id = ${id} and wake_at is null`).length === 0)
      woken.push(name);
  expect(woken).toEqual([]);
});

test("on a live system: executions go on while it runs, one that was damaged among them", async () => {
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow(flow);
  const running = await Promise.all(
    Array.from({ length: 20 }, (_, n) => bound.startExecution(n, { autoCloseTimeout: 0 })),
  );
  const [victim] = running;
  await Promise.all(running.map((execution) => untilPending(execution)));
  await sql`delete from flowledger.interrupts where execution_id = ${victim?.id ?? ""}`;

  const rebuilt = orchestrator.rebuild();
  await Promise.all(running.slice(1).map((execution) => execution.continueWith("q", 1)));
  const differences = await rebuilt;
  await victim?.continueWith("q", 1);

  expect(differences.filter(({ table }) => table === "interrupts").map(({ executionId }) => executionId)).toContain(
    victim?.id,
  );
  for (const execution of running) expect(await execution.waitForClose()).toMatchObject({ kept: { answer: 1 } });
  expect(await orchestrator.rebuild()).toEqual([]);
});

test("a ledger that cannot be folded is named and left as it is; one execution alone can be asked for", async () => {
  await using orchestrator = visiting(database, [flow]);
  const [one] = waiting;
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type) select ${one?.id ?? ""}, max(seq) + 1, max(epoch), now(), 'no.such'
    from flowledger.ledger where execution_id = ${one?.id ?? ""}`;
  await sql`update flowledger.executions set metadata = '{}' where id = ${one?.id ?? ""}`;

  const differences = await orchestrator.rebuild({ id: one?.id ?? "" });

  expect(differences).toMatchObject([
    { executionId: one?.id, table: "ledger", expected: { problem: expect.any(String) as string } },
  ]);
  expect(await codeOf(orchestrator.rebuild({ id: "x" }))).toBe("EXECUTION_NOT_FOUND");
  expect(await codeOf(orchestrator.verify({ id: "x" }))).toBe("EXECUTION_NOT_FOUND");
});

test("what is due and nobody's is a problem while there is a worker for its flow, and none before", async () => {
  await using own = await testDatabase();
  const flow = defineFlow("unserved");
  flow.to("pass", () => null);
  await using orchestrator = visiting(own, [flow]);
  const { id } = await orchestrator.flow(flow).startExecution(null);
  await own.sql`update flowledger.executions set wake_at = wake_at - interval '1 minute' where id = ${id}`;

  const before = await orchestrator.verify();
  await own.sql`
    insert into flowledger.workers (id, host, pid, flows, role, backend_pid, session_key, started_at, heartbeat_at)
    values (gen_random_uuid(), 'here', 1, array['unserved'], current_user, pg_backend_pid(), 1, now(), now())`;

  expect(before).toEqual([]);
  expect(await orchestrator.verify()).toMatchObject([{ invariant: "I1", executionId: id }]);
});
