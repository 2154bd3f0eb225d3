/** F14, F20: Postgres itself is in trouble. A server of its own, because it does not survive. */
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { createOrchestrator } from "../../src/index.ts";
import { work } from "./flows.ts";
import { expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const server = await startEmbeddedPostgres({ flags: ["-c", "max_connections=60"] });
const sql = postgres(server.url, { max: 2, onnotice: () => {} });
const orchestrator = createOrchestrator({ connection: server.url, flows: [work] });
await orchestrator.migrate();
afterAll(async () => {
  await orchestrator.close();
  await sql.end({ timeout: 1 });
  await server.stop();
});

test("F14: after a crash of Postgres no acknowledged start is missing, and workers commit again within three seconds", async () => {
  await using worker = await startWorker(server.url);
  const acknowledged: string[] = [];
  let isOver = false;
  const starting = (async () => {
    for (let key = 0; !isOver; key++) {
      const start = () =>
        orchestrator.flow(work).startExecution({ ms: 50 }, { idempotencyKey: `${key}`, autoCloseTimeout: 0 });
      const execution = await until(start, 20_000);
      if (execution) acknowledged.push(execution.id);
      await delay(20);
    }
  })();
  await until(async () => acknowledged.length > 20);

  await server.restart("immediate");
  const acceptsAt = performance.now();
  const before =
    (
      await until(
        async () =>
          (
            await sql<
              { count: number }[]
            >`select count(*)::int as count from flowledger.ledger where type = 'chunk.completed'`
          )[0],
      )
    )?.count ?? 0;
  await until(
    async () =>
      ((
        await sql<
          { count: number }[]
        >`select count(*)::int as count from flowledger.ledger where type = 'chunk.completed'`
      )[0]?.count ?? 0) > before,
  );
  const recoveryMs = performance.now() - acceptsAt;
  const atRestart = acknowledged.length;
  await until(async () => acknowledged.length > atRestart + 5);
  isOver = true;
  await starting;

  expect(recoveryMs).toBeLessThan(3000);
  for (const id of acknowledged) expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
  // Nothing that ended in trouble on the way keeps the process.
  worker.kill("SIGTERM");
  expect(await worker.exited).toEqual({ code: 0, signal: null });
});

test("F20: while all connections are taken a start is refused, and what runs goes on when there are some again", async () => {
  await using worker = await startWorker(server.url);
  const execution = await orchestrator.flow(work).startExecution({ ms: 1500 }, { autoCloseTimeout: 0 });
  await worker.untilLine(/^body slow/);

  const greedy = postgres(server.url, { max: 60, onnotice: () => {} });
  const held = await Promise.allSettled(Array.from({ length: 60 }, () => greedy`select pg_sleep(2)`));
  const refused = held.filter(({ status }) => status === "rejected").length;
  await greedy.end({ timeout: 1 });

  expect(refused).toBeGreaterThan(0);
  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});
