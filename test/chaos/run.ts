/** `npm run chaos -- --seconds 60 --seed 1 [--mutant name]`: real processes under real faults, then the checker. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual, parseArgs } from "node:util";
import postgres from "postgres";
import { everything, mostAtOnce, parkedIsIdle, verify } from "../../src/store/verify.ts";
import type { Violation } from "../../src/store/verify.ts";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import type * as Library from "../../src/index.ts";
import { Clients } from "./clients.ts";
import type { Acknowledged } from "./clients.ts";
import { openFleet } from "./fleet.ts";
import type { Reports } from "./fleet.ts";
import { chaosLimit, randomFlows } from "./flows.ts";
import { mutants, plantSource, plantSql } from "./mutants.ts";
import { Nemesis } from "./nemesis.ts";
import type { FaultName } from "./nemesis.ts";
import { checkOperators } from "./operated-check.ts";
import { openService, operatedFlows, operatedNames } from "./operated.ts";
import { Operators, tidy } from "./operators.ts";
import { openProxy } from "./proxy.ts";
import { newRandom } from "./random.ts";

const flowCount = 10;
const workerCount = 3;
/** Faults off: by then everything has settled, or it is lost. */
const settleMs = 45_000;
/** A worker that stands still has ten seconds to come back; one whose loop is blocked beats for five more. */
const givenUpLimitMs = { freeze: 15_000, block: 20_000 };

const quiet: Library.Logger = { debug() {}, info() {}, warn() {}, error() {} };

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: "1" },
    mutant: { type: "string" },
  },
});
const mutant = values.mutant === undefined ? null : mutants[values.mutant];
if (mutant === undefined) {
  console.error(`there is no mutant "${values.mutant}": use ${Object.keys(mutants).join(", ")}`);
  process.exit(2);
}
process.exitCode = await run(Number(values.seconds), Number(values.seed));
// Processes and sockets that a fault left behind must not hold the run up.
process.exit();

