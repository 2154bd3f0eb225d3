/** The floor: what this server does when every row is a transaction of its own, with ten clients. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import type { Bench, Figure } from "./server.ts";

const clients = 10;
const seconds = 3;

export async function floor(bench: Bench): Promise<Figure[]> {
  await bench.sql`create table if not exists public.floor (id bigserial primary key, payload text)`;
  const alone = await insertFromNode(bench, 1, 1);
  const own = await insertFromNode(bench, clients, seconds);
  const theirs = await insertFromPgbench(bench);
  bench.floor = Math.max(own, theirs ?? 0);
  const figures: Figure[] = [
    {
      name: "floor: one-row insert, 1 connection",
      value: 1000 / alone,
      unit: "ms",
      note: "what one commit costs here",
    },
    { name: "floor: one-row inserts, 10 connections, Node", value: own, unit: "tx/s" },
  ];
  if (theirs !== null)
    figures.push({ name: "floor: one-row inserts, 10 clients, pgbench", value: theirs, unit: "tx/s" });
  return figures;
}

async function insertFromNode(bench: Bench, connections: number, forSeconds: number): Promise<number> {
  const sql = postgres(bench.url, { max: connections });
  const insert = async (until: number) => {
    let count = 0;
    for (; performance.now() < until; count++) await sql`insert into public.floor (payload) values ('one row')`;
    return count;
  };
  const all = (ms: number) => Promise.all(Array.from({ length: connections }, () => insert(performance.now() + ms)));
  await all(500);
  const counts = await all(forSeconds * 1000);
  await sql.end();
  return counts.reduce((sum, count) => sum + count) / forSeconds;
}

/** Null where there is no pgbench. */
async function insertFromPgbench(bench: Bench): Promise<number | null> {
  const folder = await mkdtemp(join(tmpdir(), "flowledger-bench-"));
  const script = join(folder, "insert.sql");
  await writeFile(script, "insert into public.floor (payload) values ('one row');\n");
  try {
    const flags = ["-n", "-M", "prepared", "-f", script, "-c", String(clients), "-j", "2", "-T", String(seconds)];
    const { stdout } = await promisify(execFile)("pgbench", [...flags, bench.url]);
    return Number(/tps = ([\d.]+)/.exec(stdout)?.[1] ?? Number.NaN);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  } finally {
    await rm(folder, { recursive: true });
  }
}
