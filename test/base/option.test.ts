/** A refused option says what is expected, where, and what came instead. */
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { parseMoment } from "../../src/base/duration.ts";
import { UsageError } from "../../src/base/errors.ts";
import { serializeError } from "../../src/engine/retries.ts";
import {
  requireBoolean,
  requireDate,
  requireInteger,
  requireKnown,
  requireNumber,
  requireOneOf,
  requireText,
} from "../../src/base/option.ts";

test.each<[string, () => unknown, string]>([
  [
    "a fraction for an integer",
    () => requireInteger(0.5, "priority", { min: -9, max: 9 }),
    "priority must be an integer from -9 to 9, got 0.5",
  ],
  [
    "an integer out of its range",
    () => requireInteger(10, "priority", { min: -9, max: 9 }),
    "priority must be an integer from -9 to 9, got 10",
  ],
  [
    "a text for an integer",
    () => requireInteger("7", "limit", { min: 1, orNull: "no limit" }),
    'limit must be an integer of at least 1, or null for no limit, got "7"',
  ],
  [
    "null where it means nothing",
    () => requireInteger(null, "limit", { min: 1 }),
    "limit must be an integer of at least 1, got null",
  ],
  [
    "no number",
    () => requireNumber(Number.NaN, "multiplier", { min: 1, max: 1000 }),
    "multiplier must be a number from 1 to 1000, got NaN",
  ],
  ["infinity", () => requireNumber(Infinity, "wait", { min: 0 }), "wait must be a number of at least 0, got Infinity"],
  [
    "another choice",
    () => requireOneOf("some", ["skip", "last", "all"], "catchUp"),
    'catchUp must be "skip", "last" or "all", got "some"',
  ],
  ["a word for a flag", () => requireBoolean("yes", "jitter"), 'jitter must be true or false, got "yes"'],
  ["no date", () => requireDate(new Date("soon"), "startAt"), "startAt must be a valid Date, got Invalid Date"],
  ["a list", () => requireOneOf(["keep"], ["keep"], "action"), 'action must be "keep", got a list'],
  ["an empty text", () => requireText("", "key", { max: 5 }), 'key must be a text of 1 to 5 characters, got ""'],
  [
    "a long text",
    () => requireText("sixsix", "key", { max: 5 }),
    'key must be a text of 1 to 5 characters, got "sixsix"',
  ],
  [
    "half a character",
    () => requireText("\ud83e", "key", { max: 5 }),
    'key must be a text of 1 to 5 characters, got "\\ud83e"',
  ],
  ["no options", () => requireKnown(null, ["rate"], "limits"), "options of limits must be an object, got null"],
  [
    "an unknown option",
    () => requireKnown({ concurency: 1 }, ["rate", "concurrency"], "limits"),
    'limits has an unknown option "concurency": use rate, concurrency (did you mean "concurrency"?)',
  ],
  [
    "an unknown option like no other",
    () => requireKnown({ colour: 1 }, ["rate", "concurrency"], "limits"),
    'limits has an unknown option "colour": use rate, concurrency',
  ],
])("%s is refused with its value, its place and what would do", (_, check, message) => {
  expect(check).toThrow(UsageError);
  expect(check).toThrow(new UsageError(message, null));
});

test("what fits comes back as it is", () => {
  expect(requireInteger(-9, "priority", { min: -9, max: 9 })).toBe(-9);
  expect(requireInteger(null, "limit", { min: 1, orNull: "no limit" })).toBeNull();
  expect(requireNumber(1.5, "multiplier", { min: 1 })).toBe(1.5);
  expect(requireOneOf("skip", ["skip", "last"], "catchUp")).toBe("skip");
  expect(requireBoolean(false, "jitter")).toBe(false);
});

test("what jest and vm make, in a realm of their own, is as good as ours", () => {
  const date: unknown = runInNewContext("new Date(5)");
  const error: unknown = runInNewContext('new TypeError("declined")');

  expect(requireDate(date, "startAt")).toEqual(new Date(5));
  expect(requireDate(date, "startAt")).toBeInstanceOf(Date);
  expect(parseMoment(date as Date, "startAt")).toBeInstanceOf(Date);
  expect(serializeError(error)).toMatchObject({ name: "TypeError", message: "declined" });
  expect(() => requireDate(runInNewContext('new Date("soon")'), "startAt")).toThrow("got Invalid Date");
});
