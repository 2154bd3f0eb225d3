/** F1 for a distributed forEach: items over two worker processes, and one of them is killed in the middle. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import type { TestProcess } from "../support/processes.ts";
import { spread } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

const inOrder = Array.from({ length: 300 }, (_, n) => n);
const idOf = (worker: TestProcess) => worker.readyLine.replace("ready ", "");

/** How often each item was claimed and by whom, and how often its chunk completed. */
function itemsOf(parent: string) {
  return sql<{ n: number; workers: string[]; completions: number; status: string }[]>`
    select (c.payload -> 'item' -> 'index')::int as n, e.status,
      array_agg(l.payload ->> 'worker' order by l.seq) filter (where l.type = 'execution.claimed') as workers,
      (count(*) filter (where l.type = 'chunk.completed'))::int as completions
    from flowledger.executions e
    join flowledger.ledger c on c.execution_id = e.id and c.seq = 1
    join flowledger.ledger l on l.execution_id = e.id
    where e.parent_id = ${parent} group by e.id, c.payload order by n`;
}

const closedItems = async (parent: string) => {
  const [row] = await sql<[{ n: number }]>`
    select count(*)::int as n from flowledger.executions where parent_id = ${parent} and closed_at is not null`;
  return row.n;
};

test.each(["the parent's", "the other"])(
  "F1: kill -9 of %s worker in the middle of 300 distributed items loses none and repeats only what was in flight",
  { timeout: 60_000 },
  async (which) => {
    await using orchestrator = visiting(database, [spread]);
    await using first = await startWorker(database.url);
    await using second = await startWorker(database.url);
    const execution = await orchestrator.flow(spread).startExecution({ ms: 500 }, { autoCloseTimeout: 0 });
    // Both have taken items, and some have ended.
    await Promise.all([first.untilLine(/^item /), second.untilLine(/^item /)]);
    expect(await until(async () => (await closedItems(execution.id)) >= 20)).toBe(true);
    const [header] = await sql<[{ owner: string }]>`select owner from flowledger.executions where id = ${execution.id}`;
    const parents = idOf(first) === header.owner ? first : second;
    const doomed = which === "the parent's" ? parents : parents === first ? second : first;

    const itemsOfDoomed = () => sql<{ n: number }[]>`
      select (c.payload -> 'item' -> 'index')::int as n
      from flowledger.executions e join flowledger.ledger c on c.execution_id = e.id and c.seq = 1
      where e.parent_id = ${execution.id} and e.owner = ${idOf(doomed)}`;
    // It stands still while it is looked at, with something in its hands.
    expect(
      await until(async () => {
        doomed.kill("SIGSTOP");
        if ((await itemsOfDoomed()).length > 0) return true;
        doomed.kill("SIGCONT");
        return false;
      }),
    ).toBe(true);
    const inFlight = await itemsOfDoomed();
    doomed.kill("SIGKILL");
    await doomed.exited;
    const closed = await untilClosed(sql, execution.id, 40_000);

    expect(closed).toMatchObject({ outcome: "completed", close_snapshot: { $final_result: inOrder } });
    const items = await itemsOf(execution.id);
    expect(items.map(({ n }) => n)).toEqual(inOrder);
    expect(items.filter(({ completions, status }) => completions !== 1 || status !== "completed")).toEqual([]);
    const bodies = [first, second].flatMap((worker) => worker.output().match(/^item \d+ /gm) ?? []);
    const ran = Map.groupBy(bodies, (line) => Number(line.split(" ")[1]));
    const repeated = [...ran].filter(([, lines]) => lines.length > 1).map(([n]) => n);
    expect(repeated.filter((n) => !inFlight.some((item) => item.n === n))).toEqual([]);
    expect(ran.size).toBe(300);
    expect(await countEvents(sql, execution.id, "items.started")).toBe(1);
    await expectGuarantees(sql);
  },
);

test("F7: a worker that drains in the middle of its items gives them and their parent back, and no body runs twice to its end", async () => {
  await using orchestrator = visiting(database, [spread]);
  await using draining = await startWorker(database.url);
  const execution = await orchestrator.flow(spread).startExecution({ ms: 100 }, { autoCloseTimeout: 0 });
  expect(await until(async () => (await closedItems(execution.id)) >= 20)).toBe(true);

  draining.kill("SIGTERM");
  expect(await draining.exited).toEqual({ code: 0, signal: null });
  await using _heir = await startWorker(database.url);
  const closed = await untilClosed(sql, execution.id);

  expect(closed).toMatchObject({ outcome: "completed", close_snapshot: { $final_result: inOrder } });
  const items = await itemsOf(execution.id);
  expect(items.filter(({ completions, workers }) => completions !== 1 || workers.length !== 1)).toEqual([]);
  await expectGuarantees(sql);
});
