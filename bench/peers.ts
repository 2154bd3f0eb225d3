/**
 * flowledger beside other engines on Postgres, on one server, each in a process of its own with a database of its own, one after the
 * other in each round, in an order that moves on by one each round. Client and worker share the process, as each engine's docs begin.
 */
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { cpuOfServer } from "./cpu.ts";
import { engines } from "./peers/engine.ts";
import type { EngineName, Work } from "./peers/engine.ts";
import { install, versionOf } from "./peers/install.ts";
import { EngineProcess } from "./peers/parent.ts";
import { countStatements, untilLocksCount, walPosition } from "./server.ts";
import type { Bench, Figure, Found, Size } from "./server.ts";
import { Sheet } from "./table.ts";
import type { Row } from "./table.ts";
import { untilEnded } from "./timing.ts";

/** Loads beside 100 in flight are for who is compared there. */
const compared: readonly EngineName[] = ["flowledger", "openworkflow"];
const queues: readonly EngineName[] = ["pgboss", "graphile"];
const titles: Record<EngineName, string> = {
  flowledger: "flowledger",
  dbos: "DBOS",
  openworkflow: "OpenWorkflow",
  absurd: "Absurd",
  pgboss: "pg-boss",
  graphile: "graphile-worker",
};
const chunks = "flowledger, chunks";
/** What runs while nobody looks at the rate: enough for each engine's own recommendation to start with. */
const idleConcurrency = 10;
/** How long a step that was cut off may take to run again, in seconds. */
const patience = 180;

const result: Row = { name: "start → result, idle", unit: "ms", shows: "p50/p95" };
const answer: Row = { name: "answer → result, idle", unit: "ms", shows: "p50/p95" };
const kill: Row = { name: "kill -9 → running again", unit: "s", shows: "median", atMost: patience };

/** The rows of a load. */
function rowsOf(steps: number, inFlight: number) {
  const load = `${steps} ${steps === 1 ? "step" : "steps"}, ${inFlight.toLocaleString("en")} in flight`;
  const row = (name: string, unit: string): Row => ({ name, unit, shows: "median" });
  return {
    rate: row(load, "executions/s"),
    statements: row(`statements per execution, ${load}`, ""),
    wal: row(`WAL per execution, ${load}`, "kB"),
    server: row(`CPU of Postgres per execution, ${load}`, "µs"),
    process: row(`CPU of the process per execution, ${load}`, "µs"),
  };
}

export async function peers(bench: Bench, { rounds, seconds, engines: asked, newest }: Size): Promise<Found> {
  const schema = process.env["ABSURD_SQL"];
  const present = asked ?? engines.filter((engine) => engine !== "absurd" || schema);
  if (present.includes("absurd") && !schema)
    throw new Error("Absurd's schema is not on npm: name its file by ABSURD_SQL");
  if (present.some((engine) => engine !== "flowledger")) await install(newest);
  await using databases = new Databases(bench, schema ? await readFile(schema, "utf8") : "");
  const sheet = new Sheet();

  const urls = new Map<EngineName, string>();
  for (const engine of present) urls.set(engine, await databases.create(engine, "rounds"));
  for (let round = 0; round < rounds; round++) {
    const first = round % present.length;
    for (const engine of [...present.slice(first), ...present.slice(0, first)]) {
      const url = urls.get(engine) ?? "";
      // One in the middle would put full-page images into one figure and not into another. The pages that all touch are behind it
      // before the first load.
      await bench.sql`checkpoint`;
      await idle(sheet, round, engine, url, seconds);
      for (const inFlight of compared.includes(engine) ? [50, 100, 1000] : [100])
        await load(bench, sheet, round, engine, url, inFlight, seconds);
    }
  }
  await untilLocksCount(bench);
  // Most of it is waiting, which disturbs nobody.
  const kills = present.map(async (engine) => {
    for (let n = 0; n < Math.min(rounds, 3); n++) {
      const took = await killed(engine, await databases.create(engine, `kill${n}`));
      sheet.add(kill, titles[engine], n, [took]);
      if (took === Infinity) return;
    }
  });
  await Promise.all(kills);

  const how = `${rounds} rounds; ${seconds} s of each load; of job queues a step is a job`;
  return report(bench, sheet, present, how);
}

