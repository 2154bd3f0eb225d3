/** How an execution ends, what wakes it, and whether that holds although something else comes in. Times are 1000 × seq. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/flow/builder.ts";
import { decide } from "../../src/ledger/decide.ts";
import { autoCloseAt, deadlineOf, endsByItself, nextTimer, settle } from "../../src/ledger/settle.ts";
import type { Command, Effect, PauseRequest } from "../../src/ledger/command.ts";
import type { Settlement } from "../../src/ledger/settle.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { LedgerEvent, ResumeTo } from "../../src/ledger/event.ts";
import type { JsonObject } from "../../src/base/json.ts";
import type { ExecutionState } from "../../src/ledger/state.ts";
import { created, fold, Ledger, nothing, recorded, someWorker, started } from "../support/ledger.ts";

const flow = defineFlow("f");
flow.to("a", nothing);
const error = { name: "Error", message: "no" };
const claim: LedgerEvent = { type: "execution.claimed", worker: someWorker };
const planned: LedgerEvent = { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "n1", chunk: "a" }] };
const twoPlanned: LedgerEvent = {
  type: "inbox.routed",
  of: 2,
  // Each in a chain of its own.
  moves: [1, 2].map((id) => ({ move: "run", id, node: "n1", chunk: "a", scope: `${id}` })),
};
const done: LedgerEvent = { type: "chunk.completed", dispatch: 1, chunk: "a", output: null };
const failing: LedgerEvent = { type: "execution.failed", reason: "failed", error };
const cancel: LedgerEvent = { type: "cancel.requested", reason: "stop", actor: "ann" };
const closing: LedgerEvent = { type: "execution.sealed", close: true, reason: "enough" };
const correction: LedgerEvent = {
  type: "intervention.recorded",
  id: "v",
  payload: 1,
  target: null,
  author: null,
  note: null,
  metadata: {},
};
const emitted: LedgerEvent = { type: "event.emitted", event: "A", payload: 1 };
const child = ExecutionId.parse("0190b5a0-0000-7000-8000-000000000001");
const closed = (outcome: "completed" | "cancelled" | "failed", reason: string, more = {}): LedgerEvent => ({
  type: "execution.closed",
  outcome,
  reason,
  ...more,
});

function raised(id: string, more: Partial<Extract<LedgerEvent, { type: "interrupt.raised" }>> = {}): LedgerEvent {
  const asked = { dispatch: 1, chunk: "a", kind: "approval", payload: null, resumeTo: "next" } as const;
  return { type: "interrupt.raised", id, ...asked, maxResumes: 1, resumeCount: 0, ...more };
}

function stateOf(events: readonly LedgerEvent[], settings: Parameters<typeof created>[1] = {}): ExecutionState {
  return fold(recorded([created(flow, settings), ...events]));
}

interface Ends {
  readonly events: readonly LedgerEvent[];
  readonly settings?: Parameters<typeof created>[1];
  readonly now?: number;
  readonly running?: number;
  readonly isGraceOver?: boolean;
  /** What is due, whatever else comes in; null for nothing. */
  readonly always?: LedgerEvent[];
  /** The same, unless something else comes in. */
  readonly unless?: LedgerEvent[];
}

