/** F1, for background functions: the process whose function waits for another one is killed. */
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { configure, getExecution } from "../../src/defer.ts";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";
import { child, waiting } from "./functions.ts";
import { countEvents, expectGuarantees, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
const orchestrator = visiting(database, [], { functions: [child, waiting] });
configure(orchestrator);
afterAll(() => orchestrator.close());

const serve = (...names: string[]) =>
  startProcess(join(import.meta.dirname, "functions.ts"), {
    env: { CRASH_URL: database.url, CRASH_SERVES: names.join(",") },
  });
const childrenOf = (id: string) =>
  sql`select id from flowledger.executions where parent_id = ${id} and outcome is not distinct from 'completed'`;

test.each([
  ["before they run", 10],
  ["after they ended", 20],
])(
  "F1, DF-AWT-01: a killed function attaches to the executions it waited for, %s, and they run once",
  async (when, n) => {
    await using doomed = await serve("waiting");
    const { id } = await waiting(n);
    await until(async () => (await countEvents(sql, id, "child.started")) === 2);
    doomed.kill("SIGKILL");
    await doomed.exited;

    await using first = await serve(when === "before they run" ? "waiting" : "child");
    if (when === "before they run") await first.untilLine(new RegExp(`body waiting ${id}`));
    else await until(async () => (await childrenOf(id)).length === 2);
    await using second = await serve(when === "before they run" ? "child" : "waiting");
    await untilClosed(sql, id);

    expect(await getExecution(id)).toMatchObject({ state: "succeed", result: [n * 2, n * 2 + 2] });
    expect(await childrenOf(id)).toHaveLength(2);
    const bodies = `${first.output()}${second.output()}`.split("\n").filter((line) => line.startsWith("body child"));
    expect(bodies.toSorted()).toEqual([`body child ${n}`, `body child ${n + 1}`]);
    await expectGuarantees(sql);
  },
);
