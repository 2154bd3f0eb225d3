/** The Chromium of this machine, for the pages of the console and the examples. */
import { existsSync } from "node:fs";
import { chromium, type Browser, type Page } from "playwright-core";
import { z } from "zod";

/** Null where there is none: tests of pages are skipped then, and `npm run test:all` says so. */
export const chromiumPath =
  process.env["CHROMIUM_PATH"] ??
  ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path)) ??
  null;

export function openBrowser(): Promise<Browser> {
  if (chromiumPath === null) throw new Error("there is no Chromium: install it, or set CHROMIUM_PATH");
  return chromium.launch({ executablePath: chromiumPath, headless: true, args: ["--no-sandbox"] });
}

const Trace = z.object({
  traceEvents: z.array(
    z.object({
      name: z.string().optional(),
      pid: z.number(),
      tid: z.number(),
      /** Microseconds on the CPU. */
      tdur: z.number().optional(),
      args: z.looseObject({ name: z.unknown().optional() }).optional(),
    }),
  ),
});

/** The tasks of a page meanwhile, in ms of its thread's CPU: how long one takes by the clock is also what else the machine does. */
export async function tasksDuring(page: Page, work: () => Promise<void>): Promise<number[]> {
  const browser = page.context().browser();
  if (!browser) throw new Error("the page belongs to no browser");
  await browser.startTracing(page, { categories: ["toplevel"] });
  await work();
  const { traceEvents } = Trace.parse(JSON.parse((await browser.stopTracing()).toString()));
  const threads = traceEvents.filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain");
  return traceEvents
    .filter(({ pid, tid }) => threads.some((thread) => thread.pid === pid && thread.tid === tid))
    .filter(({ name }) => name?.endsWith("RunTask"))
    .map(({ tdur = 0 }) => tdur / 1000);
}
