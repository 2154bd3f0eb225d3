/** What may come in is checked once, in SQL, and `toJson` of the library says the same of every value. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { z } from "zod";
import { PayloadError } from "../../src/base/errors.ts";
import { toJson, type Json } from "../../src/base/json.ts";
import { seenOf } from "../../src/base/option.ts";
import { parseAnswer } from "../../src/ledger/answers.ts";
import { createOrchestrator } from "../../src/orchestrator.ts";
import { refusalOf } from "../../src/store/refusals.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf } from "../support/doors.ts";
import { refusal } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const { sql, url } = await testDatabase();
const target = { place: "the test's", user: "the test's", schema: "flowledger" };

/** What SQL says of a payload, in the code of the library's own error. */
function checked(json: string): Promise<string> {
  return codeOf(sql`select flowledger.check_json(${json}::text::jsonb, 'input')`.then(() => ""));
}

const key = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: "grapheme", maxLength: 6 }) },
  { weight: 1, arbitrary: fc.constantFrom("__proto__", "constructor", "prototype", '"__proto__": ', "toString") },
);
const leaf = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.constantFrom(
    null,
    true,
    false,
    "",
    '{ "__proto__": 1 }',
    '\u0007\n"\\\u007f',
    5e-324,
    1.7976931348623157e308,
    1e21,
    1e-7,
    -0,
  ),
);
const { tree } = fc.letrec<{ tree: unknown; record: unknown }>((tie) => ({
  tree: fc.oneof({ maxDepth: 4 }, leaf, tie("record"), fc.array(tie("tree"), { maxLength: 4 })),
  // As `JSON.parse` makes it: with `__proto__` for a key like any other.
  record: fc.array(fc.tuple(key, tie("tree")), { maxLength: 4 }).map((entries) => {
    const record: Record<string, unknown> = {};
    for (const [name, value] of entries)
      Object.defineProperty(record, name, { value, enumerable: true, configurable: true, writable: true });
    return record;
  }),
}));

test("a payload is one for both doors or for neither, and has one size", async () => {
  const refused = new Set<boolean>();
  await fc.assert(
    fc.asyncProperty(
      tree.filter((value) => !JSON.stringify(value).includes("\\u0000")),
      async (value) => {
        const json = JSON.stringify(value);
        let known: Json | undefined;
        try {
          known = toJson(value, "input");
        } catch (error) {
          if (!(error instanceof PayloadError)) throw error;
        }
        refused.add(known === undefined);

        expect({ json, code: await checked(json) }).toEqual({
          json,
          code: known === undefined ? "PAYLOAD_UNSTORABLE" : "ok",
        });
        if (known === undefined) return;
        const [{ bytes }] = await sql<
          [{ bytes: number }]
        >`select octet_length(${JSON.stringify(known)}::text::jsonb::text) as bytes`;
        expect(toJson(known, "input", bytes)).toEqual(known);
        expect(() => toJson(known, "input", bytes - 1)).toThrow(/larger than/);
      },
    ),
    // Half way between two numbers, where Postgres writes another digit than JavaScript.
    { ...fuzzRuns(1 / 10), examples: [[-261382385207745200]] },
  );
  expect(refused).toEqual(new Set([false, true]));
});

test.each([
  ["a number that a float8 rounds", '{"a": [1, 9007199254740993]}', ["a", 1], "JavaScript holds exactly"],
  ["more digits than a float8 has", '{"a": 0.1000000000000000055511151231257827}', ["a"], "JavaScript holds exactly"],
  ["a number beyond a float8", '{"a": 1e400}', ["a"], "JavaScript holds exactly"],
  ["a number too near to zero", '{"a": 1e-400}', ["a"], "JavaScript holds exactly"],
  ["a number with many zeros", `{"a": 1.${"0".repeat(400)}}`, ["a"], "JavaScript holds exactly"],
  ["__proto__", '[{"a": {"__proto__": {"isAdmin": true}}}]', [0, "a", "__proto__"], "__proto__"],
  ["a prototype in a constructor", '{"b": {"constructor": {"prototype": {}}}}', ["b", "constructor"], "prototype"],
  ["201 levels", "[".repeat(201) + "]".repeat(201), [], "nested deeper than 200 levels"],
  ["5,000 levels", "[".repeat(5000) + "]".repeat(5000), [], "nested deeper than 200 levels"],
  ["more than 1 MiB", JSON.stringify("x".repeat(1_048_575)), [], "larger than 1048576 bytes"],
  ["few bytes that are many as text", `[${"1e131071,".repeat(100)}1]`, [0], "JavaScript holds exactly"],
  ["many bytes", JSON.stringify(Array.from({ length: 700_000 }, () => "")), [], "larger than 1048576 bytes"],
])("%s is refused by SQL, with the path", async (_, json, path, problem) => {
  const refused: unknown = await sql`select flowledger.start('checked', ${json}::text::jsonb)`.then(
    () => null,
    (error: unknown) => refusalOf(error, target),
  );

  expect(refused).toMatchObject({
    code: "PAYLOAD_UNSTORABLE",
    details: { where: 'input of flow "checked"', path, problem: expect.stringContaining(problem) as unknown },
  });
});

