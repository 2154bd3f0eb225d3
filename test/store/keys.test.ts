/** What is named by a key is found by that, however long the ledger is: counted in rows that a command reads, not in time. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { newExecution } from "../support/ledger.ts";
import { storeOn } from "../support/store.ts";

const { sql } = await testDatabase();

/** Rows of the ledger that a statement reads, by an index or past one. */
async function rowsRead(statement: (tx: typeof sql) => Promise<unknown>): Promise<number> {
  return sql.begin(async (tx) => {
    const read = async () => {
      const [row] = await tx<[{ n: number }]>`
        select (pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid)
          + (select coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0) from pg_index i where i.indrelid = c.oid))::int as n
        from pg_class c where c.oid = 'flowledger.ledger'::regclass`;
      return row.n;
    };
    const before = await read();
    await statement(tx as unknown as typeof sql);
    return (await read()) - before;
  });
}

async function longLedger(): Promise<string> {
  const { starts } = storeOn(sql);
  const { id } = newExecution({ settings: { autoClose: false } });
  await starts.create([newExecution({ id, settings: { autoClose: false } })]);
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select ${id}, 2 + n, 0, now(), 'event.emitted', jsonb_build_object('event', 'Message', 'payload', n, 'idempotencyKey', 'old-' || n)
    from generate_series(1, 4000) n`;
  await sql`update flowledger.executions set seq = 4002 where id = ${id}`;
  return id;
}

test.each(["before the table was analyzed", "behind it"])(
  "an event with a key reads as much behind 4,000 others as one without, %s",
  async (when) => {
    const id = await longLedger();
    if (when === "behind it") await sql`analyze flowledger.ledger`;

    const plain = await rowsRead((tx) => tx`select flowledger.emit(${id}, 'Message', '1')`);
    const fresh = await rowsRead((tx) => tx`select flowledger.emit(${id}, 'Message', '1', 'fresh')`);
    const known = await rowsRead((tx) => tx`select flowledger.emit(${id}, 'Message', '1', 'old-2000')`);

    expect(fresh - plain).toBeLessThanOrEqual(2);
    expect(known).toBeLessThanOrEqual(5);
    const [row] = await sql<[{ seq: number }]>`select flowledger.emit(${id}, 'Message', '1', 'old-2000') as seq`;
    expect(row.seq).toBe(2002);
  },
);

test("a session that made its plans while the table was empty finds a key by the index as well", async () => {
  const session = await sql.reserve();
  const first = newExecution({ settings: { autoClose: false } });
  await storeOn(sql).starts.create([first]);
  for (let n = 0; n < 10; n++) await session`select flowledger.emit(${first.id}, 'Message', '1', ${`key ${n}`})`;
  const id = await longLedger();

  const looks = async () => {
    const [row] = await session<[{ scans: number; whole: number }]>`
      select pg_stat_get_xact_numscans('flowledger.ledger_event_keys'::regclass)::int as scans,
        pg_stat_get_xact_tuples_returned('flowledger.ledger'::regclass)::int as whole`;
    return row;
  };
  await session`begin`;
  const before = await looks();
  await session`select flowledger.emit(${id}, 'Message', '1', 'fresh')`;
  const after = await looks();
  await session`rollback`;
  session.release();

  expect(after).toEqual({ scans: before.scans + 1, whole: before.whole });
});

test("keys of any length are told apart, also where they begin alike", async () => {
  const { id } = newExecution();
  await storeOn(sql).starts.create([newExecution({ id, settings: { autoClose: false } })]);
  const long = "key ".repeat(2000);
  const emit = async (key: string) => {
    const [row] = await sql<[{ seq: number }]>`select flowledger.emit(${id}, 'Message', '1', ${key}) as seq`;
    return row.seq;
  };

  const seqs = [await emit(`${long}1`), await emit(`${long}2`), await emit(`${long}1`), await emit(long)];

  expect(seqs).toEqual([3, 4, 3, 5]);
});

test("request ids of any length are told apart, also where they begin alike", async () => {
  const { id } = newExecution();
  await storeOn(sql).starts.create([newExecution({ id, settings: { autoClose: false } })]);
  const long = "request ".repeat(1000);
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, chunk, payload)
    values (${id}, 3, 0, now(), 'interrupt.raised', 'c', '{"id": "q", "kind": "k", "payload": null, "resumeTo": "next", "resumeCount": 0}')`;
  await sql`update flowledger.executions set seq = 3 where id = ${id}`;
  await sql`select flowledger.project(${id}, 3)`;
  const answer = (request: string) =>
    sql`select flowledger.continue_with(${id}, 'q', '1', ${request}) ->> 'requestId' as request`;

  expect(await answer(`${long}1`)).toEqual([{ request: `${long}1` }]);
  await expect(answer(`${long}2`)).rejects.toMatchObject({ code: "FL005" });
  expect(await answer(`${long}1`)).toEqual([{ request: `${long}1` }]);
});

test("an answer that is repeated reads as much behind 4,000 others as behind none", async () => {
  const id = await longLedger();
  const answer = async (first: number) => {
    await sql`
      insert into flowledger.ledger (execution_id, seq, epoch, at, type, chunk, payload)
      values (${id}, ${first}, 0, now(), 'interrupt.raised', 'c', '{"id": "q", "kind": "k", "payload": null, "resumeTo": "next", "resumeCount": 0}'),
        (${id}, ${first + 1}, 0, now(), 'interrupt.resumed', null, jsonb_build_object('id', 'q', 'value', 1, 'requestId', ${`request ${first}`}::text))`;
    await sql`update flowledger.executions set seq = ${first + 1} where id = ${id}`;
    await sql`select flowledger.project(${id}, ${first})`;
    return rowsRead((tx) => tx`select flowledger.continue_with(${id}, 'q', '1', ${`request ${first}`})`);
  };
  const few = await answer(4003);
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select ${id}, 4004 + n, 0, now(), 'interrupt.resumed', jsonb_build_object('id', 'q' || n, 'value', n, 'requestId', 'r' || n)
    from generate_series(1, 4000) n`;

  const many = await answer(8005);

  expect(many).toBeLessThanOrEqual(few + 2);
});
