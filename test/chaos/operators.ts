/** Operators of a run: they retry, skip, edit, pause, redrive and ask for bulks, and write down what was acknowledged. */
import { writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type postgres from "postgres";
import type { Execution, Flow, Orchestrator } from "../../src/index.ts";
import { mendedFile, operatedNames } from "./operated.ts";
import type { Random } from "./random.ts";

type Kind = "retry" | "skip" | "edit" | "pause" | "unpause" | "redrive" | "answer";

/** What an operator was told: each asks under a reason of its own. */
export interface Told {
  readonly kind: Kind;
  readonly id: string;
  readonly actor: string;
  readonly reason: string;
  /** What a skip or an answer gave. */
  readonly token: string;
}

export class Operators {
  readonly told: Told[] = [];
  calls = 0;
  failures = 0;
  readonly #orchestrator: Orchestrator;
  readonly #flows: readonly Flow[];
  readonly #others: () => Execution | undefined;
  readonly #random: Random;
  readonly #folder: string;
  #open: Execution[] = [];
  #isOver = false;
  #tasks: Promise<unknown>[] = [];
  #names = 0;

  /** @param others an execution of the clients: those are paused too */
  constructor(
    orchestrator: Orchestrator,
    flows: readonly Flow[],
    others: () => Execution | undefined,
    random: Random,
    folder: string,
  ) {
    this.#orchestrator = orchestrator;
    this.#flows = flows;
    this.#others = others;
    this.#random = random;
    this.#folder = folder;
  }

  start(): void {
    this.#tasks = [
      this.#forever(80, 250, () => this.#begin()),
      ...Array.from({ length: 3 }, () => this.#forever(10, 60, () => this.#operate())),
      this.#forever(150, 600, () => this.#pausing()),
      this.#forever(800, 2000, () => this.#bulk()),
    ];
  }

  stop(): void {
    this.#isOver = true;
  }

  /** The service is mended; what operators have under way is finished. */
  async finish(): Promise<void> {
    writeFileSync(mendedFile(this.#folder), "");
    await Promise.all(this.#tasks);
  }

  async #forever(least: number, most: number, work: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      await work();
      await delay(this.#random.between(least, most));
    }
  }

  /** One try: what it gave, or the code that it was refused with. Null says that it is unknown what became of it. */
  async #ask<T>(call: () => Promise<T>): Promise<{ readonly value: T } | string | null> {
    this.calls += 1;
    const answer = call().then((value) => ({ value }), refusalOf);
    const given = await Promise.race([answer, delay(5000, null)]);
    if (given === null) this.failures += 1;
    return given;
  }

  async #begin(): Promise<void> {
    // The first parks.
    const flow = this.#random.chance(0.4) ? this.#flows[0] : this.#random.pick(this.#flows);
    if (!flow) return;
    const idempotencyKey = `operated ${++this.#names}`;
    for (;;) {
      const given = await this.#ask(() =>
        this.#orchestrator.flow(flow).startExecution(null, { idempotencyKey, autoCloseTimeout: 0 }),
      );
      if (given !== null && typeof given === "object") this.#open = [...this.#open.slice(-40), given.value];
      if (given !== null || this.#isOver) return;
    }
  }

  async #tell(kind: Kind, execution: Execution, call: (by: Told) => Promise<unknown>): Promise<boolean | null> {
    const name = ++this.#names;
    const by: Told = {
      kind,
      id: execution.id,
      actor: `operator ${name % 5}`,
      reason: `why ${name}`,
      token: `given ${name}`,
    };
    const given = await this.#ask(() => call(by));
    if (given === null) return null;
    if (typeof given === "object") this.told.push(by);
    // Only what failed is of use once it has closed.
    if (given === "EXECUTION_CLOSED")
      this.#open = this.#open.filter((one) => one !== execution || one.flow === operatedNames.fails);
    return typeof given === "object";
  }

  async #operate(): Promise<void> {
    const execution = this.#open.length > 0 ? this.#random.pick(this.#open) : undefined;
    if (!execution) return;
    const by = ({ actor, reason }: Told) => ({ actor, reason });
    switch (this.#random.pick(["retry", "retry", "retry", "skip", "edit", "redrive", "answer"] as const)) {
      case "retry":
        await this.#tell("retry", execution, (told) => execution.retry(by(told)));
        return;
      case "skip":
        // Items are several, and an output is for one.
        await this.#tell("skip", execution, (told) =>
          execution.skip({ chunk: this.#random.chance(0.5) ? "two" : "ask", output: told.token, ...by(told) }),
        );
        return;
      case "edit":
        await this.#tell("edit", execution, (told) =>
          execution.editState({ set: { [`edits.${told.token}`]: told.token } }, by(told)),
        );
        return;
      case "answer":
        await this.#tell("answer", execution, (told) =>
          execution.continueWith("boss", told.token, { actor: told.actor, onlyIfPending: true }),
        );
        return;
      case "redrive":
        await this.#tell("redrive", execution, async (told) => {
          const next = await execution.redrive(by(told));
          this.#open.push(next);
        });
    }
  }

  /** What an operator has paused goes on again, whatever has to be tried for it. */
  async #pausing(): Promise<void> {
    const execution = this.#random.chance(0.5)
      ? this.#others()
      : this.#open.length > 0
        ? this.#random.pick(this.#open)
        : undefined;
    if (!execution) return;
    const by = ({ actor, reason }: Told) => ({ actor, reason });
    const isPaused = await this.#tell("pause", execution, (told) => execution.pause(by(told)));
    if (isPaused === false) return;
    await delay(this.#random.between(20, 800));
    while ((await this.#tell("unpause", execution, (told) => execution.unpause(by(told)))) === null) await delay(100);
  }

  async #bulk(): Promise<void> {
    const name = ++this.#names;
    const action = this.#random.pick(["retry", "retry", "skip", "pause", "unpause", "redrive"] as const);
    const flow = { redrive: operatedNames.fails, skip: operatedNames.parks }[action as string];
    await this.#ask(() =>
      this.#orchestrator.bulk({
        action,
        where: { flow: flow ?? this.#random.pick(this.#flows).name },
        ...(action === "skip" ? { options: { chunk: "two", output: "by bulk" } } : {}),
        ...(this.#random.chance(0.3) ? { rate: { limit: this.#random.between(10, 40), per: "500ms" } } : {}),
        actor: `operator ${name % 5}`,
        reason: `bulk ${name}`,
      }),
    );
    // It paused some.
    if (action === "pause")
      while ((await this.#ask(() => this.#unpauseAll(name))) === null) await delay(this.#random.between(100, 500));
  }

  async #unpauseAll(name: number): Promise<void> {
    const where = { flow: Object.values(operatedNames) };
    await this.#orchestrator.bulk({ action: "unpause", where, actor: "operator 0", reason: `bulk ${name}` });
  }
}

/** What is left when nobody operates any more: it is unpaused, retried and answered. */
export async function tidy(sql: postgres.Sql): Promise<void> {
  const by = sql.json({ actor: "operator 0", reason: "end of the run" });
  const skip = sql.json({ actor: "operator 0", reason: "end of the run", chunk: "ask", output: "late" });
  for (const statement of [
    sql`select flowledger.unpause(e.id, ${by}) from flowledger.executions e where e.closed_at is null and exists (select from flowledger.pause_of(e.id))`,
    sql`select flowledger.retry(e.id, ${by}) from flowledger.executions e where e.closed_at is null and e.parked > 0`,
    sql`select flowledger.skip(i.execution_id, ${skip}) from flowledger.interrupts i where i.status = 'pending' and i.id = 'boss'`,
  ])
    // Somebody was there first.
    await statement.catch(() => []);
}

const refusals = new Set(["EXECUTION_CLOSED", "EXECUTION_SEALED", "USAGE_INVALID", "INTERRUPT_NOT_PENDING"]);

function refusalOf(error: unknown): string | null {
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  return refusals.has(code) ? code : null;
}
