/** Every ledger event, folded: what it changes, and that it travels to the database and back. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/flow/builder.ts";
import { decide } from "../../src/ledger/decide.ts";
import { deadlineOf, nextTimer, settle } from "../../src/ledger/settle.ts";
import { decode, encode } from "../../src/ledger/codec.ts";
import { LedgerEvent, LedgerRow } from "../../src/ledger/event.ts";
import type { LedgerEventType } from "../../src/ledger/event.ts";
import { appendPath, deletePath, getPath, setPath } from "../../src/base/path.ts";
import { freezeState, type ExecutionState } from "../../src/ledger/state.ts";
import type { JsonObject } from "../../src/base/json.ts";
import { closeSnapshot } from "../../src/ledger/views.ts";
import { suspectOf } from "../../src/ledger/parking.ts";
import { fitVersion } from "../../src/ledger/version.ts";
import { heldUntil, readyAt } from "../../src/ledger/waits.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { created, fold, folded, given, nothing, recorded, someWorker, started, thawed } from "../support/ledger.ts";

const flow = defineFlow("f");
flow.to("a", nothing).to("b", nothing);

const child = ExecutionId.parse("0190b5a0-0000-7000-8000-000000000001");
const error = { name: "Error", message: "no" };
const place = { dispatch: 1, chunk: "a", ordinal: 0 };
const planned: LedgerEvent = { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "n1", chunk: "a" }] };
const running = [created(flow), started("in"), planned];
const raised: LedgerEvent = {
  type: "interrupt.raised",
  dispatch: 1,
  chunk: "a",
  id: "i1",
  kind: "approval",
  payload: { q: 1 },
  resumeTo: "next",
  maxResumes: 1,
  resumeCount: 0,
  expiresInMs: 500,
};
const asking: LedgerEvent = {
  ...raised,
  assign: ["group:finance"],
  dueInMs: 300,
  plan: [{ inMs: 100 }, { inMs: 200, assign: ["boss"] }],
  tells: true,
};
const intervened: LedgerEvent = {
  type: "intervention.recorded",
  id: "v1",
  payload: "text",
  target: null,
  author: "ann",
  note: null,
  metadata: {},
};

/** Events before, the event, and what is in the state after it. Times are 1000 × seq. */
const cases: {
  [T in LedgerEventType]: [
    LedgerEvent[],
    Extract<LedgerEvent, { type: T }>,
    (state: ExecutionState) => unknown,
    unknown,
  ];
} = {
  "execution.created": [
    [],
    {
      type: "execution.created",
      flow: "f",
      metadata: { tenant: 1 },
      settings: { concurrency: 2 },
      resourceKeys: ["db"],
    },
    ({ flow: name, metadata, settings, resourceKeys, createdAt }) => [
      name,
      metadata,
      settings.concurrency,
      settings.autoClose,
      resourceKeys,
      createdAt,
    ],
    ["f", { tenant: 1 }, 2, true, ["db"], 1000],
  ],
  "execution.started": [
    [created(flow)],
    { type: "execution.started", input: 7 },
    ({ startedAt, inbox }) => [startedAt, inbox],
    [2000, [{ seq: 2, kind: "start", raw: false, value: 7 }]],
  ],
  "execution.rescheduled": [
    [created(flow), started(7)],
    { type: "execution.rescheduled", dueAt: 9000 },
    ({ startedAt, activeAt, dueAt }) => [startedAt, activeAt, dueAt],
    [2000, 3000, 9000],
  ],
  "execution.copied": [
    [
      created(flow, { timeoutMs: 1, discardAt: 500 }),
      ...running.slice(1, 2),
      { type: "execution.claimed", worker: someWorker },
      planned,
      raised,
    ],
    { type: "execution.copied" },
    ({ activeAt, firstClaim, settings, interrupts }) => [
      activeAt,
      firstClaim,
      settings.timeoutMs,
      settings.discardAt,
      [...interrupts.values()].map(({ status, createdAt, expiresAt }) => [status, createdAt, expiresAt]),
    ],
    [6000, null, 1, null, [["pending", 6000, 6500]]],
  ],
  "execution.blocked": [
    running,
    { type: "execution.blocked", fingerprint: "new", problem: "gone" },
    ({ blocked, activeAt }) => [blocked, activeAt],
    [{ epoch: 1, at: 4000, problem: "gone", fingerprints: ["new"] }, 2000],
  ],
  "execution.claimed": [
    [created(flow)],
    { type: "execution.claimed", worker: someWorker, fingerprint: "abc" },
    ({ worker, fingerprint, activeAt }) => [worker, fingerprint, activeAt],
    [someWorker, "abc", 1000],
  ],
  "inbox.routed": [
    [created(flow), started("in")],
    { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "n1", chunk: "a" }] },
    ({ inbox, dispatches }) => [inbox, dispatches.get(1)?.input, dispatches.get(1)?.chunk],
    [[], "in", "a"],
  ],
  "chunk.completed": [
    running,
    {
      type: "chunk.completed",
      dispatch: 1,
      chunk: "a",
      output: "out",
      moves: [{ move: "run", id: 2, node: "n2", chunk: "b" }],
    },
    ({ dispatches }) => [...dispatches.values()].map(({ id, input }) => [id, input]),
    [[2, "out"]],
  ],
  "chunk.failed": [
    running,
    { type: "chunk.failed", dispatch: 1, chunk: "a", attempt: 1, error, retryInMs: 100 },
    ({ dispatches, failing }) => [dispatches.get(1)?.failures, dispatches.get(1)?.notBefore, failing],
    [1, 4100, null],
  ],
  "chunk.parked": [
    running,
    { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 2, error, failInMs: 500 },
    ({ dispatches, parked, failing }) => [dispatches.get(1)?.failures, [...parked], failing],
    [2, [[1, { at: 4000, until: 4500 }]], null],
  ],
  "chunk.retried": [
    [...running, { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 2, error }],
    { type: "chunk.retried", dispatch: 1, chunk: "a", input: 8, actor: "ann", reason: "mended" },
    ({ dispatches, parked }) => [
      dispatches.get(1)?.failures,
      dispatches.get(1)?.input,
      dispatches.get(1)?.lastError,
      parked.size,
    ],
    [0, 8, null, 0],
  ],
  "chunk.skipped": [
    [...running, { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 2, error }],
    { type: "chunk.skipped", dispatch: 1, chunk: "a", output: 9, actor: "ann", reason: "done by hand" },
    ({ dispatches, parked, inbox }) => [dispatches.get(1)?.isSkipped, parked.size, inbox],
    [true, 0, [{ seq: 5, kind: "skip", dispatch: 1, paused: null, value: 9, raw: false }]],
  ],
  "chunk.interrupted": [
    running,
    { type: "chunk.interrupted", dispatch: 1, chunk: "a" },
    ({ dispatches, epoch }) => dispatches.get(1)?.wokenIn === epoch,
    true,
  ],
  "value.routed": [
    [created(flow), started([1]), { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "n1" }] }],
    { type: "value.routed", dispatch: 1, moves: [{ move: "run", id: 2, node: "n2", chunk: "b" }] },
    ({ dispatches }) => [...dispatches.values()].map(({ id, input }) => [id, input]),
    [[2, [1]]],
  ],
  "state.set": [
    running,
    { type: "state.set", ...place, key: "x.y", value: 1 },
    ({ values, dispatches }) => [values, dispatches.get(1)?.journal.length],
    [{ x: { y: 1 } }, 1],
  ],
  "state.appended": [
    running,
    { type: "state.appended", ...place, key: "x", value: 1 },
    ({ values }) => values,
    { x: [1] },
  ],
  "state.deleted": [
    [...running, { type: "state.set", ...place, key: "x", value: 1 }],
    { type: "state.deleted", ...place, ordinal: 1, key: "x" },
    ({ values }) => values,
    {},
  ],
  "state.edited": [
    [...running, { type: "state.set", dispatch: 1, chunk: "a", ordinal: 0, key: "x", value: { y: 1 } }],
    {
      type: "state.edited",
      changes: [
        { op: "set", path: "z.w", value: 2 },
        { op: "delete", path: "x.y", was: 1 },
      ],
      actor: "ann",
      reason: "typo",
    },
    ({ values }) => values,
    { x: {}, z: { w: 2 } },
  ],
  "event.emitted": [
    running,
    { type: "event.emitted", event: "Go", payload: 1, actor: "ann", idempotencyKey: "k" },
    ({ inbox }) => inbox,
    [{ seq: 4, kind: "event", raw: false, event: "Go", value: 1 }],
  ],
  "step.completed": [
    running,
    { type: "step.completed", ...place, name: "s", value: 3 },
    ({ dispatches }) => dispatches.get(1)?.journal,
    [{ ordinal: 0, effect: "step", key: "s", value: 3 }],
  ],
  "step.failed": [
    running,
    { type: "step.failed", ...place, name: "s", attempt: 1, error, retryInMs: 50 },
    ({ dispatches }) => dispatches.get(1)?.journal,
    [{ ordinal: 0, effect: "stepFailed", key: "s", attempt: 1, error, notBefore: 4050 }],
  ],
  "sleep.started": [
    running,
    { type: "sleep.started", ...place, forMs: 10 },
    ({ dispatches }) => dispatches.get(1)?.journal,
    [{ ordinal: 0, effect: "sleep", key: "", until: 4010, value: 10 }],
  ],
  "result.set": [running, { type: "result.set", ...place, value: 9 }, ({ result }) => result, { value: 9 }],
  "stream.stopped": [running, { type: "stream.stopped", ...place }, ({ streamStopped }) => streamStopped, true],
  "child.started": [
    running,
    { type: "child.started", ...place, child, flow: "g" },
    ({ children }) => children.get(child)?.closed,
    null,
  ],
  "child.closed": [
    [...running, { type: "child.started", ...place, child, flow: "g" }],
    { type: "child.closed", child, dispatch: 1, outcome: "completed", value: 5 },
    ({ children }) => children.get(child)?.closed,
    { outcome: "completed", value: 5, error: null },
  ],
  "items.started": [
    running,
    { type: "items.started", dispatch: 1, base: child, size: 2 },
    ({ frames }) => [frames.get(1)?.missing, frames.get(1)?.items?.base],
    [2, child],
  ],
  "items.closed": [
    [...running, { type: "items.started", dispatch: 1, base: child, size: 2 }],
    { type: "items.closed", dispatch: 1, results: [[1, "b"]], wrote: [1] },
    ({ frames }) => [frames.get(1)?.results, frames.get(1)?.missing, frames.get(1)?.items?.wrote],
    [[null, "b"], 1, [1]],
  ],
  "child.abandoned": [
    [...running, { type: "child.started", ...place, child, flow: "g" }],
    { type: "child.abandoned", dispatch: place.dispatch, child },
    ({ children }) => children.get(child)?.isAbandoned,
    true,
  ],
  "child.cancelled": [
    [...running, { type: "child.started", ...place, child, flow: "g" }],
    { type: "child.cancelled", child, reason: "enough" },
    ({ children }) => children.get(child)?.cancelledAt,
    5000,
  ],
  "interrupt.raised": [
    running,
    raised as Extract<LedgerEvent, { type: "interrupt.raised" }>,
    ({ interrupts, dispatches }) => [interrupts.get("i1")?.status, interrupts.get("i1")?.expiresAt, dispatches.size],
    ["pending", 4500, 0],
  ],
  "interrupt.resumed": [
    [...running, raised],
    { type: "interrupt.resumed", id: "i1", value: "yes", requestId: "r", actor: "ann" },
    ({ interrupts, inbox }) => [interrupts.get("i1")?.status, interrupts.get("i1")?.actor, inbox.length],
    ["resumed", "ann", 1],
  ],
  "interrupt.answered": [
    running,
    { type: "interrupt.answered", id: "i1", value: "yes", requestId: "r", actor: "ann" },
    ({ early }) => early,
    [{ seq: 4, id: "i1", value: "yes", requestId: "r", actor: "ann" }],
  ],
  "interrupt.refused": [
    [...running, { type: "interrupt.answered", id: "i1", value: "yes" }, raised],
    { type: "interrupt.refused", id: "i1", early: 4, problem: "no" },
    ({ early, interrupts }) => [early, interrupts.get("i1")?.status],
    [[], "pending"],
  ],
  "interrupt.claimed": [
    [...running, raised],
    { type: "interrupt.claimed", id: "i1", exclusive: true, actor: "ann" },
    ({ interrupts }) => interrupts.get("i1")?.handling?.claim,
    { actor: "ann", at: 5000, isExclusive: true },
  ],
  "interrupt.released": [
    [...running, raised, { type: "interrupt.claimed", id: "i1", actor: "ann" }],
    { type: "interrupt.released", id: "i1", actor: "ann" },
    ({ interrupts }) => interrupts.get("i1")?.handling?.claim,
    null,
  ],
  "interrupt.delegated": [
    [...running, asking, { type: "interrupt.claimed", id: "i1", actor: "ann" }],
    { type: "interrupt.delegated", id: "i1", assign: ["user:bo"], actor: "ann" },
    ({ interrupts, notices }) => [
      interrupts.get("i1")?.handling?.assignees,
      interrupts.get("i1")?.handling?.claim,
      notices,
    ],
    [
      ["user:bo"],
      null,
      [
        { kind: "raised", interrupt: "i1" },
        { kind: "delegated", interrupt: "i1" },
      ],
    ],
  ],
  "interrupt.snoozed": [
    [...running, raised],
    { type: "interrupt.snoozed", id: "i1", until: 9000, actor: "ann" },
    ({ interrupts }) => interrupts.get("i1")?.handling?.snoozedUntil,
    9000,
  ],
  "interrupt.reminded": [
    [...running, asking],
    { type: "interrupt.reminded", id: "i1" },
    ({ interrupts }) => interrupts.get("i1")?.handling?.followed,
    1,
  ],
  "interrupt.escalated": [
    [...running, asking, { type: "interrupt.reminded", id: "i1" }],
    { type: "interrupt.escalated", id: "i1", assign: ["boss"] },
    ({ interrupts }) => [interrupts.get("i1")?.handling?.followed, interrupts.get("i1")?.handling?.assignees],
    [2, ["boss"]],
  ],
  "interrupt.linked": [
    [...running, asking],
    { type: "interrupt.linked", id: "i1", hash: "00" },
    ({ interrupts }) => interrupts.get("i1")?.status,
    "pending",
  ],
  "interrupt.expired": [
    [...running, raised],
    { type: "interrupt.expired", id: "i1" },
    ({ interrupts }) => interrupts.get("i1")?.status,
    "expired",
  ],
  "interrupt.cancelled": [
    [...running, raised],
    { type: "interrupt.cancelled", id: "i1", reason: "manual" },
    ({ interrupts }) => [interrupts.get("i1")?.status, interrupts.get("i1")?.resolvedAt],
    ["cancelled", 5000],
  ],
  "intervention.recorded": [
    running,
    intervened as Extract<LedgerEvent, { type: "intervention.recorded" }>,
    ({ interventions }) => interventions.map(({ id, status, version }) => [id, status, version]),
    [["v1", "pending", 1]],
  ],
  "intervention.inserted": [
    [...running, intervened],
    { type: "intervention.inserted", id: "v1", insertion: { mode: "planned" } },
    ({ interventions }) => interventions.map(({ status, insertedAt }) => [status, insertedAt]),
    [["inserted", 5000]],
  ],
  "intervention.consumed": [
    [...running, intervened],
    { type: "intervention.consumed", id: "v1", consumer: "a", status: "applied" },
    ({ interventions }) => interventions[0]?.consumers["a"]?.status,
    "applied",
  ],
  "intervention.expired": [
    [...running, intervened],
    { type: "intervention.expired", id: "v1" },
    ({ interventions }) => interventions[0]?.status,
    "expired",
  ],
  "execution.sealed": [
    running,
    { type: "execution.sealed", close: true, reason: "done", actor: "ann" },
    ({ sealedAt, closing }) => [sealedAt, closing],
    [4000, { reason: "done", at: 4000, cancelsInterrupts: false }],
  ],
  "execution.paused": [
    running,
    { type: "execution.paused", until: 9000, actor: "ann", reason: "maintenance" },
    ({ paused }) => paused,
    { heardUntil: 0, epoch: 1, until: 9000 },
  ],
  "execution.unpaused": [
    [...running, { type: "execution.paused", actor: "ann", reason: "maintenance" }],
    { type: "execution.unpaused", actor: "ann", reason: "done" },
    ({ paused }) => paused,
    null,
  ],
  "execution.redriven": [
    running,
    { type: "execution.redriven", of: child, actor: "ann", reason: "INC-12" },
    ({ seq }) => seq > 0,
    true,
  ],
  "cancel.requested": [
    running,
    { type: "cancel.requested", reason: "stop", actor: "ann" },
    ({ cancelling }) => cancelling,
    { reason: "stop", at: 4000 },
  ],
  "cleanup.planned": [
    [...running, { type: "cancel.requested" }],
    { type: "cleanup.planned", runs: [{ id: 5, chunk: "a", of: 1 }, { id: 6 }] },
    ({ dispatches, cancelling, nextId }) => [
      [...dispatches.values()].map(({ id, chunk, input, cleanup }) => [id, chunk, input, cleanup]),
      cancelling?.isCleaned,
      nextId,
    ],
    [
      [
        [5, "a", "in", true],
        [6, null, null, true],
      ],
      true,
      7,
    ],
  ],
  "cleanup.completed": [
    [...running, { type: "cancel.requested" }, { type: "cleanup.planned", runs: [{ id: 5, chunk: "a", of: 1 }] }],
    { type: "cleanup.completed", dispatch: 5, chunk: "a" },
    ({ dispatches }) => dispatches.size,
    0,
  ],
  "cleanup.failed": [
    [...running, { type: "cancel.requested" }, { type: "cleanup.planned", runs: [{ id: 5 }] }],
    { type: "cleanup.failed", dispatch: 5, chunk: "onCancel", error },
    ({ dispatches, failing }) => [dispatches.size, failing],
    [0, null],
  ],
  "execution.failed": [
    running,
    { type: "execution.failed", error, reason: "timeout" },
    ({ failing }) => failing,
    { reason: "timeout", error },
  ],
  "execution.closed": [
    running,
    { type: "execution.closed", outcome: "failed", reason: "failed", error },
    ({ closed, sealedAt, dispatches }) => [closed, sealedAt, dispatches.size],
    [{ at: 4000, outcome: "failed", reason: "failed", error }, 4000, 0],
  ],
};

