import { expect, test } from "vitest";
import { testOrchestrator } from "flowledger/test";
import { order } from "./order.ts";

test("an order that was approved is shipped", async () => {
  await using t = await testOrchestrator({ flows: [order] });
  const run = await t.start(order, { amount: 900 });
  await run.until({ waiting: "approval" });
  await run.answer("approval", { approved: true });
  expect(await run.until("closed")).toEqual({ charged: 900, shipped: true });
});
