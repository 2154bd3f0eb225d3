/** A flow that is bound to a database. */
import { anything, id, input, json, list, made, object, optional, record, text } from "./kinds.ts";
import { type Lab, type Row, create, hidden, many, noWarning, run, someId, stream, waiting } from "./row.ts";

const bound = (lab: Lab) => lab.orchestrator.flow(lab.flow);
const flowData = object({ noWarning });
const flowDataRead = object({ default: optional(json), noWarning });

export const starts: readonly Row[] = [
  {
    name: "BoundFlow.start",
    of: bound,
    waits: true,
    args: { input, options: optional(object({ ...hidden, signal: waiting.signal, waitTimeout: waiting.timeout })) },
  },
  { name: "BoundFlow.run", of: bound, waits: true, args: { input, options: optional(object(run)) } },
  { name: "BoundFlow.startExecution", of: bound, args: { input, options: optional(object(create)) } },
  { name: "BoundFlow.getExecution", of: bound, args: { id: id(someId) } },
  { name: "BoundFlow.createExecution", of: bound, args: { options: optional(object(create)) } },
  {
    name: "BoundFlow.startMany",
    of: bound,
    args: {
      inputs: list(input),
      options: optional(object({ ...many, idempotencyKey: optional(made(() => crypto.randomUUID())) })),
    },
  },
  {
    name: "BoundFlow.getRuntimeStream",
    of: bound,
    waits: true,
    args: { input, options: optional(object({ ...hidden, ...stream })) },
  },
  ...dataRows("BoundFlow", bound),
  { name: "BoundFlow.updateRuntimeResources", of: bound, args: { resources: record(anything) } },
];

export function dataRows(of: string, on: (lab: Lab) => object): Row[] {
  return [
    { name: `${of}.getFlowData`, of: on, args: { key: text(500), options: optional(flowDataRead) } },
    { name: `${of}.setFlowData`, of: on, args: { key: text(500), value: json, options: optional(flowData) } },
    { name: `${of}.appendFlowData`, of: on, args: { key: text(500), value: json, options: optional(flowData) } },
    { name: `${of}.delFlowData`, of: on, args: { key: text(500), options: optional(flowData) } },
  ];
}
