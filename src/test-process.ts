/** A process that `crashEverywhere({ process })` kills: one worker on the clock of the test, and orders from its stdin. */
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { z } from "zod";
import { UsageError } from "./base/errors.ts";
import { isObject } from "./base/json.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import { internals } from "./orchestrator.ts";
import type { FunctionDefinition } from "./orchestrator/options.ts";
import { TestOrchestrator } from "./test.ts";
import { Cutter } from "./test/crash.ts";
import { withMocks } from "./test/mocks.ts";
import { Order, ProcessTask, reportsOn, type Report } from "./test/process.ts";

const Mocks = z.record(z.string(), z.record(z.string(), z.unknown()));

/** A process's whole life: it ends with its stdin, or where it is told to. */
export async function serveTestProcess(text: string | undefined): Promise<void> {
  try {
    await serve(ProcessTask.parse(JSON.parse(text ?? "")));
  } catch (error) {
    say({ is: "failed", problem: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
}

async function serve(task: ProcessTask): Promise<void> {
  const { flows, functions, mocks } = await load(task);
  // Nothing is flushed, and nobody is told.
  const cutter = new Cutter(() => process.kill(process.pid, "SIGKILL"));
  const kit = await TestOrchestrator.open(
    {
      flows: withMocks(flows, mocks),
      functions,
      database: task.database,
      begin: new Date(0),
      workers: 1,
      patienceMs: task.patienceMs,
    },
    // At once: what is said later may never be said.
    { committer: cutter.wrap, onBegin: (begun) => say({ is: "begun", begun }) },
  );
  const [worker] = kit.orchestrator[internals].workers;
  if (!worker) throw new Error("there is no worker");
  worker.inside.crash();
  const orders = createInterface({ input: process.stdin });
  orders.on("close", () => process.exit(0));
  orders.on("line", (line) => {
    const order = Order.parse(JSON.parse(line));
    if (order.do === "arm") cutter.arm(order.from, order.at);
    else if (order.do === "work") worker.inside.revive();
    else if (order.do === "rest") worker.inside.crash();
    say({ is: "done", commits: [...cutter.commits] });
  });
  say({ is: "ready", worker: worker.id });
}

/** @throws {UsageError} what is wrong with the module, in words */
async function load({ module, flow, hasMocks }: ProcessTask) {
  const exported: unknown = await import(module).catch((error: unknown) => {
    throw new UsageError(
      `the module that flow "${flow}" comes from cannot be imported by a process of its own (${module}: ${String(error)})`,
      'put the flow into a module without tests, and name it: { process: new URL("./flows.ts", import.meta.url) }',
    );
  });
  const values = isObject(exported) ? Object.values(exported) : [];
  const all = values.flatMap((value: unknown) => (Array.isArray(value) ? (value as unknown[]) : [value]));
  const flows = all.filter(isFlow);
  if (!flows.some(({ name }) => name === flow))
    throw new UsageError(
      `${module} does not export flow "${flow}"`,
      "export it, so that a process of its own finds it",
    );
  const mocks = Mocks.safeParse(isObject(exported) ? exported["mocks"] : undefined);
  if (hasMocks && !mocks.success)
    throw new UsageError(
      "the mocks of this test cannot go into a process of its own, where the real handlers would run",
      `export them as mocks from ${module}`,
    );
  return { flows, functions: all.filter(isFunction), mocks: mocks.data ?? {} };
}

function isFlow(value: unknown): value is FlowDefinition {
  return (
    typeof value === "object" && value !== null && "fingerprint" in value && "graph" in value && "contract" in value
  );
}

function isFunction(value: unknown): value is FunctionDefinition {
  return typeof value === "function" && "flow" in value && isFlow(value.flow);
}

/** Synchronously: the process may be gone in a moment. */
function say(report: Report): void {
  writeSync(reportsOn, `${JSON.stringify(report)}\n`);
}
