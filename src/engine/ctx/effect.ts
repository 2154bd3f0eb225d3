/** A promise of `ctx` that knows whether anybody looks at it, and that ends no process when nobody does. */

export class Effect<T> extends Promise<T> {
  // `then` makes an ordinary promise, since only the first observer of an effect counts.
  static override readonly [Symbol.species] = Promise;
  #isObserved = false;

  static run<T>(work: () => Promise<T>): Effect<T> {
    const effect = new Effect<T>((resolve, reject) => void work().then(resolve, reject));
    // The chunk hears of a rejection when it ends; until then an unhandled one must not end the process.
    void Promise.prototype.then.call(effect, undefined, () => {});
    return effect;
  }

  get isObserved(): boolean {
    return this.#isObserved;
  }

  // `await` calls this method too, because a subclass is no plain promise.
  // oxlint-disable-next-line unicorn/no-thenable -- it is a promise
  override then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#isObserved = true;
    return super.then(onFulfilled, onRejected);
  }
}

/** Never settles: what waits for it was cut off, and is collected. */
export function never<T>(): Promise<T> {
  return new Promise(() => {});
}
