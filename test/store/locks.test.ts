/** Somebody's open transaction: what needs the same row or key waits for a while and says who has it; nothing else waits. */
import postgres from "postgres";
import { expect, test, vi } from "vitest";
import { defineFlow, LockedError } from "../../src/index.ts";
import type { JsonObject, Orchestrator } from "../../src/index.ts";
import { copiedDatabase, testDatabase } from "../support/database.ts";
import { present, untilPending } from "../support/doors.ts";
import { newGate, serving, visiting } from "../support/flows.ts";

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
  { client = sql, isUndone = false } = {},
): Promise<T> {
  const done = Promise.withResolvers<void>();
  const held = Promise.withResolvers<number>();
  const ended = client
    .begin(async (tx) => {
      await work(tx);
      const [row] = await tx<[{ pid: number }]>`select pg_backend_pid() as pid`;
      held.resolve(row.pid);
      await done.promise;
      if (isUndone) await tx`rollback and chain`;
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

const inner = defineFlow("held.inner");
inner.to("ask", (ctx) => ctx.pauseFor({ interruptId: "below" }));
const outer = defineFlow("held.outer");
outer.toSubFlow(inner);

/** An execution whose sub-flow waits for an answer. */
async function nested(orchestrator: Orchestrator): Promise<{ parent: string; frame: string }> {
  const execution = await orchestrator.flow(outer).startExecution(null, { autoClose: false });
  await untilPending(execution);
  return { parent: execution.id, frame: present((await execution.getSubFlowFrames())[0]).id };
}

async function startedBySql(options: JsonObject): Promise<string> {
  const [{ id }] = await sql<
    [{ id: string }]
  >`select flowledger.start('held', '1', ${JSON.stringify(options)}::text::jsonb) as id`;
  return id;
}

/** Commands, and what each waits for: a row, or the same command in another transaction. */
async function waits(
  orchestrator: Orchestrator,
  suffix: string,
): Promise<(readonly [held: string, waiting: string])[]> {
  const [emitted, cancelled, answered, withdrawn] = [
    await nested(orchestrator),
    await nested(orchestrator),
    await nested(orchestrator),
    await nested(orchestrator),
  ];
  const delayed = { delay: "1h" };
  const [later, moved, closed, pruned] = [
    await startedBySql(delayed),
    await startedBySql(delayed),
    await startedBySql(delayed),
    await startedBySql(delayed),
  ];
  await sql`select flowledger.cancel(id) from unnest(${[closed, pruned]}::uuid[]) id`;
  const operator = `'{"actor": "ann", "reason": "INC-12"}'`;
  const row = (id: string) => `from flowledger.executions where id = '${id}' for update`;
  const start = (options: JsonObject, name = "held") =>
    `flowledger.start('${name}', '1', '${JSON.stringify(options)}')`;
  const both = [
    `flowledger.anchor()`,
    `flowledger.run_schedule('yearly', ${operator})`,
    start({ id: crypto.randomUUID() }),
    start({ idempotencyKey: `k ${suffix}` }),
    start({ allowUnknown: true }, `held.new-${suffix}`),
  ];
  return [
    [row(later), `flowledger.cancel_function('${later}')`],
    [row(moved), `flowledger.reschedule_function('${moved}', null, 1000)`],
    [row(closed), `flowledger.redrive('${closed}', ${operator})`],
    [row(pruned), `flowledger.prune('{${pruned}}', 'ann', 'INC-12')`],
    [row(emitted.frame), `flowledger.emit_to_sub_flow('${emitted.parent}', '${emitted.frame}', 'E')`],
    [row(cancelled.frame), `flowledger.cancel_sub_flow('${cancelled.parent}', '${cancelled.frame}')`],
    [row(answered.parent), `flowledger.continue_with('${answered.frame}', 'below')`],
    [row(withdrawn.parent), `flowledger.withdraw('${withdrawn.frame}', 'below')`],
    [`flowledger.pause_flow('held.inner', ${operator})`, `flowledger.unpause_flow('held', ${operator})`],
    ...both.map((call) => [call, call] as const),
  ];
}

const schedules = [{ flow, cron: "0 0 1 1 *", name: "yearly" }];

/** How the command ended that had to wait: its code, and whether it told who it waited for. */
function endOf(
  [held, waiting]: readonly [string, string],
  lockTimeout: string,
  client = sql,
): Promise<{ code: string; tells: boolean }> {
  return holding(
    (tx) => tx.unsafe(`select ${held}`),
    async (pid) => {
      const ended = client.begin(async (tx) => {
        await tx`select set_config('lock_timeout', ${lockTimeout}, true), set_config('statement_timeout', '12s', true)`;
        await tx.unsafe(`select ${waiting}`);
      });
      const { code, detail } = await ended.then(
        () => ({ code: "ok", detail: "" }),
        (error: { code: string; detail?: string }) => error,
      );
      return { code, tells: detail === String(pid) };
    },
    { client, isUndone: true },
  );
}

test("every command of SQL that an open transaction keeps waiting gives up after its lock_timeout, and names the session", async () => {
  await using orchestrator = await serving(database, [flow, inner, outer], { schedules });
  const cases = await waits(orchestrator, "limited");
  const ends: unknown[] = [];

  for (const one of cases) ends.push([one[1], await endOf(one, "50ms")]);

  expect(ends).toEqual(cases.map(([, waiting]) => [waiting, { code: "FL011", tells: true }]));
});

test("a command without a lock_timeout waits for an open transaction no longer than five seconds", async () => {
  await using orchestrator = await serving(database, [flow, inner, outer], { schedules });
  const cases = await waits(orchestrator, "default");
  const clients = postgres(database.url, { max: 2 * cases.length });

  const ends = await Promise.all(cases.map(async (one) => [one[1], (await endOf(one, "0", clients)).code]));
  await clients.end();

  expect(ends).toEqual(cases.map(([, waiting]) => [waiting, "FL011"]));
});

test("a command that has waited leaves the lock_timeout of its transaction as it was", async () => {
  await using orchestrator = await serving(database, [flow, inner, outer], { schedules });
  const cases = await waits(orchestrator, "left");
  const left: unknown[] = [];

  for (const [held, waiting] of cases) {
    const waited = await holding(
      (tx) => tx.unsafe(`select ${held}`),
      async (pid) => {
        const setting = sql.begin(async (tx) => {
          await tx.unsafe(`select ${waiting}`);
          return tx`select current_setting('lock_timeout') as left`;
        });
        await vi.waitUntil(
          async () =>
            (await sql`select from pg_stat_activity a where ${pid} = any(pg_blocking_pids(a.pid))`).length > 0,
          { timeout: 4000 },
        );
        return { setting };
      },
      { isUndone: true },
    );
    left.push([waiting, ...(await waited.setting)]);
  }

  expect(left).toEqual(cases.map(([, waiting]) => [waiting, { left: "0" }]));
});

test("who is named has the table of this database, and not that of a copy, which has the same number", async () => {
  await using copy = await copiedDatabase();
  const lock = (tx: postgres.TransactionSql) =>
    tx`select pg_current_xact_id(), flowledger.lock_table('flow_pauses', 'it')`;

  await holding(
    lock,
    () =>
      holding(lock, async (pid) => {
        const refused = sql.begin(async (tx) => {
          await tx`set local lock_timeout = '50ms'`;
          await lock(tx);
        });
        await expect(refused).rejects.toMatchObject({ code: "FL011", detail: String(pid) });
      }),
    { client: copy.sql },
  );
});

test("so it is with the calls of the library, which say so by a LockedError", async () => {
  await using orchestrator = await serving(database, [flow, inner, outer], { schedules });
  const [answered, cancelled] = [await nested(orchestrator), await nested(orchestrator)];
  const [closed, pruned, open] = [
    await orchestrator.flow(flow).startExecution(null, atOnce),
    await orchestrator.flow(flow).startExecution(null, atOnce),
    await orchestrator.flow(flow).startExecution(null, { autoClose: false }),
  ];
  await Promise.all([closed.waitForClose(), pruned.waitForClose()]);
  const who = { actor: "ann", reason: "INC-12" };
  const id = crypto.randomUUID();
  const row = (of: string) => `from flowledger.executions where id = '${of}' for update`;
  const cases: readonly (readonly [held: string, call: () => Promise<unknown>])[] = [
    [row(open.id), () => open.pause(who)],
    [row(closed.id), () => closed.redrive({ from: 2, ...who })],
    [row(pruned.id), () => orchestrator.prune({ ids: [pruned.id], ...who })],
    [row(answered.parent), async () => (await orchestrator.getExecution(answered.frame)).continueWith("below", 1)],
    [
      row(cancelled.frame),
      async () => (await orchestrator.getExecution(cancelled.parent)).cancelSubFlow(cancelled.frame),
    ],
    [`flowledger.lock_table('flow_pauses', 'it')`, () => orchestrator.pauseFlow("held.inner", who)],
    [`flowledger.anchor()`, () => orchestrator.anchor()],
    [`from flowledger.schedules where name = 'yearly' for update`, () => orchestrator.runSchedule("yearly", who)],
    [`flowledger.start('held', '1', '{"id": "${id}"}')`, () => orchestrator.flow(flow).startExecution(1, { id })],
  ];
  const clients = postgres(database.url, { max: cases.length });

  const ends = await Promise.all(
    cases.map(([held, call]) =>
      holding(
        (tx) => tx.unsafe(`select ${held}`),
        () => call().catch((error: unknown) => error),
        { client: clients, isUndone: true },
      ),
    ),
  );
  await clients.end();

  expect(ends.map((end) => (end instanceof LockedError ? "locked" : end))).toEqual(cases.map(() => "locked"));
});

test("of two commands that wait for each other's row, parent and sub-flow, one gives up by name", async () => {
  await using orchestrator = await serving(database, [inner, outer]);
  const { parent, frame } = await nested(orchestrator);
  const [above, below] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const ended = (work: Promise<unknown>) =>
    work.then(
      () => "ok",
      (error: { code: string }) => error.code,
    );
  const down = sql.begin(async (tx) => {
    await tx`select flowledger.emit(${parent}, 'E')`;
    above.resolve();
    await below.promise;
    await tx`select flowledger.emit_to_sub_flow(${parent}, ${frame}, 'E')`;
  });
  const up = sql.begin(async (tx) => {
    await tx`select flowledger.emit(${frame}, 'E')`;
    below.resolve();
    await above.promise;
    await tx`select flowledger.continue_with(${frame}, 'below')`;
  });

  const ends = await Promise.all([ended(down), ended(up)]);

  expect(ends.toSorted()).toEqual(["FL011", "ok"]);
});

test("sub-flows that ask while somebody holds their parents wait alone, and ask when that has ended", async () => {
  const gates = [newGate(), newGate(), newGate()];
  const asks = defineFlow("held.asks");
  asks.to("ask", async (ctx) => {
    await gates[Number(ctx.input)]?.passed;
    return ctx.pauseFor({ interruptId: "later" });
  });
  const calls = defineFlow("held.calls");
  calls.toSubFlow(asks);
  await using orchestrator = await serving(database, [flow, asks, calls]);
  const parents = await Promise.all(
    gates.map((_, index) => orchestrator.flow(calls).startExecution(index, { autoClose: false })),
  );
  for (const parent of parents)
    await vi.waitUntil(async () => (await parent.getSubFlowFrames())[0]?.status === "running", { timeout: 8000 });

  await holding(
    (tx) => tx`select from flowledger.executions where flow = 'held.calls' for update`,
    async () => {
      for (const gate of gates) {
        gate.open();
        await orchestrator.flow(flow).start(null, atOnce);
      }
      const began = performance.now();
      for (let round = 0; round < 20; round++) await orchestrator.flow(flow).start(null, atOnce);
      expect(performance.now() - began).toBeLessThan(4000);
      for (const parent of parents) expect(await parent.getPendingInterrupts()).toEqual([]);
    },
  );

  for (const parent of parents) expect(await untilPending(parent)).toHaveLength(1);
});

test("a worker starts while somebody holds the row of its schedule, and what fires it does not wait for long", async () => {
  await using before = await serving(database, [flow], { schedules });
  await before.listExecutions();

  await using orchestrator = await holding(
    (tx) => tx`select from flowledger.schedules where name = 'yearly' for update`,
    async (pid) => {
      const fired = sql`select flowledger.fire_schedule('yearly', now(), now(), '{}', null, false, 'allow', 'null', '{}', 0, null)`;
      await expect(fired).rejects.toMatchObject({ code: "FL011", detail: String(pid) });
      return await serving(database, [flow], { schedules });
    },
  );

  await expect(orchestrator.runSchedule("yearly", { actor: "ann" })).resolves.toMatchObject({ flow: "held" });
});

test("a start in a transaction of the caller's own waits as long, and its error is typed", async () => {
  await using orchestrator = visiting(database, [flow]);

  await holding(
    (tx) => tx`select flowledger.start('held', '1', '{"idempotencyKey": "in tx"}')`,
    async (pid) => {
      const refused = sql.begin(async (tx) => {
        await tx`set local lock_timeout = '50ms'`;
        await orchestrator.flow(flow).startExecution(1, { idempotencyKey: "in tx", tx });
      });

      await expect(refused).rejects.toMatchObject({ code: "LOCKED", details: { pid } });
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
