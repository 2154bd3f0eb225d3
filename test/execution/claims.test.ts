/** Who has a question: claimed, released, delegated and put off, by the library and by SQL, each with who did it. */
import { describe, expect, test } from "vitest";
import { ClaimedError, defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { runCli } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, untilPending } from "../support/doors.ts";
import { refusal, serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

type What = "claim" | "release" | "delegate" | "snooze";
type Record = { id: string; claimedBy?: string | null; assignees?: string[] | null };

const doors = [
  {
    name: "library",
    does: (execution: Execution, what: What, id: string, options: object): Promise<Record> =>
      Reflect.apply(Reflect.get(execution, what), execution, [id, options]),
  },
  {
    name: "sql",
    async does({ id }: Execution, what: What, interrupt: string, options: object): Promise<Record> {
      const [row] = await sql<[{ record: Record }]>`
        select ${sql(`flowledger.${what}_interrupt`)}(${id}, ${interrupt}, ${JSON.stringify(options)}::text::jsonb) as record`;
      return row.record;
    },
  },
];

const flow = defineFlow("claims");
flow
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", assign: ["group:finance"], due: "2d" }))
  .to("after", (ctx) => ctx.setState("got", ctx.input));

async function asked(orchestrator: Awaited<ReturnType<typeof serving>>): Promise<Execution> {
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution, 1);
  return execution;
}

describe.each(doors)("by $name", ({ does }) => {
  test("a claim shows who has it, and another's is refused with who and since when", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await asked(orchestrator);

    const claimed = await does(execution, "claim", "boss", { actor: "ann" });
    await does(execution, "claim", "boss", { actor: "ann" });
    const refused = [];
    for (const [what, options] of [
      ["claim", {}],
      ["release", {}],
      ["delegate", { to: "user:bo" }],
      ["snooze", { until: "2100-01-01T00:00:00Z" }],
    ] as const)
      refused.push(String(await refusal(does(execution, what, "boss", { ...options, actor: "bo" }))));
    const [record] = await execution.getPendingInterrupts();

    expect(claimed).toMatchObject({ id: "boss", claimedBy: "ann" });
    const since = record?.claimedAt?.toISOString();
    for (const error of refused) expect(error).toMatch(new RegExp(`claimed by "?ann"? since ${since}`));
    expect(await execution.history({ types: ["interrupt.claimed"] })).toMatchObject([{ actor: "ann", id: "boss" }]);
    const explained = await execution.explain();
    expect(explained.sentence).toContain(`from group:finance since`);
    expect(explained.sentence).toContain(`due ${record?.dueAt?.toISOString()}, claimed by "ann" since ${since}`);
    expect((await execution.timeline()).rows.find(({ kind }) => kind === "wait")).toMatchObject({
      assignees: ["group:finance"],
      dueAt: record?.dueAt,
      claimedBy: "ann",
    });
    // A claim is advice: another may answer.
    await execution.continueWith("boss", 1, { actor: "bo" });
    expect(await execution.waitForClose()).toEqual({ got: 1 });
    expect(await codeOf(does(execution, "claim", "boss", { actor: "ann" }))).toBe("EXECUTION_CLOSED");
    await expectGuarantees(sql, execution.id);
  });

  test("an exclusive claim leaves the answer to who has it", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await asked(orchestrator);
    await does(execution, "claim", "boss", { actor: "ann" });
    // Again by the same changes that.
    await does(execution, "claim", "boss", { actor: "ann", exclusive: true });

    const other = await refusal(execution.continueWith("boss", 1, { actor: "bo" }));
    const nobody = await refusal(execution.continueWith("boss", 1));
    const bySql = await refusal(sql`select flowledger.continue_with(${execution.id}, 'boss', '1', actor => 'bo')`);
    await execution.continueWith("boss", 2, { actor: "ann" });

    expect(other).toBeInstanceOf(ClaimedError);
    expect(other).toMatchObject({ details: { claimedBy: "ann", interruptId: "boss" } });
    expect([String(nobody), String(bySql)]).toEqual([
      expect.stringContaining("claimed by"),
      expect.stringContaining("claimed by ann"),
    ]);
    expect(await execution.waitForClose()).toEqual({ got: 2 });
    await expectGuarantees(sql, execution.id);
  });

  test("what is released, delegated or put off is in the inbox of whom it asks then", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await asked(orchestrator);
    const of = async (principal: string, more: object = {}) => {
      const { interrupts } = await orchestrator.inbox({ for: [principal], ...more });
      return interrupts.filter(({ executionId }) => executionId === execution.id).map(({ claimedBy }) => claimedBy);
    };
    await does(execution, "claim", "boss", { actor: "ann" });
    expect(await of("group:finance")).toEqual(["ann"]);

    await does(execution, "release", "boss", { actor: "ann" });
    expect(await of("group:finance")).toEqual([null]);
    expect(String(await refusal(does(execution, "release", "boss", { actor: "ann" })))).toContain("is not claimed");
    await does(execution, "claim", "boss", { actor: "ann" });
    const given = await does(execution, "delegate", "boss", { actor: "ann", to: "user:bo", reason: "on holiday" });
    expect(given).toMatchObject({ assignees: ["user:bo"] });
    expect([await of("group:finance"), await of("user:bo")]).toEqual([[], [null]]);
    await does(execution, "snooze", "boss", { actor: "bo", until: "2100-01-01T00:00:00Z" });
    expect([await of("user:bo"), await of("user:bo", { snoozed: true })]).toEqual([[], [null]]);
    // Whom it is given to next begins with it anew.
    const next = await does(execution, "delegate", "boss", { actor: "bo", to: "user:cy" });
    expect(next).toMatchObject({ assignees: ["user:cy"] });
    expect([await of("user:bo", { snoozed: true }), await of("user:cy")]).toEqual([[], [null]]);
    expect(
      await sql`select actor, type, payload - 'id' as what from flowledger.audit_ledger
        where execution_id = ${execution.id} and type in ('interrupt.delegated', 'interrupt.snoozed', 'interrupt.released') order by seq`,
    ).toMatchObject([
      { actor: "ann", type: "interrupt.released" },
      { actor: "ann", type: "interrupt.delegated", what: { assign: ["user:bo"], reason: "on holiday" } },
      { actor: "bo", type: "interrupt.snoozed" },
      { actor: "bo", type: "interrupt.delegated", what: { assign: ["user:cy"] } },
    ]);
    await expectGuarantees(sql, execution.id);
  });

  test("what is unknown, answered, without an actor or past is refused, and nothing is written", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await asked(orchestrator);
    const codes = [];
    for (const [what, id, options] of [
      ["claim", "none", { actor: "ann" }],
      ["claim", "", { actor: "ann" }],
      ["claim", "boss", {}],
      ["claim", "boss", { actor: "" }],
      ["claim", "boss", { actor: "ann", exclusive: 1 }],
      ["delegate", "boss", { actor: "ann" }],
      ["delegate", "boss", { actor: "ann", to: "x".repeat(101) }],
      ["snooze", "boss", { actor: "ann", until: "2020-01-01T00:00:00Z" }],
      ["snooze", "boss", { actor: "ann" }],
      ["release", "boss", { actor: "ann", force: true }],
    ] as const)
      codes.push(await codeOf(does(execution, what, id, options)));
    await execution.continueWith("boss", 1);
    codes.push(await codeOf(does(execution, "claim", "boss", { actor: "ann" })));

    expect(codes.slice(0, 2)).toEqual(["INTERRUPT_NOT_PENDING", "INTERRUPT_NOT_PENDING"]);
    expect(codes.slice(2, -1)).toEqual(Array(8).fill("USAGE_INVALID"));
    expect(["INTERRUPT_NOT_PENDING", "EXECUTION_CLOSED"]).toContain(codes.at(-1));
    const types = (await execution.history()).map(({ type }) => type);
    expect(types.filter((type) => /^interrupt\.(claimed|released|delegated|snoozed)/.test(type))).toEqual([]);
  });

  test("a sub-flow's question is claimed by the id that its parent shows", async () => {
    const child = defineFlow("claims.child");
    child.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
    const parent = defineFlow("claims.parent");
    parent.to("begin", () => 1).toSubFlow(child);
    await using orchestrator = await serving(database, [parent]);
    const execution = await orchestrator.flow(parent).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution, 1);
    const [question] = await execution.getPendingInterrupts();

    const record = await does(execution, "claim", question?.id ?? "", { actor: "ann" });

    expect(record).toMatchObject({ id: question?.id, claimedBy: "ann" });
    expect(await execution.getPendingInterrupts()).toMatchObject([{ claimedBy: "ann" }]);
    await execution.continueWith(question?.id ?? "", 1);
    await execution.waitForClose();
  });
});

