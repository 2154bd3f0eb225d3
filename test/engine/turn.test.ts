/** What an owner does next, and whether it gives its execution back: pure decisions, over every situation that there can be. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { childWaitMs, inMemoryTimerMs, releaseOf } from "../../src/engine/release.ts";
import type { ReleaseFacts, WaitFacts } from "../../src/engine/release.ts";
import { nextTurn } from "../../src/engine/turn.ts";
import type { Next, TurnFacts } from "../../src/engine/turn.ts";
import type { Settlement } from "../../src/ledger/decide.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const closed: Settlement = {
  events: [{ type: "execution.closed", outcome: "completed", reason: "done" }],
  isConditional: true,
};
const expiry: Settlement = { events: [{ type: "interrupt.expired", id: "q" }], isConditional: true };

const anyFacts: fc.Arbitrary<TurnFacts> = fc
  .record({
    isPoked: fc.boolean(),
    hasArrival: fc.boolean(),
    hasWork: fc.boolean(),
    hasRecording: fc.boolean(),
    hasUnsent: fc.boolean(),
    isFull: fc.boolean(),
    isAwaited: fc.boolean(),
    isFirst: fc.boolean(),
    isClaimDue: fc.boolean(),
    running: fc.nat(3),
    ending: fc.constantFrom(null, closed, expiry),
    hasItemsToStop: fc.boolean(),
    hasUntimed: fc.boolean(),
    release: fc.constantFrom(null, { wakeInMs: null }, { wakeInMs: 5000 }),
  })
  // Both are said of what is not sent.
  .map((facts) => ({
    ...facts,
    isFull: facts.isFull && facts.hasUnsent,
    hasUntimed: facts.hasUntimed && facts.hasUnsent,
  }));

/** What must hold of a decision, whatever the facts. */
const laws: Record<string, (facts: TurnFacts, next: Next) => boolean> = {
  "what came in from outside is read before anything ends": (facts, next) =>
    !facts.isPoked || next.do !== "append" || (next.ending === null && next.release === null),
  "what came in is routed before anything is given back or closed": (facts, next) =>
    !facts.hasArrival || next.do !== "append" || (next.ending === null && next.release === null),
  "nothing is given back or closed while attempts have ended and are not folded": (facts, next) =>
    !(facts.hasWork || facts.hasRecording) || next.do !== "append" || (next.ending === null && next.release === null),
  "a transaction's record is a commit of its own": (facts, next) => next.do !== "record" || !facts.hasUnsent,
  "what ends is not given back": (_, next) => next.do !== "append" || next.ending === null || next.release === null,
  "items are told before their collection ends": (facts, next) =>
    !facts.hasItemsToStop || next.do !== "append" || next.ending === null,
  "a close follows what it has to tell the time of": (facts, next) =>
    !facts.hasUntimed || next.do !== "append" || next.ending !== closed,
  "nothing waits while something is there to do": (facts, next) =>
    next.do !== "wait" ||
    !(facts.isPoked || facts.hasArrival || facts.hasWork || facts.hasUnsent || facts.ending || facts.release),
  "a claim is held back only alone, and not for ever": (facts, next) =>
    next.do !== "linger" || (facts.isFirst && !facts.isAwaited && !facts.isClaimDue && facts.running > 0),
  "a commit has something to say": (facts, next) =>
    next.do !== "append" || facts.isFull || facts.hasUnsent || next.ending !== null || next.release !== null,
};

describe("nextTurn", () => {
  test.each(Object.entries(laws))("%s", (_, law) => {
    const checked = fc.check(
      fc.property(anyFacts, (facts) => law(facts, nextTurn(facts))),
      fuzzRuns(4),
    );

    expect(checked.counterexample).toBeNull();
  });

  /** Decisions that are wrong in one way each. */
  const wrong: Record<string, (facts: TurnFacts) => Next> = {
    "commits before it has read": (facts) => nextTurn({ ...facts, isPoked: false }),
    "closes over an arrival": (facts) => nextTurn({ ...facts, hasArrival: false }),
    "forgets attempts that have ended": (facts) => nextTurn({ ...facts, hasWork: false }),
    "leaves items behind": (facts) => nextTurn({ ...facts, hasItemsToStop: false }),
    "closes before it knows the time": (facts) => nextTurn({ ...facts, hasUntimed: false }),
    "holds every claim back for ever": (facts) => nextTurn({ ...facts, isClaimDue: false }),
    "gives back what ends": (facts) => {
      const next = nextTurn(facts);
      return next.do === "append" ? { ...next, release: facts.release } : next;
    },
  };

  test.each(Object.entries(wrong))("a decision that %s breaks a law", (_, decide) => {
    const broken = fc.check(
      fc.property(anyFacts, (facts) => Object.values(laws).every((law) => law(facts, decide(facts)))),
      fuzzRuns(40),
    );

    expect(broken.failed).toBe(true);
  });
});

