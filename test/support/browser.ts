/** The Chromium of this machine, for the pages of the console and the examples. */
import { existsSync } from "node:fs";
import { chromium, type Browser } from "playwright-core";

/** Null where there is none: tests of pages are skipped then, and `npm run test:all` says so. */
export const chromiumPath =
  process.env["CHROMIUM_PATH"] ??
  ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path)) ??
  null;

export function openBrowser(): Promise<Browser> {
  if (chromiumPath === null) throw new Error("there is no Chromium: install it, or set CHROMIUM_PATH");
  return chromium.launch({ executablePath: chromiumPath, headless: true, args: ["--no-sandbox"] });
}