async function run(seconds: number, seed: number): Promise<number> {
  const src = plantSource(mutant ?? null);
  const library = (await import(pathToFileURL(join(src, "index.ts")).href)) as typeof Library;
  const random = newRandom(seed);
  await using server = await startEmbeddedPostgres({ flags: ["-c", "max_connections=200"] });
  const admin = postgres(server.url, { max: 1, onnotice: () => {} });
  await admin`create database chaos`;
  await admin.end();
  const urlFor = (port: number) => {
    const url = new URL(server.url);
    [url.port, url.pathname] = [String(port), "/chaos"];
    return url.href;
  };
  const sql = postgres(urlFor(server.port), { max: 4, onnotice: () => {}, connection: { application_name: "chaos" } });
  {
    await using migrator = library.createOrchestrator({ connection: urlFor(server.port) });
    await migrator.migrate();
  }
  const defect = mutant && plantSql(mutant);
  if (defect) await sql.unsafe(defect);

  const folder = mkdtempSync(join(tmpdir(), "flowledger-chaos-"));
  const reports: Reports = { bodies: 0, fenced: 0, repeats: 0, ended: [] };
  const skewsMs = [600_000, -600_000, 0];
  const fleet = await openFleet(
    workerCount,
    { port: () => server.port, urlFor },
    { seed, flows: flowCount, src, folder, skewsMs },
    reports,
  );
  const clientProxy = await openProxy({ host: "127.0.0.1", port: () => server.port });
  const flows = randomFlows(seed, flowCount, library.defineFlow, () => {});
  const operated = operatedFlows(library.defineFlow, openService(folder), () => {});
  const orchestrator = library.createOrchestrator({
    connection: urlFor(clientProxy.port),
    flows: [...flows, ...operated],
    logger: quiet,
  });
  const clients = new Clients(orchestrator, flows, newRandom(seed + 1), join(folder, "acknowledged.log"));
  const operators = new Operators(orchestrator, operated, () => clients.anyOpen(), newRandom(seed + 2), folder);
  while (fleet.some((worker) => worker.id === null)) await delay(20);

  const began = performance.now();
  clients.start();
  operators.start();
  const nemesis = new Nemesis({ random, sql, postgres: server, fleet, clientProxy }, mutant?.faults ?? {});
  const required: FaultName[] = [
    "loseAnswer",
    "freeze",
    "deafen",
    "kill",
    "loseAnswer",
    "muteHeartbeat",
    "loseAnswer",
    "restart",
  ];
  const mostly = Object.keys(mutant?.faults ?? {}) as FaultName[];
  // What is parked with something to do may be woken by what comes in next, so it is looked for all the time.
  const parked = new Map<string, Violation>();
  const looking = setInterval(() => {
    parkedIsIdle(sql, everything).then(
      (found) => found.forEach((violation) => parked.set(violation.executionId, violation)),
      () => {},
    );
  }, 200);
  await nemesis.run(began + seconds * 1000, [...mostly, ...required]);

  await clients.stop();
  operators.stop();
  for (const { proxy } of fleet) proxy.heal();
  clientProxy.heal();
  const healedAt = performance.now();
  const finished = Promise.all([clients.finish(), operators.finish()]).then(() => true);
  const isFinished = await Promise.race([finished, delay(settleMs, false)]);
  clearInterval(looking);
  const stuck = await settle(sql, healedAt + settleMs);
  const settledMs = performance.now() - healedAt;

  const violations: Violation[] = await verify(sql);
  const most = await mostAtOnce(sql, "chaos.0");
  if (most.flow > chaosLimit)
    violations.push({
      invariant: "limit",
      executionId: "-",
      detail: `${most.flow} executions of chaos.0 were owned at once, its limit is ${chaosLimit}`,
    });
  const [ticks] = await sql<[{ fired: number; times: number; seconds: number }]>`
    select count(*)::int as fired, count(distinct at)::int as times, (extract(epoch from max(at) - min(at)) + 1)::int as seconds
    from (select (metadata ->> 'scheduledAt')::timestamptz as at from flowledger.executions where flow = 'chaos.tick') fires`;
  if (ticks.fired !== ticks.times || ticks.times !== ticks.seconds)
    violations.push({
      invariant: "schedule",
      executionId: "-",
      detail: `${ticks.fired} executions for ${ticks.times} times of ${ticks.seconds} seconds`,
    });
  const takeovers = await takeoverTimes(sql, nemesis);
  violations.push(...(await checkClients(sql, clients.acknowledged, isFinished)));
  violations.push(...(await checkOperators(sql, operators.told, folder)), ...stuck, ...parked.values());
  for (const detail of reports.ended) violations.push({ invariant: "process", executionId: "-", detail });
  for (const { kind, id, ms } of nemesis.givenUp)
    if (ms === null || ms > givenUpLimitMs[kind])
      violations.push({
        invariant: "I24",
        executionId: id,
        detail: `a worker stood still (${kind}) and was given up after ${ms === null ? "never" : `${Math.round(ms)} ms`}`,
      });
  const figures = await figuresOf(sql);
  const lostNotifications = [clientProxy, ...fleet.map((worker) => worker.proxy)].reduce(
    (sum, proxy) => sum + proxy.counts.lostNotifications,
    0,
  );
  const lostAnswers = [clientProxy, ...fleet.map((worker) => worker.proxy)].reduce(
    (sum, proxy) => sum + proxy.counts.lostAnswers,
    0,
  );
  const lostStarts = violations.filter(({ invariant }) => invariant === "acknowledged start").length;

  console.log(
    `chaos: ${seconds} s, seed ${seed}${values.mutant ? `, mutant ${values.mutant}: ${mutant?.defect}` : ""}`,
  );
  console.log(
    `faults               ${Object.entries(nemesis.counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ")}`,
  );
  console.log(
    `executions           ${figures.executions} (${figures.outcomes}), ${figures.events} ledger events, ${figures.items} stream items`,
  );
  console.log(
    `client calls         ${clients.acknowledged.calls}, unanswered or failed ${clients.acknowledged.failures}`,
  );
  const toldOf = Map.groupBy(operators.told, ({ kind }) => kind);
  console.log(
    `operators' calls     ${operators.calls}, unanswered or failed ${operators.failures}; acknowledged: ${[...toldOf].map(([kind, told]) => `${kind} ${told.length}`).join(", ")}`,
  );
  console.log(`acknowledged starts  ${clients.acknowledged.starts.size}, lost ${lostStarts}`);
  console.log(`duplicate completions ${violations.filter(({ invariant }) => invariant === "I4").length}`);
  console.log(
    `fenced writes        tried ${reports.fenced}, accepted ${violations.filter(({ invariant }) => invariant === "I5").length}`,
  );
  console.log(`ambiguous commits    ${lostAnswers} answers lost, ${reports.repeats} commits found by their number`);
  console.log(`lost notifications   ${lostNotifications}`);
  console.log(
    `chunk bodies         ${reports.bodies} run, ${Math.max(0, reports.bodies - figures.ends)} of them repeated`,
  );
  for (const [kind, times] of Object.entries(takeovers.times))
    console.log(`takeover after ${kind.padEnd(20)}${figure(times)}`);
  console.log(`restart → commits    ${nemesis.restartMs.map((ms) => `${Math.round(ms)} ms`).join(", ") || "-"}`);
  console.log(`settled              ${Math.round(settledMs)} ms after the last fault`);

  const missing = [
    takeovers.count === 0 && "a takeover",
    reports.fenced === 0 && "a fenced zombie",
    reports.repeats === 0 && "an ambiguous commit",
    lostNotifications === 0 && "a lost notification",
  ].filter(Boolean);
  report(violations);
  if (process.env["CHAOS_VERBOSE"]) await dump(sql, violations);
  if (missing.length > 0 && !mutant) console.log(`the run proves nothing: it had no ${missing.join(", no ")}`);
  for (const worker of fleet) worker.kill();
  await sql.end({ timeout: 1 });
  rmSync(folder, { recursive: true, force: true });
  rmSync(dirname(src), { recursive: true, force: true });
  if (mutant) {
    const caught = [...new Set(violations.map(({ invariant }) => invariant))];
    console.log(caught.length > 0 ? `caught by ${caught.join(", ")}` : "not caught");
    return caught.length > 0 ? 0 : 1;
  }
  return violations.length > 0 || missing.length > 0 ? 1 : 0;
}

