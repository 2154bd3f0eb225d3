/** What operators were told, and what the service outside saw, against the ledger. */
import type postgres from "postgres";
import type { Violation } from "../../src/store/verify.ts";
import { mostAttempts, operatedNames, readEffects } from "./operated.ts";
import type { Told } from "./operators.ts";

const types = {
  retry: "chunk.retried",
  skip: "chunk.skipped",
  edit: "state.edited",
  pause: "execution.paused",
  unpause: "execution.unpaused",
  redrive: "execution.redriven",
};

interface Row {
  readonly id: string;
  /** Of an item: what it ends with. */
  readonly parent: string | null;
  readonly flow: string;
  readonly outcome: string | null;
  readonly reason: string | null;
  readonly snapshot: Record<string, unknown> | null;
  readonly redriven_of: string | null;
}

export async function checkOperators(sql: postgres.Sql, told: readonly Told[], folder: string): Promise<Violation[]> {
  const violations: Violation[] = [];
  const add = (executionId: string, detail: string) => violations.push({ invariant: "operators", executionId, detail });
  const rows = await sql<Row[]>`
    select e.id, e.parent_id as parent, e.flow, e.outcome, e.close_reason as reason, e.close_snapshot as snapshot,
      (select l.payload ->> 'of' from flowledger.ledger l where l.execution_id = e.id and l.type = 'execution.redriven' and l.copied_at is null) as redriven_of
    from flowledger.executions e`;
  const byId = new Map(rows.map((row) => [row.id, row]));
  const of = (...names: string[]) => rows.filter(({ flow }) => names.includes(flow));
  const isCrashLoop = (id: string | null) => id !== null && byId.get(id)?.reason === "worker_crash_loop";
  for (const { id, parent, outcome } of of(operatedNames.parks, operatedNames.items, operatedNames.asks))
    if (outcome !== "completed" && !isCrashLoop(id) && !isCrashLoop(parent))
      add(id, `it ended as ${outcome}, and operators let everything go on`);

  const orders = await sql<{ id: string; type: string; actor: string | null; reason: string; times: number }[]>`
    select case l.type when 'execution.redriven' then (l.payload ->> 'of')::uuid else l.execution_id end as id, l.type, l.actor,
      l.payload ->> 'reason' as reason, count(*)::int as times
    from flowledger.ledger l where l.type in ${sql(Object.values(types))} and l.copied_at is null group by 1, 2, 3, 4`;
  const known = new Map(orders.map((order) => [`${order.type} ${order.reason}`, order]));
  for (const { id, type, actor, reason } of orders)
    if (!actor?.startsWith("operator ") || !reason) add(id, `${type} says that ${actor} did it because of ${reason}`);
  for (const { kind, id, actor, reason, token } of told) {
    const done = byId.get(id);
    if (kind === "answer") {
      if (done?.outcome === "completed" && done.snapshot?.["got"] !== token)
        add(id, `the acknowledged answer "${token}" became ${JSON.stringify(done.snapshot?.["got"])}`);
      continue;
    }
    const order = known.get(`${types[kind]} ${reason}`);
    // A retry is of all that is parked.
    if (order?.actor !== actor || (order.times !== 1 && done?.flow !== operatedNames.items))
      add(
        id,
        `the acknowledged ${kind} of ${actor} (${reason}) is in the ledger ${order?.times ?? 0} times, by ${order?.actor}`,
      );
    if (kind === "skip" && done?.outcome === "completed" && done.snapshot?.["got"] !== token)
      add(id, `the acknowledged skip with "${token}" led to ${JSON.stringify(done.snapshot?.["got"])}`);
    const edits = done?.snapshot?.["edits"] as Record<string, unknown> | undefined;
    if (kind === "edit" && done?.outcome && edits?.[token] !== token)
      add(id, `the acknowledged edit "${token}" is not in what it closed with`);
  }

  // A retry has all its attempts, counted from 1.
  const rounds = await sql<
    { id: string; dispatch: number; round: number; failures: number; first: number; error: string }[]
  >`
    select r.id, r.dispatch, r.round::int, count(*) filter (where r.type in ('chunk.failed', 'chunk.parked'))::int as failures,
      min((r.payload ->> 'attempt')::int) filter (where r.type in ('chunk.failed', 'chunk.parked')) as first,
      max(r.payload -> 'error' ->> 'message') filter (where r.type = 'chunk.parked') as error
    from (
      select l.execution_id as id, l.dispatch, l.type, l.payload,
        count(*) filter (where l.type = 'chunk.retried') over (partition by l.execution_id, l.dispatch order by l.seq) as round
      from flowledger.ledger l join flowledger.executions e on e.id = l.execution_id
      where e.flow = ${operatedNames.parks} and l.type in ('chunk.failed', 'chunk.parked', 'chunk.retried')) r
    group by 1, 2, 3 having bool_or(r.type = 'chunk.parked')`;
  for (const { id, dispatch, round, failures, first, error } of rounds)
    if (error.includes("the service is down") && (first !== 1 || failures !== mostAttempts))
      add(
        id,
        `dispatch ${dispatch} parked in round ${round} after ${failures} attempts, the first of them number ${first}`,
      );

  const reminders = await sql<{ id: string; times: number }[]>`
    select execution_id as id, count(*)::int as times from flowledger.ledger where type = 'interrupt.reminded' group by 1`;
  for (const { id, times } of reminders) {
    const heard = byId.get(id)?.snapshot?.["told"];
    if (times !== 1) add(id, `it was reminded ${times} times`);
    if (Array.isArray(heard) && heard.length !== 1) add(id, `${heard.length} reminders were heard`);
  }

  const steps = await sql<{ id: string; name: string; times: number }[]>`
    select execution_id as id, payload ->> 'name' as name, count(*)::int as times from flowledger.ledger
    where type = 'step.completed' and payload ->> 'name' in ('one', 'before', 'after', 'three') group by 1, 2 having count(*) > 1`;
  for (const { id, name, times } of steps) add(id, `step "${name}" was recorded ${times} times`);
  const keys = new Map<string, Set<string>>();
  for (const { execution, what, key } of readEffects(folder))
    keys.set(`${execution} ${what}`, (keys.get(`${execution} ${what}`) ?? new Set()).add(key));
  for (const [effect, { size }] of keys)
    if (size > 1) add(effect.slice(0, 36), `"${effect.slice(37)}" was done ${size} times at the service`);
  for (const row of of(...Object.values(operatedNames))) {
    if (row.outcome !== "completed" || row.flow === operatedNames.items) continue;
    const got = row.snapshot?.["got"];
    const chunks =
      row.flow === operatedNames.asks ? ["three"] : ["one", "before", "three", ...(got === "own" ? ["after"] : [])];
    for (const what of chunks)
      if (!isDone(keys, byId, row, what)) add(row.id, `it completed, and "${what}" was never done at the service`);
    if (row.redriven_of && keys.has(`${row.id} one`)) add(row.id, "it was redriven, and did again what had been done");
  }

  const bulks = await sql<{ id: string; done: number; failed: number; events: number; why: string | null }[]>`
    select b.execution_id as id, count(*) filter (where r.result = 'done')::int as done, count(*) filter (where r.result = 'failed')::int as failed,
      (select count(distinct l.execution_id)::int from flowledger.ledger l where l.payload ->> 'bulk' = b.execution_id::text and l.copied_at is null) as events,
      max(concat(r.code, ' ', r.message)) filter (where r.result = 'failed' and r.code <> 'FL011') as why
    from flowledger.bulks b left join flowledger.bulk_results r on r.execution_id = b.execution_id
    where b.reason like 'bulk %' group by 1`;
  for (const { id, done, events, why } of bulks) {
    if (done !== events) add(id, `a bulk says that ${done} took their command, and ${events} ledgers have it`);
    if (why && !why.startsWith("FL008")) add(id, `a bulk failed at a target: ${why}`);
  }
  return violations;
}

/** By itself, or by one of those that it was redriven from. */
function isDone(keys: ReadonlyMap<string, unknown>, byId: ReadonlyMap<string, Row>, row: Row, what: string): boolean {
  for (let one: Row | undefined = row; one; one = one.redriven_of ? byId.get(one.redriven_of) : undefined)
    if (keys.has(`${one.id} ${what}`)) return true;
  return false;
}
