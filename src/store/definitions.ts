/** Whether functions and triggers in a database are still those that its migration made: by text, owner and state, not by name. */
import type { Database } from "./client.ts";
import { list } from "./columns.ts";
import { withNames } from "./names.ts";
import { sqlFiles } from "./sql-files.ts";

interface Found {
  readonly name: string;
  readonly body: string;
  readonly isDefiner: boolean;
  readonly isOwners: boolean;
  readonly isPinned: boolean;
}

/** What keeps these append-only: the bits of `tgtype` say when it fires. */
const appendOnly = [
  "ledger",
  "chain",
  "anchors",
  "client_grants",
  "flow_pauses",
  "bulks",
  "bulk_targets",
  "bulk_results",
];
const triggers = appendOnly.flatMap((table) => [
  { table, name: `${table}_append_only`, type: 27 },
  { table, name: `${table}_no_truncate`, type: 34 },
]);

/** A test kit puts others in their place. */
const replaceable = new Set(["now", "clock_offset"]);

/** In words; none where all is as it was. Only the release that migrated last knows the texts: for another one triggers alone are compared. */
export async function changedDefinitions({ sql, names }: Pick<Database, "sql" | "names">): Promise<string[]> {
  const standing = await sql<{ table: string; name: string; enabled: string; type: number; own: boolean }[]>`
    select c.relname as "table", t.tgname as name, t.tgenabled as enabled, t.tgtype::int as type,
      p.proname = 'refuse_change' and p.pronamespace = c.relnamespace and t.tgqual is null as own
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = ${names.schema} and c.relname = any(${list(appendOnly)}::text::text[]) and not t.tgisinternal`;
  const problems = triggers.flatMap(({ table, name, type }) => {
    const found = standing.find((one) => one.table === table && one.name === name);
    if (!found) return `trigger ${name} on ${names.schema}.${table} is missing`;
    if (found.enabled !== "A")
      return `trigger ${name} on ${names.schema}.${table} is ${states[found.enabled] ?? "off"}`;
    return found.type === type && found.own ? [] : `trigger ${name} on ${names.schema}.${table} does something else`;
  });
  for (const { table, name, type } of standing)
    // A trigger that fires before a row is written may change the row, or drop it.
    if ((type & before) !== 0 && !triggers.some((ours) => ours.table === table && ours.name === name))
      problems.push(`trigger ${name} on ${names.schema}.${table} is not ours`);
  problems.push(...(await changedRights({ sql, names })));
  const [recorded] = await sql<{ hash: string }[]>`select hash from flowledger.migrations where name = 'functions'`;
  const { functions, functionsHash } = sqlFiles();
  if (recorded?.hash !== functionsHash) return problems;
  const rows = await sql<Found[]>`
    select p.proname as name, p.prosrc as body, p.prosecdef as "isDefiner", p.proowner = n.nspowner as "isOwners",
      p.prosqlbody is not null or coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false) as "isPinned"
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = ${names.schema}`;
  for (const { name, body, isDefiner } of functions.flatMap(({ text }) => definedIn(withNames(text, names)))) {
    const same = rows.filter((row) => row.name === name);
    // A function whose body is parsed at its creation has no text left.
    const found = same.find((row) => body === null || replaceable.has(name) || row.body === body);
    if (same.length === 0) problems.push(`function ${names.schema}.${name} is missing`);
    else if (!found) problems.push(`function ${names.schema}.${name} has another text`);
    else if (body !== null && found.isDefiner !== isDefiner && !replaceable.has(name))
      problems.push(`function ${names.schema}.${name} runs with other rights`);
  }
  for (const { name, isOwners, isPinned } of rows) {
    if (!isOwners) problems.push(`function ${names.schema}.${name} belongs to another role than the schema`);
    if (!isPinned && !replaceable.has(name)) problems.push(`function ${names.schema}.${name} has another search_path`);
  }
  return [...new Set(problems)];
}

/** Of `tgtype`. */
const before = 2;

/** What nobody of ours granted, or switched on: rules, policies, other owners, and rights of everybody or to change what is append-only. */
async function changedRights({ sql, names }: Pick<Database, "sql" | "names">): Promise<string[]> {
  const found = await sql<{ problem: string }[]>`
    with ours as (select c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.relrowsecurity, n.nspowner, c.relname = any(${list(appendOnly)}::text::text[]) as kept
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = ${names.schema} and c.relkind in ('r', 'v', 'p'))
    select format('rule %s on %s.%s is not ours', r.rulename, ${names.schema}::text, o.relname) as problem
    from ours o join pg_rewrite r on r.ev_class = o.oid where o.relkind = 'r'
    union all
    select format('row level security is on for %s.%s', ${names.schema}::text, o.relname) from ours o where o.relrowsecurity
    union all
    select format('table %s.%s belongs to another role than the schema', ${names.schema}::text, o.relname) from ours o where o.relowner <> o.nspowner
    union all
    select format('%s may %s %s.%s', case a.grantee when 0 then 'everybody' else 'role ' || pg_get_userbyid(a.grantee) end, lower(a.privilege_type), ${names.schema}::text, o.relname)
    from ours o cross join aclexplode(o.relacl) a
    where a.grantee <> o.relowner and a.privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
      and (a.grantee = 0 or o.kept and a.privilege_type <> 'INSERT')
    union all
    select format('everybody may call %s', p.oid::regprocedure)
    from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    where p.pronamespace = to_regnamespace(${names.schema}) and a.grantee = 0 and a.privilege_type = 'EXECUTE'
    order by 1`;
  return found.map(({ problem }) => problem);
}

const states: Readonly<Record<string, string>> = { D: "disabled", O: "not enabled always", R: "not enabled always" };

const definition =
  /create or replace function "?\w+"?\.(\w+)\(([\s\S]*?)(?:\nas )?(?:\$\$([\s\S]*?)\$\$|\nreturn |\nbegin atomic\b)/g;

function definedIn(text: string): { name: string; body: string | null; isDefiner: boolean }[] {
  return Array.from(text.matchAll(definition), ([, name = "", head = "", body]) => ({
    name,
    body: body ?? null,
    isDefiner: /\bsecurity definer\b/.test(head),
  }));
}
