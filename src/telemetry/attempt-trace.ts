/** The span of one attempt, and those of its steps. */
import {
  errorStatus,
  kinds,
  toTraceparent,
  type Attributes,
  type OtelContext,
  type Span,
  type TraceApi,
  type Tracer,
} from "./otel.ts";

/** Runs code with a span as the active one. */
export type Inside = <T>(run: () => T) => T;

/** The span of one attempt, and those in it. */
export class AttemptTrace {
  readonly #api: TraceApi;
  readonly #tracer: Tracer;
  readonly #span: Span;
  readonly #context: OtelContext;
  readonly #attributes: Attributes;
  readonly #onFailed: () => void;
  #hasEnded = false;

  constructor(api: TraceApi, tracer: Tracer, span: Span, attributes: Attributes, onFailed: () => void) {
    this.#api = api;
    this.#tracer = tracer;
    this.#span = span;
    this.#context = api.trace.setSpan(api.ROOT_CONTEXT, span);
    this.#attributes = attributes;
    this.#onFailed = onFailed;
  }

  get traceparent(): string {
    return toTraceparent(this.#span.spanContext());
  }

  get ids(): { readonly traceId: string; readonly spanId: string } {
    const { traceId, spanId } = this.#span.spanContext();
    return { traceId, spanId };
  }

  /** Runs user code with the span as the active one, so that what it calls joins by itself. */
  run<T>(work: () => T): T {
    return this.#api.context.with(this.#context, work);
  }

  /**
   * Runs a step of it in a span of its own, which is the active one in `work` and in what that runs by `inside`: a driver may call
   * back from anywhere.
   */
  async step<T>(kind: "step" | "transaction", name: string, work: (inside: Inside) => Promise<T>): Promise<T> {
    const span = this.#tracer.startSpan(
      `${kind} ${name}`,
      { kind: kinds.internal, attributes: { ...this.#attributes, "flowledger.step": name } },
      this.#context,
    );
    const context = this.#api.trace.setSpan(this.#context, span);
    const inside: Inside = (run) => this.#api.context.with(context, run);
    try {
      return await inside(() => work(inside));
    } catch (error) {
      fail(span, error instanceof Error ? error.name : typeof error);
      throw error;
    } finally {
      span.end();
    }
  }

  /** @param error the name of what it failed with */
  end(outcome: string, error: string | null = null): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#span.setAttribute("flowledger.outcome", outcome);
    if (error !== null) {
      fail(this.#span, error);
      this.#onFailed();
    }
    this.#span.end();
  }
}

function fail(span: Span, error: string): void {
  span.setAttribute("error.type", error);
  span.setStatus({ code: errorStatus });
}
