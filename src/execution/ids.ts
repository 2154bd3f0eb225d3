/** Ids of executions, as somebody gives them. */
import { z } from "zod";
import { ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import { show } from "../base/option.ts";
import { ExecutionId } from "../ledger/event.ts";

/** Capitals are the same uuid for Postgres. */
function read(id: unknown) {
  return ExecutionId.safeParse(typeof id === "string" ? id.toLowerCase() : id);
}

/** Null where no execution can have such an id. */
export function executionIdOf(id: unknown): ExecutionId | null {
  return read(id).data ?? null;
}

/** Of an execution that is to be there: what is no id at all is no execution's either. @throws {ExecutionNotFoundError} */
export function requireExecutionId(id: string): ExecutionId {
  const found = executionIdOf(id);
  if (found) return found;
  throw new ExecutionNotFoundError(typeof id === "string" ? id.slice(0, 80) : show(id));
}

/** Of one that is to be made or is only compared with. @throws {UsageError} */
export function parseId(id: string): ExecutionId {
  const parsed = read(id);
  if (parsed.success) return parsed.data;
  throw new UsageError(
    `${typeof id === "string" ? JSON.stringify(id.slice(0, 80)) : show(id)} is not an execution id`,
    "pass the uuid that start or list gave you",
    { issues: z.flattenError(parsed.error).formErrors },
  );
}