const idle = [started(), claim, planned, done];
const asks = [started(), claim, planned];
const asksTwo = [started(), claim, twoPlanned];
const ends: Readonly<Record<string, Ends>> = {
  "what has closed does not end again": {
    events: [...idle, closed("completed", "done")],
    settings: { autoCloseMs: 0 },
  },
  "a failure closes it": { events: [...asks, failing], unless: [closed("failed", "failed", { error })] },
  "a failure first ends what waits": {
    events: [...asks, raised("q"), failing],
    always: [
      { type: "interrupt.cancelled", id: "q", reason: "failed" },
      { type: "execution.sealed", close: true, reason: "failed" },
    ],
  },
  "a failure takes nothing new where more and more comes in": {
    events: [...asks, emitted, failing],
    always: [{ type: "execution.sealed", close: true, reason: "failed" }],
  },
  "of what nobody claimed nothing can flood in": {
    events: [started(), emitted, failing],
    unless: [closed("failed", "failed", { error })],
  },
  "a cancel waits for what runs": { events: [...asks, cancel], running: 1 },
  "a cancel waits no longer than its grace": {
    events: [...asks, cancel],
    running: 1,
    isGraceOver: true,
    unless: [closed("cancelled", "stop")],
  },
  "a cancel with nothing that runs closes at once": {
    events: [...asks, cancel],
    unless: [closed("cancelled", "stop")],
  },
  "a cancel first ends what waits, whatever comes in": {
    events: [...asks, raised("q"), cancel],
    always: [
      { type: "interrupt.cancelled", id: "q", reason: "stop" },
      { type: "execution.sealed", close: true, reason: "stop" },
    ],
  },
  "a cancel expires corrections that nobody took": {
    events: [...idle, correction, cancel],
    always: [
      { type: "intervention.expired", id: "v" },
      { type: "execution.sealed", close: true, reason: "stop" },
    ],
  },
  "a cancel waits for its handlers": {
    events: [...idle, cancel, { type: "cleanup.planned", runs: [{ id: 5 }] }],
  },
  "a pause of an operator's goes on when its time is over": {
    events: [...idle, { type: "execution.paused", actor: "ann", reason: "x", until: 9000 }],
    now: 9000,
    unless: [{ type: "execution.unpaused", actor: "timer", reason: "its time was over" }],
  },
  "a pause of an operator's stays until then": {
    events: [...idle, { type: "execution.paused", actor: "ann", reason: "x", until: 9000 }],
    settings: { autoCloseMs: 0 },
    now: 8999,
  },
  "a pause of an operator's without a time stays": {
    events: [...idle, { type: "execution.paused", actor: "ann", reason: "x" }],
    settings: { autoCloseMs: 0 },
    now: 1e9,
  },
  "an answer that came early is taken, unless another came": {
    events: [started(), claim, { type: "interrupt.answered", id: "q", value: 7, actor: "ann" }, planned, raised("q")],
    unless: [{ type: "interrupt.resumed", id: "q", value: 7, early: 4, actor: "ann" }],
  },
  "who was answered early takes no event, and another does": {
    events: [
      started(),
      claim,
      { type: "interrupt.answered", id: "q", value: 7 },
      emitted,
      twoPlanned,
      raised("q", { resumeTo: { event: "A" } }),
      { ...raised("r", { resumeTo: { event: "A" } }), dispatch: 2 } as LedgerEvent,
    ],
    unless: [
      { type: "interrupt.resumed", id: "q", value: 7, early: 4 },
      { type: "interrupt.resumed", id: "r", value: 1, byEvent: "A", of: 5 },
    ],
  },
  "a question expires, unless its answer came": {
    events: [...asks, raised("q", { expiresInMs: 500 })],
    now: 5500,
    unless: [{ type: "interrupt.expired", id: "q" }],
  },
  "a question does not expire before": { events: [...asks, raised("q", { expiresInMs: 500 })], now: 5499 },
  "what is parked fails when its time is over, unless it was retried": {
    events: [...asks, { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 1, error, failInMs: 500 }],
    now: 5500,
    unless: [{ type: "chunk.failed", dispatch: 1, chunk: "a", attempt: 1, error }],
  },
  "a close cancels what waits where it says so": {
    events: [...asks, raised("q"), { ...closing, pendingInterrupts: "cancel" } as LedgerEvent],
    unless: [{ type: "interrupt.cancelled", id: "q", reason: "enough" }],
  },
  "a close that cancels questions has nothing to cancel where none waits": {
    events: [...idle, { ...closing, pendingInterrupts: "cancel" } as LedgerEvent],
    unless: [closed("completed", "enough")],
  },
  "a close drains what is planned": { events: [...asks, closing] },
  "a close drains what runs": { events: [...idle, closing], running: 1 },
  "a close drains what has come in": { events: [...idle, emitted, closing] },
  "a close waits for questions where it does not cancel them": { events: [...asks, raised("q"), closing] },
  "a close of what is drained completes": { events: [...idle, closing], unless: [closed("completed", "enough")] },
  "a close that cancelled a question ends as cancelled": {
    events: [
      ...asks,
      raised("q"),
      { ...closing, pendingInterrupts: "cancel" } as LedgerEvent,
      { type: "interrupt.cancelled", id: "q", reason: "enough" },
    ],
    unless: [closed("cancelled", "enough")],
  },
  "a close after a sub-flow was cancelled for it ends as cancelled": {
    events: [
      ...asks,
      { type: "child.started", dispatch: 1, chunk: "a", ordinal: 0, child, flow: "g" },
      closing,
      { type: "child.cancelled", child, reason: "enough" } as LedgerEvent,
      done,
    ],
    unless: [closed("cancelled", "enough")],
  },
  "a close long after a sub-flow was cancelled completes": {
    events: [
      ...asks,
      { type: "child.started", dispatch: 1, chunk: "a", ordinal: 0, child, flow: "g" },
      { type: "child.cancelled", child, reason: "enough" } as LedgerEvent,
      done,
      closing,
    ],
    unless: [closed("completed", "enough")],
  },
  "what is idle closes when its time is over, unless something came": {
    events: idle,
    settings: { autoCloseMs: 700 },
    now: 5700,
    unless: [closed("completed", "auto_close_idle_timeout")],
  },
  "what is idle expires corrections that nobody took, unless something came": {
    events: [...idle, correction],
    settings: { autoCloseMs: 0 },
    unless: [
      { type: "intervention.expired", id: "v" },
      { type: "execution.sealed", close: true, reason: "auto_close_idle_timeout" },
    ],
  },
  "a close expires corrections that nobody took, unless something came": {
    events: [...idle, closing, correction],
    unless: [{ type: "intervention.expired", id: "v" }],
  },
  "who tells of questions is told first, whatever comes in": {
    events: [...asks, raised("q", { tells: true, expiresInMs: 500 })],
    now: 1e9,
    always: [
      {
        type: "event.emitted",
        event: "$interrupt",
        payload: expect.objectContaining({ kind: "raised" }) as JsonObject,
      },
    ],
  },
  "what is idle does not close before": { events: idle, settings: { autoCloseMs: 700 }, now: 5699 },
  "what never closes by itself stays": { events: idle, settings: { autoCloseMs: null }, now: 1e12 },
  "what runs is not idle": { events: asks, settings: { autoCloseMs: 0 } },
  "a question keeps it open": { events: [...asks, raised("q")], settings: { autoCloseMs: 0 } },
};

