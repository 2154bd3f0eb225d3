/** A console in a real Chromium: mounted under a prefix, behind a login, under the host's own strict policy. */
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { join, resolve } from "node:path";
import { getRequestListener } from "@hono/node-server";
import { Hono } from "hono";
import type { Page } from "playwright-core";
import { createConsole, type Access } from "../../src/console.ts";
import type { FlowDefinition, OrchestratorOptions } from "../../src/index.ts";
import { openBrowser } from "./browser.ts";
import { testDatabase } from "./database.ts";
import { serving } from "./flows.ts";

export const admin: Access = { actor: "ann@acme.example", role: "admin" };

/** The console of an application: its login, its prefix, its own policy. */
export async function openStage(flows: readonly FlowDefinition[], options: OrchestratorOptions = {}) {
  const database = await testDatabase();
  const orchestrator = await serving(database, flows, options);
  const stage = { access: admin as Access | Response | null };
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    c.header("content-security-policy", "default-src 'self'; object-src 'none'; base-uri 'none'", { append: true });
  });
  app.mount(
    "/admin/flows",
    createConsole({
      orchestrator,
      authorize: () => (stage.access instanceof Response ? stage.access.clone() : stage.access),
    }).fetch,
  );
  const listener = getRequestListener(app.fetch);
  const sockets = new Set<Socket>();
  let server: Server;
  const listen = async (port: number) => {
    server = createServer((request, response) => void listener(request, response));
    server.on("connection", (socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
    });
    await new Promise<void>((resolved) => server.listen(port, "127.0.0.1", resolved));
    return (server.address() as AddressInfo).port;
  };
  const end = async () => {
    const closed = new Promise((resolved) => server.close(resolved));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  const port = await listen(0);
  const browser = await openBrowser();
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.setDefaultTimeout(10_000);
  /** What the browser refused to do, or a script threw. */
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) complaints.push(message.text());
  });
  return Object.assign(stage, {
    base: `http://127.0.0.1:${port}/admin/flows`,
    page,
    orchestrator,
    database,
    complaints,
    async restart() {
      await end();
      await listen(port);
    },
    async [Symbol.asyncDispose]() {
      await browser.close();
      await end();
      await orchestrator.close();
    },
  });
}

/** Presses Tab until something of that name has the focus. */
export async function tabTo(page: Page, name: string): Promise<void> {
  // By mouse one waits for what one sees; by keyboard one would go around without it.
  await page.getByText(name, { exact: true }).first().waitFor();
  const seen: string[] = [];
  for (let press = 0; press < 80; press++) {
    const found = (await page.evaluate(
      "(() => { const at = document.activeElement; return at.labels?.[0]?.textContent ?? at.textContent; })()",
    )) as string;
    const text = found.trim();
    if (press > 0 && text === name) return;
    seen.push(text.slice(0, 30));
    await page.keyboard.press("Tab");
  }
  throw new Error(`nothing is named ${name}: ${seen.join(" | ")}`);
}

const axe = readFileSync(resolve(import.meta.dirname, "../../node_modules/axe-core/axe.min.js"), "utf8");

/** Rows that look like one before them get a mark: their colours, sizes and weights are those of that one, element by element. */
const alike = `(() => {
  const seen = new Set();
  for (const row of document.querySelectorAll("main tbody tr, main .event-row, main .bar-row, main article")) {
    const look = [row, ...row.querySelectorAll("*")].map((at) => {
      const { color, backgroundColor, backgroundImage, opacity, fontSize, fontWeight, visibility, display } = getComputedStyle(at);
      return [at.localName, color, backgroundColor, backgroundImage, opacity, fontSize, fontWeight, visibility, display].join(" ");
    }).join("|");
    if (seen.has(look)) row.dataset.alike = "";
    seen.add(look);
  }
})()`;

/** What axe finds on the page as it is: contrast of one row of each look, as it is judged by pixels; all else of all rows. */
export async function faultsOf(page: Page): Promise<readonly { id: string; html: string | undefined }[]> {
  await page.evaluate(axe);
  await page.evaluate(alike);
  const { violations } = (await page.evaluate(`(async () => {
    const all = await axe.run({ rules: { "color-contrast": { enabled: false } } });
    const colours = await axe.run({ exclude: ["[data-alike]"] }, { runOnly: ["color-contrast"] });
    return { violations: [...all.violations, ...colours.violations] };
  })()`)) as {
    violations: { id: string; nodes: { html: string }[] }[];
  };
  return violations.map(({ id, nodes }) => ({ id, html: nodes[0]?.html }));
}

/** Pictures of docs/console.md: `UPDATE_SCREENSHOTS=1` takes them anew. */
export async function picture(page: Page, name: string): Promise<void> {
  if (process.env["UPDATE_SCREENSHOTS"] !== "1") return;
  const shots = resolve(import.meta.dirname, "../../docs/console");
  await mkdir(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`) });
}