test("what is just within the limits is taken by SQL", async () => {
  for (const json of [
    JSON.stringify("x".repeat(1_048_574)),
    "[".repeat(200) + "]".repeat(200),
    '{"constructor": 1, "prototype": {"constructor": {"name": "x"}}, "toString": "__proto__"}',
    "[9007199254740992, 1.50, 1e300, 5e-324, -0.0]",
  ])
    expect(await checked(json)).toBe("ok");
});

/** Schemas as `pauseFor({ response })` takes them, and answers that are near to them. */
const schemas: readonly (readonly [string, z.ZodType])[] = [
  ["a boolean in an object", z.object({ approved: z.boolean() })],
  ["an optional key", z.object({ approved: z.boolean(), note: z.string().max(3).optional() })],
  ["a loose object", z.looseObject({ a: z.int().min(1).max(9) })],
  ["an enum", z.enum(["yes", "no"])],
  ["literals", z.literal(["x", 1, null])],
  ["a union", z.union([z.string(), z.null(), z.object({ n: z.number().gt(1).lt(5) })])],
  [
    "a choice by a key",
    z.discriminatedUnion("k", [z.object({ k: z.literal("a") }), z.object({ k: z.literal("b"), v: z.number() })]),
  ],
  [
    "a list",
    z
      .array(z.object({ n: z.int() }))
      .min(1)
      .max(2),
  ],
  ["a tuple", z.tuple([z.string(), z.number()])],
  ["a record", z.record(z.string().max(2), z.boolean())],
  ["a pattern", z.string().regex(/^a\d+$/)],
  ["texts", z.object({ mail: z.email(), day: z.iso.date(), id: z.uuid() }).partial()],
  ["steps", z.number().multipleOf(2)],
  ["nothing", z.never()],
  ["anything", z.any()],
];
const answer = fc.oneof(
  fc.record(
    {
      approved: fc.oneof(fc.boolean(), fc.constantFrom("no", null, 1)),
      note: fc.constantFrom("abc", "abcd", "😀a", "😀😀", null, 1),
    },
    { requiredKeys: [] },
  ),
  fc.record(
    {
      a: fc.constantFrom<unknown>(0, 1, 9, 10, 1.5, "1"),
      n: fc.constantFrom<unknown>(1, 2, 5, "2"),
      extra: fc.constant(1),
    },
    { requiredKeys: [] },
  ),
  fc.record({ k: fc.constantFrom("a", "b", "c"), v: fc.constantFrom<unknown>(1, "1") }, { requiredKeys: [] }),
  fc.record(
    {
      mail: fc.constantFrom("a@b.de", "a@b", "a b@c.de"),
      day: fc.constantFrom("2024-02-29", "2023-02-29", "2024-2-1"),
      id: fc.oneof(fc.uuid(), fc.constant("x")),
    },
    { requiredKeys: [] },
  ),
  fc.array(fc.constantFrom<unknown>("x", 1, { n: 1 }, { n: 1.5 }, { n: 1, m: 2 }), { maxLength: 3 }),
  fc.dictionary(fc.constantFrom("a", "bb", "ccc"), fc.constantFrom<unknown>(true, false, 1)),
  fc.constantFrom<Json>("yes", "no", "x", "a1", "a", "ba1", "a1\n", 1, 2, 3, 0.5, null, true, [], {}),
);

