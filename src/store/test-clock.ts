/**
 * The clock of a test's database: a row that domain time is read from. It stands still until somebody moves it, and every process
 * that is connected goes by it. Only `flowledger/test` loads this.
 */
import { createHash } from "node:crypto";
import type postgres from "postgres";
import { MovableClockError } from "../base/errors.ts";
import type { ExecutionId, WorkerId } from "../ledger/event.ts";
import { list } from "./columns.ts";
import { driverOptions } from "./client.ts";
import { openClient } from "./driver.ts";
import { defaultNames } from "./names.ts";
import { codeOf, refusalOf } from "./refusals.ts";

/** Wake-ups of this id tell that the clock has moved, or that somebody asks whether all is quiet. */
export const clockId = "00000000-0000-7000-8000-000000000000" as ExecutionId;

/** The database's clock, over a session of its own: as long as that lives, the others wait for this process. */
export interface TestClock {
  /** Milliseconds since 1970. */
  read(): Promise<ClockFace>;
  /** Looks whether anything is to be done at this time, and if not, moves on to the next time that something is due at. */
  step(step: Step): Promise<Stepped>;
  /** What is parked until a time after `afterMs`, the earliest first. */
  upcoming(afterMs: number, limit: number): Promise<readonly Parked[]>;
  /** When the rate of a flow lets the next execution begin that waits for it, if that is later. */
  nextStarts(): Promise<readonly { readonly flow: string; readonly atMs: number }[]>;
  /** Asks the other processes whether they are quiet. Resolves with the number of the question. */
  ask(): Promise<number>;
  /** How many of the others live and have not answered. */
  unanswered(asked: number): Promise<number>;
  /** This process is quiet, and the next that its own timers wait for is `nextMs`. */
  answer(asked: number, nextMs: number | null): Promise<void>;
  /** Frees what workers own that are gone, as the fleet does after a while. */
  abandon(workers: readonly WorkerId[]): Promise<void>;
  close(): Promise<void>;
}

export interface ClockFace {
  readonly nowMs: number;
  /** The last question whether all is quiet. */
  readonly asked: number;
}

export interface Step {
  /** What this process serves, and by which workers. */
  readonly flows: readonly string[];
  readonly workers: readonly WorkerId[];
  /** How far the owners here have read, by execution. */
  readonly known: Readonly<Record<string, number>>;
  /** The next time that a timer of this process waits for. */
  readonly localMs: number | null;
  /** How far the clock may be moved; null is not at all. */
  readonly untilMs: number | null;
  /** As it was when the others were asked. */
  readonly stamp: string;
}

export interface Stepped {
  readonly nowMs: number;
  readonly isMoved: boolean;
  /** Due at this time, free, and served here. */
  readonly due: readonly { readonly id: ExecutionId; readonly flow: string }[];
  /** Executions of workers here that have more in their ledger than their owners know, or no owner. */
  readonly unread: readonly ExecutionId[];
  /** Something is due that others serve. */
  readonly isDueElsewhere: boolean;
  /** Families have not heard of an end. */
  readonly isClosing: boolean;
  /** The next time that something is due at. */
  readonly nextMs: number | null;
  /** Other processes that follow this clock. */
  readonly peers: number;
  /** Changes with whatever happens, where there are others. */
  readonly stamp: string;
}

export interface Parked {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly atMs: number;
}

/** Makes the clock of a migrated database a movable one. There is no way back. */
export async function installTestClock(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(text).simple();
}

/** What tells this version of it from others. */
export function testClockHash(): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Sets the clock of a clone that nothing has happened in yet, and says that it is no copy of another database's executions. */
export async function beginTestClock(sql: postgres.Sql, nowMs: number): Promise<void> {
  await sql`
    with accepted as (select flowledger.accept_identity())
    select setval('flowledger.test_now', ${nowMs}::float8::bigint) from accepted`;
}

/** @param peer names this process */
export function openTestClock(url: string, peer: string): TestClock {
  const { sql, place } = openClient(
    {
      ...driverOptions(url),
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
      connection: { application_name: "flowledger test clock" },
    },
    { fixed: { search_path: "pg_catalog, pg_temp", TimeZone: "UTC", standard_conforming_strings: "on" } },
  );
  return {
    async read() {
      try {
        const [row] = await sql<[ClockFace]>`
          select flowledger.to_ms(flowledger.now()) as "nowMs", c.asked from flowledger.test_join(${peer}::uuid), flowledger.test_clock c`;
        return row;
      } catch (error) {
        // There is no such schema, table or function.
        if (["3F000", "42P01", "42883"].includes(codeOf(error) ?? "")) throw new MovableClockError(place, false);
        throw refusalOf(error, { place, user: sql.options.user, schema: defaultNames.schema });
      }
    },
    step: (step) => stepBy(sql, peer, step),
    upcoming: (afterMs, limit) => sql<Parked[]>`
      select e.id, e.flow, flowledger.to_ms(e.wake_at) as "atMs" from flowledger.executions e
      where e.wake_at > flowledger.from_ms(${afterMs}::float8) and e.owner is null and e.closed_at is null
      order by e.wake_at, e.id limit ${limit}::int`,
    nextStarts: () => sql<{ flow: string; atMs: number }[]>`
      select l.flow, flowledger.to_ms(l.next_start_at) as "atMs" from flowledger.limits l
      where l.next_start_at > (select flowledger.now())
        and exists (select from flowledger.slots s join flowledger.executions e on e.id = s.execution_id and e.closed_at is null
          where s.flow = l.flow and not s.acquired and s.not_started)`,
    async ask() {
      const [row] = await sql<[{ asked: number }]>`select flowledger.test_ask() as asked`;
      return row.asked;
    },
    async unanswered(asked) {
      const [row] = await sql<
        [{ count: number }]
      >`select flowledger.test_unanswered(${peer}::uuid, ${asked}::int) as count`;
      return row.count;
    },
    async answer(asked, nextMs) {
      await sql`select flowledger.test_answer(${peer}::uuid, ${asked}::int, flowledger.from_ms(${nextMs}::float8))`;
    },
    async abandon(workers) {
      await sql`select flowledger.test_abandon(${list(workers)}::text::uuid[])`;
    },
    close: () => sql.end({ timeout: 1 }),
  };
}