test.each(Object.entries(cases))("%s is folded", (_, [before, event, look, expected]) => {
  const state = fold(recorded([...before, event]));

  expect(state.seq).toBe(before.length + 1);
  expect(look(state)).toEqual(expected);
});

test.each(Object.entries(cases))("%s comes back from the database as it went", (_, [, event]) => {
  expect(roundTrip(event)).toEqual(event);
});

test.each(Object.entries(cases))("a state after %s is the same after a snapshot", (_, [before, event]) => {
  const frozen = folded(recorded([...before, event]));

  expect(freezeState(thawed(frozen))).toBe(frozen);
});

test("hostile names and values come back as they went", () => {
  for (const name of hostile) {
    const event: LedgerEvent = {
      type: "event.emitted",
      dispatch: 0,
      chunk: name,
      actor: name,
      event: name,
      payload: { [name]: null },
      ordinal: 0,
    };
    expect(roundTrip(event)).toEqual(event);
  }
});

test("an event of an unknown type is refused, never guessed", () => {
  const row = {
    seq: 1,
    epoch: 1,
    at: 1,
    type: "chunk.exploded",
    dispatch: null,
    chunk: null,
    actor: null,
    payload: null,
  };

  expect(() => decode(row)).toThrow(/Invalid/);
});

test("an event for a dispatch that is not open is refused with its seq", () => {
  expect(() =>
    fold(recorded([created(flow), started(), { type: "chunk.completed", dispatch: 9, chunk: "a", output: 1 }])),
  ).toThrow("ledger event for dispatch 9, which is not open at seq 3");
});