test.each(schemas)("an answer to %s is one for both doors or for neither", async (_, schema) => {
  const response = toJson(z.toJSONSchema(schema, { io: "input" }), "response");
  await fc.assert(
    fc.asyncProperty(answer, async (value) => {
      const given = JSON.stringify(value);
      const library = await codeOf((async () => void parseAnswer("boss", response, value))());
      const door = await codeOf(
        sql`select flowledger.check_answer(${JSON.stringify(response)}::text::jsonb, ${given}::text::jsonb, 'boss')`.then(
          () => "",
        ),
      );

      expect({ given, isTaken: door === "ok" }).toEqual({ given, isTaken: library === "ok" });
    }),
    fuzzRuns(1 / 60),
  );
});

const [{ started }] = await sql<[{ started: string }]>`
  select flowledger.start('checked', '1', '{"interventionMode": "auto"}') as started`;
const big = "to_jsonb(repeat('x', 1048575))";

test.each([
  ["emit: no name", `emit('${started}', '')`],
  ["emit: a long name", `emit('${started}', repeat('x', 501))`],
  ["emit: a long payload", `emit('${started}', 'E', ${big})`],
  ["emit: an empty key", `emit('${started}', 'E', idempotency_key => '')`],
  ["continue_with: a long answer", `continue_with('${started}', 'q', ${big})`],
  ["continue_with: a long request id", `continue_with('${started}', 'q', '1', repeat('x', 10001))`],
  ["intervene: a long payload", `intervene('${started}', ${big})`],
  ["intervene: an unknown option", `intervene('${started}', '1', '{"autor": "ann"}')`],
  ["intervene: options that are a list", `intervene('${started}', '1', '[]')`],
  [
    "intervene: long metadata",
    `intervene('${started}', '1', jsonb_build_object('metadata', jsonb_build_object('m', ${big})))`,
  ],
  ["intervene: an actor that is none", `intervene('${started}', '1', '{"actor": 7}')`],
  ["cancel: a long reason", `cancel('${started}', repeat('x', 10001))`],
  ["close: a long reason", `close('${started}', repeat('x', 10001))`],
  ["seal: a long actor", `seal('${started}', repeat('x', 501))`],
  ["start_execution: a long input", `start_execution('${started}', ${big})`],
  ["start: long metadata", `start('checked', '1', jsonb_build_object('metadata', jsonb_build_object('m', ${big})))`],
  ["reschedule_function: never", `reschedule_function('${started}', 'infinity')`],
  ["reschedule_function: before 1970", `reschedule_function('${started}', '1969-12-31')`],
  ["reschedule_function: NaN", `reschedule_function('${started}', null, 'NaN')`],
  ["reschedule_function: no time at all", `reschedule_function('${started}', null, null)`],
])("%s is refused, and leaves nothing", async (_, call) => {
  expect(["PAYLOAD_UNSTORABLE", "USAGE_INVALID"]).toContain(await codeOf(sql.unsafe(`select flowledger.${call}`)));

  expect(await sql`select from flowledger.ledger where execution_id = ${started}`).toHaveLength(2);
});

test("what is acknowledged under an id or a key is what was asked for", async () => {
  const start = (input: number, options: object, name = "checked") =>
    sql<
      [{ id: string }]
    >`select flowledger.start(${name}, ${input}::text::jsonb, ${JSON.stringify(options)}::text::jsonb) as id`;
  const id = "01a1fc32-0000-7000-8000-000000000002";
  const own = "01a1fc32-0000-7000-8000-000000000003";
  await start(1, { id });
  await start(1, { id: own, idempotencyKey: "k" });

  expect(await codeOf(start(1, { id }))).toBe("USAGE_INVALID");
  expect(await codeOf(start(1, { id }, "other"))).toBe("USAGE_INVALID");
  expect(await codeOf(start(1, { id, idempotencyKey: "new" }))).toBe("USAGE_INVALID");
  expect(await codeOf(start(2, { id: own, idempotencyKey: "k" }))).toBe("USAGE_INVALID");
  expect(await codeOf(start(1, { id: own, idempotencyKey: "k" }, "other"))).toBe("USAGE_INVALID");
  const [again] = await start(1, { id: own, idempotencyKey: "k" });
  expect(again.id).toBe(own);
});

