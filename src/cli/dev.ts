/** `flowledger dev`: a database, the console, and a worker that Node starts again when a file of its module changes. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { ConnectionError } from "../base/errors.ts";
import { startEmbeddedPostgres } from "../embedded.ts";
import type { EmbeddedPostgres } from "../embedded.ts";
import { createOrchestrator } from "../orchestrator.ts";
import { devFolder } from "../terminal.ts";
import { requireModule } from "./module.ts";
import { aborted, databaseOf, migrateAt, schemaOf, terminalOf, untilSignal } from "./command.ts";

/** Set for the worker of `dev`. */
const ofDev = "FLOWLEDGER_DEV";

/** The worker of a `dev` that was killed ends too, by way of the process that would start it again. */
export function endWithDev(): void {
  if (process.env[ofDev] === undefined) return;
  process.stdin
    .on("end", () => process.kill(process.ppid, "SIGTERM"))
    .resume()
    .unref();
}

export interface DevOptions {
  port?: number;
  consolePort?: number;
}

export async function dev(module: string | undefined, options: DevOptions, command: Command): Promise<void> {
  if (module !== undefined) requireModule(module);
  const given = databaseOf(command);
  await using server = given === undefined || isOfDev(given) ? await startDev(options.port) : null;
  const url = server?.url ?? given ?? "";
  await migrateAt(url, command);
  await using orchestrator = createOrchestrator({ connection: url, ...schemaOf(command) });
  const { openConsole } = await import("../console.ts");
  await using page = await openConsole(
    orchestrator,
    options.consolePort === undefined ? {} : { port: options.consolePort },
  );

  const out = terminalOf(command);
  if (out.isJson)
    out.json({ databaseUrl: url, dataDir: server?.dataDir ?? null, pid: server?.pid ?? null, console: page.url });
  else {
    const where = server ? `Postgres ${server.dataDir} (pid ${server.pid})` : "the database of DATABASE_URL";
    out.line(`${out.paint.green("ready")} ${where}`);
    if (server) out.line(`DATABASE_URL=${url}`);
    out.line(`console ${page.url}`);
    if (out.isInteractive) out.line(out.paint.dim("Ctrl-C stops it; started again it has the same data."));
  }
  const worker = module === undefined ? null : startWorker(module, url, command);
  await untilSignal((signal) => aborted(signal));
  if (worker) await ended(worker);
}

/** The URL that an earlier `dev` printed, kept in .env: its server runs only as long as `dev` does. */
function isOfDev(url: string): boolean {
  const file = join(devFolder, "password");
  if (!existsSync(file)) return false;
  const password = readFileSync(file, "utf8").trim();
  return password !== "" && url.startsWith(`postgres://postgres:${password}@127.0.0.1:`);
}

/** The usual port, so that the URL of yesterday still holds; a free one where somebody else has it. */
async function startDev(port: number | undefined): Promise<EmbeddedPostgres> {
  try {
    return await startEmbeddedPostgres({ dataDir: devFolder, port: port ?? 54320 });
  } catch (error) {
    const isTaken = error instanceof ConnectionError && error.details["problem"] === "the port is taken";
    if (port !== undefined || !isTaken) throw error;
    return startEmbeddedPostgres({ dataDir: devFolder });
  }
}

/** A process of its own, that Node ends in order (SIGTERM: it drains) and starts again: nothing of the old code is left. */
function startWorker(module: string, url: string, command: Command): ChildProcess {
  const { schema } = schemaOf(command);
  const [cli = ""] = process.argv.slice(1);
  const form = terminalOf(command).isJson ? ["--json"] : [];
  return spawn(process.execPath, ["--watch", "--watch-preserve-output", cli, "worker", module, ...form], {
    // Its stdin ends with this process, however that ends.
    stdio: ["pipe", "inherit", "inherit"],
    env: {
      ...process.env,
      [ofDev]: "1",
      DATABASE_URL: url,
      ...(schema !== undefined && { FLOWLEDGER_SCHEMA: schema }),
    },
  });
}

async function ended(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null || worker.signalCode !== null) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  worker.once("exit", () => resolve());
  worker.kill("SIGTERM");
  await promise;
}
