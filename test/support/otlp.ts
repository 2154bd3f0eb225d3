/** OTLP over HTTP, in JSON: what a process exports with, and a receiver that reads what comes strictly. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace-base";
import { z } from "zod";

const AnyValue = z.union([
  z.strictObject({ stringValue: z.string() }),
  z.strictObject({ boolValue: z.boolean() }),
  z.strictObject({ intValue: z.string().regex(/^-?\d+$/) }),
  z.strictObject({ doubleValue: z.number() }),
]);
const Attributes = z.array(z.strictObject({ key: z.string().min(1), value: AnyValue }));
const traceId = z.string().regex(/^(?!0+$)[0-9a-f]{32}$/);
const spanId = z.string().regex(/^(?!0+$)[0-9a-f]{16}$/);
const nanoseconds = z.string().regex(/^\d{19}$/);

const OtlpSpan = z.strictObject({
  traceId,
  spanId,
  parentSpanId: spanId.optional(),
  name: z.string().min(1),
  kind: z.int().min(1).max(5),
  startTimeUnixNano: nanoseconds,
  endTimeUnixNano: nanoseconds,
  attributes: Attributes,
  links: z.array(z.strictObject({ traceId, spanId, attributes: Attributes })),
  status: z.strictObject({ code: z.int().min(0).max(2) }),
});
type OtlpSpan = z.infer<typeof OtlpSpan>;

/** `ExportTraceServiceRequest` of opentelemetry-proto. */
const Request = z.strictObject({
  resourceSpans: z.array(
    z.strictObject({
      resource: z.strictObject({ attributes: Attributes }),
      scopeSpans: z.array(
        z.strictObject({ scope: z.strictObject({ name: z.string(), version: z.string() }), spans: z.array(OtlpSpan) }),
      ),
    }),
  ),
});

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** What each link says it is, and where it leads. */
  readonly links: readonly { readonly what: unknown; readonly traceId: string; readonly spanId: string }[];
  /** The process that exported it. */
  readonly from: unknown;
}

export interface Receiver extends AsyncDisposable {
  readonly url: string;
  readonly spans: readonly ReceivedSpan[];
  /** What came and was no request of OTLP. */
  readonly refused: readonly string[];
  /** Called whenever something came, until the span is there. */
  until(find: (span: ReceivedSpan) => boolean, withinMs?: number): Promise<ReceivedSpan>;
}

const plainOf = (attributes: z.infer<typeof Attributes>) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));

const ms = (time: string) => Number(BigInt(time) / 1000n) / 1000;

export async function openReceiver(): Promise<Receiver> {
  const spans: ReceivedSpan[] = [];
  const refused: string[] = [];
  const waiting = new Set<() => void>();
  const take = (body: string) => {
    for (const { resource, scopeSpans } of Request.parse(JSON.parse(body)).resourceSpans) {
      const from = plainOf(resource.attributes)["service.name"];
      for (const one of scopeSpans.flatMap((scope) => scope.spans))
        spans.push({
          traceId: one.traceId,
          spanId: one.spanId,
          parentSpanId: one.parentSpanId,
          name: one.name,
          startMs: ms(one.startTimeUnixNano),
          endMs: ms(one.endTimeUnixNano),
          attributes: plainOf(one.attributes),
          links: one.links.map((link) => ({
            what: plainOf(link.attributes)["flowledger.link"],
            traceId: link.traceId,
            spanId: link.spanId,
          })),
          from,
        });
    }
  };
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => (body += text));
    request.on("end", () => {
      try {
        if (request.method !== "POST" || request.url !== "/v1/traces")
          throw new Error(`${request.method} ${request.url}`);
        take(body);
        response.writeHead(200, { "content-type": "application/json" }).end("{}");
      } catch (error) {
        refused.push(String(error));
        response.writeHead(400).end();
      }
      for (const look of waiting) look();
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    refused,
    async until(find, withinMs = 20_000) {
      const { promise, resolve, reject } = Promise.withResolvers<ReceivedSpan>();
      const look = () => {
        const found = spans.find(find);
        if (found) resolve(found);
      };
      const timer = setTimeout(
        () =>
          reject(
            new Error(`no such span among ${spans.map(({ name, from }) => `${name} (${String(from)})`).join(", ")}`),
          ),
        withinMs,
      );
      waiting.add(look);
      look();
      return await promise.finally(() => {
        clearTimeout(timer);
        waiting.delete(look);
      });
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

function valueOf(value: unknown): z.infer<typeof AnyValue> {
  if (typeof value === "boolean") return { boolValue: value };
  if (typeof value === "number") return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  return { stringValue: String(value) };
}

const attributesOf = (attributes: object) =>
  Object.entries(attributes).map(([key, value]: [string, unknown]) => ({ key, value: valueOf(value) }));

const nanos = ([seconds, rest]: readonly [number, number]) => String(BigInt(seconds) * 1_000_000_000n + BigInt(rest));

function encode(span: ReadableSpan): OtlpSpan {
  const { traceId: trace, spanId: id } = span.spanContext();
  return {
    traceId: trace,
    spanId: id,
    ...(span.parentSpanContext && { parentSpanId: span.parentSpanContext.spanId }),
    name: span.name,
    // As the API numbers them, from 0.
    kind: span.kind + 1,
    startTimeUnixNano: nanos(span.startTime),
    endTimeUnixNano: nanos(span.endTime),
    attributes: attributesOf(span.attributes),
    links: span.links.map(({ context, attributes = {} }) => ({
      traceId: context.traceId,
      spanId: context.spanId,
      attributes: attributesOf(attributes),
    })),
    status: { code: span.status.code },
  };
}

/** @param name of the service @param onSent is told of each span that the receiver has */
export function otlpExporter(url: string, name: string, onSent: (span: string) => void): SpanExporter {
  const underWay = new Set<Promise<void>>();
  const send = async (spans: readonly ReadableSpan[]): Promise<boolean> => {
    const body = {
      resourceSpans: [
        {
          resource: { attributes: attributesOf({ "service.name": name }) },
          scopeSpans: spans.map((span) => ({
            scope: { name: span.instrumentationScope.name, version: span.instrumentationScope.version ?? "" },
            spans: [encode(span)],
          })),
        },
      ],
    };
    const response = await fetch(`${url}/v1/traces`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    for (const span of spans) onSent(span.name);
    return response.ok;
  };
  return {
    export(spans, done) {
      const sending = send(spans).then(
        (isTaken) => done({ code: isTaken ? 0 : 1 }),
        (error: unknown) => done({ code: 1, error: error instanceof Error ? error : new Error(String(error)) }),
      );
      underWay.add(sending);
      void sending.finally(() => underWay.delete(sending));
    },
    async shutdown() {
      await Promise.all(underWay);
    },
  };
}
