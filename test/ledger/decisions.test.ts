/** Random decisions of random flows: what `decide` yields is folded, stored, and indifferent to what comes in beside it. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { decode, encode } from "../../src/ledger/codec.ts";
import { decide } from "../../src/ledger/decide.ts";
import { LedgerRow } from "../../src/ledger/event.ts";
import type { LedgerEvent } from "../../src/ledger/event.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import { freezeState } from "../../src/ledger/state.ts";
import { Ledger, thawed } from "../support/ledger.ts";
import { anyFlow, foreignTo, nextStep } from "../support/random.ts";
import { apply, check, expectSame, expectSameJson, play } from "./random.ts";

test("every decision is folded, changes nothing by itself, and comes back from the database as it went", () => {
  check(({ flow, choices }) => {
    const ledger = new Ledger(flow, { autoClose: false, interventionMode: "planned" });
    for (const choice of choices) {
      const step = nextStep(ledger, choice);
      if (step === "settle" || "event" in step) {
        apply(ledger, step);
        continue;
      }
      const before = freezeState(ledger.state);
      const events = decide(ledger.state, step.command, ledger.graph);
      expectSameJson(freezeState(ledger.state), before);
      if (step.command.type === "claim") ledger.epoch += 1;
      for (const event of events) {
        expectSame(roundTrip(event), JSON.parse(JSON.stringify(event)));
        ledger.record(event);
      }
    }
  });
});

test("what comes in from outside while a commit is on its way commutes with it, but for the seq", () => {
  const met = new Set<string>();
  check(({ flow, choices }, guesses) => {
    const ledger = new Ledger(flow, { autoClose: false, interventionMode: "planned" });
    for (const [index, choice] of choices.entries()) {
      const step = nextStep(ledger, choice >>> 3);
      if (step !== "settle" && "command" in step && step.command.type !== "claim" && !ledger.state.closed) {
        const foreign = foreignTo(ledger.state, choice);
        const event = foreign[(guesses.next().value ?? 0) % foreign.length];
        if (event) expectToCommute(freezeState(ledger.state), event, decide(ledger.state, step.command, ledger.graph));
        if (event) met.add(event.type);
      }
      apply(ledger, step);
      ledger.now += index;
    }
  });
  expect(met.size).toBeGreaterThan(0);
});

test("the random histories reach every kind of event that an owner writes", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(anyFlow(), fc.array(fc.nat(), { minLength: 60, maxLength: 60 }), (flow, choices) => {
      for (const { event } of play(flow, choices).history) seen.add(event.type);
    }),
    { numRuns: 60, seed: 1 },
  );

  expect([...seen].toSorted()).toEqual(
    expect.arrayContaining([
      "chunk.completed",
      "chunk.failed",
      "event.emitted",
      "execution.claimed",
      "inbox.routed",
      "interrupt.expired",
      "interrupt.raised",
      "interrupt.resumed",
      "intervention.inserted",
      "intervention.recorded",
      "result.set",
      "sleep.started",
      "state.appended",
      "state.deleted",
      "state.set",
      "step.completed",
      "step.failed",
      "stream.stopped",
      "value.routed",
    ]),
  );
});

function expectToCommute(base: string, foreign: LedgerEvent, own: readonly LedgerEvent[]): void {
  const what = `${foreign.type} against ${own.map(({ type }) => type).join(", ")}`;
  const [last, first] = [
    [...own, foreign],
    [foreign, ...own],
  ];
  expectSameJson(inOrder(base, last, foreign), inOrder(base, first, foreign), what);
}

/** Folds events onto a state, the outside one with the seq it would have had first, and later than the commit: it waited. */
function inOrder(base: string, events: readonly LedgerEvent[], foreign: LedgerEvent): string {
  const state = thawed(base);
  const outside = state.seq + 1;
  const now = state.activeAt;
  for (const event of events) {
    const [seq, at] = event === foreign ? [outside, now + 7] : [outside + 1, now];
    evolve(state, { seq, epoch: state.epoch, at, event });
  }
  return freezeState({ ...state, seq: 0 });
}

function roundTrip(event: LedgerEvent): LedgerEvent {
  const row = { seq: 1, epoch: 1, at: 1, ...encode(event) };
  return decode(LedgerRow.parse(JSON.parse(JSON.stringify(row)))).event;
}
