/** The process of an example: it is started as npm would, asked as a browser would, and killed. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { delimiter, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** Processes of a host have the Node that runs this. */
export const path = [dirname(process.execPath), process.env["PATH"]].join(delimiter);
const endsWithinMs = 10_000;
const answersWithinMs = 60_000;

/** The process of an example, with whatever it starts. */
export class Host {
  output = "";
  readonly #home: string;
  readonly #start: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly base: string;
  #child: ChildProcess | undefined;
  #ended: Promise<number | null> = Promise.resolve(0);

  /** @param start a command, with variables before it */
  constructor(home: string, start: string, env: Readonly<Record<string, string>>, port: number) {
    this.#home = home;
    this.#start = start;
    this.base = `http://127.0.0.1:${port}`;
    this.#env = { ...env, PORT: `${port}`, HOSTNAME: "127.0.0.1" };
  }

  start(): void {
    if (this.#child) return;
    // As npm would, without npm between us and the process.
    const words = this.#start.split(" ").filter((word) => word !== "");
    const first = words.findIndex((word) => !word.includes("="));
    const [file = "", ...args] = words.slice(first);
    const more = Object.fromEntries(words.slice(0, first).map((word) => word.split("=", 2)));
    const bin = join(this.#home, "node_modules/.bin");
    const child = spawn(existsSync(join(bin, file)) ? join(bin, file) : file, args, {
      cwd: this.#home,
      env: { ...process.env, ...this.#env, ...more, PATH: path },
      detached: true,
    });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (this.output += String(data)));
    this.#ended = new Promise((end) =>
      child.once("exit", (code, signal) => end(code ?? (signal === "SIGTERM" ? 143 : 1))),
    );
    this.#child = child;
  }

  /** Asks until it listens. */
  async ask<T>(method: string, to: string, body?: object): Promise<T> {
    this.start();
    for (const until = performance.now() + answersWithinMs; ; await delay(50)) {
      const init = body ? { body: JSON.stringify(body), headers: { "content-type": "application/json" } } : {};
      const response = await fetch(this.base + to, { method, ...init }).catch(() => null);
      if (response?.ok) return (await response.json()) as T;
      if (response) throw new Error(`${method} ${to}: ${response.status} ${await response.text()}\n${this.output}`);
      if (performance.now() > until || this.#child?.exitCode != null)
        throw new Error(`${method} ${to}: nobody answers\n${this.output}`);
    }
  }

  async until(to: string, expected: object): Promise<void> {
    for (const until = performance.now() + answersWithinMs; ; await delay(50)) {
      const seen = JSON.stringify(await this.ask("GET", to));
      if (seen === JSON.stringify(expected)) return;
      if (performance.now() > until)
        throw new Error(`${to} is ${seen}, not ${JSON.stringify(expected)}\n${this.output}`);
    }
  }

  /** @returns the state that it has then */
  async untilStatus(to: string, status: string): Promise<Readonly<Record<string, unknown>>> {
    for (const until = performance.now() + answersWithinMs; ; await delay(50)) {
      const seen = await this.ask<{ status: string; state: Record<string, unknown> }>("GET", to);
      if (seen.status === status) return seen.state;
      if (performance.now() > until) throw new Error(`${to} is ${JSON.stringify(seen)}, not ${status}\n${this.output}`);
    }
  }

  /** @returns its exit code */
  async kill(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    const pid = this.#child?.pid;
    if (pid === undefined) return 0;
    try {
      process.kill(signal === "SIGKILL" ? -pid : pid, signal);
    } catch {
      // It has ended.
    }
    const late = Symbol();
    const code = await Promise.race([this.#ended, delay(endsWithinMs, late, { ref: false })]);
    if (code === late) throw new Error(`${signal} did not end it within ${endsWithinMs} ms\n${this.output}`);
    return typeof code === "number" ? code : null;
  }
}

export async function freePort(): Promise<number> {
  const one = createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => one.once("listening", listening));
  const { port } = one.address() as AddressInfo;
  await new Promise((closed) => one.close(closed));
  return port;
}
