/** Operators at the shell: what is parked is found, explained, mended, and goes on, with who and why. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { runCli } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const run = (...args: string[]) => runCli(database.url, ...args);

test("a person edits, retries, skips, pauses and closes what is parked from the shell, and the ledger says who", async () => {
  const flow = defineFlow("shell.parked", {}, { onFailure: "park" });
  flow
    .to("work", (ctx) => {
      if (ctx.getState("isMended") !== true) throw new Error("no carrier");
      return "worked";
    })
    .end();
  await using orchestrator = await serving(database, [flow]);
  const start = () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const [retried, skipped] = [await start(), await start()];
  for (const execution of [retried, skipped]) await untilEvent(execution, "chunk.parked");

  const [listed, shown, close, wrong, silent] = await Promise.all([
    run("list", "--status", "parked", "--json"),
    run("show", retried.id),
    run("close", retried.id),
    run("retry", retried.id, "--chunk", "other", "--reason", "mended"),
    run("retry", retried.id),
  ]);
  expect(listed.stdout).toContain(retried.id);
  expect(shown.stdout).toMatch(/parked/);
  expect(close).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/has parked chunks \(work\): `flowledger retry`/),
  });
  expect(wrong).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/no parked chunk "other", and it stands at "work" \(parked\)/),
  });
  expect(silent).toMatchObject({ code: 2, stderr: expect.stringContaining("--reason") });

  expect(await run("pause", retried.id, "--reason", "maintenance")).toMatchObject({ code: 0 });
  expect(
    await run("edit-state", retried.id, "--set", '{"isMended": true}', "--reason", "mended", "--actor", "ann"),
  ).toMatchObject({
    code: 0,
    stdout: "edited isMended\n",
  });
  expect(await run("unpause", retried.id, "--reason", "done")).toMatchObject({ code: 0 });
  expect(await run("retry", retried.id, "--reason", "mended")).toMatchObject({ code: 0, stdout: 'retried "work"\n' });
  expect(await run("skip", skipped.id, "--output", '"by hand"', "--reason", "done by hand")).toMatchObject({ code: 0 });

  expect(await retried.waitForClose()).toEqual({ isMended: true, $final_result: "worked" });
  expect(await skipped.waitForClose()).toEqual({ $final_result: "by hand" });
  expect(await retried.history({ types: ["state.edited", "chunk.retried"] })).toMatchObject([
    { actor: "ann", reason: "mended" },
    { actor: "cli", reason: "mended" },
  ]);
}, 120_000);

test("a person pauses a flow and mends what failed by a bulk from the shell", async () => {
  const state = { isMended: false };
  const flow = defineFlow("shell.bulk", {}, { onFailure: "park" });
  flow.to("work", () => {
    if (!state.isMended) throw new Error("no carrier");
  });
  await using orchestrator = await serving(database, [flow]);
  const start = () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const parked = [await start(), await start()];
  for (const execution of parked) await untilEvent(execution, "chunk.parked");

  expect(await run("pause-flow", "shell.bulk", "--refuse", "--reason", "INC-12", "--actor", "ann")).toMatchObject({
    code: 0,
    stdout: "paused\n",
  });
  expect(await run("pause-flow", "shell.bulk", "--refuse", "--reason", "again")).toMatchObject({
    stdout: "it is paused that way already\n",
  });
  const [refused, unknown, empty] = await Promise.all([
    run("start", "shell.bulk", "null"),
    run("pause-flow", "shell.blk", "--reason", "typo"),
    run("bulk", "retry", "--reason", "all of it"),
  ]);
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/is paused since .+ by "ann" \(INC-12\)/) });
  expect(unknown).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "shell.bulk"?') });
  expect(empty).toMatchObject({ code: 2, stderr: expect.stringContaining("every execution there is") });

  const dry = await run(
    "bulk",
    "retry",
    "--flow",
    "shell.bulk",
    "--error-like",
    "carrier",
    "--dry-run",
    "--reason",
    "r",
  );
  expect(await run("bulk", "retry", "--flow", "shell.bulk", "--limit", "1", "--reason", "r")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("more than 1 executions match"),
  });
  expect(dry.stdout).toMatch(/^2 executions match\n[0-9a-f-]{36} shell\.bulk parked\n/);
  state.isMended = true;
  const args = ["--flow", "shell.bulk", "--rate", "50/1s", "--wait", "--reason", "the service is back", "--json"];
  const asked = await run("bulk", "retry", ...args);
  expect(asked).toMatchObject({ code: 0 });
  const { id, ...report }: { id: string } = JSON.parse(asked.stdout);
  expect(report).toEqual({ matched: 2, done: 2, skipped: 0, failed: 0 });
  expect(await run("bulk-report", id)).toMatchObject({ code: 0, stdout: "2 matched, 2 done, 0 skipped, 0 failed\n" });
  const explained = await run("explain", parked[0]?.id ?? "");
  expect(explained.stdout).toMatch(/flow "shell\.bulk" is paused since .+ by "ann" \(INC-12\)/);
  expect(await run("unpause-flow", "shell.bulk", "--reason", "done")).toMatchObject({ code: 0, stdout: "goes on\n" });
  expect(await run("unpause-flow", "shell.bulk", "--reason", "done")).toMatchObject({ stdout: "it is not paused\n" });
  for (const execution of parked) await execution.waitForClose();
}, 120_000);

test("a person runs a schedule now from the shell, and hears which there are", async () => {
  const flow = defineFlow("shell.scheduled");
  flow.to("work", () => null);
  await using orchestrator = await serving(database, [], { schedules: [{ flow, cron: "0 7 1 1 *", name: "yearly" }] });

  const [ran, silent, wrong] = await Promise.all([
    run("run-schedule", "yearly", "--reason", "INC-12", "--actor", "ann", "--json"),
    run("run-schedule", "yearly"),
    run("run-schedule", "yaerly"),
  ]);

  const { id } = JSON.parse(ran.stdout) as { id: string };
  expect(await (await orchestrator.getExecution(id)).history({ types: ["execution.started"] })).toMatchObject([
    { actor: "ann", reason: "INC-12" },
  ]);
  expect(silent).toMatchObject({ code: 0, stdout: expect.stringMatching(/^started [0-9a-f-]{36}\n$/) });
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "yearly"?') });
});
