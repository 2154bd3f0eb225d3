/** How executions come into the database: gathered into statements, alone in a caller's transaction, or all of them or none. */
import { LockedError, UsageError } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { reservedPrefix } from "../flow/names.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { Batcher } from "../store/batcher.ts";
import type { CallerTransaction } from "../store/caller-transaction.ts";
import { isLocked } from "../store/refusals.ts";
import type { CreateResult, NewExecution } from "../store/starts.ts";
import type { Store } from "../store/store.ts";
import type { KeptResources } from "../engine/resources.ts";
import type { Tracing } from "../telemetry/trace.ts";
import type { LocalWorker } from "../worker/host.ts";

/** What starts need of their orchestrator. */
export interface StartsHost {
  store(): Store;
  /** Resolves once it is known that the database fits. */
  ready(): Promise<void>;
  /** The first one takes starts itself, and claims what can begin here in the same statement; none where shortcuts are off. */
  worker(): LocalWorker | undefined;
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  readonly resources: KeptResources;
  readonly tracing: Tracing;
}

export class Starts {
  readonly #host: StartsHost;
  readonly #gathered: Batcher<NewExecution, CreateResult>;
  /** Flows that others serve, each asked for once. */
  readonly #served = new Map<string, Promise<void>>();

  constructor(host: StartsHost) {
    this.#host = host;
    this.#gathered = new Batcher({
      send: (items) => {
        const worker = host.worker();
        return worker ? worker.create(items) : host.store().starts.create(items);
      },
      // An open transaction may hold the idempotency key.
      mayWait: ({ idempotencyKey }) => idempotencyKey !== null,
    });
  }

  /** @param tx the caller's transaction, with which the start commits or rolls back */
  async create(execution: NewExecution, tx?: CallerTransaction): Promise<ExecutionId> {
    await this.#host.ready();
    await this.#requireServed(execution);
    const traced = this.#host.tracing.started(execution);
    const created = tx === undefined ? await this.#submitAlone(traced) : await this.#createIn(tx, traced);
    requireAccepted(execution, created);
    return created.id;
  }

  /** One statement: all of them, or none. */
  async createAll(executions: readonly NewExecution[]): Promise<ExecutionId[]> {
    await this.#host.ready();
    if (!executions[0]) return [];
    await this.#requireServed(executions[0]);
    const what = `one of the idempotency keys of flow "${executions[0].flow}"`;
    const created = await this.#orLocked(
      what,
      this.#host.store().starts.createAll(executions.map((one) => this.#host.tracing.started(one))),
    );
    const index = created.findIndex(({ isConflict }) => isConflict);
    const started = created.flatMap(({ id, isNew }) => (isNew ? [id] : []));
    const [execution, conflict] = [executions[index], created[index]];
    if (execution && conflict) requireAccepted(execution, conflict, { started });
    return created.map(({ id }) => id);
  }

  /** As the child of an execution: its flow and its id are checked by its parent. */
  submit(execution: NewExecution): Promise<CreateResult> {
    return this.#gathered.submit(execution);
  }

  close(): void {
    this.#gathered.close();
  }

  #submitAlone(execution: NewExecution): Promise<CreateResult> {
    const what =
      execution.idempotencyKey === null
        ? `execution id ${execution.id}`
        : `idempotency key ${JSON.stringify(execution.idempotencyKey)} of flow "${execution.flow}"`;
    return this.#orLocked(what, this.submit(execution));
  }

  /** @throws {LockedError} in the place of what a lock timeout raises */
  async #orLocked<T>(what: string, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (!isLocked(error)) throw error;
      throw new LockedError(what, await this.#host.store().reads.oldestWriter(), error);
    }
  }

  async #createIn(tx: CallerTransaction, execution: NewExecution): Promise<CreateResult> {
    const { created, transaction } = await this.#host.store().starts.createIn(tx, execution);
    this.#host.resources.within(execution.id, transaction);
    return created;
  }

  /** Asked once per flow. @throws {UsageError} nobody serves it, so that the execution might wait for ever */
  async #requireServed({ flow, allowUnknown = false }: NewExecution): Promise<void> {
    if (flow.startsWith(reservedPrefix))
      throw new UsageError(
        `flow "${flow}" belongs to the library, and cannot be started directly`,
        "ask for a bulk with orchestrator.bulk()",
      );
    if (allowUnknown || this.#host.flows.has(flow)) return;
    let asked = this.#served.get(flow);
    if (!asked) {
      asked = this.#host.store().starts.requireServed(flow);
      this.#served.set(flow, asked);
      // A failure is forgotten, since a worker that serves the flow may come.
      asked.catch(() => this.#served.delete(flow));
    }
    await asked;
  }
}

/** @throws {UsageError} the key was used with another input, or the id is taken */
function requireAccepted(execution: NewExecution, created: CreateResult, more: JsonObject = {}): void {
  if (created.isConflict)
    throw new UsageError(
      `idempotency key "${execution.idempotencyKey ?? ""}" of flow "${execution.flow}" was used with another input (execution ${created.id})`,
      "use a new key for a new input",
      { executionId: created.id, ...more },
    );
  if (!created.isNew && execution.idempotencyKey === null)
    throw new UsageError(
      `execution id ${created.id} is taken`,
      "leave id out, or use idempotencyKey to find an execution again",
    );
}
