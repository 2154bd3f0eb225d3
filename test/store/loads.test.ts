/** Loads of stream items: how many executions have some at once makes none of them dearer. */
import { expect, test } from "vitest";
import { ExecutionId } from "../../src/ledger/event.ts";
import { testDatabase } from "../support/database.ts";
import { storeOn } from "../support/store.ts";

test("a thousand loads in one statement take each as long as fifty do", { timeout: 120_000 }, async () => {
  await using database = await testDatabase();
  const token = "00000000-0000-4000-8000-000000000002";
  const rows = await database.sql<{ id: string }[]>`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, owner, epoch, lease_token)
    select ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1, 'chat', now(), now(), ${token}, 1, ${token}
    from generate_series(1, 1000) n returning id`;
  const { streams } = storeOn(database.sql);
  const numbers = new Map<string, number>();
  const put = async (count: number) => {
    const loads = rows.slice(0, count).map(({ id }) => {
      const no = (numbers.get(id) ?? 0) + 1;
      numbers.set(id, no);
      return { id: ExecutionId.parse(id), epoch: 1, token, no, items: [{ dispatch: 1, text: '"a"' }], marks: [] };
    });
    const began = performance.now();
    const verdicts = await streams.put(loads);
    const took = performance.now() - began;
    expect(verdicts.every((verdict) => verdict === "ok")).toBe(true);
    return took / count;
  };

  const [few, many]: number[][] = [[], []];
  for (let round = 0; round < 8; round++) {
    few?.push(await put(50));
    many?.push(await put(1000));
  }

  // A busy machine makes some slower, and none faster.
  expect(Math.min(...(many ?? [])) / Math.min(...(few ?? []))).toBeLessThan(2);
});

test("what a sub-flow puts goes into no stream above it that has closed", async () => {
  await using database = await testDatabase();
  const token = "00000000-0000-4000-8000-000000000002";
  const ids = [1, 2, 3].map((n) => ExecutionId.parse(`0190a000-0000-7000-8000-00000000000${n}`));
  await database.sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, closed_at, outcome, owner, epoch, lease_token)
    select id, 1, 'chat', now(), now(), case when n = 1 then now() end, case when n = 1 then 'failed' end, ${token}, 1, ${token}
    from unnest(${ids}::uuid[]) with ordinality as e(id, n)`;
  const [above, open, id] = ids;
  if (!above || !open || !id) throw new Error("not made");
  const load = {
    id,
    epoch: 1,
    token,
    no: 1,
    visibleIn: [open, above],
    items: [{ dispatch: 1, text: '"a"' }],
    marks: [],
  };

  expect(await storeOn(database.sql).streams.put([load])).toEqual(["ok"]);

  const put = await database.sql`select execution_id as id, seq::int from flowledger.stream_items order by 1`;
  expect(put).toEqual([open, id].map((one) => ({ id: one, seq: 1 })));
});
