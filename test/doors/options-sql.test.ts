/** Every argument and every option of every function that SQL offers, by `pg_proc`: what it takes it means, and all else is refused before anything is written. */
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { configure, defer, delay } from "../../src/defer.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Execution, Logger } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { judgedPlaces } from "./options/judge.ts";
import type { Place } from "./options/kinds.ts";
import { leftOut, Made, nobody, sqlRows, type SqlRow } from "./options/sql.ts";
import { odd } from "./options/values.ts";

const database = await testDatabase();
const { sql } = database;
const quiet: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const inner = defineFlow("matrix.inner");
inner.to("ask", (ctx) => ctx.pauseFor({ interruptId: "below" }));
const flow = defineFlow("matrix.sql");
flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
const outer = defineFlow("matrix.outer");
outer.toSubFlow(inner);
const deferred = defer(() => null, { name: "matrix.later" });
const flows = [flow, outer];
const orchestrator = createOrchestrator({ connection: database.url, flows, functions: [deferred], logger: quiet });
afterAll(() => orchestrator.close());

interface PublicFunction {
  readonly name: string;
  readonly names: readonly string[];
  readonly types: readonly string[];
}
let functions: readonly PublicFunction[] = [];
const lab = new Map<Made["what"], string>();
const spares: string[] = [];

beforeAll(async () => {
  functions = await publicFunctions();
  {
    await using asking = createOrchestrator({ connection: database.url, flows, logger: quiet });
    await asking.startWorker({ drainTimeout: "100ms" });
    const [asked, parent] = await Promise.all([
      asking.flow(flow).startExecution(null, { interventionMode: "auto", autoClose: false }),
      asking.flow(outer).startExecution(null, { autoClose: false }),
    ]);
    await Promise.all([untilPending(asked), untilPending(parent)]);
    const [frame] = await parent.getSubFlowFrames();
    lab
      .set("asking", asked.id)
      .set("parent", parent.id)
      .set("frame", frame?.id ?? "");
    lab.set("correction", (await asked.intervene({ text: "other prices" })).id);
  }
  configure(orchestrator);
  lab.set("call", (await delay(deferred, "7d")()).id);
  const made: Execution[] = [];
  for (let count = 0; count < 40; count++)
    made.push(await orchestrator.flow(flow).createExecution({ autoClose: false }));
  spares.push(...made.map(({ id }) => id));
  const closed = await orchestrator.flow(flow).createExecution();
  await closed.cancel();
  lab.set("closed", closed.id);
});

const nameOf = (name: string, args: readonly string[]) => `${name}(${args.join(", ")})`;

test("every function that a role or the schema's owner may call has a row, with each argument, and every row a function", () => {
  const surface = functions
    .filter(({ name }) => !Object.hasOwn(leftOut, name))
    .map(({ name, names }) => nameOf(name, names));
  const rows = sqlRows.map(({ name, args }) => nameOf(name, Object.keys(args)));

  expect(surface.toSorted()).toEqual(rows.toSorted());
  expect(Object.keys(leftOut).filter((name) => !functions.some((one) => one.name === name))).toEqual([]);
});

const walked = sqlRows.filter(({ left }) => left === undefined);

test.each(walked.map((row) => ({ ...row, title: nameOf(row.name, Object.keys(row.args)) })))(
  "$title takes what it says, and refuses all else with a code of ours before anything is written",
  async (row) => {
    const flaws: string[] = [];
    const called = callOf(row);
    const judged = judgedPlaces(row.name, row.args, (place) => valuesAt(called, row, place));
    const before = await rowsOf();
    const wrong = judged.flatMap(({ where, wrong: all }) => all.map((one) => ({ where, ...one })));
    const outcomes = await Promise.all(wrong.map(({ args }) => outcomeOf(called, args)));
    outcomes.forEach(({ code, words }, at) => {
      const { where, what } = wrong[at] ?? {};
      if (!isRefusal(code) || notNow.test(words)) flaws.push(`${where} with ${what} is not refused: ${code} ${words}`);
    });
    const after = await rowsOf();
    if (after !== before) flaws.push(`${row.name} wrote before it refused: ${before} → ${after}`);
    for (const { where, right } of row.isOnlyRefused ? [] : judged)
      for (const { what, args } of right) {
        const { code, words } = await outcomeOf(called, args);
        if (!isTaken(code, words)) flaws.push(`${where} with ${what} is not taken: ${code} ${words}`);
      }

    expect(flaws).toEqual([]);
  },
);

test.each(walked.filter(({ args }) => args["options"]?.fields))(
  "each option that $name says it has stands in its row",
  async (row) => {
    const called = callOf(row);
    const args = Object.entries(row.args).map(([label, kind]) =>
      label === "options" ? { misspelt: 1 } : kind.sample(),
    );
    const { hint } = await outcomeOf(called, args);

    expect(hint.replace(/^use /, "").split(", ").toSorted()).toEqual(
      Object.keys(row.args["options"]?.fields ?? {}).toSorted(),
    );
  },
);

/** Says that a value is wrong, or that there is no such thing. */
function isRefusal(code: string): boolean {
  return ["FL001", "FL005", "FL008"].includes(code);
}

/** What an execution is not ready for, whatever the value. */
const notNow =
  /has no parked chunk|has nothing to skip|is not paused|has gone on since|is taken|is not active|answers are kept/;

function isTaken(code: string, words: string): boolean {
  if (code === "ok") return true;
  return code.startsWith("FL") && (code !== "FL008" || notNow.test(words));
}

