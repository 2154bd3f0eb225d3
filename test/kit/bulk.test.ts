/** A bulk under the movable clock: its rate counts by that. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

test("a bulk with a rate of one an hour is through after its hours", async () => {
  const flow = defineFlow("kit.bulk").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using t = await kit({ flows: [flow] });
  for (let count = 0; count < 3; count++) await t.orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await t.settle();
  const bulk = await t.orchestrator.bulk({
    action: "cancel",
    where: { flow: "kit.bulk" },
    rate: { limit: 1, per: "1h" },
    actor: "ann",
    reason: "INC-12",
  });
  await t.settle();
  expect(await bulk.report()).toEqual({ matched: 3, done: 1, skipped: 0, failed: 0 });
  await t.clock.advance("30m");
  expect((await bulk.report()).done).toBe(1);
  await t.clock.advance("31m");
  expect((await bulk.report()).done).toBe(2);
  await t.clock.advance("2h");
  expect(await bulk.wait()).toEqual({ matched: 3, done: 3, skipped: 0, failed: 0 });
}, 60_000);
