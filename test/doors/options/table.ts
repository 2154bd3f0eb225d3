/** What every argument and option of every public function takes. A place of the surface without a row here fails the test, and so does a row without a place. */
import { z } from "zod";
import type { Ctx, Execution, ExecutionResult, FlowDefinition, Handler, Orchestrator } from "../../../src/index.ts";
import * as main from "../../../src/index.ts";
import * as background from "../../../src/defer.ts";
import {
  anything,
  anyText,
  boolean,
  callable,
  choice,
  date,
  duration,
  either,
  id,
  input,
  integer,
  json,
  jsonObject,
  list,
  made,
  moment,
  number,
  object,
  oneOf,
  optional,
  orNull,
  record,
  search,
  text,
  type Kind,
} from "./kinds.ts";

/** What the functions are called on. */
export interface Lab {
  readonly flow: FlowDefinition;
  readonly orchestrator: Orchestrator;
  /** It waits at interrupt "q", with intervention `correction`. */
  readonly execution: Execution;
  /** It has not started, and may end. */
  readonly spare: Execution;
  readonly handler: Handler;
  readonly correction: string;
  readonly saved: unknown;
  /** Only in a chunk. */
  readonly ctx?: Ctx;
  readonly deferred: background.DeferredFunction<[n: number], number>;
  /** Executions of the deferred function, one for whoever asks. */
  call(): string;
}

export interface Row {
  readonly name: string;
  readonly args: Readonly<Record<string, Kind>>;
  /** @default the callable itself */
  readonly of?: (lab: Lab) => object;
  readonly run?: (args: readonly unknown[], lab: Lab) => unknown;
  /** What is right waits for something that does not come: it has been taken when it does not end at once. */
  readonly waits?: true;
  /** What is right would do something that the others do not bear. */
  readonly isOnlyRefused?: true;
  /** Why nobody has to walk it. */
  readonly left?: string;
}

const someId = "01a1fc32-0000-7000-8000-00000000dead";
const noFlow = main.defineFlow("matrix.other");
noFlow.to("pass", () => null);
const passing = { pass: () => null };

// ── options that several functions share ────────────────────────────────────────────────────────────────────

const create = {
  id: optional(id("01a1fc32-0000-7000-8000-00000000beef")),
  idempotencyKey: optional(text(500)),
  metadata: optional(jsonObject),
  priority: optional(integer(-32_767, 32_767)),
  startAt: optional(moment),
  delay: optional(duration),
  discardAfter: optional(either(duration, moment)),
  autoClose: optional(boolean),
  autoCloseTimeout: optional(orNull(duration)),
  concurrency: optional(orNull(integer(1))),
  interventionMode: optional(orNull(oneOf("planned", "auto"))),
  runtimeResources: optional(record(anything)),
  timeout: optional(orNull(duration)),
  allowUnknown: optional(boolean),
  tx: optional(made(undefined)),
};
/** How long somebody waits. */
const waiting = { timeout: optional(orNull(duration)), signal: optional(made(undefined)) };
const { id: _id, idempotencyKey: _key, tx: _tx, autoClose: _autoClose, ...run } = create;
/** Nobody closes what is hidden. */
const hidden = { ...create, autoClose: optional(made(true)), autoCloseTimeout: optional(duration) };
const { id: __id, tx: __tx, ...many } = create;
const retry = {
  maxAttempts: optional(integer(1)),
  initialInterval: optional(duration),
  multiplier: optional(number(1, 1000)),
  maxInterval: optional(orAtLeastASecond()),
  jitter: optional(boolean),
  retryIf: optional(callable),
  waits: optional(atLeastOne(list(duration))),
};
const schema = z.object({ n: z.number() });
const chunk = optional(
  object({
    retry: optional(object(retry)),
    timeout: optional(orNull(aWhile())),
    input: optional(orNull(made(schema))),
    output: optional(orNull(made(schema))),
    onCancel: optional(callable),
  }),
);
const block = optional(object({ concurrency: optional(orNull(integer(1))), distribute: optional(boolean) }));
const rate = optional(object({ limit: integer(1, 1_000_000), per: aWhile() }));
const limits = {
  key: optional(made(undefined)),
  perKey: optional(made(undefined)),
  maxConcurrencyAction: optional(oneOf("keep", "cancel")),
  concurrency: integer(1, 1_000_000),
  rate,
};
const flowOptions = {
  limits: optional(object(limits)),
  maxDuration: optional(duration),
  maxStreamItems: optional(orNull(integer(1))),
  maxStreamRate: rate,
};
const noWarning = optional(boolean);
const actor = optional(text(500));
const emitCall = optional(object({ idempotencyKey: optional(text(10_000)), actor }));
const stream = {
  timeout: optional(orNull(duration)),
  from: optional(integer(0, Number.MAX_SAFE_INTEGER, 0)),
  signal: optional(made(undefined)),
};
const filters = optional(
  object({
    status: optional(oneOf("pending", "inserted", "rejected", "expired")),
    target: optional(anyText),
    sinceVersion: optional(integer(0)),
    consumedBy: optional(anyText),
  }),
);
const consume = {
  status: optional(oneOf("applied", "ignored")),
  consumer: text(500),
  note: optional(orNull(text(10_000))),
  metadata: optional(jsonObject),
};
const schedule = {
  flow: made(noFlow),
  cron: made("@daily"),
  timeZone: optional(made("UTC")),
  input,
  name: optional(text(200)),
  catchUp: optional(oneOf("last", "skip", "all")),
  overlap: optional(oneOf("allow", "skip", "queue")),
  metadata: optional(jsonObject),
  priority: optional(integer(-32_767, 32_767)),
};
const worker = {
  concurrency: optional(integer(1)),
  drainTimeout: optional(duration),
  cancelGrace: optional(duration),
};

