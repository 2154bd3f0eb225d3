/** A receiver of OTLP over HTTP, in JSON, that reads what comes strictly. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { z } from "zod";

const int = z.union([z.int(), z.string().regex(/^-?\d+$/)]);
const Single = z.union([
  z.strictObject({ stringValue: z.string() }),
  z.strictObject({ boolValue: z.boolean() }),
  z.strictObject({ intValue: int }),
  z.strictObject({ doubleValue: z.number() }),
]);
const AnyValue = z.union([Single, z.strictObject({ arrayValue: z.strictObject({ values: z.array(Single) }) })]);
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
  droppedAttributesCount: z.literal(0),
  // Nothing of ours has one, so that no message of an error goes out.
  events: z.tuple([]),
  droppedEventsCount: z.literal(0),
  links: z.array(
    z.strictObject({ traceId, spanId, attributes: Attributes, droppedAttributesCount: z.literal(0), flags: z.int() }),
  ),
  droppedLinksCount: z.literal(0),
  status: z.strictObject({ code: z.int().min(0).max(2) }),
  flags: z.int(),
});

const Resource = z.strictObject({ attributes: Attributes, droppedAttributesCount: z.literal(0) });
const Scope = z.strictObject({ name: z.string(), version: z.string().optional() });

/** `ExportTraceServiceRequest` of opentelemetry-proto. */
const Request = z.strictObject({
  resourceSpans: z.array(
    z.strictObject({
      resource: Resource,
      scopeSpans: z.array(z.strictObject({ scope: Scope, spans: z.array(OtlpSpan) })),
    }),
  ),
});

const point = { attributes: Attributes, startTimeUnixNano: nanoseconds, timeUnixNano: nanoseconds };
const Numbers = z.array(
  z.union([z.strictObject({ ...point, asInt: int }), z.strictObject({ ...point, asDouble: z.number() })]),
);
const metric = { name: z.string().min(1), description: z.string().min(1), unit: z.string() };

/** `ExportMetricsServiceRequest`. */
const MetricsRequest = z.strictObject({
  resourceMetrics: z.array(
    z.strictObject({
      resource: Resource,
      scopeMetrics: z.array(
        z.strictObject({
          scope: Scope,
          metrics: z.array(
            z.union([
              z.strictObject({ ...metric, gauge: z.strictObject({ dataPoints: Numbers }) }),
              z.strictObject({
                ...metric,
                sum: z.strictObject({
                  aggregationTemporality: z.literal(2),
                  isMonotonic: z.literal(true),
                  dataPoints: Numbers,
                }),
              }),
              z.strictObject({
                ...metric,
                histogram: z.strictObject({
                  aggregationTemporality: z.literal(2),
                  dataPoints: z.array(
                    z.strictObject({
                      ...point,
                      bucketCounts: z.array(int),
                      explicitBounds: z.array(z.number()),
                      count: int,
                      sum: z.number(),
                      min: z.number(),
                      max: z.number(),
                    }),
                  ),
                }),
              }),
            ]),
          ),
        }),
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
  /** Names of metrics, by the process that exported them. */
  readonly metrics: ReadonlyMap<unknown, ReadonlySet<string>>;
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
  const metrics = new Map<unknown, Set<string>>();
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
  const takeMetrics = (body: string) => {
    for (const { resource, scopeMetrics } of MetricsRequest.parse(JSON.parse(body)).resourceMetrics) {
      const from = plainOf(resource.attributes)["service.name"];
      const names = metrics.get(from) ?? new Set();
      metrics.set(from, names);
      for (const { name } of scopeMetrics.flatMap((scope) => scope.metrics)) names.add(name);
    }
  };
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => (body += text));
    request.on("end", () => {
      try {
        const reader = { "/v1/traces": take, "/v1/metrics": takeMetrics }[request.url ?? ""];
        if (request.method !== "POST" || !reader) throw new Error(`${request.method} ${request.url}`);
        reader(body);
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
    metrics,
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
