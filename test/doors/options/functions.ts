/** `flowledger/defer`. */
import * as background from "../../../src/defer.ts";
import {
  anything,
  boolean,
  choice,
  duration,
  either,
  id,
  integer,
  jsonObject,
  list,
  made,
  moment,
  number,
  object,
  oneOf,
  optional,
  record,
  search,
  text,
  anyText,
  type Kind,
  flowName,
} from "./kinds.ts";

import { type Lab, type Row, atLeastOne, someId, waiting } from "./row.ts";

const hundredYears = 3_155_760_000;
const deferRetry = {
  maxAttempts: optional(integer(0)),
  initialInterval: optional(number(0, hundredYears)),
  randomizationFactor: optional(number(0, 1)),
  multiplier: optional(number(1, 1000)),
  // Not shorter than the first wait.
  maxInterval: optional(number(30, hundredYears)),
  waits: optional(atLeastOne(list(either(number(0, hundredYears), oneOf("1h", "1"))))),
};
const deferOptions = optional(
  object({
    name: optional({ ...flowName, sample: () => "matrix.deferred" }),
    retry: optional(either(boolean, integer(0), object(deferRetry))),
    concurrency: optional(integer(1, 1_000_000)),
    maxConcurrencyAction: optional(oneOf("keep", "cancel")),
    maxDuration: optional(number(0.001, hundredYears)),
  }),
);
function namedFunction() {}
const named = (lab: Lab) => lab.deferred;
/** A number as text is milliseconds. */
const inWords = either(duration, oneOf("1"));
const texts: Kind = {
  ...record(text(1_048_576)),
  takes: (value) =>
    record({ ...anyText, takes: (one) => typeof one === "string" }).takes(value) && jsonObject.takes(value),
};
const exec = {
  delay: optional(either(inWords, moment)),
  discardAfter: optional(either(inWords, moment)),
  metadata: optional(texts),
  idempotencyKey: optional(text(500)),
};
const between = optional(object({ from: optional(moment), to: optional(moment) }));
export const cursor = optional(id(someId));
const pages = { first: optional(integer(1, 1000)), after: cursor, last: optional(integer(1, 1000)), before: cursor };
const states = oneOf("created", "started", "succeed", "failed", "cancelled", "aborting", "aborted", "discarded");
/** What is none is nobody's. */
const callId = made(undefined);

export const functions: readonly Row[] = [
  { name: "defer/DeferredFunction.__fn", left: "the user's own function", args: { input: anything } },
  { name: "defer/defer", args: { fn: made(namedFunction), options: deferOptions } },
  {
    name: "defer/defer.cron",
    args: { fn: made(namedFunction), cron: made("0 7 * * *"), options: deferOptions },
    run: (args) => Reflect.apply(background.defer.cron, background.defer, args),
  },
  ...[
    ["assignOptions", { options: object(exec) }],
    ["delay", { value: optional(either(inWords, moment)) }],
    ["addMetadata", { metadata: optional(texts) }],
    ["discardAfter", { value: optional(either(inWords, moment)) }],
    ["awaitResult", { waiting: optional(object(waiting)) }],
  ].map(([method, more]): Row => ({
    name: `defer/${String(method)}`,
    args: { fn: made(undefined), ...(more as Row["args"]) },
    run: ([fn, ...rest], lab) =>
      Reflect.apply(Reflect.get(background, String(method)), null, [fn === undefined ? named(lab) : fn, ...rest]),
  })),
  { name: "defer/getContext", left: "takes nothing", args: {} },
  ...["getExecution", "getExecutionResult", "reRunExecution"].map((method): Row => ({
    name: `defer/${method}`,
    args: { id: callId },
    run: byCall(method),
  })),
  { name: "defer/cancelExecution", args: { id: callId, force: optional(boolean) }, run: byCall("cancelExecution") },
  {
    name: "defer/rescheduleExecution",
    args: { id: callId, to: optional(either(inWords, moment)) },
    run: byCall("rescheduleExecution"),
  },
  {
    name: "defer/listExecutions",
    args: {
      page: optional(object(pages)),
      filters: optional(
        object({
          states: optional(choice(states)),
          functionIds: optional(choice(search("matrix"))),
          errorCodes: optional(choice(search("E"))),
          executedBy: optional(choice(search(someId))),
          startedAt: between,
          scheduleAt: between,
          metadata: optional(list(object({ key: search("tenant"), values: choice(search("north")) }))),
        }),
      ),
    },
  },
  {
    name: "defer/listExecutionAttempts",
    args: {
      id: callId,
      page: optional(object({ ...pages, after: optional(made("1")), before: optional(made("1")) })),
      filters: optional(
        object({
          states: optional(choice(states)),
          errorCodes: optional(choice(search("E"))),
          executedBy: optional(choice(search(someId))),
          startedAt: between,
        }),
      ),
    },
    run: byCall("listExecutionAttempts"),
  },
  {
    name: "defer/configure",
    args: { orchestrator: made(undefined) },
    run: ([given], lab) => Reflect.apply(background.configure, null, [given === undefined ? lab.orchestrator : given]),
  },
];

function byCall(method: string): NonNullable<Row["run"]> {
  return ([given, ...rest], lab) =>
    Reflect.apply(Reflect.get(background, method), null, [given === undefined ? lab.call() : given, ...rest]);
}