function report(violations: readonly Violation[]): void {
  console.log(`violations           ${violations.length}`);
  const shown = new Map<string, number>();
  for (const { invariant, executionId, detail } of violations) {
    const count = (shown.get(invariant) ?? 0) + 1;
    shown.set(invariant, count);
    if (count <= 5) console.log(`  ${invariant} ${executionId}: ${detail}`);
  }
}

/** Waits until every execution that was started has closed; what has not by then is stuck, and shown with its ledger. */
async function settle(sql: postgres.Sql, deadline: number): Promise<Violation[]> {
  for (;;) {
    await tidy(sql);
    // What was left open on purpose closes once it is sealed and drained; a seal alone does not close, so we ask for it.
    await sql`
      select flowledger.close(id, 'end of the run', 'cancel') from flowledger.executions
      where sealed_at is not null and closed_at is null
        and not exists (select 1 from flowledger.ledger l where l.execution_id = id and l.type = 'execution.sealed' and l.payload ? 'close')`;
    const [open] = await sql<[{ count: number }]>`
      select count(*)::int as count from flowledger.executions where started_at is not null and closed_at is null`;
    if (open.count === 0) return [];
    if (performance.now() > deadline) break;
    await delay(200);
  }
  const stuck = await sql<{ id: string; header: string; ledger: string[] }[]>`
    select e.id, format('owner %s (%s), wake_at %s, seq %s, epoch %s, commit %s, takeovers %s', e.owner,
        coalesce((select 'alive' from flowledger.workers w where w.id = e.owner), 'unknown'), e.wake_at, e.seq, e.epoch, e.commit_no, e.takeovers) as header,
      (select array_agg(format('%s %s %s %s %s', l.seq, l.epoch, l.type, l.chunk, left(l.payload::text, 100)) order by l.seq) from flowledger.ledger l where l.execution_id = e.id) as ledger
    from flowledger.executions e where e.started_at is not null and e.closed_at is null`;
  for (const { id, header, ledger } of stuck.slice(0, 3))
    console.log(`stuck ${id}: ${header}\n  ${ledger.slice(-14).join("\n  ")}`);
  return stuck.map(({ id, header }) => ({ invariant: "I1 liveness", executionId: id, detail: header }));
}

