/** A process that is traced by OpenTelemetry's SDK: a service that starts executions over HTTP, or a worker. It exports to OTLP_URL. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import * as api from "@opentelemetry/api";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { NodeSDK, metrics, tracing } from "@opentelemetry/sdk-node";
import { createOrchestrator } from "../../src/index.ts";
import { tracedFlow, tracedFlows } from "./traced-flows.ts";

const name = process.env["TRACED_NAME"] ?? "";
const url = process.env["OTLP_URL"] ?? "";
const say = (line: string) => process.stdout.write(`${line}\n`);
const sdk = new NodeSDK({
  serviceName: name,
  spanProcessors: [new tracing.SimpleSpanProcessor(new OTLPTraceExporter({ url: `${url}/v1/traces` }))],
  metricReaders: [
    new metrics.PeriodicExportingMetricReader({
      exporter: new OTLPMetricExporter({ url: `${url}/v1/metrics` }),
      exportIntervalMillis: 1000,
      exportTimeoutMillis: 1000,
    }),
  ],
  logRecordProcessors: [],
});
sdk.start();
const orchestrator = createOrchestrator({
  connection: process.env["CRASH_URL"] ?? "",
  flows: tracedFlows,
  telemetry: { detail: "steps" },
});
const tracer = api.trace.getTracer(name);

if (name === "caller") {
  const server = createServer((request, response) => {
    void tracer.startActiveSpan("POST /refunds", async (span) => {
      try {
        const { id } = await orchestrator.flow(tracedFlow).startExecution({}, { autoCloseTimeout: 0 });
        response.end(JSON.stringify({ id, traceId: span.spanContext().traceId, spanId: span.spanContext().spanId }));
      } catch (error) {
        response.writeHead(500).end(String(error));
      } finally {
        request.resume();
        span.end();
      }
    });
  }).listen(0, "127.0.0.1", () => say(`ready ${(server.address() as AddressInfo).port}`));
} else {
  const worker = await orchestrator.startWorker({ drainTimeout: "5s" });
  say(`ready ${worker.id}`);
}
process.on("SIGTERM", () => void orchestrator.close().then(() => process.exit(0)));
