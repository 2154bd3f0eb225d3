/** Somebody changes what keeps the ledger as it is: `verify`, `doctor` and `migrate` say what. */
import { expect, test } from "vitest";
import { createOrchestrator } from "../../src/index.ts";
import { examine } from "../../src/store/doctor.ts";
import { emptyDatabase, testDatabase } from "../support/database.ts";

async function said(url: string, schema: string): Promise<{ verify: string; doctor: string; migrate: string }> {
  await using orchestrator = createOrchestrator({ connection: url, schema });
  const violations = await orchestrator.verify();
  const finding = (await examine(url, schema)).find(({ name }) => name === "definitions");
  const migrated: unknown = await orchestrator.migrate().catch((error: unknown) => error);
  return {
    verify: violations.map(({ invariant, detail }) => `${invariant} ${detail}`).join(),
    doctor: finding?.verdict === "fail" ? finding.detail : "",
    migrate: migrated instanceof Error ? migrated.message : "",
  };
}

test.each([
  [
    "a disabled trigger",
    "alter table flowledger.ledger disable trigger ledger_append_only",
    "ledger_append_only on flowledger.ledger is disabled",
  ],
  [
    "one that a replica would not fire",
    "alter table flowledger.chain enable trigger chain_no_truncate",
    "chain_no_truncate on flowledger.chain is not enabled always",
  ],
  [
    "a dropped trigger",
    "drop trigger ledger_no_truncate on flowledger.ledger",
    "ledger_no_truncate on flowledger.ledger is missing",
  ],
  [
    "a trigger for something else",
    `drop trigger chain_append_only on flowledger.chain; create trigger chain_append_only before update on flowledger.chain
       for each row execute function flowledger.refuse_change(); alter table flowledger.chain enable always trigger chain_append_only`,
    "chain_append_only on flowledger.chain does something else",
  ],
  [
    "a function with another text",
    `create or replace function flowledger.refuse_change() returns trigger language plpgsql set search_path = pg_catalog, pg_temp
       as $$ begin return coalesce(old, new); end $$`,
    "function flowledger.refuse_change has another text",
  ],
  [
    "a function without its search_path",
    "alter function flowledger.start reset search_path",
    "function flowledger.start has another search_path",
  ],
  [
    "a function with the caller's rights",
    "alter function flowledger.seal security invoker",
    "function flowledger.seal runs with other rights",
  ],
  [
    "a dropped function",
    "drop function flowledger.extend_chain(uuid[])",
    "function flowledger.extend_chain is missing",
  ],
  [
    "another trigger before a row is written",
    `create function public.lose() returns trigger language plpgsql as $$ begin return null; end $$;
       create trigger lose before insert on flowledger.ledger for each row execute function public.lose()`,
    "trigger lose on flowledger.ledger is not ours",
  ],
  [
    "a rule that writes elsewhere",
    "create rule lose as on insert to flowledger.chain do instead nothing",
    "rule lose on flowledger.chain is not ours",
  ],
  [
    "a policy that hides rows",
    "alter table flowledger.ledger enable row level security",
    "row level security is on for flowledger.ledger",
  ],
  [
    "a right of everybody to write",
    "grant insert on flowledger.executions to public",
    "everybody may insert flowledger.executions",
  ],
  [
    "a right to change what is append-only",
    "grant update on flowledger.anchors to public",
    "everybody may update flowledger.anchors",
  ],
])("%s is noticed", async (_, change, problem) => {
  await using database = await testDatabase();
  const clean = await said(database.url, "flowledger");

  await database.sql.unsafe(change);

  expect(clean).toEqual({ verify: "", doctor: "", migrate: "" });
  const now = await said(database.url, "flowledger");
  expect(now.verify).toContain(`I25 `);
  for (const words of Object.values(now)) expect(words).toContain(problem);
});

test("a function that everybody may call is noticed, and the next migration takes the right back", async () => {
  await using database = await testDatabase();
  await database.sql`grant execute on all functions in schema flowledger to public`;

  const now = await said(database.url, "flowledger");

  expect(now.verify).toMatch(/everybody may call flowledger\.prune/);
  expect(now.doctor).toMatch(/everybody may call flowledger\./);
  expect(now.migrate).toBe("");
  expect(await said(database.url, "flowledger")).toEqual({ verify: "", doctor: "", migrate: "" });
});

test("under another name of the schema all is as the migration made it, and a change is noticed too", async () => {
  await using database = await emptyDatabase();
  await using orchestrator = createOrchestrator({ connection: database.url, schema: "audit_me" });
  await orchestrator.migrate();
  expect(await orchestrator.verify()).toEqual([]);

  await database.sql`alter table audit_me.ledger disable trigger ledger_append_only`;

  for (const words of Object.values(await said(database.url, "audit_me")))
    expect(words).toContain("ledger_append_only on audit_me.ledger is disabled");
});
