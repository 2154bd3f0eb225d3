/** `flowledger/schema`: what it says of tables and views is what the database has, and queries with it are typed. */
import { and, eq, getViewSelectedFields, is } from "drizzle-orm";
import { getTableConfig, getViewConfig, pgTable, PgTable, PgView, text, uuid } from "drizzle-orm/pg-core";
import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { afterAll, expect, expectTypeOf, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { tables } from "../../src/schema.ts";
import { emptyDatabase } from "../support/database.ts";
import { untilEvent } from "../support/flows.ts";

const schema = "audited";
const database = await emptyDatabase();
const { sql } = database;
const flow = defineFlow("asked");
flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", payload: { n: 1 } }));
const orchestrator = createOrchestrator({ connection: database.url, flows: [flow], schema });
await orchestrator.migrate();
afterAll(() => orchestrator.close());

/** Name, type, and whether it is never null. */
type Column = readonly [name: string, type: string, notNull: boolean];

test("every table and view has the columns and types that it has in the database, and none is left out", async () => {
  const rows = await sql<{ relation: string; kind: string; name: string; type: string; not_null: boolean }[]>`
    select c.relname as relation, c.relkind::text as kind, a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = ${schema}::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
    order by 1, a.attname`;
  // A hash of everything is for `verify` alone.
  const inDatabase = Map.groupBy(
    rows.filter(({ relation }) => relation !== "ledger_hashes"),
    ({ relation }) => relation,
  );

  const declared = new Map<string, readonly Column[]>();
  for (const relation of Object.values(tables(schema))) {
    if (is(relation, PgTable)) {
      const { name, columns } = getTableConfig(relation);
      declared.set(
        name,
        columns.map((column) => [column.name, column.getSQLType(), column.notNull]),
      );
    } else if (is(relation, PgView)) {
      const columns = Object.values(getViewSelectedFields(relation));
      // Postgres knows of no view's column that it is never null.
      declared.set(
        getViewConfig(relation).name,
        columns.map((column) =>
          "getSQLType" in column ? [column.name, column.getSQLType(), false] : ["?", "?", false],
        ),
      );
    }
  }

  const sorted = (columns: readonly Column[]) => columns.toSorted(([a], [b]) => (a < b ? -1 : 1));
  expect(Object.fromEntries([...declared].map(([name, columns]) => [name, sorted(columns)]))).toEqual(
    Object.fromEntries(
      [...inDatabase].map(([name, columns]) => [
        name,
        sorted(columns.map(({ name: column, type, kind, not_null }) => [column, type, kind === "r" && not_null])),
      ]),
    ),
  );
});

test("a typed audit query joins with a table of the application", async () => {
  await orchestrator.startWorker({ drainTimeout: "1s" });
  const execution = await orchestrator.flow(flow).startExecution(null);
  await untilEvent(execution, "interrupt.raised");
  await sql`create table orders (execution_id uuid, customer text)`;
  await sql`insert into orders values (${execution.id}, 'ann')`;
  const orders = pgTable("orders", { executionId: uuid("execution_id"), customer: text("customer").notNull() });
  const { auditInterrupts, auditLedger } = tables(schema);
  const client = postgres(database.url, { max: 1, onnotice: () => {} });
  const db = drizzle(client);

  const pending = await db
    .select({
      id: auditInterrupts.id,
      raisedAt: auditInterrupts.raisedAt,
      by: auditLedger.role,
      customer: orders.customer,
    })
    .from(auditInterrupts)
    .innerJoin(orders, eq(orders.executionId, auditInterrupts.executionId))
    .innerJoin(
      auditLedger,
      and(eq(auditLedger.executionId, auditInterrupts.executionId), eq(auditLedger.seq, auditInterrupts.raisedSeq)),
    );
  await client.end();

  expectTypeOf(pending).toEqualTypeOf<{ id: string; raisedAt: Date; by: string | null; customer: string }[]>();
  const by = new URL(database.url).username;
  expect(pending).toEqual([{ id: "q", raisedAt: expect.any(Date), by, customer: "ann" }]);
});
