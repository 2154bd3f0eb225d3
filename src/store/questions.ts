/** Questions that an auditor asks of one execution, from its ledger alone: each with the query that answers it, to be shown and learned from. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { withNames } from "./names.ts";

export interface Answer {
  readonly question: string;
  /** `$1` is the execution's id. */
  readonly query: string;
  readonly rows: readonly Readonly<Record<string, unknown>>[];
}

const questions = [
  {
    question: "What happened when?",
    query: `select type, count(*)::int as events, min(seq) as first_seq,
  round(extract(epoch from min(at) - min(min(at)) over ()) * 1000, 1) as first_ms
from flowledger.ledger where execution_id = $1
group by type order by min(seq)`,
  },
  {
    question: "Which chunk was the longest between two events?",
    query: `select chunk, count(*)::int as events, round(max(gap) * 1000, 1) as longest_ms
from (select chunk, extract(epoch from at - lag(at) over (order by seq)) as gap
      from flowledger.ledger where execution_id = $1) as gaps
where chunk is not null group by chunk order by longest_ms desc, chunk limit 5`,
  },
  {
    question: "Who changed the state?",
    query: `select seq, chunk as author, type, payload ->> 'key' as key, left(payload ->> 'value', 60) as value
from flowledger.ledger where execution_id = $1 and type like 'state.%'
order by seq`,
  },
] as const;

export async function answersFor({ sql, names }: Pick<Database, "sql" | "names">, id: ExecutionId): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const { question, query: text } of questions) {
    const query = withNames(text, names);
    answers.push({ question, query, rows: [...(await sql.unsafe<Record<string, unknown>[]>(query, [id]))] });
  }
  return answers;
}