function atLeastOne(kind: Kind): Kind {
  return { ...kind, takes: (value) => kind.takes(value) && Object.keys(Object(value)).length > 0 };
}
/** There is nothing before the beginning. */
function later(value: unknown): boolean {
  return moment.takes(value) && Number(value) > Date.UTC(2026, 10, 1);
}
/** As long as the first wait, at least. */
function orAtLeastASecond(): Kind {
  return { ...duration, takes: (value) => duration.takes(value) && !(Number(value) < 1000) };
}
function aWhile(): Kind {
  return { ...duration, takes: (value) => duration.takes(value) && value !== 0 };
}

/** What is a text is refused as a connection that cannot be read. */
const url: Kind = {
  ...made(undefined),
  takes: (value) => typeof value === "string" || Object.prototype.toString.call(value) === "[object Object]",
};

// ── functions ───────────────────────────────────────────────────────────────────────────────────────────────

let flows = 0;
const newFlow = () => main.defineFlow(`matrix.${++flows}`);
const name = text(200);

const definitions: readonly Row[] = [
  {
    name: "defineFlow",
    args: { name: text(100, "matrix.named"), contract: optional(object({})), options: optional(object(flowOptions)) },
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
        ...either(text(500), atLeastOne(list(text(500))), object({ state: text(2000) })),
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
    args: { point: object({ name, target: optional(orNull(text(500))) }) },
  },
  {
    name: "Flow.declareResourceRequirement",
    of: newFlow,
    args: {
      name,
      options: optional(
        object({ resolver: optional(orNull(callable)), failPolicy: optional(oneOf("open", "closed")) }),
      ),
    },
  },
];

