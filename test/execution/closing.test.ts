/** `close({ pendingInterrupts: "cancel" })`: whatever asks, here or in a sub-flow, before it or on the way, it closes cleanly. */
import { afterAll, expect, test } from "vitest";
import { DrainTimeoutError, PermissionError } from "../../src/base/errors.ts";
import { close } from "../../src/execution/closing.ts";
import type { ExecutionHost } from "../../src/execution/host.ts";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { testDatabase } from "../support/database.ts";
import { present, untilPending } from "../support/doors.ts";
import { newGate, refusal, serving, untilEvent, untilThere } from "../support/flows.ts";
import type { Gate } from "../support/flows.ts";
import { expectGuarantees, nothing } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;
const gates = new Map<string, Gate>();
/** By what an execution is started with. */
const gateOf = (key: unknown): Gate => {
  const gate = gates.get(String(key)) ?? newGate();
  gates.set(String(key), gate);
  return gate;
};

const asks = defineFlow("asks");
asks.to("ask", async (ctx) => {
  await gateOf(ctx.input).passed;
  return ctx.pauseFor({ interruptId: "ask" });
});
const parent = defineFlow("parent");
parent.toSubFlow(asks);
const grandparent = defineFlow("grandparent");
grandparent.toSubFlow(parent);
const beside = defineFlow("beside");
beside.to("ask", (ctx) => ctx.pauseFor({ interruptId: "first" }));
beside.to("ask later", async (ctx) => {
  await gateOf(ctx.input).passed;
  return ctx.pauseFor({ interruptId: "second" });
});
const ending = defineFlow("ending");
ending.to("end", async (ctx) => {
  await gateOf(ctx.execution.id).passed;
  if (ctx.input === "failed") throw new RangeError("no more");
});
const cleaning = defineFlow("cleaning");
cleaning.to("hang", (ctx) => new Promise((_, end) => ctx.signal.addEventListener("abort", end)), {
  onCancel: async (ctx) => {
    await ctx.setState("cleaned", true);
    await gateOf(ctx.execution.id).passed;
  },
});
const working = defineFlow("working");
working.to("ask", async (ctx) => {
  await gateOf(`${String(ctx.input)} asks`).passed;
  return ctx.pauseFor({ interruptId: "ask" });
});
working.to("work", (ctx) => gateOf(ctx.input).passed);
const calling = defineFlow("calling");
calling.to("ask", (ctx) => ctx.pauseFor({ interruptId: "own" }));
calling.to("call", async (ctx) => void (await ctx.call(asks, ctx.input)));
const all = { working, asks, parent, grandparent, beside, ending, cleaning, calling };
const orchestrator = await serving(database, Object.values(all), {}, { concurrency: 250 });
afterAll(() => orchestrator.close());

const doors = {
  library: (execution: Execution) => execution.close({ pendingInterrupts: "cancel", reason: "enough" }),
  SQL: async (execution: Execution) => {
    await sql`select flowledger.close(${execution.id}, 'enough', 'cancel')`;
    // What waited was cancelled, and so was the execution.
    await refusal(execution.waitForClose());
  },
};

let runs = 0;
function start(name: keyof typeof all): Promise<Execution> {
  return orchestrator.flow(name).startExecution(`run ${++runs}`, { autoCloseTimeout: 0 });
}

async function parked(execution: Execution): Promise<void> {
  await expect
    .poll(async () => (await sql`select owner from flowledger.executions where id = ${execution.id}`)[0]?.["owner"])
    .toBeNull();
}

/** It has ended as it was asked to, and nothing of its family waits or is left over. */
async function expectClosed(execution: Execution): Promise<void> {
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "closed", closeReason: "enough" });
  const familyOf = () => sql<{ id: string; open: boolean; pending: number }[]>`
    with recursive family as (
      select e.* from flowledger.executions e where e.id = ${execution.id}
      union all select c.* from family f join flowledger.executions c on c.parent_id = f.id)
    select id, closed_at is null as open, pending_interrupts as pending from family`;
  // Those below a sub-flow hear of its end from it.
  await expect.poll(async () => (await familyOf()).filter(({ open, pending }) => open || pending > 0)).toEqual([]);
  const family = await familyOf();
  for (const { id } of family) await expectGuarantees(sql, id);
}

const flowsThatAsk = Object.entries(doors).flatMap(([door, close]) =>
  (["asks", "parent", "grandparent"] as const).map((flow) => ({ door, flow, close })),
);

