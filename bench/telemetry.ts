/** What traces cost: the same load without them, sampled out, and sampled in, in rounds that take turns. */
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from "@opentelemetry/sdk-trace-base";
import type { FlowDefinition } from "../src/flow/definition.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import { cpuOfServer } from "./cpu.ts";
import { chain } from "./flows.ts";
import { middle } from "./kit.ts";
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
      const [began, server] = [performance.now(), await cpuOfServer(bench.serverPid())];
      const node = process.cpuUsage();
      await Promise.all(Array.from({ length: inFlight }, loop));
      const rate = executions / (performance.now() - began);
      const { user, system } = process.cpuUsage(node);
      const cpuMs =
        (user + system) / 1000 + (server === null ? 0 : ((await cpuOfServer(bench.serverPid())) ?? server) - server);
      return { rate, cpuMs: cpuMs / executions };
    };
    const none = () => ({ rate: [] as number[], cpu: [] as number[], without: [] as number[] });
    const found = { out: none(), in: none() };
    for (let pair = -2; pair < pairs; pair++)
      for (const sampled of ["out", "in"] as const) {
        isSampling = sampled === "in";
        const [without, withTraces] = [await round(off, flows.off), await round(on, flows.on)];
        // The first rounds warm up.
        if (pair < 0) continue;
        found[sampled].rate.push(withTraces.rate / without.rate);
        found[sampled].cpu.push(withTraces.cpuMs / without.cpuMs);
        found[sampled].without.push(without.cpuMs);
      }
    // A machine with others on it says little by the rate, and no less by the CPU.
    return (["out", "in"] as const).flatMap((sampled) => {
      const { rate, cpu, without } = found[sampled];
      const most = { out: 0.03, in: 0.1 }[sampled];
      const name = `traces sampled ${sampled}`;
      return [
        figure(`${name}: rate to that without`, rate, { atLeast: 1 - most }),
        figure(`${name}: CPU of Node and Postgres to that without`, cpu, { atMost: 1 + most }),
        { name: `${name}: CPU per execution without`, value: middle(without), unit: "ms" },
      ];
    });
  } finally {
    api.trace.disable();
    api.context.disable();
    await provider.shutdown();
  }
}

function figure(name: string, ratios: readonly number[], target: Figure["target"] & object): Figure {
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
  const note = `median of ${pairs} pairs of ${executions} 5-chunk executions, ${inFlight} in flight; ${least.toFixed(2)} to ${most.toFixed(2)}`;
  return { name, value: middle(ratios), unit: "×", target, note };
}
