/** `ctx.sleep()` until a date. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

test("a sleep until a date ends exactly then, through parks; one that is over does not wait; a wrong one is refused", async () => {
  const flow = defineFlow("sleepUntil");
  flow.to("nap", async (ctx) => {
    await ctx.sleep(new Date("2020-01-01T00:00Z"));
    await ctx.sleep(new Date("2026-03-01T12:00:00.500Z"));
    await ctx.setState("woken", true);
    await ctx.sleep(new Date("never")).catch((error: Error) => ctx.setState("refused", error.message));
  });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow);
  await run.until("idle");
  await t.clock.set("2026-03-01T12:00:00.499Z");
  expect(await run.result.getState("woken")).toBe(null);

  await t.clock.set("2026-03-01T12:00:00.500Z");

  expect(await run.until("closed")).toEqual({
    woken: true,
    refused: expect.stringContaining('is not a moment for sleep in chunk "nap"'),
  });
  expect(await run.history({ types: ["sleep.started"] })).toMatchObject([
    { forMs: 0 },
    { until: Date.parse("2026-03-01T12:00:00.500Z") },
  ]);
  expect(await t.orchestrator.verify({ id: run.id })).toEqual([]);
});
