/** Where one history plays: its name, orchestrators of its own, and how to wait until nobody has anything to do. */
import { setTimeout as sleep } from "node:timers/promises";
import type postgres from "postgres";
import type { FlowDefinition, Orchestrator, OrchestratorOptions } from "../../src/index.ts";
import type { TestDatabase } from "../support/database.ts";
import { serving, visiting } from "../support/flows.ts";

/** Flows named after the history, or `<history>.<part>`, and what drives executions of them. */
export type History = (stage: Stage) => {
  /** One worker serves those of all histories. @default none: the history has workers of its own */
  readonly flows?: readonly FlowDefinition[];
  readonly drive: (orchestrator: Orchestrator) => Promise<void>;
};

export class Stage implements AsyncDisposable {
  readonly name: string;
  readonly sql: postgres.Sql;
  readonly #database: TestDatabase;
  readonly #orchestrators: Orchestrator[] = [];

  constructor(database: TestDatabase, name: string) {
    this.#database = database;
    this.name = name;
    this.sql = database.sql;
  }

  /** An orchestrator with a worker of its own, which lives until the history is over. */
  async serve(flows: readonly FlowDefinition[], options: OrchestratorOptions = {}): Promise<Orchestrator> {
    const orchestrator = await serving(this.#database, flows, { logger: silent, ...options });
    this.#orchestrators.push(orchestrator);
    return orchestrator;
  }

  /** One without a worker. */
  visit(flows: readonly FlowDefinition[]): Orchestrator {
    const orchestrator = visiting(this.#database, flows, { logger: silent });
    this.#orchestrators.push(orchestrator);
    return orchestrator;
  }

  /**
   * Resolves when no worker has, or is about to take, the execution; without one, any of the history. What comes in from
   * outside before that may find its owner or not, and the next claim is an event.
   */
  async rest(execution?: { readonly id: string }): Promise<void> {
    // A sweep looks every five seconds for what was left over.
    const deadline = performance.now() + 15_000;
    for (;;) {
      const busy = await this.sql`
        select id, flow, epoch, owner, wake_at, closed_at from flowledger.executions
        where (flow = ${this.name} or starts_with(flow, ${`${this.name}.`})) and id = coalesce(${execution?.id ?? null}::uuid, id)
          and (owner is not null or wake_at <= clock_timestamp())`;
      if (busy.length === 0) return;
      if (performance.now() > deadline) throw new Error(`not at rest within 15 s: ${JSON.stringify(busy)}`);
      await sleep(5);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const orchestrator of this.#orchestrators.splice(0)) await orchestrator.close();
  }
}

export const silent = { debug() {}, info() {}, warn() {}, error() {} };
