/**
 * The ledgers that fixed histories write, to the event: whatever is rebuilt underneath, they stay as they are.
 * `UPDATE_HISTORIES=1 npm test -- test/histories` writes them anew.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { format, resolveConfig } from "prettier";
import { afterAll, expect, test } from "vitest";
import type { HistoryEntry, Json } from "../../src/index.ts";
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
  await expectReadable(name);

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

/** Whatever an execution has been through, each reader has words for it. */
async function expectReadable(name: string): Promise<void> {
  const rows = await database.sql<{ id: string }[]>`
    select id from flowledger.executions where flow = ${name} or starts_with(flow, ${`${name}.`}) order by id limit 20`;
  for (const { id } of rows) {
    const execution = await orchestrator.getExecution(id);
    const { rows: timeline } = await execution.timeline();
    const explanation = await execution.explain();
    await Promise.all([execution.result.getMeta(), execution.result.getState(), execution.history()]);
    await Promise.all([execution.getPendingInterrupts(), execution.getSubFlowFrames()]);

    expect(explanation.sentence).toMatch(/\.$/);
    const ended = new Set((await execution.history()).flatMap((event) => (endsRun(event) ? [event.dispatch] : [])));
    const shown = timeline.flatMap((row) => (row.endedAt ? [row.dispatch] : []));
    expect(shown, `the timeline of ${id}`).toEqual(expect.arrayContaining([...ended]));
  }
}

/** A run of a chunk has its end there. */
function endsRun(event: HistoryEntry): event is HistoryEntry & { dispatch: number } {
  if (!("dispatch" in event) || !("chunk" in event) || typeof event.chunk !== "string") return false;
  if (event.type === "chunk.failed") return event.retryInMs === undefined;
  return ["chunk.completed", "chunk.skipped", "cleanup.completed", "cleanup.failed"].includes(event.type);
}

/** Compact first, so that prettier puts on one line what fits there. */
async function write(path: string, dump: Json): Promise<void> {
  writeFileSync(path, await format(JSON.stringify(dump), { ...(await resolveConfig(path)), filepath: path }));
}
