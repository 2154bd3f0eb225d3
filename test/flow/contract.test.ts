/** The doors of a flow's contract, durations, and what the errors say. */
import { expect, test } from "vitest";
import { z } from "zod";
import {
  ContractError,
  ExecutionFailedError,
  ExecutionSealedError,
  FlowledgerError,
  PayloadError,
  UsageError,
} from "../../src/base/errors.ts";
import { defineFlow } from "../../src/index.ts";
import { parseEvent, parseInput, parseReturn, parseState, parseStreamItem } from "../../src/flow/contract.ts";

const typed = {
  name: "refund",
  contract: {
    input: z.object({ ticket: z.string(), amount: z.coerce.number().positive(), note: z.string().default("none") }),
    state: z.object({ decision: z.string().trim(), customer: z.object({ name: z.string() }) }).partial(),
    events: { Decided: z.object({ items: z.array(z.object({ ok: z.boolean() })) }), Done: z.null() },
    stream: z.object({ step: z.string() }),
  },
};
const untyped = { name: "free", contract: {} };

test("TF-CON-01: a valid value is coerced, a wrong one is refused with its path", () => {
  expect(parseInput(typed, { ticket: "T", amount: "5" })).toEqual({ ticket: "T", amount: 5, note: "none" });
  expect(parseStreamItem(typed, { step: "a" })).toEqual({ step: "a" });

  const error = thrown(() => parseEvent(typed, "Decided", { items: [{ ok: true }, { ok: 1 }] }));

  expect(error).toBeInstanceOf(ContractError);
  expect(error).toMatchObject({
    code: "CONTRACT_VIOLATED",
    details: { where: `event "Decided" of flow "refund"`, issues: [{ path: ["items", 1, "ok"] }] },
  });
  expect((error as Error).message).toMatch(
    /^event "Decided" of flow "refund" does not fit the contract: at items\[1\]\.ok: /,
  );
});

test("an event that the contract does not have is refused, even one that every object has", () => {
  expect(() => parseEvent(typed, "Nope", null)).toThrow(/there is no such event \(there are Decided, Done\)/);
  expect(() => parseEvent(typed, "constructor", null)).toThrow(ContractError);
  expect(() => parseEvent(untyped, "", null)).toThrow(UsageError);
});

test("without a contract any JSON passes, and what is left out is null", () => {
  expect(parseInput(untyped, undefined)).toBeNull();
  expect(parseEvent(untyped, "Any", { a: [1] })).toEqual({ a: [1] });
  expect(parseReturn(null, undefined, "return")).toBeNull();
  expect(() => parseInput(untyped, { at: new Date() })).toThrow(PayloadError);
});

test.each([
  [z.null(), null],
  [z.object({ a: z.number() }).nullable(), null],
  [z.string().nullable().default("none"), "none"],
  [z.string().optional(), null],
  [z.unknown(), null],
])("what is left out is null where the contract takes no undefined", (schema, expected) => {
  const flow = defineFlow("left-out", { input: schema, events: { Told: schema } });

  expect(parseInput(flow, undefined)).toEqual(expected);
  expect(parseEvent(flow, "Told", undefined)).toEqual(expected);
  expect(parseReturn(schema, undefined, "return")).toEqual(expected);
});

test("what is left out and may not be says so as undefined", () => {
  expect(() => parseInput(defineFlow("needed", { input: z.string() }), undefined)).toThrow(/received undefined/);
});

test("a state key is coerced, an unknown one refused", () => {
  expect(parseState(typed, "decision", " yes ")).toBe("yes");
  expect(() => parseState(typed, "decision", 1)).toThrow(ContractError);
  expect(() => parseState(typed, "nope", 1)).toThrow(/there is no such key \(there are decision, customer\)/);
  expect(() => parseState(untyped, "a", undefined)).toThrow(PayloadError);
});

test("a dot path is checked by its key, and its value with the whole", () => {
  expect(parseState(typed, "customer.name", 5)).toBe(5);
  expect(() => parseState(typed, "customer", { name: 5 })).toThrow(ContractError);
  expect(() => parseState(typed, "nope.name", 5)).toThrow(ContractError);
});

