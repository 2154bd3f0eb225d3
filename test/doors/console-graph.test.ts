/** The graph of an execution in the console: where it stands at each node, now and then, in the page and by its calls. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createConsole } from "../../src/console.ts";
import type { NodeShown, PictureShown } from "../../src/console/api.ts";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { chromiumPath } from "../support/browser.ts";
import { consoleClient } from "../support/console.ts";
import { faultsOf, openStage, picture } from "../support/console-stage.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, untilEvent } from "../support/flows.ts";

const child = defineFlow("graph.child");
child.to("inner", (ctx) => ctx.input);
const gate = newGate();
const order = defineFlow("graph.order", {}, { onFailure: "park" });
order
  .to("load", () => [1, 2, 3, 4])
  .forEach({ concurrency: 2 })
  .to("price", async (ctx) => {
    if (ctx.input === 3) await gate.passed;
    return ctx.input;
  })
  .endForEach()
  .batch({ stock: (ctx) => ctx.input, risk: (ctx) => ctx.input })
  .ifCondition(() => true)
  .to("approve", (ctx) => ctx.pauseFor({ type: "approval", interruptId: "q" }))
  .elseCondition()
  .to("reject", () => null)
  .endCondition()
  .toSubFlow(child)
  .to("ship", () => {
    throw new Error("no carrier");
  })
  .end();
order.when("Noted").to("note", () => null);

const database = await testDatabase();
const orchestrator = await serving(database, [order, child]);
afterAll(() => orchestrator.close());
const client = consoleClient(createConsole({ orchestrator, authorize: () => ({ actor: "ann", role: "viewer" }) }));

async function pictureOf(path: string): Promise<PictureShown> {
  const answer = await client("GET", path);
  expect(answer.status).toBe(200);
  return (await answer.json()) as PictureShown;
}

/** What stands where, by the labels of the nodes. */
function byLabel({ graph, states }: PictureShown): Record<string, Partial<NodeShown> | null> {
  return Object.fromEntries(
    (graph?.nodes ?? []).flatMap(({ id, label }) => (label === "" ? [] : [[label, states[id] ?? null]])),
  );
}

/** It asks until all of the ledger has been read: the view is shared for two seconds. */
async function statesNow({ id }: Pick<Execution, "id">, n: number) {
  const shown = await pictureOf(`executions/${id}/graph?after=${n}`);
  expect(shown.seq).toBe(shown.of);
  return byLabel(shown);
}

test("each node says what ran there and what is there now; items are counts; the past is as it was", async () => {
  const execution = await orchestrator.flow(order).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "price");
  await expect
    .poll(async () => (await statesNow(execution, (Math.random() * 1e9) | 0))["forEach, 2 at once"])
    .toMatchObject({
      status: "running",
      items: { size: 4, completed: 3, failed: 0 },
    });
  const stateVersion = (await execution.history()).length;

  gate.open();
  await untilEvent(execution, "interrupt.raised");
  expect(await statesNow(execution, 1)).toMatchObject({
    load: { status: "completed", completed: 1 },
    "forEach, 2 at once": { status: "completed", items: { size: 4, completed: 4 } },
    price: { status: "completed", completed: 4 },
    batch: { status: "completed", items: { size: 2, completed: 2 } },
    approve: { status: "waiting", waiting: 1 },
    reject: null,
    "graph.child": null,
    ship: null,
    note: null,
  });
  await execution.continueWith("q", "yes");
  await untilEvent(execution, "chunk.parked");
  expect(await statesNow(execution, 2)).toMatchObject({
    approve: { status: "completed" },
    "graph.child": { status: "completed" },
    ship: { status: "parked", parked: 1 },
    result: null,
  });
  await execution.emit("Noted", null);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "note");
  await execution.cancel("enough", { actor: "ann" });
  await execution.waitForClose().catch(() => {});
  expect(await statesNow(execution, 3)).toMatchObject({ note: { status: "completed" }, ship: { status: "cancelled" } });
  expect(byLabel(await pictureOf(`executions/${execution.id}/graph?seq=${stateVersion}`))).toMatchObject({
    price: { status: "running", running: 1, completed: 3 },
    approve: null,
  });
  for (const [query, status] of [
    ["seq=0", 400],
    ["seq=100000", 400],
    ["at=1", 400],
  ] as const)
    expect((await client("GET", `executions/${execution.id}/graph?${query}`)).status).toBe(status);
});

