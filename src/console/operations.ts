/** Bulks that somebody asked for: what, who, why and how far. They exist for who sees all that they are about. */
import { z } from "zod";
import { ContractError, ExecutionNotFoundError } from "../base/errors.ts";
import { requireExecutionId } from "../execution/ids.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Operation } from "../store/operations.ts";
import type { OperationFailureShown, OperationShown, Page } from "./api.ts";
import { shared, type Asked } from "./desk.ts";
import { optionsOf } from "./filters.ts";
import { bodyOf, json } from "./http.ts";

/** Those in progress are counted, so a page is short. */
const pageRows = 25;
const pageFailures = 100;

export async function operations(asked: Asked): Promise<Page<OperationShown>> {
  const { desk, person, query } = asked;
  const { cursor } = optionsOf<{ cursor?: string }>(query, { cursor: "text" });
  const before = cursor === undefined ? undefined : requireExecutionId(cursor);
  return shared(asked, `operations ${query.toString()}`, async () => {
    const store = await desk.store();
    const found = await store.operations.list({
      within: person.within,
      limit: pageRows,
      ...(before !== undefined && { before }),
    });
    return {
      rows: found.map((operation) => operationShown(asked, operation)),
      nextCursor: found.length === pageRows ? (found.at(-1)?.id ?? null) : null,
    };
  });
}

function operationShown({ desk }: Asked, operation: Operation): OperationShown {
  const { id, action, filter, actor, reason, at, status, closedAt, report } = operation;
  return {
    id,
    action,
    filter: desk.showing.show(filter, { flow: "flowledger.bulk", part: "metadata" }),
    actor,
    reason,
    at: at.toISOString(),
    status: status ?? "completed",
    closedAt: closedAt?.toISOString() ?? null,
    ...report,
  };
}

/** What refused its command. */
export async function operationFailures(asked: Asked): Promise<Page<OperationFailureShown>> {
  const { desk, query } = asked;
  const { id: given = "", cursor = 0 } = optionsOf<{ id?: string; cursor?: number }>(query, {
    id: "text",
    cursor: "count",
  });
  const id = await requireOperation(asked, given);
  return shared(asked, `operation-failures ${query.toString()}`, async () => {
    const bulk = await desk.orchestrator.getBulk(id);
    const { failures, nextCursor } = await bulk.failures({ cursor: String(cursor), limit: pageFailures });
    const rows = failures.map(({ id: executionId, at, code, message }) => ({
      executionId,
      at: at.toISOString(),
      code,
      message: desk.showing.text(message, { flow: "flowledger.bulk", part: "error" }),
    }));
    return { rows, nextCursor };
  });
}

const Cancel = z.strictObject({
  id: z.string(),
  reason: z.string().trim().min(1, "say why: a reason that is not empty").max(2000),
});

/** What has been done stays done. */
export async function cancelOperation(asked: Asked): Promise<Response> {
  const { desk, person, request } = asked;
  const parsed = Cancel.safeParse(await bodyOf(request));
  if (!parsed.success) throw new ContractError("what was sent to cancel-operation", parsed.error.issues);
  const bulk = await desk.orchestrator.getBulk(await requireOperation(asked, parsed.data.id));
  const cancelled = await bulk.execution
    .cancel(parsed.data.reason, { actor: person.actor })
    .finally(() => desk.poll.clear());
  return json({ cancelled });
}

/** @throws {ExecutionNotFoundError} also of one that is there, and not for them */
async function requireOperation({ desk, person }: Asked, given: string): Promise<ExecutionId> {
  const id = requireExecutionId(given);
  const [found] = await (await desk.store()).operations.list({ within: person.within, id, limit: 1 });
  if (!found) throw new ExecutionNotFoundError(id);
  return id;
}
