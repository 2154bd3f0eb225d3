/** A flow bound to a database: every way to start it. */
import { requireKnown, requireList, requireRecord } from "../base/option.ts";
import type { CallerTransaction } from "../store/caller-transaction.ts";
import type { NewExecution } from "../store/starts.ts";
import { requireFlowData } from "../engine/flow-data.ts";
import type { FlowDataOptions, FlowDataWriteOptions } from "../flow/context.ts";
import type { FlowDataAccess } from "../engine/host.ts";
import type { Resources } from "../engine/resources.ts";
import { UsageError } from "../base/errors.ts";
import { parseInput } from "../flow/contract.ts";
import type { CloseSnapshot, Contract, ResourcesOf, StartInput, StreamItem } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { parseDuration } from "../base/duration.ts";
import { ExecutionId } from "../ledger/event.ts";
import { isObject, toJson, type Json, type Storable } from "../base/json.ts";
import { hostAfter } from "./begun.ts";
import { hasTx, refuseTx } from "./command-options.ts";
import { Execution } from "./execution.ts";
import type { ExecutionHost } from "./host.ts";
import { Handler } from "./handler.ts";
import { snapshotOf } from "./outcomes.ts";
import { followStream, parseCursor, requireStreamOptions, stoppable } from "./stream.ts";
import type { StreamOptions } from "./stream.ts";
import { requireWaiting, untilClosed } from "./waiting.ts";
import {
  type CreateOptions,
  optionNames,
  type StartAndWaitOptions,
  type RunOptions,
  type StartManyOptions,
  type InputArgs,
  newExecution,
  without,
} from "./start-options.ts";

export interface BoundHost extends ExecutionHost {
  create(execution: NewExecution, tx: CallerTransaction | undefined): Promise<ExecutionId>;
  createAll(executions: readonly NewExecution[]): Promise<ExecutionId[]>;
  find(id: string): Promise<Execution>;
  keepResources(id: ExecutionId, resources: Resources, created: Promise<ExecutionId>): void;
  readonly flowData: FlowDataAccess;
  updateResources(resources: Resources): void;
}

/** A flow of one database: starts executions, and has the data that they share. */
export class BoundFlow<C extends Contract = Contract> {
  readonly definition: FlowDefinition<C>;
  readonly #host: BoundHost;

  constructor(definition: FlowDefinition<C>, host: BoundHost) {
    this.definition = definition;
    this.#host = host;
  }

