-- Checks of what clients send: payloads, texts, options, moments. The library calls the same functions, so these
-- checks hold for it too; it says some of them earlier, with the place in the caller's own value.

-- May this session say what only the library knows, e.g. that a contract has seen a value? Whoever can register a worker may:
-- a worker, the owner. Judged by who logged in, or works as whom: the rights of these functions are their owner's.
create or replace function flowledger.is_trusted() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select has_table_privilege(flowledger.working_role(), format('%I.workers', 'flowledger'), 'insert')
$$;

-- A number that JavaScript reads as it is written.
create or replace function flowledger.is_exact(p_value numeric) returns boolean
language sql stable parallel safe
return case
  when scale(p_value) = 0 and p_value between -9007199254740992 and 9007199254740992 then true
  -- No number that JavaScript writes has more decimals, and their text could be long.
  when scale(p_value) > 324 or abs(p_value) > 1.7976931348623157e308 then false
  when p_value <> 0 and abs(p_value) < 5e-324 then false
  -- Between two numbers Postgres writes a digit that JavaScript does not need.
  else p_value::float8::text::numeric = p_value
    or length(btrim(replace(abs(p_value)::text, '.', ''), '0')) < length(btrim(replace(abs(p_value::float8::text::numeric)::text, '.', ''), '0')) end;

