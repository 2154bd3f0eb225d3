/** What happens to executions that the next version of a flow cannot go on with: each has its end at an exact time. */
import postgres from "postgres";
import { expect, test } from "vitest";
import { defineFlow, type Execution, type Flow } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import type { Append } from "../../src/store/append.ts";
import type { Claim } from "../../src/store/claims.ts";
import { openBlocked, type BlockedHost } from "../../src/worker/blocked.ts";
import { kit } from "../support/kit.ts";
import { Ledger, someWorker } from "../support/ledger.ts";
import { quietTwice } from "../support/quiet.ts";

/** Outside of the database: what code of a chunk came to its end, by execution. */
const ended: string[] = [];

function flowOf(hasWork: boolean, more = "Ping"): Flow {
  const flow = defineFlow("deployed");
  const say = (chunk: string) => (ctx: { readonly execution: { readonly id: string } }) =>
    void ended.push(`${ctx.execution.id} ${chunk}`);
  if (hasWork) flow.to("work", (ctx) => ctx.sleep("30m")).to("after", say("after"));
  flow.when(more).to("pong", say("pong"));
  return flow;
}

interface Happening {
  readonly happen?: (execution: Execution) => unknown;
  readonly start?: object;
  /** How it ended, and when, in seconds; those that go on do so at the return of their chunk, at 01:00:00. */
  readonly end: string;
  readonly ran: readonly string[];
}

const after = ["after"];
const happenings: Record<string, Happening> = {
  nothing: { end: "completed auto_close_idle_timeout 3610", ran: after },
  "an event": {
    happen: (execution) => execution.emit("Ping", null),
    end: "completed auto_close_idle_timeout 3610",
    ran: ["after", "pong"],
  },
  "a seal": {
    happen: (execution) => execution.seal(),
    end: "completed auto_close_idle_timeout 3610",
    ran: after,
  },
  "a close": {
    happen: (execution) => void execution.close().catch(() => {}),
    end: "completed manual 3600",
    ran: after,
  },
  "a cancel": { happen: (execution) => execution.cancel(), end: "cancelled cancelled 2700", ran: [] },
  "its timeout": { start: { timeout: "50m" }, end: "failed timeout 3000", ran: [] },
  "a timeout that is over before it blocks": { start: { timeout: "20m" }, end: "failed timeout 1200", ran: [] },
};

test("a deploy takes their chunk away for half an hour, and brings it back", async () => {
  const before = flowOf(true);
  await using t = await kit({ flows: [before], logger: { ...console, error: () => {} } });
  const begun = t.clock.now().getTime();
  const executions = new Map<string, Execution>();
  for (const [what, { start = {} }] of Object.entries(happenings))
    executions.set(what, await t.orchestrator.flow(before).startExecution(null, start));
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();

  await using next = await kit({
    flows: [flowOf(false)],
    database: t.database,
    logger: { ...console, error: () => {} },
  });
  await next.clock.advance("45m");
  for (const [what, execution] of executions) await happenings[what]?.happen?.(execution);
  await next.clock.advance("15m");
  const blocked = await Promise.all(
    [...executions.values()].map((execution) => execution.history({ types: ["execution.blocked"] })),
  );
  await next.close();
  await t.orchestrator.startWorker();
  await t.clock.advance("1d");

  // Said once, however often it was looked at.
  expect(blocked.map(({ length }) => length)).toEqual([1, 1, 1, 1, 1, 1, 0]);
  const seen: Record<string, string> = {};
  for (const [what, execution] of executions) {
    const [closed] = await execution.history({ types: ["execution.closed"] });
    if (closed?.type !== "execution.closed") continue;
    const seconds = (closed.at.getTime() - begun) / 1000;
    seen[what] = `${closed.outcome} ${closed.reason} ${seconds}`;
  }
  expect(seen).toEqual(Object.fromEntries(Object.entries(happenings).map(([what, { end }]) => [what, end])));
  const ran = (execution: Execution) =>
    ended
      .filter((one) => one.startsWith(execution.id))
      .map((one) => one.slice(37))
      .toSorted();
  expect([...executions.values()].map(ran)).toEqual(Object.values(happenings).map((happening) => happening.ran));
  expect(await t.orchestrator.verify()).toEqual([]);
});

test("what is blocked rests, and is claimed once for each version that comes and was not tried", async () => {
  const before = flowOf(true);
  const logger = { ...console, error: () => {} };
  await using t = await kit({ flows: [before], logger });
  const execution = await t.orchestrator.flow(before).startExecution(null, { timeout: "300d" });
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  const sql = postgres(t.database, { max: 1 });
  const epoch = async () =>
    (await sql<[{ epoch: number }]>`select epoch from flowledger.executions where id = ${execution.id}`)[0].epoch;
  const blocks = async () => (await execution.history({ types: ["execution.blocked"] })).length;
  const run = async (flow: Flow) => {
    const kept = await kit({ flows: [flow], database: t.database, logger });
    await kept.settle();
    return kept;
  };

  const without = await run(flowOf(false));
  await without.clock.advance("1h");
  expect([await blocks(), await epoch()]).toEqual([1, 2]);
  expect(await quietTwice(without)).toEqual([]);
  // The same version again, beside the first and after it.
  await without.orchestrator.startWorker();
  await without.settle();
  await without.close();
  const again = await run(flowOf(false));
  expect(await quietTwice(again)).toEqual([]);
  expect(await epoch()).toBe(2);
  // What comes in is looked at once.
  await execution.emit("Ping", null);
  await again.settle();
  expect(await quietTwice(again)).toEqual([]);
  expect([await blocks(), await epoch()]).toEqual([1, 3]);
  await again.close();
  // Another that lacks the chunk, too.
  const other = await run(flowOf(false, "Pong"));
  expect(await quietTwice(other)).toEqual([]);
  expect([await blocks(), await epoch()]).toEqual([2, 4]);
  await other.close();
  await sql.end();
  await t.orchestrator.startWorker();
  await t.clock.advance("1h");

  expect(await execution.history({ types: ["execution.closed"] })).toMatchObject([
    { outcome: "completed", reason: "auto_close_idle_timeout" },
  ]);
});

