/** A database that is not there, not ours, not migrated, newer than the library or a copy: each is refused in so many words. */
import { expect, test } from "vitest";
import { examine } from "../../src/store/doctor.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { copiedDatabase, emptyDatabase, testDatabase } from "../support/database.ts";
import { refusal } from "../support/flows.ts";

const database = await testDatabase();
const loose = defineFlow("loose");
loose.when("Any").to("any", () => 1);

test("a server that is not there is named without its password", async () => {
  await using away = createOrchestrator({ connection: "postgres://ann:secret@127.0.0.1:9/nothing", flows: [loose] });

  const error = await refusal(away.flow(loose).createExecution());

  expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
  expect(String(error)).toContain("127.0.0.1:9");
  expect(String(error)).not.toContain("secret");
});

test("a database that does not exist, and a wrong password, are said in so many words", async () => {
  const [missing, wrong] = [new URL(database.url), new URL(database.url)];
  missing.pathname = "/no_such_database";
  wrong.password = "wrong";
  const errors = [];
  for (const url of [missing, wrong]) {
    await using away = createOrchestrator({ connection: url.href, flows: [loose] });
    errors.push(
      await refusal(away.migrate()),
      await refusal(away.flow(loose).start(1)),
      await refusal(away.startWorker()),
    );
  }

  for (const error of errors) expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
  expect(String(errors[0])).toContain("does not exist");
  expect(String(errors[3])).toContain("was refused");
});

test("a connection string that cannot be read, or none, is refused at once", () => {
  expect(() => createOrchestrator({ connection: "not a url" })).toThrow(
    expect.objectContaining({ code: "CONNECTION_FAILED" }),
  );
});

test("a database that is not migrated is refused by every door, until migrate()", async () => {
  const empty = await emptyDatabase();
  await using fresh = createOrchestrator({ connection: empty.url, flows: [loose] });
  const id = "01a1fc32-0000-7000-8000-00000000dead";

  const errors = [
    await refusal(fresh.flow(loose).start(1)),
    await refusal(fresh.flow(loose).startMany([1])),
    await refusal(fresh.getExecution(id)),
    await refusal(fresh.listExecutions()),
    await refusal(fresh.startWorker()),
    await refusal(fresh.flow(loose).getFlowData("k", { noWarning: true })),
  ];

  for (const error of errors) expect(error).toMatchObject({ code: "NOT_MIGRATED" });
  await fresh.migrate();
  expect((await fresh.flow(loose).createExecution()).flow).toBe("loose");
});

test("what another process has migrated meanwhile is taken at the next use", async () => {
  const { url } = await emptyDatabase();
  await using early = createOrchestrator({ connection: url, flows: [loose] });
  await using deploy = createOrchestrator({ connection: url, flows: [loose] });
  expect(await refusal(early.listExecutions())).toMatchObject({ code: "NOT_MIGRATED" });

  await deploy.migrate();

  expect(await early.listExecutions()).toEqual({ executions: [], nextCursor: null });
});

test("a database that is newer than the library is refused, and left as it is", async () => {
  const newer = await testDatabase();
  await newer.sql`update flowledger.migrations set release = '99.0.0', min_release = '98.0.0' where name = 'functions'`;
  await using old = createOrchestrator({ connection: newer.url, flows: [loose] });

  const errors = [
    await refusal(old.flow(loose).start(1)),
    await refusal(old.migrate()),
    await refusal(old.startWorker()),
  ];

  for (const error of errors) expect(error).toMatchObject({ code: "MIGRATION_FAILED" });
});

test("F29: a copy of a database runs nothing of its original, until its owner accepts it as the original", async () => {
  const copy = await copiedDatabase();
  await using orchestrator = createOrchestrator({ connection: copy.url, flows: [loose] });
  const execution = await orchestrator.flow(loose).startExecution(1, { autoCloseTimeout: 0 });
  const originalOf = async () => (await examine(copy.url)).find(({ name }) => name === "original");

  expect(await refusal(orchestrator.startWorker())).toMatchObject({
    code: "WORKER_FAILED",
    message: expect.stringMatching(/is a copy.*select flowledger\.accept_identity\(\)/),
  });
  expect(await originalOf()).toMatchObject({
    verdict: "fail",
    remedy: expect.stringContaining("flowledger.accept_identity()"),
  });
  expect(await copy.sql`select 1 from flowledger.workers`).toHaveLength(0);

  // Not what a deploy does by the way.
  await orchestrator.migrate();
  expect(await refusal(orchestrator.startWorker())).toMatchObject({ code: "WORKER_FAILED" });

  await copy.sql`select flowledger.accept_identity()`;
  await orchestrator.startWorker();
  expect(await execution.waitForClose()).toEqual({});
  expect(await originalOf()).toMatchObject({ verdict: "ok" });
  expect(await copy.sql`select 1 from flowledger.database_identity`).toHaveLength(2);
});
