/** What the compiler refuses because JSON cannot hold it, what it takes all the same, and what a contract says of live objects. */
import { expectTypeOf, test } from "vitest";
import { z } from "zod";
import { defer } from "../../src/defer.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { BoundFlow, Ctx, Execution, Flow, Json, Orchestrator, Storable } from "../../src/index.ts";

const now = new Date(0);
class Money {
  readonly cents = 1;
  plus(other: Money) {
    return this.cents + other.cents;
  }
}
declare const ctx: Ctx;
declare const execution: Execution;
declare const bound: BoundFlow;
declare const orchestrator: Orchestrator;
const flow = defineFlow("storable");

test("what a chunk returns is what JSON can hold, however deep", () => {
  flow
    .to("fine", () => ({ at: now.toISOString() }))
    .to("next", (own) => expectTypeOf(own.input.at).toEqualTypeOf<string>());
  // @ts-expect-error -- a Date
  flow.to("date", () => now);
  // @ts-expect-error -- a Date that is awaited
  flow.to("awaited", async () => now);
  // @ts-expect-error -- a Date below
  flow.to("deep", async () => ({ lines: [{ at: now }] }));
  // @ts-expect-error -- a Date of a function with a body
  flow.to("body", async (own) => {
    await own.flush();
    return { at: now };
  });
  // @ts-expect-error -- one way gives a Date
  flow.to("either", (own) => (own.attempt > 1 ? "late" : now));
  // @ts-expect-error -- a Map
  flow.to("map", () => new Map([["a", 1]]));
  // @ts-expect-error -- a Set in a list
  flow.to("set", () => [new Set([1])]);
  // @ts-expect-error -- a class
  flow.to("class", () => new Money());
  // @ts-expect-error -- a class of the platform
  flow.to("bytes", () => new Uint8Array(1));
  // @ts-expect-error -- a function
  flow.to("function", () => () => 1);
  // @ts-expect-error -- a bigint
  flow.to("bigint", () => 1n);
  // @ts-expect-error -- a symbol
  flow.to("symbol", () => ({ kind: Symbol("kind") }));
  // @ts-expect-error -- by itself
  flow.chunk("made", () => now);
  // @ts-expect-error -- by its name
  flow.to(async function named() {
    return now;
  });
  // @ts-expect-error -- of a branch
  flow.batch({ fine: () => 1, late: async () => now });
  // @ts-expect-error -- an own output schema that gives one
  flow.to("output", () => "x", { output: z.string().transform(() => now) });
  // @ts-expect-error -- an own input schema that gives one
  flow.to("input", () => "x", { input: z.date() });
});

test("what is written, sent and recorded is, too", () => {
  expectTypeOf(() => [
    // @ts-expect-error -- a Date
    ctx.setState("at", now),
    // @ts-expect-error -- a Date below
    ctx.setState("at", { lines: [now] }),
    // @ts-expect-error -- a Map
    ctx.appendState("list", new Map<string, number>()),
    // @ts-expect-error -- a function
    ctx.emit("Told", () => 1),
    // @ts-expect-error -- a bigint
    ctx.emitNoWait("Told", 1n),
    // @ts-expect-error -- a class
    ctx.putIntoStream(new Money()),
    // @ts-expect-error -- a Set
    ctx.setResult(new Set([1])),
    // @ts-expect-error -- a Date
    ctx.setFlowData("at", now),
    // @ts-expect-error -- a Date
    ctx.appendFlowData("at", now),
    // @ts-expect-error -- a step that gives a Date
    ctx.step("now", () => now),
    // @ts-expect-error -- a transaction that gives a class
    ctx.transaction("money", async () => new Money()),
    // @ts-expect-error -- an answer that is a Date
    ctx.pauseFor({ response: z.date() }),
    // @ts-expect-error -- a Date
    execution.emit("Told", { at: now }),
    // @ts-expect-error -- a Date
    execution.continueWith("ask", now),
    // @ts-expect-error -- a symbol
    execution.intervene(Symbol("why")),
    // @ts-expect-error -- a Map
    orchestrator.answerByToken("token", new Map<string, number>()),
    // @ts-expect-error -- a Date
    bound.start({ at: now }),
    // @ts-expect-error -- a Date
    bound.startExecution(now),
    // @ts-expect-error -- a Date
    bound.setFlowData("at", now),
  ]);
});

