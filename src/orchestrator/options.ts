/** The options of an orchestrator and of its workers, and what is said of an invalid one. */
import {
  requireBoolean,
  requireFunction,
  requireInteger,
  requireKnown,
  requireList,
  requireRecord,
} from "../base/option.ts";
import { UsageError } from "../base/errors.ts";
import { parseDuration, type Duration } from "../base/duration.ts";
import type { ResourcesFor, WorkerResources } from "../engine/resources.ts";
import type { Logger } from "../flow/context.ts";
import { requireFlow } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ConnectionOption } from "../store/client.ts";
import { schemaNames } from "../store/names.ts";
import type { TelemetryOptions } from "../telemetry/trace.ts";
import type { WorkerSettings } from "../worker/host.ts";
import { scheduleOptionNames, type Scheduled, type ScheduleOptions } from "../worker/schedules.ts";

/** Of `createOrchestrator()`. */
export interface OrchestratorOptions<
  Flows extends readonly FlowDefinition[] = readonly FlowDefinition[],
  Schedules extends readonly ScheduleOptions[] = readonly ScheduleOptions[],
> {
  /** A connection string, or options of postgres.js. It connects at the first use. @default process.env.DATABASE_URL, read at the first use */
  connection?: ConnectionOption | undefined;
  /** The schema that flowledger was migrated into: a lower-case name of at most 41 characters. @default "flowledger" */
  schema?: string;
  /** The flows this process starts or serves, and with them their sub-flows. */
  flows?: Flows;
  /** Background functions, as `defer()` of `flowledger/defer` makes them: this process serves them too. */
  functions?: readonly FunctionDefinition[];
  /**
   * Live objects for chunks, by name; a function is a factory `(execution) => value`, called once per execution. Those that a contract
   * of `flows` names have its types.
   */
  resources?: WorkerResources & ResourcesFor<Flows[number]>;
  /** What starts by the clock, as long as a worker runs. */
  schedules?: Scheduled<Schedules>;
  /**
   * Where the library and `ctx.log` write: pino, console, or an object with debug, info, warn and error, called with a message
   * and fields (pino: fields and message). @default to stderr: lines of `ctx.log` from info on, warnings and errors of the library
   */
  logger?: Logger;
  /**
   * Where people reach the application, e.g. "https://example.com/approvals": links of `pauseFor({ link: true })` are this, "/a/" and a
   * token for `answerByToken()`. @default none
   */
  publicUrl?: string;
  /** Traces, where `@opentelemetry/api` is installed and an SDK is registered. @default linked traces with a span for each chunk */
  telemetry?: TelemetryOptions;
  /**
   * For servers that evaluate modules again after an edit, as Vite and Nitro do in development: when this process makes another
   * orchestrator for the same database later, that one goes on with the worker for the flows it defines anew, and this one lets go
   * of its connections as soon as it is idle (its next use opens new ones). @default true under `next dev`, false elsewhere
   */
  reload?: boolean;
}

/** What `defer()` makes. */
export interface FunctionDefinition {
  (...args: never[]): Promise<unknown>;
  readonly flow: FlowDefinition;
  readonly __metadata: { readonly cron?: string };
}

/** Of `startWorker()`. */
export interface WorkerOptions {
  /** Executions advanced at once. @default 100 */
  concurrency?: number;
  /** How long `stop()` waits for chunks to reach a commit point. @default "30s" */
  drainTimeout?: Duration;
  /** How long a cancelled chunk may take to stop. @default "5s" */
  cancelGrace?: Duration;
}

const orchestratorOptions = Object.keys({
  connection: true,
  schema: true,
  flows: true,
  functions: true,
  resources: true,
  schedules: true,
  logger: true,
  publicUrl: true,
  telemetry: true,
  reload: true,
} satisfies Record<keyof OrchestratorOptions, true>);

/** @throws {UsageError} naming the option that is invalid */
export function checkOptions(options: OrchestratorOptions): void {
  const where = "createOrchestrator()";
  requireKnown(options, orchestratorOptions, where);
  const { connection, schema, flows, functions, resources, schedules, logger, reload } = options;
  if (connection !== undefined && typeof connection !== "string") requireRecord(connection, `connection of ${where}`);
  // A bad name is refused here, and not at the first use.
  if (schema !== undefined) schemaNames(schema);
  if (flows !== undefined) requireList(flows, `flows of ${where}`, (flow, of) => requireFlow(flow, of));
  if (functions !== undefined) requireList(functions, `functions of ${where}`, () => null);
  if (resources !== undefined) requireRecord(resources, `resources of ${where}`);
  if (schedules !== undefined)
    requireList(schedules, `schedules of ${where}`, (one) => {
      requireKnown(one, scheduleOptionNames, "a schedule");
      requireFlow(Reflect.get(Object(one), "flow"), "flow of a schedule");
    });
  if (logger !== undefined)
    for (const method of ["debug", "info", "warn", "error"])
      requireFunction(Reflect.get(Object(logger), method), `${method} of logger of ${where}`);
  if (reload !== undefined) requireBoolean(reload, `reload of ${where}`);
}

/** @throws {UsageError} naming the option that is invalid */
export function parseWorkerOptions(
  options: WorkerOptions,
): Pick<WorkerSettings, "concurrency" | "drainTimeoutMs" | "cancelGraceMs"> {
  requireKnown(options, ["concurrency", "drainTimeout", "cancelGrace"], "startWorker()");
  const { concurrency = 100, drainTimeout = "30s", cancelGrace = "5s" } = options;
  return {
    concurrency: requireInteger(concurrency, "worker concurrency", { min: 1 }),
    drainTimeoutMs: parseDuration(drainTimeout, "drainTimeout of startWorker()"),
    cancelGraceMs: parseDuration(cancelGrace, "cancelGrace of startWorker()"),
  };
}

/** What to connect to where no option says it. @throws {UsageError} `DATABASE_URL` is not set */
export function requireConnection(): ConnectionOption {
  const url = process.env["DATABASE_URL"];
  if (url !== undefined) return url;
  throw new UsageError(
    "this orchestrator has no connection",
    "pass { connection } to createOrchestrator(), or set DATABASE_URL",
  );
}
