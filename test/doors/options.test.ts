/** Every option and every argument of every public function, by the exported types: what it takes it means, and all else is refused before anything is written. */
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { configure, defer } from "../../src/defer.ts";
import * as background from "../../src/defer.ts";
import * as main from "../../src/index.ts";
import { createOrchestrator, defineFlow, FlowledgerError } from "../../src/index.ts";
import type { Ctx, Execution, Logger } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { untilEvent } from "../support/flows.ts";
import { judgedPlaces } from "./options/judge.ts";
import { placesOf } from "./options/kinds.ts";
import { surfaceOfTypes } from "./options/surface.ts";
import { chunkRows } from "./options/chunk.ts";
import type { Lab, Row } from "./options/row.ts";
import { allRows, leftOut, rows } from "./options/table.ts";
import { odd } from "./options/values.ts";

/** What says that a value is wrong; others say that there is no such thing, or that it cannot be done now. */
const refusals = ["USAGE_INVALID", "PAYLOAD_UNSTORABLE", "CONTRACT_VIOLATED", "DEFINITION_INVALID"];
/** What does not end in this time waits for something. */
const longMs = 100;
const stuckMs = 8000;

const [database, other] = [await testDatabase(), await testDatabase()];
const quiet: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const ask = defineFlow("matrix", {}, {});
ask.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
const probe = defineFlow("matrix.probe");
probe.to("probe", (ctx) => work(ctx));
probe.when("heard").to("hear", () => null);
const deferred = defer((n: number) => n, { name: "matrix.called" });
/** Nothing is served while the matrix is walked: nobody else writes. */
const orchestrator = createOrchestrator({
  connection: database.url,
  flows: [ask],
  functions: [deferred],
  logger: quiet,
});
configure(orchestrator);
const serving = createOrchestrator({ connection: other.url, flows: [probe], logger: quiet });
afterAll(() => Promise.all([orchestrator.close(), serving.close()]));

let lab: Lab;
beforeAll(async () => {
  // Much that is started here is not served.
  process.removeAllListeners("warning");
  await serving.startWorker({ drainTimeout: "100ms", cancelGrace: "100ms" });
  const calls: string[] = [];
  for (let count = 0; count < 400; count++) calls.push((await deferred(count)).id);
  const bound = orchestrator.flow(ask);
  let [execution, operated]: Execution[] = [];
  {
    await using asking = createOrchestrator({ connection: database.url, flows: [ask], logger: quiet });
    await asking.startWorker({ drainTimeout: "100ms" });
    execution = await bound.startExecution(null, { interventionMode: "auto", autoClose: false });
    operated = await bound.startExecution(null, { autoClose: false });
    await Promise.all([untilPending(execution), untilPending(operated)]);
  }
  const correction = (await execution.intervene({ text: "other prices" })).id;
  const spare = await bound.createExecution({ autoClose: false });
  const bulk = await orchestrator.bulk({ action: "cancel", where: { idPrefix: "00000000" }, actor: "a", reason: "r" });
  const saved = await execution.save();
  const handler = bound.run(null, { delay: "7d" });
  handler.then(null, () => {});
  while (!(await handler.execution.history()).length) await sleep(5);
  lab = {
    flow: ask,
    orchestrator,
    execution,
    operated,
    spare,
    bulk,
    handler,
    correction,
    saved,
    deferred,
    call: () => calls.shift() ?? "",
  };
});

test("every place of the exported types has a row, and every row a place", () => {
  const isLeftOut = (place: string) => Object.keys(leftOut).some((prefix) => place.startsWith(prefix));
  const surface = surfaceOfTypes().filter((place) => !isLeftOut(place));
  const expected = new Set<string>();
  const whole: string[] = [];
  for (const { name, args } of allRows) {
    expected.add(`${name}()`);
    for (const [label, kind] of Object.entries(args))
      for (const place of placesOf(label, kind)) {
        expected.add(`${name}(${place.name})`);
        if (place.kind.isWhole) whole.push(`${name}(${place.name}`);
      }
  }

  expect(surface.filter((place) => !expected.has(place) && !whole.some((one) => place.startsWith(one)))).toEqual([]);
  expect([...expected].filter((place) => !surface.includes(place) && !isLeftOut(place))).toEqual([]);
});

test.each(rows.filter(({ left }) => left === undefined))(
  "$name takes what it says, and refuses all else by name before anything is written",
  async (row) => {
    const flaws = await flawsOf(row);

    expect(flaws).toEqual([]);
  },
);

/** What a chunk of `probe` does; one at a time. */
let work: (ctx: Ctx) => Promise<void> = async () => {};

test.each(chunkRows.filter(({ left }) => left === undefined))(
  "$name takes what it says, and refuses all else by name before anything is written",
  async (row) => {
    const flaws: string[] = [];
    const places = judgedPlaces(row.name, row.args, () => odd);
    const refused = await inChunk(async (within) => {
      for (const { where, wrong } of places)
        for (const { what, args } of wrong) {
          const outcome = await outcomeOf(row, args, within);
          if (!isRefused(outcome)) flaws.push(`${where} with ${what} is not refused: ${inWords(outcome)}`);
        }
    });
    const written = await typesOf(refused);
    const nothing = await typesOf(await inChunk(async () => {}));
    if (written.join() !== nothing.join()) flaws.push(`${row.name} wrote before it refused: ${written.join(" ")}`);
    const right = places.flatMap(({ where, right: all }) => all.map((one) => ({ where, ...one })));
    const tried = async (within: Lab, { where, what, args }: (typeof right)[number]) => {
      const outcome = await outcomeOf(row, args, within);
      if (!isTaken(outcome, row)) flaws.push(`${where} with ${what} is not taken: ${inWords(outcome)}`);
    };
    // What waits is left alone, and ends with its execution.
    if (row.waits) for (const one of right) await (await inChunk((within) => tried(within, one))).cancel();
    else
      await inChunk(async (within) => {
        for (const one of right) await tried(within, one);
      });
    expect(flaws).toEqual([]);
  },
);

