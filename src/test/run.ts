/** An execution under test: the handle that everybody has, and waits that cannot hang. */
import { Execution } from "../execution/execution.ts";
import type { ExecutionHost } from "../execution/host.ts";
import type { ResumeOptions } from "../execution/command-options.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { CloseSnapshot, Contract } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { autoCloseAt } from "../ledger/settle.ts";
import type { Explanation } from "../ledger/explanation.ts";
import type { BegunCode } from "./begun.ts";
import { inWords, meant, whatItWaitsFor, type Condition } from "./conditions.ts";
import type { Driver } from "./driver.ts";
import { UnreachableError } from "./errors.ts";

export interface RunHost {
  readonly host: ExecutionHost;
  readonly driver: Driver;
  readonly begun: BegunCode;
}

/** An execution in a test. */
export class TestRun<C extends Contract = Contract> extends Execution<C> {
  readonly #host: RunHost;

  constructor(host: RunHost, id: ExecutionId, flow: { name: string; definition: FlowDefinition<C> | null }) {
    super(host.host, id, flow, null);
    this.#host = host;
  }

  /**
   * Resolves when the condition holds. The clock stands meanwhile; only "closed" waits for the auto-close where that is all that is
   * left.
   *
   * @throws {UnreachableError} it cannot come true by itself at this time; the message says what the execution waits for
   * @throws {ExecutionFailedError | ExecutionCancelledError} it was to close, and did not complete
   */
  until(condition: "closed"): Promise<CloseSnapshot<C>>;
  until(condition: { readonly waiting: string }): Promise<InterruptRecord>;
  until(condition: Condition): Promise<void>;
  async until(condition: Condition): Promise<unknown> {
    const { driver } = this.#host;
    await driver.settle(() => typeof condition === "object" && "chunk" in condition && this.#hasBegun(condition));
    if (condition === "idle") return undefined;
    if (condition === "closed") {
      await this.#autoClose();
      if ((await this.#state())?.closed) return this.waitForClose();
    } else if ("waiting" in condition) {
      const interrupt = meant(await this.getPendingInterrupts(), condition.waiting);
      if (interrupt) return interrupt;
    } else if (this.#hasBegun(condition) || (await this.#hasEnded(condition))) {
      return undefined;
    }
    throw new UnreachableError(this.id, inWords(condition), await this.#explain());
  }

  /**
   * Answers the interrupt that waits: its id or type, or the chunk that paused. Resolves when nothing is left to do that follows
   * from it at this time.
   *
   * @throws {UnreachableError} there is no such interrupt
   */
  async answer(waiting: string, value?: unknown, options: ResumeOptions = {}): Promise<InterruptRecord> {
    const { id } = await this.until({ waiting });
    const record = await this.continueWith(id, value, options);
    await this.#host.driver.settle();
    return record;
  }

  /** Whether it has not closed. */
  async isOpen(): Promise<boolean> {
    return (await this.#host.host.outcomes.header(this.id)).lifecycle !== "closed";
  }

  /** Why it is where it is, once nothing is left to do at this time. */
  override async explain(): Promise<Explanation> {
    await this.#host.driver.settle();
    return super.explain();
  }

  /** Where nothing is left but the auto-close, goes to its time. */
  async #autoClose(): Promise<void> {
    const { driver } = this.#host;
    const state = await this.#state();
    if (!state || state.closed) return;
    const at = autoCloseAt(state);
    if (at !== null && at > driver.now) await driver.moveTo(Math.ceil(at));
  }

  #hasBegun({ chunk, attempt }: { readonly chunk: string; readonly attempt?: number }): boolean {
    return this.#host.begun.hasBegun(this.id, chunk, attempt ?? null);
  }

  /** In another process, then. */
  async #hasEnded({ chunk, attempt }: { readonly chunk: string; readonly attempt?: number }): Promise<boolean> {
    const ended = await this.history({
      types: ["chunk.completed", "chunk.failed", "chunk.parked", "interrupt.raised"],
    });
    return ended.some(
      (event) =>
        "chunk" in event &&
        event.chunk === chunk &&
        (attempt === undefined || attempt === ("attempt" in event ? event.attempt : 1)),
    );
  }

  async #explain(): Promise<string> {
    const { driver, host } = this.#host;
    return whatItWaitsFor(this.id, {
      reads: host.store.reads,
      now: driver.now,
      running: (id) => driver.running(id),
      upcoming: await driver.upcoming(),
    });
  }

  #state() {
    return this.#host.host.store.reads.loadState(this.id);
  }
}
