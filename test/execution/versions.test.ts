/** F42: a changed definition under running executions. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Execution, Flow, FlowDefinition } from "../../src/index.ts";
import { fitVersion } from "../../src/ledger/version.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { refusal, serving, untilEvent, warningsOf } from "../support/flows.ts";
import { Ledger, expectGuarantees, nothing } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

/** One version of a flow: what it has before and behind the question that its executions wait at. */
function version(name: string, change: { before?: string[]; ask?: string; behind?: string[] } = {}): FlowDefinition {
  const flow = defineFlow(name);
  const { before = [], ask = "ask", behind = ["end"] } = change;
  let chain: Pick<Flow, "to"> = flow;
  const mark = (chunk: string) => (chain = chain.to(chunk, async (ctx) => await ctx.appendState("path", chunk)));
  for (const chunk of before) mark(chunk);
  chain = chain.to(ask, (ctx) => ctx.pauseFor({ interruptId: "q" }));
  for (const chunk of behind) mark(chunk);
  return flow;
}

/** Begun by one version, which then goes. */
async function waitingIn(flow: FlowDefinition): Promise<string> {
  await using old = await serving(database, [flow]);
  const execution = await old.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution);
  return execution.id;
}

/** Makes it due as soon as nobody has it. */
async function dueNow({ id }: Pick<Execution, "id">): Promise<void> {
  for (;;) {
    const free =
      await sql`update flowledger.executions set wake_at = now() where id = ${id} and owner is null returning id`;
    if (free.length > 0) break;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await sql`select flowledger.add_jobs(array[${id}::uuid])`;
}

test.each([
  ["another-chunk-behind", { behind: ["end", "mail"] }, ["end", "mail"]],
  ["another-chunk-before", { before: ["check"] }, ["end"]],
  ["other-chunks-behind", { behind: ["report"] }, ["report"]],
])("F42: an execution goes on by a version with %s, for what it stands at is there", async (name, change, path) => {
  const id = await waitingIn(version(`fits-${name}`));
  const changed = version(`fits-${name}`, change);
  await using orchestrator = await serving(database, [changed]);
  const execution = await orchestrator.getExecution(id);

  await execution.continueWith("q", "yes");

  expect(await execution.waitForClose()).toEqual({ path });
  expect((await execution.result.getMeta()).fingerprint).toBe(changed.fingerprint);
  await expectGuarantees(sql, id);
});

test("F42: one whose chunk is gone stands still, says so in the ledger, the meta and a warning, and goes on when the version is back", async () => {
  const first = version("renamed");
  const id = await waitingIn(first);
  const logged: string[] = [];
  const log = (message: string) => void logged.push(message);
  const changed = version("renamed", { ask: "asked differently" });
  const options = { logger: { debug() {}, info() {}, warn() {}, error: log } };
  {
    await using orchestrator = await serving(database, [changed], options);
    const execution = await orchestrator.getExecution(id);
    await execution.continueWith("q", "yes");
    const blocked = await untilEvent(execution, "execution.blocked");
    const warned = await warningsOf(() =>
      Promise.race([execution.waitForClose(), new Promise((resolve) => setTimeout(resolve, 5500))]),
    );
    await dueNow(execution);

    expect(blocked).toMatchObject({ fingerprint: changed.fingerprint });
    expect(blocked.problem).toMatch(/chunk "ask" is gone.*run a worker with the old definition/);
    expect(warned).toMatchObject([{ code: "DEFINITION_MISMATCH", message: blocked.problem }]);
    expect(logged[0]).toBe(blocked.problem);
    expect(await execution.result.getMeta()).toMatchObject({ status: "running", blocked: blocked.problem });
    const [sqlMeta] = await sql<{ meta: { blocked: string } }[]>`select flowledger.meta(${id}) as meta`;
    expect(sqlMeta?.meta.blocked).toBe(blocked.problem);
  }

  await using orchestrator = await serving(database, [first]);
  const execution = await orchestrator.getExecution(id);
  await dueNow(execution);

  expect(await execution.waitForClose()).toEqual({ path: ["end"] });
  expect((await execution.result.getMeta()).blocked).toBeNull();
  expect(await execution.history({ types: ["execution.blocked"] })).toHaveLength(1);
  await expectGuarantees(sql, id);
});

test("F42: what is blocked takes commands meanwhile, and ends by the version that can end it", async () => {
  const first = version("stuck");
  const id = await waitingIn(first);
  const changed = version("stuck", { ask: "other" });
  {
    await using orchestrator = await serving(database, [changed], {
      logger: { debug() {}, info() {}, warn() {}, error() {} },
    });
    const execution = await orchestrator.getExecution(id);
    await execution.cancel("not wanted any more");
    await untilEvent(execution, "execution.blocked");
  }

  await using orchestrator = await serving(database, [first]);
  const execution = await orchestrator.getExecution(id);
  await dueNow(execution);

  expect(String(await refusal(execution.waitForClose()))).toMatch(/not wanted any more/);
});

test("F42: an open collection or a half-filled join is found only where it is as it was", () => {
  const build = (body: string, behind: string) => {
    const flow = defineFlow("f");
    flow.forEach().to(body, nothing).endForEach().to(behind, nothing);
    flow.when(["A", "B"]).to("both", nothing);
    return flow;
  };
  const before = build("item", "sum");
  const inside = new Ledger(before).start([1, 2]);
  const joining = new Ledger(before).start([]).run().emit("A");
  const fit = ({ state }: Ledger, after: FlowDefinition) => fitVersion(state, before.graph.nodes, after.graph);
  const withoutJoin = defineFlow("f");
  withoutJoin.forEach().to("item", nothing).endForEach().to("sum", nothing);

  expect(fit(inside, build("item", "other"))).toEqual({ nodes: {} });
  expect(fit(inside, build("each", "sum"))).toEqual({ problem: "the open forEach n1 is another one now" });
  expect(fit(joining, build("each", "other"))).toEqual({ nodes: {} });
  expect(fit(joining, withoutJoin)).toMatchObject({ problem: expect.stringMatching(/^the half-filled join/) });
});

test("F42: an item of a distributed collection goes on only where all of its collection is as it was", () => {
  const build = (body: string, behind: string, distribute = true) => {
    const flow = defineFlow("f");
    flow.forEach({ distribute }).to(body, nothing).endForEach().to(behind, nothing);
    return flow;
  };
  const before = build("item", "sum");
  const item = { ...new Ledger(before).state, item: { node: "n1", index: 0, readsState: false } };
  const fit = (after: FlowDefinition) => fitVersion(item, before.graph.nodes, after.graph);

  expect(fit(build("item", "other"))).toEqual({ nodes: {} });
  expect(fit(build("each", "sum"))).toEqual({ problem: "the open forEach n1 is another one now" });
  expect(fit(build("item", "sum", false))).toEqual({ problem: "the open forEach n1 is another one now" });
});