test("what is seen of a text is the same for both doors, whatever its characters", async () => {
  const [row] = await sql<[{ unseen: number[] }]>`
    select array_agg(n order by n) as unseen from generate_series(1, 1114111) n
    where n not between 55296 and 57343 and flowledger.seen_of(chr(n)) = ''`;

  const points = Array.from({ length: 0x110000 }, (_, point) => point).slice(1);
  const unseen = points.filter(
    (point) => (point < 0xd800 || point > 0xdfff) && seenOf(String.fromCodePoint(point)) === "",
  );
  expect([...row.unseen]).toEqual(unseen);
});

test.each([
  "retry($1, $2)",
  "skip($1, $2)",
  `edit_state($1, '{"delete": ["a"]}', $2)`,
  "pause($1, $2)",
  "unpause($1, $2)",
  "redrive($1, $2)",
  "pause_flow('checked', $2)",
  "unpause_flow('checked', $2)",
  `bulk($2 || '{"action": "pause", "where": {"flow": "checked"}}')`,
])("%s without an actor or a reason that says something is refused, and leaves nothing", async (call) => {
  for (const by of [{ actor: " ", reason: "INC-12" }, { actor: "ann", reason: " " }, { actor: "ann" }]) {
    const written = call.replace("$1", `'${started}'`).replace("$2", `'${JSON.stringify(by)}'::jsonb`);
    await expect(sql.unsafe(`select flowledger.${written}`)).rejects.toMatchObject({
      code: "FL008",
      message: expect.stringContaining("is missing") as string,
    });
  }

  expect(await sql`select from flowledger.ledger where execution_id = ${started}`).toHaveLength(2);
});

/** Of nothing in them anybody sees. */
const unseen = ["", "\t", "\u200b", "\u3000\u2060"];

test("a reason of which nothing is seen is refused by every command at every door, and leaves nothing", async () => {
  await using orchestrator = createOrchestrator({ connection: url });
  const execution = await orchestrator.getExecution(started);
  const by = { actor: "ann" };
  const doors: Record<string, (reason: string) => Promise<unknown>> = {
    close: (reason) => execution.close({ reason, timeout: "1s" }),
    cancel: (reason) => execution.cancel(reason),
    cancelSubFlow: (reason) => execution.cancelSubFlow(started, reason),
    withdraw: (reason) => execution.withdraw("q", { reason }),
    delegate: (reason) => execution.delegate("q", { to: "user:bo", reason, ...by }),
    fork: (reason) => execution.fork({ at: 1, reason }),
    retry: (reason) => execution.retry({ reason, ...by }),
    prune: (reason) => orchestrator.prune({ ids: [started], reason, ...by }),
    runSchedule: (reason) => orchestrator.runSchedule("daily", { reason, ...by }),
    "SQL close": (reason) => sql`select flowledger.close(${started}, ${reason})`,
    "SQL cancel": (reason) => sql`select flowledger.cancel(${started}, ${reason})`,
    "SQL cancel_sub_flow": (reason) => sql`select flowledger.cancel_sub_flow(${started}, ${started}, ${reason})`,
    "SQL withdraw": (reason) => sql`select flowledger.withdraw(${started}, 'q', ${reason})`,
    "SQL delegate_interrupt": (reason) =>
      sql`select flowledger.delegate_interrupt(${started}, 'q', ${sql.json({ to: "user:bo", reason, ...by })})`,
    "SQL prune": (reason) => sql`select flowledger.prune(${[started]}::uuid[], 'ann', ${reason})`,
    "SQL run_schedule": (reason) => sql`select flowledger.run_schedule('daily', ${sql.json({ reason, ...by })})`,
    "SQL grant_client": (reason) => sql`select flowledger.grant_client('nobody', null, null, ${sql.json({ reason })})`,
  };
  for (const [door, ask] of Object.entries(doors))
    for (const reason of unseen)
      expect(await refusal(ask(reason)), `${door} with ${JSON.stringify(reason)}`).toMatchObject({
        code: expect.toBeOneOf(["USAGE_INVALID", "FL008"]) as string,
        message: expect.stringContaining("reason") as string,
      });

  expect(await sql`select from flowledger.ledger where execution_id = ${started}`).toHaveLength(2);
});
