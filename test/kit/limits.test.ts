/** Rates on the movable clock: whatever comes when, never more begin than may, and nothing waits longer than it has to. */
import { expect, test } from "vitest";
import fc from "fast-check";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

const minute = 60_000;
/** What a job may come late by: it is never early. */
const lateMs = 1000;
const Keyed = z.object({ key: z.string() });

const anyCase = fc.record({
  rate: fc.option(fc.record({ limit: fc.integer({ min: 1, max: 3 }), per: fc.constantFrom(7, 20) }), { nil: null }),
  keyRate: fc.option(fc.record({ limit: fc.integer({ min: 1, max: 2 }), per: fc.constantFrom(11, 45) }), { nil: null }),
  /** Which key, and how many minutes after the start of the test. */
  coming: fc.array(fc.record({ key: fc.constantFrom("a", "b"), at: fc.integer({ min: 0, max: 60 }) }), {
    minLength: 4,
    maxLength: 14,
  }),
});

test("executions begin as soon as their rates allow, and no sooner, whenever they come", async () => {
  const cases = fc.sample(anyCase, { numRuns: 25, seed: 7 }).map((given, index) => ({
    ...given,
    flow: defineFlow(
      `rates.${index}`,
      { input: Keyed },
      {
        limits: {
          ...(given.rate && { rate: { limit: given.rate.limit, per: `${given.rate.per}m` } }),
          ...(given.keyRate && {
            key: (input: { key: string }) => input.key,
            perKey: { rate: { limit: given.keyRate.limit, per: `${given.keyRate.per}m` } },
          }),
        },
      },
    ).to("work", () => null),
  }));
  await using t = await kit({ flows: cases.map(({ flow }) => flow) });
  const zero = t.clock.now().getTime();
  for (const { flow, coming } of cases)
    for (const { key, at } of coming)
      await t.start(
        flow,
        { key },
        { autoCloseTimeout: 0, startAt: new Date(zero + at * minute), metadata: { key, at: at * minute } },
      );

  await t.clock.advance("15h");

  const wrong: string[] = [];
  for (const { flow, rate, keyRate } of cases) {
    const begun: { key: string; arrived: number; at: number }[] = [];
    for (const { id, metadata } of (await t.orchestrator.listExecutions({ flow: flow.name })).executions) {
      const [claimed] = await (await t.orchestrator.getExecution(id)).history({ types: ["execution.claimed"] });
      const at = claimed ? claimed.at.getTime() - zero : Infinity;
      begun.push({ key: String(metadata["key"]), arrived: Number(metadata["at"]), at });
    }
    begun.sort((a, b) => a.at - b.at);
    for (const [index, { key, arrived, at }] of begun.entries()) {
      const before = begun.slice(0, index);
      const ofKey = before.filter((other) => other.key === key);
      // The window that begins with the last but so many has to be over.
      const earliest = Math.max(
        arrived,
        rate ? (before.at(-rate.limit)?.at ?? -Infinity) + rate.per * minute : -Infinity,
        keyRate ? (ofKey.at(-keyRate.limit)?.at ?? -Infinity) + keyRate.per * minute : -Infinity,
      );
      const what = `${flow.name}, the ${index + 1}th: ${JSON.stringify({ rate, keyRate, begun })}`;
      // Where others came first it waits for the next window.
      const windows = before.flatMap((other) => [
        ...(rate ? [other.at + rate.per * minute] : []),
        ...(keyRate ? [other.at + keyRate.per * minute] : []),
      ]);
      const isPrompt = [arrived, ...windows].some((opened) => at >= opened && at - opened <= lateMs);
      if (at < earliest) wrong.push(`sooner than it may: ${what}`);
      if (!isPrompt) wrong.push(`late: ${what}`);
    }
  }
  expect(wrong).toEqual([]);
});
