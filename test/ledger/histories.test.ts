/** Random histories of random flows: what `decide` yields, `evolve` folds, however it is cut, timed or interleaved. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { defineFlow } from "../../src/flow/builder.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import { decide } from "../../src/ledger/decide.ts";
import type { Command, Effect, Hits } from "../../src/ledger/decide.ts";
import { decode, encode, LedgerRow } from "../../src/ledger/event.ts";
import type { LedgerEvent, Recorded } from "../../src/ledger/event.ts";
import { evolve, stamp } from "../../src/ledger/evolve.ts";
import {
  freezeState,
  initialState,
  pendingInterrupts,
  thawState,
  type ExecutionState,
} from "../../src/ledger/state.ts";
import type { Json, JsonObject } from "../../src/base/json.ts";
import { fold, folded, Ledger, nothing, someWorker } from "../support/ledger.ts";

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
      expect(freezeState(ledger.state)).toEqual(before);
      if (step.command.type === "claim") ledger.epoch += 1;
      for (const event of events) {
        expect(roundTrip(event)).toEqual(JSON.parse(JSON.stringify(event)));
        ledger.record(event);
      }
    }
  });
});

test("a fold from any snapshot equals the fold from the beginning", () => {
  check(({ flow, choices }) => {
    const { history } = play(flow, choices);
    const whole = folded(history);
    for (let cut = 0; cut <= history.length; cut += Math.max(1, history.length >> 3)) {
      const snapshot = folded(history.slice(0, cut));
      expect(freezeState(fold(history.slice(cut), thawState(snapshot)))).toEqual(whole);
    }
  });
});

test("the state an owner carries on equals the fold of what it wrote", () => {
  check(({ flow, choices }) => {
    const { history, state } = play(flow, choices);

    expect(folded(history)).toEqual(freezeState(state));
  });
});

test("a fold does not change the events it folds", () => {
  check(({ flow, choices }) => {
    const { history } = play(flow, choices);
    const before = structuredClone(history);

    fold(history);

    expect(history).toEqual(before);
  });
});

test("evolve at a guessed time, then stamp at the real one, equals evolve at the real one", () => {
  check(({ flow, choices }, guesses) => {
    const { history } = play(flow, choices, { onlyOwn: true });
    for (const { before, batch } of batches(history)) {
      const at = (batch[0]?.at ?? 0) + 5000;
      const guessed = thawState(folded(before));
      for (const recorded of batch) evolve(guessed, { ...recorded, at: at - (guesses.next().value ?? 0) });
      for (const { event } of batch) stamp(guessed, event, at);

      const real = fold(
        batch.map((recorded) => ({ ...recorded, at })),
        thawState(folded(before)),
      );
      expect(freezeState(guessed)).toEqual(freezeState(real));
    }
  });
});

test("what comes in from outside while a commit is on its way commutes with it, but for the seq", () => {
  expect.hasAssertions();
  check(({ flow, choices }) => {
    const ledger = new Ledger(flow, { autoClose: false, interventionMode: "planned" });
    for (const [index, choice] of choices.entries()) {
      const foreign = foreignTo(ledger.state, choice);
      const base = freezeState(ledger.state);
      const step = nextStep(ledger, choice >>> 3);
      if (step !== "settle" && "command" in step && step.command.type !== "claim" && !ledger.state.closed)
        for (const event of foreign) expectToCommute(base, event, decide(ledger.state, step.command, ledger.graph));
      apply(ledger, step);
      ledger.now += index;
    }
  }, 50);
});

function expectToCommute(base: JsonObject, foreign: LedgerEvent, own: readonly LedgerEvent[]): void {
  const what = `${foreign.type} against ${own.map(({ type }) => type).join(", ")}`;
  expect({ what, ...inOrder(base, [...own, foreign]) }).toEqual({ what, ...inOrder(base, [foreign, ...own]) });
}

/** Folds events onto a state, outside ones with the seq they would have had first. */
function inOrder(base: JsonObject, events: readonly LedgerEvent[]): JsonObject {
  const state = thawState(base);
  const outside = state.seq + 1;
  for (const event of events) {
    const seq = isForeign(event) ? outside : outside + 1;
    evolve(state, { seq, epoch: state.epoch, at: state.activeAt, event });
  }
  const { seq: _, ...rest } = freezeState(state);
  return rest;
}