test.each(flowsThatAsk)(
  "$flow closes where a pause waits and it has long been parked, by $door",
  async ({ flow, close }) => {
    expect.hasAssertions();
    const execution = await start(flow);
    gateOf(`run ${runs}`).open();
    await untilPending(execution);
    await parked(execution);

    await close(execution);

    await expectClosed(execution);
  },
);

test.each(flowsThatAsk)(
  "$flow closes where the pause comes only while it drains, by $door",
  async ({ flow, close }) => {
    expect.hasAssertions();
    const execution = await start(flow);
    const gate = gateOf(`run ${runs}`);
    const closing = close(execution);
    await untilEvent(execution, "execution.sealed");

    gate.open();

    await closing;
    await expectClosed(execution);
  },
);

test("pauses before the close and behind it are cancelled both", async () => {
  const execution = await start("beside");
  await untilPending(execution);
  const closing = doors.library(execution);
  await untilEvent(execution, "execution.sealed");

  gateOf(`run ${runs}`).open();

  await closing;
  const cancelled = await execution.history({ types: ["interrupt.cancelled"] });
  expect(cancelled).toMatchObject([{ id: "first" }, { id: "second" }]);
  await expectClosed(execution);
});

test("what a chunk has called keeps its questions: a close waits for it, and cancels only what shows on its execution", async () => {
  const execution = await start("calling");
  gateOf(`run ${runs}`).open();
  await untilPending(execution);
  const { child } = await untilEvent(execution, "child.started");
  const called = await untilThere(orchestrator, String(child));
  await untilPending(called);

  const closing = doors.library(execution);
  await untilEvent(execution, "execution.sealed");
  await called.continueWith("ask", 1);

  await closing;
  expect(await called.result.getMeta()).toMatchObject({ status: "completed" });
  await expectClosed(execution);
});

test("what asks below a close and is cancelled for it says who asked for the close", async () => {
  const execution = await start("parent");
  const closing = execution.close({ pendingInterrupts: "cancel", actor: "ann" });
  await untilEvent(execution, "execution.sealed");
  const { child } = await untilEvent(execution, "child.started");

  gateOf(`run ${runs}`).open();

  await closing;
  const below = await orchestrator.getExecution(String(child));
  expect(await below.history({ types: ["cancel.requested"] })).toMatchObject([{ actor: "ann" }]);
});

test("a close that cancels what waits below says there, too, who asked for it", async () => {
  const execution = await start("parent");
  gateOf(`run ${runs}`).open();
  await untilPending(execution);
  const { child } = await untilEvent(execution, "child.started");

  await execution.close({ pendingInterrupts: "cancel", actor: "ann" });

  const below = await orchestrator.getExecution(String(child));
  expect(await execution.history({ types: ["child.cancelled"] })).toMatchObject([{ actor: "ann" }]);
  expect(await below.history({ types: ["cancel.requested"] })).toMatchObject([{ actor: "ann" }]);
});

test("who is refused is told what waits, the oldest first", async () => {
  const execution = await start("beside");
  await untilEvent(execution, "interrupt.raised");
  gateOf(`run ${runs}`).open();
  await expect.poll(() => execution.getPendingInterrupts()).toHaveLength(2);

  expect(await refusal(execution.close())).toMatchObject({ details: { interruptIds: ["first", "second"] } });
  expect(await refusal(execution.continueWith("none", 1, { onlyIfPending: true }))).toMatchObject({
    details: { pending: ["first", "second"] },
  });

  await doors.library(execution);
});

test("a pause that comes at any moment of the drain is in nobody's way: 200 times", async () => {
  const executions = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const key = `race ${index}`;
      const flow = (["asks", "parent"] as const)[index % 2] ?? "asks";
      const execution = await orchestrator.flow(flow).startExecution(key, { autoCloseTimeout: 0 });
      return { execution, gate: gateOf(key) };
    }),
  );
  for (const { execution } of executions.filter((_, index) => index % 2 === 0))
    await untilEvent(execution, "inbox.routed");

  const closing = executions.map(({ execution, gate }, index) => {
    // Before, with and after the command, by turns.
    if (index % 3 === 0) gate.open();
    const closed = doors.library(execution).then(nothing, (error: unknown) => error);
    if (index % 3 === 1) gate.open();
    if (index % 3 === 2) setTimeout(() => gate.open(), index % 20);
    return closed;
  });

  expect((await Promise.all(closing)).filter((error) => error !== null)).toEqual([]);
  for (const { execution } of executions)
    expect(await execution.result.getMeta()).toMatchObject({ closeReason: "enough" });
  expect(await orchestrator.verify()).toEqual([]);
}, 60_000);