async function publicFunctions(): Promise<PublicFunction[]> {
  const undone = new Error("undone");
  let found: PublicFunction[] = [];
  // Roles are the server's: these are gone with the transaction.
  await using stack = new AsyncDisposableStack();
  const admin = postgres(database.adminUrl, { max: 1, onnotice: () => {} });
  stack.defer(() => admin.end());
  await admin
    .begin(async (tx) => {
      await tx`select flowledger.grant_roles('matrix_sql')`;
      found = [
        ...(await tx<PublicFunction[]>`
          select p.proname as name, coalesce(p.proargnames[:p.pronargs], '{}') as names,
            array(select format_type(t, null) from unnest(p.proargtypes) with ordinality a(t, ord) order by ord) as types
          from pg_proc p
          where p.pronamespace = 'flowledger'::regnamespace and p.prorettype <> 'trigger'::regtype
            and (has_function_privilege('matrix_sql_client', p.oid, 'execute') or has_function_privilege('matrix_sql_operator', p.oid, 'execute')
              or has_function_privilege('matrix_sql_auditor', p.oid, 'execute') or not has_function_privilege('matrix_sql_worker', p.oid, 'execute'))`),
      ];
      throw undone;
    })
    .catch((error: unknown) => {
      if (error !== undone) throw error;
    });
  return found;
}

function callOf({ name, args }: SqlRow): PublicFunction {
  const labels = Object.keys(args).join();
  const found = functions.find((one) => one.name === name && one.names.join() === labels);
  if (!found) throw new Error(`there is no function ${name}(${labels})`);
  return found;
}

const storable = (value: unknown) => typeof value === "string" && !value.includes("\0") && value.isWellFormed();
const deep = `${"[".repeat(300)}${"]".repeat(300)}`;
/** A number as JSON may write it, and JavaScript does not hold it. */
class RawNumber {
  readonly #text: string;
  constructor(text: string) {
    this.#text = text;
  }
  toJSON(): unknown {
    const raw: unknown = Reflect.get(JSON, "rawJSON");
    return typeof raw === "function" ? raw(this.#text) : raw;
  }
}
const ofType: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  text: Object.fromEntries(Object.entries(odd).filter(([, value]) => value === null || storable(value))),
  jsonb: {
    ...Object.fromEntries(Object.entries(odd).filter(([, value]) => isSendable(value))),
    "a deep list": JSON.parse(deep),
    "1e400": new RawNumber("1e400"),
    "2^53 + 1": new RawNumber("9007199254740993"),
  },
  uuid: { null: null, "an unknown id": nobody },
  "uuid[]": { null: null, "an empty list": [], "a list of nothing": [null], "an unknown id": [nobody] },
  integer: { null: null, "-1": -1, "0": 0, "1": 1, "the least": -2_147_483_648, "the most": 2_147_483_647 },
  boolean: { null: null, true: true, false: false },
  "double precision": { null: null, "-1": -1, "0": 0, "0.5": 0.5, NaN: Number.NaN, Infinity: Infinity, "1e300": 1e300 },
  "timestamp with time zone": {
    null: null,
    infinity: "infinity",
    "-infinity": "-infinity",
    "before 1970": "1969-12-31T23:59:59Z",
    "after 9999": "12000-01-01T00:00:00Z",
    "before the common era": "0044-03-15 BC",
    "a date": new Date("2030-01-01T00:00:00Z"),
  },
};

/** What the cast to jsonb takes: it is ours to refuse. */
function isSendable(value: unknown): boolean {
  if (["function", "symbol", "bigint", "undefined"].includes(typeof value)) return false;
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value === "string") return storable(value) || value === "";
  if (value instanceof Date || value instanceof Map) return false;
  try {
    JSON.stringify(value);
    return !(Array.isArray(value) && value.includes(undefined));
  } catch {
    return false;
  }
}

function valuesAt({ names, types }: PublicFunction, { args }: SqlRow, place: Place): Readonly<Record<string, unknown>> {
  const at = names.indexOf(place.name.replace(/\[\]$/, ""));
  const type = types[at] ?? "jsonb";
  const values = ofType[place.name.endsWith("[]") ? type.replace(/\[\]$/, "") : type] ?? {};
  const sample = args[place.name]?.sample();
  return sample === undefined ? values : { ...values, "what is right": sample };
}

interface Outcome {
  readonly code: string;
  readonly words: string;
  readonly hint: string;
}

async function outcomeOf({ name, names, types }: PublicFunction, args: readonly unknown[]): Promise<Outcome> {
  const cast = (type: string) => (type === "jsonb" ? "text::jsonb" : `text::${type}`);
  const list = names.map((_, at) => `$${at + 1}::${cast(types[at] ?? "text")}`).join(", ");
  const given = args.map((value, at) => paramOf(value, types[at] ?? "text"));
  try {
    await sql.unsafe(`select flowledger.${name}(${list})`, given);
    return { code: "ok", words: "", hint: "" };
  } catch (error) {
    if (!(error instanceof postgres.PostgresError)) throw error;
    return { code: error.code, words: error.message.slice(0, 200), hint: error.hint ?? "" };
  }
}

/** As text: so the types are those of the function alone. */
function paramOf(value: unknown, type: string): string | null {
  if (value === null) return null;
  if (value instanceof Made)
    return value.what === "spare" ? (spares[spares.length - 1] ?? nobody) : (lab.get(value.what) ?? nobody);
  if (type === "jsonb") return JSON.stringify(value);
  if (Array.isArray(value)) return `{${value.map((one) => paramOf(one, "text") ?? "null").join()}}`;
  return value instanceof Date ? value.toISOString() : String(value);
}

async function rowsOf(): Promise<string> {
  const [row] = await sql<[{ all: string }]>`
    select concat_ws(' ', (select count(*) from flowledger.executions), (select count(*) from flowledger.ledger),
      (select count(*) from flowledger.flow_data), (select count(*) from flowledger.interventions), (select count(*) from flowledger.prunes)) as all`;
  return row.all;
}
