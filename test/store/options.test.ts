/** A start takes and refuses the same options by the library and by SQL, and both mean the same by them. */
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import type { JsonObject } from "../../src/base/json.ts";
import { defineFlow } from "../../src/index.ts";
import type { CreateOptions } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { testDatabase, type TestDatabase } from "../support/database.ts";
import { codeOf, present } from "../support/doors.ts";
import { visiting } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { storeOn } from "../support/store.ts";

// An id and a key are used once, so each door has a database of its own.
const [byLibrary, bySql] = [await testDatabase(), await testDatabase()];
const flow = defineFlow("optional");
flow.to("pass", () => null);
const orchestrator = visiting(byLibrary, [flow]);
afterAll(() => orchestrator.close());

function startBySql(flowName: string, options: unknown): Promise<string> {
  return bySql.sql<[{ id: string }]>`
    select flowledger.start(${flowName}, '{"n": 1}', ${JSON.stringify(options)}::text::jsonb) as id`.then(
    ([{ id }]) => id,
  );
}

/** A Date for the library, ISO text for SQL. */
class Moment {
  readonly at: Date;
  constructor(at: Date) {
    this.at = at;
  }
  toJSON(): string {
    return this.at.toISOString();
  }
}

const text = (max: number) =>
  fc
    .string({ unit: "grapheme", minLength: 1, maxLength: max })
    .filter((value) => !value.includes("\0") && value.isWellFormed());
const milliseconds = fc.oneof(fc.nat(), fc.double({ min: 0, max: 1e6, noNaN: true }), fc.constant(3_155_760_000_000));
const number = fc.oneof(
  fc.nat(5000).map(String),
  fc.tuple(fc.nat(99), fc.stringMatching(/^[0-9]{1,6}$/)).map(([whole, rest]) => `${whole}.${rest}`),
);
const lengths = fc
  .array(
    fc.tuple(number, fc.constantFrom("ms", "s", "m", "h", "d", "w")).map((parts) => parts.join("")),
    { minLength: 1, maxLength: 3 },
  )
  .map((parts) => parts.join(""));
const durations = fc.oneof(milliseconds, lengths);
const wrongLengths = [
  "",
  "soon",
  "5",
  "0",
  "-5s",
  "5 s",
  "1 hour",
  "1h 30m",
  "01:00:00",
  "PT1H",
  ".5s",
  "1.s",
  "5S",
  "1y",
];
const noDuration = fc.constantFrom<unknown>(
  ...wrongLengths,
  "1e3s",
  "٣s",
  "36526d",
  -1,
  3_155_760_000_001,
  1e300,
  true,
  [],
  {},
);
const moments = fc
  .date({ min: new Date(0), max: new Date("9999-12-31T00:00:00Z"), noInvalidDate: true })
  .map((at) => new Moment(at));
const noMoment = fc.constantFrom<unknown>(
  "tomorrow",
  "now",
  "infinity",
  "2026-01-31",
  "",
  0,
  1e12,
  true,
  {},
  new Moment(new Date(-1)),
  new Moment(new Date("9999-12-31T00:00:00.001Z")),
);

const unknown = new Set(["idempotencykey", "Delay", "input", "hidden", ""]);

/** For each option what is right and what is wrong; and names that are none. */
const values: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  id: fc.oneof(
    fc.uuid(),
    fc.uuid().map((id) => id.toUpperCase()),
    fc.uuid().map((id) => `{${id}}`),
    fc.uuid().map((id) => id.replaceAll("-", "")),
    fc.constantFrom<unknown>(
      "",
      "x",
      "01890000-0000-9000-8000-000000000000",
      "01890000-0000-7000-c000-000000000000",
      7,
      null,
    ),
  ),
  idempotencyKey: fc.oneof(
    text(40),
    fc.constantFrom<unknown>(
      "",
      7,
      true,
      null,
      {},
      "é".repeat(500),
      "é".repeat(501),
      "😀".repeat(500),
      "😀".repeat(501),
    ),
  ),
  metadata: fc.oneof(
    fc.dictionary(
      text(5).filter((key) => key !== "__proto__"),
      fc.oneof(text(5), fc.integer(), fc.constantFrom(null, true, [1], { a: null })),
    ),
    fc.constantFrom<unknown>(null, [], "x", 1, { tenant: null, tags: [{ x: null }] }),
  ),
  priority: fc.oneof(
    fc.integer({ min: -32_767, max: 32_767 }),
    fc.constantFrom<unknown>(-32_768, 32_768, 99_999, 0.5, "5", null, true, 1e300),
  ),
  startAt: fc.oneof(moments, noMoment, fc.constant(null)),
  delay: fc.oneof(durations, noDuration, fc.constant(null)),
  discardAfter: fc.oneof(durations, moments, noDuration, fc.constant(null)),
  autoClose: fc.constantFrom<unknown>(true, false, null, "true", 0, 1),
  autoCloseTimeout: fc.oneof(durations, noDuration, fc.constant(null)),
  timeout: fc.oneof(durations, noDuration, fc.constant(null)),
  concurrency: fc.oneof(
    fc.integer({ min: 1 }),
    fc.constantFrom<unknown>(0, -1, 0.5, "5", null, true, 2 ** 53, Number.MAX_SAFE_INTEGER),
  ),
  interventionMode: fc.constantFrom<unknown>("planned", "auto", null, "", "none", true, 0),
  traceparent: fc.oneof(
    fc.constantFrom<unknown>(
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
      "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
      "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
      "",
      "x",
    ),
    fc.constantFrom<unknown>(null, 7, true, {}, ["00"]),
  ),
  idempotencykey: text(5),
  Delay: durations,
  input: fc.constant({}),
  "": fc.constant(1),
};