/** What the clients wrote down, against what is there. */
async function checkClients(sql: postgres.Sql, acknowledged: Acknowledged, isFinished: boolean): Promise<Violation[]> {
  const violations: Violation[] = [];
  const add = (invariant: string, executionId: string, detail: string) =>
    violations.push({ invariant, executionId, detail });
  if (!isFinished) add("I1 liveness", "-", `a client still waits ${settleMs} ms after the last fault`);
  const rows = await sql<
    { id: string; flow: string; key: string; outcome: string | null; snapshot: Record<string, Library.Json> | null }[]
  >`
    select id, flow, idempotency_key as key, outcome, close_snapshot as snapshot from flowledger.executions`;
  const byId = new Map(rows.map((row) => [row.id, row]));
  const starts = [...acknowledged.starts.entries()];
  for (const [key, { id }] of starts) {
    if (byId.get(id)?.key !== key) add("acknowledged start", id, `"${key}" was acknowledged and is not there`);
  }
  for (const id of acknowledged.cancels)
    if (byId.get(id)?.outcome === "completed") add("I14", id, "a cancel was acknowledged, and it completed");
  const pokesBefore = await sql<{ id: string; text: string; times: number }[]>`
    select execution_id as id, payload ->> 'payload' as text, count(*)::int as times from flowledger.ledger
    where type = 'event.emitted' and payload ->> 'event' = 'Poke' group by 1, 2`;
  const recorded = new Map(pokesBefore.map(({ id, text, times }) => [`${id} ${text}`, times]));
  for (const [id, texts] of acknowledged.pokes) {
    const done = byId.get(id);
    const pokes = (done?.snapshot?.["pokes"] ?? []) as string[];
    for (const text of texts) {
      const times = recorded.get(`${id} ${text}`) ?? 0;
      if (times !== 1) add("I12", id, `the acknowledged "${text}" is in the ledger ${times} times`);
      const effects = pokes.filter((poke) => poke === text).length;
      if (done?.outcome === "completed" && effects !== 1)
        add("I12", id, `the acknowledged "${text}" took effect ${effects} times`);
    }
  }
  // No flow here fails for good, whatever happens on the way.
  const failed = await sql<{ id: string; error: Library.Json }[]>`
    select id, error from flowledger.executions where outcome = 'failed' and close_reason <> 'worker_crash_loop' and flow <> ${operatedNames.fails}`;
  for (const { id, error } of failed) add("outcome", id, `failed: ${JSON.stringify(error).slice(0, 400)}`);
  // The same flow with the same input ends in the same state, whatever happened on the way.
  const expected = new Map<string, { id: string; snapshot: unknown }>();
  for (const [, { id, flow, n }] of starts) {
    const row = byId.get(id);
    if (row?.outcome !== "completed" || !row.snapshot) continue;
    const { pokes: _, ...own } = row.snapshot;
    const snapshot = Object.fromEntries(
      Object.entries(own).map(([key, value]) => [
        key,
        Array.isArray(value) ? value.map((item) => JSON.stringify(item)).toSorted() : value,
      ]),
    );
    const known = expected.get(`${flow} ${n}`);
    if (!known) expected.set(`${flow} ${n}`, { id, snapshot });
    else if (!isDeepStrictEqual(known.snapshot, snapshot))
      add(
        "outcome",
        id,
        `${flow} with n = ${n} ended in ${JSON.stringify(snapshot)}, and in ${known.id} in ${JSON.stringify(known.snapshot)}`,
      );
  }
  for (const { id, seen, isDone } of acknowledged.streams) {
    const items = await sql<
      { item: Library.Json }[]
    >`select item from flowledger.stream_items where execution_id = ${id} and kind is null order by seq`;
    const all = await sql<
      { count: number }[]
    >`select count(*)::int as count from flowledger.stream_items where execution_id = ${id}`;
    const isPrefix =
      (all[0]?.count ?? 0) !== items.length || seen.every((item, index) => isDeepStrictEqual(item, items[index]?.item));
    if (!isPrefix) add("I11", id, "a reader saw something else than the stream");
    if (!isDone) add("I11", id, "a reader never saw the end");
    else if ((all[0]?.count ?? 0) !== seen.length)
      add("I11", id, `a reader saw ${seen.length} of ${all[0]?.count} items`);
  }
  return violations;
}

