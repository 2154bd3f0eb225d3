/** Commands that run until a signal, and what prepares for them: demo, dev, migrate, worker, console. */
import type { Command } from "commander";
import { UsageError } from "../base/errors.ts";
import { requireActor } from "../base/option.ts";
import { release } from "../base/release.ts";
import { openEndpoint } from "../telemetry/endpoint.ts";
import { devFolder, printFields } from "../terminal.ts";
import { aborted, databaseOf, migrateAt, open, requireDatabase, terminalOf, untilSignal } from "./command.ts";
import { dev, endWithDev } from "./dev.ts";
import type { DevOptions } from "./dev.ts";
import { loadOrchestrator, servedBy } from "./module.ts";
import { parseCount, parsePort } from "./parse.ts";

interface WorkerCliOptions {
  readonly concurrency?: number;
  readonly metricsPort?: number;
  readonly metricsHost?: string;
}

export function addRunCommands(program: Command): void {
  program
    .command("demo")
    .description("review a document with a real flow, on a Postgres made for it")
    .argument("[file]", "text or markdown (default: a lease agreement)")
    .option("--keep", `keep the data in ${devFolder}/`)
    .action(async (file: string | undefined, options: { keep?: boolean }, command: Command) => {
      const { runDemo } = await import("../demo.ts");
      const isStopped = await untilSignal((signal) =>
        runDemo(terminalOf(command), { file, signal, isKept: options.keep ?? false, database: databaseOf(command) }),
      );
      if (isStopped) process.exitCode = 130;
    });

  program
    .command("dev")
    .description(
      `everything for development, until Ctrl-C: a database (DATABASE_URL, or a Postgres of its own with its data in ${devFolder}/), migrated, a console, and a worker that starts again when a file of the module changes`,
    )
    .argument("[module]", "as for worker; without it only database and console")
    .option("--port <number>", "port of Postgres on 127.0.0.1 (default: 54320, or a free one)", parsePort)
    .option("--console-port <number>", "port of the console on 127.0.0.1 (default: a free one)", parsePort)
    .action((module: string | undefined, options: DevOptions, command: Command) => dev(module, options, command));

  program
    .command("migrate")
    .description("bring the database to this version; safe to repeat, and from several processes")
    .action(async (_: object, command: Command) => {
      const url = requireDatabase(command);
      await migrateAt(url, command);
      const out = terminalOf(command);
      if (out.isJson) out.json({ migrated: true });
      else out.line("migrated: the database is at the version of this library");
    });

  program
    .command("worker")
    .description("serve the flows of a module until SIGTERM or Ctrl-C")
    .argument("<module>", "exports an orchestrator as default, or `flows` or `functions` (and `resources`)")
    .option("--concurrency <number>", "executions at once", parseCount)
    .option("--metrics-port <number>", "port of /metrics, /healthz and /readyz; 0 is a free one", parsePort)
    .option("--metrics-host <address>", "address of that port (default: all)")
    .action(async (module: string, { concurrency, metricsPort, metricsHost }: WorkerCliOptions, command: Command) => {
      endWithDev();
      if (metricsHost !== undefined && metricsPort === undefined)
        throw new UsageError("--metrics-host was given without --metrics-port", "give both");
      // Listens from the first moment: process 1 ignores signals without a listener.
      await untilSignal(async (signal) => {
        await using orchestrator = await loadOrchestrator(module, command);
        // Opened before the worker: a probe is told that it is not ready, and a port in use ends the command here.
        await using endpoint =
          metricsPort === undefined ? null : await openEndpoint(orchestrator, { port: metricsPort, host: metricsHost });
        if (signal.aborted) return;
        const worker = await orchestrator.startWorker(concurrency === undefined ? {} : { concurrency });
        const out = terminalOf(command);
        const serving = {
          ...(await servedBy(orchestrator)),
          version: release,
          ...(endpoint && { metricsPort: endpoint.port }),
        };
        if (out.isJson) out.json({ ready: true, worker: worker.id, pid: process.pid, ...serving });
        else {
          printFields(out, `flowledger ${release}`, {
            ...("flows" in serving && {
              flows: serving.flows.join(", "),
              database: serving.database,
              schema: serving.schema,
            }),
            ...(endpoint && { metrics: `port ${endpoint.port}` }),
            node: process.version,
          });
          out.line(`${out.paint.green("ready")} worker ${worker.id} (pid ${process.pid})`);
        }
        await aborted(signal);
        if (!out.isJson) out.line(`draining ${worker.owned} executions; a second signal ends it at once`);
        await worker.stop();
      });
    });

  program
    .command("console")
    .description("watch executions, answer interrupts and intervene on a web page, until Ctrl-C; on this machine only")
    .option("--port <number>", "port on 127.0.0.1 (default: a free one)", parsePort)
    .option("--read-only", "look only: nothing can be answered or done")
    .option("--as <name>", "who does what is done there, for the ledger (default: console)")
    .action(async (options: { port?: number; readOnly?: boolean; as?: string }, command: Command) => {
      if (options.as !== undefined) requireActor(options.as, "--as");
      await using orchestrator = open(command);
      await orchestrator.listExecutions({ limit: 1 });
      const { openConsole } = await import("../console.ts");
      await using opened = await openConsole(orchestrator, options);
      const out = terminalOf(command);
      if (out.isJson) out.json({ url: opened.url, pid: process.pid });
      else out.line(`${out.paint.green("ready")} ${opened.url}`);
      await untilSignal((signal) => aborted(signal));
    });
}
