/** How much waits in the database, and for how long: one statement that reads a bounded number of index entries. */
import type { Database } from "./client.ts";

/** What waits of one flow. */
export interface FlowGauges {
  readonly flow: string;
  /** Due, and no worker has it; and for how long the first of them is, in seconds. */
  readonly due: number;
  readonly oldestDueSeconds: number;
  /** Given back by their worker until a time that has not come. */
  readonly sleeping: number;
  /** With a chunk that waits for an operator. */
  readonly parked: number;
  /** Queued for a slot of the flow's limits. */
  readonly queued: number;
  /** Pauses that wait for an answer; and for how long the first of them does, in seconds. */
  readonly interrupts: number;
  readonly oldestInterruptSeconds: number;
}

export interface DatabaseGauges {
  readonly flows: readonly FlowGauges[];
  /** Workers that gave a sign of life lately. */
  readonly workersAlive: number;
}

export interface Gauges {
  read(): Promise<DatabaseGauges>;
}

/** So many of each kind are read, the oldest first. */
export const countedAtMost = 10_000;
/** What was never served here may have any name, as a start by SQL gives it: together under this one, which no flow can have. */
export const otherFlows = "_other";
/** A worker that was silent for longer is no worker. */
const aliveSeconds = 15;

interface GaugeRow {
  readonly kind: "due" | "sleeping" | "parked" | "queued" | "interrupts" | "workers";
  readonly flow: string;
  readonly count: number;
  readonly seconds: number;
}

export function gaugesOf({ sql }: Pick<Database, "sql">): Gauges {
  return {
    async read() {
      const rows = await sql<GaugeRow[]>`
        with due as (
          select e.flow, e.wake_at as since from flowledger.executions e
          where e.wake_at <= flowledger.now() and e.owner is null and e.closed_at is null
            -- What is queued waits for a slot, not for a worker.
            and (select s.acquired from flowledger.slots s where s.execution_id = e.id) is not false
            -- What an operator paused waits for that.
            and not e.flow = any((select flowledger.paused_flows(array(select p.flow from flowledger.flow_pauses p)))::text[])
          order by e.wake_at limit ${countedAtMost}::int
        ), sleeping as (
          select e.flow from flowledger.executions e
          where e.wake_at > flowledger.now() and e.owner is null and e.closed_at is null
          order by e.wake_at limit ${countedAtMost}::int
        ), parked as (
          select e.flow from flowledger.executions e where e.parked > 0 order by e.id limit ${countedAtMost}::int
        ), queued as (
          select s.flow from flowledger.slots s where not s.acquired limit ${countedAtMost}::int
        ), interrupts as (
          select i.flow, i.created_at as since from flowledger.interrupts i
          where i.status = 'pending' order by i.created_at, i.execution_id, i.id limit ${countedAtMost}::int
        ), waiting as (
          select 'due' as kind, flow, since from due
          union all select 'sleeping', flow, null from sleeping
          union all select 'parked', flow, null from parked
          union all select 'queued', flow, null from queued
          union all select 'interrupts', flow, since from interrupts
        ), counted as (
          select w.kind, case when exists (select from flowledger.definitions d where d.flow = w.flow) then w.flow else ${otherFlows}::text end as flow,
            w.count, w.since
          from (select x.kind, x.flow, count(*) as count, min(x.since) as since from waiting x group by x.kind, x.flow) w
        )
        select c.kind, c.flow, sum(c.count)::int as count,
          coalesce(greatest(0, extract(epoch from flowledger.now() - min(c.since))), 0)::float8 as seconds
        from counted c group by c.kind, c.flow
        union all
        select 'workers', '', count(*)::int, 0 from flowledger.workers w
        where w.heartbeat_at > flowledger.wall_clock() - make_interval(secs => ${aliveSeconds}::int)`;
      return { flows: byFlow(rows), workersAlive: rows.find(({ kind }) => kind === "workers")?.count ?? 0 };
    },
  };
}

function byFlow(rows: readonly GaugeRow[]): FlowGauges[] {
  const flows = new Map<string, GaugeRow[]>();
  for (const row of rows) {
    if (row.kind === "workers") continue;
    const known = flows.get(row.flow);
    if (known) known.push(row);
    else flows.set(row.flow, [row]);
  }
  return [...flows].map(([flow, all]) => {
    const of = (kind: GaugeRow["kind"]) => all.find((row) => row.kind === kind);
    return {
      flow,
      due: of("due")?.count ?? 0,
      oldestDueSeconds: of("due")?.seconds ?? 0,
      sleeping: of("sleeping")?.count ?? 0,
      parked: of("parked")?.count ?? 0,
      queued: of("queued")?.count ?? 0,
      interrupts: of("interrupts")?.count ?? 0,
      oldestInterruptSeconds: of("interrupts")?.seconds ?? 0,
    };
  });
}
