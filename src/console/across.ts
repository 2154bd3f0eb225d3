/** What operators do to a whole flow, or to many executions at once. */
import { z } from "zod";
import { ContractError } from "../base/errors.ts";
import { JsonValue } from "../base/json-value.ts";
import { narrowed } from "./access.ts";
import type { BulkBegun, BulkShown } from "./api.ts";
import type { Asked } from "./desk.ts";
import { bodyOf, json, Refused } from "./http.ts";

const reason = z.string().trim().min(1, "say why: a reason that is not empty").max(2000);
const flow = z.string().min(1).max(100);

const PauseFlow = z.strictObject({ flow, intake: z.enum(["hold", "refuse"]).optional(), reason });
const RunSchedule = z.strictObject({ name: z.string().min(1).max(200), reason });
const UnpauseFlow = z.strictObject({ flow, reason });
const moment = z.iso.datetime({ offset: true }).transform((text) => new Date(text));
const Bulk = z.strictObject({
  action: z.enum(["retry", "redrive", "skip", "cancel", "pause", "unpause"]),
  where: z.strictObject({
    flow: z.union([flow, z.array(flow)]).optional(),
    status: z.union([z.string(), z.array(z.string())]).optional(),
    version: z.string().optional(),
    createdAfter: moment.optional(),
    createdBefore: moment.optional(),
    closedAfter: moment.optional(),
    closedBefore: moment.optional(),
    parent: z.string().optional(),
    idPrefix: z.string().optional(),
    idempotencyKey: z.string().optional(),
    errorLike: z.string().optional(),
    metadata: z.record(z.string(), JsonValue).optional(),
    redriven: z.boolean().optional(),
  }),
  dryRun: z.boolean().optional(),
  reason,
});

export async function pauseFlow(asked: Asked): Promise<Response> {
  const { flow: name, intake, reason: why } = await asOf(asked, PauseFlow);
  requireAll(asked, "a flow");
  const { desk, person } = asked;
  const options = { actor: person.actor, reason: why, ...(intake !== undefined && { intake }) };
  const isNews = await desk.orchestrator.pauseFlow(name, options).finally(() => desk.poll.clear());
  return json({ isNews });
}

export async function unpauseFlow(asked: Asked): Promise<Response> {
  const { flow: name, reason: why } = await asOf(asked, UnpauseFlow);
  requireAll(asked, "a flow");
  const { desk, person } = asked;
  const isNews = await desk.orchestrator
    .unpauseFlow(name, { actor: person.actor, reason: why })
    .finally(() => desk.poll.clear());
  return json({ isNews });
}

/** One beside its times; who sees some executions only does not know of schedules. */
export async function runSchedule(asked: Asked): Promise<Response> {
  const { name, reason: why } = await asOf(asked, RunSchedule);
  requireAll(asked, "a schedule");
  const { desk, person } = asked;
  const { id } = await desk.orchestrator
    .runSchedule(name, { actor: person.actor, reason: why })
    .finally(() => desk.poll.clear());
  return json({ id });
}

/** Of what the person sees. A dry run counts, and names the first. */
export async function bulk(asked: Asked): Promise<Response> {
  const { desk, person } = asked;
  const { action, where, dryRun = false, reason: why } = await asOf(asked, Bulk);
  const metadata = narrowed(person, where.metadata);
  if (metadata === "nothing") return json({ matched: 0, isMore: false, samples: [] } satisfies BulkShown);
  const options = {
    action,
    where: { ...where, ...(metadata && { metadata }) } as Parameters<typeof desk.orchestrator.bulk>[0]["where"],
    limit: desk.settings.bulk,
    actor: person.actor,
    reason: why,
  };
  if (dryRun) {
    const { matched, isMore, samples } = await desk.orchestrator.bulk({ ...options, dryRun });
    return json({ matched, isMore, samples: samples.map(({ id }) => id) } satisfies BulkShown);
  }
  const { id } = await desk.orchestrator.bulk(options).finally(() => desk.poll.clear());
  return json({ id } satisfies BulkBegun);
}

async function asOf<T>({ request }: Asked, schema: z.ZodType<T>): Promise<T> {
  const parsed = schema.safeParse(await bodyOf(request));
  if (parsed.success) return parsed.data;
  throw new ContractError(`what was sent to ${new URL(request.url).pathname.split("/").at(-1)}`, parsed.error.issues);
}

/** It is for all. */
function requireAll({ person }: Asked, what: string): void {
  if (person.within !== null)
    throw new Refused(403, "SCOPED", `${what} belongs to all executions, and you see some of them`);
}
