/**
 * The handle of one execution, from any process: commands go to the ledger, reads come from it. It is longer than other files, because
 * it reads better whole: what users can call, each with what it promises, a check of its options and one command.
 */
import {
  requireBoolean,
  requireInteger,
  requireKnown,
  requireList,
  requireRecord,
  requireName,
  requireText,
  show,
} from "../base/option.ts";
import type { CallerTransaction } from "../store/caller-transaction.ts";
import type { CommandsIn, Handling, Operation } from "../store/commands.ts";
import { type ParkedChunk, ContractError, ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import { parseEvent, parseInput } from "../flow/contract.ts";
import type { CloseSnapshot, Contract, EmitPayload, EventName, StartInput, StreamItem } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { limitKeyOf } from "../flow/limits.ts";
import { isLedgerEventType } from "../ledger/event.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { isObject, toJson, type Json, type JsonObject, type Storable } from "../base/json.ts";
import { Explanation } from "../ledger/explanation.ts";
import { TimelineRow } from "../ledger/timeline.ts";
import { InterventionRecord } from "../ledger/views.ts";
import { requireConsumption } from "../ledger/interventions.ts";
import type { ConsumeOptions, Intervention, WithdrawOptions } from "../flow/context.ts";
import { fork, stateAt } from "./history.ts";
import { save } from "./saved.ts";
import type { ForkOptions } from "./history.ts";
import type { SavedExecution } from "./saved.ts";
import { requireKey } from "./signature.ts";
import type { KeyOptions } from "./signature.ts";
import { parseTraceparent } from "../telemetry/traceparent.ts";
import { frameOf, noFrame, parseFrameId } from "./frame.ts";
import type { SubFlowFrame } from "./frame.ts";
import { parseAnswer } from "../ledger/answers.ts";
import { InterruptRecord, listPendingInterrupts } from "./interrupt.ts";
import {
  editOptions,
  parseAddresses,
  parseEdited,
  parseOvertaken,
  pauseOptions,
  redriveOptions,
  retryOptions,
  skipOptions,
  unpauseOptions,
  type EditedState,
  type EditStateOptions,
  type Operated,
  type OperatorOptions,
  type PauseExecutionOptions,
  type RedriveOptions,
  type RetryChunkOptions,
  type SkipChunkOptions,
  type StateEdit,
} from "./operate.ts";
import { claimOptions, delegateOptions, releaseOptions, snoozeOptions } from "./handling.ts";
import type { ClaimOptions, DelegateOptions, HandlingOptions, SnoozeOptions } from "./handling.ts";
import { snapshotOf } from "./outcomes.ts";
import { parseUnchecked, type KnownSchema } from "./schemas.ts";
import { ExecutionResult } from "./result.ts";
import { followStream, requireStreamOptions, stoppable } from "./stream.ts";
import type { StreamEntry, StreamOptions } from "./stream.ts";
import { requireWaiting, untilClosed } from "./waiting.ts";
import type { WaitingOptions } from "./waiting.ts";
import { close } from "./closing.ts";
import {
  apart,
  requireWords,
  type CloseOptions,
  type EmitCallOptions,
  type HistoryEntry,
  type HistoryOptions,
  type InterveneOptions,
  type InTransaction,
  type ResumeOptions,
} from "./command-options.ts";
import type { ExecutionHost } from "./host.ts";

/** One execution, from any process: sends it commands, and reads its ledger, stream and result. */
export class Execution<C extends Contract = Contract> {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly result: ExecutionResult<C>;
  readonly #host: ExecutionHost;
  readonly #definition: FlowDefinition<C> | null;
  /** null: another process made it, so the ledger has to say. */
  readonly #autoClose: boolean | null;

  constructor(
    host: ExecutionHost,
    id: ExecutionId,
    flow: { name: string; definition: FlowDefinition<C> | null },
    autoClose: boolean | null,
  ) {
    this.#host = host;
    this.id = id;
    this.flow = flow.name;
    this.#definition = flow.definition;
    this.#autoClose = autoClose;
    this.result = new ExecutionResult(host, id);
  }

  /**
   * Gives the execution its input. With `autoClose` it resolves with the close snapshot, without it with the execution.
   * Starting twice changes nothing. Options are those of `waitForClose()`.
   *
   * @throws {WaitTimeoutError}
   */
  async start(
    ...[input, options = {}]: undefined extends StartInput<C>
      ? [input?: StartInput<C>, options?: WaitingOptions]
      : [input: StartInput<C>, options?: WaitingOptions]
  ): Promise<CloseSnapshot<C> | this> {
    requireKnown(options, ["timeout", "signal"], "start()");
    requireWaiting(options, "start()").signal?.throwIfAborted();
    const owner = this.#definition ?? { name: this.flow, contract: {} };
    const parsed = parseInput(owner, input);
    const limitKey = this.#definition && limitKeyOf(this.#definition, parsed);
    await this.#host.store.starts.start(this.id, parsed, limitKey);
    this.#host.store.wakeups.notifyOwner(this.id);
    const isClosing = this.#autoClose ?? (await this.#host.store.reads.loadState(this.id))?.settings.autoClose ?? true;
    return isClosing ? this.waitForClose(options) : this;
  }

  /** Sends an event; it is accepted and durable when this resolves. */
  async emit<E extends EventName<C>, V extends Storable<V>>(
    event: E,
    payload: EmitPayload<C, E, V>,
    options: EmitCallOptions = {},
  ): Promise<void> {
    requireKnown(options, ["idempotencyKey", "actor", "traceparent", "tx"], "emit()");
    const [{ tx }, words] = apart(options);
    requireWords(words, "emit()");
    const { idempotencyKey = null, actor = null } = options;
    const owner = this.#definition ?? { name: this.flow, contract: {} };
    const parsed: Json = parseEvent(owner, event, payload);
    const command = { event, payload: parsed, idempotencyKey, actor, traceparent: this.#traceOf(options) };
    await this.#command(tx, (commands) => commands.emit(this.id, command));
  }

  /** Takes nothing new from outside from now on; accepted work runs on. */
  async seal(options: { actor?: string } & InTransaction = {}): Promise<void> {
    requireKnown(options, ["actor", "tx"], "seal()");
    const [{ tx }, words] = apart(options);
    requireWords(words, "seal()");
    await this.#command(tx, (commands) => commands.seal(this.id, options.actor ?? null));
  }

  /**
   * Seals, drains, ends the stream, freezes the state and returns the close snapshot. Closing a closed execution returns
   * the same snapshot.
   *
   * @throws {ChunksParkedError} while chunks are parked, unless they may fail
   * @throws {PendingInterruptsError} while interrupts wait, unless they may be cancelled
   * @throws {DrainTimeoutError} when work outlasts `timeout`; the execution stays sealed
   * @throws {ExecutionFailedError} when the execution failed
   */
  async close(options: CloseOptions = {}): Promise<CloseSnapshot<C>> {
    return (await close(this.#host, this.id, this.flow, options)) as CloseSnapshot<C>;
  }

  /** Asks for the end of whatever runs. False when it had closed before. */
  async cancel(reason = "cancelled", options: { actor?: string } & InTransaction = {}): Promise<boolean> {
    requireKnown(options, ["actor", "tx"], "cancel()");
    const [{ tx }, words] = apart(options);
    requireWords({ reason, ...words }, "cancel()");
    return this.#command(tx, (commands) => commands.cancel(this.id, { reason, actor: options.actor ?? null }));
  }

  /**
   * Resolves with the close snapshot once the execution has closed, however that comes about.
   *
   * @throws {ExecutionFailedError | ExecutionCancelledError}
   * @throws {WaitTimeoutError} `timeout` is over; or the signal's reason
   */
  async waitForClose(options: WaitingOptions = {}): Promise<CloseSnapshot<C>> {
    requireKnown(options, ["timeout", "signal"], "waitForClose()");
    const waiting = requireWaiting(options, "waitForClose()");
    const ending = await untilClosed(this.#host.outcomes, this.id, waiting, { flow: this.flow });
    return snapshotOf(this.id, ending) as CloseSnapshot<C>;
  }

  /**
   * Live items, from the first on or from a cursor; ends when the stream stops or the execution closes. Interrupts,
   * interventions and retries are items too: `streamItems` tells them apart.
   */
  getRuntimeStream(options: StreamOptions = {}): AsyncGenerator<StreamItem<C>, void, undefined> {
    requireStreamOptions(options);
    const { signal, ...rest } = options;
    const entries = (stop: AbortSignal) => this.streamItems({ ...rest, signal: stop });
    return stoppable(async function* (stop) {
      for await (const { item } of entries(stop)) yield item as StreamItem<C>;
    }, signal);
  }

  /** The same items, each with the cursor that `from` takes. */
  streamItems(options: StreamOptions = {}): AsyncGenerator<StreamEntry<C>, void, undefined> {
    return followStream(this.#host.streams, this.id, options);
  }

  /** The ledger, in order. */
  async history(options: HistoryOptions = {}): Promise<HistoryEntry[]> {
    requireKnown(options, ["from", "types"], "history()");
    const { from = 0, types = null } = options;
    requireInteger(from, "from of history()", { min: 0 });
    if (options.types !== undefined)
      requireList(options.types, "types of history()", (one, where) => {
        if (!isLedgerEventType(one))
          throw new UsageError(`${where} is ${show(one)}`, 'use types of ledger events, like "chunk.completed"');
      });
    const events = await this.#host.store.reads.history(this.id, from, types);
    return events.map(({ event, seq, epoch, at }) => ({ ...event, seq, epoch, at: new Date(at) }));
  }

  /**
   * Why it is where it is: one sentence, and what that says as data, told apart by `kind`. One query, which costs a long execution
   * no more than a short one.
   *
   * @throws {ExecutionNotFoundError}
   */
  async explain(): Promise<Explanation> {
    return Explanation.parse(await this.#host.store.reads.explain(this.id));
  }

  /**
   * What it did: a row for each run of a chunk, step, pause, sleep and child, in the order in which they came about, with the attempts
   * in it.
   *
   * @param options.cursor `nextCursor` of the page before
   * @param options.limit 1 to 1000 @default 100
   * @throws {ExecutionNotFoundError}
   * @throws {UsageError} a cursor that is none
   */
  async timeline(
    options: { cursor?: string; limit?: number } = {},
  ): Promise<{ rows: TimelineRow[]; nextCursor: string | null }> {
    requireKnown(options, ["cursor", "limit"], "timeline()");
    const { cursor, limit = 100 } = options;
    requireInteger(limit, "limit of timeline()", { min: 1, max: 1000 });
    if (cursor !== undefined) requireText(cursor, "cursor of timeline()", { max: 1000 });
    const found = await this.#host.store.reads.timeline(this.id, cursor ?? null, limit);
    const rows = found.map((row) => TimelineRow.parse(row));
    return { rows, nextCursor: rows.length === limit ? (rows.at(-1)?.cursor ?? null) : null };
  }

  /** Interrupts that wait for an answer, here and in sub-flows, oldest first. */
  async getPendingInterrupts(): Promise<InterruptRecord[]> {
    return listPendingInterrupts(this.#host, this.id);
  }

  /** The sub-flows that this execution began, in that order: how they are, what they wait for, how they ended. */
  async getSubFlowFrames(): Promise<SubFlowFrame[]> {
    await this.#host.outcomes.header(this.id);
    return (await this.#host.store.children.listSubFlows(this.id)).map((row) => frameOf(this.id, row));
  }

  /**
   * Sends an event to a running sub-flow; accepted and durable when it resolves.
   *
   * @throws {UsageError} this execution has no such sub-flow, or it is not active any more
   */
  async emitToSubFlow<V extends Storable<V>>(
    frameId: string,
    event: string,
    payload?: V,
    options: EmitCallOptions = {},
  ): Promise<void> {
    requireKnown(options, ["idempotencyKey", "actor", "traceparent", "tx"], "emitToSubFlow()");
    const [{ tx }, words] = apart(options);
    requireWords(words, "emitToSubFlow()");
    const { idempotencyKey = null, actor = null } = options;
    const frame = parseFrameId(this.id, frameId);
    const { flow } = await this.#host.outcomes.header(frame).catch((error: unknown) => {
      throw error instanceof ExecutionNotFoundError ? noFrame(this.id, frameId) : error;
    });
    const parsed = parseEvent(this.#definition?.subFlows.get(flow) ?? { name: flow, contract: {} }, event, payload);
    const command = { event, payload: parsed, idempotencyKey, actor, traceparent: this.#traceOf(options) };
    await this.#command(tx, (commands) => commands.emitToSubFlow(this.id, frame, command), frame);
  }

  /**
   * Cancels a running sub-flow. Nothing is written back and nothing follows from it; this execution goes on. False when it
   * had ended, or was being cancelled, before.
   *
   * @throws {UsageError} this execution has no such sub-flow
   */
  async cancelSubFlow(
    frameId: string,
    reason = "sub_flow_cancelled",
    options: { actor?: string } & InTransaction = {},
  ): Promise<boolean> {
    requireKnown(options, ["actor", "tx"], "cancelSubFlow()");
    const [{ tx }, words] = apart(options);
    requireWords({ reason, ...words }, "cancelSubFlow()");
    const frame = parseFrameId(this.id, frameId);
    const command = { reason, actor: options.actor ?? null };
    return this.#command(tx, (commands) => commands.cancelSubFlow(this.id, frame, command), frame);
  }

  /**
   * Answers an interrupt; durable when it resolves. With a `resumeRequestId` it may be repeated safely. What nobody has asked yet is
   * kept until somebody does, 100 answers at most: the first to each question counts, and the pause that asks it checks it.
   *
   * @throws {InterruptNotPendingError} answered, expired, cancelled or withdrawn; with `onlyIfPending` also unknown
   * @throws {UsageError} 100 answers are kept already
   * @throws {ClaimedError} somebody else has claimed it, and it is exclusive
   * @throws {ResumeConflictError} the request id was used with another answer
   * @throws {ContractError} the answer is not what `pauseFor({ response })` asked for
   */
  async continueWith<V extends Storable<V>>(
    interruptId: string,
    value?: V,
    options: ResumeOptions = {},
  ): Promise<InterruptRecord> {
    requireKnown(options, ["resumeRequestId", "actor", "onlyIfPending", "traceparent", "tx"], "continueWith()");
    const [{ tx }, words] = apart(options);
    // An empty id matches no interrupt, as in SQL.
    if (interruptId !== "") requireText(interruptId, "interruptId of continueWith()", { max: 1000 });
    requireWords(words, "continueWith()");
    const { resumeRequestId: requestId = null, actor = null, onlyIfPending = false } = options;
    requireBoolean(onlyIfPending, "onlyIfPending of continueWith()");
    const traceparent = this.#traceOf(options);
    const answered = async (known: KnownSchema | null): Promise<Json> => {
      const answer = parseAnswer(interruptId, known?.schema ?? null, value);
      const command = { value: answer, requestId, actor, onlyIfPending, traceparent, checked: known?.hash ?? null };
      return this.#command(tx, (commands) => commands.continueWith(this.id, interruptId, command));
    };
    const { schemas } = this.#host;
    const known = schemas.get(this.flow, interruptId);
    let record = await answered(known).catch((error: unknown) => {
      // The question may be another version's, with another schema.
      if (known === null || !(error instanceof ContractError)) throw error;
      return answered(null);
    });
    // Another question may have taken the id meanwhile, with yet another schema.
    for (let unchecked = parseUnchecked(record); unchecked; unchecked = parseUnchecked(record)) {
      schemas.keep(this.flow, interruptId, unchecked);
      record = await answered(unchecked);
    }
    return InterruptRecord.parse(record);
  }

  /**
   * Takes a question back, also in a sealed execution; durable when it resolves. The chain behind it ends, and a later answer is
   * refused with who withdrew it and when.
   *
   * @throws {InterruptNotPendingError} unknown, answered, expired, cancelled or withdrawn
   */
  async withdraw(
    interruptId: string,
    options: WithdrawOptions & { readonly actor?: string } & InTransaction = {},
  ): Promise<InterruptRecord> {
    requireKnown(options, ["actor", "reason", "tx"], "withdraw()");
    // An empty id matches no interrupt, as in SQL.
    if (interruptId !== "") requireText(interruptId, "interruptId of withdraw()", { max: 1000 });
    const { actor = null, reason = null } = options;
    if (options.reason !== undefined) requireName(reason, "reason of withdraw()", { max: 10_000 });
    requireWords({ actor: options.actor }, "withdraw()");
    return InterruptRecord.parse(
      await this.#command(options.tx, (commands) => commands.withdraw(this.id, interruptId, { actor, reason })),
    );
  }

  /**
   * Takes a question on, so that others see who has it; with `exclusive` nobody else may answer it. Again by the same actor changes
   * nothing but that.
   *
   * @throws {ClaimedError} somebody else has it; says who, and since when
   * @throws {InterruptNotPendingError} unknown, answered, expired, cancelled or withdrawn
   */
  claim(interruptId: string, options: ClaimOptions & InTransaction): Promise<InterruptRecord> {
    return this.#handle(interruptId, "claim", options, claimOptions);
  }

  /** Gives a question back that the actor has claimed. @throws {ClaimedError | InterruptNotPendingError | UsageError} nobody has it */
  release(interruptId: string, options: HandlingOptions & InTransaction): Promise<InterruptRecord> {
    return this.#handle(interruptId, "release", options, releaseOptions);
  }

  /** Gives a question to somebody else, in the place of all whom it asked; nobody has it then. @throws {ClaimedError | InterruptNotPendingError} */
  delegate(interruptId: string, options: DelegateOptions & InTransaction): Promise<InterruptRecord> {
    return this.#handle(interruptId, "delegate", options, delegateOptions);
  }

  /** Takes a question out of the inbox until a moment; it stays due when it was. @throws {ClaimedError | InterruptNotPendingError} */
  snooze(interruptId: string, options: SnoozeOptions & InTransaction): Promise<InterruptRecord> {
    return this.#handle(interruptId, "snooze", options, snoozeOptions);
  }

  /**
   * Records a correction, which the flow's next intervention point (or, in mode "auto", its next chunk) takes up. Nothing
   * pauses.
   *
   * @throws {InterventionDisabledError} the execution was created without interventions
   */
  async intervene<V extends Storable<V>>(payload: V, options: InterveneOptions = {}): Promise<Intervention> {
    requireKnown(options, ["author", "target", "note", "metadata", "tx"], "intervene()");
    const [{ tx }, words] = apart(options);
    requireWords(words, "intervene()");
    if (options.metadata !== undefined) requireRecord(options.metadata, "metadata of intervene()");
    const body = toJson(payload, "payload of intervene()");
    const set = Object.entries(words).filter(([, value]) => value !== undefined);
    const given = toJson(Object.fromEntries(set), "options of intervene()");
    const record = await this.#command(tx, (commands) =>
      commands.intervene(this.id, this.flow, body, isObject(given) ? given : {}),
    );
    return InterventionRecord.parse(record);
  }

  /** Says what became of an intervention. Marking again overwrites the consumer's mark. */
  async markInterventionConsumed(
    interventionId: string,
    options: ConsumeOptions & { consumer: string } & InTransaction,
  ): Promise<Intervention> {
    requireKnown(options, ["consumer", "status", "note", "metadata", "tx"], "markInterventionConsumed()");
    const { consumer, status = "applied", note = null, metadata = {} } = options;
    requireText(interventionId, "interventionId of markInterventionConsumed()", { max: 500 });
    requireConsumption(interventionId, { status, consumer, note, metadata });
    const given = toJson(metadata, "metadata of markInterventionConsumed()");
    const record = await this.#command(options.tx, (commands) =>
      commands.markInterventionConsumed(this.id, interventionId, {
        consumer,
        status,
        note,
        metadata: isObject(given) ? given : {},
      }),
    );
    return InterventionRecord.parse(record);
  }

  /**
   * Runs parked chunks again under the same id, their attempts counted from 1. What their steps have recorded is not run again.
   * Works while the execution is sealed. Without `chunk` and `index` it is all that is parked, there and among its items.
   *
   * @returns what is retried
   * @throws {UsageError} nothing there is parked; says where the execution stands
   * @throws {ContractError} the input is not what the chunk's `input` takes
   */
  async retry(options: RetryChunkOptions & InTransaction): Promise<ParkedChunk[]> {
    return parseAddresses(await this.#operate("retry", options, (given) => retryOptions(this.#definition, given)));
  }

  /**
   * Gives a chunk's output in its place, where it is parked or backing off, or where a pause of it waits: what follows goes on as
   * if it had completed with that. Works while the execution is sealed.
   *
   * @returns what is skipped
   * @throws {UsageError} nothing there can be skipped, or several could; says where the execution stands
   * @throws {ContractError} the output is not what the chunk's `output` takes
   */
  async skip(options: SkipChunkOptions & InTransaction): Promise<ParkedChunk> {
    const [skipped] = parseAddresses(
      await this.#operate("skip", options, (given) => skipOptions(this.#definition, given)),
    );
    return skipped ?? { chunk: "", index: null, executionId: this.id };
  }

  /**
   * Edits the application state: `set` first, then `delete`. Nothing hears of it, `when({ state })` neither; chunks read it from
   * their next read on.
   *
   * @throws {ConflictError} the ledger has gone on since `expectedSeq`; says what came
   * @throws {ContractError} the state would not be what the flow's contract says
   */
  async editState(edit: StateEdit, options: EditStateOptions & InTransaction): Promise<EditedState> {
    const state = await this.#host.store.reads.loadState(this.id);
    if (!state) throw new ExecutionNotFoundError(this.id);
    let { values, seq } = state;
    for (;;) {
      const answer = await this.#operate("editState", options, (given) =>
        editOptions(this.#definition, values, seq, edit, given),
      );
      const overtaken = parseOvertaken(answer);
      if (overtaken === null) return parseEdited(answer);
      ({ values, judged: seq } = overtaken);
    }
  }

  /**
   * No chunk starts any more. What runs reaches its end; events and answers are kept; timers that come due fire after `unpause()`;
   * the timeout of the execution goes on counting. Executions below it go on. Pausing what is paused moves its `until`.
   */
  async pause(options: PauseExecutionOptions & InTransaction): Promise<void> {
    await this.#operate("pause", options, pauseOptions);
  }

  /** Goes on; works while the execution is sealed. @throws {UsageError} it is not paused */
  async unpause(options: OperatorOptions & InTransaction): Promise<void> {
    await this.#operate("unpause", options, unpauseOptions);
  }

  /** Application state as it was after an event, or at a moment. @throws {UsageError} before the beginning or after the end */
  async stateAt(at: number | Date): Promise<JsonObject> {
    return stateAt(this.#host.store, this.id, at);
  }

  /** A new execution with the past of this one up to a point; its first event names where it came from. */
  async fork(options: ForkOptions): Promise<Execution<C>> {
    const id = await fork(this.#host.store, this.id, options, this.#host.newId);
    return new Execution(this.#host, id, { name: this.flow, definition: this.#definition }, this.#autoClose);
  }

  /**
   * A new execution that goes on where this closed one failed or was cancelled; this one stays as it is. Attempts count from 1, what is
   * recorded is not run again, sub-flows that completed are kept, and those that did not are redriven with it.
   *
   * @throws {UsageError} it is open, has a parent, completed, or has no such point; says what to do
   * @throws {ContractError} input, output or state are not what the flow's contract says
   */
  async redrive(options: RedriveOptions): Promise<Execution<C>> {
    const id = await this.#host.store.operators.redrive(this.id, redriveOptions(options));
    return new Execution(this.#host, id, { name: this.flow, definition: this.#definition }, this.#autoClose);
  }

  /** Ids of the executions that this one was redriven as, the oldest first. */
  async redrivenBy(): Promise<ExecutionId[]> {
    return this.#host.store.operators.redrivenBy(this.id);
  }

  /** Everything needed to go on in another database that serves the same flow: `orchestrator.load()` takes it. */
  async save(options: KeyOptions = {}): Promise<SavedExecution> {
    requireKnown(options, ["key"], "save()");
    requireKey(options);
    return save(this.#host.store, this.id, this.#definition, options);
  }

  /** Of who sends a command. */
  #traceOf({ traceparent }: { readonly traceparent?: string }): string | null {
    return traceparent === undefined ? this.#host.activeTrace() : parseTraceparent(traceparent);
  }

  async #handle<O extends InTransaction>(
    interruptId: string,
    handling: Handling,
    options: O,
    parse: (options: O) => JsonObject,
  ): Promise<InterruptRecord> {
    // An empty id matches no interrupt, as in SQL.
    if (interruptId !== "") requireText(interruptId, `interruptId of ${handling}()`, { max: 1000 });
    const [{ tx }, rest] = apart(options);
    const given = parse(rest);
    return InterruptRecord.parse(
      await this.#command(tx, (commands) => commands.handle(this.id, interruptId, handling, given)),
    );
  }

  #operate<O extends InTransaction>(operation: Operation, options: O, parse: (options: O) => Operated): Promise<Json> {
    const [{ tx }, rest] = apart(options);
    const given = parse(rest);
    return this.#command(tx, (commands) => commands.operate(this.id, operation, given.options, given.raw));
  }

  /** In a transaction of the caller's it is told when that commits; on its own at once. @param also told as well */
  async #command<T>(
    tx: CallerTransaction | undefined,
    send: (commands: CommandsIn) => Promise<T>,
    also?: ExecutionId,
  ): Promise<T> {
    const { store } = this.#host;
    if (tx !== undefined) return send(await store.commandsIn(tx));
    const answer = await this.#host.send(this.id, this.flow, send);
    if (also !== undefined) store.wakeups.notifyOwner(also);
    return answer;
  }
}
