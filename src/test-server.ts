/**
 * The Postgres of a test run: `DATABASE_URL`, or an embedded one that all processes of a user share. A keeper, a process of its own,
 * holds it as long as somebody tests, however the processes that test come and go.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { ownModule } from "./base/call-site.ts";
import { UsageError } from "./base/errors.ts";
import { release } from "./base/release.ts";
import { systemTimers as liveness } from "./base/timers.ts";
import { watchTestProcesses } from "./store/test-databases.ts";

/** What a keeper leaves for those who look for its server. */
const Note = z.object({ url: z.string(), pid: z.int() });
type Note = z.infer<typeof Note>;

/** How long a server is kept that nobody tests with: the next file of a run begins by then. */
const leaveAfterMs = 10_000;
const lookEveryMs = 500;
/** What a keeper may take to make its server. */
const startWithinMs = 60_000;

/** The URL of a server that databases can be made on. @throws {UsageError} there is none, and what to install */
export async function requireTestServer(): Promise<string> {
  const given = process.env["DATABASE_URL"];
  if (given) return given;
  return (await readNote())?.url ?? startKeeper();
}

/** A keeper's whole life. It prints the URL, its own or that of another one which was faster, or an error. */
export async function keepTestServer(): Promise<void> {
  const { startEmbeddedPostgres } = await import("./embedded.ts");
  const server = await startEmbeddedPostgres({ durable: false, flags: ["-c", "max_connections=400"] }).catch(
    (error: unknown) => {
      console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
      process.exit(1);
    },
  );
  const note: Note = { url: server.url, pid: process.pid };
  const kept = await leaveNote(note);
  console.log(JSON.stringify({ url: kept.url }));
  if (kept.pid === note.pid) await untilUnused(server.url);
  await server.stop();
}

/** Nobody finds it any more from the moment at which it is decided that it goes. */
async function untilUnused(url: string): Promise<void> {
  const watch = watchTestProcesses(url);
  try {
    for (let unusedMs = 0; ; unusedMs += lookEveryMs) {
      await liveness.sleep(lookEveryMs);
      if ((await watch.count()) > 0) unusedMs = -lookEveryMs;
      if (unusedMs < leaveAfterMs) continue;
      await fs.rm(notePath(), { force: true });
      // Somebody may have read it just before.
      await liveness.sleep(lookEveryMs);
      if ((await watch.count()) === 0) return;
      await leaveNote({ url, pid: process.pid });
    }
  } finally {
    await watch.close();
  }
}

async function startKeeper(): Promise<string> {
  const code = "import(process.argv[1]).then(({ keepTestServer }) => keepTestServer())";
  const keeper = spawn(process.execPath, ["--input-type=module", "-e", code, ownModule("test-server")], {
    detached: true,
    stdio: ["ignore", "pipe", "ignore"],
    // It is no part of what tests, and of what that was told.
    env: { PATH: process.env["PATH"], TMPDIR: process.env["TMPDIR"], SystemRoot: process.env["SystemRoot"] },
    cwd: "/",
  });
  keeper.stdout.setEncoding("utf8");
  const said = once(keeper.stdout, "data", { signal: late() }).then(([line]) => String(line));
  const line = await Promise.race([said, once(keeper, "exit").then(() => "{}")]).catch(() => "{}");
  keeper.stdout.destroy();
  keeper.unref();
  const { url, error } = z.object({ url: z.string().optional(), error: z.string().optional() }).parse(JSON.parse(line));
  if (url !== undefined) return url;
  // It says what to install, where that is the reason.
  throw new UsageError(
    error ?? "the embedded Postgres did not start: set DATABASE_URL to a Postgres of your own",
    null,
  );
}

function late(): AbortSignal {
  const limit = new AbortController();
  liveness.after(startWithinMs, () => limit.abort()).unref();
  return limit.signal;
}

/** Whose file it is decides: in a shared folder anybody may have made it. */
async function readNote(): Promise<Note | null> {
  try {
    const path = notePath();
    const { uid } = await fs.lstat(path);
    if (process.getuid && uid !== process.getuid()) return null;
    const note = Note.parse(JSON.parse(await fs.readFile(path, "utf8")));
    process.kill(note.pid, 0);
    return note;
  } catch {
    return null;
  }
}

/** The first of several keepers counts, as long as it lives. */
async function leaveNote(note: Note): Promise<Note> {
  const path = notePath();
  const own = `${path}.${note.pid}`;
  await fs.writeFile(own, JSON.stringify(note), { mode: 0o600 });
  try {
    for (;;) {
      const isFirst = await fs.link(own, path).then(
        () => true,
        () => false,
      );
      if (isFirst) return note;
      const other = await readNote();
      if (other) return other;
      await fs.rm(path, { force: true });
    }
  } finally {
    await fs.rm(own, { force: true });
  }
}

function notePath(): string {
  return join(tmpdir(), `flowledger-test-${release}-${process.getuid?.() ?? "user"}.json`);
}
