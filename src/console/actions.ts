/** What people do: each command names the person, and from operators on the reason. */
import { z } from "zod";
import { ClaimedError, ContractError, FlowledgerError, InterruptNotPendingError } from "../base/errors.ts";
import { isObject, type Json } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import type { Execution } from "../execution/execution.ts";
import { questionFor, type AskedOfOne } from "./desk.ts";
import { bodyOf, refusalOf, json } from "./http.ts";

const reason = z.string().trim().min(1, "say why: a reason that is not empty").max(2000);
const address = { chunk: z.string().min(1).max(500).optional(), index: z.int().min(0).optional() };
const point = z.int().min(1);

const Answer = z.strictObject({
  interrupt: z.string().min(1),
  value: JsonValue,
  requestId: z.string().min(1).max(500),
});
const Asked = z.strictObject({ interrupt: z.string().min(1) });
const Claim = Asked.extend({ exclusive: z.boolean().optional() });
const Delegate = Asked.extend({
  to: z.string().trim().min(1, "say whom it asks from now on").max(100),
  reason: z.string().max(2000).optional(),
});
const Snooze = Asked.extend({ until: z.iso.datetime({ offset: true }) });
const Claimed = z.object({ claimedBy: z.string(), claimedAt: z.string() });
const Retry = z.strictObject({ ...address, input: JsonValue.optional(), reason });
const Skip = z.strictObject({ ...address, output: JsonValue.optional(), reason });
const Edit = z.strictObject({
  set: z.record(z.string(), JsonValue).optional(),
  delete: z.array(z.string()).optional(),
  expectedSeq: point.optional(),
  reason,
});
const Pause = z.strictObject({ until: z.iso.datetime({ offset: true }).optional(), reason });
const Why = z.strictObject({ reason });
const Correction = z.strictObject({ payload: JsonValue, target: z.string().min(1).max(500).optional(), reason });
const Fork = z.strictObject({ at: point, input: JsonValue.optional(), reason });
const Redrive = z.strictObject({
  from: z.union([z.literal("failure"), z.strictObject({ chunk: z.string().min(1) }), point]).optional(),
  input: JsonValue.optional(),
  output: JsonValue.optional(),
  reason,
});

export const answer = doing(Answer, async ({ actor }, execution, { interrupt, value, requestId }) => {
  await execution.continueWith(interrupt, value, { resumeRequestId: requestId, actor, onlyIfPending: true });
  return {};
});

/** What people do with a question besides answering it. */
export const claim = doing(Claim, async ({ actor }, execution, { interrupt, ...options }) => {
  await execution.claim(interrupt, { ...given(options), actor });
  return {};
});

export const release = doing(Asked, async ({ actor }, execution, { interrupt }) => {
  await execution.release(interrupt, { actor });
  return {};
});

export const delegate = doing(Delegate, async ({ actor }, execution, { interrupt, ...options }) => {
  await execution.delegate(interrupt, { ...given(options), actor });
  return {};
});

export const snooze = doing(Snooze, async ({ actor }, execution, { interrupt, until }) => {
  await execution.snooze(interrupt, { until, actor });
  return {};
});

export const retry = doing(Retry, async ({ actor }, execution, options) => ({
  retried: await execution.retry({ ...given(options), actor }),
}));

export const skip = doing(Skip, async ({ actor }, execution, options) => ({
  skipped: await execution.skip({ ...given(options), actor }),
}));

export const editState = doing(Edit, async ({ actor }, execution, { set, delete: removed, ...options }) => ({
  edited: await execution.editState(given({ set, delete: removed }), { ...given(options), actor }),
}));

export const pause = doing(Pause, async ({ actor }, execution, options) => {
  await execution.pause({ ...given(options), actor });
  return {};
});

export const unpause = doing(Why, async ({ actor }, execution, options) => {
  await execution.unpause({ ...options, actor });
  return {};
});

export const cancel = doing(Why, async ({ actor }, execution, { reason: why }) => ({
  cancelled: await execution.cancel(why, { actor }),
}));

export const intervene = doing(Correction, async ({ actor }, execution, { payload, target, reason: note }) => {
  const { id } = await execution.intervene(payload, { author: actor, note, ...given({ target }) });
  return { id };
});

export const fork = doing(Fork, async ({ actor }, execution, { input, ...options }) => {
  const { id } = await execution.fork({ ...options, ...given({ input: input as Json | undefined }), actor });
  return { id };
});

export const redrive = doing(Redrive, async ({ actor }, execution, options) => {
  const { id } = await execution.redrive({ ...given(options), actor });
  return { id };
});

/** What people did last is told to who comes too late. */
const done = [
  "chunk.retried",
  "chunk.skipped",
  "state.edited",
  "execution.paused",
  "execution.unpaused",
  "cancel.requested",
  "execution.sealed",
  "execution.closed",
];

type Doing = (asked: AskedOfOne) => Promise<Response>;

function doing<T>(
  schema: z.ZodType<T>,
  act: (who: { readonly actor: string }, execution: Execution, body: T) => Promise<object>,
): Doing {
  return async (asked) => {
    const { desk, id, person, request } = asked;
    const parsed = schema.safeParse(await bodyOf(request));
    if (!parsed.success)
      throw new ContractError(
        `what was sent to ${new URL(request.url).pathname.split("/").at(-1)}`,
        parsed.error.issues,
      );
    const execution = await desk.orchestrator.getExecution(id);
    const about = interruptOf(parsed.data);
    if (person.within !== null && about !== null && (await questionFor(asked, about)) === null)
      throw new InterruptNotPendingError(id, about, {});
    try {
      const result = await act({ actor: person.actor }, execution, parsed.data);
      return json(result);
    } catch (error) {
      throw await stale(asked, error, parsed.data);
    } finally {
      desk.poll.clear();
    }
  };
}

/** A refusal that has who was first, and when. */
export class Stale extends Error {
  readonly answer: Response;

  constructor(answer: Response) {
    super("stale");
    this.answer = answer;
  }
}

/** What it is about, where that is a question. */
function interruptOf(body: unknown): string | null {
  return isObject(body) && typeof body["interrupt"] === "string" ? body["interrupt"] : null;
}

async function stale(asked: AskedOfOne, error: unknown, body: unknown): Promise<unknown> {
  const { desk, id } = asked;
  if (!(error instanceof FlowledgerError)) return error;
  const { code } = error;
  if (error instanceof ClaimedError) {
    const { claimedBy, claimedAt } = Claimed.parse(error.details);
    return new Stale(refusalOf(error, { by: claimedBy, at: claimedAt }));
  }
  if (code === "INTERRUPT_NOT_PENDING" || code === "RESUME_CONFLICT") {
    const record = await questionFor(asked, interruptOf(body) ?? "");
    if (record === null) return error;
    return new Stale(refusalOf(error, { by: record.actor, at: record.resolvedAt?.toISOString() ?? null }));
  }
  if (!["CONFLICT", "EXECUTION_SEALED", "EXECUTION_CLOSED", "USAGE_INVALID"].includes(code)) return error;
  const last = await (await desk.store()).console.lastDone(id, done);
  if (last === null) return error;
  return new Stale(refusalOf(error, { by: last.actor, at: last.at.toISOString() }));
}

/** Without what is not there: an option that is undefined is none. */
function given<T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