-- Refuses what the ledger cannot hold, or JavaScript cannot read: as `toJson` of the library does, in `base/json.ts`.
--   p_where   names what is checked, e.g. input
create or replace function flowledger.check_json(p_value jsonb, p_where text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- A float8 becomes its shortest text.
set extra_float_digits = 1
as $$
declare
  v_text text;
  v_problem text;
  v_remedy text := 'change the value';
  v_path jsonb := '[]';
begin
  -- Most values are small, and their numbers small and whole: there their text tells. Otherwise numbers come first, because a few bytes
  -- of jsonb may be a long text.
  if pg_column_size(p_value) <= 4096 and not p_value @? 'strict $.** ? (@.type() == "number" && (@ > 9007199254740992 || @ < -9007199254740992))' then
    v_text := p_value::text;
  end if;
  -- No value of 1 MiB has more bytes as jsonb.
  if pg_column_size(p_value) > 6291456 then
    v_problem := 'larger than 1048576 bytes';
    v_remedy := 'store the data elsewhere and send a reference to it';
  elsif (v_text is null or v_text ~ '[0-9]\.[0-9]') and exists (select from jsonb_path_query(p_value, 'strict $.** ? (@.type() == "number")') n where not flowledger.is_exact(n::numeric)) then
    v_path := flowledger.place_of(p_value, 'number');
    v_problem := format('%s is not a number that JavaScript holds exactly', left((p_value #> array(select jsonb_array_elements_text(v_path)))::text, 40));
    v_remedy := 'send it as a text';
  else
    v_text := coalesce(v_text, p_value::text);
    if octet_length(v_text) > 1048576 then
      v_problem := 'larger than 1048576 bytes';
      v_remedy := 'store the data elsewhere and send a reference to it';
    elsif strpos(v_text, '"__proto__": ') > 0 and v_text ~ '[{ ]"__proto__": ' then
      v_path := flowledger.place_of(p_value, '__proto__');
      v_problem := 'the key __proto__ is not allowed';
      v_remedy := 'rename it';
    elsif strpos(v_text, '"constructor": {') > 0 and p_value @? 'strict $.** ? (exists (@.constructor ? (exists (@.prototype))))' then
      v_path := flowledger.place_of(p_value, 'constructor');
      v_problem := 'the key prototype in constructor is not allowed';
      v_remedy := 'rename it';
    elsif length(v_text) > 400 and p_value @? 'strict $.**{200} ? (@.type() == "object" || @.type() == "array")' then
      v_problem := 'nested deeper than 200 levels';
      v_remedy := 'flatten it';
    end if;
  end if;
  if v_problem is not null then
    raise exception '%: %', p_where || case when v_path = '[]' then '' else ' at ' || v_path::text end, v_problem
      using errcode = 'FL008', hint = v_remedy, detail = jsonb_build_object('where', p_where, 'path', v_path, 'problem', v_problem)::text;
  end if;
exception when statement_too_complex then
  raise exception '%: nested deeper than 200 levels', p_where
    using errcode = 'FL008', hint = 'flatten it', detail = jsonb_build_object('where', p_where, 'path', '[]'::jsonb, 'problem', 'nested deeper than 200 levels')::text;
end $$;

-- Where in a value the first thing is that `check_json` refuses: its path, in keys and indexes.
create or replace function flowledger.place_of(p_value jsonb, p_what text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive node(path, value) as (
    select '[]'::jsonb, p_value
    union all
    select n.path || c.step, c.value
    from node n cross join lateral (
      select to_jsonb(o.key) as step, o.value from jsonb_each(case jsonb_typeof(n.value) when 'object' then n.value else '{}' end) o
      union all
      select to_jsonb(a.ordinality - 1), a.value
      from jsonb_array_elements(case jsonb_typeof(n.value) when 'array' then n.value else '[]' end) with ordinality a) c
    where jsonb_array_length(n.path) < 200
  )
  select coalesce((
    select n.path from node n
    where case p_what when 'number' then case when jsonb_typeof(n.value) = 'number' then not flowledger.is_exact(n.value::numeric) end
      else n.path ->> -1 = p_what end
    limit 1), '[]')
$$;

-- Refuses a name, an actor or another text that is empty or too long. Null is none.
create or replace function flowledger.check_text(p_value text, p_what text, p_max int default 500) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value = '' or length(p_value) > p_max then
    raise exception '% must be a text of 1 to % characters, got %', p_what, p_max, to_json(left(p_value, 40))
      using errcode = 'FL008', hint = 'shorten it, or leave it out';
  end if;
end $$;

-- What people see of a text: all but white space and characters without a width. As `seenOf` of the library, in `base/option.ts`.
create or replace function flowledger.seen_of(p_text text) returns text
language sql immutable parallel safe
return regexp_replace(p_text, '[\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]', '', 'g');

-- Refuses a text for people that is too long, or of which they see nothing. Null is none.
create or replace function flowledger.check_seen(p_value text, p_what text, p_max int default 500) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_text(p_value, p_what, p_max);
  if flowledger.seen_of(p_value) = '' then
    raise exception 'of % % nothing is seen', p_what, to_json(left(p_value, 40))
      using errcode = 'FL008', hint = case p_what when 'actor' then 'name who asked for it' else 'write something that people see' end;
  end if;
end $$;

-- Refuses an actor that is too long, of whom nothing is seen, or that looks like the library's own: what that does on its own account
-- says so in the ledger.
create or replace function flowledger.check_actor(p_actor text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_seen(p_actor, 'actor');
  if flowledger.seen_of(p_actor) in ('parent', 'limit', 'timer', 'link') then
    raise exception 'actor % is reserved', to_json(p_actor) using errcode = 'FL008', hint = 'name who asked for it';
  end if;
end $$;

-- Refuses options of a command that are none, or that it does not know.
create or replace function flowledger.check_options(p_options jsonb, p_what text, p_known text[], p_example text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wrong text;
begin
  if jsonb_typeof(p_options) is distinct from 'object' then
    raise exception 'options of % must be an object, got %', p_what, coalesce(left(p_options::text, 40), 'null')
      using errcode = 'FL008', hint = 'pass ' || p_example;
  end if;
  select o into v_wrong from jsonb_object_keys(p_options) o where o <> all(p_known) limit 1;
  if found then
    raise exception '% has an unknown option %', p_what, to_json(left(v_wrong, 40)) using errcode = 'FL008', hint = case when p_known = '{}' then 'leave it out' else format('use %s', array_to_string(p_known, ', ')) end;
  end if;
end $$;