function isForeign(event: LedgerEvent): boolean {
  if (event.type === "event.emitted") return event.dispatch === undefined;
  if (event.type === "interrupt.resumed") return event.byEvent === undefined;
  return ["execution.sealed", "cancel.requested", "intervention.recorded"].includes(event.type);
}

function foreignTo(state: ExecutionState, choice: number): LedgerEvent[] {
  const events: LedgerEvent[] = [
    { type: "event.emitted", event: "A", payload: choice },
    { type: "execution.sealed", close: true, reason: "enough" },
    { type: "cancel.requested", reason: "stop" },
    {
      type: "intervention.recorded",
      id: `v${choice}`,
      payload: 1,
      target: null,
      author: null,
      note: null,
      metadata: {},
    },
  ];
  for (const { id } of pendingInterrupts(state)) events.push({ type: "interrupt.resumed", id, value: choice });
  return events;
}

/** Commits of the owner: what it did between two moments, each with what came before it. A dispatch fails once per commit, because a retry waits for it. */
function batches(history: readonly Recorded[]): { before: readonly Recorded[]; batch: readonly Recorded[] }[] {
  const found: { before: readonly Recorded[]; batch: readonly Recorded[] }[] = [];
  for (let start = 2; start < history.length;) {
    const failed = new Set<number>();
    let end = start;
    for (; end < history.length && end < start + 6; end++) {
      const event = history[end]?.event;
      // A claim begins an epoch, and no commit holds two.
      if (event?.type === "execution.claimed" && end > start) break;
      if (event?.type !== "chunk.failed" && event?.type !== "step.failed") continue;
      if (failed.has(event.dispatch)) break;
      failed.add(event.dispatch);
    }
    found.push({ before: history.slice(0, start), batch: history.slice(start, end) });
    start = end;
  }
  return found;
}

// ── an owner that does something at random ──────────────────────────────────────────────────────────────────

type Step = { command: Command } | { event: LedgerEvent } | "settle";

interface Play {
  readonly flow: FlowDefinition;
  readonly choices: readonly number[];
}

function check(property: (play: Play, guesses: Iterator<number>) => void, numRuns = 100): void {
  const numbers = fc.infiniteStream(fc.nat(4999));
  const plays = fc.record({
    flow: anyFlow(),
    choices: fc.array(fc.nat(), { minLength: 5, maxLength: 40, size: "max" }),
  });
  fc.assert(fc.property(plays, numbers, property), { numRuns, interruptAfterTimeLimit: 5000 });
}

