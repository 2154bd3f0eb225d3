/**
 * Traces: a short root span at the start, whose `traceparent` the ledger keeps. All later spans are its children, made by whoever
 * runs the execution and ended within one turn; waits are written afterwards, with their true times. Never a payload.
 */
import { types } from "node:util";
import { UsageError } from "../base/errors.ts";
import { requireBoolean, requireKnown, requireOneOf, requireRecord, show } from "../base/option.ts";
import { release } from "../base/release.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";
import type { Dispatch, Interrupt } from "../ledger/parts.ts";
import type { Claim } from "../store/claims.ts";
import type { NewExecution } from "../store/starts.ts";
import { AttemptTrace } from "./attempt-trace.ts";
import { dueAt } from "./meter.ts";
import {
  fromTraceparent,
  hasSdk,
  isSampled,
  isTraceApi,
  isValid,
  kinds,
  loadTraceApi,
  toTraceparent,
  type Attributes,
  type Link,
  type OtelContext,
  type Span,
  type SpanContext,
  type TraceApi,
  type Tracer,
} from "./otel.ts";

/** Of traces. */
export interface TelemetryOptions {
  /**
   * `"linked"`: a trace per execution, linked to that of its start. `"child"`: the spans are in the trace of the start. `"off"`:
   * none. @default "linked"
   */
  readonly trace?: "linked" | "child" | "off";
  /** Whether steps and transactions have spans too. @default "chunks" */
  readonly detail?: "chunks" | "steps";
  /** Whether pauses and sleeps have spans, which are written when they are over. @default true */
  readonly waits?: boolean;
  /** More attributes for each span, from metadata and not from payloads. What it throws is a warning. @default none */
  readonly attributes?: (execution: ExecutionInfo) => Readonly<Record<string, string | number | boolean>>;
  /** `@opentelemetry/api` itself, where it cannot be found by its name, as in a bundle. @default found by its name */
  readonly api?: TraceApi;
}

export class Tracing {
  readonly #mode: "linked" | "child" | "off";
  readonly #options: TelemetryOptions;
  readonly #log: Logger;
  #api: TraceApi | null;
  #loading: Promise<void> | undefined;
  #hasWarned = false;

  /** @throws {UsageError} an option that is invalid */
  constructor(given: TelemetryOptions | undefined, log: Logger) {
    const options = given === undefined ? {} : given;
    requireKnown(options, ["trace", "detail", "waits", "attributes", "api"], "telemetry of createOrchestrator()");
    const { trace = "linked", detail = "chunks", waits = true, attributes, api } = options;
    this.#mode = requireOneOf(trace, ["linked", "child", "off"], "telemetry.trace");
    requireOneOf(detail, ["chunks", "steps"], "telemetry.detail");
    requireBoolean(waits, "telemetry.waits");
    if (attributes !== undefined && typeof attributes !== "function")
      throw new UsageError(
        `telemetry.attributes must be a function, got ${show(attributes)}`,
        "use (execution) => ({ tenant: … })",
      );
    if (api !== undefined && !isTraceApi(api))
      throw new UsageError("telemetry.api is not @opentelemetry/api", 'import * as api from "@opentelemetry/api"');
    this.#options = options;
    this.#log = log;
    this.#api = this.#mode === "off" ? null : (options.api ?? null);
  }

  /** Looks for the API, once. */
  ready(): Promise<void> {
    return (this.#loading ??= this.#load());
  }

  async #load(): Promise<void> {
    if (this.#mode !== "off") this.#api ??= await this.api();
  }

  /** Null where it is not installed. */
  async api(): Promise<TraceApi | null> {
    return this.#options.api ?? (await loadTraceApi());
  }

  /** Null where nobody would hear of a span. */
  #live(): TraceApi | null {
    return this.#api && hasSdk(this.#api) ? this.#api : null;
  }

  /** The active span, as the ledger keeps it; null where there is none, or nobody would hear of it. */
  active(): string | null {
    const api = this.#live();
    const span = api?.trace.getSpanContext(api.context.active());
    return span && isValid(span) && isSampled(span) ? toTraceparent(span) : null;
  }

