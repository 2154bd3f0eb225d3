/** The console as an example has mounted it, in Chromium: behind its login, at its prefix, under its own strict policy. */
import type { Page } from "playwright-core";
import { openBrowser } from "../support/browser.ts";
import type { Host } from "./host.ts";

/**
 * Lists, opens, is told of what happens, answers, and finds its place again.
 *
 * @param begin an order that waits for its approval
 * @throws what it does not do
 */
export async function useConsole(host: Host, begin: () => Promise<{ id: string }>): Promise<void> {
  await using browser = await openBrowser();
  const refused = await fetch(`${host.base}/admin`);
  if (refused.status !== 401) throw new Error(`who is not signed in gets ${refused.status} of the console`);
  const context = await browser.newContext();
  await context.addCookies([{ name: "session", value: "s-1", url: host.base }]);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  const { id } = await begin();

  const answer = await page.goto(`${host.base}/admin`);
  const policies = (await answer?.headerValue("content-security-policy")) ?? "";
  if (!policies.includes("object-src 'none'; base-uri 'none'"))
    throw new Error(`the host's policy is gone: ${policies}`);
  await page.locator(`a[href*="${id}"]`).first().click();
  await page.getByText("It waits for an answer").first().waitFor();
  const deep = page.url();

  await approve(page);
  // It is told of the end by its stream of events: nobody reloads.
  await page.getByText("It completed").first().waitFor();
  await page.reload();
  await page.getByText("It completed").first().waitFor();
  const other = await context.newPage();
  await other.goto(deep);
  await other.getByText("It completed").first().waitFor();
  await page.goBack();
  await page.locator(`a[href*="${id}"]`).first().waitFor();

  await host.until(`/orders/${id}`, { status: "completed", state: { charged: 1, shipped: true } });
  if (complaints.length > 0) throw new Error(`the browser complains: ${complaints.join("; ")}`);
}

async function approve(page: Page): Promise<void> {
  const yes = page.getByRole("button", { name: /yes|true/i }).first();
  await yes.click();
}