test("a version that begins beside the one that is blocked gets what that has given back", async () => {
  const before = flowOf(true);
  const logger = { ...console, error: () => {} };
  await using t = await kit({ flows: [before], logger });
  const execution = await t.orchestrator.flow(before).startExecution(null, { autoCloseTimeout: 0 });
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  await using without = await kit({ flows: [flowOf(false)], database: t.database, logger });
  await without.clock.advance("1h");
  await t.orchestrator.startWorker();

  // Both versions take the job: until the right one has it, the other gives it back for 15 s.
  const closed = () => execution.history({ types: ["execution.closed"] });
  for (let waits = 0; waits < 40 && (await closed()).length === 0; waits++) await t.clock.advance("15s");

  expect(await closed()).toMatchObject([{ outcome: "completed" }]);
});

test("what comes in beside the claim that finds it blocked is not lost", async () => {
  const before = flowOf(true);
  await using t = await kit({ flows: [before], logger: { ...console, error: () => {} } });
  const execution = await t.orchestrator.flow(before).startExecution(null, { autoCloseTimeout: 0 });
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  let cancelled: Promise<unknown> | undefined;

  // It says so before it gives the execution back.
  const error = () => void (cancelled ??= execution.cancel());
  await using without = await kit({ flows: [flowOf(false)], database: t.database, logger: { ...console, error } });
  await without.clock.advance("1h");
  await cancelled;
  await without.settle();

  expect(await execution.history({ types: ["execution.closed"] })).toMatchObject([{ outcome: "cancelled" }]);
});

test("a version that begins between the look for one and the giving back is not left waiting", async () => {
  const before = flowOf(true);
  const logger = { ...console, error: () => {} };
  await using t = await kit({ flows: [before], logger });
  const execution = await t.orchestrator.flow(before).startExecution(null, { autoCloseTimeout: 0 });
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  await using sql = Object.assign(postgres(t.database, { max: 1 }), { [Symbol.asyncDispose]: () => sql.end() });
  // It registers in the very moment, and has looked already: the execution had an owner then.
  await sql.unsafe(`
    create function public.another() returns trigger language plpgsql security definer as $$
    begin
      insert into flowledger.workers (id, host, pid, flows, fingerprints, role, backend_pid, session_key, started_at, heartbeat_at)
      values ('00000000-0000-4000-8000-00000000000a', 'elsewhere', 1, '{deployed}', '{another}', 'x', 0, 0, now(), now()) on conflict do nothing;
      return new;
    end $$;
    create trigger another before update on flowledger.executions for each row
      when (old.owner is not null and new.owner is null) execute function public.another()`);
  const without = await kit({ flows: [flowOf(false)], database: t.database, logger });

  await without.clock.advance("31m");

  const [row] = await sql<[{ epoch: number }]>`select epoch from flowledger.executions where id = ${execution.id}`;
  expect(row.epoch).toBeGreaterThan(2);
  await sql.unsafe("drop function public.another cascade; delete from flowledger.workers where host = 'elsewhere'");
  await without.close();
  await t.orchestrator.startWorker();
  await t.clock.advance("1h");
  expect(await execution.history({ types: ["execution.closed"] })).toMatchObject([{ outcome: "completed" }]);
});

test("one that lost workers and cannot go on leaves its place to the next that did", async () => {
  const silent = { ...console, error: () => {} };
  const before = flowOf(true);
  await using t = await kit({ flows: [before], logger: silent });
  const run = await t.start(before, null);
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  const other = defineFlow("calm").to("work", () => {});
  await using next = await kit({ flows: [flowOf(false), other], database: t.database, logger: silent });
  const suspect = await next.start(other, null, { delay: "45m", autoCloseTimeout: 0 });
  const sql = postgres(t.database, { max: 1, onnotice: () => {} });
  await sql`update flowledger.executions set takeovers = 2`;
  await sql.end();

  await next.clock.advance("1h");

  expect(await suspect.until("closed")).toEqual({});
  expect(await run.history({ types: ["execution.blocked"] })).toHaveLength(1);
  await run.cancel();
  await next.settle();
});

test("what is blocked while another version is served is given back until its own time at the latest", async () => {
  const flow = flowOf(true);
  const ledger = new Ledger(flow, { timeoutMs: 100_000 }).start();
  ledger.do({ type: "block", worker: someWorker, fingerprint: "before", problem: "gone" });
  const sent: Append[] = [];
  const committer = { commit: (item: Append) => (sent.push(item), Promise.resolve({ verdict: "fenced" as const })) };
  const blocked = openBlocked({
    store: { claims: { hasOtherVersion: async () => true } },
    committer,
    log: { error: () => {} },
    meter: { flow: () => ({ blocked: { add: () => {} } }) },
    flows: new Map(),
  } as unknown as BlockedHost);
  const leave = async (inMs: number) => {
    const { state } = ledger;
    // Of a claim only what is asked here.
    const claim = { state, id: "x", now: ledger.now + inMs, worker: someWorker, fingerprint: "before" };
    await blocked.leave(claim as unknown as Claim, flow, "gone");
    return sent.pop()?.release?.wakeInMs;
  };

  expect([await leave(10_000), await leave(30_000), await leave(98_000)]).toEqual([10_000, 15_000, 2000]);
});
