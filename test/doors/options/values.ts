/** What people and bugs give where something else is meant. */

/** An object that not even `String()` can show. */
const bare: unknown = Object.create(null);
const cyclic: Record<string, unknown> = {};
cyclic["self"] = cyclic;
/** A key of its own, as `JSON.parse` makes it. */
const withProto: unknown = JSON.parse('{"__proto__": {"limit": 1}}');

/** By the name that a failure shows. */
export const odd: Readonly<Record<string, unknown>> = {
  undefined: undefined,
  null: null,
  "an empty text": "",
  "a text": "text",
  "a number as text": "1",
  "a name of the library's own": "timer",
  "what looks like one": "timer\u200b\u00a0",
  "a text that nobody sees": "\t\u200b\u3000",
  "a long text": "x".repeat(1_100_000),
  "a text with NUL": "a\0b",
  "half an emoji": "a\ud83d",
  __proto__: "__proto__",
  constructor: "constructor",
  true: true,
  "-1": -1,
  "0": 0,
  "0.5": 0.5,
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  "beyond 2^53": 2 ** 53 + 2,
  "1e300": 1e300,
  "a BigInt": 1n,
  "a symbol": Symbol("odd"),
  "a function": () => null,
  "an empty object": {},
  "an object": { a: 1 },
  "an object without a prototype": bare,
  "an object in itself": cyclic,
  "a key __proto__": withProto,
  "a constructor with a prototype": { constructor: { prototype: 1 } },
  "a Map": new Map([["a", 1]]),
  "an empty list": [],
  "a list": ["text"],
  "the same twice": ["text", "text"],
  "a list of nothing": [undefined, null],
  "an invalid date": new Date(Number.NaN),
  "a date before 1970": new Date(-1),
  "a date": new Date("2026-01-01T00:00:00Z"),
  "a date in 9999": new Date("9999-12-31T00:00:00Z"),
  "the last date": new Date(8.64e15),
};
