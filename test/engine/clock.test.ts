/** The database's time as this process carries it forward, whatever becomes of the database's clock. */
import { expect, test } from "vitest";
import { DatabaseClock } from "../../src/engine/clock.ts";
import { ManualTimers } from "../support/timers.ts";

const start = Date.UTC(2026, 0, 1);
const hour = 3_600_000;

/** A clock that hears an answer every `everyMs`, each `lateMs` after the database gave it. */
function observed(clock: DatabaseClock, timers: ManualTimers, database: () => number) {
  return (times: number, everyMs: number, lateMs = 0) => {
    for (let index = 0; index < times; index++) {
      timers.pass(everyMs);
      clock.observe(database() - lateMs);
    }
  };
}

function begin() {
  const timers = new ManualTimers();
  const clock = new DatabaseClock(timers);
  let set = 0;
  const database = () => start + set + timers.monotonic();
  return {
    timers,
    clock,
    database,
    hear: observed(clock, timers, database),
    setBy: (ms: number) => (set += ms),
    error: () => clock.now() - database(),
  };
}

test("it goes on between two answers; the longer that takes, the more it allows for two clocks that run apart", () => {
  const { hear, timers, error } = begin();

  hear(1, 10);
  timers.pass(1000);
  expect(error()).toBe(0);
  timers.pass(10_000);
  expect(error()).toBe(-500);
});

test("a clock of ours that is five per cent fast makes no timer early", () => {
  const timers = new ManualTimers();
  const clock = new DatabaseClock(timers);
  const database = () => start + timers.monotonic() / 1.05;

  for (let round = 0; round < 600; round++) {
    timers.pass(1050);
    // What was said 50 ms ago at most is off by no more than those 50 ms make.
    expect(clock.now() - database()).toBeLessThanOrEqual(60);
    clock.observe(database());
  }
});

test("an answer that was long on its way does not set it back", () => {
  const { hear, error } = begin();

  hear(20, 100);
  hear(4, 1000, 3000);

  expect(error()).toBe(-150);
});

test("it follows the database forward at once", () => {
  const { hear, setBy, error } = begin();

  hear(20, 100);
  setBy(hour);
  hear(1, 100);

  expect(error()).toBe(0);
});

test("a window is over with its fifth answer, five seconds after its first", () => {
  const { hear, setBy, error } = begin();

  hear(5, 1000);
  setBy(-hour);
  hear(5, 1000);
  expect(error()).toBeGreaterThan(hour / 2);
  hear(1, 1000);

  expect(error()).toBe(0);
});

test("it follows the database back, once nothing else has been heard for two windows", () => {
  const { hear, setBy, error } = begin();

  hear(50, 100);
  setBy(-hour);
  hear(1, 100);
  expect(error()).toBe(hour);
  hear(110, 100);

  expect(error()).toBe(0);
});

test("a database that was an hour fast for a moment leaves nothing behind", () => {
  const { hear, setBy, error } = begin();

  hear(50, 100);
  setBy(hour);
  hear(1, 100);
  setBy(-hour);
  hear(150, 100);

  expect(error()).toBe(0);
});

test("where answers are always late it is late by the least of that, never early", () => {
  const { hear, error } = begin();

  for (let round = 0; round < 200; round++) hear(1, 100, 20 + (round % 7));

  expect(error()).toBe(-20);
});

test("few answers are no window: one that is late among them does not count", () => {
  const { hear, error } = begin();

  hear(3, 10_000);
  hear(1, 10_000, 2000);

  expect(error()).toBe(-450);
});

test("after a minute of silence what was heard before says nothing", () => {
  const { hear, setBy, timers, error } = begin();

  hear(50, 100);
  setBy(-hour);
  timers.pass(60_000);
  hear(1, 100);

  expect(error()).toBe(0);
});