test("a command for a dispatch that is not open is refused", () => {
  expect.hasAssertions();
  given(flow, running)
    .when({ type: "complete", dispatch: 9, output: 1 })
    .thenThrows(/dispatch 9 is not open/);
});

test("a chunk's output goes to the chunk behind it", () => {
  expect.hasAssertions();
  given(flow, running)
    .when({ type: "complete", dispatch: 1, output: "out" })
    .then([
      {
        type: "chunk.completed",
        dispatch: 1,
        chunk: "a",
        output: "out",
        moves: [{ move: "run", id: 2, node: "n2", chunk: "b" }],
      },
    ]);
});

test("a closed execution decides nothing", () => {
  expect.hasAssertions();
  given(flow, [...running, { type: "execution.closed", outcome: "completed", reason: "x" }])
    .when({ type: "complete", dispatch: 1, output: 1 })
    .then([]);
});

test("a state key may be called like anything that objects inherit", () => {
  for (const key of ["constructor", "toString", "hasOwnProperty", "valueOf"]) {
    const state = fold(recorded([...running, { type: "state.appended", ...place, key, value: 1 }]));

    expect(closeSnapshot(state)).toEqual({ [key]: [1] });
  }
});

test("a write through a key that objects inherit stays in the state", () => {
  const values: JsonObject = {};

  setPath(values, "constructor.name", 1);
  setPath(values, "toString.x", 2);

  expect(values).toEqual({ constructor: { name: 1 }, toString: { x: 2 } });
  expect(Object.keys(Reflect.get(Object.prototype, "toString") as object)).toEqual([]);
});

