/** What traces cost: the same load without them, sampled out, and sampled in, in rounds that take turns. */
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from "@opentelemetry/sdk-trace-base";
import type { FlowDefinition } from "../src/flow/definition.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import { chain } from "./flows.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const pairs = 11;
const executions = 500;
const inFlight = 100;

export async function telemetry(bench: Bench): Promise<Figure[]> {
  let isSampling = false;
  const exporter: SpanExporter = {
    export: (_, done) => done({ code: 0 }),
    shutdown: async () => {},
  };
  const provider = new BasicTracerProvider({
    sampler: { shouldSample: () => ({ decision: isSampling ? 2 : 0 }), toString: () => "as the bench says" },
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  api.trace.setGlobalTracerProvider(provider);
  // A flow each, so that neither worker takes what is the other's.
  const flows = { off: chain(5, "untraced"), on: chain(5, "traced") };
  try {
    await using off = await openWorker(bench, [flows.off], inFlight, { telemetry: { trace: "off" } });
    await using on = await openWorker(bench, [flows.on], inFlight);
    const round = async (orchestrator: Orchestrator, flow: FlowDefinition) => {
      const bound = orchestrator.flow(flow);
      let left = executions;
      const loop = async () => {
        while (left-- > 0) await bound.start({ n: 0 });
      };
      const began = performance.now();
      await Promise.all(Array.from({ length: inFlight }, loop));
      return executions / (performance.now() - began);
    };
    const ratios: Record<"out" | "in", number[]> = { out: [], in: [] };
    for (let pair = -2; pair < pairs; pair++)
      for (const sampled of ["out", "in"] as const) {
        isSampling = sampled === "in";
        const [without, withTraces] = [await round(off, flows.off), await round(on, flows.on)];
        // The first rounds warm up.
        if (pair >= 0) ratios[sampled].push(withTraces / without);
      }
    return [
      figure("traces sampled out: rate to that without", ratios.out, 0.97),
      figure("traces sampled in: rate to that without", ratios.in, 0.9),
    ];
  } finally {
    api.trace.disable();
    api.context.disable();
    await provider.shutdown();
  }
}

function figure(name: string, ratios: readonly number[], atLeast: number): Figure {
  const sorted = ratios.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
  const note = `median of ${pairs} pairs of ${executions} 5-chunk executions, ${inFlight} in flight; ${at(0).toFixed(2)} to ${at(1).toFixed(2)}`;
  return { name, value: at(0.5), unit: "×", target: { atLeast }, note };
}
