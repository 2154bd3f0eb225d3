/** A closed execution goes on as a new one, from where it failed. */
import { expect, test } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow, type Execution } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { runCli } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf } from "../support/doors.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const by = { actor: "ann", reason: "INC-12" };
const atOnce = { autoCloseTimeout: 0 } as const;

async function expectSound({ id }: { readonly id: string }): Promise<void> {
  expect(await verify(sql, { id })).toEqual([]);
  expect(await rebuild(sql, { id })).toEqual([]);
}

test("what failed goes on under a new id: attempts from 1, recorded steps not again, both find each other", async () => {
  const effects: string[] = [];
  let isBroken = true;
  const flow = defineFlow("redrive.plain");
  flow
    .to("one", () => void effects.push("one"))
    .to(
      "two",
      async (ctx) => {
        await ctx.step("charge", () => void effects.push("charge"));
        effects.push(`two ${ctx.attempt}`);
        if (isBroken) throw new Error("down");
        return "done";
      },
      { retry: { maxAttempts: 2, initialInterval: "1ms" } },
    )
    .end();
  await using orchestrator = await serving(database, [flow]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  const before = (await failed.history()).length;
  isBroken = false;

  const next = await failed.redrive(by);

  expect(await next.waitForClose()).toEqual({ $final_result: "done" });
  expect(effects).toEqual(["one", "charge", "two 1", "two 2", "two 1"]);
  expect(await next.history({ types: ["execution.redriven"] })).toMatchObject([{ of: failed.id, ...by }]);
  expect(await next.result.getMeta()).toMatchObject({ forkedFrom: failed.id });
  expect(await failed.redrivenBy()).toEqual([next.id]);
  expect(await failed.history()).toHaveLength(before);
  await expectSound(failed);
  await expectSound(next);
});

test("a key and a priority stay with what failed: they are those of its start", async () => {
  const flow = defineFlow("redrive.keyed").to("fail", () => {
    throw new Error("down");
  });
  await using orchestrator = await serving(database, [flow]);
  const start = () =>
    orchestrator.flow(flow).startExecution(null, { ...atOnce, idempotencyKey: "order-17", priority: 3 });
  const failed = await start();
  await refusal(failed.waitForClose());

  const next = await failed.redrive(by);
  await refusal(next.waitForClose());

  expect((await start()).id).toBe(failed.id);
  const [created] = await next.history();
  expect(created).not.toHaveProperty("idempotencyKey");
  expect(created).not.toHaveProperty("priority");
  await expectSound(next);
});

test.each(["seal", "close"] as const)(
  "what failed behind %s() goes on and closes, also with another input, output or state",
  async (how) => {
    let isBroken = true;
    const sealed = newGate();
    const flow = defineFlow(`redrive.${how}`);
    flow
      .to("one", async (ctx) => {
        await sealed.passed;
        if (isBroken) throw new Error("down");
        return [ctx.input, ctx.getState("given")];
      })
      .end();
    await using orchestrator = await serving(database, [flow]);
    const failed = await orchestrator.flow(flow).startExecution(0, { autoCloseTimeout: 50 });
    const asked = failed[how]();
    await untilEvent(failed, "execution.sealed");
    sealed.open();
    await Promise.allSettled([asked, failed.waitForClose()]);
    isBroken = false;

    const copies = [
      await failed.redrive(by),
      await failed.redrive({ ...by, state: { given: "state" } }),
      await failed.redrive({ ...by, output: "output" }),
      await failed.redrive({ ...by, from: { chunk: "one" }, input: 1 }),
    ];

    const ends = await Promise.all(copies.map((copy) => copy.waitForClose()));
    expect(ends.map((end) => end["$final_result"])).toEqual([[0, null], [0, "state"], "output", [1, null]]);
    for (const copy of copies) await expectSound(copy);
  },
);

test("through two levels of sub-flows: what completed is kept, what failed is redriven below its new parent", async () => {
  const effects: string[] = [];
  let isBroken = true;
  const leaf = defineFlow("redrive.leaf");
  leaf
    .to("first", () => void effects.push("leaf first"))
    .to("last", () => {
      if (isBroken) throw new Error("down");
      effects.push("leaf last");
      return "leaf";
    })
    .end();
  const fine = defineFlow("redrive.fine");
  fine
    .to("work", () => {
      effects.push("fine");
      return "fine";
    })
    .end();
  const middle = defineFlow("redrive.middle");
  middle
    .to("both", async (ctx) => {
      const kept = await ctx.call(fine, null);
      return [kept, await ctx.call(leaf, null)];
    })
    .end();
  const top = defineFlow("redrive.top");
  top.to("call", (ctx) => ctx.call(middle, null)).end();
  await using orchestrator = await serving(database, [leaf, fine, middle, top]);
  const failed = await orchestrator.flow(top).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  isBroken = false;
  const below = await sql<{ id: string }[]>`select id from flowledger.executions where parent_id = ${failed.id}`;

  const next = await failed.redrive(by);

  expect(await next.waitForClose()).toEqual({ $final_result: ["fine", "leaf"] });
  expect(effects).toEqual(["fine", "leaf first", "leaf last"]);
  await expectSound(next);
  for (const { id } of await sql<{ id: string }[]>`select id from flowledger.executions`) await expectSound({ id });
  const [child] = below;
  const alone = await orchestrator.getExecution(child?.id ?? "");
  expect(await refusal(alone.redrive(by))).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringContaining(failed.id),
  });
});