test.each(Object.entries(ends))("%s", (_, { events, settings, now = 0, running = 0, isGraceOver = false, ...due }) => {
  const found = settle(stateOf(events, settings), now, running, isGraceOver);

  const expected: Settlement | null =
    due.always !== undefined
      ? { events: due.always, isConditional: false }
      : due.unless !== undefined
        ? { events: due.unless, isConditional: true }
        : null;
  expect(found).toEqual(expected);
});

const paused: LedgerEvent = { type: "execution.paused", actor: "ann", reason: "x", until: 90_000 };
const wakes: Readonly<Record<string, [readonly LedgerEvent[], Parameters<typeof created>[1], number | null]>> = {
  "nothing wakes what waits for nothing": [[started(), claim, planned], {}, null],
  "a question wakes it when it expires": [[...asks, raised("q", { expiresInMs: 500 })], {}, 5500],
  "one that was answered does not": [
    [...asks, raised("q", { expiresInMs: 500 }), { type: "interrupt.cancelled", id: "q", reason: "x" }],
    { autoCloseMs: null },
    null,
  ],
  "the first of many counts, whichever comes first": [
    [
      ...asksTwo,
      raised("q", { expiresInMs: 700 }),
      { ...raised("r", { expiresInMs: 100 }), dispatch: 2 } as LedgerEvent,
    ],
    {},
    5700,
  ],
  "and also the other way round": [
    [
      ...asksTwo,
      raised("q", { expiresInMs: 1700 }),
      { ...raised("r", { expiresInMs: 100 }), dispatch: 2 } as LedgerEvent,
    ],
    {},
    6100,
  ],
  "what is parked wakes it when it fails": [
    [...asks, { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 1, error, failInMs: 500 }],
    {},
    5500,
  ],
  "its timeout wakes it": [asks, { timeoutMs: 9000 }, 12_000],
  "no timeout, no wake": [asks, {}, null],
  "a timeout of what nobody took does not": [[started()], { timeoutMs: 9000, autoClose: false }, null],
  "idle time wakes it": [idle, { autoCloseMs: 700 }, 5700],
  "the end of an operator's pause wakes it, and what is due meanwhile does not": [
    [...asks, raised("q", { expiresInMs: 500 }), paused],
    {},
    90_000,
  ],
  "a timeout goes on beside an operator's pause": [[...asks, paused], { timeoutMs: 9000 }, 12_000],
  "a pause without a time wakes nothing": [
    [...idle, { type: "execution.paused", actor: "ann", reason: "x" }],
    { autoCloseMs: 700 },
    null,
  ],
};

