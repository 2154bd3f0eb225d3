/** The inbox: whom a pause asks and until when, who has it, and what follows while nobody answers. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { parseAsking } from "../../src/engine/ctx/asking.ts";
import { defineFlow } from "../../src/index.ts";
import type { PauseOptions } from "../../src/index.ts";
import { untilPending } from "../support/doors.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

/** Asks with what it was started with. */
function asking(name: string) {
  const flow = defineFlow(name);
  flow.to("ask", (ctx) => ctx.pauseFor(ctx.input as PauseOptions)).to("after", (ctx) => ctx.setState("got", ctx.input));
  return flow;
}

describe("what a pause asks", () => {
  const flow = asking("inbox.asks");

  test("is listed for whom it asks: overdue first, then by due date, then what is never due", async () => {
    await using orchestrator = await serving(database, [flow]);
    const questions = {
      later: { assign: ["group:finance"], due: "3d", title: "Later" },
      never: { assign: ["group:finance", "user:ann"] },
      over: { assign: ["user:ann"], due: 1, type: "approval" },
      nobody: { due: "1d" },
      other: { assign: ["user:bo"], due: "2d" },
    };
    const ids: Record<string, string> = {};
    for (const [interruptId, options] of Object.entries(questions)) {
      const execution = await orchestrator
        .flow(flow)
        .startExecution({ interruptId, ...options }, { metadata: { is: interruptId } });
      await untilPending(execution, 1);
      ids[interruptId] = execution.id;
    }
    const listed = async (options: Parameters<typeof orchestrator.inbox>[0]) =>
      (await orchestrator.inbox(options)).interrupts.map(({ id }) => id);

    expect(await listed({ for: ["user:ann", "group:finance"] })).toEqual(["over", "later", "never"]);
    expect(await listed({})).toEqual(["over", "nobody", "other", "later", "never"]);
    expect(await listed({ overdue: true })).toEqual(["over"]);
    expect(await listed({ for: ["group:finance"], overdue: true })).toEqual([]);
    expect(await listed({ type: "approval", flow: flow.name, metadata: { is: "over" } })).toEqual(["over"]);
    expect(await listed({ metadata: { is: "none" } })).toEqual([]);
    for (const options of [{}, { for: ["user:ann", "group:finance", "user:bo"] }]) {
      const all = await listed(options);
      const paged: string[] = [];
      for (let cursor: string | null = null; paged.length === 0 || cursor !== null;) {
        const page: { interrupts: { id: string }[]; nextCursor: string | null } = await orchestrator.inbox({
          ...options,
          limit: 1,
          ...(cursor !== null && { cursor }),
        });
        paged.push(...page.interrupts.map(({ id }) => id));
        cursor = page.nextCursor;
      }
      expect(paged).toEqual(all);
    }
    const [first] = (await orchestrator.inbox({ for: ["group:finance"] })).interrupts;
    expect(first).toMatchObject({ title: "Later", assignees: ["group:finance"], executionId: ids["later"] });
    expect((first?.dueAt?.getTime() ?? 0) - (first?.createdAt.getTime() ?? 0)).toBe(3 * 86_400_000);
    for (const id of Object.values(ids)) await expectGuarantees(sql, id);
  });

  test("is in its row, in the ledger and in the audit view, and leaves the lists with its answer", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator
      .flow(flow)
      .startExecution(
        { interruptId: "boss", title: "Refund", assign: ["user:cy"], due: "2d" },
        { autoCloseTimeout: 0 },
      );
    await untilPending(execution, 1);

    const [event] = await execution.history({ types: ["interrupt.raised"] });
    expect(event).toMatchObject({ title: "Refund", assign: ["user:cy"], dueInMs: 172_800_000 });
    const view = sql`select title, assignees, due_at - raised_at as term from flowledger.audit_interrupts where execution_id = ${execution.id}`;
    expect(await view).toMatchObject([{ title: "Refund", assignees: ["user:cy"], term: "2 days" }]);
    await execution.continueWith("boss", 1);
    expect(await execution.waitForClose()).toEqual({ got: 1 });
    expect((await orchestrator.inbox({ for: ["user:cy"] })).interrupts).toEqual([]);
    expect(await sql`select from flowledger.assignments where execution_id = ${execution.id}`).toHaveLength(0);
    await expectGuarantees(sql, execution.id);
  });

  test("is rebuilt from the ledger", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator
      .flow(flow)
      .startExecution({ assign: ["user:dy"], due: "2d", interruptId: "q" });
    await untilPending(execution, 1);
    await execution.claim("q", { actor: "dy" });
    await sql`update flowledger.interrupts set claimed_by = 'eve', title = 'x' where execution_id = ${execution.id}`;
    await sql`delete from flowledger.assignments where execution_id = ${execution.id}`;

    const found = await orchestrator.verify({ id: execution.id });
    const differences = await orchestrator.rebuild({ id: execution.id });

    expect(found.length).toBeGreaterThan(0);
    expect(differences.map(({ table, row }) => [table, row])).toEqual([
      ["assignments", "q"],
      ["interrupts", "q"],
    ]);
    expect((await orchestrator.inbox({ for: ["user:dy"] })).interrupts).toMatchObject([{ id: "q", claimedBy: "dy" }]);
    expect(await orchestrator.verify({ id: execution.id })).toEqual([]);
  });

  test("goes along with a fork and a load", async () => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator
      .flow(flow)
      .startExecution({ assign: ["user:ey"], due: "2d", interruptId: "q" });
    await untilPending(execution, 1);
    await execution.delegate("q", { to: "user:fy", actor: "ey" });

    const meta = await execution.result.getMeta();
    const fork = await execution.fork({ at: meta.stateVersion });
    const loaded = await orchestrator.load(await execution.save());

    expect((await orchestrator.inbox({ for: ["user:ey"] })).interrupts).toEqual([]);
    const listed = (await orchestrator.inbox({ for: ["user:fy"] })).interrupts.map(({ executionId }) => executionId);
    expect(listed.toSorted()).toEqual([execution.id, fork.id, loaded.id].toSorted());
    for (const { id } of [execution, fork, loaded]) await expectGuarantees(sql, id);
  });
});

