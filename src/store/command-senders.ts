/** Commands are sent alone, or in a transaction of the caller's own; what the database refuses is the library's own error. */
import type { Json } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import { callerTransactions, type CallerTransaction } from "./caller-transaction.ts";
import type { Database } from "./client.ts";
import { commandsBy, type Call, type Commands, type CommandsIn } from "./commands.ts";
import { openCommandQueue, tryWithin } from "./command-queue.ts";
import type { CommandQueue } from "./command-queue.ts";
import { codeOf, mayNot, refusalOf } from "./refusals.ts";

export function commandsOf({ sql, target }: Pick<Database, "sql" | "target">): Commands {
  let lane: CommandQueue | undefined;
  /** Texts of statements by what is called: a statement is prepared once. */
  const statements = new Map<string, TemplateStringsArray>();
  const call: Call = async (name, about, ...args) => {
    lane ??= openCommandQueue(sql.options.max);
    const types = args.map(([type]) => type);
    const key = [name, ...types].join();
    const statement = statements.get(key) ?? statementOf(name, types);
    statements.set(key, statement);
    const values = args.map(([, value]) => value);
    try {
      const [row] = await lane.run(about.id, () => sql<{ answer: Json }[]>(statement, tryWithin, about.id, ...values));
      return row?.answer ?? null;
    } catch (error) {
      throw refusalOf(error, target, about);
    }
  };
  const recordOf = (rows: readonly { readonly record: Json }[]) => rows[0]?.record ?? null;
  const refuseLink = (error: unknown): never => {
    throw refusalOf(error, target, { what: "a link" });
  };
  return {
    // Who waits hears of it from this process.
    ...commandsBy(call, { notifies: false }),
    async close(id, { reason, pendingInterrupts, parked, actor }) {
      const args = [
        ["text", reason],
        ["text", pendingInterrupts],
        ["text", actor],
        ["bool", false],
        ["text", parked],
      ] as const;
      return (await call("close", { id, what: "close" }, ...args)) === true;
    },
    askedByToken: (token) =>
      sql<{ record: Json }[]>`select flowledger.asked_by_token(${token}) as record`.then(recordOf).catch(refuseLink),
    answerByToken: (token, value, actor) =>
      sql<{ record: Json }[]>`
        select flowledger.answer_by_token(${token}, ${JSON.stringify(value)}::text::jsonb, ${JSON.stringify({ actor })}::text::jsonb) as record`
        .then(recordOf)
        .catch(refuseLink),
    responseSchema: (id, interrupt) =>
      sql<{ response: Json }[]>`
        select coalesce(i.response, s.response) as response
        from (select flowledger.projected_owner(${id}::uuid, ${interrupt}) as id) owner
        left join flowledger.interrupts i on i.execution_id = ${id}::uuid and i.id = ${interrupt}
        left join flowledger.interrupts s on i.id is null and s.execution_id = owner.id and s.id = substr(${interrupt}, 38)`
        .then((rows) => rows[0]?.response ?? null)
        .catch((error: unknown) => {
          // A client may not look: its answer is compared where it is accepted.
          if (codeOf(error) === mayNot) return null;
          throw refusalOf(error, target, { id, what: interrupt });
        }),
  };
}

/** The execution's row is not waited for: that is up to the lane. */
function statementOf(name: string, types: readonly string[]): TemplateStringsArray {
  const [first = "", ...others] = types;
  const parts = [
    `select flowledger.${name}(case when set_config('lock_timeout', `,
    ", true) <> '' then ",
    types.length === 0 ? "::uuid end) as answer" : "::uuid end, ",
    ...others.map((_, index) => `::text::${index === 0 ? first : others[index - 1]}, `),
    ...(types.length === 0 ? [] : [`::text::${others.at(-1) ?? first}) as answer`]),
  ];
  return Object.assign(parts, { raw: parts });
}

/**
 * The same in a transaction of the caller's own: they count, and are told, when it commits.
 *
 * @throws {UsageError} for anything but an open transaction of our database that may write
 */
export function commandsInOf(database: Pick<Database, "sql" | "names">) {
  const open = callerTransactions(database);
  return async (tx: CallerTransaction): Promise<CommandsIn> => {
    const transaction = await open(tx);
    const call: Call = async (name, about, ...args) => {
      const given = args.map(([type], index) => `, $${index + 2}::pg_catalog.text::pg_catalog.${type}`);
      const answer = await transaction.ask(
        `coalesce(pg_catalog.to_jsonb(flowledger.${name}($1::pg_catalog.text::pg_catalog.uuid${given.join("")})), 'null'::pg_catalog.jsonb)::pg_catalog.text`,
        [about.id, ...args.map(([, value]) => (typeof value === "boolean" ? String(value) : value))],
        about,
      );
      return JsonValue.parse(JSON.parse(answer));
    };
    return commandsBy(call, { notifies: true });
  };
}