  /** Makes the root span of a start, as a child of the active span or with a link to it. */
  started(execution: NewExecution): NewExecution {
    const api = this.#live();
    if (!api) return execution;
    const active = api.trace.getSpanContext(api.context.active());
    const given = execution.traceparent ?? null;
    const caller = given === null ? active : fromTraceparent(given);
    const info = { id: execution.id, flow: execution.flow, metadata: execution.metadata ?? {} };
    const root = this.#root(api, info, caller && isValid(caller) ? [caller, "start"] : null);
    const context = root.spanContext();
    // Without an SDK there is no span, so the caller's context is kept.
    if (!isValid(context)) return execution;
    if (this.#mode === "linked" && given === null)
      api.trace.getActiveSpan?.()?.addLink?.({ context, attributes: { "flowledger.link": "execution" } });
    return { ...execution, traceparent: toTraceparent(context) };
  }

  /** @param from another span, and what it is to this one */
  #root(api: TraceApi, info: ExecutionInfo, from: readonly [SpanContext, string] | null): Span {
    const isChild = this.#mode === "child" && from !== null;
    const span = this.#tracer(api).startSpan(
      `start ${info.flow}`,
      {
        kind: kinds.producer,
        attributes: { ...this.#own(info), "flowledger.execution.id": info.id, "flowledger.flow": info.flow },
        ...(isChild ? {} : { root: true, links: from ? [linkTo(...from)] : [] }),
      },
      isChild ? api.trace.setSpanContext(api.ROOT_CONTEXT, from[0]) : api.ROOT_CONTEXT,
    );
    span.end();
    return span;
  }

  /** What an owner traces with, and what its claim says of that. @param claim before anything of its epoch is folded */
  claimed(claim: Claim, fingerprint: string): TracedClaim {
    const api = this.#live();
    if (!api) return untraced;
    const { state } = claim;
    const info = { id: claim.id, flow: claim.flow, metadata: state.metadata };
    const before = state.lastSpan === null ? null : fromTraceparent(state.lastSpan);
    let root = state.trace === null ? null : fromTraceparent(state.trace);
    const isNew = root === null;
    // The first owner makes the root of a copy, and of a start in a process without traces.
    root ??= this.#root(api, info, before && [before, "copy"]).spanContext();
    if (!isValid(root)) return untraced;
    const made = isNew ? { traceparent: toTraceparent(root) } : {};
    // A trace that was sampled out at the start stays out.
    if (!isSampled(root)) return { trace: null, event: made };
    const attributes = {
      ...this.#own(info),
      "flowledger.execution.id": claim.id,
      "flowledger.flow": claim.flow,
      "flowledger.epoch": claim.epoch,
      "flowledger.worker.id": claim.worker,
      "flowledger.fingerprint": fingerprint,
    };
    const trace = new OwnerTrace(api, this.#tracer(api), claim, {
      root,
      before,
      attributes,
      hasWaits: this.#options.waits ?? true,
    });
    return { trace: trace.isLive ? trace : null, event: { ...(trace.isLive && { span: trace.span }), ...made } };
  }

  get hasSteps(): boolean {
    return this.#options.detail === "steps";
  }

  #tracer(api: TraceApi): Tracer {
    return api.trace.getTracer("flowledger", release);
  }

  #own(info: ExecutionInfo): Attributes {
    const { attributes } = this.#options;
    if (!attributes) return {};
    try {
      const given: unknown = attributes(info);
      if (types.isPromise(given)) given.catch(() => {});
      const own: Attributes = {};
      for (const [name, value] of Object.entries(requireRecord(given, "what telemetry.attributes gives"))) {
        const isNumber = typeof value === "number" && Number.isFinite(value);
        if (typeof value === "string" || typeof value === "boolean" || isNumber) own[name] = value;
        else throw new TypeError(`attribute "${name}" must be a text, a number or a boolean, got ${show(value)}`);
      }
      return own;
    } catch (error) {
      if (!this.#hasWarned)
        this.#log.warn("telemetry.attributes failed: spans go without them", {
          flow: info.flow,
          executionId: info.id,
          error: error instanceof Error ? String(error) : show(error),
        });
      this.#hasWarned = true;
      return {};
    }
  }
}

function linkTo(context: SpanContext, what: string): Link {
  return { context, attributes: { "flowledger.link": what } };
}

export interface TracedClaim {
  /** Null where nothing is traced. */
  readonly trace: OwnerTrace | null;
  /** What `execution.claimed` says of it. */
  readonly event: { readonly span?: string; readonly traceparent?: string };
}

const untraced: TracedClaim = { trace: null, event: {} };

interface Claimed {
  readonly root: SpanContext;
  readonly before: SpanContext | null;
  readonly attributes: Attributes;
  readonly hasWaits: boolean;
}