test.each(Object.entries(wakes))("wakes: %s", (_, [events, settings, at]) => {
  const state = stateOf(events, settings);

  expect(nextTimer(state)).toBe(at);
  // It counts from after a moment: what is due then has been seen.
  if (at === null) return;
  expect(nextTimer(state, at - 1)).toBe(at);
  expect(nextTimer(state, at)).not.toBe(at);
});

test("what ends by itself needs no version of its flow", () => {
  const states = {
    cancelled: stateOf([...asks, cancel]),
    failing: stateOf([...asks, failing]),
    "timed out": stateOf(asks, { timeoutMs: 47_000 }),
    "timed out soon": stateOf(asks, { timeoutMs: 47_001 }),
    idle: stateOf(idle, { autoCloseMs: 0 }),
    "closing, drained": stateOf([...idle, closing]),
    "closing, with a question": stateOf([...asks, raised("q"), closing]),
    "closing, at work": stateOf([...asks, closing]),
    "at work": stateOf(asks, { timeoutMs: 100_000 }),
  };

  const now = 50_000;
  expect(Object.entries(states).flatMap(([what, state]) => (endsByItself(state, now) ? [what] : []))).toEqual([
    "cancelled",
    "failing",
    "timed out",
    "idle",
    "closing, drained",
    "closing, with a question",
  ]);
});

function decided(events: readonly LedgerEvent[], command: Command): LedgerEvent[] {
  return decide(fold(recorded(events)), command, flow.graph);
}

test("a claim says what is new about it, and nothing else", () => {
  const nodes = { n1: "n2" };
  const known: LedgerEvent[] = [
    created(flow),
    started(),
    { type: "execution.claimed", worker: someWorker, fingerprint: "v1" },
  ];
  const claimed = (more: {
    fingerprint?: string;
    nodes?: Record<string, string>;
    span?: string;
    traceparent?: string;
  }) => decided(known, { type: "claim", worker: someWorker, fingerprint: null, ...more });

  expect(claimed({})).toEqual([claim]);
  expect(claimed({ fingerprint: "v1", nodes: {} })).toEqual([claim]);
  expect(claimed({ fingerprint: "v2" })).toEqual([{ ...claim, fingerprint: "v2" }]);
  expect(claimed({ nodes })).toEqual([{ ...claim, nodes }]);
  expect(claimed({ span: "s", traceparent: "t" })).toEqual([{ ...claim, span: "s", traceparent: "t" }]);
  for (const event of claimed({})) expect(Object.keys(event)).toEqual(["type", "worker"]);
});

const asked: PauseRequest = {
  id: "q",
  type: "t",
  payload: 1,
  resumeTo: "next",
  maxResumes: 1,
  resumeCount: 0,
  expiresInMs: null,
  onExpire: null,
  response: null,
};

test("what an owner says of a dispatch or of the whole is that, and nothing where it has closed", () => {
  const before = [created(flow), ...asks];
  const place = { dispatch: 1, chunk: "a" };
  const abort: Command = { type: "abort", reason: "timeout", error };
  expect(decided(before, { type: "block", worker: someWorker, fingerprint: "v2", problem: "gone" })).toEqual([
    claim,
    { type: "execution.blocked", fingerprint: "v2", problem: "gone" },
  ]);
  expect(decided(before, { type: "drop", dispatch: 1 })).toEqual([{ type: "value.routed", dispatch: 1 }]);
  expect(decided(before, { type: "link", interrupt: "q", hash: "h" })).toEqual([
    { type: "interrupt.linked", id: "q", hash: "h" },
  ]);
  expect(decided(before, { type: "interrupt", dispatch: 1 })).toEqual([{ type: "chunk.interrupted", ...place }]);
  expect(decided(before, abort)).toEqual([{ type: "execution.failed", reason: "timeout", error }]);
  expect(decided([...before, closed("completed", "done")], abort)).toEqual([]);
  expect(() => decided(before, { type: "drop", dispatch: 7 })).toThrow(/dispatch 7 is not open/);
  expect(decided(before, { type: "route" })).toEqual([]);
  // Another has taken the id in the same moment.
  const taken = [created(flow), ...asksTwo, { ...raised("q"), dispatch: 2 } as LedgerEvent];
  expect(decided(taken, { type: "pause", dispatch: 1, interrupt: asked })).toMatchObject([
    {
      type: "chunk.failed",
      ...place,
      attempt: 1,
      error: { chunk: "a", message: expect.stringContaining('pauseFor in chunk "a"') },
    },
  ]);
});

