-- What may come in at the front door: payloads, texts, options, moments, answers. The library calls the same functions, so these
-- checks hold for it too; it says some of them earlier, with the place in the caller's own value.

-- May this session say what only the library knows, e.g. that a contract has seen a value? Whoever can write the ledger may: a
-- worker, the owner. Judged by who logged in, or works as whom: the rights of these functions are their owner's.
create or replace function flowledger.is_trusted() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select has_table_privilege(flowledger.working_role(), format('%I.ledger', 'flowledger'), 'insert')
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
--   p_where   names the door, e.g. input
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

-- Refuses an actor that is too long, or that is the library's own: what it does on its own account says so in the ledger.
create or replace function flowledger.check_actor(p_actor text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_text(p_actor, 'actor');
  if p_actor in ('parent', 'limit') then
    raise exception 'actor % is reserved', to_json(p_actor) using errcode = 'FL008', hint = 'name who asked for it';
  end if;
end $$;

-- Refuses an answer that is not what the interrupt asked for, as JSON Schema: by what `pauseFor({ response })` makes of a zod schema.
create or replace function flowledger.check_answer(p_schema jsonb, p_value jsonb, p_interrupt text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_schema(p_schema, p_value, format('the answer to interrupt %s', to_json(left(p_interrupt, 200))), 'does not fit what it asks for',
    'answer it with continueWith() of the library', 'read its response in getPendingInterrupts(), and change the answer');
end $$;

-- Refuses a value that breaks a JSON Schema. p_instead: what to do where the schema has a pattern that Postgres does not know.
create or replace function flowledger.check_schema(p_schema jsonb, p_value jsonb, p_what text, p_breaks text, p_instead text, p_remedy text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text;
begin
  begin
    v_problem := flowledger.schema_problem(p_schema, p_value, p_schema, '');
  exception when invalid_regular_expression then
    raise exception '% is checked by a pattern that Postgres does not know (%)', p_what, sqlerrm using errcode = 'FL008', hint = p_instead;
  when statement_too_complex then
    v_problem := 'is nested too deep';
  end;
  if v_problem is not null then
    raise exception '% %: it%', p_what, p_breaks, v_problem using errcode = 'FL008', hint = p_remedy;
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
    raise exception '% has an unknown option %', p_what, to_json(left(v_wrong, 40)) using errcode = 'FL008', hint = format('use %s', array_to_string(p_known, ', '));
  end if;
end $$;

-- What is wrong with a value by a JSON Schema, in words that follow "it"; null when it fits. Keywords that only annotate count nothing.
create or replace function flowledger.schema_problem(p_schema jsonb, p_value jsonb, p_root jsonb, p_place text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type text := jsonb_typeof(p_value);
  v_text text := p_value #>> '{}';
  v_number numeric;
  v_length int;
  v_problem text;
  v_types jsonb;
  s record;
  v_count int;
begin
  if p_schema = 'false' then
    return p_place || ' must not be there';
  elsif jsonb_typeof(p_schema) is distinct from 'object' then
    return null;
  end if;
  if p_schema ? '$ref' then
    return flowledger.schema_problem(
      p_root #> string_to_array(nullif(ltrim(substr(p_schema ->> '$ref', 2), '/'), ''), '/'), p_value, p_root, p_place);
  end if;
  if p_schema ? 'type' then
    v_types := case jsonb_typeof(p_schema -> 'type') when 'array' then p_schema -> 'type' else jsonb_build_array(p_schema -> 'type') end;
    if not (v_types ? v_type or v_type = 'number' and v_types ? 'integer' and p_value::numeric % 1 = 0) then
      return format('%s must be %s, got %s', p_place, (select string_agg(t, ' or ') from jsonb_array_elements_text(v_types) t), left(p_value::text, 40));
    end if;
  end if;
  if p_schema ? 'const' and p_value <> p_schema -> 'const' or p_schema ? 'enum' and not exists (
      select from jsonb_array_elements(p_schema -> 'enum') e where e = p_value) then
    return format('%s must be one of %s, got %s', p_place, left(coalesce(p_schema -> 'enum', jsonb_build_array(p_schema -> 'const'))::text, 200), left(p_value::text, 40));
  end if;
  case v_type
  when 'string' then
    v_length := length(v_text);
    if v_length < (p_schema ->> 'minLength')::numeric or v_length > (p_schema ->> 'maxLength')::numeric then
      return format('%s has %s characters', p_place, v_length);
    elsif p_schema ? 'pattern' and v_text !~ ('(?:' || (p_schema ->> 'pattern') || ')')
      or p_schema ->> 'format' = 'uri' and v_text !~ '^[A-Za-z][A-Za-z0-9+.-]*:[^[:space:]]+$'
      or p_schema ->> 'format' = 'jwt' and v_text !~ '^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$' then
      return format('%s is not a text as %s asks for', p_place, coalesce(p_schema ->> 'format', 'its pattern'));
    end if;
  when 'number' then
    v_number := p_value::numeric;
    if v_number < (p_schema ->> 'minimum')::numeric or v_number > (p_schema ->> 'maximum')::numeric
      or v_number <= (p_schema ->> 'exclusiveMinimum')::numeric or v_number >= (p_schema ->> 'exclusiveMaximum')::numeric
      or v_number % nullif((p_schema ->> 'multipleOf')::numeric, 0) <> 0 then
      return format('%s is out of its range', p_place);
    end if;
  when 'array' then
    v_length := jsonb_array_length(p_value);
    if v_length < (p_schema ->> 'minItems')::numeric or v_length > (p_schema ->> 'maxItems')::numeric then
      return format('%s has %s items', p_place, v_length);
    elsif p_schema -> 'uniqueItems' = 'true' and v_length > (select count(distinct i) from jsonb_array_elements(p_value) i) then
      return format('%s has an item twice', p_place);
    end if;
    for s in select i.value, i.ordinality - 1 as index from jsonb_array_elements(p_value) with ordinality i loop
      v_problem := flowledger.schema_problem(
        coalesce(p_schema -> 'prefixItems' -> s.index::int, p_schema -> 'items'), s.value, p_root, format('%s[%s]', p_place, s.index));
      if v_problem is not null then
        return v_problem;
      end if;
    end loop;
  when 'object' then
    select k into v_text from jsonb_array_elements_text(coalesce(p_schema -> 'required', '[]')) k where not p_value ? k limit 1;
    if found then
      return format('%s.%s is missing', p_place, v_text);
    end if;
    for s in select f.key, f.value from jsonb_each(p_value) f loop
      v_problem := coalesce(
        flowledger.schema_problem(p_schema -> 'propertyNames', to_jsonb(s.key), p_root, format('%s key %s', p_place, to_json(s.key))),
        flowledger.schema_problem(coalesce(p_schema -> 'properties' -> s.key,
          (select p.value from jsonb_each(p_schema -> 'patternProperties') p where s.key ~ ('(?:' || p.key || ')') limit 1),
          p_schema -> 'additionalProperties'), s.value, p_root, format('%s.%s', p_place, s.key)));
      if v_problem is not null then
        return v_problem;
      end if;
    end loop;
  else
    null;
  end case;
  for s in select a.value from jsonb_array_elements(p_schema -> 'allOf') a loop
    v_problem := flowledger.schema_problem(s.value, p_value, p_root, p_place);
    if v_problem is not null then
      return v_problem;
    end if;
  end loop;
  if p_schema ? 'anyOf' or p_schema ? 'oneOf' then
    select count(*) into v_count from jsonb_array_elements(coalesce(p_schema -> 'oneOf', p_schema -> 'anyOf')) a
    where flowledger.schema_problem(a.value, p_value, p_root, p_place) is null;
    if v_count = 0 or v_count > 1 and p_schema ? 'oneOf' then
      return format('%s fits %s of its choices', p_place, case when v_count = 0 then 'none' else 'several' end);
    end if;
  end if;
  if p_schema ? 'not' and flowledger.schema_problem(p_schema -> 'not', p_value, p_root, p_place) is null then
    return format('%s is what it must not be', p_place);
  end if;
  return null;
end $$;