/** Runs in a chunk, with one intervention. */
async function inChunk(call: (within: Lab) => Promise<void>): Promise<Execution> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  work = (ctx) => call({ ...lab, ctx }).then(resolve, reject);
  const execution = await serving.flow(probe).createExecution({ interventionMode: "auto", autoClose: false });
  await execution.intervene({ text: "other prices" });
  await execution.start();
  await promise;
  return execution;
}

async function typesOf(execution: Execution): Promise<string[]> {
  await untilEvent(execution, "chunk.completed");
  return (await execution.history()).map(({ type }) => type).toSorted();
}

type Outcome = "ok" | "waits" | FlowledgerError | { readonly raw: unknown };

async function flawsOf(row: Row): Promise<string[]> {
  const flaws: string[] = [];
  const judged = judgedPlaces(row.name, row.args, () => odd);
  const before = await rowsOf();
  for (const { where, wrong } of judged) {
    const outcomes = await Promise.all(wrong.map(({ args }) => outcomeOf(row, args)));
    outcomes.forEach((outcome, at) => {
      if (!isRefused(outcome)) flaws.push(`${where} with ${wrong[at]?.what} is not refused: ${inWords(outcome)}`);
    });
  }
  const after = await rowsOf();
  if (after !== before) flaws.push(`${row.name} wrote before it refused: ${before} → ${after}`);
  for (const { where, right } of row.isOnlyRefused ? [] : judged) {
    const outcomes = await Promise.all(right.map(({ args }) => outcomeOf(row, args)));
    outcomes.forEach((outcome, at) => {
      if (!isTaken(outcome, row)) flaws.push(`${where} with ${right[at]?.what} is not taken: ${inWords(outcome)}`);
    });
  }
  return flaws;
}

/** What an execution is not ready for, whatever the value. */
const notNow = /has no parked chunk|has nothing to skip|is not paused|has gone on since|beyond the end of the stream/;

function isRefused(outcome: Outcome): boolean {
  return (
    outcome instanceof FlowledgerError &&
    !notNow.test(outcome.message) &&
    (refusals.includes(outcome.code) || /NOT_FOUND|NOT_PENDING/.test(outcome.code))
  );
}

/** It may be that there is no such thing, or that it cannot be done now: that is no word against the value. */
function isTaken(outcome: Outcome, row: Row): boolean {
  if (outcome === "ok") return true;
  if (outcome === "waits") return row.waits === true;
  // What Postgres itself stumbles over has not been checked.
  if (!(outcome instanceof FlowledgerError) || outcome.code === "DATABASE_REFUSED") return false;
  return (
    !refusals.includes(outcome.code) ||
    notNow.test(outcome.message) ||
    /has no sub-flow|is taken|was used with another|is not signed/.test(outcome.message)
  );
}

async function outcomeOf(row: Row, args: readonly unknown[], within: Lab = lab): Promise<Outcome> {
  const last = args.findLastIndex((value) => value !== undefined);
  const given = args.slice(0, last + 1);
  try {
    const returned: unknown = row.run ? row.run(given, within) : callOf(row, given, within);
    const { promise, end } = ended(returned);
    const limit = sleep<Outcome>(row.waits ? longMs : stuckMs, "waits", { ref: false });
    const outcome = await Promise.race([promise, limit]);
    await Promise.race([end(), sleep(longMs)]);
    return outcome;
  } catch (error) {
    return error instanceof FlowledgerError ? error : { raw: error };
  }
}

function callOf(row: Row, args: readonly unknown[], within: Lab): unknown {
  const [, own = ""] = row.name.split("/");
  const method = (own || row.name).split(".");
  if (row.of) {
    const target = row.of(within);
    return Reflect.apply(Reflect.get(target, method[1] ?? ""), target, args);
  }
  return Reflect.apply(Reflect.get(own ? background : main, method[0] ?? ""), null, args);
}

/** Resolves when that has come to something: a promise to its value, a stream to its first item. */
function ended(returned: unknown): { promise: Promise<Outcome>; end: () => unknown } {
  const judged = (promise: Promise<unknown>) =>
    promise.then(
      (): Outcome => "ok",
      (error: unknown): Outcome => (error instanceof FlowledgerError ? error : { raw: error }),
    );
  if (typeof returned !== "object" || returned === null) return { promise: Promise.resolve("ok"), end() {} };
  if (returned instanceof main.Flow || returned instanceof Response)
    return { promise: Promise.resolve("ok"), end() {} };
  if (Symbol.asyncIterator in returned && "next" in returned && "return" in returned) {
    const stream = returned as AsyncGenerator;
    return { promise: judged(stream.next()), end: () => stream.return(undefined).catch(() => {}) };
  }
  return { promise: judged((async () => returned)()), end() {} };
}

function inWords(outcome: Outcome): string {
  if (typeof outcome === "string") return outcome;
  return outcome instanceof FlowledgerError
    ? `${outcome.code} ${outcome.message.slice(0, 200)}`
    : `raw ${inspect(outcome.raw).slice(0, 300)}`;
}

async function rowsOf(): Promise<string> {
  const [row] = await database.sql<[{ all: string }]>`
    select concat_ws(' ', (select count(*) from flowledger.executions), (select count(*) from flowledger.ledger),
      (select count(*) from flowledger.flow_data), (select count(*) from flowledger.interventions), (select count(*) from flowledger.prunes)) as all`;
  return row.all;
}
