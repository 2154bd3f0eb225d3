/** F1: one trace from a service, a worker that is killed, and the one after it, as an OTLP receiver gets it. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";
import { testDatabase } from "../support/database.ts";
import { openReceiver } from "../support/otlp.ts";
import { startProcess } from "../support/processes.ts";
import { expectGuarantees, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
const Started = z.object({ id: z.string(), traceId: z.string(), spanId: z.string() });

test("F1: three processes make one trace of an execution: no span twice, none missing but the killed attempt's, links where one thing followed another", async () => {
  await using receiver = await openReceiver();
  const start = (name: string) =>
    startProcess(join(import.meta.dirname, "traced-process.ts"), {
      env: { CRASH_URL: database.url, OTLP_URL: receiver.url, TRACED_NAME: name },
    });
  await using caller = await start("caller");
  await using doomed = await start("doomed");
  const response = await fetch(`http://127.0.0.1:${caller.readyLine.split(" ")[1]}/`, { method: "POST" });
  const started = Started.parse(await response.json());
  await doomed.untilLine(/^holding/);
  for (const name of ["queue traced-refund", "step look up", "SELECT orders"])
    await receiver.until((span) => span.name === name && span.from === "doomed");

  await using _heir = await start("heir");
  doomed.kill("SIGKILL");
  const pending = await until(
    async () =>
      (await sql`select from flowledger.interrupts where execution_id = ${started.id} and status = 'pending'`)[0],
    20_000,
  );
  expect(pending).not.toBeNull();
  const answeredBy = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  await sql`select flowledger.continue_with(${started.id}, 'boss', '"yes"', ${sql.json({ actor: "ann", traceparent: answeredBy })})`;
  const header = await untilClosed(sql, started.id);
  await receiver.until((span) => span.name === "chunk traced-refund/pay");
  await receiver.until((span) => span.name === "wait traced-refund/ask");
  await receiver.until((span) => span.name === "chunk traced-child/lend");
  await receiver.until(
    (span) => span.name === "chunk traced-refund/borrow" && span.attributes["flowledger.outcome"] === "completed",
  );

  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { paid: "yes" } });
  expect(receiver.refused).toEqual([]);
  const commits = "flowledger_commit_duration_seconds";
  await expect.poll(() => receiver.metrics.get("heir")?.has(commits), { timeout: 20_000 }).toBe(true);
  const ids = receiver.spans.map(({ spanId }) => spanId);
  expect(ids.filter((id, index) => ids.indexOf(id) < index)).toEqual([]);

  const one = (name: string, from: string, has: object = {}) => {
    const found = receiver.spans.filter(
      (span) =>
        span.name === name &&
        span.from === from &&
        Object.entries(has).every(([key, value]) => span.attributes[key] === value),
    );
    const [only] = found;
    if (!only || found.length > 1) throw new Error(`${found.length} spans ${name} of ${from}`);
    return only;
  };
  const root = one("start traced-refund", "caller");
  const service = one("POST /refunds", "caller");
  const own = receiver.spans.filter(({ traceId }) => traceId === root.traceId);
  // One trace of the execution, with what its code did, from all three processes.
  expect(new Set(own.map(({ from }) => from))).toEqual(new Set(["caller", "doomed", "heir"]));
  expect(
    receiver.spans.filter(
      ({ attributes, traceId }) => attributes["flowledger.execution.id"] === started.id && traceId !== root.traceId,
    ),
  ).toEqual([]);
  expect(own.map(({ name }) => name)).toContain("SELECT orders");
  // Every parent is there, but the attempt whose process was killed.
  const missing = new Set(
    own.flatMap(({ parentSpanId }) => (parentSpanId === undefined || ids.includes(parentSpanId) ? [] : parentSpanId)),
  );
  expect([...missing]).toEqual([one("step look up", "doomed").parentSpanId]);
  expect(own.filter(({ parentSpanId }) => parentSpanId === undefined)).toEqual([root]);

  const link = (span: { spanId: string; traceId: string }, what: string) => ({
    what,
    spanId: span.spanId,
    traceId: span.traceId,
  });
  expect(service).toMatchObject({ spanId: started.spanId, traceId: started.traceId, links: [link(root, "execution")] });
  expect(root.links).toEqual([link(service, "start")]);
  const lost = one("queue traced-refund", "doomed");
  const claims = own.filter(({ name, from }) => name === "queue traced-refund" && from === "heir");
  expect(claims[0]?.links).toEqual([link(lost, "takeover")]);
  expect(one("chunk traced-refund/hold", "heir").links).toEqual([link(lost, "takeover")]);
  const failed = one("chunk traced-refund/flaky", "heir", { "flowledger.outcome": "retried" });
  expect(one("chunk traced-refund/flaky", "heir", { "flowledger.outcome": "completed" }).links).toEqual([
    link(failed, "retry"),
  ]);
  expect(one("wait traced-refund/ask", "heir").links).toEqual([
    { what: "answer", traceId: "4bf92f3577b34da6a3ce929d0e0e4736", spanId: "00f067aa0ba902b7" },
  ]);
  const borrowing = own.filter(({ name }) => name === "chunk traced-refund/borrow");
  const [toParent] = one("start traced-child", "heir").links;
  expect(toParent?.what).toBe("start");
  expect(borrowing.map(({ spanId }) => spanId)).toContain(toParent?.spanId);
  // What was live has ended within its turn, which is over where the next claim begins.
  const epochOf = ({ attributes }: (typeof own)[number]) => Number(attributes["flowledger.epoch"]);
  const ofExecution = own.filter(({ attributes }) => attributes["flowledger.execution.id"] === started.id);
  const turns = new Map(
    ofExecution.filter(({ name }) => name.startsWith("queue ")).map((claim) => [epochOf(claim), claim.endMs]),
  );
  const live = ofExecution.filter(({ name }) => /^(chunk|step) /.test(name));
  // The killed process had one and its heir another; an answer may come before that gives the execution back.
  expect(turns.size).toBeGreaterThan(1);
  expect(live.length).toBeGreaterThan(6);
  // So long the answer of a commit may be under way.
  const slackMs = 1000;
  expect(
    live.filter(
      (span) =>
        span.startMs < (turns.get(epochOf(span)) ?? Infinity) - slackMs ||
        span.endMs > (turns.get(epochOf(span) + 1) ?? Infinity) + slackMs,
    ),
  ).toEqual([]);
  await expectGuarantees(sql);
});
