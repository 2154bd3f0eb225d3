/** A save is input: signed by a key where one is given, and refused by name where it is none of ours. */
import { expect, test } from "vitest";
import { defineFlow, FlowledgerError, UsageError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving } from "../support/flows.ts";

const database = await testDatabase();
const flow = defineFlow("signed");
flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.setState("answer", ctx.input));

const key = "a key of sixteen bytes or more";

test("with a key, a load takes only what was saved with it", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null);
  await untilPending(execution);
  const signed = await execution.save({ key });
  const plain = await execution.save();
  // Whoever has no key can make the digest anew, but not the signature.
  const swapped = { ...plain, signature: (await execution.save({ key: "some other key of theirs" })).signature };

  const copy = await orchestrator.load(JSON.stringify(signed), { key: Buffer.from(key) });
  await copy.continueWith("q", "yes");

  expect(plain).not.toHaveProperty("signature");
  expect(orchestrator.inspectLoad(signed).isReady).toBe(true);
  expect(orchestrator.inspectLoad(signed, { key }).isReady).toBe(true);
  expect(orchestrator.inspectLoad(plain, { key })).toMatchObject({
    status: "invalid_snapshot",
    problems: [expect.stringContaining("is not signed") as string],
  });
  await expect(orchestrator.load(plain, { key })).rejects.toThrow(/is not signed/);
  await expect(orchestrator.load(signed, { key: `${key}!` })).rejects.toThrow(/another key/);
  await expect(orchestrator.load(swapped, { key })).rejects.toThrow(/another key/);
  await expect(orchestrator.load({ ...signed, flow: "other" }, { key })).rejects.toThrow(/digest differs/);
  for (const short of ["", "short", new Uint8Array(15), 7 as unknown as string]) {
    await expect(execution.save({ key: short })).rejects.toThrow(/at least 16 bytes/);
    await expect(orchestrator.load(signed, { key: short })).rejects.toThrow(UsageError);
  }
  await expect(orchestrator.load(signed, { kee: key } as object)).rejects.toThrow(/unknown option "kee"/);
  await execution.cancel();
});

test("what is too deep, has keys that are none, or is no data is refused by name", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null);
  await untilPending(execution);
  const saved = await execution.save();
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;

  for (const wrong of [
    JSON.stringify({ ...saved, state: 0 }).replace('"state":0', `"state":{"a":${deep}}`),
    JSON.stringify({ ...saved, state: 0 }).replace('"state":0', '"state":{"__proto__":{"isAdmin":true}}'),
    { ...saved, state: { now: new Date() } },
    deep,
  ]) {
    await expect(orchestrator.load(wrong)).rejects.toThrow(FlowledgerError);
    expect(orchestrator.inspectLoad(wrong)).toMatchObject({ isReady: false, status: "invalid_snapshot" });
  }
  await execution.cancel();
});