test("dot paths read, write, append and delete; a key that is there as it stands wins", () => {
  const values: JsonObject = { "a.b": 1 };

  setPath(values, "x.y", 1);
  appendPath(values, "x.y", 2);
  appendPath(values, "x.list", 3);
  deletePath(values, "x.missing.deep");

  expect(values).toEqual({ "a.b": 1, x: { y: [1, 2], list: [3] } });
  expect(getPath(values, "a.b")).toBe(1);
  expect(getPath(values, "x.y.0")).toBeUndefined();
});

test("what a chunk writes later does not reach into an event that is not sent yet", () => {
  const event: LedgerEvent = { type: "state.set", ...place, key: "x", value: { list: [1] } };
  const state = fold(recorded([...running, event]));

  fold(recorded([{ type: "state.appended", ...place, ordinal: 1, key: "x.list", value: 2 }], 5), state);

  expect(event).toEqual({ type: "state.set", ...place, key: "x", value: { list: [1] } });
});

test("the state key that a chunk appends to is heard with its whole list", () => {
  const state = fold(
    recorded([
      ...running,
      { type: "state.set", ...place, key: "x", value: [1] },
      {
        type: "state.appended",
        ...place,
        ordinal: 1,
        key: "x",
        value: 2,
        moves: [{ move: "run", id: 5, node: "n2", chunk: "b" }],
      },
    ]),
  );

  expect(state.dispatches.get(5)?.input).toEqual([1, 2]);
});

