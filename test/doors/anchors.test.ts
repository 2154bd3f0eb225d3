/** Anchors: one hash over all chains, which tells of whoever rewrites ledgers together with their chains. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Execution, Orchestrator } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";
import { runCli } from "../support/cli.ts";

const flow = defineFlow("anchored");
flow.to("pass", (ctx) => ctx.setState("input", ctx.input));

async function closed(orchestrator: Orchestrator, input: unknown): Promise<Execution> {
  const execution = await orchestrator.flow(flow).startExecution(input, { autoCloseTimeout: 0 });
  await execution.waitForClose();
  return execution;
}

/** As the owner who switches the triggers off: a row is rewritten, and the chain made anew over it. */
async function forge({ sql }: TestDatabase, id: string): Promise<void> {
  await sql.begin(async (tx) => {
    for (const table of ["ledger", "chain"]) await tx.unsafe(`alter table flowledger.${table} disable trigger user`);
    await tx`update flowledger.ledger set payload = jsonb_set(payload, '{input}', '"forged"') where execution_id = ${id} and type = 'execution.started'`;
    await tx`update flowledger.ledger set payload = jsonb_set(payload, '{value}', '"forged"') where execution_id = ${id} and type = 'state.set'`;
    await tx`delete from flowledger.chain where execution_id = ${id}`;
    await tx`select flowledger.extend_chain(array[${id}::uuid])`;
    await tx`update flowledger.executions set close_snapshot = flowledger.close_snapshot(id) where id = ${id}`;
    for (const table of ["ledger", "chain"]) {
      await tx.unsafe(`alter table flowledger.${table} enable always trigger ${table}_append_only`);
      await tx.unsafe(`alter table flowledger.${table} enable always trigger ${table}_no_truncate`);
    }
  });
}

test("a ledger that was rewritten together with its chain is not what the anchor says", async () => {
  await using database = await testDatabase();
  await using orchestrator = await serving(database, [flow]);
  const [first, second] = [await closed(orchestrator, "a"), await closed(orchestrator, "b")];
  const one = await orchestrator.anchor();
  const third = await closed(orchestrator, "c");
  const two = await orchestrator.anchor();
  const three = await orchestrator.anchor();

  expect([one.executions, two.executions, three.executions]).toEqual([2, 1, 0]);
  expect(new Set([one.hash, two.hash, three.hash]).size).toBe(3);
  expect(await orchestrator.verify({ anchors: [one, two, three] })).toEqual([]);

  await forge(database, first.id);

  const found = [expect.objectContaining({ invariant: "I26", executionId: first.id }) as object];
  expect(await orchestrator.verify()).toEqual(found);
  expect(await orchestrator.verify({ id: first.id })).toEqual(found);
  expect(await orchestrator.verify({ id: second.id })).toEqual([]);
  expect(await orchestrator.verify({ id: third.id })).toEqual([]);
});

test("anchors that were made anew over it are not those that were kept", async () => {
  await using database = await testDatabase();
  await using orchestrator = await serving(database, [flow]);
  const { sql } = database;
  const first = await closed(orchestrator, "a");
  const kept = await orchestrator.anchor();

  await expect(sql`delete from flowledger.anchors`).rejects.toMatchObject({ code: "FL010" });
  await expect(sql`truncate flowledger.anchors`).rejects.toMatchObject({ code: "FL010" });
  await forge(database, first.id);
  await sql`alter table flowledger.anchors disable trigger user`;
  await sql`delete from flowledger.anchors`;
  await sql`alter table flowledger.anchors enable always trigger anchors_append_only`;
  await sql`alter table flowledger.anchors enable always trigger anchors_no_truncate`;
  const gone = await orchestrator.verify({ anchors: [kept] });
  const again = await orchestrator.anchor();

  expect(gone).toMatchObject([
    { invariant: "I26", executionId: "-", detail: expect.stringContaining("is gone") as string },
  ]);
  expect(again.number).toBe(kept.number);
  expect(await orchestrator.verify()).toEqual([]);
  expect(await orchestrator.verify({ anchors: [kept] })).toMatchObject([
    { invariant: "I26", detail: expect.stringContaining(kept.hash) as string },
  ]);
});

test("an anchor whose rows or hash were changed is noticed; what was pruned since is none", async () => {
  await using database = await testDatabase();
  await using orchestrator = await serving(database, [flow]);
  const { sql } = database;
  const first = await closed(orchestrator, "a");
  await closed(orchestrator, "b");
  await orchestrator.anchor();
  await orchestrator.prune({ ids: [first.id], actor: "privacy desk", reason: "asked to be forgotten" });
  expect(await orchestrator.verify()).toEqual([]);

  await sql`alter table flowledger.anchors disable trigger user`;
  await sql`delete from flowledger.anchors where execution_id = ${first.id}`;
  await sql`alter table flowledger.anchors enable always trigger anchors_append_only`;
  await sql`alter table flowledger.anchors enable always trigger anchors_no_truncate`;

  expect(await orchestrator.verify()).toMatchObject([{ invariant: "I26", executionId: "-" }]);
});

test("a prune before an anchor says nothing of what is gone since, also where its page went over that", async () => {
  await using database = await testDatabase();
  await using orchestrator = await serving(database, [flow]);
  const { sql } = database;
  await closed(orchestrator, "a");
  const kept = await orchestrator.flow(flow).startExecution("b", { autoCloseTimeout: 0, metadata: { keep: true } });
  await kept.waitForClose();
  await closed(orchestrator, "c");
  const pruned = await sql`
    select executions from flowledger.prune(now() + interval '1 minute', '{"metadata": {"keep": true}}', ${"0".repeat(32)}::uuid, 500)`;
  expect(pruned).toEqual([{ executions: 2 }]);
  await orchestrator.anchor();
  expect(await orchestrator.verify()).toEqual([]);

  await sql.begin(async (tx) => {
    for (const table of ["ledger", "chain"]) await tx.unsafe(`alter table flowledger.${table} disable trigger user`);
    await tx`select flowledger.remove_executions(array[${kept.id}::uuid])`;
  });

  expect(await orchestrator.verify()).toContainEqual(
    expect.objectContaining({ invariant: "I26", executionId: kept.id }),
  );
});

test("the command keeps anchors in a file, and verify compares them", async () => {
  await using database = await testDatabase();
  await using orchestrator = await serving(database, [flow]);
  const folder = await mkdtemp(join(tmpdir(), "flowledger-anchors-"));
  const file = join(folder, "anchors.jsonl");
  const run = (...args: string[]) => runCli(database.url, ...args);
  await closed(orchestrator, "a");

  const made = await run("anchor", "--file", file, "--json");
  const again = await run("anchor", "--file", file, "--json");
  const well = await run("verify", "--anchors", file);
  const lines = (await readFile(file, "utf8")).trim().split("\n");
  await database.sql`alter table flowledger.anchors disable trigger user`;
  await database.sql`delete from flowledger.anchors`;
  const gone = await run("verify", "--anchors", file);
  const wrong = await run("verify", "--anchors", join(import.meta.dirname, "anchors.test.ts"));
  await rm(folder, { recursive: true });

  expect(lines.map((line) => JSON.parse(line) as object)).toEqual(
    [made, again].map(({ stdout }) => JSON.parse(stdout) as object),
  );
  expect(well.code).toBe(0);
  expect(gone.code).toBe(1);
  expect(gone.stdout).toContain("anchor 1, which was kept, is gone");
  expect(wrong.stderr).toMatch(/line 1 of .* is no anchor/);
});