test("a loose state takes further keys", () => {
  const loose = { name: "f", contract: { state: z.object({ a: z.number() }).catchall(z.string()) } };

  expect(parseState(loose, "b", "x")).toBe("x");
  expect(() => parseState(loose, "b", 1)).toThrow(ContractError);
});

test.each(["", "a.", ".a", "a..b", "__proto__", "a.__proto__.b"])("the state path %j is refused", (path) => {
  expect(() => parseState(untyped, path, 1)).toThrow(UsageError);
});

test("an async refinement is refused in words", () => {
  const flow = { name: "f", contract: { input: z.string().refine(async () => true) } };

  expect(() => parseInput(flow, "x")).toThrow(/async refinement or transform: make it synchronous/);
});

test("an error has a name, a stable code, a sentence and plain details", () => {
  const error = new ExecutionSealedError("0190", `"Decided"`);

  expect(error).toBeInstanceOf(FlowledgerError);
  expect(error).toMatchObject({
    name: "ExecutionSealedError",
    code: "EXECUTION_SEALED",
    details: { executionId: "0190", refused: `"Decided"` },
  });
  expect(error.message).toBe(
    `execution 0190 is sealed and no longer accepts "Decided": start a new execution, or send it before seal()`,
  );
});

test("a failed execution has the chunk's own error as its cause", () => {
  const stack = "TypeError: no price\n    at score (/app/refund.js:3:7)";
  const error = new ExecutionFailedError("0190", "refund", {
    name: "TypeError",
    message: "no price",
    stack,
    chunk: "score",
  });

  expect(error.message).toBe(`execution 0190 of flow "refund" failed in chunk "score" with TypeError: no price`);
  expect(error.cause).toMatchObject({ name: "TypeError", message: "no price", stack });
});

test("a payload error says where in the value", () => {
  expect(() => parseInput(untyped, { items: [{ at: 1n }] })).toThrow(
    `input of flow "free" at items[0].at: BigInt 1 has no JSON form: send it as a string`,
  );
});

function thrown(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  return undefined;
}

test("what JSON cannot hold is refused where the flow is defined, with its place and what to use", () => {
  const wrong = (contract: object) => () => defineFlow("wrong", contract);

  expect(wrong({ state: z.object({ at: z.date() }).partial() })).toThrow(
    /state" gives a z\.date at "at".*z\.iso\.datetime/,
  );
  expect(wrong({ input: z.object({ a: z.array(z.object({ m: z.map(z.string(), z.string()) })) }) })).toThrow(
    /at "a\.m"/,
  );
  expect(wrong({ events: { Paid: z.coerce.date().nullable() } })).toThrow(/event "Paid" gives a z\.date/);
  expect(wrong({ stream: z.union([z.string(), z.set(z.string())]) })).toThrow(/stream" gives a z\.set.*z\.array/);
  expect(wrong({ input: z.record(z.string(), z.bigint()) })).toThrow(/z\.bigint/);
  expect(wrong({ input: z.lazy(() => z.object({ at: z.date() })) })).toThrow(/at "at"/);
  expect(() => defineFlow("wrong").to("now", () => null as never, { output: z.date() as never })).toThrow(
    /output of .*z\.date/,
  );
});

test("a resource of a contract is described by a schema of any kind, and by nothing else", () => {
  const of = (resources: unknown) => () => defineFlow("live", { resources } as never);

  expect(of({ clock: z.instanceof(Date), run: z.function() })).not.toThrow();
  expect(of({ db: "postgres" })).toThrow(/contract resource "db" must be a zod schema/);
  expect(of("db")).toThrow(/contract part "resources"/);
  const flow = defineFlow("live", { resources: { db: z.custom<object>() } }).to("a", () => 1);
  expect(flow.toBlueprint().contract).toBeNull();
});

test("what ends as JSON may begin as anything, and what leads to itself is a schema", () => {
  interface Tree {
    children: Tree[];
  }
  const tree: z.ZodType<Tree> = z.lazy(() => z.object({ children: z.array(tree) }));
  const input = z.object({
    at: z.date().transform((at) => at.toISOString()),
    tree,
    // Declared further down.
    later: z.lazy(() => later),
  });

  expect(() => defineFlow("right", { input })).not.toThrow();
  const later = z.string();
});