async function idle(sheet: Sheet, round: number, engine: EngineName, url: string, seconds: number): Promise<void> {
  await using process = await EngineProcess.open(engine, url, idleConcurrency);
  sheet.add(result, titles[engine], round, await process.sample("result", seconds * 1000));
  if (!queues.includes(engine))
    sheet.add(answer, titles[engine], round, await process.sample("answer", seconds * 1000));
}

async function load(
  bench: Bench,
  sheet: Sheet,
  round: number,
  engine: EngineName,
  url: string,
  inFlight: number,
  seconds: number,
): Promise<void> {
  await using process = await EngineProcess.open(engine, url, inFlight);
  const works: Work[] = [{ steps: 1, style: "steps" }];
  if (!queues.includes(engine)) works.push({ steps: 5, style: "steps" });
  if (engine === "flowledger") works.push(...works.map(({ steps }) => ({ steps, style: "chunks" }) as const));
  for (const work of works) {
    const column = work.style === "chunks" ? chunks : titles[engine];
    const rows = rowsOf(work.steps, inFlight);
    const { rate, statements, wal, cpu, server } = await measure(bench, process, url, work, inFlight, seconds);
    sheet.add(rows.rate, column, round, [rate]);
    sheet.add(rows.statements, column, round, [statements]);
    sheet.add(rows.wal, column, round, [wal / 1000]);
    sheet.add(rows.process, column, round, [cpu * 1000]);
    if (server !== null) sheet.add(rows.server, column, round, [server * 1000]);
  }
}

/** Per second, and what one execution costs. */
async function measure(
  bench: Bench,
  process: EngineProcess,
  url: string,
  work: Work,
  inFlight: number,
  seconds: number,
) {
  await process.do({ ask: "load", work, inFlight });
  const ended = async () => (await process.count()).done;
  // Each place has its turn, also where all is slow.
  await untilEnded(ended, 0, inFlight, Math.min(1, seconds) * 1000);
  const read = async () => ({
    statements: await countStatements(bench, new URL(url).pathname.slice(1)),
    wal: await walPosition(bench),
    server: await cpuOfServer(bench.serverPid()),
    ...(await process.count()),
  });
  const before = await read();
  await untilEnded(ended, before.done, inFlight, seconds * 1000);
  const after = await read();
  await process.do({ ask: "stop" });
  const executions = after.done - before.done;
  return {
    rate: (executions / (after.at - before.at)) * 1000,
    statements: (after.statements - before.statements) / executions,
    wal: (after.wal - before.wal) / executions,
    cpu: (after.cpu - before.cpu) / executions,
    server: before.server === null || after.server === null ? null : (after.server - before.server) / executions,
  };
}

/**
 * Seconds from the SIGKILL of the process whose step runs until that step runs again: in a second worker that stands by, and with DBOS
 * in a process that is started at once, as its docs have it without Conductor. Infinity when that takes longer than our patience.
 */
async function killed(engine: EngineName, url: string): Promise<number> {
  const first = await EngineProcess.open(engine, url, 1);
  const fleet = [first, ...(engine === "dbos" ? [] : [await EngineProcess.open(engine, url, 1)])];
  try {
    await first.do({ ask: "hold" });
    const victim = await Promise.race(fleet.map((process) => process.running.then(() => process)));
    // Signs of life come from time to time.
    await delay(1000);
    const began = performance.now();
    victim.child.kill("SIGKILL");
    let heir = fleet.find((process) => process !== victim);
    if (!heir) fleet.push((heir = new EngineProcess(engine, url, 1)));
    const timeout = AbortSignal.timeout(patience * 1000);
    const isOver = new Promise<"over">((resolve) => timeout.addEventListener("abort", () => resolve("over")));
    return (await Promise.race([heir.running, isOver])) === "over" ? Infinity : (performance.now() - began) / 1000;
  } finally {
    await Promise.all(fleet.map((process) => process.kill()));
  }
}

