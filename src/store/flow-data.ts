/** Values that all executions of a flow share. */
import type { Json } from "../base/json.ts";
import type { Database } from "./client.ts";

export interface FlowDataStore {
  read(flow: string, key: string): Promise<Json | undefined>;
  write(flow: string, key: string, value: Json): Promise<void>;
  /** A missing list becomes `[value]`, a list grows, anything else becomes `[old, value]`. */
  append(flow: string, key: string, value: Json): Promise<void>;
  delete(flow: string, key: string): Promise<void>;
}

export function flowDataOf({ sql }: Pick<Database, "sql">): FlowDataStore {
  return {
    async read(flow, key) {
      const [row] = await sql<{ value: Json }[]>`
        select value from flowledger.flow_data where flow = ${flow} and key = ${key}`;
      return row?.value;
    },
    async write(flow, key, value) {
      await sql`
        insert into flowledger.flow_data as d (flow, key, value, updated_at)
        values (${flow}, ${key}, ${JSON.stringify(value)}::text::jsonb, flowledger.now())
        on conflict (flow, key) do update set value = excluded.value, version = d.version + 1, updated_at = excluded.updated_at`;
    },
    async append(flow, key, value) {
      await sql`
        insert into flowledger.flow_data as d (flow, key, value, updated_at)
        values (${flow}, ${key}, flowledger.list_append(null, array[${JSON.stringify(value)}::text::jsonb]), flowledger.now())
        on conflict (flow, key) do update set value = flowledger.list_append(d.value, array[${JSON.stringify(value)}::text::jsonb]),
          version = d.version + 1, updated_at = excluded.updated_at`;
    },
    async delete(flow, key) {
      await sql`delete from flowledger.flow_data where flow = ${flow} and key = ${key}`;
    },
  };
}
