/** A start names a flow that somebody serves: a name with a typing error would wait for ever, without a word. */
import fc from "fast-check";
import postgres from "postgres";
import { expect, inject, test, vi } from "vitest";
import { nearest } from "../../src/base/option.ts";
import { startOptions } from "../../src/cli/executions.ts";
import { createOrchestrator, defineFlow, UsageError } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { serving, visiting } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { databaseUrl } from "../support/server.ts";

const database = await testDatabase();
const { sql } = database;

const order = defineFlow("served-order");
order.to("pass", () => null);
const other = defineFlow("nobodys-flow");
other.to("pass", () => null);
const near = defineFlow("served-ordre");
near.to("pass", () => null);

const bySql = (flow: string, options = {}) =>
  sql`select flowledger.start(${flow}, '1', ${JSON.stringify(options)}::text::jsonb)`;

test("where no worker has served any flow yet, nothing is compared", async () => {
  const fresh = await testDatabase();
  await using sender = createOrchestrator({ connection: fresh.url });

  await sender.flow(other).startExecution();
  await expect(fresh.sql`select flowledger.start('nobodys-flow', '1')`).resolves.toHaveLength(1);
});

test("a flow that no worker ever served is refused at both doors before anything is written, and the known ones are named", async () => {
  await (await serving(database, [order])).close();
  await using sender = visiting(database);
  const before = await countOf();
  const refused = {
    constructor: UsageError,
    message: expect.stringMatching(
      /named "nobodys-flow" here: known are served-order\. To start it all the same, /,
    ) as string,
  };

  await expect(sender.flow(other).startExecution()).rejects.toMatchObject(refused);
  await expect(sender.flow(other).createExecution()).rejects.toMatchObject(refused);
  await expect(sender.flow(other).startMany([1, 2])).rejects.toMatchObject(refused);
  await expect(Promise.resolve(sender.flow(other).run())).rejects.toMatchObject(refused);
  await expect(sender.flow(near).startExecution()).rejects.toThrow(/did you mean "served-order"\?/);
  await expect(database.sql.begin((tx) => sender.flow(other).startExecution(null, { tx }))).rejects.toMatchObject(
    refused,
  );
  await expect(bySql("nobodys-flow")).rejects.toMatchObject({
    code: "FL008",
    hint: expect.stringContaining("served-order") as string,
  });
  await expect(bySql("served-ordre")).rejects.toMatchObject({
    code: "FL008",
    hint: 'did you mean "served-order"? To start it all the same, pass allowUnknown: true, or --force on the command line',
  });
  expect(await countOf()).toBe(before);
});

test("what the orchestrator has itself is known, and what was served once stays so", async () => {
  await using sender = visiting(database, [other]);
  await using plain = visiting(database);

  const [mine, theirs] = [await sender.flow(other).startExecution(), await plain.flow(order).startExecution()];

  expect(mine.id).not.toBe(theirs.id);
  expect(await bySql("served-order")).toHaveLength(1);
});

test("starts that come at once ask for their flow once, and again after a refusal", async () => {
  await using sender = visiting(database);
  const asked = vi.spyOn((await sender[internals].store()).starts, "requireServed");

  await Promise.all(Array.from({ length: 50 }, () => sender.flow(order).startExecution()));
  await sender.flow(order).startMany([1, 2]);
  expect(asked).toHaveBeenCalledTimes(1);

  for (let attempt = 0; attempt < 2; attempt++)
    await expect(sender.flow(other).startExecution()).rejects.toThrow(UsageError);
  expect(asked).toHaveBeenCalledTimes(3);
});

test("allowUnknown is for a deploy that sends first, and means nothing else", async () => {
  await using sender = visiting(database);

  await sender.flow(near).startExecution(null, { allowUnknown: true });
  await sender.flow(near).startMany([1], { allowUnknown: true });
  await bySql("served-ordre", { allowUnknown: true });
  await expect(bySql("served-ordre", { allowUnknown: false })).rejects.toMatchObject({ code: "FL008" });
  await expect(bySql("served-ordre", { allowUnknown: "yes" })).rejects.toMatchObject({ code: "FL008" });
  await expect(sender.flow(near).startExecution(null, { allowUnknown: 1 as unknown as boolean })).rejects.toThrow(
    /allowUnknown must be true or false/,
  );
});

test("a superuser at psql is warned, and refused where the name is nearly a known one", async ({ skip }) => {
  const notices: { message?: string }[] = [];
  const url = databaseUrl(inject("serverUrl"), new URL(database.url).pathname.slice(1));
  const admin = postgres(url, { max: 1, onnotice: (notice) => void notices.push(notice) });
  const [role] = await admin`select rolsuper from pg_roles where rolname = session_user`;
  if (role?.["rolsuper"] !== true) skip("needs a superuser");

  await admin`select flowledger.start('by-hand', '1')`;
  await expect(admin`select flowledger.start('served-ordre', '1')`).rejects.toMatchObject({ code: "FL008" });
  await admin.end();

  expect(notices).toMatchObject([{ severity: "WARNING", message: expect.stringContaining("by-hand") as string }]);
});

test("SQL and library mean the same name", async () => {
  const name = fc.stringMatching(/^[A-Za-z0-9._:-]{1,9}$/);
  const names = fc.array(name, { maxLength: 6 });
  // Names that are near to each other, or nothing would be found.
  const pair = fc
    .tuple(name, names, name)
    .map(([one, rest, put]) => [one, [...rest, one + put[0], one.slice(1) || "a"]] as const);
  const asked = fc.sample(pair, fuzzRuns(1 / 30).numRuns);

  const rows = await sql<{ meant: string | null }[]>`
    select flowledger.nearest(a ->> 0, array(select jsonb_array_elements_text(a -> 1))) as meant
    from jsonb_array_elements(${JSON.stringify(asked)}::text::jsonb) a`;

  expect(rows.map(({ meant }) => meant ?? undefined)).toEqual(asked.map(([one, known]) => nearest(one, known)));
});

test("the command line knows the options that SQL knows", async () => {
  await expect(bySql("served-order", { nonsense: 1 })).rejects.toMatchObject({
    code: "FL008",
    hint: `use ${startOptions.join(", ")}`,
  });
});

async function countOf(): Promise<unknown> {
  const [row] = await sql`select count(*)::int as n from flowledger.executions`;
  return row?.["n"];
}
