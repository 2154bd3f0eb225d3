/** Waiting with a limit, again after trouble, for a free place. */
import { getEventListeners } from "node:events";
import { expect, test, vi } from "vitest";
import { backoff, once, retry, Semaphore, sparingly, unlessAborted, withTimeout } from "../../src/base/async.ts";
import { ManualTimers } from "../support/timers.ts";

test("withTimeout() gives what came in time, and leaves no timer", async () => {
  const timers = new ManualTimers();

  const value = withTimeout(Promise.resolve(7), 10, () => "late", timers);
  const error = withTimeout(Promise.reject(new Error("no")), 10, () => "late", timers);

  expect(await value).toBe(7);
  await expect(error).rejects.toThrow("no");
  expect(timers.waiting).toBe(0);
});

test("withTimeout() settles as `late` does when the time is up, and hears the work no more", async () => {
  const timers = new ManualTimers();
  const { promise, reject } = Promise.withResolvers<number>();

  const instead = withTimeout(promise, 10, () => "late", timers);
  const failing = withTimeout(
    promise,
    10,
    () => {
      throw new Error("too late");
    },
    timers,
  );
  timers.pass(10);
  reject(new Error("nobody hears this"));

  expect(await instead).toBe("late");
  await expect(failing).rejects.toThrow("too late");
});

test("withTimeout() without a limit is the work itself", async () => {
  const work = Promise.resolve(1);

  expect(withTimeout(work, null, () => 2)).toBe(work);
});

test("back-off grows to its maximum, and chance decides the part that jitter says", () => {
  const waits = (jitter: number, random: number) => {
    vi.spyOn(Math, "random").mockReturnValue(random);
    return [0, 1, 2, 5, 5000].map((attempt) => backoff({ attempt, base: 20, max: 500, jitter }));
  };

  expect(waits(0, 0.3)).toEqual([20, 40, 80, 500, 500]);
  expect(waits(1, 0)).toEqual([0, 0, 0, 0, 0]);
  expect(waits(1, 0.5)).toEqual([10, 20, 40, 250, 250]);
  expect(waits(0.5, 0)).toEqual([10, 20, 40, 250, 250]);
  expect(waits(0.5, 1)).toEqual([20, 40, 80, 500, 500]);
  expect(backoff({ attempt: 2, base: 10, max: 500, factor: 3, jitter: 0 })).toBe(90);
  expect(backoff({ attempt: 5000, base: 0, max: 500, jitter: 0 })).toBe(0);
  vi.restoreAllMocks();
});

test("retry() repeats what may help, and no longer once its signal is aborted", async () => {
  const stop = new AbortController();
  const timers = { sleep: async () => {} };
  const failing = (times: number, message: string) => {
    let calls = 0;
    return async () => {
      if (++calls <= times) throw new Error(message);
      return calls;
    };
  };
  const rules = {
    shouldRetry: (error: unknown) => error instanceof Error && error.message === "lost",
    waitMs: () => 1,
    timers,
  };

  expect(await retry(failing(3, "lost"), rules)).toBe(4);
  await expect(retry(failing(1, "wrong"), rules)).rejects.toThrow("wrong");
  stop.abort();
  await expect(retry(failing(1, "lost"), { ...rules, signal: stop.signal })).rejects.toThrow("lost");
});

test("unlessAborted() gives what the work does, or the reason of the signal; either way nothing listens any more", async () => {
  const stop = new AbortController();
  const listeners = () => getEventListeners(stop.signal, "abort").length;

  expect(await unlessAborted(Promise.resolve(7), stop.signal)).toBe(7);
  await expect(unlessAborted(Promise.reject(new Error("no")), stop.signal)).rejects.toThrow("no");
  expect(listeners()).toBe(0);
  const waiting = unlessAborted(new Promise(() => {}), stop.signal);
  expect(listeners()).toBe(1);
  stop.abort(new Error("enough"));

  await expect(waiting).rejects.toThrow("enough");
  await expect(unlessAborted(new Promise(() => {}), stop.signal)).rejects.toThrow("enough");
  expect(listeners()).toBe(0);
});

test("a semaphore gives its places in order, and never more than it has", async () => {
  const places = new Semaphore(2);
  const order: string[] = [];

  expect(places.tryAcquire()).toBe(true);
  await places.acquire();
  expect(places.free).toBe(0);
  expect(places.tryAcquire()).toBe(false);
  const first = places.acquire().then(() => order.push("first"));
  const second = places.acquire().then(() => order.push("second"));
  places.release();
  await first;
  expect(places.free).toBe(0);
  places.release();
  await second;
  expect(order).toEqual(["first", "second"]);
  places.release();
  places.release();
  expect(places.free).toBe(2);
});

test("a place that is free goes to the groups that wait in turn, those of a lower priority number first", async () => {
  const places = new Semaphore(1);
  const order: string[] = [];
  await places.acquire();
  const wait = (name: string, group: string, priority = 0) =>
    places.acquire({ group, priority }).then(() => {
      order.push(name);
      places.release();
    });

  const all = ["a1", "a2", "a3"].map((name) => wait(name, "a"));
  all.push(wait("b1", "b"), wait("late", "c", 5), wait("first", "d", -1));
  expect([...places.waiting]).toEqual(["a", "b", "c", "d"]);
  places.release();
  await Promise.all(all);

  expect(order).toEqual(["first", "a1", "b1", "a2", "a3", "late"]);
  expect([places.free, places.waiting.size]).toEqual([1, 0]);
});

test("once() runs what it is given once", () => {
  const action = vi.fn<() => void>();
  const only = once(action);

  only();
  only();

  expect(action).toHaveBeenCalledTimes(1);
});

test("a look that takes long is left out for as many times as long, also after it failed", async () => {
  let now = 0;
  let looks = 0;
  let fails = false;
  const under: (() => void)[] = [];
  const look = sparingly(
    20,
    async () => {
      looks++;
      await new Promise<void>((resolve) => under.push(resolve));
      if (fails) throw new Error("no answer");
      return looks;
    },
    { monotonic: () => now },
  );
  const first = look();
  now = 100;
  expect(await look()).toBeUndefined();
  under.shift()?.();
  expect(await first).toBe(1);

  now = 2099;
  expect(await look()).toBeUndefined();
  now = 2100;
  fails = true;
  const second = look();
  now = 2110;
  under.shift()?.();
  await expect(second).rejects.toThrow("no answer");

  now = 2309;
  expect(await look()).toBeUndefined();
  now = 2310;
  fails = false;
  const third = look();
  under.shift()?.();
  expect(await third).toBe(3);
  expect(looks).toBe(3);
});

test("of one group those of a lower priority number go first", async () => {
  const places = new Semaphore(1);
  await places.acquire();
  const order: number[] = [];
  const waiting = [3, 1, 2].map(async (priority) => {
    await places.acquire({ group: "f", priority });
    order.push(priority);
    places.release();
  });

  places.release();
  await Promise.all(waiting);

  expect(order).toEqual([1, 2, 3]);
});
