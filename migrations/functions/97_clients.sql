-- Clients that are limited to flows and to a metadata filter: by `grant_client`, checked by the functions that clients call. What a limit does not
-- cover does not exist for them: same error, same message, about the same time.

-- The role whose rights count: who logged in, or as whom that session works.
create or replace function flowledger.working_role() returns text
language sql stable parallel safe
return case when current_setting('role') = 'none' then session_user::text else current_setting('role') end;

-- The last grant of each role that this session works as, or has the rights of.
create or replace function flowledger.client_limits() returns table (role text, flows text[], filter jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select g.role, g.flows, g.filter
  from (select distinct on (x.role) x.role, x.flows, x.filter from flowledger.client_grants x order by x.role, x.number desc) g
  join pg_roles r on r.rolname = g.role
  where pg_has_role(flowledger.working_role(), r.oid, 'usage')
$$;

-- Do only its limits say what this session may reach? Not where it also has a role of one of these kinds that has none.
create or replace function flowledger.is_limited(p_kinds text[]) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select not flowledger.is_trusted()
    and exists (select from flowledger.client_limits())
    and not exists (
      select from flowledger.role_grants x join pg_roles r on r.rolname = x.role
      where x.kind = any(p_kinds) and pg_has_role(flowledger.working_role(), r.oid, 'usage')
        and not exists (select from flowledger.client_grants g where g.role = x.role))
$$;

-- Does a limit of this session cover an execution, or one above it? Calls and sub-flows belong to what began them.
create or replace function flowledger.is_granted(p_id uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive up(parent_id, flow, metadata) as (
    select e.parent_id, e.flow, e.metadata from flowledger.executions e where e.id = p_id
    union all
    select e.parent_id, e.flow, e.metadata from up join flowledger.executions e on e.id = up.parent_id
  )
  select exists (
    select from up join flowledger.client_limits() l
      on (l.flows is null or up.flow = any(l.flows)) and (l.filter is null or coalesce(up.metadata, '{}') @> l.filter))
$$;

create or replace function flowledger.refuse_unknown(p_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'execution % does not exist', p_id
    using errcode = 'FL001', hint = 'check the id, and that you are connected to the database it was started in';
end $$;

-- False for an execution that the limits of this session do not cover, as for one that is not there.
create or replace function flowledger.is_reachable(p_id uuid, p_kinds text[] default '{client}') returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Where nobody is limited, that is all it costs.
  return not exists (select from flowledger.client_grants) or not flowledger.is_limited(p_kinds) or flowledger.is_granted(p_id);
end $$;

-- Says of such an execution what is said of one that is not there.
create or replace function flowledger.check_granted(p_id uuid, p_kinds text[] default '{client}') returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not flowledger.is_reachable(p_id, p_kinds) then
    perform flowledger.refuse_unknown(p_id);
  end if;
end $$;

-- Refuses a start that no limit of this session covers. Gives the metadata filter that counts for its keys: keys of tenants are apart.
create or replace function flowledger.scope_of_start(p_flow text, p_metadata jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_filters jsonb[];
begin
  for l in select c.* from flowledger.client_limits() c where c.flows is null or p_flow = any(c.flows) order by c.filter is null desc, c.role loop
    if l.filter is null or coalesce(p_metadata, '{}') @> l.filter then
      return l.filter;
    end if;
    v_filters := v_filters || l.filter;
  end loop;
  if v_filters is null then
    raise exception 'role % may not start flow "%"', to_json(flowledger.working_role()), p_flow
      using errcode = 'FL008', hint = format('it may start %s', (
        select string_agg(distinct f, ', ') from flowledger.client_limits() c cross join unnest(c.flows) f));
  end if;
  raise exception 'role % may start flow "%" only with metadata %', to_json(flowledger.working_role()), p_flow,
      (select string_agg(f::text, ' or ') from unnest(v_filters) f)
    using errcode = 'FL008', hint = 'pass that in the metadata of the start';
end $$;

-- A key of a start by a client whose filter this is: of a long one its digest, since an index holds no longer text.
create or replace function flowledger.key_within(p_filter jsonb, p_key text) returns text
language sql immutable parallel safe
return case when p_filter is null then '' when octet_length(p_filter::text) <= 500 then p_filter::text || ':'
  else encode(sha256(convert_to(p_filter::text, 'UTF8')), 'hex') || ':' end || p_key;

-- The headers that a client may read of executions whose ids it knows, so that it can wait for their ends: nothing of those that its limits do not
-- cover; metadata, error and close snapshot only where `grant_client` made it a client, with limits or without.
create or replace function flowledger.seen(p_ids uuid[]) returns setof flowledger.executions
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_is_limited boolean := flowledger.is_limited('{client}');
  v_is_open boolean := flowledger.is_trusted() or exists (select from flowledger.client_limits());
begin
  if cardinality(p_ids) > 1000 then
    raise exception 'seen() was asked for % executions at once', cardinality(p_ids) using errcode = 'FL008', hint = 'ask for at most 1000';
  end if;
  for e in select x.* from flowledger.executions x where x.id = any(p_ids) loop
    continue when v_is_limited and not flowledger.is_granted(e.id);
    e.owner := null;
    e.lease_token := null;
    e.idempotency_key := null;
    e.limit_key := null;
    if not v_is_open then
      e.metadata := null;
      e.error := null;
      e.close_snapshot := null;
    end if;
    return next e;
  end loop;
end $$;

-- Makes a role a client that may start, await and answer only executions of these flows whose metadata contain all of "where", and
-- what those begin; null is no limit. Again: the new limit counts from now on. A role that is missing is made, which needs CREATEROLE.
-- options: actor, reason. Roles that reach more by another right are refused.
create or replace function flowledger.grant_client(role text, flows text[] default null, "where" jsonb default null, options jsonb default '{}') returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_role text := grant_client.role;
  v_filter jsonb := nullif(grant_client."where", 'null');
  v_wrong text;
begin
  perform flowledger.check_options(options, 'grant_client()', '{actor,reason}', '{"actor": "ann", "reason": "a new shop"}');
  if exists (select from unnest(array['actor', 'reason']) o where jsonb_typeof(options -> o) not in ('string', 'null')) then
    raise exception 'actor and reason of grant_client() are texts' using errcode = 'FL008', hint = 'pass them as JSON strings, or leave them out';
  end if;
  perform flowledger.check_actor(options ->> 'actor');
  perform flowledger.check_seen(options ->> 'reason', 'reason', 10000);
  if cardinality(flows) = 0 or cardinality(flows) > 1000 then
    raise exception 'flows of grant_client() must be 1 to 1000 names, got %', cardinality(flows) using errcode = 'FL008', hint = 'pass null for all flows';
  end if;
  select coalesce(f, 'null') into v_wrong from unnest(flows) f where f is null or f !~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$' limit 1;
  if found then
    raise exception 'flow name % is not valid', to_json(left(v_wrong, 40))
      using errcode = 'FL008', hint = 'use 1 to 100 letters, digits and . _ : - that begin with a letter or digit';
  elsif v_filter is not null and (jsonb_typeof(v_filter) <> 'object' or v_filter = '{}' or length(v_filter::text) > 1000) then
    raise exception 'where of grant_client() must be an object of 1 to 1000 characters that is not empty, got %', left(v_filter::text, 40)
      using errcode = 'FL008', hint = 'pass {"tenant": "acme"}, or null for all';
  end if;
  perform flowledger.check_json(v_filter, 'where of grant_client()');
  perform flowledger.make_role(v_role);
  select x.kind into v_wrong from flowledger.role_grants x where x.role = v_role and x.kind <> 'client';
  if found then
    raise exception 'role % is the % of this schema, which no limit of a client holds', to_json(v_role), v_wrong
      using errcode = 'FL008', hint = 'name another role';
  end if;
  if has_table_privilege(v_role, format('%I.workers', 'flowledger'), 'insert') then
    raise exception 'role % may serve as a worker, so no limit would hold it', to_json(v_role)
      using errcode = 'FL008', hint = 'name a role that is no superuser, owns nothing of flowledger, and is no member of its worker';
  end if;
  select r.rolname into v_wrong from flowledger.role_grants x join pg_roles r on r.rolname = x.role
  where x.role <> v_role and pg_has_role(v_role, r.oid, 'member') limit 1;
  if found then
    raise exception 'role % is a member of %, and has its rights as well', to_json(v_role), to_json(v_wrong)
      using errcode = 'FL008', hint = format('revoke %I from %I, or name another role', v_wrong, v_role);
  end if;
  perform flowledger.lock_table('client_grants', 'the list of limited clients');
  insert into flowledger.client_grants (number, role, flows, filter, at, by, actor, reason)
  values (coalesce((select max(g.number) from flowledger.client_grants g), 0) + 1, v_role, grant_client.flows, v_filter, flowledger.wall_clock(), flowledger.caller(), options ->> 'actor', options ->> 'reason');
  insert into flowledger.role_grants (role, kind, at, by) values (v_role, 'client', flowledger.wall_clock(), flowledger.caller())
  on conflict on constraint role_grants_pkey do nothing;
  perform flowledger.apply_grants();
end $$;

-- A role that can log in, once it has a password, and nothing else; one that is there already stays as it is. Refused is one that has
-- rights in another database of this server: whoever logs in there would be somebody here.
create or replace function flowledger.make_role(p_role text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_database text;
begin
  if not exists (select from pg_roles r where r.rolname = p_role) then
    if coalesce(p_role, '') !~ '^[a-z_][a-z0-9_]{0,62}$' or p_role ~ '^pg_' or p_role in ('public', 'none') then
      raise exception 'role name % is not valid', quote_nullable(left(p_role, 80))
        using errcode = 'FL008', hint = 'use lower-case letters, digits and _ , at most 63, and not pg_… as Postgres itself does';
    end if;
    begin
      execute format('create role %I login nosuperuser nocreatedb nocreaterole noinherit', p_role);
      execute format('alter role %I set idle_in_transaction_session_timeout = ''60s''', p_role);
    exception when insufficient_privilege then
      raise exception 'role % may not make role %', to_json(current_user), to_json(p_role)
        using errcode = 'FL008', hint = format('run it as a role that has CREATEROLE, or have one create role %I login, and run it again', p_role);
    end;
    return;
  end if;
  select d.datname into v_database
  from pg_shdepend s join pg_database d on d.oid = s.dbid
  where s.refclassid = 'pg_authid'::regclass and s.refobjid = (select r.oid from pg_roles r where r.rolname = p_role)
    and d.datname <> current_database() limit 1;
  if found then
    raise exception 'role % has rights in database % as well', to_json(p_role), to_json(v_database)
      using errcode = 'FL008', hint = 'roles belong to the whole server: name others for this database';
  end if;
end $$;
