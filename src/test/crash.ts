/** Cuts off the owner of an execution at each of its commits in turn, lets another worker take over, and asks whether all is well. */
import { parseDuration, type Duration } from "../base/duration.ts";
import { FlowledgerError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { CreateOptions } from "../execution/start-options.ts";
import type { Committer } from "../engine/committer.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Contract } from "../flow/contract.ts";
import type { Append } from "../store/append.ts";
import type { Violation } from "../store/verify.ts";
import type { BegunCode } from "./begun.ts";
import { CrashFoundError } from "./errors.ts";
import type { Driver } from "./driver.ts";
import type { TestRun } from "./run.ts";

/** Of `crashEverywhere()`. */
export interface CrashOptions {
  /** How each execution is started. @default as `start()` has it */
  readonly start?: Omit<CreateOptions, "id" | "idempotencyKey" | "tx" | "runtimeResources">;
  /**
   * Kills real processes with SIGKILL, in the place of workers of this one: `true`, or the module that exports the flow, and as
   * `mocks` what replaces its handlers. @default false; with true the module in which the flow was defined
   */
  readonly process?: boolean | string | URL;
  /** Called before each run: what a test counts by itself begins anew. @default nothing */
  readonly reset?: () => unknown;
}

/** Where a crash cuts a commit: it is never sent; it is sent, and nobody hears the answer; the answer is there, and nobody acts on it. */
export const phases = ["before", "in", "after"] as const;
export type Phase = (typeof phases)[number];

/** What a check is told of a run. */
export interface CrashContext {
  /** As `effects()` of the kit, for this run alone. */
  readonly effects: (name: string) => number;
  /** As `calls()` of the kit, for this run alone. */
  readonly calls: (name: string) => number;
  /** Where this run is cut, e.g. `before commit 2 of 5 (refund: step.completed "pay")`; null where it is not. */
  readonly boundary: string | null;
  /** As `clock.advance()` of the kit, on the clock of this run. */
  readonly advance: (duration: Duration) => Promise<void>;
}

/** What must hold of a run, wherever a worker was killed in it: throw where it does not. */
export type CrashCheck<C extends Contract = Contract> = (run: TestRun<C>, context: CrashContext) => unknown;

/** What `crashEverywhere` needs of the kit it works in, and of the processes that are cut. */
export interface Lab<C extends Contract> {
  readonly flow: string;
  readonly driver: Driver;
  readonly begun: BegunCode;
  newId(): ExecutionId;
  start(id: ExecutionId): Promise<TestRun<C>>;
  /** Before each run. */
  reset(): unknown;
  /** Cuts the execution with this id, or a later one, at a commit; without one it only counts. */
  arm(from: ExecutionId, at: { readonly commit: number; readonly phase: Phase } | null): Promise<void>;
  /** The commits since it was armed, in words; whatever was cut may go on again. */
  disarm(): Promise<readonly string[]>;
  verify(id: ExecutionId): Promise<Violation[]>;
}

/** So often time is let pass for one run. */
const maxStops = 10_000;

/** Resolves with the boundaries that were tried. @throws {CrashFoundError} naming the first that broke something */
export async function crashEverywhere<C extends Contract>(lab: Lab<C>, check: CrashCheck<C>): Promise<string[]> {
  // What fails without a crash is no finding of ours.
  const commits = await runOnce(lab, check, null);
  const tried: string[] = [];
  for (const [index, words] of commits.entries())
    for (const phase of phases) {
      const boundary = `${phase} commit ${index + 1} of ${commits.length} (${words})`;
      tried.push(boundary);
      try {
        await runOnce(lab, check, { commit: index + 1, phase, boundary });
      } catch (error) {
        throw new CrashFoundError(lab.flow, boundary, error instanceof Error ? error.message : String(error), error);
      }
    }
  return tried;
}

interface Cut {
  readonly commit: number;
  readonly phase: Phase;
  readonly boundary: string;
}

async function runOnce<C extends Contract>(
  lab: Lab<C>,
  check: CrashCheck<C>,
  cut: Cut | null,
): Promise<readonly string[]> {
  await lab.reset();
  const id = lab.newId();
  const since = lab.begun.mark;
  await lab.arm(id, cut);
  let commits: readonly string[] = [];
  let run: TestRun<C> | undefined;
  try {
    run = await lab.start(id);
    await goOn(lab.driver, run);
    await check(run, {
      effects: (name) => lab.begun.effects(name, since),
      calls: (name) => lab.begun.runs(name, since),
      boundary: cut?.boundary ?? null,
      advance: (duration) => lab.driver.moveBy(parseDuration(duration, "advance()")),
    });
    await lab.driver.settle();
  } finally {
    commits = await lab.disarm();
  }
  const violations = await lab.verify(id);
  if (violations.length > 0) throw new BrokenGuarantees(violations);
  // What the check left open does nothing more in the runs after it.
  if (await run.isOpen()) {
    await run.cancel("the check is done");
    await lab.driver.settle();
  }
  return commits;
}

class BrokenGuarantees extends FlowledgerError {
  constructor(violations: readonly Violation[]) {
    const words = violations.map(({ invariant, detail }) => `${invariant}: ${detail}`).join("; ");
    super("TEST_GUARANTEES_BROKEN", words, { violations });
  }
}

/** As far as it comes by itself: to its end, or to where somebody has to answer or to send something. */
async function goOn<C extends Contract>(driver: Driver, run: TestRun<C>): Promise<void> {
  for (let stops = 0; stops < maxStops; stops++) {
    await driver.settle();
    const isOver = !(await run.isOpen()) || (await run.getPendingInterrupts()).length > 0;
    if (isOver || !(await driver.next())) return;
  }
}

/** The committers of the workers of one process, and the one commit that does not come through. */
export class Cutter {
  readonly #crash: (worker: number) => void;
  #workers = 0;
  #from: ExecutionId | null = null;
  #at: { readonly commit: number; readonly phase: Phase } | null = null;
  #commits: string[] = [];

  /** @param crash drops whatever this worker holds, by its number in the order in which the workers began */
  constructor(crash: (worker: number) => void) {
    this.#crash = crash;
  }

  readonly wrap = (inner: Committer): Committer => {
    const worker = this.#workers++;
    return {
      commit: (item) => this.#pass(worker, item, () => inner.commit(item), new Promise<never>(() => {})),
      // A transaction that is never committed has to end, or its locks stay.
      record: (item, send) => this.#pass(worker, item, () => inner.record(item, send), null),
      close: () => inner.close(),
    };
  };

  arm(from: ExecutionId, at: { readonly commit: number; readonly phase: Phase } | null): void {
    this.#from = from;
    this.#at = at;
    this.#commits = [];
  }

  disarm(): void {
    this.#from = null;
  }

  /** Since it was armed, in words. */
  get commits(): readonly string[] {
    return this.#commits;
  }

  async #pass<T>(worker: number, item: Append, send: () => Promise<T>, lost: Promise<never> | null): Promise<T> {
    // What has a smaller id was there before.
    if (this.#from === null || item.id < this.#from) return send();
    this.#commits.push(inWords(item));
    if (this.#commits.length !== this.#at?.commit) return send();
    switch (this.#at.phase) {
      case "before":
        this.#crash(worker);
        return lost ?? Promise.reject(new Error("the worker crashed"));
      case "in": {
        const answer = send();
        // By then the statement is on its way.
        await liveness.sleep(1);
        this.#crash(worker);
        return answer;
      }
      case "after": {
        const answer = await send();
        this.#crash(worker);
        return answer;
      }
    }
  }
}

/** What a commit brings into the ledger. */
export function inWords({ events, release, close }: Pick<Append, "events" | "release" | "close">): string {
  const words = events
    .filter(({ type }) => type !== "execution.claimed" && type !== "inbox.routed")
    .map((event) => {
      const name =
        "name" in event ? event.name : "chunk" in event ? event.chunk : "event" in event ? event.event : null;
      return typeof name === "string" ? `${event.type} ${JSON.stringify(name)}` : event.type;
    });
  if (words.length === 0) words.push(release ? "given back" : close ? "closed" : "claimed");
  return words.join(", ");
}
