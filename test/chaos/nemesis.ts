/** What goes wrong, when and to whom: all of it chosen by one seed. */
import { setTimeout as delay } from "node:timers/promises";
import type postgres from "postgres";
import type { EmbeddedPostgres } from "../../src/embedded.ts";
import type { FleetWorker } from "./fleet.ts";
import type { Proxy } from "./proxy.ts";
import type { Random } from "./random.ts";

export const faultWeights = {
  kill: 5,
  freeze: 2,
  block: 1,
  muteHeartbeat: 2,
  terminate: 4,
  terminateListener: 2,
  cut: 2,
  slow: 3,
  loseAnswer: 8,
  blackhole: 2,
  restart: 1,
  dropJobs: 3,
  doubleJobs: 3,
  deafen: 3,
};
export type FaultName = keyof typeof faultWeights;

/** Longer than it may take until a worker that stands still is given up. */
const beyondSilenceMs = 15_500;
/** No takeover of a worker that stands still may take longer than this. */
export const blockMs = 22_000;

/**
 * "in trouble": other workers are down or cut off as well, or Postgres has just restarted and every worker has lost its
 * lock, so that only silence tells the dead.
 */
export type TakeoverKind = "kill" | "kill in trouble" | "freeze" | "block";

export interface Takeovers {
  /** Executions that a worker owned when it died or froze: whoever claims them next ends the takeover. */
  readonly lost: {
    readonly kind: TakeoverKind;
    readonly id: string;
    readonly epoch: number;
    readonly at: Date;
  }[];
}

export class Nemesis {
  readonly counts: Record<string, number> = {};
  readonly takeovers: Takeovers = { lost: [] };
  readonly restartMs: number[] = [];
  /** Workers that stood still, and when the others gave them up; null when they did not. */
  readonly givenUp: { readonly kind: "freeze" | "block"; readonly id: string; readonly ms: number | null }[] = [];
  readonly #world: World;
  readonly #weights: Record<FaultName, number>;
  #busy = new Set<FleetWorker>();
  #under: Promise<unknown>[] = [];
  #isOver = false;
  #restarts = 0;
  #restartedAt = -Infinity;
  #silences = 0;

  constructor(world: World, extra: Partial<Record<FaultName, number>>) {
    this.#world = world;
    this.#weights = { ...faultWeights };
    for (const [name, weight] of Object.entries(extra)) this.#weights[name as FaultName] += weight;
  }

  /** Faults until the time is up; those that a run must have come early. */
  async run(untilMs: number, first: readonly FaultName[]): Promise<void> {
    const { random } = this.#world;
    const planned = [...first];
    await delay(3000);
    while (performance.now() < untilMs) {
      const name = planned.shift() ?? this.#choose();
      this.#under.push(this.#strike(name).catch((error: unknown) => this.#count(`${name} (failed: ${String(error)})`)));
      await delay(random.between(200, 1400));
    }
    this.#isOver = true;
    await Promise.all(this.#under);
  }

  #choose(): FaultName {
    const entries = Object.entries(this.#weights) as [FaultName, number][];
    let left = this.#world.random.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) if ((left -= weight) <= 0) return name;
    return "kill";
  }

  #count(name: string, by = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + by;
  }

