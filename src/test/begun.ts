/** What user code began, counted by the test's own process. */
import type { Begun } from "../engine/host.ts";

export class BegunCode {
  readonly #all: Begun[] = [];

  readonly note = (begun: Begun): void => {
    this.#all.push(begun);
  };

  /**
   * How many effects of this name an outside system has seen that takes each idempotency key once: `name` is a chunk, a step or
   * transaction, or "flow/chunk".
   */
  effects(name: string, since = 0): number {
    return new Set(this.#named(name, since).map(({ idempotencyKey }) => idempotencyKey)).size;
  }

  /** How often the code of this name was called, repetitions included. */
  runs(name: string, since = 0): number {
    return this.#named(name, since).length;
  }

  /** For `effects` and `runs`: count from here. */
  get mark(): number {
    return this.#all.length;
  }

  /** Whether an attempt of a chunk has begun in an execution. */
  hasBegun(executionId: string, chunk: string, attempt: number | null): boolean {
    return this.#all.some(
      (begun) =>
        begun.executionId === executionId &&
        begun.chunk === chunk &&
        begun.step === null &&
        (attempt === null || begun.attempt === attempt),
    );
  }

  #named(name: string, since: number): Begun[] {
    return this.#all
      .slice(since)
      .filter(({ flow, chunk, step }) => (step ?? chunk) === name || (step === null && `${flow}/${chunk}` === name));
  }
}
