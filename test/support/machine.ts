/** The machine of a kit's process, whose clock is not the database's: it runs fast, or the database's is set back under it. */
import postgres from "postgres";
import type { Clock, SleepOptions, Timer, Timers } from "../../src/base/timers.ts";
import type { TestClock } from "../../src/store/test-clock.ts";
import type { TestTimers } from "../../src/test/timers.ts";
import type { TestOrchestrator } from "../../src/test.ts";

/** What a kit hands its workers in the place of a clock that is the database's own. */
export class Machine {
  /** By how much the database's clock is behind the time that has passed. */
  #behindMs = 0;
  readonly #speed: number;

  /** @param speed of its clock, to the database's */
  constructor(speed = 1) {
    this.#speed = speed;
  }

  readonly timers = (inner: TestTimers): Timers => timersOf(inner, this.#speed);

  /** The kit counts the time that has passed. */
  readonly clock = (inner: TestClock): TestClock => {
    const toDatabase = (ms: number | null) => (ms === null ? null : ms - this.#behindMs);
    const passed = (ms: number) => ms + this.#behindMs;
    return {
      ...inner,
      read: async () => {
        const { nowMs, asked } = await inner.read();
        return { nowMs: passed(nowMs), asked };
      },
      step: async (step) => {
        const { localMs, untilMs } = step;
        const stepped = await inner.step({ ...step, localMs: toDatabase(localMs), untilMs: toDatabase(untilMs) });
        const { nowMs, nextMs } = stepped;
        return { ...stepped, nowMs: passed(nowMs), nextMs: nextMs === null ? null : passed(nextMs) };
      },
      upcoming: async (afterMs, limit) =>
        (await inner.upcoming(afterMs - this.#behindMs, limit)).map((one) => ({ ...one, atMs: passed(one.atMs) })),
      nextStarts: async () => (await inner.nextStarts()).map((one) => ({ ...one, atMs: passed(one.atMs) })),
      answer: (asked, nextMs) => inner.answer(asked, toDatabase(nextMs)),
    };
  };

  /** Sets the database's clock back. */
  async setBack(t: TestOrchestrator, ms: number): Promise<void> {
    const sql = postgres(t.database, { max: 1 });
    try {
      await sql`select setval('flowledger.test_now', flowledger.to_ms(flowledger.now())::bigint - ${ms}::int)`;
      this.#behindMs += ms;
    } finally {
      await sql.end();
    }
  }
}

function timersOf(inner: TestTimers, speed: number): Timers {
  return {
    isMoved: true,
    now: () => inner.now() + (speed - 1) * inner.monotonic(),
    monotonic: () => inner.monotonic() * speed,
    after: (ms, callback, what) => inner.after(ms / speed, callback, what),
    at: (time, clock, callback, what) => timerAt(inner, speed, time, clock, callback, what),
    every: (ms, callback) => inner.every(ms / speed, callback),
    sleep: (ms: number, options?: SleepOptions) => inner.sleep(ms / speed, options),
  };
}

/** What it has waited for may not be there yet, by a clock that is corrected meanwhile. */
function timerAt(
  inner: TestTimers,
  speed: number,
  time: number,
  clock: Clock,
  callback: () => void,
  what?: string,
): Timer {
  const look = () => {
    const left = time - clock.now();
    if (left <= 0) callback();
    else waiting = wait(left);
  };
  // The clock of a test goes on by whole milliseconds.
  const wait = (left: number) => inner.after(left <= 0 ? 0 : Math.max(1, left / speed), look, what);
  let waiting = wait(time - clock.now());
  const timer: Timer = {
    cancel: () => waiting.cancel(),
    refresh: () => waiting.refresh(),
    unref: () => timer,
  };
  return timer;
}