function play(flow: FlowDefinition, choices: readonly number[], options: { onlyOwn?: boolean } = {}): Ledger {
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

function apply(ledger: Ledger, step: Step): void {
  if (step === "settle") ledger.settle();
  else if ("command" in step) ledger.do(step.command);
  else if (!ledger.state.closed) ledger.record(step.event);
}

/** One of the things that could happen next. */
function nextStep(ledger: Ledger, choice: number): Step {
  const { state } = ledger;
  if (state.startedAt === null) return { event: { type: "execution.started", input: { list: [1, 2] } } };
  const what = choice % 16;
  const rest = choice >>> 4;
  if (what === 0) return { command: { type: "claim", worker: someWorker, fingerprint: rest % 2 ? "new" : null } };
  if (what === 1) return { event: outside(state, rest) };
  if (what === 2) return "settle";
  const hits = anyHits(ledger, rest);
  if (state.inbox.length > 0 && (what < 6 || state.dispatches.size === 0)) return { command: { type: "route", hits } };
  const dispatches = [...state.dispatches.values()];
  const dispatch = dispatches[rest % Math.max(1, dispatches.length)];
  if (!dispatch) return { event: outside(state, rest) };
  const { id } = dispatch;
  if (dispatch.chunk === null) return { command: { type: "forward", dispatch: id, hits } };
  const ordinal = dispatch.journal.length;
  const wants = rest >>> 4;
  if (what < 10) return { command: { type: "complete", dispatch: id, output: anyOutput(wants), hits } };
  if (what === 10)
    return {
      command: { type: "fail", dispatch: id, error: { name: "E", message: "m" }, retryInMs: wants % 5 ? wants : null },
    };
  if (what === 11) return { command: { type: "pause", dispatch: id, interrupt: anyPause(state, wants) } };
  return { command: { type: "effect", dispatch: id, effect: anyEffect(ordinal, wants, hits) } };
}

function outside(state: ExecutionState, choice: number): LedgerEvent {
  const events: LedgerEvent[] = [
    { type: "event.emitted", event: "A", payload: choice % 7 },
    { type: "event.emitted", event: "B", payload: [choice % 7] },
    ...foreignTo(state, choice).slice(3),
  ];
  return events[choice % events.length] ?? { type: "event.emitted", event: "A", payload: 1 };
}

function anyOutput(choice: number): Json {
  const outputs: Json[] = [null, 1, "two", { three: 3 }, [], [1, 2, 3], [[1], [2, 3]], { list: [1] }];
  return outputs[choice % outputs.length] ?? null;
}

function anyPause(state: ExecutionState, choice: number): Extract<Command, { type: "pause" }>["interrupt"] {
  const targets = ["next", "self", { event: "A" }] as const;
  return {
    id: `i${state.interrupts.size}`,
    type: "approval",
    payload: choice,
    resumeTo: targets[choice % 3] ?? "next",
    maxResumes: 1,
    resumeCount: 0,
    expiresInMs: choice % 2 ? choice % 3000 : null,
    response: null,
  };
}

function anyEffect(ordinal: number, choice: number, hits: Hits): Effect {
  const key = ["x", "x.y", "list", "deep.er.key"][choice % 4] ?? "x";
  const value = anyOutput(choice >>> 2);
  const effects: Effect[] = [
    { effect: "set", ordinal, key: "x", value: { y: 1 }, hits },
    { effect: "set", ordinal, key, value, hits },
    { effect: "append", ordinal, key, value, hits },
    { effect: "delete", ordinal, key, hits },
    { effect: "emit", ordinal, event: "A", payload: value, wait: false, hits },
    { effect: "emit", ordinal, event: "B", payload: value, wait: true, hits },
    { effect: "emit", ordinal, event: "A", payload: value, wait: true, hits },
    { effect: "step", ordinal, name: "s", value },
    {
      effect: "stepFailed",
      ordinal,
      name: "s",
      attempt: 1,
      error: { name: "E", message: "m" },
      retryInMs: choice % 2 ? 10 : null,
    },
    { effect: "sleep", ordinal, forMs: choice % 500 },
    { effect: "result", ordinal, value },
    { effect: "stopStream", ordinal },
  ];
  return effects[(choice >>> 3) % effects.length] ?? { effect: "stopStream", ordinal };
}

/** As if every condition had been asked; a match with mode "first" hits one case or none. */
function anyHits(ledger: Ledger, choice: number): Hits {
  const hits = new Map<string, readonly number[]>();
  let bits = choice;
  for (const node of ledger.graph.nodes.values()) {
    if (node.kind !== "match") continue;
    const all = node.cases.map((_, index) => index).filter((index) => (bits >>> index) & 1);
    hits.set(node.id, node.mode === "all" ? all : all.slice(0, 1));
    bits = (bits >>> 3) ^ choice;
  }
  return hits;
}

function roundTrip(event: LedgerEvent): LedgerEvent {
  const { t, d, c, a, p } = encode(event);
  const row = {
    seq: 1,
    epoch: 1,
    at: 1,
    type: t,
    dispatch: d ?? null,
    chunk: c ?? null,
    actor: a ?? null,
    payload: p ?? null,
  };
  return decode(LedgerRow.parse(JSON.parse(JSON.stringify(row)))).event;
}

// ── flows at random ─────────────────────────────────────────────────────────────────────────────────────────

type Block =
  | { kind: "chunk" | "end" | "point" }
  | { kind: "batch"; branches: number }
  | { kind: "forEach"; body: Block[] }
  | { kind: "match"; mode: "first" | "all"; cases: Block[][]; hasElse: boolean };

/** A place in a flow whose types do not matter here. */
interface Place {
  to(name: string, handler: () => null): Place;
  batch(branches: Record<string, () => null>): Place;
  forEach(): Place;
  endForEach(): Place;
  match(options: { mode: "first" | "all" }): Place;
  case(value: Json): Place;
  caseElse(): Place;
  endMatch(): Place;
  interventionPoint(point: { name: string }): Place;
  end(): Place;
}

function anyFlow(): fc.Arbitrary<FlowDefinition> {
  const { body } = fc.letrec<{ body: Block[]; block: Block }>((tie) => ({
    block: fc.oneof(
      { maxDepth: 3, depthIdentifier: "block" },
      fc.record({ kind: fc.constant("chunk" as const) }),
      fc.record({ kind: fc.constantFrom("end" as const, "point" as const) }),
      fc.record({ kind: fc.constant("batch" as const), branches: fc.integer({ min: 1, max: 3 }) }),
      fc.record({ kind: fc.constant("forEach" as const), body: tie("body") }),
      fc.record({
        kind: fc.constant("match" as const),
        mode: fc.constantFrom("first" as const, "all" as const),
        cases: fc.array(tie("body"), { minLength: 1, maxLength: 3 }),
        hasElse: fc.boolean(),
      }),
    ),
    body: fc.array(tie("block"), { minLength: 1, maxLength: 4, depthIdentifier: "block" }),
  }));
  return fc
    .tuple(fc.array(body, { minLength: 1, maxLength: 2 }), body, body, body, body)
    .map(([roots, a, and, or, state]) => {
      const flow = defineFlow("random");
      let names = 0;
      const name = () => `c${names++}`;
      const chain = (place: Place, blocks: readonly Block[]): Place =>
        blocks.reduce((at, block) => add(at, block), place);
      const add = (place: Place, block: Block): Place => {
        switch (block.kind) {
          case "chunk":
            return place.to(name(), nothing);
          case "end":
            return place.end();
          case "point":
            return place.interventionPoint({ name: name() });
          case "batch":
            return place.batch(Object.fromEntries(Array.from({ length: block.branches }, () => [name(), nothing])));
          case "forEach":
            return chain(place.forEach().to(name(), nothing), block.body).endForEach();
          case "match": {
            let at = place.match({ mode: block.mode });
            block.cases.forEach((body, index) => (at = chain(at.case(index).to(name(), nothing), body)));
            if (block.hasElse) at = at.caseElse().to(name(), nothing);
            return at.endMatch();
          }
        }
      };
      const begin = (place: unknown, blocks: readonly Block[]) =>
        void chain((place as Place).to(name(), nothing), blocks);
      for (const root of roots) begin(flow, root);
      begin(flow.when("A"), a);
      begin(flow.when(["A", "B"]), and);
      begin(flow.when(["A", "B"], { mode: "or" }), or);
      begin(flow.when({ state: "x" }), state);
      return flow;
    });
}

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

test("a history starts from nothing", () => {
  expect(folded([])).toEqual(freezeState(initialState()));
});