test("the end of a child that is redriven is left out, and what came in behind it still finds its event", async () => {
  let isBroken = true;
  const child = defineFlow("redrive.child");
  child
    .to("work", () => {
      if (isBroken) throw new Error("down");
      return "child";
    })
    .end();
  const flow = defineFlow("redrive.events");
  flow
    .to("call", (ctx) => ctx.call(child, null), {
      retry: { maxAttempts: 2, initialInterval: "1s", jitter: false },
    })
    .end();
  flow.when("Said").to("hear", (ctx) => ctx.appendState("heard", ctx.input));
  await using orchestrator = await serving(database, [flow, child]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(failed, "child.closed");
  await failed.emit("Said", 1);
  await failed.emit("Said", 2);
  await refusal(failed.waitForClose());
  isBroken = false;

  const next = await failed.redrive(by);
  const copied = await next.history();

  const [of] = (await failed.history({ types: ["child.closed"] })).map((event) => "child" in event && event.child);
  expect(copied.filter((event) => "child" in event && event.child === of)).toEqual([]);
  const routed = copied.flatMap((event) => (event.type === "inbox.routed" ? [copied[event.of - 1]?.type] : []));
  expect(routed).toEqual(["execution.started", "event.emitted", "event.emitted"]);
  expect(await next.waitForClose()).toMatchObject({ heard: [1, 2] });
  await expectSound(next);
});

test("input, output, state, a chunk, a seq, and what was cancelled", async () => {
  const flow = defineFlow("redrive.options", { state: z.object({ n: z.number().optional() }) });
  flow
    .to("pick", () => "bad")
    .to(
      "use",
      (ctx) => {
        if (ctx.input === "bad") throw new Error("bad");
        return `${ctx.input} ${ctx.getState("n") ?? ""}`;
      },
      { input: z.string(), output: z.string() },
    )
    .end();
  const asking = defineFlow("redrive.asking");
  asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).end();
  await using orchestrator = await serving(database, [flow, asking]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  const result = async (next: Pick<Execution, "id"> & { waitForClose(): Promise<unknown> }) => {
    const closed = await next.waitForClose().catch((error: unknown) => String(error));
    await expectSound(next);
    return closed;
  };

  expect(await result(await failed.redrive({ ...by, input: "good", state: { n: 7 } }))).toEqual({
    n: 7,
    $final_result: "good 7",
  });
  expect(await result(await failed.redrive({ ...by, output: "by hand" }))).toEqual({ $final_result: "by hand" });
  expect(await result(await failed.redrive({ ...by, from: { chunk: "pick" } }))).toMatch(/bad/);
  expect(await result(await failed.redrive({ ...by, from: 2 }))).toMatch(/bad/);
  const cancelled = await orchestrator.flow(asking).startExecution(null, atOnce);
  await untilEvent(cancelled, "interrupt.raised");
  await cancelled.cancel("mistake");
  await refusal(cancelled.waitForClose());
  const again = await cancelled.redrive(by);
  await again.continueWith("q", "yes");
  expect(await result(again)).toEqual({ $final_result: "yes" });
});

test("a stream that was stopped before the failure is stopped in the new one as well", async () => {
  let isBroken = true;
  const flow = defineFlow("redrive.stream");
  flow
    .to("stop", (ctx) => ctx.stopStream())
    .to("fail", (ctx) => {
      if (isBroken) throw new Error(`down in attempt ${ctx.attempt}`);
    });
  await using orchestrator = await serving(database, [flow]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  isBroken = false;

  const next = await failed.redrive(by);
  await next.waitForClose();

  expect(await sql`select stream_ended from flowledger.executions where id = ${next.id}`).toEqual([
    { stream_ended: true },
  ]);
  await expectSound(next);
});

test("what cannot be redriven is refused, says why, and nothing is written; the shell does the same", async () => {
  const flow = defineFlow("redrive.refused");
  let isBroken = true;
  flow
    .to("work", () => {
      if (isBroken) throw new Error("down");
    })
    .end();
  await using orchestrator = await serving(database, [flow]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  const open = await orchestrator.flow(flow).createExecution({ autoClose: false });
  const counted = async () => (await sql`select count(*) as n from flowledger.ledger`)[0]?.["n"];
  const before = await counted();

  for (const [ask, message] of [
    [() => failed.redrive({ ...by, reason: " " }), /reason/],
    [() => failed.redrive({ ...by, from: { chunk: "wrok" } }), /no chunk "wrok"/],
    [() => failed.redrive({ ...by, from: 1000 }), /has ended by event 1000/],
    [() => failed.redrive({ ...by, from: 1.5 }), /1\.5/],
    [() => failed.redrive({ ...by, input: 1, output: 2 }), /both/],
    [() => failed.redrive({ ...by, from: 2, input: 1 }), /nothing takes an input/],
    [() => open.redrive(by), /is open/],
  ] as const) {
    expect(await refusal(ask())).toMatchObject({ code: "USAGE_INVALID", message: expect.stringMatching(message) });
  }
  expect(await counted()).toEqual(before);
  await open.cancel();

  isBroken = false;
  const run = await runCli(database.url, "redrive", failed.id, "--reason", "INC-12");
  expect(run).toMatchObject({ code: 0, stdout: expect.stringContaining("redriven") });
  const [next] = await failed.redrivenBy();
  const handle = await orchestrator.getExecution(next ?? "");
  expect(await handle.waitForClose()).toEqual({ $final_result: null });
  expect(await refusal(handle.redrive(by))).toMatchObject({ message: expect.stringContaining("has completed") });
});

test("an output or a state that breaks the contract is refused at every door, and nothing is written", async () => {
  const flow = defineFlow("redrive.contract", { state: z.object({ note: z.string() }).partial() });
  flow.to(
    "work",
    (): number => {
      throw new Error("down");
    },
    { output: z.number() },
  );
  await using orchestrator = await serving(database, [flow]);
  await using stranger = createOrchestrator({ connection: database.url });
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  const before = await sql`select count(*) from flowledger.ledger`;

  const unknowing = await stranger.getExecution(failed.id);
  for (const wrong of [{ output: "text" }, { state: { note: 7 } }, { state: { other: 1 } }]) {
    expect(await codeOf(failed.redrive({ ...by, ...wrong }))).toBe("CONTRACT_VIOLATED");
    expect(await codeOf(unknowing.redrive({ ...by, ...wrong }))).toBe("CONTRACT_VIOLATED");
    const bySql = sql`select flowledger.redrive(${failed.id}, ${sql.json({ ...by, ...wrong })})`;
    expect(await codeOf(bySql)).toBe("CONTRACT_VIOLATED");
  }
  expect(await sql`select count(*) from flowledger.ledger`).toEqual(before);
});
