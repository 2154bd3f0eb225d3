/** A JSON Schema is input: one that is none, that leads to itself, or that would take for ever is refused by name, at both doors alike. */
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow, Flow } from "../../src/index.ts";
import { canonical, isObject, type Json } from "../../src/base/json.ts";
import { schemaProblem } from "../../src/base/json-schema.ts";
import { parseAnswer } from "../../src/ledger/answers.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** What each door says of an answer: "ok", or in words. */
async function said(schema: Json, answer: Json): Promise<{ library: string; door: string; ms: number }> {
  const before = performance.now();
  let library = "ok";
  try {
    parseAnswer("q", schema, answer);
  } catch (error) {
    library = error instanceof Error ? error.message : String(error);
  }
  const door =
    await sql`select flowledger.check_answer(${JSON.stringify(schema)}::text::jsonb, ${JSON.stringify(answer)}::text::jsonb, 'q')`.then(
      () => "ok",
      (error: unknown) => {
        expect(error).toMatchObject({ code: "FL008" });
        return error instanceof Error ? error.message : String(error);
      },
    );
  return { library, door, ms: performance.now() - before };
}

const circles: readonly (readonly [string, Json, RegExp])[] = [
  ["itself", { $ref: "#" }, /its schema leads to itself at "#"/],
  [
    "two that name each other",
    { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } },
    /leads to itself/,
  ],
  ["itself through allOf", { $ref: "#/$defs/a", $defs: { a: { allOf: [{ $ref: "#/$defs/a" }] } } }, /leads to itself/],
  ["itself through anyOf", { anyOf: [{ $ref: "#" }, { type: "string" }] }, /leads to itself/],
  ["itself through oneOf", { oneOf: [{ type: "number" }, { $ref: "#" }] }, /leads to itself/],
  ["itself through not", { not: { $ref: "#" } }, /leads to itself/],
  ["itself below a property", { properties: { a: { $ref: "#/properties/a" } } }, /leads to itself/],
  ["itself below an item", { items: { anyOf: [{ $ref: "#/items" }] } }, /leads to itself/],
  ["nothing", { $ref: "#/$defs/none" }, /names "#\/\$defs\/none", which is not in it/],
  ["another document", { $ref: "http://localhost/x" }, /names "http:\/\/localhost\/x", which is not in it/],
  ["what objects inherit", { $ref: "#/constructor" }, /names "#\/constructor", which is not in it/],
];

test.each(circles)("a schema that leads to %s is refused by name", async (_, schema, problem) => {
  const answer: Json = isObject(schema) && "items" in schema ? [1] : { a: [1] };

  const { library, door, ms } = await said(schema, answer);

  expect(library).toMatch(problem);
  expect(door).toMatch(problem);
  expect(library).toContain("cannot be checked");
  expect(ms).toBeLessThan(1500);
});

test("a schema that comes back through a part of the value checks values of any depth, at both doors", async () => {
  const node: z.ZodType = z.object({ name: z.string(), children: z.lazy(() => z.array(node)).optional() });
  const schema = z.toJSONSchema(node, { io: "input" }) as Json;
  let deep: Json = { name: "leaf" };
  for (let depth = 0; depth < 60; depth++) deep = { name: "n", children: [deep] };

  expect(schemaProblem(schema)).toBeNull();
  expect(await said(schema, deep)).toMatchObject({ library: "ok", door: "ok" });
  expect(await said(schema, { name: "n", children: [{ name: 1 }] })).toMatchObject({
    library: expect.stringContaining("name"),
    door: expect.stringContaining(".children[0].name must be string"),
  });
});

test("a $ref with a name that JSON Pointer escapes is followed", async () => {
  const schema = { $ref: "#/$defs/a~1b~0c", $defs: { "a/b~c": { type: "string" } } };

  expect(await said(schema, "text")).toMatchObject({ library: "ok", door: "ok" });
  expect((await said(schema, 7)).door).toContain("must be string");
});

const defs = Object.fromEntries(
  Array.from({ length: 40 }, (_, index) => [
    `a${index}`,
    index === 39 ? { type: "string" } : { anyOf: Array.from({ length: 2 }, () => ({ $ref: `#/$defs/a${index + 1}` })) },
  ]),
);

test.each<readonly [string, Json, Json, RegExp, RegExp]>([
  [
    "parts that multiply",
    { $ref: "#/$defs/a0", $defs: defs },
    7,
    /took longer than 1000 ms/,
    /takes longer than two seconds/,
  ],
  [
    "a pattern that goes back and forth",
    { type: "string", pattern: "^(a+)+$" },
    `${"a".repeat(60)}!`,
    /took longer than 1000 ms/,
    /not a text as its pattern asks for/,
  ],
  [
    "the same for keys",
    { type: "object", propertyNames: { type: "string", pattern: "^(a|a)*$" } },
    { [`${"a".repeat(60)}!`]: 1 },
    /took longer than 1000 ms/,
    /not a text as its pattern asks for/,
  ],
  [
    "lookaround over a long text",
    { type: "string", pattern: "(?=.*b)c" },
    "a".repeat(200_000),
    /took longer|not fit|pattern/,
    /looks around in a text of more than 10000 characters/,
  ],
  [
    "lookaround in lookaround",
    { type: "string", pattern: "(?=.*(?:x|(?=.*(?=.*b))))c" },
    "a".repeat(3000),
    /took longer|not fit|pattern/,
    /looks around while it looks around/,
  ],
  [
    "references back",
    { type: "string", pattern: String.raw`^(a*)(a*)(a*)\3\2\1b$` },
    "a".repeat(100),
    /took longer|not fit|pattern/,
    /refers back/,
  ],
  ["a long pattern", { type: "string", pattern: "a?".repeat(1200) }, "b", /./, /more than 2000 characters/],
])("%s is refused in time", async (_, schema, answer, ofLibrary, ofDoor) => {
  const { library, door, ms } = await said(schema, answer);

  expect(library).toMatch(ofLibrary);
  expect(door).toMatch(ofDoor);
  expect(ms).toBeLessThan(8000);
});

