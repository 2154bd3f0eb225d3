/** What an earlier attempt saw before each of its writes is seen there again, whatever it wrote. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Json, JsonObject } from "../../src/index.ts";
import { Past } from "../../src/engine/past.ts";
import { foundAt } from "../../src/base/path.ts";
import { repeatWrites, type JournalEntry, type WriteEntry } from "../../src/ledger/state.ts";
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
        const past = new Past(journal);

        for (const [ordinal, state] of [...seen.entries()].filter(([place]) => isRead[place]))
          expect(past.at(ordinal, current)).toEqual(state);
        expect(past.at(writes.length, current)).toBe(current);
      },
    ),
    fuzzRuns(),
  );
});

function isPlain(holder: Json, path: readonly string[]): boolean {
  if (typeof holder !== "object" || holder === null || Array.isArray(holder)) return false;
  const [next, ...rest] = path;
  return next === undefined || holder[next] === undefined || isPlain(holder[next], rest);
}
