/** The queries of docs/audit.md, on executions that really ran, with the answers they should give. */
import { readFile } from "node:fs/promises";
import { beforeAll, expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { present, untilPending } from "../support/doors.ts";
import { serving } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const someone = "01890000-0000-7000-8000-000000000000";
let approved: Execution;
let failed: Execution;
let copy: Execution;

const flow = defineFlow("refund");
flow
  .to(
    "score",
    async (ctx) => {
      await ctx.setState("score", 40);
      // An attempt that fails leaves what it had committed, and nothing else.
      await ctx.flush();
      if (ctx.attempt === 1) throw new Error("no price yet");
      if (ctx.input === "broken") throw new Error("no such ticket");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  )
  .to("ask", (ctx) => ctx.pauseFor({ type: "approval", interruptId: "q", payload: { q: "Refund?" } }))
  .to("decide", async (ctx) => {
    await ctx.setState("decision", "approved");
    for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id, { note: "used" });
  });

beforeAll(async () => {
  await using orchestrator = await serving(database, [flow]);
  const start = (input: string) =>
    orchestrator.flow(flow).startExecution(input, {
      metadata: { priceTable: "2024" },
      interventionMode: "auto",
      autoCloseTimeout: 0,
    });
  approved = await start("T-1");
  failed = await start("broken");
  await untilPending(approved);
  copy = await orchestrator.getExecution((await approved.fork({ at: (await approved.history()).length })).id);
  await approved.claim("q", { actor: "bo" });
  await approved.delegate("q", { to: "user:ann", actor: "bo", reason: "on holiday" });
  await approved.intervene("use the new price", { author: "ann" });
  await approved.continueWith("q", { approved: true }, { actor: "ann", resumeRequestId: "mail-7" });
  await approved.waitForClose();
  await failed.waitForClose().catch(() => {});
});

/** What each question answers here, by its first words. */
const answers: Record<string, (rows: readonly Record<string, unknown>[]) => void> = {
  "Who approved": (rows) =>
    expect(rows).toMatchObject([
      {
        actor: "ann",
        question: { q: "Refund?" },
        answer: { approved: true },
        request_id: "mail-7",
        execution_id: approved.id,
      },
    ]),
  "What waits": (rows) => expect(rows).toMatchObject([{ flow: "refund", id: "q", execution_id: copy.id }]),
  "Who took": (rows) =>
    expect(rows).toMatchObject([
      { execution_id: approved.id, what: "delegated", actor: "bo", now_asks: ["user:ann"], reason: "on holiday" },
      { execution_id: approved.id, what: "claimed", actor: "bo" },
    ]),
  "How long": (rows) => expect(rows).toMatchObject([{ type: "approval", pauses: "2", answered: "1" }]),
  "Which questions": (rows) => expect(rows).toEqual([]),
  "Which corrections": (rows) =>
    expect(rows).toMatchObject([
      {
        author: "ann",
        payload: "use the new price",
        status: "inserted",
        inserted_at_step: "decide",
        consumer: "decide",
        verdict: "applied",
        note: "used",
      },
    ]),
  "What did one": (rows) =>
    expect(rows.map(({ type }) => type)).toEqual(["interrupt.resumed", "intervention.recorded"]),
  "Everything that": (rows) => expect(rows[0]).toMatchObject({ seq: 1, type: "execution.created" }),
  "What did the state": (rows) =>
    expect(rows).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          execution_id: failed.id,
          error: "no such ticket",
          chunk: "score",
          state_before: { score: 40 },
        }),
      ]),
    ),
  "Who wrote": (rows) =>
    expect(rows).toMatchObject([{ execution_id: approved.id, chunk: "decide", value: "approved" }]),
  "Which executions ran": (rows) => expect(rows).toHaveLength(3),
  "Which executions have": (rows) => expect(rows).toMatchObject([{ execution_id: approved.id }]),
  "Which chunks": (rows) => expect(rows).toMatchObject([{ chunk: "score", retries: "3", failures: "1" }]),
  "Which executions were": (rows) => expect(rows.every(({ takeovers }) => Number(takeovers) > 0)).toBe(true),
  "How did": (rows) => expect(rows.map(({ status }) => String(status)).toSorted()).toEqual(["completed", "failed"]),
  "Was a ledger": (rows) => expect(rows).toEqual([]),
  "Where was": (rows) =>
    expect(rows.map(({ execution_id: id }) => String(id)).toSorted()).toEqual([approved.id, copy.id].toSorted()),
};

const text = await readFile(new URL("../../docs/audit.md", import.meta.url), "utf8");
const questions = [...text.matchAll(/^(?!\||#)([^\n]+)\n(?:\n|\|[^\n]*\n)+```sql\n(.*?)^```/gms)].map(
  ([, question = "", query = ""]) => ({ question, query }),
);

test("every query has its question, and every question its answer here", () => {
  expect(questions).toHaveLength(text.match(/^```sql$/gm)?.length ?? 0);
  expect(questions.length).toBeGreaterThanOrEqual(12);
  const unanswered = questions.filter(
    ({ question }) => Object.keys(answers).filter((start) => question.startsWith(start)).length !== 1,
  );
  expect(unanswered).toEqual([]);
});

test.each(questions)("$question", async ({ question, query }) => {
  expect.hasAssertions();
  const asked = query.replaceAll(someone, approved.id);

  const rows = await sql.unsafe(asked);

  present(answers[Object.keys(answers).find((start) => question.startsWith(start)) ?? ""])([...rows]);
});
