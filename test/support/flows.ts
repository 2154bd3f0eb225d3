/** Flows at work in a test: an orchestrator with its worker, gates that chunks wait at, and events to wait for. */
import { setTimeout as sleep } from "node:timers/promises";
import { createOrchestrator } from "../../src/index.ts";
import type {
  Execution,
  FlowDefinition,
  LedgerEvent,
  Orchestrator,
  OrchestratorOptions,
  WorkerOptions,
} from "../../src/index.ts";
import type { TestDatabase } from "./database.ts";

/** An orchestrator with a worker that serves these flows; `await using` ends both. */
export async function serving(
  database: TestDatabase,
  flows: readonly FlowDefinition[],
  options: OrchestratorOptions = {},
  worker: WorkerOptions = {},
): Promise<Orchestrator> {
  const orchestrator = visiting(database, flows, options);
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms", ...worker });
  return orchestrator;
}

/** An orchestrator without a worker: another process that starts, sends and reads. */
export function visiting(
  database: TestDatabase,
  flows: readonly FlowDefinition[] = [],
  options: OrchestratorOptions = {},
): Orchestrator {
  return createOrchestrator({ connection: database.url, flows, ...options });
}

type Handle = Pick<Execution, "history">;

/** The first ledger event of a type, now or later; what the ledger has when it does not come. */
export async function untilEvent<T extends LedgerEvent["type"]>(
  execution: Handle,
  type: T,
  matches: (event: Extract<LedgerEvent, { type: T }>) => boolean = () => true,
): Promise<Extract<LedgerEvent, { type: T }>> {
  const deadline = performance.now() + 8000;
  while (performance.now() < deadline) {
    for (const event of await execution.history({ types: [type] })) {
      const found = event as unknown as Extract<LedgerEvent, { type: T }>;
      if (matches(found)) return found;
    }
    await sleep(5);
  }
  const ledger = await execution.history();
  throw new Error(`no ${type} within 8 s in\n${ledger.map((event) => JSON.stringify(event)).join("\n")}`);
}

/** An execution that its parent has in its ledger, and may not have created yet. */
export async function untilThere(orchestrator: Orchestrator, id: string): Promise<Execution> {
  const deadline = performance.now() + 8000;
  for (;;) {
    const found = await orchestrator.getExecution(id).catch((error: unknown) => {
      if (performance.now() > deadline) throw error;
    });
    if (found) return found;
    await sleep(5);
  }
}

/** Opens by hand, so that a test decides when a chunk goes on. */
export interface Gate {
  readonly passed: Promise<void>;
  open(): void;
}

export function newGate(): Gate {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { passed: promise, open: resolve };
}

/** How many are inside at once, at most. */
export class Crowd {
  most = 0;
  #now = 0;

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#now += 1;
    this.most = Math.max(this.most, this.#now);
    try {
      return await work();
    } finally {
      this.#now -= 1;
    }
  }
}

/** What `work` warned of, by code; the warnings of the process arrive a tick later. */
export async function warningsOf(work: () => Promise<unknown>): Promise<{ code: string; message: string }[]> {
  const heard: { code: string; message: string }[] = [];
  const listen = (warning: Error & { code?: string }) =>
    void heard.push({ code: warning.code ?? warning.name, message: warning.message });
  process.on("warning", listen);
  try {
    await work();
    await sleep(0);
  } finally {
    process.off("warning", listen);
  }
  return heard;
}

/** All items of a stream, in order. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** The error that a promise ends in. */
export async function refusal(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("expected a rejection");
}
