/** Flows that processes of their own run: they write what they do outside into a file. */
import { appendFileSync } from "node:fs";
import { defineFlow } from "../../src/index.ts";

export const careful = defineFlow("careful");
careful
  .to("charge", async (ctx) => {
    await ctx.step("bank", (_signal, key) => outside("bank", key));
    await ctx.sleep("1d");
  })
  .to("ask", (ctx) => ctx.pauseFor())
  .to("mail", (ctx) => outside("mail", ctx.idempotencyKey));

export const careless = defineFlow("careless");
careless.to("charge", () => outside("charge", crypto.randomUUID()));

export const mocked = defineFlow("mocked");
mocked.to("real", () => {
  throw new Error("no bank in a test");
});

export const mocks = { mocked: { real: () => "mocked" } };

function outside(what: string, key: string): void {
  const file = process.env["OUTSIDE"];
  if (file) appendFileSync(file, `${what} ${key}\n`);
}