  /**
   * Runs a hidden execution and resolves with its close snapshot.
   *
   * @throws {ExecutionFailedError} when a chunk failed for the last time
   * @throws {WaitTimeoutError} `waitTimeout` is over; or the signal's reason
   */
  async start<V extends Storable<V>>(
    ...[input, options = {}]: InputArgs<C, StartAndWaitOptions<C>, V>
  ): Promise<CloseSnapshot<C>> {
    requireKnown(options, [...optionNames, "waitTimeout", "signal"], "start()");
    const { waitTimeout: timeout, signal, ...create } = options;
    const waiting = requireWaiting({ timeout, signal }, "start()", "waitTimeout");
    waiting.signal?.throwIfAborted();
    const id = await this.#startHidden(input, create, "start");
    const isNew = create.idempotencyKey === undefined;
    const ending = await untilClosed(this.#host.outcomes, id, waiting, { flow: this.definition.name, isNew });
    return snapshotOf(id, ending) as CloseSnapshot<C>;
  }

  /**
   * Starts an execution in the background and gives its handler at once: await it, stream it, cancel it. What is wrong
   * with the start rejects the handler.
   */
  run<V extends Storable<V>>(...[input, options = {}]: InputArgs<C, RunOptions<C>, V>): Handler<C> {
    const given: CreateOptions = { autoCloseTimeout: 0, ...(isObject(options) ? options : {}), id: this.#host.newId() };
    const begin = async () => {
      requireKnown(options, optionNames, "run()");
      refuseTx(options, "run");
      requireKnown(options, without("id", "idempotencyKey", "tx", "autoClose"), "run()");
      const execution = this.#new(given, input);
      await this.#create(execution, given);
    };
    const id = ExecutionId.parse(given.id);
    const begun = begin();
    return new Handler(this.#host, this.#handle(id, given, hostAfter(begun, this.#host)), begun);
  }

  /** Starts an execution and resolves with its handle as soon as that is durable. */
  async startExecution<V extends Storable<V>>(
    ...[input, options = {}]: InputArgs<C, CreateOptions<C>, V>
  ): Promise<Execution<C>> {
    const execution = this.#new(options, input);
    return this.#handle(await this.#create(execution, options), options);
  }

  /**
   * An execution of this flow, with its types.
   *
   * @throws {ExecutionNotFoundError}
   * @throws {UsageError} it is one of another flow
   */
  async getExecution(id: string): Promise<Execution<C>> {
    const { id: executionId, flow } = await this.#host.find(id);
    const { definition } = this;
    if (flow !== definition.name)
      throw new UsageError(
        `execution ${executionId} is one of flow "${flow}", and not of "${definition.name}"`,
        "ask orchestrator.getExecution(), which takes any",
      );
    return new Execution(this.#host, executionId, { name: flow, definition }, null);
  }

  /** Creates an execution without starting it. */
  async createExecution(options: CreateOptions<C> = {}): Promise<Execution<C>> {
    const execution = newExecution(this.definition, options, undefined, false, this.#host.newId);
    return this.#handle(await this.#create(execution, options), options);
  }

  /**
   * Starts many executions in one statement: all of them or none. Ids are in the order of the inputs; where a key was used before,
   * it is that execution's.
   *
   * @throws {UsageError} a key was used with another input: `details.started` has the ids of those that have begun
   */
  async startMany(inputs: readonly StartInput<C>[], options: StartManyOptions<C> = {}): Promise<ExecutionId[]> {
    requireKnown(options, optionNames, "startMany()");
    if (hasTx(options))
      throw new UsageError(
        "startMany() takes no tx, and would start outside of the transaction",
        "call startExecution() with tx for each input",
      );
    requireKnown(options, without("id", "tx"), "startMany()");
    const { idempotencyKey: keyOf, ...shared } = options;
    if (keyOf !== undefined && typeof keyOf !== "function")
      throw new UsageError("idempotencyKey of startMany() must be a function", "use (input, index) => key");
    requireList(inputs, "inputs of startMany()", () => null);
    const executions = inputs.map((input, index) =>
      this.#new({ ...shared, ...(keyOf && { idempotencyKey: keyOf(input, index) }) }, input),
    );
    const { runtimeResources } = options;
    const created = this.#host.createAll(executions);
    if (runtimeResources)
      for (const [index, { id }] of executions.entries())
        this.#host.keepResources(
          id,
          runtimeResources,
          created.then((ids) => ids[index] ?? id),
        );
    return created;
  }

  /** The runtime stream of a hidden execution, which ends with its reader. */
  getRuntimeStream<V extends Storable<V>>(
    ...[input, options = {}]: InputArgs<C, CreateOptions<C> & StreamOptions, V>
  ): AsyncGenerator<StreamItem<C>, void, undefined> {
    requireKnown(options, [...optionNames, "from", "signal"], "getRuntimeStream()");
    const { timeout, from, signal, ...create } = options;
    requireStreamOptions({ timeout, from, signal });
    const read: StreamOptions = { ...(timeout !== undefined && { timeout }), ...(from !== undefined && { from }) };
    return stoppable((stop) => this.#readHidden(input, create, { ...read, signal: stop }, stop), signal);
  }

  async *#readHidden(
    input: unknown,
    create: CreateOptions,
    read: StreamOptions,
    stop: AbortSignal,
  ): AsyncGenerator<StreamItem<C>, void, undefined> {
    // The options are checked before the execution is started.
    if (read.from !== undefined) parseCursor(read.from);
    if (read.timeout !== undefined && read.timeout !== null)
      parseDuration(read.timeout, "timeout of getRuntimeStream()");
    const id = await this.#startHidden(input, create, "getRuntimeStream");
    const { outcomes, streams } = this.#host;
    let isRead = false;
    try {
      for await (const { item } of followStream<C>(streams, id, read)) yield item as StreamItem<C>;
      isRead = !stop.aborted;
      const header = await outcomes.header(id);
      if (header.lifecycle === "closed") snapshotOf(id, outcomes.endingOf(header));
    } finally {
      // Nobody can read what the execution would still put. If the database is away, the reader has had that error.
      if (!isRead)
        await this.#handle(id, create)
          .cancel("hidden_runtime_stream_complete")
          .catch(() => {});
    }
  }

  /** A value shared by all executions of the flow. Warns once per call site unless `noWarning`. */
  async getFlowData(key: string, options: FlowDataOptions = {}): Promise<Json> {
    requireFlowData("getFlowData", key, options);
    return (await this.#host.flowData.get(key)) ?? options.default ?? null;
  }
  /** Replaces a value that all executions of the flow share; durable when it resolves. @throws {PayloadError} it cannot be stored */
  async setFlowData<V extends Storable<V>>(key: string, value: V, options: FlowDataWriteOptions = {}): Promise<void> {
    requireFlowData("setFlowData", key, options);
    await this.#host.flowData.set(key, toJson(value, `flow data "${key}"`));
  }
  /** Appends to a list that all executions of the flow share; durable when it resolves. @throws {PayloadError} it cannot be stored */
  async appendFlowData<V extends Storable<V>>(
    key: string,
    value: V,
    options: FlowDataWriteOptions = {},
  ): Promise<void> {
    requireFlowData("appendFlowData", key, options);
    await this.#host.flowData.append(key, toJson(value, `flow data "${key}"`));
  }
  /** Removes a value that all executions of the flow share; one that is not there is no error. */
  async delFlowData(key: string, options: FlowDataWriteOptions = {}): Promise<void> {
    requireFlowData("delFlowData", key, options);
    await this.#host.flowData.delete(key);
  }

  /** Default live objects of this process for every execution of the flow. */
  updateRuntimeResources(resources: ResourcesOf<C>): void {
    this.#host.updateResources(requireRecord(resources, "the resources of updateRuntimeResources()"));
  }

  #startHidden(input: unknown, options: CreateOptions, method: string): Promise<ExecutionId> {
    requireKnown(options, optionNames, `${method}()`);
    if (options.autoClose === false || options.autoCloseTimeout === null)
      throw new UsageError(
        `${method}() with ${options.autoClose === false ? "autoClose: false" : "autoCloseTimeout: null"} has nobody to close the execution`,
        "use startExecution(), which gives you the handle",
      );
    refuseTx(options, method);
    const hidden = { autoCloseTimeout: 0, ...options };
    return this.#create(this.#new(hidden, input, true), options);
  }

  #new(options: CreateOptions, given: unknown, isHidden = false): NewExecution {
    const input = parseInput(this.definition, given);
    return { ...newExecution(this.definition, options, input, isHidden, this.#host.newId), given };
  }

  async #create(execution: NewExecution, options: CreateOptions): Promise<ExecutionId> {
    const created = this.#host.create(execution, options.tx);
    if (options.runtimeResources) this.#host.keepResources(execution.id, options.runtimeResources, created);
    return created;
  }

  #handle(id: ExecutionId, options: CreateOptions, host: ExecutionHost = this.#host): Execution<C> {
    return new Execution(
      host,
      id,
      { name: this.definition.name, definition: this.definition },
      options.autoClose ?? true,
    );
  }
}