const now = 1_000_000;
const anyWait: fc.Arbitrary<WaitFacts> = fc.oneof(
  fc.record({ kind: fc.constant("time" as const), until: fc.integer({ min: now - 5000, max: now + 5000 }) }),
  fc.record({ kind: fc.constant("group" as const), isOver: fc.boolean() }),
  fc.record({
    kind: fc.constant("child" as const),
    since: fc.option(fc.integer({ min: now - 3000, max: now })),
    isOver: fc.boolean(),
  }),
);
const anyRelease: fc.Arbitrary<ReleaseFacts> = fc.record({
  hasShortcuts: fc.constant(true),
  now: fc.constant(now),
  startedAt: fc.constant(now - 1000),
  isDraining: fc.boolean(),
  isCancelling: fc.boolean(),
  hasDue: fc.boolean(),
  nextTimer: fc.option(fc.integer({ min: now - 10, max: now + 5000 })),
  running: fc.array(
    fc.record({
      isWaiting: fc.boolean(),
      isFanOut: fc.constant(false),
      isIdleFanOut: fc.constant(false),
      waits: fc.array(anyWait, { minLength: 1, maxLength: 3 }),
    }),
    { maxLength: 3 },
  ),
});

describe("releaseOf", () => {
  test.each<[string, (facts: ReleaseFacts) => boolean]>([
    [
      "nothing that does more than wait is cut off",
      (facts) => releaseOf(facts) === null || facts.running.every(({ isWaiting }) => isWaiting),
    ],
    [
      "what is due is not left waiting",
      (facts) => !facts.hasDue || [null, 0].includes(releaseOf(facts)?.wakeInMs ?? null),
    ],
    [
      "it wakes up for the first of all times that anything waits for",
      (facts) => {
        const release = releaseOf(facts);
        if (!release) return true;
        const times = facts.running.flatMap(({ waits }) =>
          waits.flatMap((wait) => (wait.kind === "time" ? wait.until : [])),
        );
        if (facts.nextTimer !== null) times.push(facts.nextTimer);
        const first = Math.min(...times);
        return first === Infinity || (release.wakeInMs !== null && release.wakeInMs <= Math.max(0, first - now));
      },
    ],
    [
      "a near timer stays in memory, unless the worker goes",
      (facts) => {
        const release = releaseOf(facts);
        return release?.wakeInMs == null || facts.isDraining || release.wakeInMs > inMemoryTimerMs;
      },
    ],
    [
      "a child that is not in the database yet is waited for here",
      (facts) =>
        releaseOf(facts) === null ||
        facts.running.every(({ waits }) => waits.every((wait) => wait.kind !== "child" || wait.since !== null)),
    ],
    [
      "what has come already is heard before the execution is given back, or at once after it",
      (facts) => {
        const release = releaseOf(facts);
        const isOver = facts.running.some(({ waits }) => waits.some((wait) => "isOver" in wait && wait.isOver));
        return release === null || !isOver || release.wakeInMs === 0;
      },
    ],
    [
      "a child is waited for here for a moment",
      (facts) =>
        releaseOf(facts) === null ||
        facts.isDraining ||
        facts.running.every(({ waits }) =>
          waits.every((wait) => wait.kind !== "child" || (wait.since ?? now) + childWaitMs <= now),
        ),
    ],
  ])("%s", (_, law) => {
    expect(fc.check(fc.property(anyRelease, law), fuzzRuns(4)).counterexample).toBeNull();
  });
});
