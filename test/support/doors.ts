/** The same command through the library and through SQL: one contract, one suite for both. */
import postgres from "postgres";
import { createOrchestrator, FlowledgerError } from "../../src/index.ts";
import type {
  Execution,
  FlowDefinition,
  Intervention,
  Json,
  JsonObject,
  Logger,
  OrchestratorOptions,
} from "../../src/index.ts";
import type { InterruptRecord } from "../../src/execution/interrupt.ts";

export interface Answer {
  resumeRequestId?: string;
  actor?: string;
  onlyIfPending?: boolean;
}

type Handle = Pick<Execution, "id" | "continueWith" | "intervene" | "markInterventionConsumed">;

export interface Door {
  readonly name: "library" | "sql";
  continueWith(
    execution: Handle,
    interrupt: string,
    value: Json,
    answer?: Answer,
  ): Promise<{ status: string; value: Json }>;
  intervene(execution: Handle, payload: Json, options?: JsonObject): Promise<JsonObject>;
  consume(
    execution: Handle,
    intervention: string,
    mark: { consumer: string; status?: string; note?: string; metadata?: JsonObject },
  ): Promise<JsonObject>;
}

export function doorsOf(sql: postgres.Sql): readonly Door[] {
  return [
    {
      name: "library",
      continueWith: (execution, interrupt, value, answer) => execution.continueWith(interrupt, value, answer),
      intervene: async (execution, payload, options = {}) => plain(await execution.intervene(payload, options)),
      consume: async (execution, intervention, mark) =>
        plain(
          await execution.markInterventionConsumed(
            intervention,
            mark as Parameters<Execution["markInterventionConsumed"]>[1],
          ),
        ),
    },
    {
      name: "sql",
      async continueWith(
        { id },
        interrupt,
        value,
        {
          resumeRequestId = null,
          actor = null,
          onlyIfPending,
        }: { resumeRequestId?: string | null; actor?: string | null; onlyIfPending?: boolean } = {},
      ) {
        if (onlyIfPending !== undefined) {
          const options = JSON.stringify({ resumeRequestId, actor, onlyIfPending });
          const [record] = await sql<{ record: { status: string; value: Json } }[]>`
            select flowledger.continue_with(${id}, ${interrupt}, ${JSON.stringify(value)}::text::jsonb, ${options}::text::jsonb) as record`;
          return present(record).record;
        }
        const [row] = await sql<{ record: { status: string; value: Json } }[]>`
          select flowledger.continue_with(${id}, ${interrupt}, ${JSON.stringify(value)}::text::jsonb, ${resumeRequestId}, ${actor}) as record`;
        return present(row).record;
      },
      async intervene({ id }, payload, options = {}) {
        const [row] = await sql<{ record: JsonObject }[]>`
          select flowledger.intervene(${id}, ${JSON.stringify(payload)}::text::jsonb, ${JSON.stringify(options)}::text::jsonb) as record`;
        return present(row).record;
      },
      async consume(
        { id },
        intervention,
        {
          consumer,
          status = "applied",
          note = null,
          metadata = {},
        }: { consumer: string; status?: string; note?: string | null; metadata?: JsonObject },
      ) {
        const [row] = await sql<{ record: JsonObject }[]>`
          select flowledger.mark_intervention_consumed(${id}, ${intervention}, ${consumer}, ${status}, ${note},
            ${JSON.stringify(metadata)}::text::jsonb) as record`;
        return present(row).record;
      },
    },
  ];
}

/** The library's codes of what our SQL raises. */
export const sqlstates: Readonly<Record<string, string>> = {
  FL001: "EXECUTION_NOT_FOUND",
  FL002: "EXECUTION_SEALED",
  FL003: "EXECUTION_CLOSED",
  FL004: "INTERRUPTS_PENDING",
  FL005: "INTERRUPT_NOT_PENDING",
  FL006: "RESUME_CONFLICT",
  FL007: "INTERVENTION_DISABLED",
  FL008: "USAGE_INVALID",
  FL011: "LOCKED",
  FL012: "CHUNKS_PARKED",
  FL013: "CONFLICT",
};

/** The library's code of the error a promise ends in, through whichever door it came; "ok" when it does not. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "ok";
  } catch (error) {
    if (error instanceof FlowledgerError) return error.code;
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    // What a payload was refused for has its path in the detail, and what a contract refused its issues.
    if (code === "FL008" && error instanceof postgres.PostgresError && error.detail?.startsWith("{"))
      return error.detail.includes('"issues"') ? "CONTRACT_VIOLATED" : "PAYLOAD_UNSTORABLE";
    return sqlstates[code] ?? code;
  }
}

/** Interrupts that wait, as soon as there are so many. */
export async function untilPending(
  execution: Pick<Execution, "getPendingInterrupts" | "history">,
  count = 1,
): Promise<InterruptRecord[]> {
  const deadline = performance.now() + 8000;
  while (performance.now() < deadline) {
    const pending = await execution.getPendingInterrupts();
    if (pending.length === count) return pending;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const ledger = (await execution.history()).map((event) => JSON.stringify(event));
  throw new Error(`not ${count} pending interrupts within 8 s in\n${ledger.join("\n")}`);
}

/** Migrates, serves and starts: over every kind of connection that there is. Gives the ids that the execution asks for. */
export async function askedOver(
  connection: OrchestratorOptions["connection"],
  flow: FlowDefinition,
  logger: Logger,
): Promise<string[]> {
  await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });
  await orchestrator.migrate();
  await orchestrator.startWorker({ drainTimeout: "100ms" });
  const execution = await orchestrator.flow(flow).startExecution(1);
  const pending = await untilPending(execution);
  await execution.cancel();
  return pending.map(({ id }) => id);
}

/** One that must be there. */
export function present<T>(value: T | undefined | null): T {
  if (value === undefined || value === null) throw new Error("expected a value");
  return value;
}

function plain(record: Intervention): JsonObject {
  return JSON.parse(JSON.stringify(record)) as JsonObject;
}
