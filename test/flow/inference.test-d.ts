/** What the compiler knows of a flow: every step's input, every key of the contract. */
import { expectTypeOf, test } from "vitest";
import { z } from "zod";
import { defineFlow, Flow } from "../../src/flow/builder.ts";
import type { CallOptions, Ctx, Paused, Resume, RetryOptions } from "../../src/flow/context.ts";
import type { EventsOf, InterruptNotice, StatePath } from "../../src/flow/contract.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import type { Duration } from "../../src/base/duration.ts";
import type { Json } from "../../src/base/json.ts";
import type { BoundFlow } from "../../src/execution/bound-flow.ts";
import type { Execution } from "../../src/execution/execution.ts";
import type { WaitingOptions } from "../../src/execution/waiting.ts";
import type { ExecutionResult } from "../../src/execution/result.ts";

const contract = {
  input: z.object({ ticket: z.string(), amount: z.coerce.number() }),
  state: z
    .object({
      decision: z.string(),
      notes: z.array(z.string()),
      customer: z.object({ name: z.string(), address: z.object({ city: z.string().optional() }) }),
      blob: z.json(),
      byId: z.record(z.string(), z.number()),
    })
    .partial(),
  events: { Decided: z.object({ decision: z.string() }), Counted: z.number() },
  stream: z.object({ step: z.string() }),
};
const refund = () => defineFlow("refund", contract);

test("the example of the guide compiles as written", () => {
  const flow = defineFlow("refund", {
    input: z.object({ ticket: z.string(), amount: z.number().positive() }),
    state: z.object({ decision: z.string(), notes: z.array(z.string()) }).partial(),
    events: { Decided: z.object({ decision: z.string() }) },
    stream: z.object({ step: z.string() }),
  });
  flow
    .to("score", async (ctx) => ({ score: ctx.input.amount > 100 ? 40 : 90 }))
    .ifCondition((ctx) => ctx.input.score >= 80)
    .to("approve", async () => "approved")
    .elseCondition()
    .to("ask", async (ctx) => ctx.pauseFor({ type: "approval", payload: { q: "Refund?" }, resumeTo: "next" }))
    .endCondition()
    .to("record", async (ctx) => {
      await ctx.setState("decision", String(ctx.input));
    })
    .to("after", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<null>());
  flow.when("Decided").to("audit", async (ctx) => {
    expectTypeOf(ctx.input).toEqualTypeOf<{ decision: string }>();
  });
});

test("the first chunk receives the parsed start input", () => {
  refund().to("a", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<{ ticket: string; amount: number }>());
  defineFlow("free").to("a", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<Json>());
});

test("a chunk receives what the step before returned, awaited", () => {
  refund()
    .to("a", async () => ({ score: 1 }))
    .to("b", (ctx) => {
      expectTypeOf(ctx.input).toEqualTypeOf<{ score: number }>();
      return ctx.input.score > 0 ? undefined : "late";
    })
    .to("c", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<string | null>());
});

test("a pause gives the type of its answer, and none where the answer goes elsewhere", () => {
  refund()
    .to("typed", async (ctx) => {
      const pause = ctx.pauseFor({ response: z.object({ approved: z.boolean() }) });
      expectTypeOf(pause).toEqualTypeOf<Paused<{ approved: boolean }>>();
      return ctx.input.amount > 5 ? pause : ("small" as const);
    })
    .to("next", async (ctx) => {
      expectTypeOf(ctx.input).toEqualTypeOf<{ approved: boolean } | "small">();
      expectTypeOf(ctx.resume).toEqualTypeOf<Resume | null>();
      return ctx.isResume ? 1 : ctx.pauseFor({ resumeTo: "self" });
    })
    .to("event", (ctx) => {
      expectTypeOf(ctx.input).toEqualTypeOf<1>();
      return ctx.pauseFor({ resumeTo: { event: "Decided" } });
    })
    .to("never", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<never>());
  refund()
    .to("untyped", (ctx) => ctx.pauseFor())
    .to("any", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<Json>());
  // @ts-expect-error the contract has no such event
  refund().to("wrong", (ctx) => ctx.pauseFor({ resumeTo: { event: "Nope" } }));
});

