/** What the lists are asked over: a month of executions, made inside of the server, and a full inbox. */
import type { Bench } from "./server.ts";

export const listRows = Number(process.env["LIST_ROWS"] ?? 1_000_000);
export const from = Date.UTC(2026, 0, 1);
export const day = 86_400_000;
const days = 30;

/** A month of executions; half of them are of one flow and of one tenant. */
export async function fillExecutions({ sql }: Bench): Promise<void> {
  await sql`
    insert into flowledger.executions (id, seq, epoch, flow, fingerprint, created_at, started_at, closed_at, outcome, error, parent_id, idempotency_key, metadata,
      pending_interrupts, parked, close_snapshot)
    select (left(lpad(to_hex((extract(epoch from c.at) * 1000)::bigint), 12, '0'), 8) || '-' || right(lpad(to_hex((extract(epoch from c.at) * 1000)::bigint), 12, '0'), 4)
        || '-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
      8, 1, 'list.' || f.flow, case n % 1000 when 0 then 'fe00' else 'f000' end || f.flow, c.at, c.at, case when n % 50 <> 0 then c.at + interval '1 minute' * (n % 100) end,
      case when n % 50 = 0 then null when n % 20 = 1 then 'failed' when n % 100 = 2 then 'cancelled' else 'completed' end,
      case when n % 50 <> 0 and n % 20 = 1 then jsonb_build_object('name', 'CardError', 'message', 'card ' || n || case when n % 3 = 0 then ' declined' else ' stolen' end, 'chunk', 'pay') end,
      case when n % 40 = 3 then ('01b00000-0000-7000-8000-' || lpad(to_hex(n / 400), 12, '0'))::uuid end, case when n % 3 = 0 then 'key-' || n end,
      case when n % 2 = 0 then '{"tenant": "big"}'::jsonb else jsonb_build_object('tenant', 't' || n % 1001) end,
      case when n % 100 = 0 then 1 else 0 end, case when n % 500 = 50 then 1 else 0 end, case when n % 50 <> 0 then '{"$final_result": {"paid": true}}'::jsonb end
    from generate_series(1, ${listRows}::int) n
    cross join lateral (select ${new Date(from).toISOString()}::text::timestamptz + interval '1 millisecond' * (n::float8 * ${(days * day) / listRows}::float8) as at) c
    cross join lateral (select case when n % 7 < 4 then 0 else n % 61 end as flow) f`;
  await sql`vacuum analyze flowledger.executions`;
}

/** Of a hundred groups, each question asks one; the three that are asked for have a part of them each. */
export const pending = 100_000;
export const groups = ["group:finance", "group:legal", "group:ops"];

export async function fillInbox({ sql }: Bench): Promise<void> {
  await sql`
    with made as materialized (
      select flowledger.new_id() as id, now() - interval '1 second' * n as at, case when n % 3 = 0 then now() + interval '1 minute' * (n % 5000 - 500) end as due,
        case when n % 10 < 3 then (${groups}::text[])[n % 10 + 1] else 'group:' || n % 97 end as principal
      from generate_series(1, ${pending}::int) n),
    headers as (
      insert into flowledger.executions (id, seq, epoch, flow, created_at, started_at, pending_interrupts)
      select id, 5, 1, 'list.asks', at, at, 1 from made),
    asked as (
      insert into flowledger.interrupts (execution_id, id, flow, chunk, type, status, payload, resume_to, resume_count, created_at, raised_seq, due_at, assignees)
      select id, 'boss', 'list.asks', 'ask', 'approval', 'pending', '{"amount": 100}', '"next"', 0, at, 5, due, array[principal] from made)
    insert into flowledger.assignments (principal, due_at, created_at, execution_id, interrupt_id)
    select principal, coalesce(due, 'infinity'), at, id, 'boss' from made`;
  await sql`vacuum analyze flowledger.executions, flowledger.interrupts, flowledger.assignments`;
}
