/** What an earlier attempt saw before each of its writes is seen there again, whatever it wrote. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Json, JsonObject } from "../../src/index.ts";
import { Past } from "../../src/engine/past.ts";
import { foundAt } from "../../src/base/path.ts";
import { repeatWrites, type JournalEntry, type WriteEntry } from "../../src/ledger/parts.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const value: fc.Arbitrary<Json> = fc.constantFrom<Json>(0, "x", null, [1], {}, { b: 1 }, { b: { c: [2] } });
const write = fc.record({
  effect: fc.constantFrom("set" as const, "append" as const, "delete" as const),
  key: fc.constantFrom("a", "a.b", "a.b.c", "other"),
  value,
  /** As an operator's retry leaves it. */
  isPinned: fc.boolean(),
});

test("every place of a retry has the state that it had, in time that does not grow with what is read", () => {
  fc.assert(
    fc.property(
      fc.constantFrom<JsonObject>({}, { a: 1, rest: true }, { a: { b: [0] }, other: {} }),
      fc.array(write, { minLength: 1, maxLength: 12 }),
      fc.array(fc.boolean(), { minLength: 13, maxLength: 13 }),
      (before, writes, isRead) => {
        const current = structuredClone(before);
        const [seen, journal]: [JsonObject[], JournalEntry[]] = [[], []];
        for (const [ordinal, { effect, key, value: given, isPinned }] of writes.entries()) {
          seen.push(structuredClone(current));
          // The chunk refuses paths through what is no object.
          const [top = key, ...rest] = key.split(".");
          const holder = current[top];
          const isThrough = rest.length > 0 && holder !== undefined && !isPlain(holder, rest.slice(0, -1));
          const path = isThrough ? "other" : key;
          const entry: WriteEntry = { ordinal, effect, key: path, found: foundAt(current, path, effect === "append") };
          if (effect !== "delete" && isPinned) entry.value = given;
          journal.push(entry);
          repeatWrites(current, [{ effect, key: path, value: given }]);
        }
        seen.push(structuredClone(current));
        const claimed = new Set<number>();
        const past = new Past(journal, journal, claimed);

        for (const ordinal of seen.keys()) {
          const read = isRead[ordinal] ? past.at(current, true) : seen[ordinal];
          expect(read).toEqual(seen[ordinal]);
          claimed.add(ordinal);
        }
        expect(past.at(current, true)).toBe(current);
      },
    ),
    fuzzRuns(),
  );
});

test("branches that come to their writes in another order, and write more, have the state that they had apart", () => {
  const ofOne = fc.array(fc.record({ effect: fc.constantFrom("set" as const, "append" as const), value }), {
    maxLength: 6,
  });
  fc.assert(
    fc.property(
      ofOne,
      ofOne,
      fc.infiniteStream(fc.boolean()),
      fc.infiniteStream(fc.boolean()),
      (one, two, first, then) => {
        const branches = { one, two };
        const [state, journal]: [JsonObject, JournalEntry[]] = [{}, []];
        const write = (key: keyof typeof branches, { effect, value: given }: (typeof one)[number]) => {
          journal.push({
            ordinal: journal.length,
            effect,
            key,
            value: given,
            found: foundAt(state, key, effect === "append"),
          });
          repeatWrites(state, [{ effect, key, value: given }]);
        };
        const places = { one: [...one.keys()].map(() => 0), two: [...two.keys()].map(() => 0) };
        interleaved(one.length, two.length, first, (key, at) => {
          places[key][at] = journal.length;
          const done = branches[key][at];
          if (done) write(key, done);
        });
        const claimed = new Set<number>();
        const past = new Past([...journal], journal, claimed);
        const apart: Record<string, JsonObject> = { one: {}, two: {} };

        interleaved(one.length, two.length, then, (key, at) => {
          claimed.add(places[key][at] ?? -1);
          const done = branches[key][at];
          if (done) repeatWrites((apart[key] ??= {}), [{ ...done, key }]);
          expect(past.at(state, false)).toEqual({ ...apart["one"], ...apart["two"], ...other(state) });
          if (at % 2 === 0) repeatWrites(state, [{ effect: "set", key: "other", value: at }]);
        });
        expect(past.at(state, false)).toBe(state);
      },
    ),
    fuzzRuns(),
  );
});

function other({ other: value }: JsonObject): JsonObject {
  return value === undefined ? {} : { other: value };
}

function interleaved(
  ones: number,
  twos: number,
  picks: Iterable<boolean>,
  each: (key: "one" | "two", at: number) => void,
): void {
  let [one, two] = [0, 0];
  const pick = picks[Symbol.iterator]();
  while (one + two < ones + twos)
    if (two === twos || (one < ones && pick.next().value === true)) each("one", one++);
    else each("two", two++);
}

function isPlain(holder: Json, path: readonly string[]): boolean {
  if (typeof holder !== "object" || holder === null || Array.isArray(holder)) return false;
  const [next, ...rest] = path;
  return next === undefined || holder[next] === undefined || isPlain(holder[next], rest);
}
