/** F42: a changed definition under running executions. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { BoundFlow, Execution, Flow, FlowDefinition } from "../../src/index.ts";
import { fitVersion } from "../../src/ledger/version.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { refusal, serving, untilEvent, warningsOf } from "../support/flows.ts";
import { Ledger, expectGuarantees, nothing } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

type StartOptions = Parameters<BoundFlow["startExecution"]>[1];

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
async function waitingIn(flow: FlowDefinition, options: StartOptions = {}): Promise<string> {
  await using old = await serving(database, [flow]);
  const execution = await old.flow(flow).startExecution(null, { autoCloseTimeout: 0, ...options });
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
  const log = (_: string, fields?: Readonly<Record<string, unknown>>) => void logged.push(String(fields?.["error"]));
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

test.each<[string, StartOptions, (execution: Execution) => Promise<unknown>, object]>([
  [
    "cancelled",
    {},
    (execution) => execution.cancel("not wanted"),
    { outcome: "cancelled", close_reason: "not wanted" },
  ],
  [
    "closed",
    {},
    (execution) => execution.close({ pendingInterrupts: "cancel", reason: "enough" }),
    { outcome: "cancelled", close_reason: "enough" },
  ],
  ["timed out", { timeout: "4s" }, async () => {}, { outcome: "failed", close_reason: "timeout" }],
])("F42: what is blocked is %s by any version: nothing of the flow runs for that", async (_, options, end, header) => {
  const first = version("stuck");
  const changed = version("stuck", { ask: "other" });
  const id = await waitingIn(first, options);
  const quiet = { debug() {}, info() {}, warn() {}, error() {} };
  await using orchestrator = await serving(database, [changed], { logger: quiet });
  const execution = await orchestrator.getExecution(id);
  // It stands at a pause of a chunk that is gone, and something comes in.
  await execution.emit("Nobody", null);
  await untilEvent(execution, "execution.blocked");

  await end(execution);
  await refusal(execution.waitForClose());

  expect(await sql`select outcome, close_reason from flowledger.executions where id = ${id}`).toEqual([header]);
  expect(await execution.history({ types: ["execution.blocked"] })).toHaveLength(1);
  await expectGuarantees(sql, id);
});

test("F42: two versions that both lack a chunk say it once each, and the ledger grows no further", async () => {
  const id = await waitingIn(version("twice-stuck"));
  const quiet = { debug() {}, info() {}, warn() {}, error() {} };
  const versions = ["second", "third"].map((name) => version("twice-stuck", { ask: name }));
  await using second = await serving(database, versions.slice(0, 1), { logger: quiet });
  await using _third = await serving(database, versions.slice(1), { logger: quiet });
  const execution = await second.getExecution(id);
  await execution.emit("Nobody", null);
  await untilEvent(execution, "execution.blocked");
  const said = async () => (await execution.history({ types: ["execution.blocked"] })).length;
  for (let look = 0; look < 200 && (await said()) < 2; look++) await dueNow(execution);
  const { seq } = (await execution.history()).at(-1) ?? {};

  for (let look = 0; look < 20; look++) await dueNow(execution);

  expect(await said()).toBe(2);
  expect((await execution.history()).at(-1)?.seq).toBe(seq);
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

test("F42: what has moved is found where it is now, and not where something else would follow from it", () => {
  const build = (at: "out" | "in", before: readonly string[] = []) => {
    const flow = defineFlow("f");
    let chain: Pick<Flow, "to" | "forEach"> = flow;
    for (const chunk of before) chain = chain.to(chunk, nothing);
    if (at === "in") chain.forEach().to("work", nothing).endForEach().to("end", nothing);
    else chain.to("work", nothing).to("end", nothing);
    return flow;
  };
  const inCollection = new Ledger(build("in")).start([1, 2]);
  const outside = new Ledger(build("out")).start([1, 2]);
  const twice = (before: readonly string[], more: readonly string[] = []) => {
    const flow = defineFlow("f");
    const again = flow.chunk("again", nothing);
    let chain: Pick<Flow, "to"> = flow;
    for (const chunk of before) chain = chain.to(chunk, nothing);
    chain = chain.to(again).to(again);
    for (const _ of more) chain = chain.to(again);
    return flow;
  };
  const second = new Ledger(twice([])).start([]);
  for (const dispatch of second.state.dispatches.values()) dispatch.node = "n2";
  const fit = ({ state }: Ledger, before: FlowDefinition, after: FlowDefinition) =>
    fitVersion(state, before.graph.nodes, after.graph);

  expect(fit(inCollection, build("in"), build("in", ["check"]))).toEqual({
    nodes: expect.objectContaining({ n1: "n2" }),
  });
  expect(fit(outside, build("out"), build("in"))).toEqual({ problem: 'chunk "work" is part of a collection now' });
  expect(fit(inCollection, build("in"), build("out"))).toEqual({ problem: "the open forEach n1 is another one now" });
  expect(fit(second, twice([]), twice(["check"]))).toEqual({ nodes: { n2: "n3" } });
  expect(fit(second, twice([]), twice(["check", "list"], ["more"]))).toEqual({
    problem: 'chunk "again" stands at another number of places now, and nothing tells which of them it is',
  });
});
