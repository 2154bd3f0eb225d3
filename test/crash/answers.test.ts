/** F15, for each statement that a worker sends: its answer is lost with the connection, or never comes. */
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { ConnectionError, createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Execution, Orchestrator } from "../../src/index.ts";
import { openProxy } from "../chaos/proxy.ts";
import type { Proxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, visiting } from "../support/flows.ts";
import { expectGuarantees, until } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

/** Ids of executions, each time its step runs. */
const charged: string[] = [];
const child = defineFlow("answers.child", {}, { limits: { concurrency: 3 } });
child.to("double", (ctx) => Number(ctx.input) * 2).end();
const main = defineFlow("answers.main");
main
  .to("charge", async (ctx) => {
    await ctx.step("charge", () => void charged.push(ctx.execution.id));
    await ctx.putIntoStream("charged");
    await ctx.setState("charged", true);
    await ctx.sleep("20ms");
    return [1, 2];
  })
  .forEach({ distribute: true })
  .to("item", (ctx) => ctx.input)
  .endForEach()
  .to("ask", (ctx) => ctx.pauseFor({ type: "approval" }))
  .toSubFlow(child)
  .end();
const tick = defineFlow("answers.tick").to("tick", () => null);
const flows = [main, child, tick];

/** A worker behind a proxy that runs an execution to its end, and stops. @returns what rejected unhandled, and how the calls ended */
async function serve(arm: (proxy: Proxy) => void) {
  const url = new URL(database.url);
  const port = Number(url.port);
  await using proxy = await openProxy({ host: url.hostname, port: () => port });
  url.port = String(proxy.port);
  arm(proxy);
  const unhandled: string[] = [];
  const note = (error: unknown) => void unhandled.push(String(error));
  process.on("unhandledRejection", note);
  try {
    await using outside = visiting(database, flows);
    const worker = createOrchestrator({
      connection: url.href,
      flows,
      logger: quiet,
      schedules: [{ name: "answers", flow: tick, cron: "0 0 1 1 *" }],
    });
    // Whoever starts workers starts one again that could not begin.
    await worker.startWorker({ drainTimeout: "1s" }).catch(() => worker.startWorker({ drainTimeout: "1s" }));
    const execution = await outside.flow(main).startExecution(null, { autoCloseTimeout: 0 });
    const asked = await until(async () => {
      const { interrupts } = await outside.listPendingInterrupts({ flow: main.name });
      return interrupts.find(({ executionId }) => executionId === execution.id);
    }, 30_000);
    await execution.continueWith(asked?.id ?? "", 1);
    await execution.waitForClose();
    const began = performance.now();
    await worker.close();
    const closingMs = performance.now() - began;
    // What is rejected by now is told in the next turn.
    await delay(0);
    const charges = charged.filter((id) => id === execution.id).length;
    return { unhandled, charges, closingMs, statements: proxy.statements };
  } finally {
    process.off("unhandledRejection", note);
  }
}

test("F15: whichever answer is lost, the work goes on, each step runs once, and nothing is rejected unhandled", async () => {
  const { statements } = await serve(() => {});
  const problems = [];
  for (const statement of statements) {
    const { unhandled, charges } = await serve((proxy) => proxy.loseAnswerOf(statement));
    if (unhandled.length > 0 || charges !== 1) problems.push({ statement, unhandled, charges });
  }

  expect(statements.size).toBeGreaterThan(35);
  expect(problems).toEqual([]);
  await expectGuarantees(sql);
}, 400_000);

/** What nothing else limits: a session that listens, graphile-worker's own, the heartbeat's thread, what a start keeps first. */
const held = [
  "listen flowledger_",
  "as server_version_num",
  "register_worker",
  "leave_worker",
  "force_unlock",
  ".definitions (flow",
];

test.each(held)(
  "F15: an answer to %j that never comes holds up no start and no end for good",
  async (statement) => {
    const { unhandled, charges, closingMs } = await serve((proxy) => proxy.delayAnswerOf(statement, 600_000));

    expect({ unhandled, charges }).toEqual({ unhandled: [], charges: 1 });
    expect(closingMs).toBeLessThan(5000);
    await expectGuarantees(sql);
  },
  120_000,
);

const by = { actor: "ann", reason: "INC-12" };
/** What somebody asks, and what of it is never answered. */
const calls: readonly [string, string, (execution: Execution, orchestrator: Orchestrator) => Promise<unknown>][] = [
  ["a command", "flowledger.seal(", (execution) => execution.seal()],
  ["an answer by a link", "asked_by_token", (_, orchestrator) => orchestrator.askedByToken("x".repeat(43))],
  ["an operator's order", "flowledger.pause_flow", (_, orchestrator) => orchestrator.pauseFlow(tick.name, by)],
  ["a read", "flowledger.explain", (execution) => execution.explain()],
  ["many starts", "create_executions", (_, orchestrator) => orchestrator.flow(tick).startMany([1, 2])],
];

test.concurrent.each(calls)(
  "F15: who asks for %s that is never answered hears so within half a minute",
  async (_, statement, call) => {
    const url = new URL(database.url);
    const port = Number(url.port);
    await using proxy = await openProxy({ host: url.hostname, port: () => port });
    url.port = String(proxy.port);
    await using orchestrator = createOrchestrator({ connection: url.href, flows, logger: quiet });
    const execution = await orchestrator.flow(main).createExecution();
    proxy.delayAnswerOf(statement, 600_000);
    const began = performance.now();

    const error = await refusal(call(execution as Execution, orchestrator));

    expect(error).toBeInstanceOf(ConnectionError);
    expect(String(error)).toContain("no answer for 30000 ms");
    expect(performance.now() - began).toBeLessThan(35_000);
  },
  60_000,
);
