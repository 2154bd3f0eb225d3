/**
 * Whatever a client sends to the SQL door, in whatever order: it is taken or refused with a code of ours, and afterwards every
 * ledger holds, and can be read.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import type { Json } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, present } from "../support/doors.ts";
import { serving } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const database = await testDatabase();
const { sql } = database;
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

const inner = defineFlow("inner");
inner.to("ask", (ctx) => ctx.pauseFor({ interruptId: "below" }));
const flow = defineFlow("fuzzed", { events: { Go: z.object({ n: z.number() }), Next: z.any() } });
flow
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", response: z.object({ yes: z.boolean() }) }))
  .to("keep", (ctx) => ctx.setState("answer", ctx.input));
flow.to("self", (ctx) => (ctx.isResume ? ctx.input : ctx.pauseFor({ interruptId: "s", resumeTo: { event: "Next" } })));
flow.when("Go").to("hear", (ctx) => ctx.appendState("heard", ctx.input));
const outer = defineFlow("outer");
outer.toSubFlow(inner);

/** Of what was made so far. */
const ids = ["0190a000-0000-7000-8000-000000000000"];
const corrections = [{ of: "0190a000-0000-7000-8000-000000000000", id: "none" }];
const id = fc.nat().map((at) => ({ at }));
const short = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }).filter((value) => !value.includes("\0")),
  },
  { weight: 1, arbitrary: fc.constantFrom("", "x".repeat(501), "x".repeat(100_000), "\u202e\u0007", "parent") },
);
const text = fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: short });
const payload = fc.oneof(
  {
    weight: 16,
    arbitrary: fc.constantFrom(
      "null",
      "1",
      '"text"',
      '{"n": 1}',
      '{"n": "x"}',
      '{"yes": true}',
      '{"yes": "no"}',
      "[]",
      "{}",
    ),
  },
  { weight: 1, arbitrary: fc.json({ maxDepth: 3 }).filter((json) => !json.includes("\\u0000")) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<string | null>(
      null,
      '{"__proto__": {"a": 1}}',
      '{"constructor": {"prototype": 1}}',
      "1e400",
      "9007199254740993",
      "[".repeat(300) + "]".repeat(300),
      JSON.stringify("x".repeat(1_100_000)),
      `[${"1e131071,".repeat(50)}0]`,
    ),
  },
);
const moment = fc.constantFrom<unknown>(
  "2100-01-01T00:00:00Z",
  "1969-01-01T00:00:00Z",
  "infinity",
  "-infinity",
  "9999-12-31T00:00:01Z",
  "today",
  7,
  null,
);
const duration = fc.constantFrom<unknown>(0, 5, "1ms", "10s", "1h30m", "soon", -1, 1e300, null, "100000w", {}, "NaN");
const startOptions = fc
  .oneof(
    {
      weight: 8,
      arbitrary: fc.constantFrom<unknown>(
        { autoClose: false, interventionMode: "auto" },
        { autoCloseTimeout: null, interventionMode: "auto" },
        {},
        { autoCloseTimeout: 0 },
      ),
    },
    {
      weight: 2,
      arbitrary: fc
        .record(
          {
            id: fc.oneof(fc.uuid({ version: 7 }), fc.constantFrom<unknown>("x", 1, null)),
            idempotencyKey: short,
            metadata: fc.constantFrom<unknown>({ tenant: "a" }, { a: null }, { __proto: 1 }, [], "x", null),
            priority: fc.constantFrom<unknown>(1, -32_767, 1.5, 40_000, "1", null),
            startAt: moment,
            delay: duration,
            discardAfter: fc.oneof(duration, moment),
            timeout: duration,
            autoCloseTimeout: duration,
            autoClose: fc.constantFrom<unknown>(true, false, "yes"),
            concurrency: fc.constantFrom<unknown>(1, 3, null, 0, 1e10, "1"),
            interventionMode: fc.constantFrom<unknown>("auto", "planned", null, "x"),
            limitKey: short,
            hidden: fc.constant(true),
          },
          { requiredKeys: [], noNullPrototype: true },
        )
        .map((all) => Object.fromEntries(Object.entries(all).slice(0, 2))),
    },
    { weight: 1, arbitrary: fc.constantFrom<unknown>(null, [], "x", 7) },
  )
  .map((value) => JSON.stringify(value));
const reason = fc.oneof(fc.constantFrom("enough", ""), fc.constantFrom<string | null>(null, "x".repeat(20_000)));
const event = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("Go", "Next", "Other") },
  { weight: 1, arbitrary: fc.constantFrom("", null, "x".repeat(600), "constructor") },
);
const interrupt = fc.oneof(
  fc.constantFrom("q", "s", "below"),
  fc.constantFrom("unknown", "", "x".repeat(2000)),
  id.map(({ at }) => ({ below: at })),
);
const mark = fc.constantFrom("applied", "ignored", "applied", "lost");
const options = fc
  .oneof(
    fc.constantFrom<unknown>({}, { author: "ann", note: "typo", target: "hear" }, { metadata: { a: 1 } }),
    fc.constantFrom<unknown>(
      { autor: "x" },
      { note: 7 },
      [],
      null,
      { metadata: [] },
      { author: "limit" },
      { note: "x".repeat(20_000) },
    ),
  )
  .map((value) => JSON.stringify(value));
const time = fc.constantFrom(null, "2100-01-01", "infinity", "1960-01-01", "12000-01-01");
const ms = fc.constantFrom(0, 1, 60_000, -1, Number.NaN, Infinity, 1e300);

type Argument =
  string | number | boolean | null | { at: number } | { below: number } | { correction: number; part: "of" | "id" };
const correction = fc
  .nat()
  .map((at) => [{ correction: at, part: "of" } as const, { correction: at, part: "id" } as const]);

