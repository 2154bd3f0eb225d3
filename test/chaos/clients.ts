/** Clients of a run: they start, emit, cancel, close and read, and write down what was acknowledged before they go on. */
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Execution, Flow, Json, Orchestrator } from "../../src/index.ts";
import { pokeEvent } from "./flows.ts";
import type { Random } from "./random.ts";

export interface Acknowledged {
  readonly starts: Map<string, { id: string; flow: string; n: number; staysOpen: boolean }>;
  /** Texts of pokes, by execution. */
  readonly pokes: Map<string, string[]>;
  readonly cancels: Set<string>;
  readonly streams: { id: string; seen: Json[]; isDone: boolean }[];
  calls: number;
  failures: number;
}

export class Clients {
  readonly acknowledged: Acknowledged = {
    starts: new Map(),
    pokes: new Map(),
    cancels: new Set(),
    streams: [],
    calls: 0,
    failures: 0,
  };
  readonly #orchestrator: Orchestrator;
  readonly #flows: readonly Flow[];
  readonly #random: Random;
  readonly #log: number;
  #isOver = false;
  #open: { execution: Execution; staysOpen: boolean }[] = [];
  #tasks: Promise<unknown>[] = [];
  #readers: Promise<unknown>[] = [];
  #names = 0;

  constructor(orchestrator: Orchestrator, flows: readonly Flow[], random: Random, logPath: string) {
    this.#orchestrator = orchestrator;
    this.#flows = flows;
    this.#random = random;
    this.#log = openSync(logPath, "w");
  }

  /** Runs until `stop`. */
  start(): void {
    this.#tasks = [
      ...Array.from({ length: 3 }, () => this.#starting()),
      ...Array.from({ length: 3 }, () => this.#poking()),
      this.#cancelling(),
    ];
    this.#readers = Array.from({ length: 4 }, () => this.#reading());
  }

  /** One of those that were started last. */
  anyOpen(): Execution | undefined {
    return this.#open.length > 0 ? this.#random.pick(this.#open).execution : undefined;
  }

  /** Nothing new; what is under way is finished, and everything that stays open is closed. */
  async stop(): Promise<void> {
    this.#isOver = true;
  }

  async finish(): Promise<void> {
    await Promise.all(this.#tasks);
    for (const { execution, staysOpen } of this.#open)
      if (staysOpen) await this.#retryTransient(() => execution.seal());
    await Promise.all(this.#readers);
    closeSync(this.#log);
  }

  /** Tries again until somebody has answered: an error or silence says nothing about what happened. */
  async #retryTransient<T>(call: () => Promise<T>): Promise<T | null> {
    for (;;) {
      this.acknowledged.calls += 1;
      const answer = call().catch((error: unknown) => (isRefusal(error) ? null : failed));
      const given = await Promise.race([answer, delay(5000, failed)]);
      if (given !== failed) return given as T | null;
      this.acknowledged.failures += 1;
      await delay(this.#random.between(20, 300));
    }
  }

  async #starting(): Promise<void> {
    while (!this.#isOver) {
      const flow = this.#random.pick(this.#flows);
      const n = this.#random.between(0, 2);
      const staysOpen = this.#random.chance(0.2);
      const idempotencyKey = `start ${++this.#names}`;
      const execution = await this.#retryTransient(() =>
        this.#orchestrator
          .flow(flow)
          .startExecution({ n }, { idempotencyKey, metadata: { n }, autoCloseTimeout: staysOpen ? null : 0 }),
      );
      if (execution) {
        this.#write({ start: execution.id, idempotencyKey });
        this.acknowledged.starts.set(idempotencyKey, { id: execution.id, flow: flow.name, n, staysOpen });
        this.#open.push({ execution: execution as Execution, staysOpen });
        const closing = this.#open.filter((open) => open.staysOpen);
        if (closing.length > 40) await this.#seal(closing[0]?.execution);
        if (this.#open.length > 150)
          this.#open.splice(0, 30, ...this.#open.slice(0, 30).filter((open) => open.staysOpen));
      }
      await delay(this.#random.between(60, 180));
    }
  }

  async #seal(execution: Execution | undefined): Promise<void> {
    if (!execution) return;
    this.#open = this.#open.filter((open) => open.execution !== execution);
    await this.#retryTransient(() => execution.seal());
  }

  /** Bursts, because what comes in while an owner lets go is what may get lost. */
  async #poking(): Promise<void> {
    while (!this.#isOver) {
      const open = this.#open.length > 0 ? this.#random.pick(this.#open) : null;
      for (let burst = open?.staysOpen ? this.#random.between(2, 6) : 1; open && burst > 0; burst--) {
        const text = `poke ${++this.#names}`;
        const { execution } = open;
        const sent = await this.#retryTransient(async () => {
          await execution.emit(pokeEvent, text, { idempotencyKey: text });
          return true;
        });
        if (sent) {
          this.#write({ poke: execution.id, text });
          this.acknowledged.pokes.set(execution.id, [...(this.acknowledged.pokes.get(execution.id) ?? []), text]);
        }
        await delay(this.#random.between(1, 25));
      }
      await delay(this.#random.between(20, 120));
    }
  }

  async #cancelling(): Promise<void> {
    while (!this.#isOver) {
      await delay(this.#random.between(500, 1500));
      const open = this.#open.length > 0 ? this.#random.pick(this.#open) : null;
      if (open && (await this.#retryTransient(() => open.execution.cancel("chaos")))) {
        this.#write({ cancel: open.execution.id });
        this.acknowledged.cancels.add(open.execution.id);
      }
    }
  }

  /** Reads one stream after another to its end, going on from its cursor after every trouble. */
  async #reading(): Promise<void> {
    while (!this.#isOver) {
      const { execution, staysOpen } = this.#open.at(-1) ?? {};
      if (!execution || staysOpen) {
        await delay(100);
        continue;
      }
      const reader = { id: execution.id, seen: [] as Json[], isDone: false };
      this.acknowledged.streams.push(reader);
      const end = performance.now() + 60_000;
      while (!reader.isDone && performance.now() < end) {
        try {
          const signal = AbortSignal.timeout(Math.max(0, Math.ceil(end - performance.now())));
          for await (const item of execution.getRuntimeStream({ from: reader.seen.length, timeout: null, signal }))
            reader.seen.push(item);
          reader.isDone = !signal.aborted;
        } catch {
          await delay(100);
        }
      }
    }
  }

  #write(entry: object): void {
    writeSync(this.#log, `${JSON.stringify(entry)}\n`);
    fsyncSync(this.#log);
  }
}

const failed = Symbol("failed");

function isRefusal(error: unknown): boolean {
  if (typeof error !== "object" || error === null || !("code" in error)) return false;
  return error.code === "EXECUTION_CLOSED" || error.code === "EXECUTION_SEALED";
}
