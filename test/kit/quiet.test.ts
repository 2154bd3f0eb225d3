/** What each test with a kit is asked at its end: is it quiet, twice thirty days long? Here that question is asked about unrest. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { kit } from "../support/kit.ts";
import { quietTwice } from "../support/quiet.ts";

const flow = defineFlow("restless").to("a", (ctx) => ctx.sleep("100d"));

test("what waits for a far time, for an answer or for nothing is quiet", async () => {
  const asking = defineFlow("asking").to("ask", (ctx) => ctx.pauseFor());
  const open = defineFlow("open").to("a", () => 1);
  await using t = await kit({ flows: [flow, asking, open] });
  await t.start(flow, null);
  await t.start(asking, null);
  await t.start(open, null, { autoClose: false });

  expect(await quietTwice(t)).toEqual([]);
});

test.each([{ discardAfter: "2h" }, { delay: "1h", discardAfter: "2h" }])(
  "what a worker took within its discardAfter is quiet: %j",
  async (options) => {
    const done = defineFlow("taken").to("a", () => 1);
    const open = defineFlow("taken.open").to("ask", (ctx) => ctx.pauseFor());
    await using t = await kit({ flows: [done, open] });
    await t.start(done, null, options);
    await t.start(open, null, options);
    await t.clock.advance("61m");

    expect(await quietTwice(t)).toEqual([]);
  },
);

test("one row that is written once, in the second look, is unrest", async () => {
  await using t = await kit({ flows: [flow] });
  const { timers } = t.orchestrator[internals];
  const run = await t.start(flow, null);
  const pause = new Promise<void>((resolve) => {
    // A timer without a name is not said to be due.
    timers.after(45 * 86_400_000, () => resolve(run.emit("Unheard", null).then(() => {})));
  });

  const unrest = await quietTwice(t);
  await pause;

  expect(unrest[0]).toBe("in the second thirty quiet days:");
  expect(unrest.join("\n")).toMatch(/^execution .*: restless epoch 1, seq \d+, .* -> restless epoch \d, seq \d+/m);
  expect(unrest.join("\n")).toContain(`event.emitted of ${run.id}`);
});

test("a statement that writes what is there already is unrest, and so is one that locks a row", async () => {
  await using t = await kit({ flows: [flow] });
  const { timers, store } = t.orchestrator[internals];
  const { claims } = await store();
  const run = await t.start(flow, null);
  const woken = new Promise<void>((resolve) => {
    timers.after(10 * 86_400_000, () => resolve(claims.wake([run.id])));
  });

  const unrest = await quietTwice(t);
  await woken;

  expect(unrest[0]).toBe("in the first thirty quiet days:");
});

test("what is due again and again never comes to rest", async () => {
  const loop = defineFlow("loop").to("a", async (ctx) => {
    for (;;) await ctx.sleep("1h");
  });
  await using t = await kit({ flows: [loop] });
  const run = await t.start(loop, null);

  expect(await quietTwice(t, 5)).toEqual([
    expect.stringMatching(/^it never comes to rest: sleep of chunk "a" of loop is due at /),
  ]);
  await run.cancel();
});
