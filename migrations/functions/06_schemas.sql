-- JSON Schema: what answers, outputs and states are checked by where the flow's own code is not at hand. Schemas are input too: they
-- come from a flow, and from what was saved elsewhere. So each way in which one could take for ever is closed.

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
    v_problem := flowledger.schema_problem(p_schema, p_value, p_schema, '', flowledger.wall_clock() + interval '2 seconds', '{}');
  exception when invalid_regular_expression then
    raise exception '% is checked by a pattern that Postgres does not know (%)', p_what, sqlerrm using errcode = 'FL008', hint = p_instead;
  when statement_too_complex then
    v_problem := ' is nested too deep';
  when program_limit_exceeded or data_exception then
    raise exception '% cannot be checked: its schema %', p_what, case when sqlstate = '54000' then sqlerrm else format('is not a JSON Schema (%s)', sqlerrm) end
      using errcode = 'FL008', hint = 'correct the schema in the code of the flow';
  end;
  if v_problem is not null then
    perform flowledger.refuse_by_contract(p_what, format('%s %s: it%s', p_what, p_breaks, v_problem), p_remedy, 'it' || v_problem);
  end if;
end $$;

-- Refuses what a contract refuses. Its detail says so: the library has an error of its own for that.
create or replace function flowledger.refuse_by_contract(p_what text, p_message text, p_remedy text, p_issue text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '%', p_message using errcode = 'FL008', hint = p_remedy, detail = jsonb_build_object('where', p_what, 'issues',
    jsonb_build_array(jsonb_build_object('path', '[]'::jsonb, 'message', p_issue, 'code', 'custom')))::text;
end $$;

-- The problem of a value with a JSON Schema, in words that follow "it"; null when the value fits. Keywords that only annotate count nothing.
--   p_until   when it gives up
--   p_refs    what led here without a step into the value: a schema that comes back to one of them never ends
create or replace function flowledger.schema_problem(p_schema jsonb, p_value jsonb, p_root jsonb, p_place text, p_until timestamptz, p_refs text[])
returns text
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
  v_count int := 0;
begin
  if flowledger.wall_clock() > p_until then
    raise exception 'takes longer than two seconds' using errcode = 'program_limit_exceeded';
  elsif p_schema = 'false' then
    return p_place || ' must not be there';
  elsif jsonb_typeof(p_schema) is distinct from 'object' then
    return null;
  end if;
  if p_schema ? '$ref' then
    if p_schema ->> '$ref' = any(p_refs) then
      raise exception 'leads to itself at %', to_json(left(p_schema ->> '$ref', 200)) using errcode = 'program_limit_exceeded';
    end if;
    return flowledger.schema_problem(
      flowledger.schema_at(p_root, p_schema ->> '$ref'), p_value, p_root, p_place, p_until, p_refs || (p_schema ->> '$ref'));
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
    -- Code points, as JSON Schema and zod count them.
    v_length := length(v_text);
    if v_length < (p_schema ->> 'minLength')::numeric or v_length > (p_schema ->> 'maxLength')::numeric then
      return format('%s has %s characters', p_place, v_length);
    elsif p_schema ? 'pattern' and not flowledger.fits_pattern(v_text, p_schema ->> 'pattern')
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
        coalesce(p_schema -> 'prefixItems' -> s.index::int, p_schema -> 'items'), s.value, p_root, format('%s[%s]', p_place, s.index),
        p_until, '{}');
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
        flowledger.schema_problem(p_schema -> 'propertyNames', to_jsonb(s.key), p_root, format('%s key %s', p_place, to_json(s.key)), p_until, '{}'),
        flowledger.schema_problem(coalesce(p_schema -> 'properties' -> s.key,
          (select p.value from jsonb_each(p_schema -> 'patternProperties') p where flowledger.fits_pattern(s.key, p.key) limit 1),
          p_schema -> 'additionalProperties'), s.value, p_root, format('%s.%s', p_place, s.key), p_until, '{}'));
      if v_problem is not null then
        return v_problem;
      end if;
    end loop;
  else
    null;
  end case;
  for s in select a.value from jsonb_array_elements(p_schema -> 'allOf') a loop
    v_problem := flowledger.schema_problem(s.value, p_value, p_root, p_place, p_until, p_refs);
    if v_problem is not null then
      return v_problem;
    end if;
  end loop;
  if p_schema ? 'anyOf' or p_schema ? 'oneOf' then
    select count(*) into v_count from jsonb_array_elements(coalesce(p_schema -> 'oneOf', p_schema -> 'anyOf')) a
    where flowledger.schema_problem(a.value, p_value, p_root, p_place, p_until, p_refs) is null;
    if v_count = 0 or v_count > 1 and p_schema ? 'oneOf' then
      return format('%s fits %s of its choices', p_place, case when v_count = 0 then 'none' else 'several' end);
    end if;
  end if;
  if p_schema ? 'not' and flowledger.schema_problem(p_schema -> 'not', p_value, p_root, p_place, p_until, p_refs) is null then
    return format('%s is what it must not be', p_place);
  end if;
  return null;
end $$;

-- The part of a schema that a $ref names: of itself, as a JSON Pointer.
create or replace function flowledger.schema_at(p_root jsonb, p_ref text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found jsonb;
begin
  if p_ref = '#' or p_ref like '#/%' then
    v_found := p_root #> array(
      select replace(replace(step, '~1', '/'), '~0', '~') from unnest(string_to_array(nullif(substr(p_ref, 3), ''), '/')) with ordinality s(step, ord) order by ord);
  end if;
  if v_found is null then
    raise exception 'names %, which is not in it', to_json(left(p_ref, 200)) using errcode = 'program_limit_exceeded';
  end if;
  return v_found;
end $$;

-- Whether a text has what a pattern of JavaScript asks for. Postgres finds most of them in one pass over the text. What could take it
-- much longer is refused as a pattern that it does not know: back references, lookaround in lookaround, or over a long text.
create or replace function flowledger.fits_pattern(p_text text, p_pattern text) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rest text;
  v_less text;
begin
  if length(p_pattern) > 2000 then
    raise exception 'it has more than 2000 characters' using errcode = 'invalid_regular_expression';
  elsif strpos(p_pattern, '\') > 0 and regexp_replace(p_pattern, '\\[^1-9k]', '', 'g') ~ '\\[1-9k]' then
    raise exception 'it refers back to what it has found' using errcode = 'invalid_regular_expression';
  elsif p_pattern ~ '\(\?<?[=!]' then
    if length(p_text) > 10000 then
      raise exception 'it looks around in a text of more than 10000 characters' using errcode = 'invalid_regular_expression';
    end if;
    -- Without what is escaped or in brackets, parentheses are groups: from the innermost on, chr(1) in the place of those that look around.
    v_rest := regexp_replace(regexp_replace(replace(p_pattern, chr(1), ''), '\\.', '', 'g'), '\[[^]]*\]', '', 'g');
    loop
      if v_rest ~ ('\(\?<?[=!][^()]*' || chr(1) || '[^()]*\)') then
        raise exception 'it looks around while it looks around' using errcode = 'invalid_regular_expression';
      end if;
      v_less := regexp_replace(regexp_replace(v_rest, '\(\?<?[=!][^()]*\)', chr(1), 'g'), '\((?!\?<?[=!])([^()]*)\)', '\1', 'g');
      exit when v_less = v_rest;
      v_rest := v_less;
    end loop;
  end if;
  return p_text ~ ('(?:' || p_pattern || ')');
end $$;
