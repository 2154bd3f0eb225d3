/** What an owner does next, and whether it gives its execution back: pure decisions, over every situation that there can be. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DatabaseClock } from "../../src/engine/clock.ts";
import { Commits } from "../../src/engine/commit.ts";
import { Loop } from "../../src/engine/loop.ts";
import { childWaitMs, inMemoryTimerMs, releaseOf } from "../../src/engine/release.ts";
import type { ReleaseFacts, WaitFacts } from "../../src/engine/release.ts";
import { RoundTrips } from "../../src/engine/round-trips.ts";
import { nextTurn } from "../../src/engine/turn.ts";
import type { Next, TurnFacts } from "../../src/engine/turn.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { Settlement } from "../../src/ledger/settle.ts";
import { initialState } from "../../src/ledger/state.ts";
import type { Append, Committed } from "../../src/store/append.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { someWorker } from "../support/ledger.ts";

const closed: Settlement = {
  events: [{ type: "execution.closed", outcome: "completed", reason: "done" }],
  isConditional: true,
};
const expiry: Settlement = { events: [{ type: "interrupt.expired", id: "q" }], isConditional: true };

const told: Settlement = {
  events: [{ type: "event.emitted", event: "told", payload: null }],
  isConditional: false,
};
const empty: Settlement = { events: [], isConditional: false };

/** Every situation that there can be. */
const everyFacts: readonly TurnFacts[] = [...situations()];

function* situations(): Generator<TurnFacts> {
  const flags = 11;
  for (let bits = 0; bits < 2 ** flags; bits++) {
    const is = (place: number) => ((bits >> place) & 1) === 1;
    const hasUnsent = is(0);
    // Both are said of what is not sent.
    if (!hasUnsent && (is(1) || is(2))) continue;
    for (const ending of [null, closed, expiry, told, empty])
      for (const release of [null, { wakeInMs: null }, { wakeInMs: 5000 }])
        for (const running of [0, 1, 3])
          yield {
            hasUnsent,
            isFull: is(1),
            hasUntimed: is(2),
            isPoked: is(3),
            hasArrival: is(4),
            hasWork: is(5),
            hasRecording: is(6),
            isAwaited: is(7),
            isFirst: is(8),
            isClaimDue: is(9),
            hasItemsToStop: is(10),
            ending,
            release,
            running,
          };
  }
}

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
    expect(everyFacts.find((facts) => !law(facts, nextTurn(facts)))).toBeUndefined();
  });

  test("each situation has the first of these that it calls for", () => {
    const seen = new Map<string, number>();
    for (const facts of everyFacts) {
      const wanted = wantedOf(facts);
      expect(nextTurn(facts)).toEqual(wanted);
      seen.set(wanted.do, (seen.get(wanted.do) ?? 0) + 1);
    }
    expect([...seen.keys()].toSorted()).toEqual(
      ["append", "catchUp", "fold", "linger", "record", "route", "stopItems", "wait"].toSorted(),
    );
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
    const breaks = (facts: TurnFacts) => Object.values(laws).some((law) => !law(facts, decide(facts)));

    expect(everyFacts.some(breaks)).toBe(true);
  });
});

/** In the order in which they count. */
function wantedOf(facts: TurnFacts): Next {
  const { hasUnsent, hasRecording, isPoked, hasArrival, hasWork, hasItemsToStop, isFull, hasUntimed } = facts;
  const nothing = { ending: null, release: null };
  const last = facts.ending?.events.at(-1)?.type;
  const waitsForTimes = (last === "execution.closed" && hasUntimed) || (last === "event.emitted" && hasUnsent);
  const ending = waitsForTimes ? null : facts.ending;
  const release = facts.ending ? null : facts.release;
  const isIdle = ending === null && release === null;
  const isClaimAlone = facts.isFirst && !facts.isAwaited && !facts.isClaimDue && facts.running > 0;
  const calls: readonly (readonly [boolean, Next])[] = [
    [isFull, { do: "append", ...nothing }],
    [isPoked, { do: "catchUp" }],
    [hasArrival, { do: "route" }],
    [hasRecording && !hasUnsent, { do: "record" }],
    [hasWork, { do: "fold" }],
    [hasRecording, { do: "append", ...nothing }],
    [facts.ending !== null && hasItemsToStop, { do: "stopItems" }],
    [isIdle && !hasUnsent, { do: "wait" }],
    [isIdle && isClaimAlone, { do: "linger" }],
    [true, { do: "append", ending, release }],
  ];
  return calls.find(([isCalledFor]) => isCalledFor)?.[1] ?? { do: "wait" };
}

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

  test("a parent of items that nothing wakes looks after as long as it has run, from a minute to an hour", () => {
    const fanOut = { isWaiting: true, isFanOut: true, isIdleFanOut: true, waits: [{ kind: "items" as const }] };
    const waitAfter = (ranMs: number) =>
      releaseOf({
        hasShortcuts: true,
        now: ranMs,
        startedAt: 0,
        isDraining: false,
        isCancelling: false,
        hasDue: false,
        nextTimer: null,
        running: [fanOut],
      })?.wakeInMs;

    expect([0, 600_000, 36_000_000].map(waitAfter)).toEqual([60_000, 600_000, 3_600_000]);
  });
});

