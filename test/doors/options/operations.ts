/** What operators do to an execution. */
import { atLeastOne, later, type Lab, type Row } from "./row.ts";
import {
  either,
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
  text,
} from "./kinds.ts";

const execution = (lab: Lab) => lab.operated;
const orchestrator = (lab: Lab) => lab.orchestrator;
const who = { actor: text(500), reason: text(2000) };
const address = { chunk: optional(text(500)), index: optional(integer(0)) };
const path = text(2000);
const values = atLeastOne({ ...record(json), takes: (value) => jsonObject.takes(value) });
const edit = {
  set: optional(values),
  delete: optional(list(path)),
};

export const operations: readonly Row[] = [
  { name: "Execution.retry", of: execution, args: { options: object({ ...who, ...address, input }) } },
  { name: "Execution.skip", of: execution, args: { options: object({ ...who, ...address, output: input }) } },
  {
    name: "Execution.editState",
    of: execution,
    args: {
      edit: {
        ...object({ ...edit, set: values }),
        // What changes nothing was not meant.
        takes: (value) => object(edit).takes(value) && Object.keys(Object(value)).length > 0,
      },
      options: object({ ...who, expectedSeq: optional(integer(1)) }),
    },
  },
  {
    name: "Execution.pause",
    of: execution,
    args: { options: object({ ...who, until: optional({ ...moment, takes: later }) }) },
  },
  { name: "Execution.unpause", of: execution, args: { options: object(who) } },
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
