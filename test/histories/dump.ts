/** What a history leaves in the database, without what chance and the clock put there. */
import type postgres from "postgres";
import type { Json, JsonObject } from "../../src/index.ts";

/**
 * What is compared of each table, in this order; a column that comes new is one line here. A column that is null is left
 * out of the dump, so it shows only where it says something.
 */
const executionColumns = [
  "id",
  "flow",
  "parent_id",
  "fingerprint",
  "seq",
  "epoch",
  "takeovers::int",
  "status",
  "lifecycle",
  "outcome",
  "close_reason",
  "error",
  "close_snapshot",
  "metadata",
  "priority::int",
  "limit_key",
  "idempotency_key is not null as has_idempotency_key",
  "pending_interrupts",
  "stream_seq::int",
  "stream_ended",
  "owner is null as is_free",
  "wake_at is null as is_asleep",
  "created_at",
  "started_at",
  "sealed_at",
  "closed_at",
];
const parts = {
  ledger: { order: "seq", columns: ["seq", "epoch", "type", "dispatch", "chunk", "actor", "payload"] },
  interrupts: {
    order: "created_at, id",
    columns: [
      "id",
      "flow",
      "chunk",
      "type",
      "status",
      "payload",
      "resume_to",
      "resume_count",
      "max_resumes",
      "created_at",
      "expires_at",
      "resolved_at",
      "value",
      "request_id",
      "actor",
      "response",
    ],
  },
  interventions: {
    order: "version",
    columns: ["version", "id", "status", "target", "author", "record", "created_at"],
  },
  stream_items: { order: "seq", columns: ["seq::int", "epoch", "kind", "dispatch", "item"] },
};

/** Executions of the flow with the name of the history, and of those named `<history>.<part>`, in the order of their creation. */
export async function dumpHistory(sql: postgres.Sql, name: string): Promise<Json> {
  // The ids say the order: a copy has the creation time of what it was copied from.
  const executions = await sql.unsafe<Row[]>(
    `select ${executionColumns.join(", ")} from flowledger.executions where flow = $1 or starts_with(flow, $2) order by id`,
    [name, `${name}.`],
  );
  const dumped: Json[] = [];
  const normalise = normaliser();
  for (const execution of executions) {
    const id = String(execution["id"]);
    const tables: JsonObject = {};
    // The ledger names things in the order in which they came; a close snapshot has them in the order of their ids.
    normalise({ id });
    for (const [table, { order, columns }] of Object.entries(parts)) {
      const rows = await sql.unsafe<Row[]>(
        `select ${columns.join(", ")} from flowledger.${table} where execution_id = $1 order by ${order}`,
        [id],
      );
      if (rows.length > 0) tables[table] = rows.map((row) => normalise(row));
    }
    dumped.push({ execution: normalise(execution), ...tables });
  }
  return dumped;
}

type Row = Record<string, unknown>;

const uuid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;
const isoTime = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)/g;
/** Numbers from here on are milliseconds since 1970: no history gives, waits or counts that much. */
const firstTime = 1e12;

/** Ids keep their identity across all rows: the same one is the same `<id n>`. */
function normaliser(): (row: Row) => Json {
  const ids = new Map<string, string>();
  const named = (id: string) => {
    const known = ids.get(id) ?? `<id ${ids.size + 1}>`;
    ids.set(id, known);
    return known;
  };
  const text = (value: string) => value.replace(uuid, named).replace(isoTime, "<time>");
  const walk = (value: unknown): Json => {
    if (value === null || typeof value === "boolean") return value;
    if (typeof value === "string") return text(value);
    if (typeof value === "number") return value >= firstTime ? "<time>" : value;
    if (value instanceof Date) return "<time>";
    if (Array.isArray(value)) return value.map(walk);
    if (typeof value !== "object") throw new TypeError(`${typeof value} in a row`);
    const fields = new Map<string, unknown>(Object.entries(value));
    if (fields.has("name") && fields.has("message")) fields.delete("stack");
    return Object.fromEntries(
      [...fields].map(([key, field]) => [text(key), key === "worker" ? "<worker>" : walk(field)]),
    );
  };
  return (row) => walk(Object.fromEntries(Object.entries(row).filter(([, column]) => column !== null)));
}
