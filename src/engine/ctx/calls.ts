/** The part of `ctx` that does something once and waits: steps, transactions, sleeps, calls. */
import { createHash } from "node:crypto";
import { unlessAborted, withTimeout } from "../../base/async.ts";
import { parseDuration, parseMoment } from "../../base/duration.ts";
import { revive, StepTimeoutError, UsageError } from "../../base/errors.ts";
import { canonical, copyJson, isObject, toJson, type Json, type JsonObject } from "../../base/json.ts";
import {
  isStorable,
  requireDate,
  requireFunction,
  requireInteger,
  requireKnown,
  requireOneOf,
  requireRecord,
  requireSignal,
  requireText,
  show,
} from "../../base/option.ts";
import type {
  Callable,
  CallOptions,
  Ctx,
  Output,
  StepOptions,
  Transaction,
  TransactionOf,
  TransactionOptions,
  TransactionSource,
} from "../../flow/context.ts";
import { isContractOwner, parseInput, parseReturn } from "../../flow/contract.ts";
import { resolveRetry } from "../../flow/retry.ts";
import type { Effect as LedgerEffect } from "../../ledger/command.ts";
import type { ExecutionId } from "../../ledger/event.ts";
import { endingError } from "../../ledger/views.ts";
import { own, type CtxAttempt } from "./attempt.ts";
import { resultOf } from "../child.ts";
import type { Captured, NewChild } from "../child.ts";
import type { ClosedExecution } from "../host.ts";
import { backoffMs, serializeError } from "../retries.ts";
import type { Inside } from "../../telemetry/attempt-trace.ts";
import type { Turn } from "../turns.ts";
import { PeopleCtx } from "./people.ts";

const callOptions = Object.keys({
  metadata: true,
  priority: true,
  delay: true,
  startAt: true,
  discardAfter: true,
  timeout: true,
  idempotencyKey: true,
  signal: true,
  onAbandon: true,
} satisfies Record<keyof CallOptions, true>);

/** By its name: what began beside it, and in which order, may be another in the next attempt where nothing of it was recorded. */
function keyOf({ idempotencyKey }: CtxAttempt, step: string): string {
  return `${idempotencyKey}/${encodeURIComponent(step)}`;
}

type Work = (signal: AbortSignal, idempotencyKey: string) => unknown;

export class CallsCtx extends PeopleCtx implements Pick<Ctx, "step" | "transaction" | "sleep" | "call"> {
  readonly #names = new Set<string>();