test("a contract gives what JSON can hold, whatever it takes", () => {
  // @ts-expect-error -- a Date
  expectTypeOf(() => defineFlow("x", { input: z.object({ at: z.date() }) }));
  // @ts-expect-error -- a Map
  expectTypeOf(() => defineFlow("x", { state: z.object({ by: z.map(z.string(), z.string()) }).partial() }));
  // @ts-expect-error -- a text that becomes a Date
  expectTypeOf(() => defineFlow("x", { events: { Paid: z.string().transform(() => now) } }));
  // @ts-expect-error -- a class
  expectTypeOf(() => defineFlow("x", { stream: z.instanceof(Money) }));
  const iso = z.date().transform((at) => at.toISOString());
  defineFlow("x", { input: z.object({ at: iso }), events: { Paid: iso } }).to("a", (own) =>
    expectTypeOf(own.input).toEqualTypeOf<{ at: string }>(),
  );
});

test("a background function takes and gives what JSON can hold", () => {
  const take = async (at: Date) => at.getTime();
  const give = async () => now;
  // @ts-expect-error -- it takes a Date
  expectTypeOf(() => defer(take));
  // @ts-expect-error -- it gives a Date
  expectTypeOf(() => defer(give));
  // @ts-expect-error -- it gives a Date, by the clock
  expectTypeOf(() => defer.cron(give, "@daily"));
});

interface Line {
  readonly sku: string;
  readonly order: Order | null;
  readonly kind: "a" | { readonly of: "b" };
}
interface Order {
  id: string;
  note?: string;
  maybe?: string | undefined;
  lines: readonly Line[];
  pair: readonly [count: number, word?: string];
  any: unknown;
}
interface Page<T> {
  items: T[];
  next: Page<T> | null;
}
type Nested = string | Nested[] | { [key: string]: Nested };
type Id = string & { readonly __brand: "Id" };
declare const order: Order;
declare const page: Page<Order>;
declare const nested: Nested;
declare const id: Id;
declare const json: Json;
declare const anything: unknown;
declare const kind: unique symbol;
declare const tagged: { a: string; readonly [kind]: symbol };

test("interfaces, optional fields, lists that cannot be written, unions, brands and what contains itself go through as they are", () => {
  const through = <T extends Storable<T>>(value: T) => flow.to("through", () => value);
  flow.to("a", () => order).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<Order>());
  flow.to("a", async () => page).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<Page<Order>>());
  flow.to("a", () => nested).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<Nested>());
  flow.to("a", () => ({ id })).to("b", (own) => expectTypeOf(own.input.id).toEqualTypeOf<Id>());
  flow.to("a", () => json).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<Json>());
  flow.to("a", () => anything).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<Json>());
  flow.to("a", () => tagged).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<typeof tagged>());
  flow
    .to("a", () => [1, { b: 2 }] as const)
    .to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<readonly [1, { readonly b: 2 }]>());
  flow.to("a", (): object => ({})).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<object>());
  flow.to("a", () => 1).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<number>());
  flow.to("a", () => {}).to("b", (own) => expectTypeOf(own.input).toEqualTypeOf<null>());
  flow.to("a", () => {
    throw new Error("never");
  });
  expectTypeOf(() => [
    ctx.setState("a", order),
    ctx.setState("a", page),
    ctx.setState("a", nested),
    ctx.setState("a", anything),
    ctx.emit("Told", order),
    execution.continueWith("ask", order),
    execution.continueWith("ask"),
    bound.start(),
    bound.start(order, { priority: 1 }),
    through(order),
  ]);
});

test("generic code compiles, and is checked where it is used", () => {
  function kept<T>(own: Ctx, value: T) {
    return own.setState("kept", { value });
  }
  function timed<T>(own: Ctx, work: () => Promise<T>) {
    return own.step("timed", work);
  }
  function chained<T>(at: Flow<object, T>, work: (value: T) => T) {
    return at.to("a", (own) => work(own.input)).to("b", async (own) => own.input);
  }
  function taking<S extends z.ZodType>(input: S) {
    return defineFlow("taking", { input }).to("a", (own) => own.input);
  }
  function asked<S extends z.ZodType>(own: Ctx, response: S) {
    return own.pauseFor({ response });
  }
  function strict<T extends Storable<T>>(own: Ctx, value: T) {
    return own.setState("strict", value);
  }
  expectTypeOf(taking(z.object({ n: z.number() })).name).toEqualTypeOf<string>();
  expectTypeOf(() => [kept(ctx, 1), timed(ctx, async () => 1), chained, asked(ctx, z.string()), strict(ctx, order)]);
  // @ts-expect-error -- a Date
  expectTypeOf(() => strict(ctx, now));
});

