/** What a flow hears of its pauses, and what the clock brings to them. */
import { expect, test } from "vitest";
import { parseAsking } from "../../src/engine/ctx/asking.ts";
import { defineFlow } from "../../src/flow/builder.ts";
import { decide } from "../../src/ledger/decide.ts";
import { nextTimer, settle } from "../../src/ledger/settle.ts";
import type { LedgerEvent } from "../../src/ledger/event.ts";
import { created, fold, nothing, recorded, started } from "../support/ledger.ts";

const flow = defineFlow("f");
flow.to("a", nothing);
flow.to("b", nothing);

const folding = (events: readonly LedgerEvent[]) => fold(recorded(events));
const moves = [
  { move: "run" as const, id: 1, node: "n1", chunk: "a" },
  { move: "run" as const, id: 2, node: "n2", chunk: "b" },
];
const running: LedgerEvent[] = [created(flow), started("in"), { type: "inbox.routed", of: 2, moves }];
const raised = (id: string, dispatch: number): LedgerEvent => ({
  type: "interrupt.raised",
  dispatch,
  chunk: "a",
  id,
  kind: "approval",
  payload: null,
  resumeTo: "next",
  maxResumes: 1,
  resumeCount: 0,
  expiresInMs: 9000,
  plan: [{ inMs: 1000 }, { inMs: 2000, assign: ["boss"] }, { inMs: 3000, answer: "no" }],
  tells: true,
});
const told = (kind: string, id: string): LedgerEvent => ({
  type: "event.emitted",
  event: "$interrupt",
  payload: { kind, interrupt: { id } },
});

test("what comes in beside the commit that tells is told in the next one, and nothing twice", () => {
  const answered: LedgerEvent = { type: "interrupt.resumed", id: "x", value: 1 };

  const state = folding([
    ...running,
    raised("x", 1),
    raised("y", 2),
    answered,
    told("raised", "x"),
    told("raised", "y"),
  ]);

  expect(state.notices).toEqual([{ kind: "answered", interrupt: "x" }]);
  expect(folding([...running, raised("x", 1), told("raised", "x")]).notices).toBeUndefined();
});

test("what came due is decided in its order, up to the default answer", () => {
  const state = folding([...running, raised("x", 1), told("raised", "x")]);
  const [asked] = [...state.interrupts.values()].map(({ createdAt }) => createdAt);
  const at = (ms: number) => settle(state, (asked ?? 0) + ms, 0, false)?.events.map(({ type }) => type);

  expect(nextTimer(state)).toBe((asked ?? 0) + 1000);
  expect(at(999)).toBeUndefined();
  expect(at(1000)).toEqual(["interrupt.reminded"]);
  expect(at(2999)).toEqual(["interrupt.reminded", "interrupt.escalated"]);
  expect(at(99_000)).toEqual(["interrupt.reminded", "interrupt.escalated", "interrupt.resumed"]);
});

test("whoever gets a question by a delegation or an escalation has it new: nobody has claimed it, and nobody has put it off", () => {
  const handed: LedgerEvent[] = [
    { type: "interrupt.delegated", id: "x", assign: ["bo"], actor: "ann" },
    { type: "interrupt.escalated", id: "x", assign: ["boss"] },
  ];
  for (const event of handed) {
    const { interrupts } = folding([
      ...running,
      raised("x", 1),
      { type: "interrupt.claimed", id: "x", actor: "ann" },
      { type: "interrupt.snoozed", id: "x", actor: "ann", until: 99_000 },
      event,
    ]);

    expect(interrupts.get("x")?.handling).toMatchObject({ claim: null, snoozedUntil: null });
  }
});