/** Its sub-flow, if it has one. */
const frame =
  "coalesce((select e.id from flowledger.executions e where e.parent_id = $1::uuid order by e.id limit 1), $2::uuid)";

/** Each function that a client may call, with the casts of its arguments. */
const calls = {
  "start($1, $2::text::jsonb, $3::text::jsonb)": fc.tuple(
    fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom("fuzzed", "outer") },
      { weight: 1, arbitrary: fc.constantFrom("", "x y", "unserved") },
    ),
    payload,
    startOptions,
  ),
  "start_execution($1::uuid, $2::text::jsonb, true, $3::boolean, $4)": fc.tuple(id, payload, fc.boolean(), text),
  "emit($1::uuid, $2, $3::text::jsonb, $4, $5, true, $6::boolean)": fc.tuple(
    id,
    event,
    payload,
    text,
    text,
    fc.boolean(),
  ),
  "continue_with($1::uuid, $2, $3::text::jsonb, $4, $5)": fc.tuple(id, interrupt, payload, text, text),
  "continue_with($1::uuid, $2, $3::text::jsonb, $4, $5, true, false)": fc.tuple(id, interrupt, payload, text, text),
  "intervene($1::uuid, $2::text::jsonb, $3::text::jsonb)": fc.tuple(id, payload, options),
  "mark_intervention_consumed($1::uuid, $2, $3, $4, $5, $6::text::jsonb)": fc
    .tuple(correction, short, mark, text, fc.constantFrom(null, "{}", '{"a": 1}', "[]", '{"__proto__": 1}'))
    .map(([of, ...rest]) => [...of, ...rest]),
  "seal($1::uuid, $2)": fc.tuple(id, text),
  "close($1::uuid, $2, $3, $4)": fc.tuple(id, reason, fc.constantFrom("cancel", "reject", "x"), text),
  "cancel($1::uuid, $2, $3)": fc.tuple(id, reason, text),
  "cancel_function($1::uuid, $2::boolean)": fc.tuple(id, fc.boolean()),
  "reschedule_function($1::uuid, $2::text::timestamptz, $3::float8)": fc.tuple(id, time, ms),
  [`emit_to_sub_flow($1::uuid, ${frame}, $3, $4::text::jsonb)`]: fc.tuple(id, id, event, payload),
  [`cancel_sub_flow($1::uuid, ${frame}, $3)`]: fc.tuple(id, id, reason),
} satisfies Readonly<Record<string, fc.Arbitrary<readonly Argument[]>>>;

const call = fc.oneof(
  ...Object.entries(calls).map(([statement, args]) => ({
    // What ends an execution comes seldom, or nothing would be open for the others.
    weight: /^(seal|close|cancel)/.test(statement) ? 1 : /^(start\(|emit)/.test(statement) ? 12 : 5,
    arbitrary: (args as fc.Arbitrary<readonly Argument[]>).map((values) => ({ statement, values })),
  })),
);

function valueOf(argument: Argument): string | number | boolean | null {
  if (typeof argument !== "object" || argument === null) return argument;
  // The last ones: they are open still.
  const among = <T>(all: readonly T[], at: number): T => present(all[Math.max(0, all.length - 1 - (at % 40))]);
  if ("at" in argument) return among(ids, argument.at);
  return "below" in argument
    ? `${among(ids, argument.below)}:below`
    : among(corrections, argument.correction)[argument.part];
}

// Of values that the caller's own cast refuses, before anything of ours is called.
const casts = new Set(["22P02", "22P05", "22003", "22008", "54001"]);

test(
  "whatever comes in at the SQL door is taken or refused by name, and every execution can be read afterwards",
  { timeout: 60_000 + fuzzRuns().numRuns * 20 },
  async () => {
    await using orchestrator = await serving(database, [flow, outer], { logger: quiet });
    const [taken, refused] = [new Map<string, number>(), new Map<string, number>()];
    const send = async ({ statement, values }: { statement: string; values: readonly Argument[] }) => {
      const sent = values.map(valueOf);
      const answer = sql.unsafe<{ answer: Json }[]>(`select flowledger.${statement} as answer`, sent);
      const code = await codeOf(answer);
      if (code !== "ok") {
        refused.set(code, (refused.get(code) ?? 0) + 1);
        if (!casts.has(code) && !/^[A-Z_]{5,}$/.test(code)) throw new Error(`${statement} is refused with ${code}`);
        return;
      }
      taken.set(statement, (taken.get(statement) ?? 0) + 1);
      const [row] = await answer;
      if (statement.startsWith("start(")) ids.push(String(row?.answer));
      if (statement.startsWith("intervene("))
        corrections.push({ of: String(sent[0]), id: z.object({ id: z.string() }).parse(row?.answer).id });
    };
    // Four clients side by side.
    const four = fc.array(call, { minLength: 4, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(four, (some) => Promise.all(some.map(send)).then(() => {})),
      { ...fuzzRuns(1 / 4), endOnFailure: true },
    );

    const taking = [...taken.values()].reduce((sum, count) => sum + count, 0);
    const all = taking + [...refused.values()].reduce((sum, count) => sum + count, 0);
    expect(taking / all).toBeGreaterThan(1 / 3);
    expect(Object.keys(calls).filter((statement) => !taken.has(statement))).toEqual([]);
    const made = await sql<{ id: string }[]>`select id from flowledger.executions`;
    for (const one of made) {
      const execution = await orchestrator.getExecution(one.id);
      expect(await execution.result.getMeta()).toMatchObject({ executionId: one.id });
      expect((await execution.history()).length).toBeGreaterThan(0);
      await execution.stateAt(1);
    }
    expect(await orchestrator.verify()).toEqual([]);
  },
);