interface Db {
  query(text: string): Promise<unknown[]>;
}
declare const db: Db;

test("a contract types the live objects of its chunks, their requirements and those who give them", () => {
  const contract = { resources: { db: z.custom<Db>(), say: z.custom<(word: string) => void>() } };
  const typed = defineFlow("typed", contract);
  typed.to("a", (own) => {
    expectTypeOf(own.requireResource("db")).toEqualTypeOf<Db>();
    expectTypeOf(own.getResource("db")).toEqualTypeOf<Db | null>();
    expectTypeOf(own.getResource("say", "none")).toEqualTypeOf<((word: string) => void) | string>();
    // @ts-expect-error -- the contract has no such resource
    own.requireResource("bd");
  });
  typed.ifCondition((own) => own.requireResource("db") === db);
  typed.declareResourceRequirement("db", { resolver: () => db });
  // @ts-expect-error -- it makes something else
  expectTypeOf(() => typed.declareResourceRequirement("db", { resolver: () => "db" }));
  // @ts-expect-error -- the contract has no such resource
  expectTypeOf(() => typed.declareResourceRequirement("bd"));
  const other = defineFlow("other", { resources: { mail: z.string() } });
  expectTypeOf(() => [
    createOrchestrator({ flows: [typed, other], resources: { db, mail: "a", more: 1 } }),
    createOrchestrator({ flows: [typed, other], resources: { db: () => db, say: () => () => {} } }),
    createOrchestrator({ flows: [flow], resources: { db: 1 } }),
    // @ts-expect-error -- it is no Db
    createOrchestrator({ flows: [typed, other], resources: { db: "postgres://" } }),
    // @ts-expect-error -- a factory of something else
    createOrchestrator({ flows: [flow, typed], resources: { db: () => "postgres://" } }),
    // @ts-expect-error -- a function is a factory
    createOrchestrator({ flows: [typed], resources: { say: (word: string) => void word } }),
  ]);
  expectTypeOf(() => [
    orchestrator.flow(typed).start(null, { runtimeResources: { db } }),
    orchestrator.flow(typed).updateRuntimeResources({ db }),
    // @ts-expect-error -- it is no Db
    orchestrator.flow(typed).startExecution(null, { runtimeResources: { db: 1 } }),
    // @ts-expect-error -- it is no Db
    orchestrator.flow(typed).updateRuntimeResources({ db: 1 }),
  ]);
  defineFlow("free").to("a", (own) => {
    expectTypeOf(own.requireResource("any")).toEqualTypeOf<unknown>();
    expectTypeOf(own.requireResource<Db>("any")).toEqualTypeOf<Db>();
    expectTypeOf(own.getResource("any", "none")).toEqualTypeOf<unknown>();
  });
});

test("what ends or continues a block stands in one", () => {
  const looping = flow.forEach();
  const asking = looping.ifCondition(() => true);
  const matching = flow.match().case(1);
  // @ts-expect-error -- no forEach
  expectTypeOf(() => flow.endForEach());
  // @ts-expect-error -- no match
  expectTypeOf(() => flow.endMatch());
  // @ts-expect-error -- no condition
  expectTypeOf(() => flow.endCondition());
  // @ts-expect-error -- no condition
  expectTypeOf(() => flow.elseCondition());
  // @ts-expect-error -- no condition
  expectTypeOf(() => flow.elifCondition(() => true));
  // @ts-expect-error -- no match
  expectTypeOf(() => flow.case(1));
  // @ts-expect-error -- no match
  expectTypeOf(() => flow.caseElse());
  // @ts-expect-error -- the condition is open
  expectTypeOf(() => asking.to("a", () => 1).endForEach());
  // @ts-expect-error -- a match is no condition
  expectTypeOf(() => matching.to("a", () => 1).endCondition());
  // @ts-expect-error -- it was closed
  expectTypeOf(() => looping.endForEach().endForEach());
  // @ts-expect-error -- a chain of its own
  expectTypeOf(() => looping.when("Told").endForEach());
  flow
    .forEach()
    .forEach()
    .to("a", () => 1)
    .endForEach()
    .endForEach();
});

