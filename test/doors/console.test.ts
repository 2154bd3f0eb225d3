/** `flowledger console` in a real Chromium, and what it refuses to strangers. */
import { request } from "node:http";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { openConsole } from "../../src/console.ts";
import { Lookout } from "../../src/execution/look.ts";
import { defineFlow } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { chromiumPath, openBrowser } from "../support/browser.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent, visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";

const database = await testDatabase();
const hostile = `<img src=x onerror="document.title='owned'">\u202Egnp.exe`;

const declined = defineFlow("declined");
declined.to("capture", () => {
  throw new RangeError("card 4711 was declined");
});
const long = defineFlow("long");
long.to("many", async (ctx) => {
  for (let i = 0; i < 6000; i++) await ctx.setState(`k${i % 50}`, i);
  await ctx.setState("last", "done");
  return null;
});
const review = defineFlow("review");
review
  .to("ask", async (ctx) => {
    await ctx.putIntoStream({ said: hostile });
    return ctx.pauseFor({ type: "approval", payload: { question: hostile }, resumeTo: "next" });
  })
  .to("keep", (ctx) => ctx.setState("answer", ctx.input));

test.skipIf(chromiumPath === null)("a person sees what waits, answers it, and sees how it ends", async () => {
  await using stage = await openStage();
  const { page, orchestrator } = stage;
  const execution = await orchestrator.flow(review).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");

  await page.goto(stage.url);
  await page.getByText("review asks: approval").click();
  await page.locator("#answers textarea").fill('{ "approved": "yes" }');
  await page.getByRole("button", { name: "Answer" }).click();

  expect(await execution.waitForClose()).toEqual({ answer: { approved: "yes" } });
  await page.locator("#state", { hasText: '"approved": "yes"' }).waitFor();
  await page.locator("#title", { hasText: "completed" }).waitFor();
  await page.locator("#stream", { hasText: "\\u202egnp.exe" }).waitFor();
  expect(await page.locator("img").count()).toBe(0);
  expect(await page.title()).toBe("flowledger console");
  expect(page.url()).not.toContain(new URL(stage.url).hash.slice(1));
  expect(await execution.history({ types: ["interrupt.resumed"] })).toMatchObject([{ actor: "console" }]);
});

test.skipIf(chromiumPath === null)("a person intervenes and cancels, and is told what is refused", async () => {
  await using stage = await openStage();
  const { page, orchestrator } = stage;
  const bound = orchestrator.flow(review);
  const execution = await bound.startExecution(null, { autoClose: false, interventionMode: "auto" });
  await untilEvent(execution, "interrupt.raised");
  await page.goto(stage.url);
  await page.locator("#executions").getByText(execution.id).click();

  await page.locator("#correction").fill("{ not JSON");
  await page.getByRole("button", { name: "Intervene" }).click();
  await page.locator("#error", { hasText: "JSON" }).waitFor();
  await page.locator("#correction").fill('{ "text": "be kind" }');
  await page.getByRole("button", { name: "Intervene" }).click();
  const recorded = await untilEvent(execution, "intervention.recorded");
  await page.getByRole("button", { name: "Cancel the execution" }).click();
  const closed = await untilEvent(execution, "execution.closed");

  expect(recorded).toMatchObject({ payload: { text: "be kind" }, author: "console" });
  expect(closed).toMatchObject({ outcome: "cancelled" });
});

test.skipIf(chromiumPath === null)(
  "it says why an execution failed, fits a phone, and keeps its place and the focus",
  async () => {
    await using stage = await openStage();
    const { page, orchestrator } = stage;
    await page.setViewportSize({ width: 390, height: 844 });
    const execution = await orchestrator.flow(declined).startExecution(null, { autoCloseTimeout: 0 });
    await expect(execution.waitForClose()).rejects.toThrow(/declined/);
    await page.goto(stage.url);
    const row = page.locator("#executions").getByText(execution.id);

    await row.click();
    await page.locator("#problem", { hasText: "card 4711 was declined" }).waitFor();
    await page.locator("#ledger", { hasText: "chunk.failed  capture  RangeError: card 4711" }).waitFor();
    const isWider = await page.evaluate("document.documentElement.scrollWidth > innerWidth");
    const address = page.url();
    await page.reload();
    await page.locator("#problem", { hasText: "card 4711 was declined" }).waitFor();
    await row.focus();
    // Another one comes in above it.
    await orchestrator.flow(review).startExecution(null);
    await page.evaluate("document.getElementById('refresh').onclick()");
    await page.locator("#executions .row", { hasText: "review" }).first().waitFor();
    const focused = await page.evaluate("document.activeElement.textContent");
    await page.goBack();
    await page.locator("#one").waitFor({ state: "hidden" });

    expect(isWider).toBe(false);
    expect(address).toContain(execution.id);
    expect(address).not.toContain(new URL(stage.url).hash.slice(1));
    expect(focused).toContain(execution.id);
  },
);