test("the schemas of a chunk's options type its input and its output", () => {
  refund()
    .to("a", () => "7")
    .to("b", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number>(), {
      input: z.coerce.number(),
      output: z.object({ ok: z.boolean() }),
    })
    .to("c", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<{ ok: boolean }>(), { timeout: "1m" })
    // @ts-expect-error an option that does not exist
    .to("d", () => 1, { retries: 3 });
});

test("a chunk made by chunk() carries its types to where it is used", () => {
  const flow = refund();
  const double = flow.chunk("double", async (ctx: Ctx<typeof contract, { n: number }>) => ctx.input.n * 2);
  flow
    .to("n", () => ({ n: 1, extra: true }))
    .to(double)
    .to("after", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number>());
  flow.chunk("free", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<unknown>());
  flow.chunk("parsed", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<string>(), { input: z.string() });
  // @ts-expect-error the step before gives a text
  flow.to("text", () => "no").to(double);
});

test("a named function is a chunk", () => {
  async function score(ctx: Ctx<typeof contract, { ticket: string }>) {
    return ctx.input.ticket.length;
  }
  refund()
    .to(score)
    .to("b", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number>());
});

test("the ways of a condition meet as a union, with the input where no else takes it", () => {
  const entry = () => refund().to("score", () => ({ score: 1 }));
  entry()
    .ifCondition((ctx) => ctx.input.score > 1)
    .to("a", () => 1)
    .elifCondition(async (ctx) => ctx.input.score > 0)
    .to("b", (ctx) => {
      expectTypeOf(ctx.input).toEqualTypeOf<{ score: number }>();
      return true as boolean;
    })
    .elseCondition()
    .to("c", () => "x")
    .endCondition()
    .to("d", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number | boolean | string>());
  entry()
    .ifCondition(() => true)
    .to("e", () => 1)
    .endCondition()
    .to("f", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number | { score: number }>());
  // @ts-expect-error a condition is a boolean
  entry().ifCondition((ctx) => ctx.input.score);
});

test("blocks nest", () => {
  refund()
    .to("list", () => [1, 2])
    .forEach()
    .ifCondition((ctx) => ctx.input > 1)
    .match()
    .case(2)
    .to("two", (ctx) => `${ctx.input}`)
    .caseElse()
    .to("more", () => false as boolean)
    .endMatch()
    .endCondition()
    .endForEach()
    .to("all", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<(string | boolean | number)[]>());
});

test("a match with mode all gives a list of what hit", () => {
  refund()
    .to("n", () => 1)
    .match({ mode: "all" })
    .case(1)
    .to("a", () => "a")
    .case((ctx) => ctx.input > 0)
    .to("b", () => true as boolean)
    .caseElse()
    .to("c", () => null)
    .endMatch()
    .to("d", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<(string | boolean)[] | null>());
});

test("a batch gives an object by key", () => {
  const flow = refund();
  flow
    .to("n", () => 1)
    .batch({ a: async (ctx) => ctx.input + 1, b: flow.chunk("b", () => "b"), c: () => {} }, { concurrency: 2 })
    .to("d", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<{ a: number; b: string; c: null }>());
});

test("forEach gives the items of a list, and anything else as one item", () => {
  refund()
    .to("list", () => [{ id: 1 }])
    .forEach({ concurrency: 3 })
    .to("item", (ctx) => {
      expectTypeOf(ctx.input).toEqualTypeOf<{ id: number }>();
      return String(ctx.input.id);
    })
    .endForEach()
    .to("all", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<string[]>());
  refund()
    .forEach()
    .to("one", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<{ ticket: string; amount: number }>());
  defineFlow("free")
    .forEach()
    .to("json", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<Json>());
});