  async #strike(name: FaultName): Promise<void> {
    const { random, fleet, sql, postgres } = this.#world;
    const free = fleet.filter((worker) => !this.#busy.has(worker) && worker.id !== null);
    const target = random.pick(free.length > 0 ? free : fleet);
    const proxy = random.chance(0.75) ? target.proxy : this.#world.clientProxy;
    switch (name) {
      case "kill":
        if (free.length === 0) return;
        return this.#holding(target, async () => {
          await this.#noteOwned(this.#isAlone() ? "kill" : "kill in trouble", target);
          target.kill();
          this.#count(name);
          await delay(random.between(200, 1500));
          target.start();
          await until(() => target.id !== null);
        });
      case "freeze":
      case "block":
        // At least one worker stays on its feet.
        if (free.length < 2 || this.#busy.size > 1) return;
        return this.#holding(target, async () => {
          await this.#noteOwned(name, target);
          if (name === "freeze") target.freeze();
          else target.block(blockMs);
          this.#count(name);
          await this.#untilGivenUp(name, target.id, name === "freeze" ? beyondSilenceMs : blockMs);
          if (name === "freeze") target.thaw();
          await delay(1000);
        });
      case "muteHeartbeat":
        if (free.length < 2) return;
        return this.#holding(target, async () => {
          target.proxy.silence((connection) => connection.name === "flowledger heartbeat");
          this.#count(name);
          // New heartbeat connections die as well, until the others have given the worker up.
          for (let turn = 0; turn < 24 && !this.#isOver; turn++) {
            await delay(500);
            target.proxy.silence((connection) => connection.name === "flowledger heartbeat");
          }
          target.proxy.heal();
        });
      case "terminate":
      case "terminateListener": {
        const rows = await sql<{ done: boolean }[]>`
          select pg_terminate_backend(pid) as done from (
            select pid from pg_stat_activity
            where application_name like 'flowledger%' and datname = current_database()
              and (${name === "terminate"} or query ilike 'listen%')
            order by random() limit ${name === "terminate" ? 3 : 4}) chosen`;
        return this.#count(name, rows.length);
      }
      case "cut":
        proxy.cutAll();
        return this.#count(name);
      case "slow":
        proxy.delayMs = random.between(50, 300);
        this.#count(name);
        await this.#pause(random.between(500, 2500));
        proxy.delayMs = 0;
        return;
      case "loseAnswer":
        // The client's answers are lost as well: those of its starts.
        if (proxy === this.#world.clientProxy) proxy.loseAnswerOf("flowledger.create_executions(");
        else proxy.loseAnswerOf(random.chance(0.75) ? "flowledger.append(" : "flowledger.claim(");
        return this.#count(name);
      case "blackhole":
        proxy.silence(() => random.chance(0.5));
        this.#count(name);
        this.#silences += 1;
        await this.#pause(random.between(1000, 4000));
        this.#silences -= 1;
        proxy.heal();
        return;
      case "restart":
        if (this.#restarts >= 2) return;
        this.#restarts += 1;
        await postgres.restart("immediate");
        this.#restartedAt = performance.now();
        this.#count(name);
        this.restartMs.push(await untilCommits(sql));
        return;
      case "dropJobs": {
        const rows = await sql`
          delete from flowledger_jobs._private_jobs where id in (
            select id from flowledger_jobs._private_jobs where locked_by is null order by random() limit 10) returning id`;
        return this.#count(name, rows.length);
      }
      case "doubleJobs": {
        const rows = await sql`
          select flowledger_jobs.add_job(t.identifier, j.payload) from flowledger_jobs._private_jobs j
          join flowledger_jobs._private_tasks t on t.id = j.task_id order by random() limit 10`;
        return this.#count(name, rows.length);
      }
      case "deafen": {
        const all = [...fleet.map((worker) => worker.proxy), this.#world.clientProxy];
        for (const each of all) each.isDeaf = true;
        this.#count(name);
        await this.#pause(random.between(1000, 3000));
        for (const each of all) each.isDeaf = false;
      }
    }
  }

  /** Notes how long the others take to give up a worker that stands still. */
  async #untilGivenUp(kind: "freeze" | "block", id: string | null, ms: number): Promise<void> {
    const began = performance.now();
    const rest = this.#pause(ms);
    let givenUpMs: number | null = null;
    while (givenUpMs === null && performance.now() - began < ms) {
      const rows = await this.#world.sql`select 1 as known from flowledger.workers where id = ${id}::uuid`.catch(
        () => null,
      );
      if (rows?.length === 0) givenUpMs = performance.now() - began;
      else await delay(100);
    }
    this.givenUp.push({ kind, id: id ?? "", ms: givenUpMs });
    await rest;
  }

  #isAlone(): boolean {
    return this.#busy.size === 1 && this.#silences === 0 && performance.now() - this.#restartedAt > 12_000;
  }

  async #holding(worker: FleetWorker, work: () => Promise<void>): Promise<void> {
    this.#busy.add(worker);
    try {
      await work();
    } finally {
      this.#busy.delete(worker);
    }
  }

  async #noteOwned(kind: TakeoverKind, worker: FleetWorker): Promise<void> {
    const rows = await this.#world.sql<{ id: string; epoch: number; at: Date }[]>`
      select id, epoch, clock_timestamp() as at from flowledger.executions
      where owner = ${worker.id}::uuid and closed_at is null`;
    for (const row of rows) this.takeovers.lost.push({ kind, ...row });
  }

  /** The run's end cuts pauses short, except where somebody has to be given up first. */
  async #pause(ms: number): Promise<void> {
    const end = performance.now() + ms;
    while (performance.now() < end && !(this.#isOver && ms < 5000)) await delay(50);
  }
}

interface World {
  readonly random: Random;
  readonly sql: postgres.Sql;
  readonly postgres: EmbeddedPostgres;
  readonly fleet: readonly FleetWorker[];
  readonly clientProxy: Proxy;
}

/** Milliseconds from now until a worker has committed something. */
async function untilCommits(sql: postgres.Sql): Promise<number> {
  const began = performance.now();
  const deadline = began + 20_000;
  let before: number | null = null;
  while (performance.now() < deadline) {
    const rows = await sql<{ count: number }[]>`
      select count(*)::int as count from flowledger.ledger where type = 'chunk.completed'`.catch(() => []);
    const count = rows[0]?.count ?? null;
    before ??= count;
    if (count !== null && before !== null && count > before) break;
    await delay(20);
  }
  return performance.now() - began;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition() && performance.now() < deadline) await delay(20);
}