test("a look at a long ledger reads a page of it, goes on where the last look ended, and ends with the whole state", async () => {
  const worker = await serving(database, [long]);
  const { id } = await worker.flow(long).startExecution(null, { autoClose: false });
  await untilEvent(await worker.getExecution(id), "chunk.completed");
  await worker.close();
  await using orchestrator = visiting(database, [long]);
  const execution = await orchestrator.getExecution(id);
  // Nothing is kept that the fold could begin with.
  await database.sql`delete from flowledger.snapshots where execution_id = ${execution.id}`;
  const lookout = new Lookout(await orchestrator[internals].store());

  const looks = [];
  do looks.push(await lookout.look(execution.id, { events: 200 }));
  while (looks.length < 9 && (looks.at(-1)?.stateSeq ?? 0) < (looks.at(-1)?.meta.stateVersion ?? 0));

  expect(looks.map(({ stateSeq }) => stateSeq)).toEqual([2000, 4000, 6000, looks[0]?.meta.stateVersion]);
  expect(looks.at(-1)?.state).toEqual(await execution.result.getState());
  expect(looks[0]?.events.map(({ seq }) => seq)).toEqual((await execution.history()).slice(-200).map(({ seq }) => seq));
  const pages = await database.sql`
    select flowledger.page_end(${execution.id}, 0, 10, 1000000) as few, flowledger.page_end(${execution.id}, 0, 10, 1) as one,
      flowledger.page_end(${execution.id}, 1000000, 10, 1) as none`;
  expect(pages).toEqual([{ few: 10, one: 1, none: 1_000_000 }]);
});

test("a ledger that cannot be read is shown all the same", async () => {
  await using orchestrator = visiting(database, [review]);
  await using opened = await openConsole(orchestrator);
  const { origin, hash } = new URL(opened.url);
  const execution = await orchestrator.flow(review).createExecution();
  await database.sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    values (${execution.id}, 2, 0, flowledger.now(), 'never.heard', '{"of": 1}')`;
  await database.sql`update flowledger.executions set seq = 2 where id = ${execution.id}`;

  const answer = await fetch(`${origin}/api/executions/${execution.id}`, {
    headers: { authorization: `Bearer ${hash.slice(1)}` },
  });

  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({
    state: null,
    problem: { message: expect.stringContaining("cannot be read") as string },
    events: [{ type: "execution.created" }, { type: "never.heard", payload: { of: 1 } }],
  });
});

test("whoever has no token, or comes under another name, gets nothing", async () => {
  await using orchestrator = visiting(database);
  await using opened = await openConsole(orchestrator);
  const { origin, port, hash } = new URL(opened.url);
  const authorization = `Bearer ${hash.slice(1)}`;
  const path = "/api/executions/01890000-0000-7000-8000-000000000000";
  const post = (body: string) => fetch(`${origin}${path}/cancel`, { method: "POST", headers: { authorization }, body });

  const page = await fetch(origin);
  const answers = [
    await fetch(`${origin}/api/executions`),
    await fetch(`${origin}/api/executions`, { headers: { authorization: `${authorization}x` } }),
    await fetch(`${origin}/api/executions`, { headers: { authorization } }),
    await fetch(`${origin}${path}`, { headers: { authorization } }),
    await fetch(`${origin}${path}/stream?from=-1`, { headers: { authorization } }),
    await post("{"),
    await post('{ "reason": 1 }'),
  ];

  expect(answers.map(({ status }) => status)).toEqual([401, 401, 200, 404, 400, 400, 400]);
  expect(await statusOf({ port, path: "/", headers: { host: "evil.example" } })).toEqual([403, "nosniff"]);
  expect((await post(JSON.stringify({ reason: "x".repeat(2_000_000) }))).status).toBe(413);
  expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
  for (const { headers } of [page, ...answers]) expect(headers.get("access-control-allow-origin")).toBeNull();
  expect(await page.text()).not.toContain(hash.slice(1));
});

test("the command prints the URL, ends on a signal, and refuses a port that is taken", async () => {
  const cli = resolve(import.meta.dirname, "../../src/cli.ts");
  const env = { DATABASE_URL: database.url };
  await using running = await startProcess(cli, { args: ["console"], env });
  const url = /http:\S+/.exec(running.readyLine)?.[0] ?? "";

  const page = await fetch(url);
  const { port } = new URL(url);
  const second = startProcess(cli, { args: ["console", "--port", port], env });

  expect(page.status).toBe(200);
  await expect(second).rejects.toThrow(/cannot listen on port .* choose another --port/);
  running.kill("SIGTERM");
  expect(await running.exited).toEqual({ code: 0, signal: null });
});

async function openStage() {
  const orchestrator = await serving(database, [review, declined]);
  const console = await openConsole(orchestrator);
  const browser = await openBrowser();
  return {
    url: console.url,
    page: await browser.newPage(),
    orchestrator,
    async [Symbol.asyncDispose]() {
      await browser.close();
      await console[Symbol.asyncDispose]();
      await orchestrator.close();
    },
  };
}

/** `fetch` does not let one choose the name of the host. */
async function statusOf(options: {
  port: string;
  path: string;
  headers: Record<string, string>;
}): Promise<[number, unknown]> {
  const { promise, resolve: answer, reject } = Promise.withResolvers<[number, unknown]>();
  request({ host: "127.0.0.1", ...options }, (response) => {
    response.resume();
    answer([response.statusCode ?? 0, response.headers["x-content-type-options"]]);
  })
    .on("error", reject)
    .end();
  return promise;
}
