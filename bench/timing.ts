/** Times of single things, and loads of many: what processes of several benchmarks measure. */
import { setTimeout as delay } from "node:timers/promises";

/** Keeps so many of `run` going, until it is stopped. */
export class Load {
  /** How many have ended. */
  done = 0;
  #isOver = false;
  readonly #loops: Promise<void[]>;

  constructor(run: () => Promise<unknown>, inFlight: number) {
    const loop = async () => {
      for (; !this.#isOver; this.done++) await run();
    };
    this.#loops = Promise.all(Array.from({ length: inFlight }, loop));
    // `stop()` says what went wrong.
    this.#loops.catch(() => {});
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#loops;
  }
}

/** How long each of what `prepare` gives takes, in ms: one after the other for so long, three at least, after pauses in which nothing happens. */
export async function sample(ms: number, prepare: () => Promise<() => Promise<void>>): Promise<number[]> {
  const took: number[] = [];
  const warming = 2;
  let until = Infinity;
  for (let n = -warming; n < 3 || (performance.now() < until && n < 1000); n++) {
    const run = await prepare();
    await delay(10 + ((n + warming) % 5) * 5);
    if (n === 0) until = performance.now() + ms;
    const began = performance.now();
    await run();
    if (n >= 0) took.push(performance.now() - began);
  }
  return took;
}

/** Waits for so long, and until so many more have ended than had before. */
export async function untilEnded(
  count: () => Promise<number>,
  before: number,
  atLeast: number,
  ms: number,
): Promise<void> {
  const began = performance.now();
  await delay(ms);
  while ((await count()) < before + atLeast) {
    if (performance.now() > began + ms + 120_000)
      throw new Error(`${atLeast} executions have not ended within two minutes`);
    await delay(20);
  }
}
