/** What a payload may be, and what it is refused for: always with the path. */
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { expect, test } from "vitest";
import { PayloadError } from "../../src/base/errors.ts";
import { canonical, copyJson, isObject, maxDepth, toJson, type Json } from "../../src/base/json.ts";
import { fuzzRuns } from "../support/fuzz.ts";

class Money {
  readonly cents = 5;
}

function cycle(): object {
  const loop: { self?: object } = {};
  loop.self = loop;
  return loop;
}

function nested(levels: number): Json {
  let value: Json = 1;
  for (let level = 0; level < levels; level++) value = { down: value };
  return value;
}

test.each<[string, unknown, string]>([
  ["a BigInt", 7n, "BigInt 7 has no JSON form"],
  ["NaN", Number.NaN, "NaN is not a JSON number"],
  ["Infinity", Infinity, "Infinity is not a JSON number"],
  ["-Infinity", -Infinity, "-Infinity is not a JSON number"],
  ["a function", () => 1, "a function has no JSON form"],
  ["a symbol", Symbol("s"), "a symbol has no JSON form"],
  ["a Date", new Date(0), "a Date is not plain data"],
  ["a Map", new Map(), "a Map is not plain data"],
  ["a Set", new Set(), "a Set is not plain data"],
  ["an Error", new Error("x"), "a Error is not plain data"],
  ["a class instance", new Money(), "a Money is not plain data"],
  ["a typed array", new Uint8Array(2), "a Uint8Array is not plain data"],
  ["a value inside itself", cycle(), "the value contains itself"],
  ["a text with \\u0000", "a\u0000b", "\\u0000"],
  ["half of a surrogate pair", "\ud800", "half of a surrogate pair"],
])("%s is refused with its path", (_, value, problem) => {
  const refused = () => toJson({ list: [{ "a key": value }] }, "input");

  expect(refused).toThrow(PayloadError);
  expect(refused).toThrow(problem);
  expect(refused).toThrow(
    expect.objectContaining({
      code: "PAYLOAD_UNSTORABLE",
      details: expect.objectContaining({
        where: "input",
        path: expect.arrayContaining(["list", 0, "a key"]) as unknown,
      }) as unknown,
    }),
  );
});

test.each([
  ["__proto__", JSON.parse('{"deep": {"__proto__": {"admin": true}}}') as unknown, ["deep", "__proto__"]],
  ["a key with \\u0000", { deep: { "a\u0000": 1 } }, ["deep", "a\u0000"]],
  ["a key with half of a surrogate pair", { deep: { "\udfff": 1 } }, ["deep", "\udfff"]],
])("the key %s is refused with its path", (_, value, path) => {
  const refused = () => toJson(value, "output");

  expect(refused).toThrow(expect.objectContaining({ details: expect.objectContaining({ path }) as unknown }));
});

test("a property that is undefined is left out, as JSON does; in a list, and alone, undefined is refused with its place", () => {
  expect(toJson({ a: undefined, list: [{ b: undefined, c: 1 }] }, "input")).toStrictEqual({ list: [{ c: 1 }] });

  const inList = () => toJson({ list: [1, undefined] }, "input");
  expect(inList).toThrow(/undefined has no JSON form/);
  expect(inList).toThrow(
    expect.objectContaining({ details: expect.objectContaining({ path: ["list", 1] }) as unknown }),
  );
  expect(() => toJson(undefined, "input")).toThrow(/undefined has no JSON form/);
});

test("a hole in a list is refused, not stored as null", () => {
  const holed = [1, 2];
  holed[3] = 4;

  expect(() => toJson(holed, "input")).toThrow(/undefined has no JSON form/);
});

test("F52: 200 levels are stored and 201 are refused", () => {
  expect(toJson(nested(maxDepth), "input")).toEqual(nested(maxDepth));

  expect(() => toJson(nested(maxDepth + 1), "input")).toThrow(/nested deeper than 200 levels/);
});