test("a snapshot is paid for by what was written since the one before", async () => {
  const sent: Append[] = [];
  const written = [70_000, 1, 1, 70_000, 1];
  const commit = async (item: Append): Promise<Committed> => {
    sent.push(item);
    return { verdict: "ok", firstSeq: 1, at: 0, foreign: null, bytes: written[sent.length - 1] ?? 0 };
  };
  const committer = { commit, record: commit, close: () => {} };
  const claim = { id: ExecutionId.parse("01900000-0000-7000-8000-000000000001"), epoch: 1, token: "t", flow: "f" };
  const state = initialState();
  const none = { takeovers: 0, items: 0, bytes: 0, snapshotBytes: 0, fingerprint: null, now: 0, worker: someWorker };
  const commits = new Commits({ ...claim, ...none, state }, committer, new DatabaseClock());

  for (let times = 0; times < written.length; times++) {
    await commits.send({ ending: null, release: null });
    commits.takeSnapshot();
  }

  expect(sent.map(({ snapshot }) => snapshot !== null)).toEqual([false, true, false, false, true]);
});

test("a snapshot that is large is taken anew when as much was written, and not each time", async () => {
  const sent: Append[] = [];
  const commit = async (item: Append): Promise<Committed> => {
    sent.push(item);
    return { verdict: "ok", firstSeq: 1, at: 0, foreign: null, bytes: 70_000 };
  };
  const committer = { commit, record: commit, close: () => {} };
  const claim = { id: ExecutionId.parse("01900000-0000-7000-8000-000000000001"), epoch: 1, token: "t", flow: "f" };
  const state = { ...initialState(), values: { text: "x".repeat(200_000) } };
  const none = { takeovers: 0, items: 0, bytes: 0, snapshotBytes: 0, fingerprint: null, now: 0, worker: someWorker };
  const commits = new Commits({ ...claim, ...none, state }, committer, new DatabaseClock());

  for (let times = 0; times < 6; times++) {
    await commits.send({ ending: null, release: null });
    commits.takeSnapshot();
  }

  expect(sent.map(({ snapshot }) => snapshot !== null)).toEqual([false, true, false, false, true, false]);
});

test("an owner that has taken many steps at once hears what came in before it goes on", async () => {
  const heard: boolean[] = [];
  let steps = 0;
  const loop: Loop = new Loop(
    () => {
      heard.push(loop.isPoked);
      return ++steps < 202;
    },
    async () => {},
  );

  loop.advance();
  expect(heard).not.toContain(true);
  await new Promise(setImmediate);

  expect(heard.slice(-2)).toEqual([true, true]);
});

test("what comes in while an owner reads is read once more", async () => {
  const loop = new Loop(
    () => false,
    async () => {},
  );
  const parts = {
    loop,
    asks: { id: "x" },
    commits: { base: 0, foldForeign: () => {} },
    entries: { isFolding: true },
    engine: { readEvents: async () => (loop.poke(), []) },
  };

  // Of an owner only what is asked here.
  await new RoundTrips(parts as unknown as ConstructorParameters<typeof RoundTrips>[0]).catchUp();

  expect(loop.isPoked).toBe(true);
});