const readers: readonly Row[] = [
  {
    name: "createOrchestrator",
    args: {
      options: optional(
        object({
          connection: optional(url),
          schema: optional(oneOf("text", "constructor", "__proto__")),
          flows: optional(list(made(noFlow))),
          functions: optional(list(made(background.defer(() => null, { name: "matrix.function" })))),
          resources: optional(record(anything)),
          schedules: optional(list(object(schedule))),
          logger: optional(made(console)),
        }),
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

const bound = (lab: Lab) => lab.orchestrator.flow(lab.flow);
const flowData = object({ noWarning });
const flowDataRead = object({ default: optional(json), noWarning });

const starts: readonly Row[] = [
  {
    name: "BoundFlow.start",
    of: bound,
    waits: true,
    args: { input, options: optional(object({ ...hidden, signal: waiting.signal, waitTimeout: waiting.timeout })) },
  },
  { name: "BoundFlow.run", of: bound, waits: true, args: { input, options: optional(object(run)) } },
  { name: "BoundFlow.startExecution", of: bound, args: { input, options: optional(object(create)) } },
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

function dataRows(of: string, on: (lab: Lab) => object): Row[] {
  return [
    { name: `${of}.getFlowData`, of: on, args: { key: text(500), options: optional(flowDataRead) } },
    { name: `${of}.setFlowData`, of: on, args: { key: text(500), value: json, options: optional(flowData) } },
    { name: `${of}.appendFlowData`, of: on, args: { key: text(500), value: json, options: optional(flowData) } },
    { name: `${of}.delFlowData`, of: on, args: { key: text(500), options: optional(flowData) } },
  ];
}

const orchestrator = (lab: Lab) => lab.orchestrator;
const statuses = oneOf("created", "running", "waiting", "completed", "failed", "cancelled");
const page = { limit: optional(integer(1, 1000)) };
const filter = {
  flow: optional(either(text(100), list(text(100)))),
  status: optional(either(statuses, list(statuses))),
  version: optional(text(200)),
  createdAfter: optional(date),
  createdBefore: optional(date),
  closedAfter: optional(date),
  closedBefore: optional(date),
  parent: optional(id(someId)),
  idPrefix: optional(made("01a1")),
  idempotencyKey: optional(text(10_000)),
  errorLike: optional(text(1000)),
  metadata: optional(jsonObject),
};
/** 16 bytes at least. */
const key = optional({ ...text(), takes: (value) => typeof value === "string" && value.length >= 16 });
const loading = optional(object({ runtimeResources: optional(record(anything)), key }));

const audit = { id: optional(id(someId)), onProgress: optional(callable) };

const administration: readonly Row[] = [
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
    args: { options: object({ ids: atLeastOne(list(id(someId))), actor: text(500), reason: text(10_000) }) },
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
  { name: "Orchestrator.close", left: "takes nothing", args: {} },
];

function withSaved(method: "load", [saved, options]: readonly unknown[], lab: Lab): unknown {
  return Reflect.apply(lab.orchestrator[method], lab.orchestrator, [saved === undefined ? lab.saved : saved, options]);
}

const execution = (lab: Lab) => lab.execution;
const spare = (lab: Lab) => lab.spare;
const result = (lab: Lab): ExecutionResult => lab.execution.result;
const handler = (lab: Lab) => lab.handler;
const handles: readonly Row[] = [
  { name: "Execution.start", of: spare, waits: true, args: { input } },
  { name: "Execution.emit", of: execution, args: { event: text(500), payload: input, options: emitCall } },
  { name: "Execution.seal", of: spare, args: { options: optional(object({ actor })) } },
  {
    name: "Execution.close",
    of: execution,
    waits: true,
    args: {
      options: optional(
        object({
          timeout: optional(orNull(duration)),
          pendingInterrupts: optional(made("reject")),
          reason: optional(text(500)),
          actor,
        }),
      ),
    },
  },
  { name: "Execution.cancel", of: spare, args: { reason: optional(text(500)), options: optional(object({ actor })) } },
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
    args: { frameId: id(someId), reason: optional(text(500)), options: optional(object({ actor })) },
  },
  {
    name: "Execution.continueWith",
    of: execution,
    args: {
      interruptId: search("none"),
      value: input,
      options: optional(object({ resumeRequestId: optional(text(10_000)), actor, onlyIfPending: optional(boolean) })),
    },
  },
  {
    name: "Execution.withdraw",
    of: execution,
    args: { interruptId: search("none"), options: optional(object({ reason: optional(text(10_000)), actor })) },
  },
  {
    name: "Execution.intervene",
    of: execution,
    args: {
      payload: json,
      options: optional(
        object({
          author: optional(text(500)),
          target: optional(text(500)),
          note: optional(text(10_000)),
          metadata: optional(jsonObject),
        }),
      ),
    },
  },
  {
    name: "Execution.markInterventionConsumed",
    of: execution,
    args: { interventionId: made(undefined), options: object(consume) },
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

function ctx(lab: Lab): Ctx {
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
const silent = optional(object({ emit: optional(boolean) }));
const path = text(2000);

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
        }),
      ),
    },
  },
  ...[either(oneOf("end", "fail", "continue"), onEvent), withValue].map((onExpire): Row => ({
    name: "Ctx.pauseFor",
    of: ctx,
    args: { options: expiring(onExpire) },
  })),
  {
    name: "Ctx.withdraw",
    of: ctx,
    args: { interruptId: search("none"), options: optional(object({ reason: optional(text(10_000)) })) },
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

const hundredYears = 3_155_760_000;
const deferRetry = {
  maxAttempts: optional(integer(0)),
  initialInterval: optional(number(0, hundredYears)),
  randomizationFactor: optional(number(0, 1)),
  multiplier: optional(number(1, 1000)),
  // Not shorter than the first wait.
  maxInterval: optional(number(30, hundredYears)),
  waits: optional(atLeastOne(list(either(number(0, hundredYears), oneOf("1h"))))),
};
const deferOptions = optional(
  object({
    name: optional(text(100, "matrix.deferred")),
    retry: optional(either(boolean, integer(0), object(deferRetry))),
    concurrency: optional(integer(1, 1_000_000)),
    maxConcurrencyAction: optional(oneOf("keep", "cancel")),
    maxDuration: optional(number(0.001, hundredYears)),
  }),
);
function namedFunction() {}
const named = (lab: Lab) => lab.deferred;
const inWords = { ...duration, takes: (value: unknown) => duration.takes(value) };
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
const cursor = optional(id(someId));
const pages = { first: optional(integer(1, 1000)), after: cursor, last: optional(integer(1, 1000)), before: cursor };
const states = oneOf("created", "started", "succeed", "failed", "cancelled", "aborting", "aborted", "discarded");
/** What is none is nobody's. */
const callId = made(undefined);

const functions: readonly Row[] = [
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

const beside = "has a test of its own beside this one: a kit is a database each";
const kits: readonly Row[] = [
  {
    name: "test/TestRun.until",
    left: beside,
    args: {
      condition: either(made("idle"), object({ waiting: anyText, chunk: anyText, attempt: optional(integer(1)) })),
    },
  },
  {
    name: "test/TestRun.answer",
    left: beside,
    args: {
      waiting: anyText,
      value: input,
      options: optional(object({ resumeRequestId: optional(text()), actor, onlyIfPending: optional(boolean) })),
    },
  },
  { name: "test/TestRun.isOpen", left: "takes nothing", args: {} },
  { name: "test/Clock.now", left: "takes nothing", args: {} },
  { name: "test/Clock.advance", left: beside, args: { duration } },
  { name: "test/Clock.set", left: beside, args: { moment } },
  { name: "test/Clock.next", left: "takes nothing", args: {} },
  { name: "test/Clock.upcoming", left: "takes nothing", args: {} },
  {
    name: "test/testOrchestrator",
    left: beside,
    args: {
      options: object({
        flows: optional(list(made(noFlow))),
        mocks: optional(record(anything)),
        now: optional(moment),
        database: optional(anyText),
        workers: optional(integer(0, 100)),
        worker: optional(object(worker)),
        patience: optional(duration),
        functions: optional(list(anything)),
        resources: optional(record(anything)),
        schedules: optional(list(object(schedule))),
        logger: optional(made(console)),
      }),
    },
  },
];

export const rows: readonly Row[] = [
  ...definitions,
  ...readers,
  ...starts,
  ...administration,
  ...handles,
  ...functions,
];
export const allRows: readonly Row[] = [...rows, ...chunkRows, ...kits];

/** Of the kit: made by `testOrchestrator()`, or the same as what they stand for. */
export const leftOut: Readonly<Record<string, string>> = {
  "test/TestOrchestrator.": "the kit's own, walked in test/kit",
  "Flow.to(chunk": 'the first argument, which "name" stands for',
  "createOrchestrator(options.connection.": "a string, or options of the driver: walked in refusals.test.ts",
};
