/** Whether a kit's database comes to rest, and stays so: thirty days pass, twice, and nobody writes anything but heartbeats. */
import postgres from "postgres";
import { internals } from "../../src/orchestrator.ts";
import { ClockStuckError, type TestOrchestrator } from "../../src/test.ts";

/** Signs of life, the clock itself, and what the runner of the jobs notes of the flows that it serves, when it gets to it. */
const alive = ["workers", "test_clock", "test_peers", "_private_tasks"];
const lookMs = 30 * 86_400_000;
/** More stops by the clock than any test leaves behind. */
const enoughStops = 100;

/**
 * Lets happen what is due before two looks of thirty days would be over, then takes these looks.
 *
 * @param maxStops after which it goes on for ever
 * @returns what is wrong, in words; nothing where the test left code that hangs, or a schedule, which never rests
 */
export async function quietTwice(t: TestOrchestrator, maxStops = enoughStops): Promise<string[]> {
  const hangs = await t.settle().then(
    () => false,
    (error: unknown) => error instanceof ClockStuckError || Promise.reject(error),
  );
  const owners = [...t.orchestrator[internals].workers].flatMap(({ inside }) => [...inside.owners.values()]);
  if (owners.some(({ userCode }) => userCode.length > 0)) return [];
  if (hangs) return ["something is under way that does not get on"];
  for (let stops = 0; ; stops++) {
    // What stays in memory for a second, should it come soon, is nothing that is due: it is given back then.
    await t.clock.advance("1m");
    const [due] = await t.clock.upcoming();
    if (!due || due.at.getTime() > t.clock.now().getTime() + 2 * lookMs) break;
    if (due.executionId === null && due.what.startsWith("schedule ")) return [];
    if (stops === maxStops) return [`it never comes to rest: ${due.what} is due at ${due.at.toISOString()}`];
    await t.clock.set(due.at);
  }
  const sql = postgres(t.database, { max: 1, onnotice: () => {} });
  try {
    await sweepSlots(t, sql);
    const begun = t.clock.now();
    let before = await look(sql);
    for (const which of ["first", "second"]) {
      await t.clock.advance("30d");
      // By the real clock it comes every five seconds, and finds nothing.
      await sql`select flowledger.sweep(5000)`;
      const after = await look(sql);
      const changed = [...new Set([...before.keys(), ...after.keys()])].filter(
        (row) => before.get(row) !== after.get(row),
      );
      if (changed.length > 0) {
        const events = await sql<{ what: string }[]>`
          select type || ' of ' || execution_id || ' at ' || at as what from flowledger.ledger where at > ${begun} order by at, seq limit 5`;
        const written = changed.map((row) => `${row}: ${before.get(row) ?? "new"} -> ${after.get(row) ?? "gone"}`);
        return [`in the ${which} thirty quiet days:`, ...written, ...events.map(({ what }) => what)];
      }
      before = after;
    }
    return [];
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Starts that count for a rate are swept away when its time is over, and places of what was cancelled: they go before the look. */
async function sweepSlots(t: TestOrchestrator, sql: postgres.Sql): Promise<void> {
  const [row] = await sql<[{ ms: number | null }]>`
    select max(greatest(l.rate_ms, l.key_rate_ms))::float8 as ms from flowledger.limits l
    where exists (select from flowledger.limited_starts s where s.flow = l.flow)`;
  if (row.ms !== null) await t.clock.advance(row.ms + 1);
  await sql`select flowledger.sweep_slots()`;
}

let statement: string | undefined;

/** Every version of every row, by table: what is written anew, or locked, is another one, whatever it says. */
async function look(sql: postgres.Sql): Promise<Map<string, string>> {
  statement ??= await statementOf(sql);
  const rows = await sql.unsafe<{ name: string; versions: string }[]>(statement, [], { prepare: true });
  return new Map(rows.map(({ name, versions }) => [name, versions]));
}

async function statementOf(sql: postgres.Sql): Promise<string> {
  const tables = await sql<{ name: string }[]>`
    select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('flowledger', 'flowledger_jobs') and c.relkind = 'r' and not c.relname = any(${alive})`;
  const version = "r.xmin || ' ' || r.xmax || ' ' || r.ctid::text";
  const all = tables.map(
    ({ name }) =>
      `select '${name}' as name, count(*) || ' rows, ' || coalesce(sum(hashtextextended(${version}, 0)), 0) as versions from ${name} r`,
  );
  // One by one: what became of them says what went on.
  const executions = `select 'execution ' || r.id, format('%s epoch %s, seq %s, %s, due %s, job %s, owner %s', r.flow, r.epoch, r.seq, r.status,
    r.wake_at, r.job_at, r.owner) || ', version ' || ${version} from flowledger.executions r`;
  return [...all, executions].join(" union all ");
}
