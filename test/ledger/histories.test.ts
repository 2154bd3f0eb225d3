/** Random histories of random flows: what `evolve` folds, however it is cut and timed. */
import { expect, test } from "vitest";
import type { Recorded } from "../../src/ledger/event.ts";
import { applyCommitTime } from "../../src/ledger/commit-time.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import { freezeState, initialState } from "../../src/ledger/state.ts";
import { fold, folded, thawed } from "../support/ledger.ts";
import { check, expectSame, expectSameJson, play } from "./random.ts";

test("a fold from any snapshot equals the fold from the beginning", () => {
  check(({ flow, choices }) => {
    const { history } = play(flow, choices);
    const whole = folded(history);
    for (let cut = 0; cut <= history.length; cut += Math.max(1, history.length >> 2)) {
      const snapshot = folded(history.slice(0, cut));
      expectSameJson(freezeState(fold(history.slice(cut), thawed(snapshot))), whole);
    }
  });
});

test("the state an owner carries on equals the fold of what it wrote", () => {
  check(({ flow, choices }) => {
    const { history, state } = play(flow, choices);

    expectSameJson(folded(history), freezeState(state));
  });
});

test("a fold does not change the events it folds", () => {
  check(({ flow, choices }) => {
    const { history } = play(flow, choices);
    const before = structuredClone(history);

    fold(history);

    expectSame(history, before);
  });
});

test("evolve at a guessed time, then stamp at the real one, equals evolve at the real one", () => {
  check(({ flow, choices }, guesses) => {
    const { history } = play(flow, choices, { onlyOwn: true });
    for (const { before, batch } of batches(history)) {
      const at = (batch[0]?.at ?? 0) + 5000;
      const base = folded(before);
      const guessed = thawed(base);
      for (const recorded of batch) evolve(guessed, { ...recorded, at: at - (guesses.next().value ?? 0) });
      for (const { event } of batch) applyCommitTime(guessed, event, at);

      const real = fold(
        batch.map((recorded) => ({ ...recorded, at })),
        thawed(base),
      );
      expectSameJson(freezeState(guessed), freezeState(real));
    }
  });
});

test("a history starts from nothing", () => {
  expect(folded([])).toBe(freezeState(initialState()));
});

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
