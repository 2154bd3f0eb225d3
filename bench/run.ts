/**
 * `npm run bench [name…] [--json]`: every promise of speed, measured in one run on one server. `peers` installs other engines, and runs
 * only when it is named. What goes in rounds takes `--rounds` and `--seconds`, `peers` also `--engines` and `--newest`.
 */
import { cpus } from "node:os";
import { apart } from "./apart.ts";
import { chatting } from "./chats.ts";
import { bulk } from "./bulk.ts";
import { deferred } from "./defer.ts";
import { flat } from "./flat.ts";
import { floor } from "./floor.ts";
import { idle } from "./idle.ts";
import { kit } from "./kit.ts";
import { latency } from "./latency.ts";
import { limited } from "./limited.ts";
import { lists } from "./lists.ts";
import { load } from "./load.ts";
import { neighbours } from "./neighbours.ts";
import { options } from "./options.ts";
import { peers } from "./peers.ts";
import { people } from "./people.ts";
import { rebuild } from "./rebuild.ts";
import { openBench } from "./server.ts";
import type { Bench, Figure, Found, Size } from "./server.ts";
import { spread } from "./spread.ts";
import { start } from "./start.ts";
import { stream } from "./stream.ts";
import { format, print } from "./table.ts";
import type { Table } from "./table.ts";
import { takeover } from "./takeover.ts";
import { telemetry } from "./telemetry.ts";
import { throughput } from "./throughput.ts";
import { waiting } from "./waiting.ts";

/** In the order they run. `throughput` and `peers` compare with what `floor` found. */
const promises: Record<string, (bench: Bench, size: Size) => Promise<Figure[] | Found>> = {
  floor,
  latency,
  throughput,
  apart,
  idle,
  limited,
  flat,
  load,
  waiting,
  people,
  bulk,
  lists,
  rebuild,
  stream,
  chats: chatting,
  spread,
  defer: deferred,
  neighbours,
  takeover,
  telemetry,
  kit,
  start,
  peers,
};

const { asked, isJson, size } = options(process.argv.slice(2), Object.keys(promises));
await using bench = await openBench();
const began = performance.now();
const tables: Table[] = [];
const figures: Figure[] = [];
if (!isJson) console.log(`${bench.server}, ${cpus().length} CPUs, Node ${process.versions.node}\n`);
for (const [name, measure] of Object.entries(promises)) {
  if (asked.length > 0 ? !asked.includes(name) : name === "peers") continue;
  const found = await measure(bench, size);
  const { tables: ofTables, figures: ofFigures } = Array.isArray(found) ? { tables: [], figures: found } : found;
  tables.push(...ofTables);
  figures.push(...ofFigures);
  if (isJson) continue;
  for (const table of ofTables) console.log(`${print(table)}\n`);
  for (const figure of ofFigures) console.log(line(figure));
}
const command = ["npm run bench", ...(process.argv.length > 2 ? ["--", ...process.argv.slice(2)] : [])].join(" ");
if (isJson)
  console.log(JSON.stringify({ command, server: bench.server, cpus: cpus().length, tables, figures }, null, 2));
else console.log(`\n${command}   (${((performance.now() - began) / 1000).toFixed(0)} s)`);

function line({ name, value, unit, target, note }: Figure): string {
  const shown = `${format(value)} ${unit}`;
  return [
    name.padEnd(52),
    shown.padStart(18),
    ...(target ? [verdict(value, target)] : []),
    ...(note ? [note] : []),
  ].join("  ");
}

function verdict(value: number, { atLeast, atMost }: NonNullable<Figure["target"]>): string {
  const isMet = value >= (atLeast ?? -Infinity) && value <= (atMost ?? Infinity);
  const wanted = atLeast === undefined ? `≤ ${format(atMost ?? 0)}` : `≥ ${format(atLeast)}`;
  return `${isMet ? "ok  " : "MISS"} ${wanted}`;
}
