-- Failed executions, grouped by flow, chunk and error.

-- An error without what differs from case to case: ids and digits become #.
create or replace function flowledger.alike_error(p_error jsonb) returns text
language sql immutable parallel safe
return left(regexp_replace(regexp_replace(concat(p_error ->> 'name', ': ' || left(p_error ->> 'message', 1000)),
  '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '#', 'gi'), '[0-9]+', '#', 'g'), 300);

-- One row per flow, chunk and error that executions failed with; the chunk is null where the error came out of none. With a flow it
-- reads what failed of that, else all that failed.
create or replace view flowledger.failures as
select e.flow, e.error ->> 'chunk' as chunk, flowledger.alike_error(e.error) as error, count(*)::int as executions,
  min(e.closed_at) as first_at, max(e.closed_at) as last_at,
  -- The last one, to look into.
  (array_agg(e.id order by e.closed_at desc, e.id desc))[1] as last_id,
  (array_agg(e.error ->> 'message' order by e.closed_at desc, e.id desc))[1] as last_message
from flowledger.executions e
where e.status = 'failed'
group by 1, 2, 3;
