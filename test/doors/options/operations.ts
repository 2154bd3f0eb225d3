/** What operators do to an execution. */
import { atLeastOne, aWhile, later, someId, tx, waiting, type Lab, type Row } from "./row.ts";
import { filter } from "./administration.ts";
import {
  boolean,
  either,
  id,
  input,
  integer,
  json,
  jsonObject,
  list,
  moment,
  object,
  oneOf,
  optional,
  record,
  person,
  text,
  path,
  seen,
} from "./kinds.ts";

/** As many digits as a target has. */
const place = {
  ...oneOf("0"),
  takes: (value: unknown) => typeof value === "string" && /^(0|[1-9]\d{0,8})$/.test(value),
};
const bulk = (lab: Lab) => lab.bulk;
const execution = (lab: Lab) => lab.operated;
const orchestrator = (lab: Lab) => lab.orchestrator;
const who = { actor: person, reason: seen(2000) };
const address = { chunk: optional(text(500)), index: optional(integer(0)) };
const values = atLeastOne({ ...record(json), takes: (value) => jsonObject.takes(value) });
const edit = {
  set: optional(values),
  delete: optional(list(path)),
};

export const operations: readonly Row[] = [
  { name: "Execution.retry", of: execution, args: { options: object({ ...who, ...address, input, tx }) } },
  { name: "Execution.skip", of: execution, args: { options: object({ ...who, ...address, output: input, tx }) } },
  {
    name: "Execution.editState",
    of: execution,
    args: {
      edit: {
        ...object({ ...edit, set: values }),
        // What changes nothing was not meant.
        takes: (value) => object(edit).takes(value) && Object.keys(Object(value)).length > 0,
      },
      options: object({ ...who, expectedSeq: optional(integer(1)), tx }),
    },
  },
  {
    name: "Execution.pause",
    of: execution,
    args: { options: object({ ...who, until: optional({ ...moment, takes: later }), tx }) },
  },
  { name: "Execution.unpause", of: execution, args: { options: object({ ...who, tx }) } },
  {
    name: "Orchestrator.pauseFlow",
    of: orchestrator,
    // What is paused here starts nothing any more.
    isOnlyRefused: true,
    args: { flow: text(100), options: object({ ...who, intake: optional(oneOf("hold", "refuse")) }) },
  },
  {
    name: "Orchestrator.unpauseFlow",
    of: orchestrator,
    isOnlyRefused: true,
    args: { flow: text(100), options: object(who) },
  },
  {
    name: "Orchestrator.runSchedule",
    of: orchestrator,
    isOnlyRefused: true,
    args: { name: text(200), options: object({ actor: who.actor, reason: optional(seen(2000)) }) },
  },
  {
    name: "Orchestrator.bulk",
    of: orchestrator,
    // What is right would be done to the lab.
    isOnlyRefused: true,
    args: {
      options: object({
        ...who,
        action: oneOf("redrive", "retry", "skip", "cancel", "pause", "unpause"),
        where: atLeastOne(object(filter)),
        options: optional(jsonObject),
        rate: optional(object({ limit: integer(1, 1_000_000), per: aWhile() })),
        limit: optional(integer(1, 1_000_000)),
        dryRun: optional(boolean),
      }),
    },
  },
  { name: "Orchestrator.getBulk", of: orchestrator, args: { id: id(someId) } },
  { name: "Bulk.report", of: bulk, args: {} },
  { name: "Bulk.wait", of: bulk, waits: true, args: { options: optional(object(waiting)) } },
  {
    name: "Bulk.failures",
    of: bulk,
    args: { options: optional(object({ cursor: optional(place), limit: optional(integer(1, 1000)) })) },
  },
  {
    name: "Execution.redrive",
    of: execution,
    // It has not closed.
    isOnlyRefused: true,
    args: {
      options: object({
        ...who,
        from: optional(either(oneOf("failure"), integer(1), object({ chunk: text(500) }))),
        input,
        output: input,
        state: optional(values),
      }),
    },
  },
  { name: "Execution.redrivenBy", of: execution, args: {} },
];