async function dump(sql: postgres.Sql, violations: readonly Violation[]): Promise<void> {
  const chosen = new Map(violations.map(({ invariant, executionId }) => [invariant, executionId]));
  for (const [invariant, id] of chosen) {
    if (id === "-") continue;
    console.log(`${invariant} ${id}`);
    for (const { line } of await sql<{ line: string }[]>`
      select format('%s %s %s %s %s %s %s', seq, epoch, to_char(at, 'MI:SS.US'), type, dispatch, chunk, left(payload::text, 200)) as line
      from flowledger.ledger where execution_id = ${id} order by seq`)
      console.log(`  ${line}`);
  }
}

interface TakeoverTimes {
  readonly times: Record<string, number[]>;
  readonly count: number;
}

async function takeoverTimes(sql: postgres.Sql, nemesis: Nemesis): Promise<TakeoverTimes> {
  const times: Record<string, number[]> = { kill: [], "kill in trouble": [], freeze: [], block: [] };
  for (const { kind, id, epoch, at } of nemesis.takeovers.lost) {
    const [next] = await sql<{ ms: number | null; went_on: boolean }[]>`
      select min(extract(epoch from l.at - ${at}) * 1000) filter (where l.epoch > ${epoch} and l.type = 'execution.claimed')::float8 as ms,
        bool_or(l.epoch = ${epoch} and l.type = 'chunk.completed' and l.at > ${at}::timestamptz + interval '20 milliseconds') as went_on
      from flowledger.ledger l where l.execution_id = ${id}`;
    // Given back in the last moment, or never taken over because it had closed: no takeover.
    if (next?.ms == null || next.went_on) continue;
    times[kind]?.push(next.ms);
  }
  return { times, count: Object.values(times).reduce((sum, list) => sum + list.length, 0) };
}

async function figuresOf(sql: postgres.Sql) {
  const [row] = await sql<[{ executions: number; outcomes: string; events: number; items: number; ends: number }]>`
    select count(*)::int as executions,
      (select string_agg(format('%s %s', n, outcome), ', ') from (select coalesce(outcome || case close_reason when 'worker_crash_loop' then ' by crash loop' else '' end, 'open') as outcome, count(*) as n from flowledger.executions group by 1) o) as outcomes,
      (select count(*)::int from flowledger.ledger) as events,
      (select count(*)::int from flowledger.stream_items) as items,
      (select count(*)::int from flowledger.ledger where type in ('chunk.completed', 'chunk.failed')) as ends
    from flowledger.executions`;
  return row;
}

function figure(times: readonly number[]): string {
  if (times.length === 0) return "-";
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);
  return `${times.length} executions, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms`;
}