test("a claim without a span or a trace has no field for them", () => {
  const [event] = decided([created(flow), started()], { type: "claim", worker: someWorker, fingerprint: null });

  expect(Object.keys(event ?? {})).toEqual(["type", "worker"]);
});

test("what is heard of a state key is what it has become: of an append the whole list, of a delete nothing", () => {
  const hearing = defineFlow("f");
  hearing.to("a", nothing);
  hearing.when({ state: "list" }).forEach().to("x", nothing).endForEach();
  const sizeOf = (effect: Effect) => {
    const ledger = new Ledger(hearing).start();
    const dispatch = ledger.one("a");
    ledger.effect(dispatch, { effect: "set", ordinal: 0, key: "list", value: [1, 2], silent: true });
    const [event] = ledger.effect(dispatch, effect);
    return event && "moves" in event ? event.moves?.map((move) => ("size" in move ? move.size : move.move)) : null;
  };
  const place = { ordinal: 1, key: "list" };

  expect(sizeOf({ effect: "append", ...place, value: 3 })).toEqual([3]);
  expect(sizeOf({ effect: "set", ...place, value: [1, 2, 3, 4] })).toEqual([4]);
  expect(sizeOf({ effect: "delete", ...place })).toEqual([1]);
  expect(sizeOf({ effect: "append", ...place, key: "other", value: 3 })).toBeNull();
});

test("an answer goes on where its pause was: in its item, its scope and its group, with its value", () => {
  const asking = defineFlow("f");
  asking.to("list", nothing).forEach().to("ask", nothing).forEach().to("after", nothing).endForEach().endForEach();
  asking.when("A").to("heard", nothing);
  const routedTo = (resumeTo: ResumeTo) => {
    const ledger = new Ledger(asking).start();
    ledger.complete(ledger.one("list"), [1, 2]);
    const [, second] = ledger.open("ask");
    if (!second) throw new Error("one item");
    ledger.do({ type: "pause", dispatch: second.id, interrupt: { ...asked, resumeTo } });
    ledger.record({ type: "interrupt.resumed", id: "q", value: [7, 8, 9] });
    const [event] = ledger.do({ type: "route" });
    return { at: second.at, scope: second.scope, moves: event && "moves" in event ? event.moves : [] };
  };

  const next = routedTo("next");
  expect(next.moves).toMatchObject([{ move: "open", size: 3, at: next.at }]);
  const self = routedTo("self");
  expect(self.moves).toMatchObject([{ move: "run", chunk: "ask", at: self.at, resume: "q" }]);
  const event = routedTo({ event: "A" });
  expect(event.moves).toMatchObject([{ move: "run", chunk: "heard" }]);
  expect(event.moves?.[0]).not.toHaveProperty("at");
});

test("what an attempt had heard before a commit, and until when it sleeps, is said where there is such", () => {
  const events = [created(flow), ...asks];
  const place = { dispatch: 1, chunk: "a", ordinal: 0 };
  const sleep = (more: object) =>
    decided(events, { type: "effect", dispatch: 1, effect: { effect: "sleep", ordinal: 0, forMs: 5, ...more } });

  expect(sleep({})).toEqual([{ type: "sleep.started", ...place, forMs: 5 }]);
  expect(Object.keys(sleep({})[0] ?? {})).not.toContain("until");
  expect(sleep({ until: 9, turns: [2, 1] })).toEqual([
    { type: "sleep.started", ...place, forMs: 5, until: 9, turns: [2, 1] },
  ]);
});

