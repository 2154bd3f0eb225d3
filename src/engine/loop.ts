/** The steps of an owner: one after another until something has to be waited for, and on again by whoever brings that. */

/** So many steps are taken at once before others get their turn. */
const stepsAtOnce = 200;

/** What it waits for: whoever brings that goes on. */
type Wait = "routing" | "committing" | "catchingUp" | "stoppingItems";
type Phase = Wait | "idle" | "turning" | "yielding" | "over" | "lost";

export class Loop {
  readonly #step: () => boolean;
  readonly #fail: (error: unknown) => Promise<void>;
  #phase: Phase = "idle";
  /** Something came in from outside: how often that was said, and how often it was looked after. */
  #pokes = 0;
  #looks = 0;

  /**
   * @param step false when there is nothing to do for now, or something to wait for
   * @param fail what a step throws: it must not stand still for as long as this process lives
   */
  constructor(step: () => boolean, fail: (error: unknown) => Promise<void>) {
    this.#step = step;
    this.#fail = fail;
  }

  get phase(): Phase {
    return this.#phase;
  }

  get isOver(): boolean {
    return this.#phase === "over" || this.#phase === "lost";
  }

  get isPoked(): boolean {
    return this.#pokes > this.#looks;
  }

  /** Something came in from outside. */
  poke(): void {
    this.#pokes += 1;
    this.advance();
  }

  /** What has come in so far is being read. */
  look(): void {
    this.#looks = this.#pokes;
  }

  /** Takes steps until something has to be waited for. Whoever brings that calls it again. */
  advance(): void {
    if (this.#phase !== "idle") return;
    this.#phase = "turning";
    try {
      for (let steps = 0; this.#step();) if (++steps === stepsAtOnce) return this.#yield();
    } catch (error) {
      void this.#fail(error);
    }
    if (this.#phase === "turning") this.#phase = "idle";
  }

  /** No step is taken until that has come: `resumeAfter`, or `goOn`. */
  waitFor(what: Wait): void {
    this.#phase = what;
  }

  /** Goes on after a wait, unless it is over meanwhile. */
  async resumeAfter(work: () => void | Promise<void>): Promise<void> {
    if (this.isOver) return;
    try {
      await work();
    } catch (error) {
      return this.#fail(error);
    }
    this.goOn();
  }

  goOn(): void {
    if (this.isOver) return;
    this.#phase = "idle";
    this.advance();
  }

  end(phase: "over" | "lost"): void {
    this.#phase = phase;
  }

  /** Others get their turn, and a cancel its hearing. */
  #yield(): void {
    this.#phase = "yielding";
    setImmediate(() => {
      if (this.#phase === "yielding") this.#phase = "idle";
      this.poke();
    });
  }
}
