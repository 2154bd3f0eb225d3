/** F1, F7: a parent, its child, or both lose their worker while the child runs, streams or waits for an answer. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { present, untilPending } from "../support/doors.ts";
import { collect, visiting } from "../support/flows.ts";
import { caller, inner, outer } from "./flows.ts";
import { expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
const all = [
  { outer: 0 },
  ...[0, 1, 2, 3, 4].map((n) => ({ inner: n })),
  ...[5, 6, 7, 8, 9].map((n) => ({ inner: n })),
  { outer: 1 },
];
const ours = ({ kind }: { kind: unknown }) => kind === null;

test("TF-SUB-13, F1: a child waits, its parent's worker is killed; answered through the parent both complete, and the stream is whole", async () => {
  await using orchestrator = visiting(database, [outer]);
  await using doomed = await startWorker(database.url);
  const execution = await orchestrator.flow(outer).startExecution(null, { autoCloseTimeout: 0 });
  const [interrupt] = await untilPending(execution);

  doomed.kill("SIGKILL");
  await doomed.exited;
  // Nobody is there: the answer is in the child's ledger all the same.
  await execution.continueWith(present(interrupt).id, "yes", { resumeRequestId: "r" });
  await using _heir = await startWorker(database.url);
  await execution.continueWith(present(interrupt).id, "yes", { resumeRequestId: "r" });

  expect(await untilClosed(sql, execution.id)).toMatchObject({
    outcome: "completed",
    close_snapshot: { answer: "yes" },
  });
  const items = await collect(execution.streamItems({ timeout: null }));
  expect(items.filter(ours).map(({ item }) => item)).toEqual(all);
  expect(items.filter((entry) => !ours(entry)).map(({ item }) => (item as { action: string }).action)).toEqual([
    "project",
    "resume",
  ]);
  await expectGuarantees(sql);
});

test.each(["before-commit", "in-commit"])(
  "TF-STR-10, F1: a worker that dies at %s leaves every item of a child in both streams, once and in order",
  async (name) => {
    await using orchestrator = visiting(database, [outer]);
    await using doomed = await startWorker(database.url, { FLOWLEDGER_FAILPOINT: `${name}:kill` });
    const execution = await orchestrator.flow(outer).startExecution(null, { autoCloseTimeout: 0 });
    await doomed.exited;
    await using second = await startWorker(database.url);
    const [interrupt] = await untilPending(execution);
    second.kill("SIGKILL");
    await using _heir = await startWorker(database.url);

    await execution.continueWith(present(interrupt).id, "yes");

    expect(await untilClosed(sql, execution.id)).toMatchObject({
      outcome: "completed",
      close_snapshot: { answer: "yes" },
    });
    const [child] = await execution.getSubFlowFrames();
    const childItems = await collect(
      (await orchestrator.getExecution(present(child).id)).streamItems({ timeout: null }),
    );
    const items = (await collect(execution.streamItems({ timeout: null }))).filter(ours).map(({ item }) => item);
    // A chunk that is run again puts its items again; whatever is in the child's stream is in its parent's.
    expect(items.filter((item) => "inner" in (item as object))).toEqual(
      childItems.filter(ours).map(({ item }) => item),
    );
    for (const item of all) expect(items).toContainEqual(item);
    await expectGuarantees(sql);
  },
);

test.each([outer, caller])(
  "F7: a worker that drains while $name waits for a child leaves nobody waiting for ever",
  async (flow) => {
    await using orchestrator = visiting(database, [flow, inner]);
    await using draining = await startWorker(database.url, { CRASH_DRAIN: "5s" });
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const [waiting] = present(
      await until(async () => {
        const rows = await sql<{ id: string }[]>`
        select id from flowledger.executions where parent_id = ${execution.id} and pending_interrupts > 0`;
        return rows.length > 0 && rows;
      }),
    );

    draining.kill("SIGTERM");
    expect(await draining.exited).toEqual({ code: 0, signal: null });
    await (await orchestrator.getExecution(present(waiting).id)).continueWith("ask", "yes");
    await using _heir = await startWorker(database.url);

    expect(await untilClosed(sql, execution.id)).toMatchObject({
      outcome: "completed",
      close_snapshot: { answer: "yes" },
    });
    await expectGuarantees(sql);
  },
);

test("F1: a child whose worker died before it could tell its parent is heard of all the same", async () => {
  await using orchestrator = visiting(database, [outer]);
  await using worker = await startWorker(database.url);
  const execution = await orchestrator.flow(outer).startExecution(null, { autoCloseTimeout: 0 });
  const [interrupt] = await untilPending(execution);
  const child = present(interrupt?.projectedFrom).executionId;
  // The parent is let go; then the child closes, and the news is lost with its worker.
  await until(
    async () =>
      (await sql`select 1 from flowledger.executions where id = ${execution.id} and owner is null and wake_at is null`)
        .length,
  );
  await sql`alter function flowledger.propagate_close(uuid[], float8) rename to propagate_close_later`;
  await execution.continueWith(present(interrupt).id, "yes");
  await untilClosed(sql, child);
  worker.kill("SIGKILL");
  await worker.exited;
  await sql`alter function flowledger.propagate_close_later(uuid[], float8) rename to propagate_close`;
  expect(
    await sql`select 1 from flowledger.executions where id = ${execution.id} and closed_at is null and wake_at is null`,
  ).toHaveLength(1);

  await using _heir = await startWorker(database.url);

  expect(await untilClosed(sql, execution.id)).toMatchObject({
    outcome: "completed",
    close_snapshot: { answer: "yes" },
  });
  await expectGuarantees(sql);
});