test("an event that two pauses expire into answers what waits for it once", () => {
  const asking = (id: string, dispatch: number, more: object) =>
    ({ type: "interrupt.raised", dispatch, chunk: "a", id, kind: "pause", payload: null, ...more }) as LedgerEvent;
  const once = { maxResumes: 1, resumeCount: 0 };
  const late = { ...once, resumeTo: "next", expiresInMs: 5, onExpire: { event: "Late", payload: 1 } };
  const third = { move: "run" as const, id: 3, node: "n2", chunk: "b" };
  const state = folding([
    created(flow),
    started("in"),
    { type: "inbox.routed", of: 2, moves: [...moves, third] },
    asking("x", 1, late),
    asking("y", 2, late),
    asking("z", 3, { ...once, resumeTo: { event: "Late" } }),
  ]);

  expect(settle(state, 99_000, 0, false)?.events).toEqual([
    { type: "interrupt.expired", id: "x", value: 1 },
    { type: "interrupt.resumed", id: "z", value: 1, byEvent: "Late" },
    { type: "interrupt.expired", id: "y", value: 1 },
  ]);
});

test("what came early is taken by one question, also while an operator's pause lasts", () => {
  const paused: LedgerEvent = { type: "execution.paused", actor: "ann", reason: "rest" };
  const hearing = (id: string, dispatch: number): LedgerEvent => ({
    type: "interrupt.raised",
    dispatch,
    chunk: "a",
    id,
    kind: "pause",
    payload: null,
    maxResumes: 1,
    resumeCount: 0,
    resumeTo: { event: "Paid" },
  });
  const paid: LedgerEvent = { type: "event.emitted", event: "Paid", payload: 1 };
  // As two items of a collection are: what one chain has taken says nothing to the other.
  const apart = moves.map((move) => ({ ...move, scope: `9.${move.id}` }));
  const items: LedgerEvent[] = [created(flow), started("in"), { type: "inbox.routed", of: 2, moves: apart }];
  const taken = (...events: LedgerEvent[]) =>
    settle(folding([...items, ...events]), 0, 2, false)?.events.map((event) => "id" in event && event.id);

  expect(taken(paid, hearing("x", 1), hearing("y", 2))).toEqual(["x"]);
  expect(taken(paid, paid, hearing("x", 1), hearing("y", 2))).toEqual(["x", "y"]);
  expect(taken(paid, paused, hearing("x", 1))).toEqual(["x"]);
});

test("what is cancelled between its answer and its next run is cleaned up where that runs the chunk again", () => {
  const cleaned = defineFlow("f");
  cleaned.to("a", nothing, { onCancel: nothing });
  const runs = (resumeTo: "self" | "next") => {
    const state = folding([
      created(cleaned),
      started("in"),
      { type: "inbox.routed", of: 2, moves: moves.slice(0, 1) },
      { ...raised("x", 1), resumeTo } as LedgerEvent,
      { type: "interrupt.resumed", id: "x", value: 1 },
      { type: "cancel.requested", reason: "enough" },
    ]);
    return decide(state, { type: "cleanUp" }, cleaned.graph);
  };

  expect(runs("self")).toMatchObject([{ type: "cleanup.planned", runs: [{ chunk: "a", interrupt: "x" }] }]);
  expect(runs("next")).toEqual([]);
});

test("what follows on a question comes in the order of its times, however it was written", () => {
  const [hour, day] = [3_600_000, 86_400_000];
  const escalate = [
    { after: "36h", assign: ["board"] },
    { after: "1d", assign: ["boss"] },
  ];
  const where = { interrupt: "x", response: null, expiresInMs: null, publicUrl: null, isHeard: false, where: "x" };

  const { plan = [] } = parseAsking({ due: "2d", remind: ["1h", "4h"], escalate }, where);

  expect(plan.map(({ inMs }) => inMs)).toEqual([day, 36 * hour, 44 * hour, 47 * hour]);
});

test("who gives a question back leaves it put off as it was", () => {
  const by = { id: "x", actor: "ann" };
  const state = folding([
    ...running,
    raised("x", 1),
    { type: "interrupt.snoozed", ...by, until: 99_000 },
    { type: "interrupt.claimed", ...by },
    { type: "interrupt.released", ...by },
  ]);

  expect(state.interrupts.get("x")?.handling).toMatchObject({ claim: null, snoozedUntil: 99_000 });
});