const hostile = [
  '"',
  "'",
  "{}",
  "\\",
  "null",
  "NULL",
  "",
  "ünïcödé €",
  "a\nb",
  "a,b",
  "${x}",
  "'; drop table x; --",
  "__proto_",
  "\t",
  " ",
];

function roundTrip(event: LedgerEvent): LedgerEvent {
  const row = { seq: 1, epoch: 1, at: 1, ...encode(LedgerEvent.parse(event)) };
  return decode(LedgerRow.parse(JSON.parse(JSON.stringify(row)))).event;
}

test("what came due before a pause, while no worker was there, goes on after it, and at most once", () => {
  const claim: LedgerEvent = { type: "execution.claimed", worker: someWorker };
  const by = { actor: "ann", reason: "maintenance" };
  const ledger: [number, number, LedgerEvent][] = [
    [0, 1000, created(flow)],
    [0, 1000, started()],
    [1, 1000, claim],
    [1, 1000, { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "a", chunk: "a" }] }],
    [1, 1000, { type: "sleep.started", dispatch: 1, chunk: "a", ordinal: 0, forMs: 1000 }],
    [1, 1000, { type: "sleep.started", dispatch: 1, chunk: "a", ordinal: 1, forMs: 90_000 }],
    [1, 3000, { type: "execution.paused", ...by }],
    [2, 4000, claim],
    [2, 5000, { type: "execution.unpaused", ...by }],
  ];
  const state = fold(ledger.map(([epoch, at, event], index) => ({ seq: index + 1, epoch, at, event })));

  expect([...state.dispatches.values()].map((dispatch) => readyAt(state, dispatch))).toEqual([0]);
  const heard = fold(
    [4, 5].map((epoch, index) => ({ seq: 10 + index, epoch, at: 6000, event: claim })),
    state,
  );
  expect([...heard.dispatches.values()].map((dispatch) => readyAt(heard, dispatch))).toEqual([91_000]);
});

