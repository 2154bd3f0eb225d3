/** What an operator feels who mends what failed by the thousands: commands of one bulk that are accepted in a second. */
import { createOrchestrator } from "../src/orchestrator.ts";
import { defineFlow } from "../src/flow/builder.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const size = 10_000;

export async function bulk(bench: Bench): Promise<Figure[]> {
  const state = { isMended: false };
  const flow = defineFlow("bench-bulk", {}, { onFailure: "park" });
  flow.to("charge", () => {
    if (!state.isMended) throw new Error("no carrier");
  });
  await using orchestrator = await openWorker(bench, [flow], 500);
  await using visitor = createOrchestrator({ connection: bench.url, flows: [flow] });
  const inputs = Array.from({ length: size }, () => null);
  await visitor.flow(flow).startMany(inputs, { autoCloseTimeout: 0 });
  const parked = async () => (await visitor.countExecutions({ flow: flow.name, status: "parked", upTo: size })).count;
  while ((await parked()) < size) await new Promise((resolve) => setTimeout(resolve, 100));

  state.isMended = true;
  const began = performance.now();
  const asked = await orchestrator.bulk({
    action: "retry",
    where: { flow: flow.name },
    actor: "bench",
    reason: "bench",
  });
  const started = performance.now();
  const report = await asked.wait();
  const took = performance.now() - started;
  if (report.done !== size) throw new Error(`the bulk did ${report.done} of ${size}`);
  return [
    { name: "asking for a bulk over 10,000 executions", value: started - began, unit: "ms" },
    {
      name: "bulk retry of 10,000, commands accepted",
      value: size / (took / 1000),
      unit: "/s",
      target: { atLeast: 2000 },
    },
  ];
}