test.each<readonly [string, Json]>([
  ["a pattern that is none", { type: "string", pattern: "(" }],
  ["a length that is a text", { type: "string", minLength: "x" }],
  ["choices that are an object", { enum: { a: 1 } }],
  ["required keys that are a text", { type: "string", allOf: 7 }],
])("a schema with %s is no raw error", async (_, schema) => {
  const { library, door } = await said(schema, "text");

  expect(library === "ok" || /cannot be checked|answer to interrupt/.test(library)).toBe(true);
  expect(door).toMatch(
    /cannot be checked: its schema is not a JSON Schema|checked by a pattern that Postgres does not know/,
  );
});

test("what zod asks of texts is checked in SQL, long texts too", async () => {
  const texts = {
    mail: z.email(),
    id: z.uuid(),
    ip: z.ipv6(),
    base: z.base64(),
    at: z.iso.datetime(),
    by: z.iso.duration(),
  };
  const good = {
    mail: "ann@example.org",
    id: "0190a000-0000-7000-8000-000000000000",
    ip: "2001:db8::1",
    base: "YQ==",
    at: "2026-01-31T12:00:00Z",
    by: "P1D",
  };
  const schema = z.toJSONSchema(z.object(texts).partial(), { io: "input" }) as Json;

  expect(await said(schema, good)).toMatchObject({ library: "ok", door: "ok" });
  expect((await said(schema, { mail: `${"a".repeat(500_000)}@b` })).ms).toBeLessThan(2000);
});

test("a pause whose response leads to itself, or is nothing that JSON Schema says, fails its chunk by name", async () => {
  const endless: z.ZodType = z.lazy(() => endless);
  for (const [response, problem] of [
    [endless, /response of .* leads to itself/],
    [z.date(), /response of .* is not a type of JSON: Date cannot be represented/],
    [
      z.object({ code: z.string().regex(/^ab/i) }),
      /response of .* has the pattern \/\^ab\/i, whose flags JSON Schema does not have/,
    ],
  ] as const) {
    const flow = defineFlow(`endless-${problem.source.length}`);
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", response }));
    await using serves = await serving(database, [flow], { logger: quiet });
    const execution = await serves.flow(flow).startExecution(null);

    await expect(execution.waitForClose()).rejects.toThrow(problem);
  }
});

test("a contract that leads to itself is refused by name where the flow is registered, and where a value comes in", async () => {
  const endless: z.ZodType = z.lazy(() => endless);
  const flow = defineFlow("endless-contract", { events: { Go: endless } });
  flow.to("pass", () => null);

  expect(() => flow.toBlueprint()).toThrow(/contract event "Go" leads to itself/);
  const output = defineFlow("endless-output");
  output.to("pass", () => null, { output: endless });
  expect(() => output.toBlueprint()).toThrow(/the output of chunk "pass" leads to itself/);
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow], logger: quiet });
  const execution = await orchestrator.flow(flow).createExecution({ allowUnknown: true });
  await expect(execution.emit("Go", 1)).rejects.toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringContaining("leads to itself"),
  });
});

test("a blueprint, and a save, whose schema leads to itself are refused by name", async () => {
  const flow = defineFlow("carried", { input: z.object({ n: z.number() }) });
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", response: z.string() }));
  const blueprint = flow.toBlueprint();
  for (const [change, problem] of [
    [{ contract: { input: { $ref: "#" } } }, /contract\.input leads to itself/],
    [{ contract: { events: { Go: { anyOf: [{ $ref: "#" }] } } } }, /contract\.events\.Go leads to itself/],
    [{ outputs: { ask: { $ref: "#/x" } } }, /outputs\.ask names "#\/x"/],
  ] as const)
    expect(() => Flow.fromBlueprint({ ...blueprint, ...change }, { ask: () => null })).toThrow(problem);

  await using orchestrator = await serving(database, [flow], { logger: quiet });
  const execution = await orchestrator.flow(flow).startExecution({ n: 1 }, { autoClose: false });
  await untilPending(execution);
  const { digest: _digest, ...saved } = await execution.save();
  const text = JSON.stringify(saved).replace(/"response":\{[^}]*\}/g, '"response":{"$ref":"#"}');
  const body = JSON.parse(text) as object;
  const digest = createHash("sha256").update(canonical(body)).digest("hex");
  expect(text).toContain('{"$ref":"#"}');

  await expect(orchestrator.load({ ...body, digest })).rejects.toThrow(
    /wrong at events: the schema of the answer to interrupt "q" leads to itself at "#"/,
  );
});

test("an answer that came before its question, and whose pattern takes for ever, is refused in the ledger and the pause stays", async () => {
  const flow = defineFlow("early-pattern", { events: { Ask: z.any() } });
  flow.when("Ask").to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", response: z.string().regex(/^(a+)+$/) }));
  await using orchestrator = await serving(database, [flow], { logger: quiet });
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await sql`select flowledger.continue_with(${execution.id}, 'q', ${JSON.stringify(`${"a".repeat(60)}!`)}::text::jsonb)`;

  await execution.emit("Ask", null);

  const refused = await untilEvent(execution, "interrupt.refused");
  expect(refused.problem).toContain("took longer than 1000 ms");
  expect(await untilPending(execution)).toHaveLength(1);
});
