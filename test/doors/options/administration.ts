/** The orchestrator. */
import {
  anything,
  anyText,
  boolean,
  callable,
  date,
  either,
  id,
  input,
  integer,
  jsonObject,
  list,
  made,
  object,
  oneOf,
  optional,
  record,
  search,
  person,
  text,
  seen,
} from "./kinds.ts";
import { type Lab, type Row, actor, atLeastOne, noFlow, someId, worker } from "./row.ts";

export const orchestrator = (lab: Lab) => lab.orchestrator;
const statuses = oneOf("created", "running", "waiting", "completed", "failed", "cancelled");
export const page = { limit: optional(integer(1, 1000)) };
export const filter = {
  flow: optional(either(text(100), list(text(100)))),
  status: optional(either(statuses, list(statuses))),
  version: optional(text(200)),
  createdAfter: optional(date),
  createdBefore: optional(date),
  closedAfter: optional(date),
  closedBefore: optional(date),
  parent: optional(id(someId)),
  idPrefix: optional(oneOf("01a1", "1")),
  idempotencyKey: optional(text(10_000)),
  errorLike: optional(text(1000)),
  metadata: optional(jsonObject),
  redriven: optional(boolean),
};
/** 16 bytes at least. */
export const key = optional({ ...text(), takes: (value) => typeof value === "string" && value.length >= 16 });
const loading = optional(object({ runtimeResources: optional(record(anything)), key }));

const audit = { id: optional(id(someId)), onProgress: optional(callable) };

export const administration: readonly Row[] = [
  { name: "Orchestrator.migrate", left: "takes nothing", args: {} },
  {
    name: "Orchestrator.startWorker",
    of: orchestrator,
    isOnlyRefused: true,
    args: { options: optional(object(worker)) },
  },
  { name: "Orchestrator.flow", of: orchestrator, args: { flow: made(noFlow) } },
  { name: "Orchestrator.getExecution", of: orchestrator, args: { id: id(someId) } },
  {
    name: "Orchestrator.listExecutions",
    of: orchestrator,
    args: {
      options: optional(
        object({
          ...filter,
          order: optional(oneOf("newest", "oldest", "lastClosed")),
          cursor: optional(id(someId)),
          ...page,
        }),
      ),
    },
  },
  {
    name: "Orchestrator.countExecutions",
    of: orchestrator,
    args: { options: optional(object({ ...filter, upTo: optional(integer(1, 100_000)) })) },
  },
  {
    name: "Orchestrator.failures",
    of: orchestrator,
    args: { options: optional(object({ flow: filter.flow, lastAfter: optional(date), ...page })) },
  },
  {
    name: "Orchestrator.inbox",
    of: orchestrator,
    args: {
      options: optional(
        object({
          for: optional(atLeastOne(list(text(1000)))),
          overdue: optional(boolean),
          snoozed: optional(boolean),
          flow: optional(search("f")),
          type: optional(search("t")),
          metadata: optional(jsonObject),
          cursor: optional(made(`- 0 ${someId} q`)),
          ...page,
        }),
      ),
    },
  },
  {
    name: "Orchestrator.answerByToken",
    of: orchestrator,
    args: {
      token: anyText,
      value: input,
      options: optional(object({ actor, traceparent: optional(anyText) })),
    },
  },
  { name: "Orchestrator.askedByToken", of: orchestrator, args: { token: anyText } },
  {
    name: "Orchestrator.load",
    of: orchestrator,
    args: { saved: made(undefined), options: loading },
    run: (args, lab) => withSaved("load", args, lab),
  },
  { name: "Orchestrator.inspectLoad", of: orchestrator, args: { saved: anything, options: loading } },
  {
    name: "Orchestrator.listPendingInterrupts",
    of: orchestrator,
    args: {
      options: optional(
        object({
          flow: optional(search("matrix")),
          type: optional(search("approval")),
          metadata: optional(jsonObject),
          olderThan: optional(date),
          cursor: optional(made(`${someId} q`)),
          ...page,
        }),
      ),
    },
  },
  { name: "Orchestrator.rebuild", of: orchestrator, args: { options: optional(object(audit)) } },
  {
    name: "Orchestrator.verify",
    of: orchestrator,
    args: {
      options: optional(
        object({
          ...audit,
          anchors: optional(list(object({ number: integer(1, 2_147_483_647), hash: search("0".repeat(64)) }))),
        }),
      ),
    },
  },
  { name: "Orchestrator.anchor", of: orchestrator, args: {} },
  {
    name: "Orchestrator.prune",
    of: orchestrator,
    args: { options: object({ ids: atLeastOne(list(id(someId))), actor: person, reason: seen(10_000) }) },
  },
  {
    name: "Orchestrator.prune",
    of: orchestrator,
    args: {
      options: object({
        closedBefore: { ...date, sample: () => new Date(0) },
        keep: optional(
          object({
            status: optional(list(oneOf("completed", "failed", "cancelled"))),
            flow: optional(list(search("matrix"))),
            metadata: optional(jsonObject),
          }),
        ),
        onProgress: optional(callable),
      }),
    },
  },
  ...["metrics", "health", "ready"].map((method): Row => ({
    name: `Orchestrator.${method}`,
    of: orchestrator,
    args: {},
  })),
  { name: "Orchestrator.close", left: "takes nothing", args: {} },
];

function withSaved(method: "load", [saved, options]: readonly unknown[], lab: Lab): unknown {
  return Reflect.apply(lab.orchestrator[method], lab.orchestrator, [saved === undefined ? lab.saved : saved, options]);
}
