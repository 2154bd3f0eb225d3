/** Real processes for tests: start one, wait for a line of it, kill it, see what it wrote. */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll } from "vitest";

export interface StartOptions {
  args?: readonly string[];
  /** On top of this process's own. */
  env?: Readonly<Record<string, string>>;
  /** The line of stdout that says it has begun. @default /^ready\b/ */
  ready?: RegExp;
  /** How long the ready line may take. @default 15_000 */
  readyTimeoutMs?: number;
}

export interface TestProcess extends AsyncDisposable {
  readonly pid: number;
  /** The line that matched `ready`. */
  readonly readyLine: string;
  /** Resolves at its end, whatever ended it. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Everything it wrote to stdout and stderr. */
  output(): string;
  /** The first line of stdout, past or future, that matches. */
  untilLine(pattern: RegExp, timeoutMs?: number): Promise<string>;
  kill(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT" | "SIGTERM" | "SIGINT"): void;
}

/** Runs a TypeScript module in a Node of its own. A test ends it, by `kill` or `await using`; one that is left over fails the file. */
export async function startProcess(module: string, options: StartOptions = {}): Promise<TestProcess> {
  const child = spawn(process.execPath, ["--import", DIE_WITH_US, module, ...(options.args ?? [])], {
    env: { ...process.env, ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  running.add(child);
  let [output, stdout] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text));

  const { promise: exited, resolve: exit } = Promise.withResolvers<Awaited<TestProcess["exited"]>>();
  child.on("error", (error) => {
    output += error.message;
    running.delete(child);
    exit({ code: null, signal: null });
  });
  child.on("close", (code, signal) => {
    running.delete(child);
    exit({ code, signal });
  });

  const untilLine = (pattern: RegExp, timeoutMs = 15_000): Promise<string> => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const look = () => {
      const line = stdout
        .split("\n")
        .slice(0, -1)
        .find((text) => pattern.test(text));
      if (line !== undefined) resolve(line);
      return line !== undefined;
    };
    const fail = (what: string) =>
      reject(new Error(`${module} ${what} before a line matched ${pattern}; it wrote:\n${output}`));
    const timer = setTimeout(() => fail(`took ${timeoutMs} ms and more`), timeoutMs);
    child.stdout.on("data", look);
    void exited.then(() => look() || fail(`ended (code ${child.exitCode}, signal ${child.signalCode})`));
    look();
    return promise.finally(() => {
      clearTimeout(timer);
      child.stdout.off("data", look);
    });
  };

  const readyLine = await untilLine(options.ready ?? /^ready\b/, options.readyTimeoutMs).catch(
    async (error: unknown) => {
      child.kill("SIGKILL");
      await exited;
      throw error;
    },
  );
  return {
    pid: child.pid ?? 0,
    readyLine,
    exited,
    output: () => output,
    untilLine,
    kill: (signal) => void child.kill(signal),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** Preloaded: the pipe on stdin ends when the test's process does, however it does. Not in threads: their stdin is always at its end. */
const DIE_WITH_US = `data:text/javascript,${encodeURIComponent(`
  import { isMainThread } from "node:worker_threads";
  if (isMainThread) {
    process.stdin.on("end", () => process.kill(process.pid, "SIGKILL")).resume();
    process.stdin.unref();
  }
`)}`;

const running = new Set<ChildProcess>();

afterAll(async () => {
  // One that was just killed is no leak: give its exit a moment to arrive.
  for (let tries = 0; running.size > 0 && tries < 20; tries++) await sleep(50);
  const left = [...running];
  const ends = left.map((child) => new Promise((resolve) => child.once("close", resolve)));
  for (const child of left) child.kill("SIGKILL");
  await Promise.all(ends);
  if (left.length > 0) {
    throw new Error(
      `${left.length} processes outlived their tests: ${left.map((child) => child.spawnargs.slice(3).join(" ")).join("; ")}`,
    );
  }
});