async function stepBy(sql: postgres.Sql, peer: string, step: Step): Promise<Stepped> {
  const { flows, workers, known, localMs, untilMs, stamp } = step;
  const [row] = await sql<[Omit<Stepped, "due"> & { due: readonly [ExecutionId, string][] }]>`
    select s.now_ms as "nowMs", s.is_moved as "isMoved", s.due, s.unread, s.is_due_elsewhere as "isDueElsewhere", s.is_closing as "isClosing",
      s.next_ms as "nextMs", s.peers, s.stamp
    from flowledger.test_step(${peer}::uuid, ${list(flows)}::text::text[], ${list(workers)}::text::uuid[], ${JSON.stringify(known)}::text::jsonb,
      flowledger.from_ms(${localMs}::float8), flowledger.from_ms(${untilMs}::float8), ${stamp}) s`;
  return { ...row, due: row.due.map(([id, flow]) => ({ id, flow })) };
}

const text = `
create table flowledger.test_clock (
  one boolean primary key default true check (one),
  -- Questions whether all is quiet, counted.
  asked int not null default 0
);
insert into flowledger.test_clock default values;

-- The time, in milliseconds: what is read with each statement several times is to cost no query of its own.
create sequence flowledger.test_now minvalue 0;
select setval('flowledger.test_now', flowledger.to_ms(clock_timestamp())::bigint);
-- Whatever role asks for the time gets it.
grant select on flowledger.test_now to public;

-- The processes that follow the clock, each with the session that it speaks through.
create table flowledger.test_peers (
  id uuid primary key,
  backend_pid int not null,
  session_key bigint not null,
  -- The last question to which it said that it is quiet, and the next time that its own timers wait for.
  answered int not null default 0,
  next_at timestamptz
);

create or replace function flowledger.now() returns timestamptz
language sql volatile
return flowledger.from_ms(pg_catalog.pg_sequence_last_value('flowledger.test_now'::regclass));

create or replace function flowledger.clock_offset() returns interval
language sql volatile
return flowledger.now() - pg_catalog.clock_timestamp();

create function flowledger.test_tell() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select pg_notify(flowledger.channel('${clockId}'), '${clockId}') $$;

-- Registers a process with the session that asks, unless it is registered with that.
create function flowledger.test_join(p_peer uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('flowledger.session_key', true) is null then
    insert into flowledger.test_peers (id, backend_pid, session_key) values (p_peer, pg_backend_pid(), flowledger.hold_session())
    on conflict (id) do update set backend_pid = excluded.backend_pid, session_key = excluded.session_key;
  end if;
end $$;

create function flowledger.test_others(p_peer uuid) returns setof flowledger.test_peers
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from flowledger.test_peers p where p.id <> p_peer) then
    delete from flowledger.test_peers p where p.id <> p_peer and not flowledger.has_session(p.backend_pid, p.session_key);
    return query select * from flowledger.test_peers p where p.id <> p_peer;
  end if;
end $$;

create function flowledger.test_ask() returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_asked int;
begin
  update flowledger.test_clock c set asked = c.asked + 1 returning c.asked into v_asked;
  perform flowledger.test_tell();
  return v_asked;
end $$;

create function flowledger.test_unanswered(p_peer uuid, p_asked int) returns int
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select count(*)::int from flowledger.test_others(p_peer) p where p.answered < p_asked $$;

create function flowledger.test_answer(p_peer uuid, p_asked int, p_next timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.test_join(p_peer);
  update flowledger.test_peers p set answered = p_asked, next_at = p_next where p.id = p_peer;
  perform flowledger.test_tell();
end $$;

-- Looks whether anything is to be done at this time; if not, moves the clock on to the next time that something is due at, at most
-- to p_until, and looks again. What is due that others may serve as well gets jobs: those it had come by the real clock.
create function flowledger.test_step(p_peer uuid, p_flows text[], p_workers uuid[], p_known jsonb, p_local timestamptz, p_until timestamptz, p_stamp text)
returns table (now_ms float8, is_moved boolean, due json, unread json, is_due_elsewhere boolean, is_closing boolean, next_ms float8, peers int, stamp text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
  v_next timestamptz;
  v_to timestamptz;
  v_peers_next timestamptz;
  v_others uuid[];
  v_paused text[] := flowledger.paused_flows(array(select p.flow from flowledger.flow_pauses p));
begin
  perform flowledger.test_join(p_peer);
  -- Those who move it take turns.
  if p_until is not null then
    perform from flowledger.test_clock c for update;
  end if;
  v_now := flowledger.now();
  select count(*), min(o.next_at) filter (where o.next_at > v_now) into peers, v_peers_next from flowledger.test_others(p_peer) o;
  is_moved := false;
  loop
    select json_agg(json_build_array(x.id, x.flow)) filter (where x.flow = any(p_flows)), array_agg(x.id) filter (where not x.flow = any(p_flows) or peers > 0)
    into due, v_others
    from (
      -- What is queued waits for a slot, and not for time; unless it is the first, and the rate lets it begin now.
      select e.id, e.flow from flowledger.executions e
      where e.wake_at <= v_now and e.owner is null and e.closed_at is null
        and (select s.acquired from flowledger.slots s where s.execution_id = e.id) is not false
        and (not e.flow = any(v_paused) or e.epoch > 0 and flowledger.is_ending(e))
      union all
      select s.execution_id, l.flow
      from flowledger.limits l cross join lateral (
        -- One that was cancelled stands there until somebody sweeps.
        select q.execution_id from flowledger.slots q join flowledger.executions e on e.id = q.execution_id and e.closed_at is null
        where q.flow = l.flow and not q.acquired and q.not_started
        order by q.priority, q.queue_position, q.execution_id limit 1) s
      where l.next_start_at <= v_now
      limit 1000) x;
    is_due_elsewhere := v_others is not null and exists (
      select from flowledger.executions e join flowledger.workers w on e.flow = any(w.flows)
      where e.id = any(v_others) and not w.id = any(p_workers) and w.heartbeat_at > flowledger.wall_clock() - interval '15 seconds');
    if is_moved then
      if v_others is not null then
        perform flowledger.add_jobs(v_others);
      end if;
      exit;
    end if;
    select json_agg(e.id) into unread from flowledger.executions e
    where e.wake_at is not null and e.owner = any(p_workers) and e.seq is distinct from (p_known ->> e.id::text)::int;
    is_closing := exists (select from flowledger.executions e where e.wake_at is not null and e.closed_at is not null);
    v_next := least(
      (select min(e.wake_at) from flowledger.executions e where e.wake_at > v_now and e.owner is null and e.closed_at is null),
      -- What is due and whose flow is paused has its timeout left.
      case when v_paused <> '{}' then (
        select min(d.at) from flowledger.executions e cross join lateral (select flowledger.deadline_of(e) as at) d
        where e.wake_at <= v_now and e.owner is null and e.closed_at is null and e.flow = any(v_paused) and d.at > v_now) end,
      (select min(l.next_start_at) from flowledger.limits l where l.next_start_at > v_now
        and exists (select from flowledger.slots s join flowledger.executions e on e.id = s.execution_id and e.closed_at is null
          where s.flow = l.flow and not s.acquired and s.not_started)),
      case when p_local > v_now then p_local end,
      v_peers_next);
    stamp := case when peers > 0 then (select count(*) || ' ' || coalesce(sum(e.seq::bigint + e.epoch), 0) from flowledger.executions e) else '' end;
    -- Whole milliseconds, so that what is due is due by every clock.
    v_to := date_trunc('milliseconds', least(v_next, p_until) + interval '999 microseconds');
    exit when p_until is null or due is not null or is_due_elsewhere or unread is not null or is_closing or stamp <> p_stamp or v_to <= v_now;
    perform setval('flowledger.test_now', flowledger.to_ms(v_to)::bigint);
    v_now := v_to;
    is_moved := true;
    if peers > 0 then
      perform flowledger.test_tell();
    end if;
  end loop;
  now_ms := flowledger.to_ms(v_now);
  next_ms := flowledger.to_ms(v_next);
  due := coalesce(due, '[]');
  unread := coalesce(unread, '[]');
  return next;
end $$;

-- Frees what workers own that are gone, as reap() does for the real dead.
create function flowledger.test_abandon(p_workers uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_freed uuid[];
begin
  with free as (
    update flowledger.executions e set owner = null, takeovers = e.takeovers + 1, wake_at = flowledger.now()
    where e.wake_at is not null and e.owner = any(p_workers)
    returning e.id
  ) select array_agg(free.id) into v_freed from free;
  if v_freed is not null then
    perform flowledger.add_jobs(v_freed);
  end if;
  -- What they had closed, and had told nobody of.
  perform flowledger.propagate_close('{}', -1);
  perform flowledger.sweep_slots();
end $$;

revoke execute on all functions in schema flowledger from public;
select flowledger.apply_grants();
`;
