/** The chat of `examples/chat` in a real Chromium, with the real `useChat`: workers are killed, tabs reloaded, approvals given twice. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { getRequestListener } from "@hono/node-server";
import type { Browser, Page } from "playwright-core";
import { expect, test } from "vitest";
import { support } from "../../examples/chat/agent.ts";
import { chatApp } from "../../examples/chat/server.ts";
import type { Orchestrator } from "../../src/index.ts";
import { testProvider, type TestProvider } from "../ai/provider.ts";
import { chromiumPath, openBrowser } from "../support/browser.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { visiting } from "../support/flows.ts";
import { startProcess, type TestProcess } from "../support/processes.ts";
import { expectGuarantees } from "./support.ts";

const database = await testDatabase();
const words = ["One ", "two ", "three ", "four."];

interface Stage extends AsyncDisposable {
  readonly browser: Browser;
  readonly reader: Orchestrator;
  readonly url: string;
  worker(): Promise<TestProcess>;
}

async function openStage(provider: TestProvider): Promise<Stage> {
  const reader = visiting(database, [support]);
  const listener = getRequestListener((await chatApp(reader)).fetch);
  const server = createServer((request, response) => void listener(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await openBrowser();
  const workers: TestProcess[] = [];
  return {
    browser,
    reader,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/#${crypto.randomUUID()}`,
    async worker() {
      const env = { AI_DATABASE: database.url, MODEL_URL: `${provider.url}#test` };
      const started = await startProcess(join(import.meta.dirname, "chat-worker.ts"), { env });
      workers.push(started);
      return started;
    },
    async [Symbol.asyncDispose]() {
      await browser.close();
      server.closeAllConnections();
      server.close();
      for (const worker of workers) await worker[Symbol.asyncDispose]();
      await reader.close();
    },
  };
}

async function tab({ browser, url }: Stage): Promise<Page> {
  const page = await browser.newPage();
  await page.goto(url);
  await page.locator("#text").waitFor();
  return page;
}

async function say(page: Page, text: string): Promise<void> {
  await page.fill("#text", text);
  await page.click("#send");
}

const answers = (page: Page) => page.locator(".assistant .words").allTextContents();
const until = (page: Page, text: string) => page.locator(".assistant", { hasText: text }).waitFor();
const newest = async ({ reader }: Stage) => {
  const { executions } = await reader.listExecutions({ flow: "support", limit: 1 });
  return reader.getExecution(executions[0]?.id ?? "");
};

test.skipIf(chromiumPath === null)(
  "a worker killed in the middle of an answer, a reload and a second tab: each shows the text once",
  { timeout: 60_000 },
  async () => {
    let calls = 0;
    await using provider = await testProvider(() => (calls++ === 0 ? { text: words, holdBefore: 2 } : { text: words }));
    await using stage = await openStage(provider);
    const doomed = await stage.worker();
    const page = await tab(stage);
    await say(page, "Count");
    await until(page, "two");
    const other = await tab(stage);
    await until(other, "two");
    await page.reload();
    await until(page, "two");

    doomed.kill("SIGKILL");
    await stage.worker();
    await Promise.all([until(page, "four."), until(other, "four.")]);

    expect(await answers(page)).toEqual([words.join("")]);
    expect(await answers(other)).toEqual([words.join("")]);
    expect(provider.completed()).toBe(1);
    await page.reload();
    await until(page, "four.");
    expect(await answers(page)).toEqual([words.join("")]);
    await expectGuarantees(database.sql);
  },
);

test.skipIf(chromiumPath === null)(
  "approved in two tabs at once the tool runs once; rejected in the console the chat shows it while it is open",
  { timeout: 60_000 },
  async () => {
    await using provider = await testProvider(({ messages }) =>
      messages.at(-1)?.role === "tool"
        ? { text: ["So ", "be it."] }
        : { calls: [{ name: "refund", input: { ticket: "T-1", amount: 500 } }] },
    );
    await using stage = await openStage(provider);
    const worker = await stage.worker();
    const page = await tab(stage);
    await say(page, "Refund");
    await page.locator(".approve").waitFor();
    const other = await tab(stage);
    await other.locator(".approve").waitFor();

    await Promise.all([page.click(".approve"), other.click(".approve")]);
    await Promise.all([until(page, "be it."), until(other, "be it.")]);
    const paid = worker.output().match(/^refund T-1/gm);
    await say(page, "Again");
    await page.locator(".approve").waitFor();
    const execution = await newest(stage);
    const [pending] = await untilPending(execution, 1);
    await execution.continueWith(pending?.id ?? "", { decision: "reject", message: "no" }, { actor: "console" });
    await page.locator(".tool", { hasText: "output-denied" }).waitFor();
    await execution.waitForClose();

    expect(paid).toHaveLength(1);
    expect(worker.output().match(/^refund T-1/gm)).toHaveLength(1);
    await expectGuarantees(database.sql);
  },
);

test.skipIf(chromiumPath === null)(
  "stop is apart from a closed tab: the one ends the turn, the other ends nothing",
  { timeout: 60_000 },
  async () => {
    let calls = 0;
    await using provider = await testProvider(() => ({ text: words, ...(calls++ < 2 && { holdBefore: 1 }) }));
    await using stage = await openStage(provider);
    await stage.worker();
    const page = await tab(stage);
    await say(page, "Count");
    await until(page, "One");
    await page.click("#stop");
    await page.locator("#status", { hasText: "ready" }).waitFor();
    const stopped = await newest(stage);
    expect((await stopped.result.getMeta()).status).toBe("cancelled");
    await say(page, "Count again");
    await page.locator(".assistant", { hasText: "One" }).nth(1).waitFor();
    await page.close();
    provider.release();
    const going = await newest(stage);

    expect(await going.waitForClose()).toMatchObject({ text: words.join("") });
    expect(going.id).not.toBe(stopped.id);
  },
);
