/** A live execution in a real Chromium: the page of `examples/live`, its server, and a connection that can be cut. */
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { story } from "../../examples/live/flow.ts";
import { liveApp } from "../../examples/live/server.ts";
import type { Orchestrator } from "../../src/index.ts";
import { chromiumPath, openBrowser } from "../support/browser.ts";
import { testDatabase } from "../support/database.ts";
import { serving, visiting } from "../support/flows.ts";

const database = await testDatabase();
const text = "Once upon a time a process died in the middle of a sentence and another one went on with it";

test.skipIf(chromiumPath === null)(
  "items appear while the execution runs, and the page knows when it is over",
  async () => {
    await using stage = await openStage();
    const { page } = stage;

    await page.click("#start");
    await untilWord(page, "upon");
    const [running] = (await stage.reader.listExecutions({ flow: story.name, limit: 1 })).executions;
    await untilDone(page);

    expect(running?.lifecycle).toBe("open");
    expect(await page.textContent("#words")).toBe(text);
  },
);

test.skipIf(chromiumPath === null)("a reload goes on after the last item, without a gap or a repeat", async () => {
  await using stage = await openStage();
  const { page } = stage;
  await page.click("#start");
  await untilWord(page, "time");

  await page.reload();
  await untilDone(page);
  const [, again] = stage.requests;

  expect(again).toMatch(/from=[1-9]/);
  expect(await page.textContent("#words")).toBe(text);
});

test.skipIf(chromiumPath === null)("a connection that drops comes back where it was", async () => {
  await using stage = await openStage();
  const { page } = stage;
  await page.click("#start");
  await untilWord(page, "time");

  stage.cut();
  await untilDone(page);

  expect(stage.requests).toHaveLength(2);
  expect(await page.textContent("#words")).toBe(text);
});

interface Stage extends AsyncDisposable {
  readonly page: Page;
  /** Serves the page; the worker is another. */
  readonly reader: Orchestrator;
  /** The streams that were asked for, in order. */
  readonly requests: string[];
  /** Ends every connection of the server. */
  cut(): void;
}

async function openStage(): Promise<Stage> {
  const orchestrator = await serving(database, [story]);
  const reader = visiting(database);
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const listener = getRequestListener(liveApp(reader).fetch);
  const server = createServer((request, response) => {
    if (request.url?.includes("/stream")) requests.push(request.url);
    void listener(request, response);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await openBrowser();
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    page,
    reader,
    requests,
    cut,
    async [Symbol.asyncDispose]() {
      await browser.close();
      cut();
      await closeServer(server);
      await reader.close();
      await orchestrator.close();
    },
  };
}

async function untilWord(page: Page, word: string): Promise<void> {
  await page.locator("#words", { hasText: word }).waitFor();
}

async function untilDone(page: Page): Promise<void> {
  await page.locator("#status", { hasText: "done" }).waitFor();
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