test("a close waits out a pause that comes and goes while other work runs", async () => {
  const execution = await start("working");
  const key = `run ${runs}`;
  const closing = execution.close({ reason: "enough" }).catch(String);
  await untilEvent(execution, "execution.sealed");
  gateOf(`${key} asks`).open();
  await untilEvent(execution, "interrupt.raised");

  await execution.withdraw("ask");
  gateOf(key).open();

  expect(await closing).toEqual({});
  await expectClosed(execution);
});

test("a close that rejects says which pause came while it drained, and one that cancels behind it closes", async () => {
  const execution = await start("asks");
  const closing = refusal(execution.close());
  await untilEvent(execution, "execution.sealed");
  gateOf(`run ${runs}`).open();
  expect(await closing).toMatchObject({ code: "INTERRUPTS_PENDING", details: { interruptIds: ["ask"] } });

  await execution.close({ pendingInterrupts: "cancel" });

  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "closed" });
});

interface End {
  readonly flow?: keyof typeof all;
  readonly options?: { readonly timeout?: string };
  /** Its chunk never ends. */
  readonly hangs?: true;
  /** What leads to it, before the last commit. */
  readonly ask?: (execution: Execution) => Promise<unknown>;
}
const ends: Readonly<Record<string, End>> = {
  completed: {},
  failed: {},
  cancelled: { ask: (execution) => execution.cancel("enough") },
  "timed out": { options: { timeout: "200ms" }, hangs: true },
  "cleaned up": {
    flow: "cleaning",
    ask: async (execution) => {
      await execution.cancel("enough");
      await untilEvent(execution, "cleanup.planned");
    },
  },
};
const comings: Readonly<Record<string, string>> = {
  "a correction": "flowledger.intervene(e.id, '1')",
  "a mark of one":
    "flowledger.mark_intervention_consumed(e.id, (select v.id from flowledger.interventions v where v.execution_id = e.id), 'late')",
  "an event": "flowledger.emit(e.id, 'Late', '1')",
  "an edit": 'flowledger.edit_state(e.id, \'{"set": {"late": 1}}\', \'{"actor": "ann", "reason": "late"}\')',
};
const waitersOf = async () =>
  (await sql`select from pg_locks l where not l.granted and l.locktype in ('transactionid', 'tuple')`).length;

test.each(Object.keys(ends).flatMap((end) => Object.keys(comings).map((coming) => [end, coming] as const)))(
  "what comes in beside the last commit is in the close snapshot: %s, %s",
  async (end, coming) => {
    const { flow = "ending", options, hangs = false, ask } = present(ends[end]);
    const execution = await orchestrator
      .flow(flow)
      .startExecution(end, { autoCloseTimeout: 0, interventionMode: "auto", ...options });
    await untilEvent(execution, "execution.claimed");
    if (coming === "a mark of one") {
      const { id } = await execution.intervene("early");
      await execution.markInterventionConsumed(id, { consumer: "early" });
    }
    await ask?.(execution);
    const other = await sql.reserve();
    await other`begin`;
    await other.unsafe(`select ${comings[coming]} from flowledger.executions e where e.id = '${execution.id}'`);

    if (!hangs) gateOf(execution.id).open();
    // The commit that closes waits for the row.
    await expect.poll(waitersOf, { interval: 5 }).toBeGreaterThan(0);
    await other`commit`;
    other.release();

    await Promise.allSettled([execution.waitForClose()]);
    expect(await orchestrator.verify({ id: execution.id })).toEqual([]);
    await expectGuarantees(sql, execution.id);
  },
);

test("who may close and may not read what is parked or asks hears that the drain took too long", async () => {
  const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
  const hostWith = (error: Error) => {
    const refused = () => Promise.reject(error);
    const store = {
      commands: { close: async () => {} },
      wakeups: { notifyOwner: () => {} },
      operators: { parked: refused },
      reads: { pendingInterrupts: refused },
    };
    // Of a host only what a close asks.
    return { store, outcomes: { closed: async () => null, header: refused } } as unknown as ExecutionHost;
  };

  const unseen = hostWith(new PermissionError("ann", "flowledger", "permission denied"));
  await expect(close(unseen, id, "f", { timeout: 10 })).rejects.toBeInstanceOf(DrainTimeoutError);
  const broken = new TypeError("odd");
  await expect(close(hostWith(broken), id, "f", { timeout: 10 })).rejects.toBe(broken);
});
