/** The embedded Postgres, whose process was killed without a word: nothing of it stays. */
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
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
