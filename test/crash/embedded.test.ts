/** The embedded Postgres, whose process was killed without a word: nothing of it stays. */
import { existsSync } from "node:fs";
import { chmod, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { startProcess } from "../support/processes.ts";

const embedded = resolve(import.meta.dirname, "../../src/embedded.ts");

test("a process that is killed leaves neither its embedded server nor its temporary folder", async () => {
  const folder = await mkdtemp(join(tmpdir(), "embedded-killed-"));
  const module = join(folder, "holds.ts");
  await writeFile(
    module,
    `import { startEmbeddedPostgres } from ${JSON.stringify(embedded)};
     const server = await startEmbeddedPostgres();
     setInterval(() => {}, 1000);
     console.log("ready", server.pid, server.dataDir);`,
  );
  await using holder = await startProcess(module);
  const [, pid = "", data = ""] = holder.readyLine.split(" ");

  holder.kill("SIGKILL");

  await expect.poll(() => existsSync(data)).toBe(false);
  expect(() => process.kill(Number(pid), 0)).toThrow("ESRCH");
  await rm(folder, { recursive: true });
});

test("a data directory is for its owner alone, takes one server, and starts again whoever has the number of its last one", async () => {
  const folder = await mkdtemp(join(tmpdir(), "embedded-kept-"));
  // A server of root runs as somebody else.
  await chmod(folder, 0o755);
  const dataDir = join(folder, "db");
  const server = await startEmbeddedPostgres({ dataDir, durable: false });
  const openTo = async (...path: string[]) => (await stat(join(dataDir, ...path))).mode & 0o077;

  expect([await openTo(), await openTo("password")]).toEqual([0, 0]);
  await expect(startEmbeddedPostgres({ dataDir })).rejects.toThrow(/already runs on the data directory/);

  await server.stop();
  await writeFile(
    join(dataDir, "data", "postmaster.pid"),
    `${process.pid}\n${join(dataDir, "data")}\n1\n5432\n\n\n\nready\n`,
  );
  await using again = await startEmbeddedPostgres({ dataDir, durable: false });
  expect(again.pid).toBeGreaterThan(0);
  await again.stop();
  await rm(folder, { recursive: true });
});
