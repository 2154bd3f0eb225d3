/** Commands are sent alone, with a claim, or in a transaction of the caller's own; what the database refuses is the library's own error. */
import type { Json } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import { withAnswerLimit } from "./batcher.ts";
import { callerTransactions, type CallerTransaction } from "./caller-transaction.ts";
import { foldClaims, type Claim, type ClaimOptions, type ClaimRow } from "./claims.ts";
import type { Database } from "./client.ts";
import { statement } from "./columns.ts";
import { commandsBy, type Call, type Commands, type CommandsIn } from "./commands.ts";
import { openCommandQueue, tryWithin } from "./command-queue.ts";
import type { CommandQueue } from "./command-queue.ts";
import { refusalOf } from "./refusals.ts";
import { snapshotVersion } from "../ledger/state.ts";
import type { WorkerId } from "../ledger/event.ts";

/** Who claims what a command wakes. */
export interface Claimant extends ClaimOptions {
  readonly worker: WorkerId;
  readonly token: string;
  /** Called with what the command's own statement claimed. */
  readonly claimed: (claim: Claim) => void;
}

export interface CommandSenders {
  readonly commands: Commands;
  /** The same by a worker that has room: an execution that a command wakes is claimed in its statement, and needs no job. */
  readonly commandsClaiming: (claimant: Claimant) => CommandsIn;
}

/** @param answerMs how long each waits for its answer; null is for ever */
export function commandSendersOf(
  { sql, target }: Pick<Database, "sql" | "target">,
  answerMs: number | null = null,
): CommandSenders {
  let lane: CommandQueue | undefined;
  /** Texts of statements by what is called: a statement is prepared once. */
  const statements = new Map<string, TemplateStringsArray>();
  const callBy =
    (claimant: Claimant | null): Call =>
    async (name, about, ...args) => {
      lane ??= openCommandQueue(sql.options.max);
      const types = args.map(([type]) => type);
      const key = [name, claimant !== null, ...types].join();
      const prepared = statements.get(key) ?? statementOf(name, types, claimant !== null);
      statements.set(key, prepared);
      const { id } = about;
      const values = [...(claimant ? [id] : []), id, ...args.map(([, value]) => value)];
      const claim = claimant ? [claimant.worker, claimant.token, id, snapshotVersion] : [];
      try {
        const rows = await lane.run(id, () =>
          withAnswerLimit(
            sql<({ answer: Json } & (ClaimRow | { id: null }))[]>(prepared, tryWithin, ...values, ...claim),
            answerMs,
          ),
        );
        if (claimant) {
          const taken = rows.filter((row) => row.id !== null);
          for (const own of (await foldClaims(sql, taken, claimant.worker, claimant)).values()) claimant.claimed(own);
        }
        return rows[0]?.answer ?? null;
      } catch (error) {
        throw refusalOf(error, target, about);
      }
    };
  const asked = (rows: Promise<readonly { readonly record: Json }[]>): Promise<Json> =>
    withAnswerLimit(rows, answerMs).then(
      ([row]) => row?.record ?? null,
      (error: unknown) => {
        throw refusalOf(error, target, { what: "a link" });
      },
    );
  const commands: Commands = {
    // This process wakes the waiting readers itself.
    ...commandsBy(callBy(null), { notifies: false }),
    async close(id, { reason, pendingInterrupts, parked, actor }) {
      const args = [
        ["text", reason],
        ["text", pendingInterrupts],
        ["text", actor],
        ["bool", false],
        ["text", parked],
      ] as const;
      return (await callBy(null)("close", { id, what: "close" }, ...args)) === true;
    },
    askedByToken: (token) => asked(sql<{ record: Json }[]>`select flowledger.asked_by_token(${token}) as record`),
    answerByToken: (token, value, options) =>
      asked(sql<{ record: Json }[]>`
        select flowledger.answer_by_token(${token}, ${JSON.stringify(value)}::text::jsonb, ${JSON.stringify(options)}::text::jsonb) as record`),
  };
  return { commands, commandsClaiming: (claimant) => commandsBy(callBy(claimant), { notifies: false }) };
}

/** The execution's row is not waited for: that is up to the lane. */
function statementOf(name: string, types: readonly string[], claims: boolean): TemplateStringsArray {
  const told = claims ? " and set_config('fl.told', ?, true) <> ''" : "";
  const id = `case when set_config('lock_timeout', ?, true) <> ''${told} then ?::uuid end`;
  const command = `select flowledger.${name}(${[id, ...types.map((type) => `?::text::${type}`)].join(", ")}) as answer`;
  return statement(
    claims
      ? `select c.answer, k.* from (${command}) c
        left join lateral flowledger.claim_told(c.answer is null, ?::uuid, ?::uuid, ?::uuid, ?::int) k on true`
      : command,
  );
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