test("a graph exists for whom an execution of it does, and a version that nobody told of does not", async () => {
  const execution = await orchestrator
    .flow(child)
    .startExecution(1, { autoCloseTimeout: 0, metadata: { tenant: "own" } });
  await execution.waitForClose();
  const as = (tenant: string) =>
    consoleClient(
      createConsole({
        orchestrator,
        authorize: () => ({ actor: "vera", role: "viewer", where: { metadata: { tenant } } }),
      }),
    );

  expect((await as("own")("GET", "graph?flow=graph.child")).status).toBe(200);
  for (const [tenant, path] of [
    ["other", "graph?flow=graph.child"],
    ["own", "graph?flow=graph.order"],
    ["own", "graph?flow=graph.child&version=nothing"],
    ["other", `executions/${execution.id}/graph`],
  ] as const)
    expect([path, (await as(tenant)("GET", path)).status]).toEqual([path, 404]);
  expect((await client("GET", "graph")).status).toBe(400);
  expect((await pictureOf("graph?flow=graph.order")).graph).toMatchObject({ flow: "graph.order" });
});

test("a long ledger is read by pages, each look one further", async () => {
  const long = defineFlow("graph.long");
  long.to("steps", async (ctx) => {
    for (let index = 0; index < 6000; index++) void ctx.setState("n", index);
    await ctx.flush();
  });
  await using worker = await serving(database, [long]);
  const execution = await worker.flow(long).startExecution(null, { autoCloseTimeout: 0 });
  await execution.waitForClose();

  const seen: number[] = [];
  let shown = await pictureOf(`executions/${execution.id}/graph`);
  while (shown.seq < shown.of) {
    seen.push(shown.seq);
    shown = await pictureOf(`executions/${execution.id}/graph?after=${shown.seq}`);
  }

  expect(seen).toEqual([500, 2500, 4500]);
  expect(byLabel(shown)).toMatchObject({ steps: { status: "completed", completed: 1 } });
});

describe.skipIf(chromiumPath === null)("the page", () => {
  let stage: Awaited<ReturnType<typeof openStage>>;
  beforeAll(async () => {
    stage = await openStage([order, child]);
  });
  afterAll(() => stage?.[Symbol.asyncDispose]());

  test("the picture and its list say the same, live and at a point of the past that the state shows too", async () => {
    const { page } = stage;
    const execution = await stage.orchestrator.flow(order).startExecution(null, { autoClose: false });
    await untilEvent(execution, "interrupt.raised");
    const row = (label: string) =>
      page.getByRole("row").filter({ has: page.getByRole("button", { name: label, exact: true }) });
    const boxOf = (label: string) => page.locator(".graph .node", { hasText: label });
    await page.goto(`${stage.base}?execution=${execution.id}&tab=graph`);
    await row("approve").getByText("waiting", { exact: true }).waitFor();
    await boxOf("approve").and(page.locator(".tone-waiting")).waitFor();
    expect(await row("forEach, 2 at once").textContent()).toContain("4 / 4");

    await execution.continueWith("q", "yes");
    await row("ship").getByText("parked", { exact: true }).waitFor();
    await boxOf("ship").and(page.locator(".tone-parked")).waitFor();
    await row("ship").getByRole("button").focus();
    await page.keyboard.press("Enter");
    await boxOf("ship").and(page.locator(".chosen")).waitFor();
    for (const colorScheme of ["light", "dark"] as const)
      for (const size of [
        { width: 1440, height: 900 },
        { width: 390, height: 844 },
      ]) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await page.setViewportSize(size);
        expect(await faultsOf(page)).toEqual([]);
        expect(await page.evaluate("document.documentElement.scrollWidth > innerWidth")).toBe(false);
        await page.evaluate("document.querySelector('.tabs').scrollIntoView()");
        if (size.width > 1000 === (colorScheme === "light")) await picture(page, `graph-${size.width}-${colorScheme}`);
      }
    await page.setViewportSize({ width: 1440, height: 900 });

    await page.getByLabel("After event").focus();
    await page.keyboard.press("Home");
    await page.getByText(/^1 of/).waitFor();
    await row("ship").getByText("not yet").waitFor();
    await page.getByRole("tab", { name: "State" }).click();
    await page.getByText(/^1 of/).waitFor();
    expect(new URL(page.url()).searchParams.get("seq")).toBe("1");
    expect(stage.complaints).toEqual([]);
  });

  test("the flows' screen shows the graph without states", async () => {
    const { page } = stage;
    await page.goto(`${stage.base}?screen=flows`);
    await page.getByRole("link", { name: "Graph of graph.order" }).click();
    await page.getByRole("heading", { name: "Graph of graph.order" }).waitFor();
    await page.getByRole("button", { name: "ship", exact: true }).waitFor();

    expect(await page.locator(".graph .node").count()).toBe(14);
    expect(await page.getByText("not yet").count()).toBe(0);
    expect(await faultsOf(page)).toEqual([]);
    await page.goto(`${stage.base}?screen=flows&graph=nothing`);
    await page.getByRole("alert").getByText("there is no graph of that flow").waitFor();
  });
});
