/** What a row says, and the options that several functions share. */
import { z } from "zod";
import type { Bulk, Ctx, Execution, FlowDefinition, Handler, Orchestrator } from "../../../src/index.ts";
import * as main from "../../../src/index.ts";
import type * as background from "../../../src/defer.ts";
import {
  anything,
  anyText,
  boolean,
  callable,
  duration,
  either,
  id,
  input,
  integer,
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
  person,
  printable,
  text,
  type Kind,
} from "./kinds.ts";

/** What the functions are called on. */
export interface Lab {
  readonly flow: FlowDefinition;
  readonly orchestrator: Orchestrator;
  /** It waits at interrupt "q", with intervention `correction`. */
  readonly execution: Execution;
  /** It waits at interrupt "q", and may go on. */
  readonly operated: Execution;
  /** It has not started, and may end. */
  readonly spare: Execution;
  readonly handler: Handler;
  /** Nobody does it. */
  readonly bulk: Bulk;
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

export const someId = "01a1fc32-0000-7000-8000-00000000dead";
export const noFlow = main.defineFlow("matrix.other");
noFlow.to("pass", () => null);
export const passing = { pass: () => null };

// ── options that several functions share ────────────────────────────────────────────────────────────────────

export const create = {
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
  // What is malformed counts as none.
  traceparent: optional(anyText),
  tx: optional(made(undefined)),
};
/** How long somebody waits. */
export const waiting = { timeout: optional(orNull(duration)), signal: optional(made(undefined)) };
export const { id: _id, idempotencyKey: _key, tx: _tx, autoClose: _autoClose, ...run } = create;
/** Nobody closes what is hidden. */
export const hidden = { ...create, autoClose: optional(made(true)), autoCloseTimeout: optional(duration) };
export const { id: __id, tx: __tx, ...many } = create;
export const retry = {
  maxAttempts: optional(integer(1)),
  initialInterval: optional(duration),
  multiplier: optional(number(1, 1000)),
  maxInterval: optional(orAtLeastASecond()),
  jitter: optional(boolean),
  retryIf: optional(callable),
  waits: optional(atLeastOne(list(duration))),
};
export const schema = z.object({ n: z.number() });
export const contract = {
  input: optional(made(schema)),
  state: optional(made(schema)),
  events: optional(record(made(schema))),
  stream: optional(made(schema)),
  resources: optional(record(made(schema))),
};
/** Only what parks may say for how long. */
const failure = {
  onFailure: { ...optional(oneOf("fail", "park")), sample: () => "park" },
  park: optional(object({ after: optional(orNull(aWhile())) })),
};
export const chunk = optional(
  object({
    ...failure,
    retry: optional(object(retry)),
    timeout: optional(orNull(aWhile())),
    input: optional(orNull(made(schema))),
    output: optional(orNull(made(schema))),
    onCancel: optional(callable),
  }),
);
export const block = optional(object({ concurrency: optional(orNull(integer(1))), distribute: optional(boolean) }));
const rate = optional(object({ limit: integer(1, 1_000_000), per: aWhile() }));
const limits = {
  key: optional(made(undefined)),
  perKey: optional(made(undefined)),
  maxConcurrencyAction: optional(oneOf("keep", "cancel")),
  concurrency: integer(1, 1_000_000),
  rate,
};
export const flowOptions = {
  ...failure,
  limits: optional(object(limits)),
  maxDuration: optional(duration),
  maxStreamItems: optional(orNull(integer(1))),
  maxStreamRate: rate,
};
export const noWarning = optional(boolean);
export const actor = optional(person);
/** Of a command: a transaction of the caller's. */
export const tx = optional(made(undefined));
export const emitCall = optional(
  object({ idempotencyKey: optional(text(10_000)), actor, tx, traceparent: optional(anyText) }),
);
export const stream = {
  timeout: optional(orNull(duration)),
  from: optional(either(integer(0, Number.MAX_SAFE_INTEGER, 0), oneOf("1"))),
  signal: optional(made(undefined)),
};
export const filters = optional(
  object({
    status: optional(oneOf("pending", "inserted", "rejected", "expired")),
    target: optional(anyText),
    sinceVersion: optional(integer(0)),
    consumedBy: optional(anyText),
  }),
);
export const consume = {
  status: optional(oneOf("applied", "ignored")),
  consumer: text(500),
  note: optional(orNull(text(10_000))),
  metadata: optional(jsonObject),
};
export const schedule = {
  flow: made(noFlow),
  cron: made("@daily"),
  timeZone: optional(made("UTC")),
  input,
  name: optional(printable(200)),
  catchUp: optional(oneOf("last", "skip", "all")),
  overlap: optional(oneOf("allow", "skip", "queue")),
  metadata: optional(jsonObject),
  priority: optional(integer(-32_767, 32_767)),
};
export const worker = {
  concurrency: optional(integer(1)),
  drainTimeout: optional(duration),
  cancelGrace: optional(duration),
};

export function atLeastOne(kind: Kind): Kind {
  return { ...kind, takes: (value) => kind.takes(value) && Object.keys(Object(value)).length > 0 };
}
/** There is nothing before the beginning. */
export function later(value: unknown): boolean {
  return moment.takes(value) && Number(value) > Date.UTC(2026, 10, 1);
}
/** As long as the first wait, at least. */
function orAtLeastASecond(): Kind {
  return { ...duration, takes: (value) => duration.takes(value) && !(Number(value) < 1000) };
}
export function aWhile(): Kind {
  return { ...duration, takes: (value) => duration.takes(value) && value !== 0 };
}

/** What is a text is refused as a connection that cannot be read. */
export const url: Kind = {
  ...made(undefined),
  takes: (value) => typeof value === "string" || Object.prototype.toString.call(value) === "[object Object]",
};