test("whom a pause asks it asks once, and what follows comes in the order of its times", () => {
  const hour = 3_600_000;
  const pausing = { interrupt: "i", response: null, expiresInMs: null, publicUrl: null, isHeard: false, where: "it" };

  const asking = parseAsking(
    {
      assign: ["a", "b", "a"],
      due: "3d",
      remind: ["1h", "2d"],
      escalate: [{ after: "30h", assign: ["c", "c"] }],
    },
    pausing,
  );

  expect(asking).toEqual({
    assign: ["a", "b"],
    dueInMs: 72 * hour,
    plan: [{ inMs: 24 * hour }, { inMs: 30 * hour, assign: ["c"] }, { inMs: 71 * hour }],
  });
});

describe("a pause that cannot be meant fails its chunk, and nothing is asked", () => {
  const response = z.object({ approved: z.boolean() });
  const wrong: Record<string, [PauseOptions<z.ZodType | null>, string]> = {
    "a reminder after it is due": [
      { due: "12h", remind: ["1d"] },
      'reminds "1d" before it is due, and it is due "12h"',
    ],
    "a reminder when it is asked": [{ due: "12h", remind: ["12h"] }, 'reminds "12h" before it is due'],
    "a reminder without a due date": [{ remind: ["1h"] }, "it never is"],
    "an answer that breaks response": [
      { response, escalate: [{ after: "1d", answer: { approved: "yes" } }] },
      "is not what the pause asks for",
    ],
    "an escalation to nobody": [{ escalate: [{ after: "1d", assign: [] }] }, "has 0 names"],
    "an escalation that does nothing": [{ escalate: [{ after: "1d" } as never] }, "neither assign nor answer"],
    "one after the default answer": [
      {
        escalate: [
          { after: "1d", answer: 1 },
          { after: "2d", assign: ["a"] },
        ],
      },
      "an escalation after its default answer",
    ],
    "one after it has expired": [{ expiresIn: "1d", escalate: [{ after: "2d", answer: 1 }] }, "has expired"],
    "due after it has expired": [{ expiresIn: "1d", due: "2d" }, "has expired"],
    "due when it expires": [{ expiresIn: "1d", due: "1d" }, "has expired"],
    "no time": [{ due: 0 }, "must be longer than 0"],
    nobody: [{ assign: [] }, "has 0 names"],
    "too many": [{ assign: Array.from({ length: 101 }, (_, index) => `a${index}`) }, "has 101 names"],
    "a title that is none": [{ title: "" }, "must be a text of 1 to 500 characters"],
    "a link that leads nowhere": [{ link: true }, "needs the publicUrl"],
  };

  test.each(Object.entries(wrong))("%s", async (name, [options, words]) => {
    const flow = defineFlow(`wrong.${name.replaceAll(/\W/g, "-")}`);
    flow.to("ask", (ctx) => ctx.pauseFor(options));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null);

    const error = await refusal(execution.waitForClose());

    expect(error).toMatchObject({ cause: { name: "UsageError" } });
    expect(String(error)).toContain(words);
    expect(await execution.history({ types: ["interrupt.raised"] })).toEqual([]);
  });
});
