/** Properties of random flows: how each is tried, and how an owner plays one. */
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { expect } from "vitest";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { Ledger } from "../support/ledger.ts";
import { anyPlay, nextStep, type Play, type Step } from "../support/random.ts";

/** Tries a property on random flows, each with what its owner may do and numbers for whatever else is random. */
export function check(property: (play: Play, guesses: Iterator<number>) => void): void {
  const numbers = fc.infiniteStream(fc.nat(4999));
  fc.assert(fc.property(anyPlay(undefined, fc.constantFrom("fail", "park")), numbers, property), fuzzRuns());
}

/** What `toEqual` does; most are the same, and to see that is ten times faster without it. */
export function expectSame(actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(actual, expected)) expect(actual).toEqual(expected);
}

/** The same of JSON texts, whose keys may have any order. */
export function expectSameJson(actual: string, expected: string, what = ""): void {
  if (actual !== expected) expectSame([what, JSON.parse(actual)], [what, JSON.parse(expected)]);
}

export function play(flow: FlowDefinition, choices: readonly number[], options: { onlyOwn?: boolean } = {}): Ledger {
  const ledger = new Ledger(flow, { autoClose: false, interventionMode: "planned" });
  if (options.onlyOwn) ledger.start({ n: 1 });
  for (const choice of choices) {
    ledger.now += choice % 1000;
    const step = nextStep(ledger, choice);
    if (options.onlyOwn && (step === "settle" || "event" in step)) continue;
    apply(ledger, step);
  }
  return ledger;
}

export function apply(ledger: Ledger, step: Step): void {
  if (step === "settle") ledger.settle();
  else if ("command" in step) ledger.do(step.command);
  else if (!ledger.state.closed) ledger.record(step.event);
}