test("when gives the payload, a join by name, an or with its event, a state key with its value", () => {
  const flow = refund();
  flow.when("Counted").to("a", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number>());
  flow
    .when(["Decided", "Counted"])
    .to("b", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<{ Decided: { decision: string }; Counted: number }>());
  flow
    .when(["Decided", "Counted"], { mode: "or" })
    .to("c", (ctx) =>
      expectTypeOf(ctx.input).toEqualTypeOf<
        { event: "Decided"; value: { decision: string } } | { event: "Counted"; value: number }
      >(),
    );
  flow.when("$interrupt").to("tell", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<InterruptNotice>());
  flow.when(["Counted"]).to("d", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number>());
  flow.when({ state: "notes" }).to("e", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<string[] | null>());
  defineFlow("free")
    .when("Anything")
    .to("f", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<Json>());
  // @ts-expect-error the contract has no such event
  flow.when("Nope");
  // @ts-expect-error the contract has no such key
  flow.when({ state: "nope" });
});

test("state is typed by key and dot path", () => {
  refund().to("a", async (ctx) => {
    expectTypeOf(ctx.getState("decision")).toEqualTypeOf<string | null>();
    expectTypeOf(ctx.getState("decision", "none")).toEqualTypeOf<string>();
    expectTypeOf(ctx.getState("customer.name")).toEqualTypeOf<string | null>();
    expectTypeOf(ctx.getState("customer.address.city")).toEqualTypeOf<string | null>();
    expectTypeOf(ctx.getState("blob.any.thing")).toEqualTypeOf<Json>();
    expectTypeOf(ctx.getState("byId.x")).toEqualTypeOf<number | null>();
    expectTypeOf(ctx.getState().notes).toEqualTypeOf<string[] | undefined>();
    await ctx.setState("customer.address", { city: "Oslo" });
    await ctx.appendState("notes", "late");
    await ctx.delState("notes");
    // @ts-expect-error a number is no text
    await ctx.setState("decision", 1);
    // @ts-expect-error an unknown key
    await ctx.setState("nope", 1);
    // @ts-expect-error lists have no paths
    ctx.getState("notes.0");
    // @ts-expect-error an item of the list is a text
    await ctx.appendState("notes", 5);
  });
  expectTypeOf<StatePath<typeof contract>>()
    .extract<"customer.address.city">()
    .toEqualTypeOf<"customer.address.city">();
  defineFlow("free").to("a", async (ctx) => {
    await ctx.setState("any.key", { at: 1 });
    expectTypeOf(ctx.getState("any.key")).toEqualTypeOf<Json>();
  });
});

test("emit and the stream take what the contract says", () => {
  refund().to("a", async (ctx) => {
    await ctx.emit("Decided", { decision: "yes" }, { wait: true });
    ctx.emitNoWait("Counted", 3);
    await ctx.putIntoStream({ step: "a" });
    // @ts-expect-error the payload is an object
    await ctx.emit("Decided", "yes");
    // @ts-expect-error the contract has no such event
    await ctx.emit("Nope", null);
    // @ts-expect-error an item has a step
    await ctx.putIntoStream({ stage: "a" });
  });
  expectTypeOf<EventsOf<typeof contract>>().toEqualTypeOf<{
    readonly Decided: { decision: string };
    readonly Counted: number;
  }>();
});

test("step and call give what they run", () => {
  const child = refund();
  defineFlow("parent").to("a", async (ctx) => {
    expectTypeOf(await ctx.step("now", () => 1)).toEqualTypeOf<number>();
    expectTypeOf(await ctx.step("write", async () => {})).toEqualTypeOf<null>();
    const snapshot = await ctx.call(child, { ticket: "T", amount: "5" });
    expectTypeOf(snapshot.decision).toEqualTypeOf<string | undefined>();
    // @ts-expect-error the child's input needs a ticket
    await ctx.call(child, { amount: 5 });
  });
});

test("a condition reads and cannot write", () => {
  refund().ifCondition((ctx) => {
    expectTypeOf(ctx).not.toHaveProperty("setState");
    expectTypeOf(ctx).not.toHaveProperty("emit");
    return ctx.getState("decision") === "yes";
  });
});

test("a sub-flow gives the child's state, and JSON where something is written back", () => {
  const child = refund();
  defineFlow("parent")
    .toSubFlow(child)
    .to("a", (ctx) => expectTypeOf(ctx.input.decision).toEqualTypeOf<string | undefined>());
  defineFlow("parent")
    .toSubFlow(child, { writeBack: { "state.report": "result" } })
    .to("a", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<Json>());
});

