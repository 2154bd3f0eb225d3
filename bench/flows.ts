/** The flows that are measured: chunks that do nothing, so that what is left is the library. */
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { defineFlow } from "../src/flow/builder.ts";
import type { FlowDefinition } from "../src/flow/definition.ts";

/** A chain of chunks that each hand on a small object. */
export function chain(length: number, kind = "chain"): FlowDefinition {
  const flow = defineFlow(`bench-${kind}-${length}`);
  let place = flow.to("c1", () => ({ n: 1 }));
  for (let n = 2; n <= length; n++) place = place.to(`c${n}`, () => ({ n }));
  return flow;
}

/** One chunk with steps, one after the other, that each give a small object. */
export function steps(length: number): FlowDefinition {
  const flow = defineFlow(`bench-steps-${length}`);
  flow.to("work", async (ctx) => {
    let last: { n: number } | null = null;
    for (let n = 1; n <= length; n++) last = await ctx.step(`s${n}`, () => ({ n }));
    return last;
  });
  return flow;
}

/** One chunk per item of a list of this size. */
export function fan(size: number): FlowDefinition {
  const flow = defineFlow(`bench-fan-${size}`);
  flow
    .to("list", () => Array.from({ length: size }, (_, n) => n))
    .forEach()
    .to("item", (ctx) => ctx.input + 1)
    .endForEach()
    .to("sum", (ctx) => ctx.input.length);
  return flow;
}

/** One execution per item of a list as long as the input says. */
export function spread() {
  const flow = defineFlow("bench-spread", { input: z.number() });
  flow
    .to("list", (ctx) => Array.from({ length: ctx.input }, (_, n) => n))
    .forEach({ distribute: true })
    .to("item", (ctx) => ctx.input + 1)
    .endForEach()
    .to("sum", (ctx) => ctx.setState("items", ctx.input.length));
  return flow;
}

/** One chunk that takes a while. */
export function busy(): FlowDefinition {
  const flow = defineFlow("bench-busy");
  flow.to("work", () => delay(1500));
  return flow;
}

/** Runs one chunk, then waits for an event. */
export function waitingFlow(): FlowDefinition {
  const flow = defineFlow("bench-waiting");
  flow.to("ask", () => ({ asked: true }));
  flow.when("Answered").to("done", () => null);
  return flow;
}

/** Asks a person, `q`, and goes on with the answer. */
export function asking(): FlowDefinition {
  const flow = defineFlow("bench-asking");
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", type: "approval" })).to("done", (ctx) => ctx.input);
  return flow;
}

/** Writes `events` ledger events from one chunk. */
export function chatty(events: number): FlowDefinition {
  const flow = defineFlow("bench-chatty");
  flow.to("talk", async (ctx) => {
    for (let n = 1; n <= events / 2; n++) {
      await ctx.setState(`key${n % 100}`, n);
      if (n % 50 === 0) await ctx.emit("Said", { n });
      else ctx.emitNoWait("Said", { n });
    }
    return null;
  });
  return flow;
}
