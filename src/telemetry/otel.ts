/**
 * The part of `@opentelemetry/api` that is used, by its shape: the package is optional, so neither its code nor its types may be
 * needed. Every copy of it in a process, of any 1.x, shares one tracer and one context, so that ours finds the application's SDK.
 */
export interface TraceApi {
  readonly ROOT_CONTEXT: OtelContext;
  readonly trace: {
    getTracer(name: string, version?: string): Tracer;
    getTracerProvider?(): object;
    getActiveSpan?(): Span | undefined;
    setSpan(context: OtelContext, span: Span): OtelContext;
    setSpanContext(context: OtelContext, spanContext: SpanContext): OtelContext;
    getSpanContext(context: OtelContext): SpanContext | undefined;
  };
  readonly context: {
    active(): OtelContext;
    with<T>(context: OtelContext, work: () => T): T;
  };
  readonly metrics?: { getMeter(name: string, version?: string): OtelMeter };
  createNoopMeter?(): OtelMeter;
}

/** Makes instruments. */
export interface OtelMeter {
  createCounter(name: string, options?: InstrumentOptions): { add(value: number, attributes?: Attributes): void };
  createHistogram(name: string, options?: InstrumentOptions): { record(value: number, attributes?: Attributes): void };
  createObservableGauge(name: string, options?: InstrumentOptions): OtelGauge;
  addBatchObservableCallback(callback: OtelCallback, gauges: OtelGauge[]): void;
  removeBatchObservableCallback(callback: OtelCallback, gauges: OtelGauge[]): void;
}

export interface InstrumentOptions {
  description?: string;
  unit?: string;
  advice?: { explicitBucketBoundaries?: number[] };
}

/** Something that is asked for its value. */
export interface OtelGauge {
  addCallback(callback: (result: { observe(value: number, attributes?: Attributes): void }) => unknown): void;
}

/** Says the values of gauges. */
export type OtelCallback = (result: {
  observe(gauge: OtelGauge, value: number, attributes?: Attributes): void;
}) => void | Promise<void>;

export interface OtelContext {
  getValue(key: symbol): unknown;
}

export interface SpanContext {
  traceId: string;
  spanId: string;
  traceFlags: number;
  isRemote?: boolean;
}

export type AttributeValue = string | number | boolean;
export type Attributes = Record<string, AttributeValue>;

export interface Link {
  context: SpanContext;
  attributes?: Attributes;
}

export interface Span {
  spanContext(): SpanContext;
  setAttribute(key: string, value: AttributeValue): unknown;
  setStatus(status: { code: number }): unknown;
  addLink?(link: Link): unknown;
  end(endTime?: Date): void;
}

export interface Tracer {
  startSpan(
    name: string,
    options: { kind?: number; attributes?: Attributes; links?: Link[]; startTime?: Date; root?: boolean },
    context?: OtelContext,
  ): Span;
}

/** As the API numbers them. */
export const kinds = { internal: 0, producer: 3, consumer: 4 } as const;
export const errorStatus = 2;

/** Not a text that a bundler follows: where the package is missing, that is no error. Node looks for it beside the bundle (`build.ts`). */
const packageName = ["@opentelemetry", "api"].join("/");

/** Null where it is not installed. */
export async function loadTraceApi(): Promise<TraceApi | null> {
  try {
    const module: unknown = await import(packageName);
    return isTraceApi(module) ? module : null;
  } catch {
    return null;
  }
}

export function isTraceApi(value: unknown): value is TraceApi {
  if (typeof value !== "object" || value === null) return false;
  return "trace" in value && "context" in value && "ROOT_CONTEXT" in value;
}

/** Whether an SDK is registered: what the API gives in its place makes spans that go nowhere. */
export function hasSdk({ trace }: TraceApi): boolean {
  const provider = trace.getTracerProvider?.() ?? {};
  const { getDelegateTracer: ask }: { getDelegateTracer?: unknown } = provider;
  return typeof ask !== "function" || ask.call(provider, "flowledger") !== undefined;
}

/** Null where no SDK takes metrics. */
export function meterOf(api: TraceApi, version: string): OtelMeter | null {
  const meter = api.metrics?.getMeter("flowledger", version);
  return meter === undefined || meter === api.createNoopMeter?.() ? null : meter;
}

export function isValid({ traceId, spanId }: SpanContext): boolean {
  return !/^0*$/.test(traceId) && !/^0*$/.test(spanId);
}

export function isSampled({ traceFlags }: SpanContext): boolean {
  return (traceFlags & 1) === 1;
}

export function toTraceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${(traceFlags & 0xff).toString(16).padStart(2, "0")}`;
}

/** What `parseTraceparent` let pass. */
export function fromTraceparent(traceparent: string): SpanContext {
  const [, traceId = "", spanId = "", flags = "00"] = traceparent.split("-");
  return { traceId, spanId, traceFlags: parseInt(flags, 16), isRemote: true };
}
