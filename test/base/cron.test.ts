/** Cron on the days on which clocks change, against every minute of them; and which patterns are none. */
import { describe, expect, test } from "vitest";
import { cronProblem, isTimeZone, timesOf } from "../../src/base/cron.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

type Says = (wall: { minute: number; hour: number; weekday: number }) => boolean;

/** By the wall clock: once each, and at the end of the gap. */
const fixed: readonly (readonly [string, Says])[] = [
  ["30 2 * * *", ({ minute, hour }) => minute === 30 && hour === 2],
  ["0 2,14 * * *", ({ minute, hour }) => minute === 0 && (hour === 2 || hour === 14)],
  ["0,30 2 * * *", ({ minute, hour }) => (minute === 0 || minute === 30) && hour === 2],
  ["15 0-3 * * *", ({ minute, hour }) => minute === 15 && hour <= 3],
  ["@daily", ({ minute, hour }) => minute === 0 && hour === 0],
  ["30 23 * * SAT", ({ minute, hour, weekday }) => minute === 30 && hour === 23 && weekday === 6],
];

/** By real time: whenever the wall clock shows it. */
const repeated: readonly (readonly [string, Says])[] = [
  ["0 * * * *", ({ minute }) => minute === 0],
  ["*/20 2 * * *", ({ minute, hour }) => minute % 20 === 0 && hour === 2],
  ["15 */2 * * *", ({ minute, hour }) => minute === 15 && hour % 2 === 0],
];

/** A year of each, and what is special there. */
const zones: readonly (readonly [zone: string, year: number])[] = [
  ["Europe/Berlin", 2026],
  ["America/New_York", 2026],
  ["Australia/Lord_Howe", 2026], // half an hour
  ["America/Nuuk", 2026], // the gap ends at midnight
  ["America/Havana", 2026], // the gap begins at midnight
  ["Africa/Casablanca", 2026], // back for Ramadan
  ["Antarctica/Troll", 2026], // two hours
  ["Pacific/Apia", 2011], // a day that never was
];

describe.each(zones)("in %s", (zone, year) => {
  const days = changesIn(zone, year).map((change) => minutesAround(change, zone));

  test("clocks change twice in that year, or more", () => {
    expect(days.length).toBeGreaterThanOrEqual(2);
  });

  test.each(fixed)("%s goes by the wall clock when clocks change", (cron, says) => {
    for (const minutes of days) expect(timesIn(minutes, cron, zone)).toEqual(fixedTimes(minutes, says));
  });

  test.each(repeated)("%s goes by real time when clocks change", (cron, says) => {
    for (const minutes of days) expect(timesIn(minutes, cron, zone)).toEqual(repeatedTimes(minutes, says));
  });

  test.each([...fixed, ...repeated])("%s has a last and a next time at every moment of the change", (cron) => {
    const times = timesOf(cron, zone);
    for (const minutes of days) {
      const known = timesIn(minutes, cron, zone).map((time) => Date.parse(time));
      const moments = [...around(minutes), ...known.flatMap((time) => [time - 1, time, time + 1])];
      for (const at of moments) {
        const last = known.findLast((time) => time <= at);
        const next = known.find((time) => time > at);
        // Before the first and after the last of them, others come that are not known here.
        const found = [last && times.upTo(new Date(at))?.getTime(), next && times.after(new Date(at))?.getTime()];
        expect(found).toEqual([last, next]);
      }
    }
  });
});

test.each([
  ["30 2,14 * * *", "2026-03-28T23:00Z", "03-29T01:00 03-29T12:30"],
  ["0,30 2 * * *", "2026-03-28T23:00Z", "03-29T01:00 03-30T00:00"],
  ["0 2,14 * * *", "2026-10-24T22:00Z", "10-25T00:00 10-25T13:00"],
  ["0 1-3 * * *", "2026-10-24T22:00Z", "10-24T23:00 10-25T00:00 10-25T02:00"],
  ["15 30 2 * * *", "2026-10-24T22:00Z", "10-25T00:30 10-26T01:30"],
  ["? 2 * * *", "2026-10-25T00:58Z", "10-25T00:59 10-25T01:00"],
  ["@hourly", "2026-10-24T23:45Z", "10-25T00:00 10-25T01:00 10-25T02:00"],
  ["*/30 * * * *", "2026-10-24T23:45Z", "10-25T00:00 10-25T00:30 10-25T01:00 10-25T01:30"],
  ["*/30 * * * * *", "2026-10-25T00:59Z", "10-25T00:59 10-25T01:00 10-25T01:00"],
])("%s in Berlin after %s comes at %s", (cron, after, expected) => {
  const times = timesOf(cron, "Europe/Berlin");

  const found: Date[] = [];
  let time = times.after(new Date(after));
  while (time && found.length < expected.split(" ").length) {
    found.push(time);
    time = times.after(time);
  }

  expect(found.map((at) => at.toISOString().slice(5, 16)).join(" ")).toBe(expected);
});

