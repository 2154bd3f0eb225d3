/** Mocks: other handlers in the same flow. */
import { expect, test } from "vitest";
import { z } from "zod";
import { ContractError, DefinitionError, defineFlow } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

const charge = defineFlow("charge", { input: z.number() });
charge
  .to(
    "bank",
    async (): Promise<{ id: string }> => {
      throw new Error("no bank in a test");
    },
    { output: z.object({ id: z.string() }), retry: { maxAttempts: 3, initialInterval: "1m", jitter: false } },
  )
  .to("note", (ctx) => `noted ${ctx.input.id}`)
  .end();

test("a mock runs in the place of the handler; routing, options and the fingerprint are the flow's own", async () => {
  const inputs: unknown[] = [];
  const bank = (ctx: { input: unknown; attempt: number }) => {
    inputs.push(ctx.input);
    if (ctx.attempt === 1) throw new Error("down");
    return { id: "x1" };
  };
  await using t = await kit({ flows: [charge], mocks: { charge: { bank } } });
  const run = await t.start(charge, 900, { autoCloseTimeout: 0 });

  await t.clock.advance("1m");

  expect(await run.until("closed")).toEqual({ $final_result: "noted x1" });
  expect(inputs).toEqual([900, 900]);
  expect((await run.result.getMeta()).fingerprint).toBe(charge.fingerprint);
});

test("what a mock returns is parsed by the chunk's own schema", async () => {
  await using t = await kit({ flows: [charge], mocks: { charge: { bank: () => ({ id: 5 }) } } });
  const run = await t.start(charge, 900);

  await t.clock.advance("10m");

  await expect(run.until("closed")).rejects.toMatchObject({
    message: expect.stringContaining('return of chunk "bank"'),
  });
  expect(ContractError.name).toBe("ContractError");
});

test("a sub-flow is mocked by its own name, and so is a flow that only a schedule knows", async () => {
  const parent = defineFlow("parent", { input: z.number() });
  parent.toSubFlow(charge);
  const nightly = defineFlow("nightly");
  nightly.to("report", () => Promise.reject(new Error("no mail in a test")));
  const sent: string[] = [];
  await using t = await kit({
    flows: [parent],
    schedules: [{ flow: nightly, cron: "0 0 * * *" }],
    mocks: { charge: { bank: () => ({ id: "y" }) }, nightly: { report: () => void sent.push("mail") } },
  });
  const run = await t.start(parent, 7);

  await run.until("closed");
  await t.clock.advance("1d");

  expect(sent).toEqual(["mail"]);
  expect(t.effects("charge/bank")).toBe(1);
});

test.each([
  [
    "a flow",
    { refund: { bank: () => 1 } },
    'flow "refund": a mock is for a flow that is not tested: use one of charge',
  ],
  [
    "a chunk",
    { charge: { banc: () => 1 } },
    'flow "charge": a mock is for chunk "banc", which it has not: use one of bank, note',
  ],
  ["no function", { charge: { bank: 5 } }, 'flow "charge": the mock of chunk "bank" must be a function'],
])("a mock of what there is not is refused: %s", async (_, mocks, said) => {
  const opened = kit({ flows: [charge], mocks: mocks as never });

  await expect(opened).rejects.toThrow(DefinitionError);
  await expect(opened).rejects.toThrow(said);
});

test("an option that there is not is refused", async () => {
  await expect(kit({ flows: [charge], clock: "x" } as never)).rejects.toThrow('unknown option "clock"');
  await expect(kit({ flows: [charge], now: "soon" })).rejects.toThrow('"soon" is not a moment for now');
  await expect(kit({ flows: [charge], workers: -1 })).rejects.toThrow("workers of testOrchestrator()");
});

test("effects are counted once per idempotency key, calls each time", async () => {
  const flow = defineFlow("counts");
  flow.to(
    "work",
    async (ctx) => {
      await ctx.step("pay", () => "paid");
      if (ctx.attempt === 1) throw new Error("once");
      return 1;
    },
    { retry: { maxAttempts: 2, initialInterval: "1m", jitter: false } },
  );
  await using t = await kit({ flows: [flow] });
  await t.start(flow, null);
  await t.start(flow, null);

  await t.clock.advance("1m");

  expect([t.effects("work"), t.calls("work")]).toEqual([2, 4]);
  expect([t.effects("pay"), t.calls("pay")]).toEqual([2, 2]);
  expect([t.effects("counts/work"), t.effects("other/work"), t.effects("nothing")]).toEqual([2, 0, 0]);
});