/** The spans of one owner. */
export class OwnerTrace {
  /** Of the claim. */
  readonly span: string;
  readonly isLive: boolean;
  readonly #api: TraceApi;
  readonly #tracer: Tracer;
  readonly #parent: OtelContext;
  readonly #flow: string;
  readonly #attributes: Attributes;
  /** The claim before, and whether its worker was lost. */
  readonly #before: { readonly context: SpanContext; readonly isLost: boolean } | null;
  readonly #claimedAt: number;
  readonly #hasWaits: boolean;
  /** What an earlier owner had begun. */
  readonly #inherited: ReadonlySet<number>;
  /** The last attempts that failed here, by dispatch. */
  readonly #failed = new Map<number, SpanContext>();

  constructor(api: TraceApi, tracer: Tracer, claim: Claim, { root, before, attributes, hasWaits }: Claimed) {
    const { flow, state, now, takeovers } = claim;
    this.#api = api;
    this.#tracer = tracer;
    this.#flow = flow;
    this.#attributes = attributes;
    this.#claimedAt = now;
    this.#hasWaits = hasWaits;
    this.#parent = api.trace.setSpanContext(api.ROOT_CONTEXT, root);
    this.#inherited = new Set(state.dispatches.keys());
    const isFirst = state.firstClaim === null;
    this.#before = before && !isFirst ? { context: before, isLost: takeovers > 0 } : null;
    // The first claim's span says how long the execution was due, a later one's only when.
    const queue = tracer.startSpan(
      `queue ${flow}`,
      {
        kind: kinds.internal,
        attributes,
        links: this.#linkBefore("claim"),
        startTime: new Date(isFirst ? Math.min(dueAt(state), now) : now),
      },
      this.#parent,
    );
    queue.end(new Date(now));
    const context = queue.spanContext();
    this.isLive = isValid(context) && isSampled(context);
    this.span = toTraceparent(context);
  }

  /** An attempt begins. @param number from 1 */
  attempt(dispatch: Dispatch, chunk: string, number: number): AttemptTrace {
    const { id } = dispatch;
    this.#slept(dispatch, chunk, number);
    const isRetry = isAgain(dispatch);
    const failed = isRetry ? this.#failed.get(id) : undefined;
    const inherited = this.#inherited.has(id) ? this.#linkBefore(isRetry ? "retry" : "claim") : [];
    const attributes = { ...this.#attributes, "flowledger.chunk": chunk, "flowledger.attempt": number };
    const span = this.#tracer.startSpan(
      `chunk ${this.#flow}/${chunk}`,
      { kind: kinds.consumer, attributes, links: failed ? [linkTo(failed, "retry")] : inherited },
      this.#parent,
    );
    return new AttemptTrace(this.#api, this.#tracer, span, attributes, () => this.#failed.set(id, span.spanContext()));
  }

  /** To the claim before. @param what it is, where its worker was not lost */
  #linkBefore(what: "claim" | "retry"): Link[] {
    return this.#before ? [linkTo(this.#before.context, this.#before.isLost ? "takeover" : what)] : [];
  }

  /** It goes on after a sleep through which nobody held it: how long that was. */
  #slept({ id, journal, journaledAt }: Dispatch, chunk: string, attempt: number): void {
    const last = journal.at(-1);
    if (last?.effect !== "sleep" || last.until > this.#claimedAt || !this.#inherited.has(id)) return;
    this.#write(`sleep ${this.#flow}/${chunk}`, chunk, journaledAt, last.until, { attempt });
  }

  /** A person has answered: how long that took. */
  waited(interrupt: Interrupt | undefined): void {
    if (!interrupt || interrupt.resolvedAt === null) return;
    const { chunk, createdAt, resolvedAt, answeredFrom } = interrupt;
    const links = answeredFrom === undefined ? [] : [linkTo(fromTraceparent(answeredFrom), "answer")];
    this.#write(`wait ${this.#flow}/${chunk}`, chunk, createdAt, resolvedAt, { links });
  }

  /** A span of what is over: from and until are milliseconds since 1970. */
  #write(
    name: string,
    chunk: string,
    from: number,
    until: number,
    { links = [], attempt }: { readonly links?: Link[]; readonly attempt?: number },
  ): void {
    if (!this.#hasWaits) return;
    const attributes = {
      ...this.#attributes,
      "flowledger.chunk": chunk,
      ...(attempt !== undefined && { "flowledger.attempt": attempt }),
    };
    this.#tracer
      .startSpan(
        name,
        { kind: kinds.internal, attributes, links, startTime: new Date(Math.min(from, until)) },
        this.#parent,
      )
      .end(new Date(until));
  }
}

/** Whether the attempt before failed, and not one that has since recorded what it waits for: an operator's retry is one too. */
function isAgain({ failedSeq, failedAt, journaledAt }: Dispatch): boolean {
  return failedSeq > 0 && journaledAt <= failedAt;
}
