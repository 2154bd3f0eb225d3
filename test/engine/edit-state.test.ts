/** The state is edited by an operator: in the ledger's order, by the contract, with what was there. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { LedgerEvent } from "../../src/index.ts";
import { writeAgain } from "../../src/ledger/edits.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import { initialState } from "../../src/ledger/state.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf } from "../support/doors.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { created, fold, recorded, started } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;
const by = { actor: "ann", reason: "typo" };
const parking = { onFailure: "park" } as const;

async function expectSound({ id }: { readonly id: string }): Promise<void> {
  expect(await verify(sql, { id })).toEqual([]);
  expect(await rebuild(sql, { id })).toEqual([]);
}

test("an edit is read by what runs next, is in the audit's states, and says what was there", async () => {
  let isMended = false;
  const flow = defineFlow("edit.read", {}, parking);
  flow
    .to("write", (ctx) => ctx.setState("order", { total: 41, draft: true }))
    .to("check", (ctx) => {
      if (!isMended) throw new Error("wrong");
      return ctx.getState("order");
    })
    .end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "chunk.parked");
  const { stateVersion } = await execution.result.getMeta();

  const edited = await execution.editState(
    { set: { "order.total": 42, "note.by": "ann" }, delete: ["order.draft", "missing"] },
    { ...by, expectedSeq: stateVersion },
  );

  expect(edited).toEqual({
    seq: stateVersion + 1,
    changes: [
      { path: "note.by", op: "set", value: "ann" },
      { path: "order.total", op: "set", value: 42, was: 41 },
      { path: "order.draft", op: "delete", was: true },
    ],
  });
  expect(await execution.stateAt(stateVersion)).toEqual({ order: { total: 41, draft: true } });
  const [row] =
    await sql`select flowledger.state_at(${execution.id}) as state, flowledger.state_at(${execution.id}, ${stateVersion}) as before`;
  expect(row).toEqual({
    state: { order: { total: 42 }, note: { by: "ann" } },
    before: { order: { total: 41, draft: true } },
  });
  expect(
    await sql`select seq, change, key, value from flowledger.audit_state_changes where execution_id = ${execution.id} and seq > ${stateVersion} order by key`,
  ).toEqual([
    { seq: edited.seq, change: "set", key: "note.by", value: "ann" },
    { seq: edited.seq, change: "deleted", key: "order.draft", value: null },
    { seq: edited.seq, change: "set", key: "order.total", value: 42 },
  ]);
  const copy = await execution.fork({ at: stateVersion });
  expect(await copy.result.getState()).toEqual({ order: { total: 41, draft: true } });
  isMended = true;
  await execution.retry(by);
  expect(await execution.waitForClose()).toEqual({
    order: { total: 42 },
    note: { by: "ann" },
    $final_result: { total: 42 },
  });
  await expectSound(execution);
});

test("an execution that runs reads it from its next read on, and what it writes later counts", async () => {
  const gates = [newGate(), newGate()];
  const flow = defineFlow("edit.running");
  flow.to("run", async (ctx) => {
    await ctx.setState("a", "chunk");
    await ctx.flush();
    gates[0]?.open();
    await gates[1]?.passed;
    await ctx.setState("b", ctx.getState("a"));
    await ctx.setState("c", "chunk");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await gates[0]?.passed;

  await execution.editState({ set: { a: "edited", c: "edited" } }, by);
  await expect.poll(() => execution.result.getState("a"), { timeout: 8000 }).toBe("edited");
  gates[1]?.open();

  expect(await execution.waitForClose()).toMatchObject({ a: "edited", c: "chunk" });
  await expectSound(execution);
});

test("edits that come in while a commit is on its way leave what the ledger's order leaves", () => {
  const path = fc.constantFrom("a", "a.b", "a.b.c", "d", "a.e");
  const value = fc.constantFrom<1 | "x" | { b: 2 }>(1, "x", { b: 2 });
  const write = fc.record({ type: fc.constantFrom("state.set", "state.appended", "state.deleted"), key: path, value });
  const change = fc.oneof(
    fc.record({ op: fc.constant("set" as const), path, value }),
    fc.record({ op: fc.constant("delete" as const), path }),
  );
  const place = { dispatch: 1, chunk: "a", ordinal: 0 };
  const before: LedgerEvent[] = [
    created(defineFlow("edit.order")),
    started(null),
    { type: "inbox.routed", of: 2, moves: [{ move: "run", id: 1, node: "n1", chunk: "a" }] },
    { type: "state.set", ...place, key: "a", value: { b: 1, e: [1] } },
  ];
  const valuesOf = (events: readonly LedgerEvent[]) => fold(recorded(events)).values;
  const isObject = (given: unknown) => typeof given === "object" && given !== null && !Array.isArray(given);

  fc.assert(
    fc.property(
      fc.array(write, { maxLength: 4 }),
      fc.array(change, { minLength: 1, maxLength: 3 }),
      (writes, changes) => {
        const own = writes.map(
          (one) =>
            (one.type === "state.deleted"
              ? { ...place, type: one.type, key: one.key }
              : { ...place, ...one }) as LedgerEvent,
        );
        const edit: LedgerEvent = { type: "state.edited", changes, ...by };
        const inOrder = valuesOf([...before, edit, ...own]);
        const state = recorded([...before, ...own]).reduce(evolve, initialState());
        const foreign = recorded([edit], 99);
        foreign.reduce(evolve, state);
        try {
          writeAgain(state, foreign, own);
        } catch {
          return;
        }
        // Through what is no object neither side writes: both are refused before.
        if (!isObject(inOrder["a"] ?? {})) return;
        expect(state.values).toEqual(inOrder);
      },
    ),
    fuzzRuns(),
  );
});

test("what cannot be meant is refused by name at both doors, and nothing is written", async () => {
  const flow = defineFlow("edit.refused", {
    state: z.object({ order: z.object({ total: z.number() }), note: z.string() }).partial(),
  });
  flow.to("write", async (ctx) => {
    await ctx.setState("order", { total: 1 });
    await ctx.setState("note", "text");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.completed");
  const { stateVersion } = await execution.result.getMeta();
  const edit = (changes: object, options: object = {}) =>
    refusal(execution.editState(changes as never, { ...by, ...options } as never));
  const bySql = (changes: object | null, options: object = {}) =>
    refusal(
      sql`select flowledger.edit_state(${execution.id}, ${sql.json(changes as never)}, ${sql.json({ ...by, ...options })})`,
    );

  expect(await edit({ set: { note: "new" } }, { expectedSeq: 2 })).toMatchObject({
    code: "CONFLICT",
    message: expect.stringMatching(/gone on since event 2 \(3 execution.claimed/),
    details: {
      expectedSeq: 2,
      since: expect.arrayContaining([expect.objectContaining({ type: "chunk.completed", chunk: "write" })]),
    },
  });
  expect(await bySql({ set: { note: "new" } }, { expectedSeq: 2 })).toMatchObject({ code: "FL013" });
  expect(await edit({ set: { note: "new" } }, { expectedSeq: 999 })).toMatchObject({ code: "USAGE_INVALID" });
  for (const wrong of [
    { set: { note: 7 } },
    { set: { "order.total": "many" } },
    { set: { other: 1 } },
    { delete: ["order.total"] },
  ]) {
    expect(await edit(wrong)).toMatchObject({ code: "CONTRACT_VIOLATED" });
    expect(await bySql(wrong)).toMatchObject({ code: "FL008", detail: expect.stringContaining('"issues"') });
  }
  for (const wrong of [
    {},
    { set: {} },
    { put: { note: "new" } },
    { set: ["note"] },
    { delete: "note" },
    { delete: [7] },
    { set: { "note.more": 1 } },
    { set: { "": 1 } },
    { set: { "__proto__.a": 1 } },
    { set: { "constructor.prototype.a": 1 } },
    { set: { "note.constructor": { prototype: 1 } } },
  ]) {
    expect(await edit(wrong)).toMatchObject({ code: expect.stringMatching(/USAGE_INVALID|CONTRACT_VIOLATED/) });
    expect(await bySql(wrong)).toMatchObject({ code: "FL008" });
  }
  expect(await edit({ set: { note: "new" } }, { reason: " " })).toMatchObject({ code: "USAGE_INVALID" });
  expect(await bySql(null)).toMatchObject({ code: "FL008" });
  expect((await execution.result.getMeta()).stateVersion).toBe(stateVersion);
  await execution.seal();
  expect(await edit({ set: { note: "new" } })).toMatchObject({ code: "EXECUTION_SEALED" });
});

test("two edits below one key that come at once never break together what the contract says of it", async () => {
  const flow = defineFlow("edit.together", {
    state: z
      .object({
        order: z.object({ a: z.number(), b: z.number() }).refine(({ a, b }) => a + b <= 10, "too much"),
        note: z.string(),
      })
      .partial(),
  });
  flow.to("write", (ctx) => ctx.setState("order", { a: 0, b: 0 }));
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow(flow);
  for (let round = 0; round < 10; round++) {
    const execution = await bound.startExecution(null, { autoClose: false });
    await untilEvent(execution, "chunk.completed");

    const ends = await Promise.allSettled([
      execution.editState({ set: { "order.a": 8 } }, by),
      execution.editState({ set: { "order.b": 8 } }, by),
      execution.editState({ set: { note: "beside them" } }, by),
    ]);
    const refused = ends.flatMap((end): unknown[] => (end.status === "rejected" ? [end.reason] : []));

    expect(refused).toEqual([expect.objectContaining({ code: "CONTRACT_VIOLATED" })]);
    const { order, note } = await execution.result.getState();
    expect([order, note]).toEqual([
      expect.toBeOneOf([
        { a: 8, b: 0 },
        { a: 0, b: 8 },
      ]),
      "beside them",
    ]);
  }
});

test("what nobody has claimed is edited by the contract of the versions that may run it, at every door", async () => {
  const state = z.object({ note: z.string() }).partial();
  const first = defineFlow("edit.unclaimed", { state });
  first.to("one", () => null);
  const second = defineFlow("edit.unclaimed", { state: state.extend({ more: z.number().optional() }) });
  second.to("one", () => null).to("two", () => null);
  await using old = await serving(database, [first]);
  await using stranger = createOrchestrator({ connection: database.url });
  const make = old.flow(first);
  const unclaimed = [await make.createExecution(), await make.startExecution(null, { delay: "1h" })];
  const refusals = async (id: string, set: object) => {
    const handle = await stranger.getExecution(id);
    const bySql = sql`select flowledger.edit_state(${id}, ${sql.json({ set } as never)}, ${sql.json(by)})`;
    return [await codeOf(handle.editState({ set } as never, by)), await codeOf(bySql)];
  };

  for (const { id } of unclaimed) {
    for (const wrong of [{ note: 7 }, { more: 1 }, { note: "new", other: 1 }])
      expect(await refusals(id, wrong)).toEqual(["CONTRACT_VIOLATED", "CONTRACT_VIOLATED"]);
    expect(await refusals(id, { note: "new" })).toEqual(["ok", "ok"]);
  }
  await using newer = await serving(database, [second]);
  for (const { id } of unclaimed) {
    expect(await refusals(id, { more: 1 })).toEqual(["ok", "ok"]);
    expect(await refusals(id, { more: "x" })).toEqual(["CONTRACT_VIOLATED", "CONTRACT_VIOLATED"]);
    await (await newer.getExecution(id)).cancel();
  }
});
