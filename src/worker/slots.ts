/** Places: so many executions at once, and who waits for one gets the next that is free. */

export interface Slots {
  readonly free: number;
  take(): Promise<void>;
  /** False when there is none free. */
  tryTake(): boolean;
  give(): void;
}

export function newSlots(count: number): Slots {
  let free = count;
  const waiting: (() => void)[] = [];
  return {
    get free() {
      return free;
    },
    async take() {
      if (free > 0) free -= 1;
      else await new Promise<void>((resolve) => waiting.push(resolve));
    },
    tryTake() {
      if (free === 0) return false;
      free -= 1;
      return true;
    },
    give() {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    },
  };
}
