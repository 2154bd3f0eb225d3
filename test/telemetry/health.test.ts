/** What probes are told: by functions, and by the port of `flowledger worker`. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Health } from "../../src/index.ts";
import { openStore } from "../../src/store/store.ts";
import { openEndpoint } from "../../src/telemetry/endpoint.ts";
import { healthOf, readinessOf } from "../../src/telemetry/health.ts";
import type { Vitals } from "../../src/telemetry/vitals.ts";
import { startHeartbeat } from "../../src/worker/heartbeat.ts";
import { cliPath, runCli } from "../support/cli.ts";
import { emptyDatabase, testDatabase, type TestDatabase } from "../support/database.ts";
import { newGate, visiting } from "../support/flows.ts";
import { parseOpenMetrics } from "../support/openmetrics.ts";
import { startProcess } from "../support/processes.ts";

let database: TestDatabase;
let folder: string;
beforeAll(async () => {
  database = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "flowledger-health-test-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const well: Vitals = {
  state: "serving",
  slots: 10,
  freeSlots: 10,
  owned: 0,
  silentMs: 400,
  isHeld: true,
  takesClaims: true,
};

function failed({ checks }: Health): string[] {
  return checks.filter(({ ok }) => !ok).map(({ name }) => name);
}

describe("health", () => {
  test.each<[string, Partial<Vitals>, number | null, string[]]>([
    ["of a worker that is well", {}, 80, []],
    ["of one that was given up", { isHeld: false, takesClaims: false }, 80, ["lease"]],
    ["of one that nobody hears", { silentMs: 10_001 }, 80, ["lease"]],
    ["of one whose loop stands still", {}, 6000, ["loop"]],
    ["of one that drains", { state: "draining", takesClaims: false }, 80, []],
  ])("%s", (_, change, sinceTickMs, expected) => {
    const health = healthOf([{ ...well, ...change }], sinceTickMs);

    expect({ ok: health.ok, failed: failed(health) }).toEqual({ ok: expected.length === 0, failed: expected });
  });

  test("one of two workers that was given up is enough to fail, and one that takes is enough to be ready", () => {
    const workers = [well, { ...well, isHeld: false, takesClaims: false }];

    expect(failed(healthOf(workers, 0))).toEqual(["lease"]);
    expect(failed(readinessOf(workers, null))).toEqual([]);
    expect(failed(readinessOf([{ ...well, silentMs: 20_000 }], null))).toEqual(["claims"]);
  });
});

test("a worker that the others have given up is not held from the moment it hears of that", async () => {
  const gone = newGate();
  const store = openStore(database.url);
  const id = crypto.randomUUID();
  const heartbeat = startHeartbeat(
    {
      id,
      host: "here",
      pid: process.pid,
      flows: [],
      fingerprints: [],
      slots: 1,
      schedules: {},
      pool: null,
      connection: store.links.thread("given up"),
      names: store.names,
      everyMs: 20,
      stuckMs: 60_000,
      onTick: () => {},
    },
    () => gone.open(),
  );
  await heartbeat.registered;
  expect(heartbeat.isHeld).toBe(true);

  await database.sql`delete from flowledger.workers where id = ${id}`;
  await gone.passed;

  expect(heartbeat.isHeld).toBe(false);
  await heartbeat.stop();
  await store.close();
});

test("a process is ready when its database fits and its worker takes executions, and not while it drains", async () => {
  const [begun, gate] = [newGate(), newGate()];
  const held = defineFlow("held");
  held.to("hold", async () => {
    begun.open();
    await gate.passed;
  });
  await using orchestrator = visiting(database, [held]);

  const without = await orchestrator.ready();
  const worker = await orchestrator.startWorker({ drainTimeout: "20s" });
  const serving = await orchestrator.ready();
  await (await orchestrator.flow(held).createExecution({ autoClose: false })).start(null);
  await begun.passed;
  const stopping = worker.stop();
  const draining = [failed(await orchestrator.ready()), failed(orchestrator.health())];
  gate.open();
  await stopping;

  expect(failed(without)).toEqual(["claims"]);
  expect(serving.ok).toBe(true);
  expect(draining).toEqual([["claims"], []]);
  expect(failed(await orchestrator.ready())).toEqual(["claims"]);
  expect(orchestrator.health().ok).toBe(true);
});

test("a database that was not migrated, or does not answer, is not ready, and says why", async () => {
  await using empty = await emptyDatabase();
  await using unmigrated = visiting(empty);
  await using away = createOrchestrator({ connection: "postgres://nobody@127.0.0.1:1/none" });

  const [first, second] = await Promise.all([unmigrated.ready(), away.ready()]);

  expect(failed(first)).toEqual(["migrated", "claims"]);
  expect(first.checks[0]?.detail).toMatch(/migrate/);
  expect(failed(second)).toEqual(["migrated", "claims"]);
});

test("flowledger worker --metrics-port serves metrics and probes, and refuses a port in use before it serves", async () => {
  const module = join(folder, "flows.ts");
  const library = resolve(import.meta.dirname, "../../src/index.ts");
  await writeFile(
    module,
    `import { defineFlow } from ${JSON.stringify(library)};
     const probed = defineFlow("probed"); probed.to("pass", () => 1); export const flows = [probed];`,
  );
  await using own = await testDatabase();
  await using worker = await startProcess(cliPath, {
    args: ["worker", module, "--metrics-port", "0", "--concurrency", "7", "--json"],
    env: { DATABASE_URL: own.url },
    ready: /"ready":true/,
  });
  const { metricsPort } = JSON.parse(worker.readyLine) as { metricsPort: number };
  const get = (path: string, method = "GET") => fetch(`http://127.0.0.1:${metricsPort}${path}`, { method });

  const [metrics, healthz, readyz, lost, posted] = await Promise.all([
    get("/metrics?x=1"),
    get("/healthz"),
    get("/readyz"),
    get("/nothing"),
    get("/metrics", "POST"),
  ]);
  const second = await runCli(own.url, "worker", module, "--metrics-port", String(metricsPort));
  const [{ workers } = { workers: 0 }] = await own.sql<{ workers: number }[]>`
    select count(*)::int as workers from flowledger.workers`;

  expect(metrics.headers.get("content-type")).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
  const scraped = parseOpenMetrics(await metrics.text());
  const valueOf = (name: string) => scraped.get(name)?.samples[0]?.value;
  expect([valueOf("flowledger_executions_started"), valueOf("flowledger_worker_slots")]).toEqual([0, 7]);
  expect([healthz.status, readyz.status, lost.status, posted.status]).toEqual([200, 200, 404, 405]);
  expect(await readyz.json()).toMatchObject({ ok: true });
  expect(second.code).toBe(2);
  expect(second.stderr).toMatch(new RegExp(`port ${metricsPort}.*in use.*--metrics-port`, "i"));
  expect(workers).toBe(1);
});

test("a probe may ask for the head alone; nobody keeps what is answered, and what is no read is told what is", async () => {
  await using orchestrator = visiting(database);
  await using endpoint = await openEndpoint(orchestrator, { port: 0, host: "127.0.0.1" });
  const ask = (path: string, method: string) => fetch(`http://127.0.0.1:${endpoint.port}${path}`, { method });

  const [head, posted] = [await ask("/healthz", "HEAD"), await ask("/healthz", "POST")];

  expect([head.status, await head.text()]).toEqual([200, ""]);
  for (const { headers } of [head, posted])
    expect([headers.get("cache-control"), headers.get("x-content-type-options")]).toEqual(["no-store", "nosniff"]);
  expect([posted.status, posted.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
});

test.each([["70000"], ["-1"], ["x"]])("--metrics-port %s is refused", async (port) => {
  const refused = await runCli(database.url, "worker", "none.ts", "--metrics-port", port);

  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(/--metrics-port/);
});

test("what is asked behind the end of an orchestrator is refused, and the port goes with the endpoint", async () => {
  const orchestrator = visiting(database);
  await orchestrator.close();
  const endpoint = await openEndpoint(orchestrator, { port: 0, host: "127.0.0.1" });
  const url = `http://127.0.0.1:${endpoint.port}/metrics`;

  const response = await fetch(url);
  await endpoint[Symbol.asyncDispose]();

  expect([200, 503]).toContain(response.status);
  await expect(fetch(url)).rejects.toThrow("fetch failed");
});
