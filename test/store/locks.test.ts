/** Somebody's open transaction: what needs the same row or key waits for a while and says who has it; nothing else waits. */
import type postgres from "postgres";
import { expect, test } from "vitest";
import { defineFlow, LockedError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;

const flow = defineFlow("held");
flow.to("pass", () => null);
flow.when("E").to("hear", () => null);
const atOnce = { autoCloseTimeout: 0 };

/** A transaction that does something and stays open while `meanwhile` runs. */
async function holding<T>(
  work: (tx: postgres.TransactionSql) => Promise<unknown>,
  meanwhile: (pid: number) => Promise<T>,
): Promise<T> {
  const done = Promise.withResolvers<void>();
  const held = Promise.withResolvers<number>();
  const ended = sql
    .begin(async (tx) => {
      await work(tx);
      const [row] = await tx<[{ pid: number }]>`select pg_backend_pid() as pid`;
      held.resolve(row.pid);
      await done.promise;
    })
    .catch(held.reject);
  try {
    return await meanwhile(await held.promise);
  } finally {
    done.resolve();
    await ended;
  }
}

test("commands to an execution that somebody holds give up with the session's pid, and leave all others alone", async () => {
  const warnings: string[] = [];
  const logger = {
    debug: () => {},
    info: () => {},
    warn: (text: string) => warnings.push(text),
    error: (text: string) => warnings.push(text),
  };
  await using orchestrator = await serving(database, [flow], { logger });
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const other = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  await holding(
    (tx) => tx`select flowledger.emit(${execution.id}, 'E')`,
    async (pid) => {
      const held = Promise.allSettled(Array.from({ length: 20 }, () => execution.emit("E", null)));
      const began = performance.now();
      for (let round = 0; round < 3; round++) {
        await other.emit("E", null);
        await orchestrator.flow(flow).start(null, atOnce);
      }
      expect(performance.now() - began).toBeLessThan(2000);

      for (const one of await held)
        expect(one).toMatchObject({ status: "rejected", reason: { code: "LOCKED", details: { pid } } });
    },
  );

  await execution.emit("E", null);
  expect((await execution.history({ types: ["event.emitted"] })).length).toBe(2);
  expect(warnings).toEqual([]);
});

test("a command of SQL waits as long as its own lock_timeout says, and names the session", async () => {
  const [{ id }] = await sql<[{ id: string }]>`select flowledger.start('held', '1') as id`;

  await holding(
    (tx) => tx`select flowledger.seal(${id})`,
    async (pid) => {
      const refused = sql.begin(async (tx) => {
        await tx`set local lock_timeout = '50ms'`;
        await tx`select flowledger.cancel(${id})`;
      });

      await expect(refused).rejects.toMatchObject({ code: "FL011", detail: String(pid) });
    },
  );
});

test("a start that waits for a key gives up alone, and those of its batch start at once", async () => {
  await using orchestrator = visiting(database, [flow]);
  await orchestrator.listExecutions();
  const started: string[] = [];

  await holding(
    (tx) => tx`select flowledger.start('held', '1', '{"idempotencyKey": "taken"}')`,
    async (pid) => {
      const waiting = orchestrator.flow(flow).startExecution(1, { idempotencyKey: "taken" });
      const others = Promise.all(
        [{}, { idempotencyKey: "free" }, {}].map(async (options) => {
          started.push((await orchestrator.flow(flow).startExecution(1, options)).id);
        }),
      );
      const began = performance.now();
      await others;
      expect(performance.now() - began).toBeLessThan(2000);
      await orchestrator.flow(flow).startExecution(1);

      const error: unknown = await waiting.catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(LockedError);
      expect(error).toMatchObject({ details: { pid }, message: expect.stringContaining('"taken"') as unknown });
    },
  );
  expect(started).toHaveLength(3);
});

test("a start that waits for a key starts when that is free again", async () => {
  await using orchestrator = visiting(database, [flow]);

  const waiting = await holding(
    (tx) => tx`select flowledger.start('held', '1', '{"idempotencyKey": "given up"}')`,
    async () => {
      const start = orchestrator.flow(flow).startExecution(1, { idempotencyKey: "given up" });
      await orchestrator.flow(flow).startExecution(1);
      return { start };
    },
  );

  expect((await waiting.start).id).toMatch(/-/);
});

test("startMany that waits for one of its keys gives up after a while, starts none, and starts all when that is free", async () => {
  await using orchestrator = visiting(database, [flow]);
  const many = (prefix = "many") =>
    orchestrator.flow(flow).startMany([1, 1, 1], { idempotencyKey: (_, index) => `${prefix} ${index}`, ...atOnce });

  await holding(
    (tx) => tx`select flowledger.start('held', '1', '{"idempotencyKey": "many 1"}')`,
    async (pid) => {
      const error: unknown = await many().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(LockedError);
      expect(error).toMatchObject({ details: { pid }, message: expect.stringContaining('"held"') as unknown });
      const [found] = await sql<[{ n: number }]>`
        select count(*)::int as n from flowledger.executions where idempotency_key in ('many 0', 'many 2')`;
      expect(found.n).toBe(0);
    },
  );

  const waiting = await holding(
    (tx) => tx`select flowledger.start('held', '1', '{"idempotencyKey": "more 1"}')`,
    async () => {
      const start = many("more");
      // Longer than one try waits.
      await new Promise((done) => setTimeout(done, 600));
      return { start };
    },
  );
  expect(new Set(await waiting.start).size).toBe(3);
});
