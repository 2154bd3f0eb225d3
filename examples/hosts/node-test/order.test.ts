import assert from "node:assert/strict";
import { test } from "node:test";
import { testOrchestrator } from "flowledger/test";
import { order } from "./order.ts";

test("an order that was approved is shipped", async () => {
  await using t = await testOrchestrator({ flows: [order] });
  const run = await t.start(order, { amount: 900 });
  await run.until({ waiting: "approval" });
  await run.answer("approval", { approved: true });
  assert.deepEqual(await run.until("closed"), { charged: 900, shipped: true });
});