test("what comes in behind a delayed start waits for its time, and nothing before it does", () => {
  const delayed: LedgerEvent = { type: "execution.started", input: 1, dueAt: 60_000 };
  const emitted: LedgerEvent = { type: "event.emitted", event: "A", payload: 1 };
  const held = fold(recorded([created(flow), delayed, emitted]));
  const early = fold(recorded([created(flow), emitted, delayed]));
  const moved = fold(recorded([created(flow), delayed, { type: "execution.rescheduled", dueAt: 90_000 }]));
  const kept = fold(recorded([{ type: "execution.created", flow: "f", dueAt: 70_000 }, started(1)]));

  expect([held, early, moved, kept].map(heldUntil)).toEqual([60_000, null, 90_000, 70_000]);
  expect([held, moved].map((state) => nextTimer(state))).toEqual([60_000, 90_000]);
});

test("the timeout of an execution counts from when its start was due, and in a copy from its next claim", () => {
  const settings = { timeoutMs: 500 };
  const claimed: LedgerEvent = { type: "execution.claimed", worker: someWorker };
  const delayed: LedgerEvent = { type: "execution.started", input: 1, dueAt: 60_000 };

  const unclaimed = fold(recorded([created(flow, settings), started(1)]));
  const early = fold(recorded([created(flow, settings), delayed, claimed]));
  const copied = fold(recorded([created(flow, settings), started(1), claimed, { type: "execution.copied" }]));
  const again = fold(recorded([created(flow, settings), started(1), claimed, { type: "execution.copied" }]));
  fold([{ seq: 5, epoch: 2, at: 9000, event: claimed }], again);

  expect([unclaimed, early, copied, again].map(deadlineOf)).toEqual([null, 60_500, null, 9500]);
});

