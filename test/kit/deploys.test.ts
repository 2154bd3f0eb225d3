/** Deploys in the middle of things: what has moved goes on where it is now, and what something else would follow from stands still. */
import postgres from "postgres";
import { expect, test } from "vitest";
import { defineFlow, type Ctx, type Flow } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { kit } from "../support/kit.ts";

type Chain = Pick<Flow, "to" | "forEach" | "batch" | "match">;

const logger = { ...console, info: () => {}, error: () => {} };
const day = 86_400_000;

/** Outside of the database: what was done, by execution. */
const done: { readonly id: string; readonly what: string }[] = [];
const note = (what: string) => (ctx: Ctx) => {
  done.push({ id: ctx.execution.id, what: `${what} ${JSON.stringify(ctx.input)}` });
  return ctx.input;
};
const work =
  (what: string, ms: (input: unknown) => number = () => 3 * day) =>
  async (ctx: Ctx) => {
    await ctx.step("begin", () => void note(`${what} begins`)(ctx));
    await ctx.sleep(ms(ctx.input));
    return note(what)(ctx);
  };
const long = (input: unknown) => Number(input) * day;

/** @param before chunks in front of what an execution is in the middle of */
function versionOf(name: string, before: readonly string[], build: (chain: Chain, flow: Flow) => unknown): Flow {
  const flow = defineFlow(name);
  let chain: Chain = flow;
  for (const chunk of before) chain = chain.to(chunk, note(chunk));
  build(chain, flow);
  return flow;
}

const middles: Record<string, (chain: Chain, flow: Flow) => unknown> = {
  "a forEach": (chain) =>
    chain
      .to("list", () => [1, 2, 3])
      .forEach()
      .to("work", work("work", long))
      .endForEach()
      .to("sum", note("sum")),
  "a forEach of items everywhere": (chain) =>
    chain
      .to("list", () => [1, 2, 3])
      .forEach({ distribute: true, concurrency: 2 })
      .to("work", work("work", long))
      .endForEach()
      .to("sum", note("sum")),
  "a forEach in one of items everywhere": (chain) =>
    chain
      .to("list", () => [[1, 2], [3]])
      .forEach({ distribute: true })
      .forEach()
      .to("work", work("work", long))
      .endForEach()
      .endForEach()
      .to("sum", note("sum")),
  "items everywhere in a forEach": (chain) =>
    chain
      .to("list", () => [[1, 2], [3]])
      .forEach()
      .forEach({ distribute: true })
      .to("work", work("work", long))
      .endForEach()
      .endForEach()
      .to("sum", note("sum")),
  "a batch": (chain) => chain.batch({ one: work("one"), two: note("two") }).to("sum", note("sum")),
  "a match of all": (chain) =>
    chain
      .match({ mode: "all" })
      .case(() => true)
      .to("one", work("one"))
      .case(() => true)
      .to("two", note("two"))
      .endMatch()
      .to("sum", note("sum")),
  "a join with one side": (chain, flow) => {
    chain.to("work", work("work"));
    flow.when(["Left", "Right"]).to("both", note("both"));
  },
  "a chunk beside a forEach": (chain, flow) => {
    chain
      .to("list", () => [1, 2])
      .forEach()
      .to("work", work("work", long))
      .endForEach()
      .to("sum", note("sum"));
    flow.to("other", work("other")).to("end", note("end"));
  },
  "the second of two places of a chunk": (chain, flow) => {
    const twice = flow.chunk(
      "twice",
      work("twice", () => day),
    );
    chain.to(twice).to(twice).to("sum", note("sum"));
  },
};
const join = "a join with one side";

test("a chunk is added before what executions are in the middle of, and taken away again: all go on, and do what they did without", async () => {
  done.length = 0;
  const names = Object.keys(middles);
  const flowsOf = (before: readonly string[]) =>
    Object.entries(middles).map(([what, build]) => versionOf(`moved.${what.replaceAll(" ", "-")}`, before, build));
  await using base = await kit({ flows: [], workers: 0 });
  const ids: string[] = [];
  for (const [index, before] of [[], ["check"], []].entries()) {
    await using t = await kit({ flows: flowsOf(before), database: base.database, logger });
    if (index === 0) for (const flow of flowsOf(before)) ids.push((await t.start(flow, 0)).id);
    const runs = await Promise.all(ids.map((id) => t.attach(id)));
    const joining = runs[names.indexOf(join)];
    if (index < 2) await joining?.emit(["Left", "Right"][index] ?? "", index);
    await t.clock.advance(["30h", "9h", "9d"][index] ?? "");

    const kinds: string[] = [];
    for (const run of runs) kinds.push((await run.explain()).kind);
    expect(kinds).toEqual(kinds.map(() => (index < 2 ? "waiting" : "closed")));
    expect(await t.orchestrator.verify()).toEqual([]);
  }
  await using t = await kit({ flows: flowsOf([]), database: base.database, logger });
  const whole = await Promise.all(flowsOf([]).map((flow) => t.start(flow, 0)));
  for (const [index, event] of ["Left", "Right"].entries()) await whole[names.indexOf(join)]?.emit(event, index);
  await t.clock.advance("9d");

  const items = new Map<string, string>();
  for (const { id } of (await t.orchestrator.listExecutions({ limit: 1000 })).executions) {
    const { parentId } = await (await t.attach(id)).result.getMeta();
    if (parentId !== null) items.set(id, parentId);
  }
  const topOf = (id: string): string => (items.has(id) ? topOf(items.get(id) ?? "") : id);
  const doneBy = (top: string) => done.flatMap(({ id, what }) => (topOf(id) === top ? [what] : [])).toSorted();
  const sql = postgres(t.database, { max: 1, onnotice: () => {} });
  expect(await rebuild(sql)).toEqual([]);
  await sql.end();
  for (const [index, id] of ids.entries())
    expect({ [names[index] ?? ""]: doneBy(id) }).toEqual({ [names[index] ?? ""]: doneBy(whole[index]?.id ?? "") });
}, 120_000);

test("what has moved into a collection stands still, and goes on when it is back: nothing that follows is left out", async () => {
  done.length = 0;
  const versionIn = (isInside: boolean) =>
    versionOf("moved.inside", [], (chain) =>
      isInside
        ? chain.forEach().to("work", work("work")).endForEach().to("sum", note("sum"))
        : chain.to("work", work("work")).to("sum", note("sum")),
    );
  await using base = await kit({ flows: [], workers: 0 });
  let id = "";
  for (const [index, isInside] of [false, true, false].entries()) {
    const flow = versionIn(isInside);
    await using t = await kit({ flows: [flow], database: base.database, logger });
    const run = index === 0 ? await t.start(flow, 0) : await t.attach(id);
    id = run.id;
    await t.clock.advance(["1h", "4d", "1d"][index] ?? "");
    // What comes in meanwhile is kept for the version that can go on: nothing is wrong with that.
    if (index === 1) await run.emit("Nobody", null);

    expect((await run.explain()).kind).toBe(["waiting", "blocked", "closed"][index]);
    expect(await t.orchestrator.verify()).toEqual([]);
  }
  expect(done.map(({ what }) => what)).toEqual(["work begins 0", "work 0", "sum 0"]);
}, 60_000);