  get step() {
    const run = (name: string, work: Work, options?: StepOptions) =>
      this[own].durable(`step ${show(name)}`, (turn) => this.#step(turn, name, work, options));
    function step<T>(
      name: string,
      work: (signal: AbortSignal, idempotencyKey: string) => T,
      options?: StepOptions,
    ): Promise<Output<T>>;
    function step(name: string, work: Work, options?: StepOptions): Promise<unknown> {
      return run(name, work, options);
    }
    return step;
  }

  async #step(turn: Turn, given: string, work: Work, options: StepOptions = {}): Promise<Json> {
    const attempt = this[own];
    const { host, dispatch, journal, chunk } = attempt;
    const where = `step ${show(given)} of chunk "${chunk.name}"`;
    requireKnown(options, ["retry", "timeout"], where);
    requireFunction(work, `the work of ${where}`);
    const { timeout = null } = options;
    const timeoutMs = timeout === null ? null : parseDuration(timeout, `timeout of ${where}`);
    const policy = resolveRetry(options.retry, where);
    const name = this.#nameOf(given, where);
    const { ordinal, entry } = this.#placed(turn, journal.next("step", name));
    const agreed = attempt.agreed();
    if (agreed) await agreed;
    if (entry?.effect === "step") return copyJson(entry.value);
    let number = 1;
    if (entry?.effect === "stepFailed") {
      if (entry.notBefore === null) throw revive(entry.error);
      number = entry.attempt + 1;
      await host.waitUntil(dispatch.id, entry.notBefore);
    }
    for (; ; number++) {
      let value: Json;
      try {
        value = await attempt.busy(async () => {
          const idempotencyKey = keyOf(attempt, name);
          const keyed = (signal: AbortSignal) => traced(attempt, "step", name, () => work(signal, idempotencyKey));
          host.began?.({ chunk: chunk.name, attempt: attempt.number, step: name, idempotencyKey });
          return parseReturn(null, await this.#timed(name, keyed, timeoutMs), `result of ${where}`);
        });
      } catch (error) {
        attempt.requireLive();
        const retryInMs = backoffMs(policy, { error, attempt: number, where, now: host.now() });
        const serialized = serializeError(error, chunk.name, number);
        journal.buffer({ ordinal, effect: "stepFailed", name, attempt: number, error: serialized, retryInMs });
        await attempt.flush();
        if (retryInMs === null) throw error;
        const failed = dispatch.journal.find((known) => known.ordinal === ordinal);
        if (failed?.effect === "stepFailed" && failed.notBefore !== null)
          await host.waitUntil(dispatch.id, failed.notBefore);
        continue;
      }
      attempt.requireLive();
      journal.buffer({ ordinal, effect: "step", name, value });
      await attempt.flush();
      return copyJson(value);
    }
  }

  get transaction() {
    const run = (
      name: string,
      work: (tx: never) => unknown,
      options?: TransactionOptions & { readonly client?: TransactionSource },
    ) => this[own].durable(`transaction ${show(name)}`, (turn) => this.#transaction(turn, name, work, options));
    function transaction<T>(
      name: string,
      work: (tx: Transaction) => T,
      options?: TransactionOptions,
    ): Promise<Output<T>>;
    function transaction<S extends TransactionSource, T>(
      name: string,
      work: (tx: TransactionOf<S>) => T,
      options: TransactionOptions & { readonly client: S },
    ): Promise<Output<T>>;
    function transaction(
      name: string,
      work: (tx: never) => unknown,
      options?: TransactionOptions & { readonly client?: TransactionSource },
    ): Promise<unknown> {
      return run(name, work, options);
    }
    return transaction;
  }

  async #transaction(
    turn: Turn,
    given: string,
    work: (tx: never) => unknown,
    options: TransactionOptions & { readonly client?: TransactionSource } = {},
  ): Promise<Json> {
    const attempt = this[own];
    const { host, dispatch, journal, signal } = attempt;
    const where = `transaction ${show(given)} of chunk "${attempt.chunk.name}"`;
    requireKnown(options, ["client", "timeout"], where);
    requireFunction(work, `the work of ${where}`);
    const { timeout = null, client } = options;
    if (client !== undefined && !isObject(client) && typeof client !== "function")
      throw new UsageError(
        `client of ${where} opens no transactions, got ${show(client)}`,
        "pass postgres.js, a pool of pg, or drizzle",
      );
    const timeoutMs = timeout === null ? null : parseDuration(timeout, `timeout of ${where}`);
    const name = this.#nameOf(given, where);
    const { ordinal, entry } = this.#placed(turn, journal.next("step", name));
    const agreed = attempt.agreed();
    if (agreed) await agreed;
    if (entry?.effect === "step") return copyJson(entry.value);
    await attempt.flush();
    let recorded: Json = null;
    const run = (inside: Inside) =>
      host.transactions.run(
        client ?? null,
        async (tx) => {
          host.began?.({
            chunk: attempt.chunk.name,
            attempt: attempt.number,
            step: name,
            idempotencyKey: keyOf(attempt, name),
          });
          const returning = async () => this.#timed(name, () => inside(() => work(tx as never)), timeoutMs);
          // An attempt that is cut off rolls back at once, to free its rows and its connection.
          return parseReturn(null, await unlessAborted(returning(), signal), `result of ${where}`);
        },
        async (value, send) => {
          recorded = value;
          const turns = attempt.turns.take();
          const effect: LedgerEffect = { ordinal, effect: "step", name, value };
          if (turns.length > 0) effect.turns = turns;
          await host.record(dispatch.id, effect, send).catch((error: unknown) => {
            attempt.turns.giveBack(turns);
            throw error;
          });
        },
      );
    await attempt.busy(async () => traced(attempt, "transaction", name, run));
    attempt.requireLive();
    return copyJson(recorded);
  }

  get sleep() {
    return (given: string | number | Date) =>
      this[own].durable("sleep()", async (turn) => {
        const { host, dispatch, journal, chunk } = this[own];
        const moment = parseMoment(given, `sleep in chunk "${chunk.name}"`);
        const until = moment instanceof Date ? { until: moment.getTime() } : {};
        const forMs = moment instanceof Date ? Math.max(0, Math.round(moment.getTime() - host.now())) : moment;
        // The journal compares the date: the remaining time differs from attempt to attempt.
        const what = moment instanceof Date ? moment.toISOString() : moment;
        const { ordinal, entry } = this.#placed(turn, journal.next("sleep", "", what));
        const agreed = this[own].agreed();
        if (agreed) await agreed;
        if (!entry) {
          journal.buffer({ ordinal, effect: "sleep", forMs, ...until });
          await this[own].flush();
        }
        const sleep = dispatch.journal.find((known) => known.ordinal === ordinal);
        if (sleep?.effect !== "sleep") return;
        await host.waitUntil(dispatch.id, sleep.until);
        turn.until = sleep.until;
      });
  }

  get call() {
    const run = (target: Callable<never, unknown>, input: unknown, options?: CallOptions) =>
      this[own].durable(`call of ${show(Object(target).name)}`, (turn) => this.#call(turn, target, input, options));
    function call<In2, Out>(target: Callable<In2, Out>, input: In2, options?: CallOptions): Promise<Out>;
    function call(target: Callable<never, unknown>, input: unknown, options?: CallOptions): Promise<unknown> {
      return run(target, input, options);
    }
    return call;
  }

  async #call(turn: Turn, target: Callable<never, unknown>, input: unknown, options: CallOptions = {}): Promise<Json> {
    const where = `call of ${show(Object(target).name)} in chunk "${this[own].chunk.name}"`;
    const isTarget = typeof target === "object" || (typeof target === "function" && "flow" in target);
    if (!isTarget || !isStorable(Object(target).name))
      throw new UsageError(`${where} got no flow, but ${show(target)}`, "pass a flow, or a deferred function");
    requireKnown(options, callOptions, where);
    const definition = "flow" in target ? target.flow : target;
    const owner = isContractOwner(definition) ? definition : { name: target.name, contract: {} };
    const {
      metadata,
      priority = 0,
      delay,
      startAt,
      discardAfter,
      timeout,
      idempotencyKey,
      signal,
      onAbandon,
    } = options;
    if (signal !== undefined) requireSignal(signal, `signal of ${where}`);
    requireInteger(priority, `priority of ${where}`, { min: -32_767, max: 32_767 });
    if (idempotencyKey !== undefined) requireText(idempotencyKey, `idempotencyKey of ${where}`, { max: 500 });
    if (metadata !== undefined) requireRecord(metadata, `metadata of ${where}`);
    if (onAbandon !== undefined) requireOneOf(onAbandon, ["cancel", "leave"], `onAbandon of ${where}`);
    const given = metadata === undefined ? null : toJson(metadata, `metadata of ${where}`);
    const leaves =
      (onAbandon ?? (idempotencyKey === undefined && signal === undefined ? "cancel" : "leave")) === "leave";
    const called = {
      input: parseInput(owner, input),
      state: {},
      resources: {},
      metadata: isObject(given) ? given : null,
      priority,
      delayMs: delay === undefined ? null : parseDuration(delay, `delay of ${where}`),
      startAt:
        startAt === undefined ? null : parseMoment(requireDate(startAt, `startAt of ${where}`), `startAt of ${where}`),
      discardAfter: discardAfter === undefined ? null : parseMoment(discardAfter, `discardAfter of ${where}`),
      timeoutMs: timeout === undefined || timeout === null ? null : parseDuration(timeout, `timeout of ${where}`),
      idempotencyKey: idempotencyKey ?? null,
    };
    signal?.throwIfAborted();
    const { id, ending } = await this.#runChild(turn, target.name, called, {
      signal,
      input: digestOf(called.input),
      leaves,
    });
    return resultOf(snapshotOf(id, target.name, ending));
  }

  /** For the chunk of a sub-flow: null when the child was cancelled from outside. */
  get callChild() {
    return (flow: string, captured: Captured) =>
      this[own].durable(`sub-flow ${JSON.stringify(flow)}`, async (turn): Promise<JsonObject | null> => {
        const { id, ending } = await this.#runChild(turn, flow, { ...captured, ...plain });
        const { host } = this[own];
        if (ending.outcome !== "completed" && (await host.isCancelledExternally(id))) return null;
        return snapshotOf(id, flow, ending);
      });
  }

  async #runChild(
    turn: Turn,
    flow: string,
    child: Omit<NewChild, "id" | "flow" | "parent">,
    {
      signal,
      input,
      leaves = false,
    }: { readonly signal?: AbortSignal | undefined; readonly input?: string; readonly leaves?: boolean } = {},
  ): Promise<{ id: ExecutionId; ending: ClosedExecution }> {
    const { host, dispatch, journal } = this[own];
    const { ordinal, entry } = this.#placed(turn, journal.next("call", flow, input));
    const agreed = this[own].agreed();
    if (agreed) await agreed;
    const id = entry?.effect === "call" ? entry.child : host.newId();
    if (!entry) {
      const settings = { ...(input !== undefined && { input }), ...(leaves && { leaves }) };
      journal.buffer({ ordinal, effect: "call", child: id, flow, ...settings });
      await this[own].flush();
    }
    if ((host.state.children.get(id)?.closed ?? null) !== null) this[own].turns.expect(turn);
    const ending = await host.runChild(dispatch.id, { ...child, id, flow, ordinal }, signal);
    this[own].requireLive();
    host.ended.add(id);
    return { id, ending };
  }

  /** A retry finds its turn again by that of the effect. */
  #placed<T extends { readonly ordinal: number }>(turn: Turn, found: T): T {
    this[own].turns.place(turn, found.ordinal);
    return found;
  }

  /** The same name again numbers itself. */
  #nameOf(given: string, where: string): string {
    requireText(given, `name of ${where}`, { max: 500 });
    let name = given;
    for (let number = 2; this.#names.has(name); number++) name = `${given} #${number}`;
    this.#names.add(name);
    return name;
  }

  #timed(name: string, work: (signal: AbortSignal) => unknown, timeoutMs: number | null): unknown {
    const { signal, host, chunk } = this[own];
    if (timeoutMs === null) return work(signal);
    const limit = new AbortController();
    const late = () => {
      const error = new StepTimeoutError(host.info.id, chunk.name, name, timeoutMs);
      limit.abort(error);
      throw error;
    };
    const returned = Promise.resolve(work(AbortSignal.any([signal, limit.signal])));
    return withTimeout(returned, timeoutMs, late, host.timers, `timeout of step "${name}" of chunk "${chunk.name}"`);
  }
}

/** What a retry is to call the same child with, short enough for each call's event. */
function digestOf(input: Json): string {
  return createHash("sha256").update(canonical(input)).digest("base64url").slice(0, 22);
}

const plain = {
  metadata: null,
  priority: 0,
  delayMs: null,
  startAt: null,
  discardAfter: null,
  timeoutMs: null,
  idempotencyKey: null,
};

/** The close snapshot of a child. @throws {ExecutionFailedError | ExecutionCancelledError} */
function snapshotOf(id: ExecutionId, flow: string, ending: ClosedExecution): JsonObject {
  if (ending.outcome === "completed") return copyJson(ending.snapshot);
  throw endingError(id, { ...ending, flow });
}

/** A step in a span of its own, where that is asked for. */
function traced<T>(
  attempt: CtxAttempt,
  kind: "step" | "transaction",
  name: string,
  work: (inside: Inside) => T,
): T | Promise<T> {
  const { host, trace } = attempt;
  return trace && host.tracesSteps ? trace.step<T>(kind, name, async (inside) => work(inside)) : work((run) => run());
}
