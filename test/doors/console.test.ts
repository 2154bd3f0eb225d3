/** `flowledger console` in a real Chromium, and what it refuses to strangers. */
import { request } from "node:http";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { openConsole } from "../../src/console.ts";
import { defineFlow } from "../../src/index.ts";
import { chromiumPath, openBrowser } from "../support/browser.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent, visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";

const database = await testDatabase();
const hostile = `<img src=x onerror="document.title='owned'">\u202Egnp.exe`;

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
  expect(await statusOf({ port, path: "/", headers: { host: "evil.example" } })).toBe(403);
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
  const orchestrator = await serving(database, [review]);
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
async function statusOf(options: { port: string; path: string; headers: Record<string, string> }): Promise<number> {
  const { promise, resolve: answer, reject } = Promise.withResolvers<number>();
  request({ host: "127.0.0.1", ...options }, (response) => {
    response.resume();
    answer(response.statusCode ?? 0);
  })
    .on("error", reject)
    .end();
  return promise;
}
