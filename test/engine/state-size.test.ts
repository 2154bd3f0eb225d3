/** A state has a limit, said before anything is written; at the limit the execution can be read, edited, cancelled and closed. */
import { expect, test } from "vitest";
import { StateSize, maxStateSize } from "../../src/engine/state-size.ts";
import { defineFlow, StateLimitError } from "../../src/index.ts";
import type { Ctx, JsonObject } from "../../src/index.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const database = await testDatabase();
const large = "x".repeat(1_040_000);

async function fill(ctx: Ctx): Promise<number> {
  for (let n = 0; ; n++)
    try {
      await ctx.setState(`k${n}`, large);
      await ctx.flush();
    } catch (error) {
      if (error instanceof StateLimitError) return n;
      throw error;
    }
}

// It writes and reads 64 MiB several times: with the long runs of the properties.
test.runIf(fuzzRuns().numRuns > 3000)(
  "a chunk that catches it goes on; what is full can be read, edited, copied and closed",
  { timeout: 600_000 },
  async () => {
    const flow = defineFlow("full");
    flow
      .to("fill", (ctx) => fill(ctx as unknown as Ctx))
      .to("make room", async (ctx) => {
        await ctx.delState("k0");
        await ctx.setState("k1", large);
        await ctx.setState("filled", ctx.input);
      });
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    const ended = () => execution.history({ types: ["chunk.completed"] });
    await expect.poll(async () => (await ended()).length, { timeout: 300_000 }).toBe(2);
    expect(await execution.result.getState()).toMatchObject({ filled: 64 });

    const by = { actor: "ann", reason: "room" };
    await execution.editState({ set: { more: large } }, by);
    expect(String(await refusal(execution.editState({ set: { most: large } }, by)))).toMatch(/and 67108864 at most/);
    await execution.editState({ delete: ["k2", "more"] }, by);
    const snapshot = await execution.close();

    expect(Object.keys(snapshot)).toHaveLength(63);
    expect(await verify(database.sql)).toEqual([]);
  },
);

test("a chunk that lets it through fails once, whatever its retry, and the execution is cancelled or closed as any other", async () => {
  const flow = defineFlow("over");
  let runs = 0;
  flow.to(
    "fill",
    async (ctx) => {
      runs++;
      for (let n = 0; ; n++) await ctx.setState(`k${n}`, large);
    },
    { retry: { maxAttempts: 5, initialInterval: "1ms" } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ cause: { name: "StateLimitError", code: "STATE_LIMIT" } });
  expect(String(error)).toContain('with "k64" the state');
  expect(runs).toBe(1);
  expect(await execution.history({ types: ["state.set"] })).toEqual([]);
});

test("what is written again and again counts once", () => {
  const size = new StateSize({ executionId: "e" });
  const values: JsonObject = {};
  const write = (key: string, value: string) => {
    size.grow(key, value, () => values);
    values[key] = value;
  };

  for (let n = 0; n < 200; n++) write("same", large);
  for (let n = 0; n < 63; n++) write(`k${n}`, large);

  expect(() => write("one more", large)).toThrow(StateLimitError);
  delete values["same"];
  write("one more", large);
  expect(JSON.stringify(values).length).toBeLessThanOrEqual(maxStateSize);
});