test("what the contract makes of a start is what goes on, and is in the ledger", () => {
  const each = defineFlow("f");
  each.forEach().to("x", nothing).endForEach();
  const ledger = new Ledger(each);
  ledger.record(started([1]));
  ledger.do({ type: "claim", worker: someWorker, fingerprint: null });
  const before = ledger.state;

  const [made] = decide(before, { type: "route", value: [1, 2, 3] }, each.graph);
  expect(made).toMatchObject({ value: [1, 2, 3], moves: [{ move: "open", size: 3 }] });
  const [same] = decide(before, { type: "route" }, each.graph);
  expect(same).toMatchObject({ moves: [{ move: "open", size: 1 }] });
  expect(Object.keys(same ?? {})).not.toContain("value");
});

test("a handler of a cancel that pauses has failed, as nobody can answer", () => {
  const cleaning = [created(flow), ...asks, cancel, { type: "cleanup.planned", runs: [{ id: 5 }] } as LedgerEvent];

  expect(decided(cleaning, { type: "pause", dispatch: 5, interrupt: asked })).toMatchObject([
    { type: "cleanup.failed", dispatch: 5, error: { code: "USAGE_INVALID" } },
  ]);
});

test("a sub-flow that was cancelled in the moment of the close was cancelled for it", () => {
  const call: LedgerEvent = { type: "child.started", dispatch: 1, chunk: "a", ordinal: 0, child, flow: "g" };
  const ended: LedgerEvent = { type: "child.cancelled", child, reason: "enough" } as LedgerEvent;
  const events = [created(flow), ...asks, call, closing, ended, done];
  const state = fold(recorded(events).map((event, index) => ({ ...event, at: index >= 5 ? 6000 : event.at })));

  expect(settle(state, 0, 0, false)?.events).toEqual([closed("cancelled", "enough")]);
});

test("a withdrawn question that was answered meanwhile stays answered", () => {
  const events = [created(flow), started(), claim, twoPlanned, raised("q")];
  const withdraw: Command = {
    type: "effect",
    dispatch: 2,
    effect: { effect: "withdraw", ordinal: 0, interrupt: "q", reason: "over" },
  };

  expect(decided(events, withdraw)).toMatchObject([{ type: "interrupt.cancelled", id: "q", withdrawn: true }]);
  expect(decided([...events, { type: "interrupt.resumed", id: "q", value: 1 }], withdraw)).toEqual([]);
});

test("a pause has what was asked of it, and no field for what was not", () => {
  const pauseOf = (more: Partial<PauseRequest>) =>
    decided([created(flow), ...asks], { type: "pause", dispatch: 1, interrupt: { ...asked, ...more } })[0];
  const plain = { dispatch: 1, chunk: "a", id: "q", kind: "t", payload: 1, maxResumes: 1, resumeCount: 0 };
  const more = { expiresInMs: 5, onExpire: "fail", response: { type: "null" }, title: "T", assign: ["u"] } as const;
  const rest = { dueInMs: 7, plan: [{ inMs: 1 }], link: true } as const;

  expect(Object.keys(pauseOf({}) ?? {}).toSorted()).toEqual([...Object.keys(plain), "resumeTo", "type"].toSorted());
  expect(pauseOf({ ...more, assign: ["u"], ...rest, plan: [{ inMs: 1 }] })).toEqual({
    type: "interrupt.raised",
    ...plain,
    resumeTo: "next",
    ...more,
    ...rest,
  });
});

test("a start that waits for its time or its worker uses up neither its timeout nor its idle time", () => {
  const at = (dueAt: number | undefined, more: readonly LedgerEvent[]) => {
    const start: LedgerEvent = { type: "execution.started", input: null, ...(dueAt !== undefined && { dueAt }) };
    const state = fold(
      recorded([created(flow, { timeoutMs: 500, autoClose: true, autoCloseMs: 100 }), start, ...more]),
    );
    return [deadlineOf(state), autoCloseAt({ ...state, inbox: [] })];
  };

  // Claimed before its time, as for an event: at 3 s.
  expect(at(8000, [claim])).toEqual([8500, 8100]);
  // Claimed behind it.
  expect(at(undefined, [claim])).toEqual([3500, 3100]);
});
