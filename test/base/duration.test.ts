/** One grammar of durations, with the words of Defer's users as an option. */
import { describe, expect, test } from "vitest";
import { parseDuration, parseMoment } from "../../src/base/duration.ts";
import { UsageError } from "../../src/base/errors.ts";

describe("a duration", () => {
  test.each([
    ["500ms", 500],
    ["10s", 10_000],
    ["1h30m", 5_400_000],
    ["1.5h", 5_400_000],
    ["2d", 172_800_000],
    ["1w", 604_800_000],
    ["0s", 0],
    [12.4, 12],
  ])("%j is %d ms", (value, ms) => {
    expect(parseDuration(value, "timeout")).toBe(ms);
  });

  test.each([
    "",
    "10",
    "s",
    "-1s",
    "1 s",
    "1h 30m",
    "1y",
    "ten",
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    "101000000d",
  ])("%j is refused", (value) => {
    expect(() => parseDuration(value, "timeout")).toThrow(UsageError);
  });

  test("that cannot be read names the value, the place and the remedy", () => {
    expect(() => parseDuration("soon", `delay of flow "f"`)).toThrow(
      `"soon" is not a duration for delay of flow "f": use "500ms", "10s", "1h30m" or a number of milliseconds from 0 to a hundred years`,
    );
  });
});

describe("a duration in words", () => {
  const hour = 3_600_000;

  test.each([
    ["1h30m", 1.5 * hour],
    ["1h 30m", 1.5 * hour],
    ["2 Days", 48 * hour],
    [" 1.5 hours, 10 sec ", 1.5 * hour + 10_000],
    ["2 months", 2 * 730.5 * hour],
    ["1 year", 8766 * hour],
    ["1500 microseconds", 2],
    ["7200000", 2 * hour],
    [12.4, 12],
  ])("%j is %d ms", (value, ms) => {
    expect(parseDuration(value, "delay", { words: true })).toBe(ms);
  });

  test.each(["", " , ", "-5 minutes", "soon", "5 lightyears", "5 10 x", "1.5.5s", "1h!", `${"1".repeat(60)}!`, -1])(
    "%j is refused",
    (value) => {
      expect(() => parseDuration(value, "delay", { words: true })).toThrow(UsageError);
    },
  );
});

test("a moment is a date from 1970 to 9999, or a duration", () => {
  expect(parseMoment("1 minute", "startAt", { words: true })).toBe(60_000);
  expect(parseMoment(new Date(5), "startAt")).toEqual(new Date(5));
  for (const wrong of [new Date(Number.NaN), new Date(-1), new Date("+010000-01-01T00:00:00Z")])
    expect(() => parseMoment(wrong, "startAt")).toThrow("pass a Date from 1970 to 9999");
});