test.each(Object.keys(values))(
  "%j is taken by both or refused by both, with one code and one meaning",
  async (name) => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(values[name] ?? fc.constant(null), async (value) => {
        const own = { [name]: value instanceof Moment ? value.at : value } as CreateOptions;
        const library = orchestrator.flow(flow).startExecution({ n: 1 }, own);
        const sql = startBySql(flow.name, { [name]: value });
        const code = await codeOf(library);
        seen.add(code);

        expect(await codeOf(sql)).toBe(code);
        if (code !== "ok") return;
        const isAbsolute = value instanceof Moment;
        expect(await meaningOf(bySql, await sql, isAbsolute)).toEqual(
          await meaningOf(byLibrary, (await library).id, isAbsolute),
        );
      }),
      fuzzRuns(1 / 40),
    );
    expect([...seen].toSorted()).toEqual(unknown.has(name) ? ["USAGE_INVALID"] : ["USAGE_INVALID", "ok"]);
  },
);

test.each([null, [], "delay", 1, true])("options that are %j are refused by both", async (options) => {
  const library = orchestrator.flow(flow).startExecution({ n: 1 }, options as unknown as CreateOptions);

  expect([await codeOf(library), await codeOf(startBySql(flow.name, options))]).toEqual([
    "USAGE_INVALID",
    "USAGE_INVALID",
  ]);
});

test("a name of a flow is one for both or for neither", async () => {
  const part = fc.constantFrom("a", "Z", "0", ".", "_", ":", "-", " ", "é", "\n", "x".repeat(50));
  const names = fc.array(part, { maxLength: 4 }).map((parts) => parts.join(""));
  await fc.assert(
    fc.asyncProperty(names, async (name) => {
      const library = await codeOf((async () => defineFlow(name))());
      const sql = await codeOf(startBySql(name, {}));

      expect({ name, isTaken: sql === "ok" }).toEqual({ name, isTaken: library === "ok" });
    }),
    fuzzRuns(1 / 20),
  );
});

test("what only SQL can say, because only the library knows the flow's own, is a text of 1 to 200 characters", async () => {
  const { id } = await orchestrator.flow(flow).createExecution();
  const started = (key: string) =>
    byLibrary.sql`select flowledger.start_execution(${id}, '1', limit_key => ${key})`.then(() => id);

  for (const key of ["", "k".repeat(201)]) {
    expect(await codeOf(startBySql(flow.name, { limitKey: key }))).toBe("USAGE_INVALID");
    expect(await codeOf(started(key))).toBe("USAGE_INVALID");
  }
  for (const key of [7, null, {}]) expect(await codeOf(startBySql(flow.name, { limitKey: key }))).toBe("USAGE_INVALID");
  expect(await codeOf(startBySql(flow.name, { limitKey: "é".repeat(200) }))).toBe("ok");
  expect(await codeOf(started("tenant"))).toBe("ok");
});

/** What a start came to: times from its creation on, unless a moment was given. */
async function meaningOf({ sql }: TestDatabase, id: string, isAbsolute: boolean): Promise<JsonObject> {
  const state = present(await storeOn(sql).reads.loadState(ExecutionId.parse(id)));
  const [row] = await sql<{ wakeAt: number; header: JsonObject }[]>`
    select flowledger.to_ms(wake_at) as "wakeAt", jsonb_build_object('priority', priority, 'key', idempotency_key, 'metadata', metadata) as header
    from flowledger.executions where id = ${id}`;
  const { discardAt, ...settings } = state.settings;
  const since = (ms: number | null) =>
    ms === null || ms <= state.createdAt ? 0 : Math.round(isAbsolute ? ms : ms - state.createdAt);
  const { wakeAt, header } = present(row);
  return {
    ...settings,
    ...header,
    metadataInState: state.metadata,
    trace: state.trace,
    discardAt: since(discardAt),
    wakeAt: since(wakeAt),
  };
}