test("at a terminal questions are found, claimed, given on and put off", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await asked(orchestrator);
  const run = (...args: string[]) => runCli(database.url, ...args);

  const claimed = await run("claim", execution.id, "boss", "--actor", "ann");
  const [listed, refused, shown] = await Promise.all([
    run("inbox", "--for", "group:finance", "--flow", flow.name, "--json"),
    run("claim", execution.id, "boss", "--actor", "bo"),
    run("show", execution.id),
  ]);
  const given = await run("delegate", execution.id, "boss", "--actor", "ann", "--to", "user:zoe");
  const put = await run("snooze", execution.id, "boss", "--actor", "zoe", "--until", "2100-01-01T00:00:00Z");
  const empty = await run("inbox", "--for", "user:zoe", "--json");
  const released = await run("release", execution.id, "boss", "--actor", "zoe");

  expect(claimed).toMatchObject({ code: 0, stdout: 'claimed "boss" as ann\n' });
  expect(JSON.parse(listed.stdout)).toMatchObject({
    interrupts: expect.arrayContaining([expect.objectContaining({ executionId: execution.id, claimedBy: "ann" })]),
  });
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('is claimed by "ann" since') });
  expect(shown.stdout).toMatch(/for {6}group:finance\ndue /);
  expect(given).toMatchObject({ code: 0, stdout: '"boss" asks user:zoe\n' });
  expect(put).toMatchObject({ code: 0 });
  expect(JSON.parse(empty.stdout)).toMatchObject({ interrupts: [] });
  expect(released).toMatchObject({ code: 2, stderr: expect.stringContaining("is not claimed") });
}, 120_000);
