/** A process that is traced: a service that starts executions over HTTP, or a worker. Its spans go to OTLP_URL. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { createOrchestrator } from "../../src/index.ts";
import { otlpExporter } from "../support/otlp.ts";
import { tracedFlow, tracedFlows } from "./traced-flows.ts";

const name = process.env["TRACED_NAME"] ?? "";
const say = (line: string) => process.stdout.write(`${line}\n`);
api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
api.trace.setGlobalTracerProvider(
  new BasicTracerProvider({
    spanProcessors: [
      new SimpleSpanProcessor(otlpExporter(process.env["OTLP_URL"] ?? "", name, (span) => say(`exported ${span}`))),
    ],
  }),
);
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