function report(bench: Bench, sheet: Sheet, present: readonly EngineName[], how: string): Found {
  const ours = present.includes("flowledger") ? [titles.flowledger, chunks] : [];
  const others = present.filter((engine) => engine !== "flowledger").map((engine) => titles[engine]);
  const columns = [...ours, ...others];
  const loads = [100, 50, 1000].flatMap((inFlight) => [rowsOf(1, inFlight), rowsOf(5, inFlight)]);
  const rates = loads.map(({ rate }) => rate);
  const costs = [rowsOf(1, 100), rowsOf(5, 100)].flatMap(({ statements, wal, server, process }) => [
    statements,
    wal,
    server,
    process,
  ]);
  const versions = present.map((engine) => `${titles[engine]} ${versionOf(engine)}`).join(", ");
  const tables = [sheet.table(`${versions}\n${how}`, [...rates, result, answer, ...costs, kill], columns)];
  for (const column of ours) {
    const table = sheet.ratios(`${column}: its ratio to`, [...rates, result, answer], column, others);
    if (table.rows.length > 0) tables.push(table);
  }
  return { tables, figures: aims(bench, sheet) };
}

/** What flowledger is to reach, of what was measured. */
function aims(bench: Bench, sheet: Sheet): Figure[] {
  const { flowledger: steps, openworkflow, dbos } = titles;
  const many = rowsOf(5, 100).rate;
  const atThousand = rowsOf(5, 1000).rate;
  const thousand = sheet.value(atThousand, chunks);
  const wanted: readonly (readonly [name: string, value: number | null, unit: string, target: Figure["target"]])[] = [
    [
      "5 steps, 100 in flight, to OpenWorkflow",
      sheet.ratio(many, steps, { column: openworkflow }),
      "×",
      { atLeast: 12 },
    ],
    [
      "5 chunks, 100 in flight, to OpenWorkflow",
      sheet.ratio(many, chunks, { column: openworkflow }),
      "×",
      { atLeast: 12 },
    ],
    [
      "1 step, 100 in flight, to OpenWorkflow",
      sheet.ratio(rowsOf(1, 100).rate, steps, { column: openworkflow }),
      "×",
      { atLeast: 11 },
    ],
    [
      "5 steps, 50 in flight, to 100 in flight",
      sheet.ratio(rowsOf(5, 50).rate, steps, { row: many, column: steps }),
      "×",
      { atLeast: 0.75 },
    ],
    [
      "5 chunks, 1,000 in flight, to OpenWorkflow",
      sheet.ratio(atThousand, chunks, { column: openworkflow }),
      "×",
      { atLeast: 18 },
    ],
    [
      "5 chunks, 1,000 in flight: commits to the floor",
      bench.floor === null || thousand === null ? null : (thousand * 5) / bench.floor,
      "×",
      { atLeast: 1.8 },
    ],
    ["start → result, idle, to DBOS", sheet.ratio(result, steps, { column: dbos }), "×", { atMost: 0.5 }],
    ["answer → result, idle, to DBOS", sheet.ratio(answer, steps, { column: dbos }), "×", { atMost: 0.5 }],
    ["WAL per execution of 5 chunks, 100 in flight", sheet.value(rowsOf(5, 100).wal, chunks), "kB", { atMost: 5 }],
  ];
  return wanted.flatMap(([name, value, unit, target]) =>
    value === null || !target ? [] : [{ name, value, unit, target }],
  );
}

/** Databases beside the bench's own, dropped at the end. */
class Databases implements AsyncDisposable {
  readonly #bench: Bench;
  readonly #absurd: string;
  readonly #names: string[] = [];

  constructor(bench: Bench, absurd: string) {
    this.#bench = bench;
    this.#absurd = absurd;
  }

  async create(engine: EngineName, purpose: string): Promise<string> {
    const { sql } = this.#bench;
    const url = new URL(this.#bench.url);
    const name = `${url.pathname.slice(1)}_${engine}_${purpose}`;
    await sql`create database ${sql(name)}`;
    this.#names.push(name);
    url.pathname = `/${name}`;
    if (engine === "absurd") {
      const own = postgres(url.href, { max: 1, onnotice: () => {} });
      await own.unsafe(this.#absurd);
      await own.end();
    }
    return url.href;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { sql } = this.#bench;
    for (const name of this.#names) await sql`drop database if exists ${sql(name)} with (force)`;
  }
}
