/** `/metrics`, `/healthz` and `/readyz` on a port of their own: for scrapers and probes, which know no tokens. Read only. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { requireInteger } from "../base/option.ts";
import { UsageError } from "../base/errors.ts";
import type { Health } from "./health.ts";
import { openMetricsType } from "./openmetrics.ts";

export interface EndpointSource {
  metrics(): Promise<string>;
  health(): Health;
  ready(): Promise<Health>;
}

export interface EndpointOptions {
  /** 0 is a free one. */
  readonly port: number;
  /** @default all addresses */
  readonly host?: string | undefined;
}

export interface Endpoint extends AsyncDisposable {
  readonly port: number;
}

/** @throws {UsageError} no port, or one that is in use */
export async function openEndpoint(source: EndpointSource, { port, host }: EndpointOptions): Promise<Endpoint> {
  requireInteger(port, "metrics port", { min: 0, max: 65_535 });
  const server = createServer((request, response) => void answer(source, request, response));
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", (error) =>
    reject(
      new UsageError(
        `metrics cannot listen on port ${port}${host === undefined ? "" : ` of ${host}`} (${error.message})`,
        "choose another --metrics-port, or 0 for a free one",
        {},
        error,
      ),
    ),
  );
  server.listen({ port, host }, resolve);
  await listening;
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      const { promise: closed, resolve: done } = Promise.withResolvers<void>();
      server.close(() => done());
      server.closeAllConnections();
      await closed;
    },
  };
}

async function answer(source: EndpointSource, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [path] = (request.url ?? "").split("?");
  response.setHeader("cache-control", "no-store");
  response.setHeader("x-content-type-options", "nosniff");
  const send = (status: number, type: string, body: string) =>
    response.writeHead(status, { "content-type": type }).end(body);
  const sendHealth = (health: Health) => send(health.ok ? 200 : 503, "application/json", JSON.stringify(health));
  try {
    if (path !== "/metrics" && path !== "/healthz" && path !== "/readyz")
      return void send(404, "text/plain", "there are /metrics, /healthz and /readyz\n");
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return void send(405, "text/plain", "use GET\n");
    }
    if (path === "/metrics") return void send(200, openMetricsType, await source.metrics());
    sendHealth(path === "/healthz" ? source.health() : await source.ready());
  } catch (error) {
    // The orchestrator was closed meanwhile.
    send(503, "text/plain", `${error instanceof Error ? error.message : String(error)}\n`);
  }
}
