/** F13, F23: the address of the database leads to a standby, and then to another timeline than before. */
import { spawnSync } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { expect, test } from "vitest";
import { openProxy } from "../chaos/proxy.ts";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { createOrchestrator } from "../../src/index.ts";
import { refusal } from "../support/flows.ts";
import { work } from "./flows.ts";
import { expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

test("F23, F13: a worker refuses a standby, and drops what it owns when it finds itself on another timeline", async () => {
  const folder = await mkdtemp(join(tmpdir(), "flowledger-failover-"));
  // As root the servers run as somebody else.
  await chmod(folder, 0o755);
  const [primaryData, standbyData] = [join(folder, "primary"), join(folder, "standby")];
  await using seed = await startEmbeddedPostgres({ dataDir: primaryData });
  {
    await using orchestrator = createOrchestrator({ connection: seed.url, flows: [work] });
    await orchestrator.migrate();
  }
  await seed.stop();
  // A backup that follows nobody: until it is promoted it can only be read.
  expect(spawnSync("cp", ["-a", primaryData, standbyData]).status).toBe(0);
  await writeFile(join(standbyData, "data", "standby.signal"), "");
  await using primary = await startEmbeddedPostgres({ dataDir: primaryData });
  await using standby = await startEmbeddedPostgres({ dataDir: standbyData });
  let port = primary.port;
  await using proxy = await openProxy({ host: "127.0.0.1", port: () => port });
  const address = new URL(primary.url);
  address.port = String(proxy.port);

  await using visitor = createOrchestrator({ connection: standby.url, flows: [work] });
  expect(await refusal(visitor.startWorker())).toMatchObject({ message: expect.stringContaining("read-only standby") });
  expect(await refusal(visitor.flow(work).startExecution({}))).toMatchObject({ code: "CONNECTION_FAILED" });

  await using worker = await startWorker(address.href);
  const sql = postgres(standby.url, { max: 1, onnotice: () => {} });
  await sql`select pg_promote()`;
  await until(async () => (await sql`select 1 where not pg_is_in_recovery()`).length > 0);
  port = standby.port;
  proxy.cutAll();
  await worker.untilLine(/^log the database is another one than before/, 20_000);
  await using again = createOrchestrator({ connection: address.href, flows: [work] });
  const execution = await again.flow(work).startExecution({}, { autoCloseTimeout: 0 });

  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
  await sql.end({ timeout: 1 });
  worker.kill("SIGKILL");
  await worker.exited;
  await again.close();
  await Promise.all([primary.stop(), standby.stop()]);
  await rm(folder, { recursive: true, force: true });
});
