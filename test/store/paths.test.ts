/** Dot paths: what `base/path.ts` makes of a value, the SQL that reads states from the ledger makes of it too. */
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import { copyJson, type Json, type JsonObject } from "../../src/base/json.ts";
import { appendPath, deletePath, pathOf, setPath } from "../../src/base/path.ts";
import { testDatabase } from "../support/database.ts";
import { sqlstates } from "../support/doors.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const { sql } = await testDatabase();

interface Case {
  readonly change: "set" | "append" | "delete";
  readonly values: JsonObject;
  readonly path: string;
  readonly value: Json;
}

// Without a backslash: where a key is one, JSON.parse of Node 24 may take a quotation mark in another object for it.
const names = [
  "a",
  "b",
  "0",
  "1",
  "-1",
  "ü",
  "😀",
  "a b",
  "%",
  '"',
  "{}",
  "NULL",
  "constructor",
  "toString",
  "__proto__",
  "",
];
const name = fc.constantFrom(...names);
const safeName = fc.constantFrom(...names.filter((part) => part !== "__proto__"));
const path = fc.oneof(
  { weight: 20, arbitrary: fc.array(name, { minLength: 1, maxLength: 5 }).map((parts) => parts.join(".")) },
  {
    weight: 20,
    arbitrary: fc.array(safeName.filter(Boolean), { minLength: 1, maxLength: 4 }).map((parts) => parts.join(".")),
  },
  // At and beyond what a path may have: parts, and bytes of UTF-8.
  fc.constantFrom(199, 200, 201, 5000).map((parts) => Array.from({ length: parts }, () => "a").join(".")),
  fc.constantFrom(999, 1000, 1001).map((half) => "ü".repeat(half)),
);
const { value } = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<Json>(null, 0, true, "text"),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(safeName, tie("value"), { maxKeys: 4 }),
  ),
}));
const cases = fc.record<Case>({
  change: fc.constantFrom("set", "append", "delete"),
  values: fc.dictionary(safeName, value, { maxKeys: 5 }),
  path,
  value,
});

beforeAll(async () => {
  await sql.unsafe(`
    create function public.changed(p_change text, p_values jsonb, p_path text, p_value jsonb) returns jsonb language plpgsql as $$
    begin
      return case p_change
        when 'set' then flowledger.state_set(p_values, flowledger.path_of(p_path), p_value)
        when 'append' then flowledger.state_append(p_values, flowledger.path_of(p_path), array[p_value])
        else flowledger.state_delete(p_values, flowledger.path_of(p_path)) end;
    exception when others then
      return to_jsonb(sqlstate);
    end $$`);
});

test("a write by path leaves the same in TypeScript and in SQL, or is refused by both with one code", async () => {
  for (let { numRuns } = fuzzRuns(); numRuns > 0; numRuns -= atOnce) {
    const tried = fc.sample(cases, atOnce);
    expect((await differences(tried)).slice(0, 3)).toEqual([]);
    const refused = tried.filter((one) => changed(one) === "USAGE_INVALID").length;
    expect([refused > 200, refused < 2800]).toEqual([true, true]);
  }
});

const atOnce = 3000;

/** What SQL left and what it should have, shortest first. */
async function differences(tried: readonly Case[]): Promise<unknown[]> {
  const rows = await sql<{ left: Json }[]>`
    select public.changed(c ->> 'change', c -> 'values', c ->> 'path', c -> 'value') as left
    from jsonb_array_elements(${JSON.stringify(tried)}::text::jsonb) with ordinality as x(c, ord) order by ord`;
  const different = tried.flatMap((one, index) => {
    const bySql = rows[index]?.left ?? null;
    const left = { ...one, left: typeof bySql === "string" ? (sqlstates[bySql] ?? bySql) : bySql };
    const expected = { ...one, left: changed(one) };
    return JSON.stringify(sorted(left)) === JSON.stringify(sorted(expected)) ? [] : [[left, expected]];
  });
  return different.toSorted((a, b) => JSON.stringify(a).length - JSON.stringify(b).length);
}

/** What is left of the values, or the code of the refusal. */
function changed({ change, values: before, path: at, value: item }: Case): Json {
  const values = copyJson(before);
  try {
    if (change === "set") setPath(values, at, copyJson(item));
    else if (change === "append") appendPath(values, at, copyJson(item));
    else deletePath(values, at);
    return values;
  } catch (error) {
    if (error instanceof UsageError) return error.code;
    throw error;
  }
}

/** jsonb has an order of its own. */
function sorted(value_: Json): Json {
  if (Array.isArray(value_)) return value_.map(sorted);
  if (typeof value_ !== "object" || value_ === null) return value_;
  return Object.entries(value_)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => [key, sorted(item)]);
}

test.each([["a\0b"], ["a\ud83e"], [undefined], [null], [7], [{}]])(
  "%j is no path: Postgres could not even be asked",
  (wrong) => {
    expect(() => pathOf(wrong as string)).toThrow(expect.objectContaining({ code: "USAGE_INVALID" }));
  },
);
