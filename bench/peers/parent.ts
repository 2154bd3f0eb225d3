/** The processes of the engines, as the bench has them. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { EngineName, Work } from "./engine.ts";

export type Ask = Errand | { readonly ask: "count" } | { readonly ask: "result" | "answer"; readonly ms: number };

/** What has no answer but that it is done. */
export type Errand =
  | { readonly ask: "load"; readonly work: Work; readonly inFlight: number }
  | { readonly ask: "stop" | "hold" | "close" };

/** Executions that have ended, when that was counted by the process's own clock, and its CPU time; in ms. */
export type Counted = z.infer<typeof Counted>;
const Counted = z.object({ done: z.number(), at: z.number(), cpu: z.number() });
export type Reply = { readonly value: number[] | Counted | null } | { readonly error: string };
const Answered = z.object({ id: z.number(), value: z.unknown(), error: z.string().optional() });

export class EngineProcess implements AsyncDisposable {
  readonly name: EngineName;
  readonly child: ChildProcess;
  /** Settles when the step of `hold()` runs here. */
  readonly running: Promise<void>;
  readonly #ready: Promise<void>;
  readonly #asked = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #last = 0;

  /** Not ready yet: that is what `open()` waits for. */
  constructor(name: EngineName, url: string, concurrency: number) {
    this.name = name;
    const args = [name, url, String(concurrency)];
    // Engines log to stdout, which is the table's.
    this.child = fork(fileURLToPath(new URL("process.ts", import.meta.url)), args, {
      // What their drivers will not do in a later version is not our subject.
      execArgv: ["--no-deprecation"],
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let written = "";
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => (written = (written + text).slice(-4000)));
    const said = { ready: Promise.withResolvers<void>(), running: Promise.withResolvers<void>() };
    this.child.on("message", (message) => {
      if (message === "ready" || message === "running") said[message].resolve();
      else this.#settle(message);
    });
    // Not "exit": what it wrote last is there only now.
    this.child.on("close", (code, signal) => {
      const error = new Error(`the process of ${name} has ended (${signal ?? `code ${code}`})\n${written.trim()}`);
      said.ready.reject(error);
      for (const { reject } of this.#asked.values()) reject(error);
    });
    this.#ready = said.ready.promise;
    this.#ready.catch(() => {});
    this.running = said.running.promise;
  }

  static async open(name: EngineName, url: string, concurrency: number): Promise<EngineProcess> {
    const opened = new EngineProcess(name, url, concurrency);
    await opened.#ready;
    return opened;
  }

  async do(ask: Errand): Promise<void> {
    await this.#request(ask);
  }

  async count(): Promise<Counted> {
    return Counted.parse(await this.#request({ ask: "count" }));
  }

  /** How long each of some took, in ms. */
  async sample(of: "result" | "answer", ms: number): Promise<number[]> {
    return z.array(z.number()).parse(await this.#request({ ask: of, ms }));
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await exited;
  }

  /** In order, as long as that takes no longer than five seconds. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = this.do({ ask: "close" }).catch(() => {});
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 5000).unref())]);
    await this.kill();
  }

  #request(ask: Ask): Promise<unknown> {
    const id = ++this.#last;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#asked.set(id, { resolve, reject });
    this.child.send({ ...ask, id }, (error) => {
      if (error) reject(error);
    });
    return promise;
  }

  #settle(message: unknown): void {
    const { id, value, error } = Answered.parse(message);
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (error === undefined) asked?.resolve(value);
    else asked?.reject(new Error(`${this.name}: ${error}`));
  }
}