test("events alone let an execution close when it has been idle; with no idle time they leave time for the start", () => {
  const emitted: LedgerEvent = { type: "event.emitted", event: "A", payload: 1 };
  const routed: LedgerEvent = { type: "inbox.routed", of: 2 };
  const idle = (autoCloseMs: number, events: LedgerEvent[]) =>
    nextTimer(fold(recorded([created(flow, { autoCloseMs }), ...events])));

  expect(idle(700, [])).toBeNull();
  expect(idle(700, [emitted, routed])).toBe(2700);
  expect(idle(0, [emitted, routed])).toBeNull();
});

test("a close that cancels what waits also cancels what asks behind it, and one that does not leaves it waiting", () => {
  const closing = (pendingInterrupts?: "cancel"): ExecutionState =>
    fold(
      recorded([...running, { type: "execution.sealed", close: true, reason: "enough", pendingInterrupts }, raised]),
    );

  expect(settle(closing("cancel"), 0, 0, false)).toEqual({
    events: [{ type: "interrupt.cancelled", id: "i1", reason: "enough" }],
    isConditional: true,
  });
  expect(settle(closing(), 0, 0, false)).toBeNull();
});

test("an older ledger, in which a repeated half took the place of the first, folds as it was meant", () => {
  const half = (move: "arm" | "disarm", value: number): LedgerEvent => ({
    type: "event.emitted",
    event: "A",
    payload: value,
    ...place,
    ordinal: value,
    moves: [move === "arm" ? { move, join: "n2@", event: "A" } : { move, join: "n2@" }],
  });

  const armed = fold(recorded([...running, half("arm", 1), half("arm", 2)]));
  expect([...armed.joins]).toEqual([["n2@", { A: [2] }]]);

  expect(fold(recorded([...running, half("arm", 1), half("disarm", 2)])).joins.size).toBe(0);
});

test("an output that was given in the place of a pause goes on at the chunk of another version, or is blocked with it", () => {
  const build = (...chunks: string[]) => {
    const changed = defineFlow("f");
    chunks.reduce<{ to: typeof changed.to }>((at, chunk) => at.to(chunk, nothing), changed);
    return changed.graph;
  };
  const events: LedgerEvent[] = [
    ...running,
    raised,
    { type: "chunk.skipped", dispatch: 1, chunk: "a", interrupt: "i1", output: 9, actor: "ann", reason: "by hand" },
    { type: "interrupt.cancelled", id: "i1", reason: "by hand", actor: "ann" },
  ];
  const state = fold(recorded(events));
  const moved = { nodes: { n1: "n2" } };

  expect(fitVersion(state, flow.graph.nodes, build("first", "a", "b"))).toEqual(moved);
  expect(fitVersion(state, flow.graph.nodes, build("first", "b"))).toEqual({ problem: 'chunk "a" is gone' });
  fold(recorded([{ type: "execution.claimed", worker: someWorker, ...moved }], state.seq + 1), state);
  expect(state.inbox).toEqual([
    expect.objectContaining({ kind: "skip", paused: expect.objectContaining({ node: "n2" }) }),
  ]);
});

test("what is retried by hand runs now, whatever it waited for; what was paused hears what came meanwhile, once; a retry waits out its time", () => {
  const ready = (events: readonly LedgerEvent[]) => {
    const state = fold(recorded([...running, ...events]));
    const dispatch = state.dispatches.get(1);
    return dispatch && readyAt(state, dispatch);
  };
  const by = { actor: "ann", reason: "why" };
  const sleeping = (ordinal: number, forMs: number): LedgerEvent => ({
    type: "sleep.started",
    ...place,
    ordinal,
    forMs,
  });
  const pause: LedgerEvent = { type: "execution.paused", ...by };
  const goOn: LedgerEvent = { type: "execution.unpaused", ...by };
  const held = [pause, goOn];

  expect(
    ready([
      sleeping(0, 3_600_000),
      { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 1, error },
      { type: "chunk.retried", dispatch: 1, chunk: "a", ...by },
    ]),
  ).toBe(0);
  expect(ready([sleeping(0, 1), sleeping(1, 3_600_000), ...held])).toBe(3_605_000);
  expect(ready([sleeping(0, 1500), ...held])).toBe(0);
  // Paused again meanwhile, by which time workers had come by: that forgets nothing of the first pause.
  const claimed: LedgerEvent = { type: "execution.claimed", worker: someWorker };
  expect(ready([sleeping(0, 4000), sleeping(1, 3_600_000), pause, claimed, claimed, claimed, pause, goOn])).toBe(0);
  // What wakes it does not shorten the wait for its next attempt.
  expect(
    ready([
      { type: "chunk.failed", dispatch: 1, chunk: "a", attempt: 1, error, retryInMs: 60_000 },
      { type: "chunk.interrupted", dispatch: 1, chunk: "a" },
    ]),
  ).toBe(64_000);
});

