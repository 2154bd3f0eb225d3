/** What a chunk may call. */
import type { Ctx } from "../../../src/index.ts";
import { parseDuration } from "../../../src/base/duration.ts";
import {
  anything,
  anyText,
  boolean,
  callable,
  duration,
  either,
  input,
  integer,
  json,
  jsonObject,
  list,
  made,
  moment,
  object,
  oneOf,
  optional,
  orNull,
  search,
  text,
  type Fields,
  type Kind,
  path,
  seen,
} from "./kinds.ts";
import {
  aWhile,
  atLeastOne,
  type Lab,
  type Row,
  consume,
  create,
  filters,
  noFlow,
  retry,
  schema,
  waiting,
} from "./row.ts";
import { dataRows } from "./starts.ts";

export function ctx(lab: Lab): Ctx {
  if (!lab.ctx) throw new Error("only in a chunk");
  return lab.ctx;
}
/** Nothing else is heard. */
const onEvent = object({ event: made("heard"), payload: input });
const someValue = object({ value: input });
const withValue: Kind = {
  ...someValue,
  takes: (value) => someValue.takes(value) && Object.hasOwn(Object(value), "value"),
};
/** With a time, without which nothing expires. */
function expiring(onExpire: Kind): Kind {
  const given = object({
    expiresIn: { ...optional(orNull(duration)), sample: () => "1h" },
    onExpire: optional(onExpire),
  });
  return { ...optional(given), sample: () => given.sample() };
}
const due: Kind = {
  sample: () => "30d",
  takes: (value) => value === "30d" || optional(orNull(aWhile())).takes(value),
};
/** Sooner than it is due. */
const soon: Kind = {
  ...duration,
  takes: (value) =>
    duration.takes(value) &&
    (typeof value === "string" || typeof value === "number") &&
    parseDuration(value, "it") < parseDuration("30d", "it"),
};
const some = (one: Kind) => atLeastOne(list(one));
export const principals: Kind = some(seen(100));
/** With what each of its options needs. */
function asked(fields: Fields): Kind {
  const given = object(fields);
  return { ...optional(given), sample: () => given.sample() };
}
const silent = optional(object({ emit: optional(boolean) }));

/** In a chunk. */
export const chunkRows: readonly Row[] = [
  { name: "Ctx.setState", of: ctx, args: { path, value: json, options: silent } },
  { name: "Ctx.appendState", of: ctx, args: { path, value: json, options: silent } },
  { name: "Ctx.delState", of: ctx, args: { path, options: silent } },
  {
    name: "Ctx.emit",
    of: ctx,
    args: { event: text(500), payload: input, options: optional(object({ wait: optional(boolean) })) },
  },
  { name: "Ctx.emitNoWait", of: ctx, args: { event: text(500), payload: input } },
  { name: "Ctx.putIntoStream", of: ctx, args: { item: json } },
  { name: "Ctx.stopStream", left: "takes nothing", args: {} },
  {
    name: "Ctx.pauseFor",
    of: ctx,
    args: {
      options: optional(
        object({
          type: optional(text(500)),
          payload: optional(json),
          resumeTo: optional(either(oneOf("next", "self"), object({ event: text(500) }))),
          interruptId: optional(text(500)),
          maxResumes: optional(orNull(integer(0))),
          expiresIn: optional(orNull(duration)),
          response: optional(orNull(made(schema))),
          title: optional(text(500)),
          assign: optional(principals),
          due: optional(orNull(aWhile())),
          remind: optional(made(undefined)),
          escalate: optional(made(undefined)),
          // Nothing in the lab hears of its pauses.
          link: optional(made(false)),
        }),
      ),
    },
  },
  {
    name: "Ctx.pauseFor",
    of: ctx,
    args: {
      options: asked({ due, remind: optional(some(soon)) }),
    },
  },
  ...[object({ after: aWhile(), assign: principals }), object({ after: aWhile(), answer: json })].map((one): Row => ({
    name: "Ctx.pauseFor",
    of: ctx,
    args: { options: asked({ escalate: optional(some(one)) }) },
  })),
  ...[either(oneOf("end", "fail", "continue"), onEvent), withValue].map((onExpire): Row => ({
    name: "Ctx.pauseFor",
    of: ctx,
    args: { options: expiring(onExpire) },
  })),
  {
    name: "Ctx.withdraw",
    of: ctx,
    args: { interruptId: search("none"), options: optional(object({ reason: optional(seen(10_000)) })) },
  },
  { name: "Ctx.getInterventions", of: ctx, args: { filters } },
  {
    name: "Ctx.markInterventionConsumed",
    of: ctx,
    args: {
      interventionId: made(undefined),
      options: optional(object({ ...consume, consumer: optional(consume.consumer) })),
    },
    run: ([given, options], lab) =>
      Reflect.apply(Reflect.get(ctx(lab), "markInterventionConsumed"), ctx(lab), [
        given === undefined ? ctx(lab).interventions[0]?.id : given,
        options,
      ]),
  },
  {
    name: "Ctx.step",
    of: ctx,
    args: {
      name: text(500),
      work: callable,
      options: optional(object({ retry: optional(object(retry)), timeout: optional(orNull(duration)) })),
    },
  },
  {
    name: "Ctx.transaction",
    of: ctx,
    args: {
      name: text(500),
      work: callable,
      options: optional(object({ timeout: optional(orNull(duration)), client: optional(made(undefined)) })),
    },
  },
  { name: "Ctx.sleep", of: ctx, waits: true, args: { until: either(duration, moment) } },
  {
    name: "Ctx.call",
    of: ctx,
    waits: true,
    args: {
      target: made(noFlow),
      input,
      options: optional(
        object({
          metadata: optional(jsonObject),
          priority: create.priority,
          delay: create.delay,
          startAt: create.startAt,
          discardAfter: create.discardAfter,
          timeout: create.timeout,
          idempotencyKey: create.idempotencyKey,
          signal: waiting.signal,
          onAbandon: optional(oneOf("cancel", "leave")),
        }),
      ),
    },
  },
  { name: "Ctx.flush", of: ctx, args: {} },
  ...dataRows("Ctx", ctx),
  { name: "Ctx.setResult", of: ctx, args: { value: json } },
  { name: "Ctx.getState", of: ctx, args: { path: optional(anyText), fallback: anything } },
  { name: "Ctx.getResource", of: ctx, args: { name: anyText, fallback: anything } },
  {
    name: "Ctx.requireResource",
    of: ctx,
    args: { name: made(undefined) },
    left: "what is not there is a ResourceMissingError, whatever its name",
  },
];
