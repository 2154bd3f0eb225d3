/** What owners wrote in the fixed histories follows again from what stood before it, and its end from all of it. */
import { expect, test } from "vitest";
import { histories } from "../histories/flows.ts";
import { freezeState, pendingInterrupts } from "../../src/ledger/state.ts";
import { closeSnapshot } from "../../src/ledger/views.ts";
import { thawed } from "../support/ledger.ts";
import { plain, readFixture, replay } from "./replay.ts";

const decided = new Set<string>();

/** Its condition waits for what goes on beside it. */
const waiting = "sub-flow";

test.each(Object.keys(histories).filter((name) => name !== waiting))("%s", async (name) => {
  for (const fixture of readFixture(name)) {
    const { state, decided: types } = await replay(fixture);
    for (const type of types) decided.add(type);
    const { header } = fixture;

    expect({
      seq: state.seq,
      outcome: state.closed?.outcome,
      reason: state.closed?.reason,
      snapshot: state.closed ? plain(closeSnapshot(state)) : undefined,
      pending: pendingInterrupts(state).length,
    }).toEqual({
      seq: header["seq"],
      outcome: header["outcome"],
      reason: header["close_reason"],
      snapshot: header["close_snapshot"],
      pending: header["pending_interrupts"],
    });
    expect(freezeState(thawed(freezeState(state)))).toBe(freezeState(state));
  }
});

test("they have every kind of event that an owner writes but those of links and of what cannot be gone on with", () => {
  expect([...decided].toSorted()).toMatchInlineSnapshot(`
    [
      "child.started",
      "chunk.completed",
      "chunk.failed",
      "chunk.parked",
      "cleanup.completed",
      "cleanup.failed",
      "cleanup.planned",
      "event.emitted",
      "execution.claimed",
      "execution.closed",
      "execution.failed",
      "execution.sealed",
      "inbox.routed",
      "interrupt.cancelled",
      "interrupt.expired",
      "interrupt.raised",
      "interrupt.refused",
      "interrupt.resumed",
      "intervention.consumed",
      "intervention.expired",
      "intervention.inserted",
      "items.closed",
      "items.started",
      "result.set",
      "sleep.started",
      "state.appended",
      "state.deleted",
      "state.set",
      "step.completed",
      "step.failed",
      "stream.stopped",
      "value.routed",
    ]
  `);
});
