/** The real clock: any length of time, once or again and again, until cancelled. */
import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { systemTimers } from "../../src/base/timers.ts";

const day = 86_400_000;

describe("by a fake of Node's timers", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test.each([10, 20 * day, 24.8 * day, 100 * day, 36_525 * day])("a timer of %d ms fires then, and once", (ms) => {
    const fired: number[] = [];
    const begin = systemTimers.monotonic();
    systemTimers.after(ms, () => fired.push(systemTimers.monotonic() - begin));

    vi.advanceTimersByTime(ms - 1);
    expect(fired).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(fired).toEqual([ms]);
    vi.advanceTimersByTime(ms * 2);
    expect(fired).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each([10, 30 * day])("a timer every %d ms fires until it is cancelled, also by its own callback", (ms) => {
    let count = 0;
    const timer = systemTimers.every(ms, () => {
      count += 1;
      if (count === 3) timer.cancel();
    });

    vi.advanceTimersByTime(ms);
    expect(count).toBe(1);
    vi.advanceTimersByTime(5 * ms);
    expect(count).toBe(3);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("a callback that throws does not end what is repeated", () => {
    let count = 0;
    const timer = systemTimers.every(10, () => {
      count += 1;
      throw new Error("once");
    });

    expect(() => vi.advanceTimersByTime(10)).toThrow("once");
    expect(() => vi.advanceTimersByTime(10)).toThrow("once");

    expect(count).toBe(2);
    timer.cancel();
  });

  test.each([10, 30 * day])("refresh() begins a wait of %d ms anew, and a cancelled one stays so", (ms) => {
    let count = 0;
    const timer = systemTimers.after(ms, () => (count += 1));

    vi.advanceTimersByTime(ms - 1);
    timer.refresh();
    vi.advanceTimersByTime(ms - 1);
    expect(count).toBe(0);
    vi.advanceTimersByTime(1);
    expect(count).toBe(1);

    timer.cancel();
    timer.refresh();
    vi.advanceTimersByTime(2 * ms);
    expect(count).toBe(1);
  });

  test("an alarm follows its clock within a minute, whichever way that is set", () => {
    let ahead = 0;
    const clock = { now: () => systemTimers.monotonic() + ahead };
    const begin = clock.now();
    let isRung = false;
    systemTimers.at(begin + 10 * day, clock, () => (isRung = true));

    vi.advanceTimersByTime(day);
    ahead = -day;
    vi.advanceTimersByTime(10 * day - 90_000);
    expect(isRung).toBe(false);
    ahead = 0;
    vi.advanceTimersByTime(60_000);
    expect(isRung).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("nobody waits for an alarm that is unref'd, also after its clock was read again", () => {
    const clock = { now: () => systemTimers.monotonic() };
    const timeouts = vi.spyOn(globalThis, "setTimeout");
    const alarm = systemTimers.at(clock.now() + day, clock, () => {}).unref();

    vi.advanceTimersByTime(day / 2);

    const made = timeouts.mock.results.map(({ value }) => value);
    expect(made.length).toBeGreaterThan(1);
    expect(made.at(-1)?.hasRef()).toBe(false);
    alarm.cancel();
    timeouts.mockRestore();
  });

  test("sleep() ends with its time, or rejects with the signal's reason, and leaves neither timer nor listener", async () => {
    const [stop, go] = [new AbortController(), new AbortController()];
    const slept = systemTimers.sleep(40 * day, { signal: go.signal });
    const stopped = systemTimers.sleep(day, { signal: stop.signal });
    stop.abort(new Error("enough"));

    await expect(stopped).rejects.toThrow("enough");
    await expect(systemTimers.sleep(1, { signal: stop.signal })).rejects.toThrow("enough");
    vi.advanceTimersByTime(40 * day);
    await slept;
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(go.signal, "abort")).toHaveLength(0);
  });
});

test("the real ones fire, refresh and repeat as well", async () => {
  let repeats = 0;
  const begin = systemTimers.monotonic();
  const { promise: thrice, resolve } = Promise.withResolvers<void>();
  const repeated = systemTimers.every(5, () => {
    if (++repeats === 3) resolve();
  });
  await systemTimers.sleep(60);
  await thrice;

  repeated.cancel();
  const atCancel = repeats;
  await systemTimers.sleep(20);

  expect(systemTimers.monotonic() - begin).toBeGreaterThan(75);
  expect(repeats).toBe(atCancel);
});

test("a long timer that keeps no process alive keeps none when it begins anew", () => {
  const alive = () => process.getActiveResourcesInfo().filter((what) => what === "Timeout").length;
  const before = alive();
  const timer = systemTimers.every(100 * day, () => {}).unref();

  timer.refresh();

  expect(alive()).toBe(before);
  timer.cancel();
});
