/** `npm run bench [name…] [--json]`: every promise of speed, measured in one run on one server. */
import { cpus } from "node:os";
import { chatting } from "./chats.ts";
import { bulk } from "./bulk.ts";
import { deferred } from "./defer.ts";
import { flat } from "./flat.ts";
import { floor } from "./floor.ts";
import { kit } from "./kit.ts";
import { latency } from "./latency.ts";
import { limited } from "./limited.ts";
import { lists } from "./lists.ts";
import { load } from "./load.ts";
import { neighbours } from "./neighbours.ts";
import { people } from "./people.ts";
import { rebuild } from "./rebuild.ts";
import { openBench } from "./server.ts";
import type { Bench, Figure } from "./server.ts";
import { spread } from "./spread.ts";
import { start } from "./start.ts";
import { stream } from "./stream.ts";
import { takeover } from "./takeover.ts";
import { telemetry } from "./telemetry.ts";
import { throughput } from "./throughput.ts";
import { waiting } from "./waiting.ts";

/** In the order they run. `throughput` compares with what `floor` found. */
const promises: Record<string, (bench: Bench) => Promise<Figure[]>> = {
  floor,
  latency,
  throughput,
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
};

const asked = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const isJson = process.argv.includes("--json");
const unknown = asked.filter((name) => !Object.hasOwn(promises, name));
if (unknown.length > 0) {
  console.error(`no such benchmark: ${unknown.join(", ")}; there are ${Object.keys(promises).join(", ")}`);
  process.exit(2);
}

await using bench = await openBench();
const began = performance.now();
const figures: Figure[] = [];
if (!isJson) console.log(`${bench.server}, ${cpus().length} CPUs, Node ${process.versions.node}\n`);
for (const [name, measure] of Object.entries(promises)) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  for (const figure of await measure(bench)) {
    figures.push(figure);
    if (!isJson) console.log(line(figure));
  }
}
const command = ["npm run bench", ...(asked.length > 0 ? ["--", ...asked] : [])].join(" ");
if (isJson) console.log(JSON.stringify({ command, server: bench.server, cpus: cpus().length, figures }, null, 2));
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

function format(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}
