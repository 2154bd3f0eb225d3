/**
 * `flowledger/schema`: our tables and audit views for Drizzle, so that audit queries are typed and join with tables of your own.
 *
 * ```ts
 * const { auditInterrupts } = tables();
 * await db.select().from(auditInterrupts).where(eq(auditInterrupts.status, "pending"));
 * ```
 *
 * Read only: what is written past the library is no event, and `verify` reports it.
 */
import "./base/node.ts";
export { tables } from "./store/schema.ts";