test.each([
  "0 7 * * 1-5",
  "*/10 0 7 * * *",
  "@daily",
  "@hourly",
  "0 0 29 2 *",
  "0 0 * * MON",
  " 0 0 L * * ",
  "0 0 * * 5#2",
])("%j is a pattern", (cron) => {
  expect(cronProblem(cron, { hasSeconds: true })).toBeNull();
});

test.each([
  ["2099-01-01T00:00:00", /a date comes only once: start an execution with startAt/],
  [" 2099-01-01T00:00:00Z", /a date/],
  ["2099-01-01", /a date/],
  ["0 0 0 1 1 * 2099", /7 parts/],
  ["0 7 * *", /five/],
  ["", /five/],
  ["every day", /five/],
  ["61 * * * *", /minute/],
  ["*/0 * * * *", /step/],
  ["5-1 * * * *", /5-1/],
  ["@reboot", /@reboot/],
  ["@never", /@never/i],
  ["0 0 30 2 *", /no such date/],
  ["0 0 31 2,4,6,9,11 *", /no such date/],
  [7, /expected a text, got 7/],
  [null, /expected a text, got null/],
])("%j is no pattern", (cron, problem) => {
  expect(cronProblem(cron, { hasSeconds: true })).toMatch(problem);
});

test("seconds can be left out of the question", () => {
  expect(cronProblem("0 0 7 * * *", { hasSeconds: false })).toMatch(/5 parts/);
  expect(cronProblem("0 7 * * *", { hasSeconds: false })).toBeNull();
});

test.each(["Europe/Berlin", "UTC", "america/new_york", "Etc/GMT+5"])("%s is a time zone", (zone) => {
  expect(isTimeZone(zone)).toBe(true);
});

test.each(["Mars/Base", "", "GMT+2", "Berlin", null, 2])("%j is no time zone", (zone) => {
  expect(isTimeZone(zone)).toBe(false);
});

interface Minute {
  readonly at: number;
  /** What the wall clock shows then, as if that were UTC. */
  readonly wall: number;
}

function minutesAround(change: number, zone: string): Minute[] {
  const clock = wallClock(zone);
  const from = change - 1.5 * dayMs;
  return Array.from({ length: (3 * dayMs) / minuteMs }, (_, index) => {
    const at = from + index * minuteMs;
    return { at, wall: clock(at) };
  });
}

/** Some moments of the hours before and after the change in the middle. */
function around(minutes: readonly Minute[]): number[] {
  const middle = minutes.length / 2;
  return minutes.slice(middle - 180, middle + 180).flatMap(({ at }, index) => (index % 11 === 0 ? [at] : []));
}

/** The moments, to the hour, at which the distance from UTC changes. */
function changesIn(zone: string, year: number): number[] {
  const clock = wallClock(zone);
  const hours = Array.from({ length: 365 * 24 }, (_, index) => Date.UTC(year, 0, 2) + index * hourMs);
  return hours.filter((at) => clock(at) - clock(at - hourMs) !== hourMs);
}

function wallClock(timeZone: string): (at: number) => number {
  const format = new Intl.DateTimeFormat("sv-SE", { timeZone, dateStyle: "short", timeStyle: "medium" });
  return (at) => Date.parse(`${format.format(at).replace(" ", "T")}Z`);
}

function timesIn(minutes: readonly Minute[], cron: string, zone: string): string[] {
  const times = timesOf(cron, zone);
  const [first, last] = [minutes[0]?.at ?? 0, minutes.at(-1)?.at ?? 0];
  const found: string[] = [];
  for (let time = times.after(new Date(first - 1)); time && time.getTime() <= last; time = times.after(time))
    found.push(time.toISOString());
  return found;
}

function repeatedTimes(minutes: readonly Minute[], says: Says): string[] {
  return minutes.filter(({ wall }) => says(shown(wall))).map(({ at }) => new Date(at).toISOString());
}

/** Every minute that a wall clock could show, at the first moment at which one shows it or has gone past it. */
function fixedTimes(minutes: readonly Minute[], says: Says): string[] {
  const [first, last] = [minutes[0]?.wall ?? 0, minutes.at(-1)?.wall ?? 0];
  const times = new Set<string>();
  for (let wall = first; wall <= last; wall += minuteMs) {
    if (!says(shown(wall))) continue;
    const minute = minutes.find((seen) => seen.wall >= wall);
    if (minute) times.add(new Date(minute.at).toISOString());
  }
  return [...times];
}

function shown(wall: number): { minute: number; hour: number; weekday: number } {
  const date = new Date(wall);
  return { minute: date.getUTCMinutes(), hour: date.getUTCHours(), weekday: date.getUTCDay() };
}