test("every place of a flow is a flow definition", () => {
  const flow = refund();
  expectTypeOf(flow).toExtend<FlowDefinition>();
  expectTypeOf(flow.to("a", () => 1)).toExtend<FlowDefinition<typeof contract>>();
  expectTypeOf(Flow.fromBlueprint({}, { a: (ctx: Ctx) => ctx.input })).toExtend<FlowDefinition>();
});

test("the key of a limit takes what the contract makes of the input", () => {
  defineFlow("tenants", contract, {
    limits: {
      key: (input) => {
        expectTypeOf(input).toEqualTypeOf<{ ticket: string; amount: number }>();
        return input.ticket;
      },
      perKey: { concurrency: 1 },
    },
  });
  // @ts-expect-error a key is a text
  defineFlow("tenants", contract, { limits: { key: (input) => input.amount, perKey: { concurrency: 1 } } });
});

test("the start input has the flow's type in every chunk, condition and handler, and in the meta", () => {
  type Input = { ticket: string; amount: number };
  const flow = refund();
  flow
    .to("a", (ctx) => expectTypeOf(ctx.startInput).toEqualTypeOf<Input>())
    .ifCondition((ctx) => {
      expectTypeOf(ctx.startInput).toEqualTypeOf<Input>();
      return true;
    })
    .to("b", (ctx) => expectTypeOf(ctx.startInput).toEqualTypeOf<Input>())
    .endCondition();
  flow.when("Counted").to("c", (ctx) => expectTypeOf(ctx.startInput).toEqualTypeOf<Input>());
  defineFlow("free").to("a", (ctx) => expectTypeOf(ctx.startInput).toEqualTypeOf<Json>());
  expectTypeOf<
    Awaited<ReturnType<ExecutionResult<typeof contract>["getMeta"]>>["startInput"]
  >().toEqualTypeOf<Input | null>();
});

test("every wait takes a limit and a signal", () => {
  type Bound = BoundFlow<typeof contract>;
  type Handle = Execution<typeof contract>;
  expectTypeOf<Parameters<Handle["waitForClose"]>[0]>().toEqualTypeOf<WaitingOptions | undefined>();
  expectTypeOf<Parameters<Handle["start"]>[1]>().toEqualTypeOf<WaitingOptions | undefined>();
  expectTypeOf<Parameters<Handle["result"]["getFinalResult"]>[0]>().toEqualTypeOf<WaitingOptions | undefined>();
  expectTypeOf<NonNullable<Parameters<Bound["start"]>[1]>["signal"]>().toEqualTypeOf<AbortSignal | undefined>();
  expectTypeOf<CallOptions["signal"]>().toEqualTypeOf<AbortSignal | undefined>();
});

test("a retry takes a list of waits", () => {
  expectTypeOf<NonNullable<RetryOptions["waits"]>>().toEqualTypeOf<readonly Duration[]>();
  refund().to("a", (ctx) => ctx.step("s", () => 1, { retry: { waits: ["1s", 60_000] } }), { retry: { waits: ["1h"] } });
  // @ts-expect-error -- a wait is a duration
  refund().to("b", () => 1, { retry: { waits: [new Date(0)] } });
});

test("onCancel gets what its chunk gets, and that of the flow nothing", () => {
  refund()
    .to("a", () => ({ score: 1 }), {
      onCancel: (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<{ ticket: string; amount: number }>(),
    })
    .to("b", (ctx) => ctx.input.score, {
      onCancel: (ctx) => {
        expectTypeOf(ctx.input).toEqualTypeOf<{ score: number }>();
        expectTypeOf(ctx.startInput.ticket).toEqualTypeOf<string>();
      },
    })
    .to("c", (ctx) => ctx.input.length, {
      input: z.string(),
      onCancel: (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<string>(),
    })
    .onCancel((ctx) => expectTypeOf(ctx.input).toEqualTypeOf<null>())
    .to("d", (ctx) => expectTypeOf(ctx.input).toEqualTypeOf<number>());
});

test("a flow gives its executions with its types", () => {
  expectTypeOf<BoundFlow<typeof contract>["getExecution"]>().returns.resolves.toEqualTypeOf<
    Execution<typeof contract>
  >();
});