test("schedules give what their flows take", () => {
  const strict = defineFlow("strict", { input: z.object({ tags: z.array(z.string()) }) });
  const maybe = defineFlow("maybe", { input: z.string().nullable() });
  const cron = "@daily";
  expectTypeOf(() => [
    createOrchestrator({
      schedules: [
        { flow: strict, cron, input: { tags: ["a"] }, overlap: "skip" },
        { flow, cron },
      ],
    }),
    createOrchestrator({
      schedules: [
        { flow: maybe, cron },
        { flow: maybe, cron, input: "x" },
      ],
    }),
    createOrchestrator({ flows: [flow], schedules: now > new Date() ? [{ flow, cron, input: 1 }] : [] }),
    // @ts-expect-error -- no tags
    createOrchestrator({ schedules: [{ flow: strict, cron, input: {} }] }),
    // @ts-expect-error -- no input
    createOrchestrator({ schedules: [{ flow: strict, cron }] }),
    // @ts-expect-error -- no such option
    createOrchestrator({ schedules: [{ flow, cron, timezone: "UTC" }] }),
    // @ts-expect-error -- no such word
    createOrchestrator({ schedules: [{ flow, cron, overlap: "never" }] }),
  ]);
});

test("what a sub-flow captures and writes back is there, and fits", () => {
  const child = defineFlow("child", {
    input: z.object({ topic: z.string(), depth: z.number().optional() }),
    state: z.object({ report: z.string(), by: z.object({ name: z.string() }) }).partial(),
    resources: { db: z.custom<Db>() },
  });
  const parent = defineFlow("parent", {
    state: z.object({ report: z.string(), count: z.number() }).partial(),
    resources: { db: z.custom<Db>(), mail: z.string() },
  }).to("a", () => ({ topic: "tea", deep: { n: 1 }, json: anything as Json }));
  parent.toSubFlow(child, {
    capture: { "input.topic": "value.topic", "input.depth": "value.deep.n", "resources.db": "resources.db" },
    writeBack: { "state.report": "snapshot.report", "value.any": "result.any", "flowData.last": "snapshot.by.name" },
  });
  parent.toSubFlow(child, { capture: { "input.topic": "flowData.topic", "state.by.name": "value.json.name" } });
  parent.to("b", () => ({ topic: "x" })).toSubFlow(child, { capture: { input: "value" }, concurrency: 1 });
  flow.toSubFlow(child, { capture: { "input.topic": "value.topic", "state.report": "state.any" } });
  parent.toSubFlow(flow, { capture: { "input.any": "value.topic", "state.any": "state.count" } });
  const hoisted = { "input.topic": "value.topic" };
  parent.toSubFlow(child, { capture: hoisted });
  expectTypeOf(() => [
    // @ts-expect-error -- no such path in the child
    parent.toSubFlow(child, { capture: { "input.topik": "value.topic" } }),
    // @ts-expect-error -- no such path in the value
    parent.toSubFlow(child, { capture: { "input.topic": "value.topik" } }),
    // @ts-expect-error -- a number is no text
    parent.toSubFlow(child, { capture: { "input.topic": "value.deep.n" } }),
    // @ts-expect-error -- no such key
    parent.toSubFlow(child, { capture: { "input.topic": "state.none" } }),
    // @ts-expect-error -- no such scope
    parent.toSubFlow(child, { capture: { "output.topic": "value.topic" } }),
    // @ts-expect-error -- no such resource
    parent.toSubFlow(child, { capture: { "resources.db": "resources.bd" } }),
    // @ts-expect-error -- another resource
    parent.toSubFlow(child, { capture: { "resources.db": "resources.mail" } }),
    // @ts-expect-error -- a live object is no data
    parent.toSubFlow(child, { capture: { "input.topic": "resources.mail" } }),
    // @ts-expect-error -- the whole value does not fit
    parent.toSubFlow(child, { capture: { input: "value.deep" } }),
    // @ts-expect-error -- no such key in the parent
    parent.toSubFlow(child, { writeBack: { "state.none": "result" } }),
    // @ts-expect-error -- no such key in the child
    parent.toSubFlow(child, { writeBack: { "state.report": "snapshot.none" } }),
    // @ts-expect-error -- a text is no number
    parent.toSubFlow(child, { writeBack: { "state.count": "snapshot.report" } }),
    // @ts-expect-error -- no source of a write-back
    parent.toSubFlow(child, { writeBack: { "state.report": "value.topic" } }),
    // @ts-expect-error -- no such option
    parent.toSubFlow(child, { captures: {} }),
  ]);
});
