/** Flows, and what is made before there is a database. */
import * as main from "../../../src/index.ts";
import * as background from "../../../src/defer.ts";
import {
  boolean,
  anything,
  callable,
  either,
  integer,
  json,
  list,
  made,
  object,
  oneOf,
  optional,
  orNull,
  record,
  printable,
  text,
  flowName,
  path,
} from "./kinds.ts";
import {
  type Row,
  aWhile,
  atLeastOne,
  block,
  chunk,
  contract,
  flowOptions,
  noFlow,
  passing,
  schedule,
  url,
} from "./row.ts";

let flows = 0;
const newFlow = () => main.defineFlow(`matrix.${++flows}`);
const name = printable(128);

export const definitions: readonly Row[] = [
  {
    name: "defineFlow",
    args: {
      name: flowName,
      contract: optional(object(contract)),
      options: optional(object(flowOptions)),
    },
  },
  {
    name: "Flow.fromBlueprint",
    args: {
      json: made(noFlow.toBlueprint()),
      handlers: made(passing),
      options: optional(
        object({ ...flowOptions, contract: optional(object({})), subFlows: optional(list(made(noFlow))) }),
      ),
    },
    of: () => main.Flow,
  },
  ...["toBlueprint", "toMermaid", "end"].map((method) => ({ name: `Flow.${method}`, args: {}, of: () => noFlow })),
  ...["chunk", "to"].map((method): Row => ({
    name: `Flow.${method}`,
    args: { name: method === "to" ? either(name, callable) : name, handler: callable, options: chunk },
    of: newFlow,
  })),
  {
    name: "Flow.when",
    of: newFlow,
    args: {
      trigger: {
        ...either(text(500), atLeastOne(list(text(500))), object({ state: path })),
        sample: () => "some",
      },
      options: optional(object({ mode: optional(oneOf("and", "or")) })),
    },
  },
  { name: "Flow.onCancel", of: newFlow, args: { handler: callable } },
  { name: "Flow.ifCondition", of: newFlow, args: { condition: callable } },
  {
    name: "Flow.elifCondition",
    of: () =>
      newFlow()
        .ifCondition(() => true)
        .to("yes", () => 1),
    args: { condition: callable },
  },
  { name: "Flow.elseCondition", left: "takes nothing", args: {} },
  { name: "Flow.endCondition", left: "takes nothing", args: {} },
  { name: "Flow.match", of: newFlow, args: { options: optional(object({ mode: optional(oneOf("first", "all")) })) } },
  { name: "Flow.case", of: () => newFlow().match(), args: { test: either(json, callable) } },
  { name: "Flow.caseElse", left: "takes nothing", args: {} },
  { name: "Flow.endMatch", left: "takes nothing", args: {} },
  { name: "Flow.batch", of: newFlow, args: { branches: atLeastOne(record(callable)), options: block } },
  { name: "Flow.forEach", of: newFlow, args: { options: block } },
  { name: "Flow.endForEach", left: "takes nothing", args: {} },
  {
    name: "Flow.toSubFlow",
    of: newFlow,
    args: {
      flow: made(noFlow),
      options: optional(
        object({
          capture: optional(orNull(record(made("value.a")))),
          writeBack: optional(orNull(record(made("result.a")))),
          concurrency: optional(orNull(integer(1))),
        }),
      ),
    },
  },
  {
    name: "Flow.interventionPoint",
    of: newFlow,
    args: { point: object({ name: text(128), target: optional(orNull(text(500))) }) },
  },
  {
    name: "Flow.declareResourceRequirement",
    of: newFlow,
    args: {
      name: text(128),
      options: optional(
        object({ resolver: optional(orNull(callable)), failPolicy: optional(oneOf("open", "closed")) }),
      ),
    },
  },
];

export const readers: readonly Row[] = [
  {
    name: "createOrchestrator",
    args: {
      options: optional(
        object({
          connection: optional(url),
          schema: optional(oneOf("text", "timer", "constructor", "__proto__")),
          flows: optional(list(made(noFlow))),
          functions: optional(list(made(background.defer(() => null, { name: "matrix.function" })))),
          resources: optional(record(anything)),
          schedules: optional(list(object(schedule))),
          logger: optional(made(console)),
          publicUrl: optional(made("https://example.com")),
          reload: optional(boolean),
          telemetry: optional(
            object({
              trace: optional(oneOf("linked", "child", "off")),
              detail: optional(oneOf("chunks", "steps")),
              waits: optional(boolean),
              attributes: optional(callable),
              api: optional(made(undefined)),
            }),
          ),
        }),
      ),
    },
  },
  {
    name: "jsonLogger",
    args: {
      options: optional(
        object({ level: optional(oneOf("debug", "info", "warn", "error")), write: optional(callable) }),
      ),
    },
  },
  {
    name: "cursorOf",
    args: { request: made(new Request("http://localhost/?from=1")) },
  },
  { name: "toReadableStream", args: { stream: made(emptyStream()) } },
  {
    name: "toSSE",
    args: {
      stream: made(emptyStream()),
      options: optional(
        object({
          request: optional(made(new Request("http://localhost/"))),
          heartbeat: optional(aWhile()),
          stallTimeout: optional(aWhile()),
        }),
      ),
    },
  },
];

function emptyStream(): AsyncIterable<never> {
  return { async *[Symbol.asyncIterator]() {} };
}
