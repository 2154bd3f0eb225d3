/** What operators look for among a million executions: every filter beside a flow, a status or a range of times, the inbox, and the console. */
import { createOrchestrator } from "../src/orchestrator.ts";
import type { CountOptions, ListOptions } from "../src/index.ts";
import { day, fillExecutions, fillInbox, from, listRows } from "./lists-fill.ts";
import { indexes, people, screens } from "./lists-around.ts";
import type { Bench, Figure, Found } from "./server.ts";
import { format, type Table } from "./table.ts";

const at = (n: number) => new Date(from + n * day);
/** What is slow only because the machine had something else to do is not slow in each of them. */
const rounds = 3;
/** Of a question beside a flow, a status or a range of times. */
const aimMs = 50;

/** What each is asked beside. */
const places: Record<string, ListOptions> = {
  "a flow that most are of": { flow: "list.0" },
  "a small flow": { flow: "list.40" },
  completed: { status: "completed" },
  failed: { status: "failed" },
  "a flow, failed": { flow: "list.0", status: "failed" },
  "created within a day": { createdAfter: at(14), createdBefore: at(15) },
  "created, all": { createdAfter: at(-1) },
  "closed within a day": { closedAfter: at(14), closedBefore: at(15) },
  "closed, all": { closedAfter: at(-1) },
};

const filters: Record<string, ListOptions> = {
  nothing: {},
  "most versions": { version: "f000" },
  "a rare version": { version: "fe00" },
  "a version that is not there": { version: "0000" },
  created: { createdAfter: at(20), createdBefore: at(21) },
  closed: { closedAfter: at(20), closedBefore: at(21) },
  parent: { parent: "01b00000-0000-7000-8000-000000000007" },
  "id prefix": { idPrefix: "019b" },
  key: { idempotencyKey: "key-1200" },
  "key that is not there": { idempotencyKey: "other" },
  "error of many": { errorLike: "declined" },
  "error of none": { errorLike: "no such text" },
  "metadata of many": { metadata: { tenant: "big" } },
  "metadata of few": { metadata: { tenant: "t77" } },
  "metadata of none": { metadata: { tenant: "none" } },
  redriven: { redriven: true },
  "not redriven": { redriven: false },
};

interface Question {
  readonly filter: string;
  readonly name: string;
  readonly ask: () => Promise<unknown>;
  readonly ms: number[];
}

export async function lists(bench: Bench): Promise<Found> {
  await fillExecutions(bench);
  await using orchestrator = createOrchestrator({ connection: bench.url });
  await orchestrator.listExecutions({ limit: 1 });
  const asked = (filter: string, place: string, options: CountOptions): Question[] => [
    ...(["newest", "oldest", "lastClosed"] as const).map((order) => ({
      filter,
      name: `${place}: ${filter}, ${order}`,
      ask: () => orchestrator.listExecutions({ ...options, order, limit: 100 }),
      ms: [],
    })),
    { filter, name: `${place}: ${filter}, count`, ask: () => orchestrator.countExecutions(options), ms: [] },
  ];
  const beside = Object.entries(places).flatMap(([place, around]) =>
    Object.entries(filters).flatMap(([filter, wanted]) => asked(filter, place, { ...wanted, ...around })),
  );
  const others = Object.entries(filters).flatMap(([filter, wanted]) => asked(filter, "alone", wanted));
  for (let round = 0; round < rounds; round++) {
    for (const question of [...beside, ...(round === 0 ? others : [])]) {
      const began = performance.now();
      // One that takes too long ends with a sentence, and counts as what it took.
      await question.ask().catch(() => {});
      question.ms.push(performance.now() - began);
    }
  }
  const best = ({ ms }: Question) => Math.min(...ms);
  const slow = beside.filter((question) => best(question) > aimMs).toSorted((a, b) => best(b) - best(a));
  if (process.env["LIST_SHOW"])
    for (const question of slow.slice(0, Number(process.env["LIST_SHOW"])))
      console.log(best(question).toFixed(0).padStart(6), question.name);
  const table: Table = {
    title: `lists and counts over ${listRows.toLocaleString("en")} executions, in ms`,
    columns: ["p50", "p95", "slowest", "alone, slowest"],
    rows: Object.keys(filters).map((filter) => {
      const ms = beside.filter((question) => question.filter === filter).flatMap((question) => question.ms);
      const alone = others.filter((question) => question.filter === filter).flatMap((question) => question.ms);
      return {
        name: filter,
        cells: [quantile(ms, 0.5), quantile(ms, 0.95), quantile(ms, 1), quantile(alone, 1)].map(format),
      };
    }),
  };
  const all = beside.flatMap(({ ms }) => ms);
  const figures: Figure[] = [
    {
      name: `lists and counts beside a flow, a status or times, p50`,
      value: quantile(all, 0.5),
      unit: "ms",
    },
    {
      name: `lists and counts beside a flow, a status or times, p95`,
      value: quantile(all, 0.95),
      unit: "ms",
      target: { atMost: aimMs },
      note: `${beside.length} questions, ${rounds} times each; ${slow.length} took longer each time${slow[0] ? `, at most ${best(slow[0]).toFixed(0)} ms: ${slow[0].name}` : ""}`,
    },
    {
      name: "the same filters alone, the slowest",
      value: quantile(
        others.flatMap(({ ms }) => ms),
        1,
      ),
      unit: "ms",
      target: { atMost: 2500 },
      note: "what takes two seconds ends with a sentence",
    },
  ];
  await fillInbox(bench);
  figures.push(...(await people(bench)), ...(await screens(bench)));
  return { tables: [table, await indexes(bench)], figures };
}

function quantile(ms: readonly number[], share: number): number {
  const sorted = ms.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