test("a value that is too deep for JSON.stringify is refused in time", () => {
  expect(() => toJson(nested(100_000), "input")).toThrow(/nested deeper/);
});

test("F52: a payload over the limit is refused, one under it is stored", () => {
  expect(toJson("x".repeat(900), "input", 1000)).toHaveLength(900);

  expect(() => toJson("x".repeat(1000), "input", 1000)).toThrow(/larger than 1000 bytes/);
  expect(() =>
    toJson(
      Array.from({ length: 1000 }, () => 1),
      "input",
      1000,
    ),
  ).toThrow(/larger than 1000 bytes/);
});

test("a short text counts its bytes of UTF-8, not its characters", () => {
  const text = Array.from({ length: 100 }, () => "€".repeat(200));

  expect(Buffer.byteLength(JSON.stringify(text))).toBeGreaterThan(60_000);
  expect(() => toJson(text, "input", 60_000)).toThrow(/larger than 60000 bytes/);
});

test("the same object twice is no cycle", () => {
  const shared = { a: 1 };

  expect(toJson([shared, shared], "input")).toEqual([{ a: 1 }, { a: 1 }]);
});

test("what the caller changes afterwards does not reach the copy", () => {
  const given = { list: [1], inner: { a: 1 } };
  const copied = toJson(given, "input");

  given.list.push(2);
  given.inner.a = 2;

  expect(copied).toEqual({ list: [1], inner: { a: 1 } });
});

test("F53: an object without a prototype is plain data, also with keys that objects inherit", () => {
  const bare = Object.assign(Object.create(null) as object, { constructor: 1, toString: 2, hasOwnProperty: null });

  expect(toJson(bare, "input")).toEqual({ constructor: 1, toString: 2, hasOwnProperty: null });
});

test("-0 is stored as 0, as Postgres would", () => {
  expect(Object.is(toJson(-0, "input"), 0)).toBe(true);
});

test("every JSON value comes out as it went in", () => {
  fc.assert(
    fc.property(storable(), (value) => {
      const copied = toJson(value, "input");

      expect(JSON.stringify(copied)).toBe(JSON.stringify(value));
      expect(copyJson(copied)).toEqual(copied);
    }),
    fuzzRuns(),
  );
});

test("F51: anything at all is stored so that JSON gives it back, or refused with a PayloadError", () => {
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withTypedArray: true,
    withNullPrototype: true,
    withObjectString: true,
    withSparseArray: true,
    withBoxedValues: true,
  });
  fc.assert(
    fc.property(anything, (value) => {
      const stored = storedOrRefused(value);

      // Not toEqual: it calls what objects are named like, such as a "toString" that is a number.
      expect(isDeepStrictEqual(JSON.parse(JSON.stringify(stored)), stored)).toBe(true);
    }),
    fuzzRuns(),
  );
});

/** What is stored of a value; null when it is refused as it should be. */
function storedOrRefused(value: unknown): Json {
  try {
    return toJson(value, "input");
  } catch (error) {
    if (error instanceof PayloadError) return null;
    throw error;
  }
}

/** JSON that Postgres can hold. */
function storable(): fc.Arbitrary<Json> {
  return fc
    .jsonValue({ maxDepth: 5 })
    .map((value) => JSON.parse(JSON.stringify(value)) as Json)
    .filter((value) => !/\\u0000|\\ud[89a-f]|"__proto__"/i.test(JSON.stringify(value)));
}

test("equal JSON has one canonical text, whatever the order of its keys", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = canonical(value);

      expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
      expect(canonical(reversed(JSON.parse(text) as Json))).toBe(text);
    }),
    fuzzRuns(),
  );
  expect(canonical({ b: 1, a: undefined, 10: [undefined], 9: null })).toBe('{"10":[null],"9":null,"b":1}');
});

function reversed(value: Json): Json {
  if (Array.isArray(value)) return value.map(reversed);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, item]) => [key, reversed(item)]),
  );
}
