/**
 * The tables by subject, one doc comment each: drizzle-kit turns them into migrations, and `flowledger/schema` gives them to users
 * for typed queries. The ledger is the truth; whatever is derived from it says so.
 */
import { pgSchema } from "drizzle-orm/pg-core";
import { fleetTables } from "./schema/fleet.ts";
import { historyTables } from "./schema/history.ts";
import { limitTables } from "./schema/limits.ts";
import { operatorTables } from "./schema/operators.ts";
import { peopleTables } from "./schema/people.ts";
import { auditViews } from "./schema/views.ts";

/** The tables and audit views of the schema that flowledger was migrated into. @param name the option `schema` @default "flowledger" */
export function tables(name = "flowledger") {
  const schema = pgSchema(name);
  return {
    schema,
    ...historyTables(schema),
    ...peopleTables(schema),
    ...limitTables(schema),
    ...operatorTables(schema),
    ...fleetTables(schema),
    ...auditViews(schema),
  };
}

// drizzle-kit reads what a module exports.
export const {
  schema: flowledger,
  executions,
  ledger,
  chain,
  anchors,
  databaseIdentity,
  prunes,
  snapshots,
  interrupts,
  assignments,
  interventions,
  streamItems,
  flowData,
  definitions,
  limits,
  slots,
  limitedStarts,
  schedules,
  workers,
  roleGrants,
  clientGrants,
  flowPauses,
  bulks,
  bulkTargets,
  bulkResults,
  migrations,
} = tables();
