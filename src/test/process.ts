/** Crashes of real processes: each is a worker of its own, told what to do line by line, and killed where it is told to die. */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { Begun } from "../engine/host.ts";
import { ExecutionId, WorkerId } from "../ledger/event.ts";
import type { BegunCode } from "./begun.ts";
import { phases, type Phase } from "./crash.ts";

/** What a process is started with. */
export const ProcessTask = z.object({
  database: z.string(),
  /** Exports the flows, and as `mocks` what replaces their handlers. */
  module: z.string(),
  flow: z.string(),
  hasMocks: z.boolean(),
  patienceMs: z.number(),
});
export type ProcessTask = z.infer<typeof ProcessTask>;

/** What a process is told. */
export const Order = z.discriminatedUnion("do", [
  z.object({
    do: z.literal("arm"),
    from: ExecutionId,
    at: z.object({ commit: z.int(), phase: z.enum(phases) }).nullable(),
  }),
  /** Take what is to be done, or nothing. */
  z.object({ do: z.literal("work") }),
  z.object({ do: z.literal("rest") }),
  z.object({ do: z.literal("report") }),
]);
export type Order = z.infer<typeof Order>;

/** What a process says. */
export const Report = z.discriminatedUnion("is", [
  z.object({ is: z.literal("ready"), worker: WorkerId }),
  z.object({ is: z.literal("failed"), problem: z.string() }),
  z.object({ is: z.literal("begun"), begun: z.custom<Begun>() }),
  /** The last order is carried out. */
  z.object({ is: z.literal("done"), commits: z.array(z.string()) }),
]);
export type Report = z.infer<typeof Report>;

/** The file descriptor through which a process says it; stdout is the user's. */
export const reportsOn = 3;
const startWithinMs = 60_000;

/** The workers of one `crashEverywhere`: one that survives, and one after the other that does not. */
export class CrashProcesses implements AsyncDisposable {
  readonly #begun: BegunCode;
  readonly #entry: string;
  readonly #task: ProcessTask;
  readonly #gone: WorkerId[];
  readonly #all = new Set<CrashProcess>();
  #survivor: CrashProcess | undefined;
  /** The next victim, started ahead. */
  #next: Promise<CrashProcess> | undefined;
  #victim: CrashProcess | undefined;

  /**
   * @param entry the module that exports `serveTestProcess`
   * @param gone gets the workers whose process has been killed
   */
  constructor(entry: string, task: ProcessTask, begun: BegunCode, gone: WorkerId[]) {
    this.#entry = entry;
    this.#task = task;
    this.#begun = begun;
    this.#gone = gone;
  }

  async arm(from: ExecutionId, at: { readonly commit: number; readonly phase: Phase } | null): Promise<void> {
    const survivor = (this.#survivor ??= await this.#start());
    await survivor.order({ do: "arm", from, at: null });
    if (at === null) return survivor.order({ do: "work" });
    await survivor.order({ do: "rest" });
    const victim = await (this.#next ?? this.#start());
    this.#victim = victim;
    this.#next = this.#start();
    // The error reaches whoever awaits the next process.
    this.#next.catch(() => {});
    void victim.exited.then(() => {
      this.#gone.push(victim.worker);
      return survivor.order({ do: "work" }).catch(() => {});
    });
    await victim.order({ do: "arm", from, at });
    await victim.order({ do: "work" });
  }

  async disarm(): Promise<readonly string[]> {
    const victim = this.#victim;
    this.#victim = undefined;
    // The process may not have reached the commit that was meant.
    victim?.kill();
    await victim?.exited;
    await this.#survivor?.order({ do: "report" });
    return this.#survivor?.commits ?? [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next?.catch(() => {});
    for (const one of this.#all) one.kill();
    await Promise.all([...this.#all].map(({ exited }) => exited));
  }

  async #start(): Promise<CrashProcess> {
    const started = new CrashProcess(this.#entry, this.#task, (begun) => this.#begun.note(begun));
    this.#all.add(started);
    void started.exited.then(() => this.#all.delete(started));
    await started.ready;
    return started;
  }
}

class CrashProcess {
  readonly exited: Promise<void>;
  readonly ready: Promise<void>;
  commits: readonly string[] = [];
  #worker: WorkerId | undefined;
  readonly #child: ChildProcess;
  /** Orders that have not been carried out. */
  readonly #open: (() => void)[] = [];

  constructor(entry: string, task: ProcessTask, onBegin: (begun: Begun) => void) {
    const code = "import(process.argv[1]).then(({ serveTestProcess }) => serveTestProcess(process.argv[2]))";
    const args = ["--input-type=module", "-e", code, entry, JSON.stringify(task)];
    this.#child = spawn(process.execPath, args, {
      stdio: ["pipe", "inherit", "inherit", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "" },
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.ready = promise;
    const exited = Promise.withResolvers<void>();
    this.exited = exited.promise;
    this.#child.stdin?.on("error", () => {});
    this.#child.on("error", reject);
    // "close" and not "exit": all output has been read by then.
    this.#child.on("close", () => {
      reject(new UsageError("a process of crashEverywhere() ended before it had begun", "its stderr says why"));
      for (const done of this.#open.splice(0)) done();
      exited.resolve();
    });
    liveness
      .after(startWithinMs, () => reject(new UsageError("a process of crashEverywhere() does not begin", null)))
      .unref();
    const reports = this.#child.stdio[reportsOn] as Readable;
    createInterface({ input: reports }).on("line", (line) => {
      const report = Report.parse(JSON.parse(line));
      if (report.is === "begun") onBegin(report.begun);
      else if (report.is === "ready") {
        this.#worker = report.worker;
        resolve();
      } else if (report.is === "failed") reject(new UsageError(report.problem, null));
      else {
        this.commits = report.commits;
        this.#open.shift()?.();
      }
    });
    // The child ends with its stdin, however this process ends.
    this.#child.unref();
    (this.#child.stdin as (Writable & { unref?(): void }) | null)?.unref?.();
    (reports as Readable & { unref?(): void }).unref?.();
    this.ready.catch(() => {});
  }

  get worker(): WorkerId {
    if (!this.#worker) throw new Error("it has not begun");
    return this.#worker;
  }

  /** Resolves when it is carried out, or when the process has ended. */
  order(order: Order): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#open.push(resolve);
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
    return promise;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

/** The module that a process imports: the one that is named, or the one that a flow was defined in. @throws {UsageError} */
export function moduleOf(
  given: true | string | URL,
  flow: { readonly name: string; readonly definedAt?: unknown },
): string {
  if (given instanceof URL) return given.href;
  if (typeof given === "string") return urlOf(given);
  // "at file:///app/flows.ts:5:20" or "at load (/app/flows.ts:5:20)"
  const [, file] = /((?:file:\/)?\/[^()]+|[A-Za-z]:\\[^()]+):\d+:\d+\)?$/.exec(String(flow.definedAt)) ?? [];
  if (file === undefined)
    throw new UsageError(
      `it is unknown where flow "${flow.name}" was defined`,
      'name the module that exports it: { process: new URL("./flows.ts", import.meta.url) }',
    );
  const url = urlOf(file);
  if (fileURLToPath(url) === process.argv[1])
    throw new UsageError(
      `flow "${flow.name}" was defined in the program that runs now, which no other process can import`,
      "put it into a module of its own that exports it",
    );
  return url;
}

function urlOf(file: string): string {
  return file.startsWith("file:") ? file : pathToFileURL(file).href;
}
