/**
 * The ledgers that fixed histories write, to the event: whatever is rebuilt underneath, they stay as they are.
 * `UPDATE_HISTORIES=1 npm test -- test/histories` writes them anew.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { format, resolveConfig } from "prettier";
import { afterAll, expect, test } from "vitest";
import type { Json } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";
import { dumpHistory } from "./dump.ts";
import { histories } from "./flows.ts";
import { silent, Stage } from "./stage.ts";

const isUpdating = process.env["UPDATE_HISTORIES"] === "1";
const fixtureOf = (name: string) => join(import.meta.dirname, `${name}.json`);

const database = await testDatabase();
const scenes = Object.entries(histories).map(([name, history]) => {
  const stage = new Stage(database, name);
  return { name, stage, ...history(stage) };
});
const orchestrator = await serving(
  database,
  scenes.flatMap(({ flows = [] }) => flows),
  { logger: silent },
);

afterAll(() => orchestrator.close());

test.for(scenes)("$name", async ({ name, stage, drive }) => {
  {
    await using _ = stage;
    await drive(orchestrator);
    await stage.rest();
  }
  const dump = await dumpHistory(database.sql, name);

  if (isUpdating) await write(fixtureOf(name), dump);
  expect(existsSync(fixtureOf(name)), `${name}.json is missing: UPDATE_HISTORIES=1 writes it`).toBe(true);
  expect(dump, `"${name}" left another ledger than ${name}.json`).toEqual(
    JSON.parse(readFileSync(fixtureOf(name), "utf8")),
  );
});

test("every fixture belongs to a history", () => {
  const fixtures = readdirSync(import.meta.dirname).filter((file) => file.endsWith(".json"));

  expect(fixtures.toSorted()).toEqual(
    Object.keys(histories)
      .map((name) => `${name}.json`)
      .toSorted(),
  );
});

/** Compact first, so that prettier puts on one line what fits there. */
async function write(path: string, dump: Json): Promise<void> {
  writeFileSync(path, await format(JSON.stringify(dump), { ...(await resolveConfig(path)), filepath: path }));
}
