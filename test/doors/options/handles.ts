/** One execution, its result and its handler. */
import type { ExecutionResult } from "../../../src/index.ts";
import {
  anything,
  anyText,
  boolean,
  duration,
  either,
  id,
  input,
  integer,
  json,
  jsonObject,
  list,
  made,
  object,
  oneOf,
  optional,
  orNull,
  search,
  person,
  text,
  moment,
  seen,
} from "./kinds.ts";
import { type Lab, type Row, actor, consume, emitCall, filters, later, someId, stream, tx, waiting } from "./row.ts";
import { key } from "./administration.ts";

export const execution = (lab: Lab) => lab.execution;
export const spare = (lab: Lab) => lab.spare;
const result = (lab: Lab): ExecutionResult => lab.execution.result;
export const handler = (lab: Lab) => lab.handler;
export const handles: readonly Row[] = [
  { name: "Execution.start", of: spare, waits: true, args: { input, options: optional(object(waiting)) } },
  { name: "Execution.emit", of: execution, args: { event: text(500), payload: input, options: emitCall } },
  { name: "Execution.seal", of: spare, args: { options: optional(object({ actor, tx })) } },
  {
    name: "Execution.close",
    of: execution,
    waits: true,
    args: {
      options: optional(
        object({
          timeout: optional(orNull(duration)),
          pendingInterrupts: optional(made("reject")),
          parked: optional(oneOf("reject", "fail")),
          reason: optional(seen(10_000)),
          actor,
        }),
      ),
    },
  },
  {
    name: "Execution.cancel",
    of: spare,
    args: { reason: optional(seen(10_000)), options: optional(object({ actor, tx })) },
  },
  { name: "Execution.waitForClose", of: execution, waits: true, args: { options: optional(object(waiting)) } },
  { name: "Execution.getRuntimeStream", of: execution, waits: true, args: { options: optional(object(stream)) } },
  { name: "Execution.streamItems", of: execution, waits: true, args: { options: optional(object(stream)) } },
  {
    name: "Execution.history",
    of: execution,
    args: {
      options: optional(
        object({ from: optional(integer(0)), types: optional(list(oneOf("execution.created", "chunk.completed"))) }),
      ),
    },
  },
  { name: "Execution.getPendingInterrupts", of: execution, args: {} },
  { name: "Execution.explain", of: execution, args: {} },
  {
    name: "Execution.timeline",
    of: execution,
    args: { options: optional(object({ cursor: optional(made(undefined)), limit: optional(integer(1, 1000)) })) },
  },
  { name: "Execution.getSubFlowFrames", of: execution, args: {} },
  {
    name: "Execution.emitToSubFlow",
    of: execution,
    args: { frameId: id(someId), event: text(500), payload: input, options: emitCall },
  },
  {
    name: "Execution.cancelSubFlow",
    of: execution,
    args: { frameId: id(someId), reason: optional(seen(10_000)), options: optional(object({ actor, tx })) },
  },
  {
    name: "Execution.continueWith",
    of: execution,
    args: {
      interruptId: search("none"),
      value: input,
      options: optional(
        object({
          resumeRequestId: optional(text(10_000)),
          actor,
          onlyIfPending: optional(boolean),
          traceparent: optional(anyText),
          tx,
        }),
      ),
    },
  },
  {
    name: "Execution.withdraw",
    of: execution,
    args: { interruptId: search("none"), options: optional(object({ reason: optional(seen(10_000)), actor, tx })) },
  },
  ...[
    { name: "claim", options: { exclusive: optional(boolean) } },
    { name: "release", options: {} },
    { name: "delegate", options: { to: seen(100), reason: optional(seen(2000)) } },
    { name: "snooze", options: { until: { ...moment, takes: later } } },
  ].map(({ name, options }): Row => ({
    name: `Execution.${name}`,
    of: execution,
    args: { interruptId: search("none"), options: object({ ...options, actor: person, tx }) },
  })),
  {
    name: "Execution.intervene",
    of: execution,
    args: {
      payload: json,
      options: optional(
        object({
          author: actor,
          target: optional(text(500)),
          note: optional(text(10_000)),
          metadata: optional(jsonObject),
          tx,
        }),
      ),
    },
  },
  {
    name: "Execution.markInterventionConsumed",
    of: execution,
    args: { interventionId: made(undefined), options: object({ ...consume, tx }) },
    run: ([given, options], lab) =>
      Reflect.apply(Reflect.get(lab.execution, "markInterventionConsumed"), lab.execution, [
        given === undefined ? lab.correction : given,
        options,
      ]),
  },
  { name: "Execution.stateAt", of: execution, args: { at: either(made(1), { ...moment, takes: later }) } },
  {
    name: "Execution.fork",
    of: execution,
    args: {
      options: object({
        at: either(made(1), { ...moment, takes: later }),
        input: optional(made(undefined)),
        metadata: optional(jsonObject),
        actor,
        reason: optional(seen(2000)),
      }),
    },
  },
  { name: "Execution.save", of: execution, args: { options: optional(object({ key })) } },
  { name: "ExecutionResult.getState", of: result, args: { path: optional(anyText), fallback: anything } },
  {
    name: "ExecutionResult.getFinalResult",
    of: result,
    waits: true,
    args: { options: optional(object(waiting)) },
  },
  { name: "ExecutionResult.getInterventions", of: result, args: { filters } },
  { name: "ExecutionResult.getLatestIntervention", of: result, args: { fallback: anything, filters } },
  { name: "ExecutionResult.getMeta", of: result, args: {} },
  { name: "Handler.then", left: "the language calls it", args: { resolved: anything, rejected: anything } },
  { name: "Handler.isDone", of: handler, args: {} },
  { name: "Handler.getStopEvent", of: handler, args: {} },
  { name: "Handler.stopEventResult", left: "takes nothing", args: {} },
  {
    name: "Handler.cancelRun",
    left: "never throws: what is wrong is a warning",
    args: { options: optional(object({ timeout: optional(orNull(duration)) })) },
  },
  { name: "Handler.sendEvent", of: handler, args: { event: text(500), payload: input } },
  {
    name: "Handler.streamEvents",
    of: handler,
    waits: true,
    args: { options: optional(object({ exposeInternal: optional(boolean) })) },
  },
  { name: "Worker.stop", left: "takes nothing", args: {} },
];