test("what is parked takes no worker down: the first of the others is suspected", () => {
  const both: LedgerEvent[] = [
    created(flow),
    started("in"),
    {
      type: "inbox.routed",
      of: 2,
      moves: [1, 2].map((id) => ({ move: "run", id, node: `n${id}`, chunk: "ab"[id - 1] })),
    },
  ];
  const parked: LedgerEvent = { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 1, error };
  const suspected = (...more: LedgerEvent[]) => suspectOf(fold(recorded([...both, ...more])))?.chunk;

  expect(suspected()).toBe("a");
  expect(suspected(parked)).toBe("b");
});

test("a close that was asked to cancel and to fail what is left does so, whoever asks again for less", () => {
  const close: LedgerEvent = { type: "execution.sealed", close: true };
  const { closing } = fold(recorded([...running, { ...close, pendingInterrupts: "cancel", parked: "fail" }, close]));

  expect(closing).toMatchObject({ cancelsInterrupts: true, failsParked: true });
});

test("what came due is not forgotten because a version that cannot go on took it in between", () => {
  const sleeps = (ordinal: number, forMs: number): LedgerEvent => ({
    type: "sleep.started",
    ...place,
    ordinal,
    forMs,
  });
  const claimed: LedgerEvent = { type: "execution.claimed", worker: someWorker };
  const blocked: LedgerEvent = { type: "execution.blocked", fingerprint: "x", problem: "gone" };
  // The first is over at 6.5 s, when nobody has it.
  const parked = [...running, claimed, sleeps(0, 1500), sleeps(1, 3_600_000)];
  const readyAfter = (...events: LedgerEvent[]) => {
    const state = fold(recorded([...parked, ...events]));
    const [dispatch] = state.dispatches.values();
    return dispatch && readyAt(state, dispatch);
  };

  expect(readyAfter(claimed)).toBe(6500);
  expect(readyAfter(claimed, blocked, claimed)).toBe(6500);
});

test("an execution is sealed once: a later close leaves that time", () => {
  const seal: LedgerEvent = { type: "execution.sealed" };

  expect(fold(recorded([...running, seal, { ...seal, close: true }])).sealedAt).toBe(4000);
});

test("what is taken back from outside has no answer, whatever an event had answered beside that", () => {
  const { interrupts } = fold(
    recorded([
      ...running,
      raised,
      { type: "interrupt.resumed", id: "i1", value: 7, requestId: "r", byEvent: "E" },
      { type: "interrupt.cancelled", id: "i1", reason: "late", withdrawn: true, actor: "ann" },
    ]),
  );

  expect(interrupts.get("i1")).toMatchObject({ status: "withdrawn", value: null, requestId: null, actor: "ann" });
});

test("what is retried by hand has waited since then, and not since it was planned first", () => {
  const parked: LedgerEvent = { type: "chunk.parked", dispatch: 1, chunk: "a", attempt: 1, error };
  const retried: LedgerEvent = { type: "chunk.retried", dispatch: 1, chunk: "a", actor: "ann", reason: "mended" };

  expect(fold(recorded([...running, parked, retried])).dispatches.get(1)?.plannedAt).toBe(5000);
});

test("a close that lets parked chunks fail parks no other one", () => {
  const parking = defineFlow("parking", {}, { onFailure: "park" });
  parking.to("a", nothing);
  const close: LedgerEvent = { type: "execution.sealed", close: true, parked: "fail" };
  const state = fold(recorded([...running, close]));

  expect(decide(state, { type: "fail", dispatch: 1, error, retryInMs: null }, parking.graph)).toEqual([
    { type: "chunk.failed", dispatch: 1, chunk: "a", attempt: 1, error },
  ]);
});
