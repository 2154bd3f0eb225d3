/** Corrections by people: recorded from outside, inserted at boundaries, read and marked by chunks. */
import { describe, expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { JsonObject } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, doorsOf, untilPending } from "../support/doors.ts";
import { collect, newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { expectGuarantees, ledgerOf } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

/** Pauses, passes the points, and keeps what the last chunk saw. */
function reviewed(name: string) {
  const flow = defineFlow(name);
  flow
    .to("draft", (ctx) => ctx.pauseFor({ interruptId: "hold" }))
    .interventionPoint({ name: "before_risk", target: "risk" })
    .to("risk", async (ctx) => {
      await ctx.setState(
        "risk",
        ctx.interventions.map(({ payload }) => payload),
      );
      return ctx.input;
    })
    .interventionPoint({ name: "any" })
    .to("last", async (ctx) => {
      await ctx.setState(
        "last",
        ctx.getInterventions({ sinceVersion: 1 }).map(({ payload }) => payload),
      );
      await ctx.setState("input", ctx.input);
    });
  return flow;
}

describe.each(doorsOf(sql))("sent by $name", (door) => {
  test("whose it is stands in the ledger, and what was taken up leaves room for a thousand that wait", async () => {
    const flow = reviewed(`room-${door.name}`);
    await using orchestrator = visiting(database, [flow]);
    const execution = await orchestrator.flow(flow).createExecution();
    await sql`
      insert into flowledger.interventions (execution_id, version, id, status, record, created_at)
      select ${execution.id}, n, n::text, 'inserted', '{}', flowledger.now() from generate_series(1, 1000) n`;

    await door.intervene(execution, 1, { author: "ann" });
    await sql`update flowledger.interventions set status = 'pending' where execution_id = ${execution.id}`;

    expect(await codeOf(door.intervene(execution, 2))).toBe("USAGE_INVALID");
    expect(await execution.history({ types: ["intervention.recorded"] })).toMatchObject([{ actor: "ann" }]);
    await sql`delete from flowledger.interventions where execution_id = ${execution.id} and version <= 1000`;
    await execution.cancel();
  });

  test("TF-INV-01: is refused where it is off, and changes nothing", async () => {
    const flow = defineFlow(`off-${door.name}`);
    flow.to("only", (ctx) => ctx.pauseFor());
    await using orchestrator = visiting(database, [flow]);
    const execution = await orchestrator.flow(flow).createExecution();

    expect(await codeOf(door.intervene(execution, { a: 1 }))).toBe("INTERVENTION_DISABLED");
    expect(await ledgerOf(sql, execution.id)).toEqual(["execution.created"]);
  });

  test("TF-INV-03, TF-INV-04: returns the record exactly, numbered per execution, and emits nothing", async () => {
    const flow = reviewed(`record-${door.name}`);
    await using orchestrator = visiting(database, [flow]);
    const execution = await orchestrator.flow(flow).createExecution();

    const bare = await door.intervene(execution, null);
    const full = await door.intervene(
      execution,
      { text: "new prices" },
      { author: "ann", target: "risk", note: "see mail", metadata: { mail: 7 } },
    );

    const empty = {
      insertedAt: null,
      insertion: null,
      rejectedAt: null,
      rejectReason: null,
      expiredAt: null,
      consumers: {},
    };
    const made = { id: expect.any(String) as string, createdAt: expect.any(String) as string, status: "pending" };
    expect(bare).toEqual({
      ...made,
      ...empty,
      version: 1,
      payload: null,
      target: null,
      author: null,
      note: null,
      metadata: {},
    });
    expect(full).toEqual({
      ...made,
      ...empty,
      version: 2,
      payload: { text: "new prices" },
      target: "risk",
      author: "ann",
      note: "see mail",
      metadata: { mail: 7 },
    });
    expect(await ledgerOf(sql, execution.id)).toEqual([
      "execution.created",
      "intervention.recorded",
      "intervention.recorded",
    ]);
    expect(await execution.result.getInterventions()).toHaveLength(2);
    await expectGuarantees(sql, execution.id);
  });

  test("TF-INV-04: bad options, and a sealed, closed or unknown execution, are refused one by one", async () => {
    const flow = reviewed(`bad-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilPending(execution);
    const before = await ledgerOf(sql, execution.id);
    const send = (options: JsonObject) => codeOf(door.intervene(execution, 1, options));

    const codes = [
      await send({ metadata: [1] }),
      await send({ metadata: "x" }),
      await send({ author: 1 }),
      await send({ target: {} }),
      await send({ note: [] }),
    ];
    const unchanged = await ledgerOf(sql, execution.id);
    await execution.seal();
    const sealed = await send({});
    await execution.close({ pendingInterrupts: "cancel" });

    expect(codes).toEqual(Array(5).fill("USAGE_INVALID"));
    expect(unchanged).toEqual(before);
    expect([sealed, await send({})]).toEqual(["EXECUTION_SEALED", "EXECUTION_CLOSED"]);
  });

  test("TF-INV-05, TF-INV-08, TF-INV-12: planned points take what is meant for them, once, and the value passes through", async () => {
    const flow = reviewed(`planned-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    await door.intervene(execution, "for risk", { target: "risk" });
    await door.intervene(execution, "for anyone");
    await door.intervene(execution, "for nobody", { target: "elsewhere" });

    await execution.continueWith("hold", "through");
    const snapshot = await execution.waitForClose();

    expect(snapshot).toMatchObject({ risk: ["for risk"], last: ["for anyone"], input: "through" });
    const records = await execution.result.getInterventions();
    expect(records).toMatchObject([
      {
        payload: "for risk",
        status: "inserted",
        insertion: {
          mode: "planned",
          operatorName: "before_risk",
          operatorKind: "interventionPoint",
          operatorId: expect.any(String),
        },
      },
      { payload: "for anyone", status: "inserted", insertion: { mode: "planned", operatorName: "any" } },
      { payload: "for nobody", status: "expired", insertion: null, expiredAt: expect.any(Date) },
    ]);
    // Nothing is ever rejected: it is inserted, or it expires.
    for (const record of records) expect(record).toMatchObject({ rejectedAt: null, rejectReason: null });
    const rows = await sql<
      { record: JsonObject }[]
    >`select record from flowledger.interventions where execution_id = ${execution.id} order by version`;
    expect(Object.values((snapshot as JsonObject)["$interventions"] as JsonObject)).toEqual(
      expect.arrayContaining(rows.map(({ record }) => record)),
    );
    await expectGuarantees(sql, execution.id);
  });

  test("TF-INV-09, TF-INV-10: marks are kept by consumer, the last one of each, and leave the status alone", async () => {
    const flow = reviewed(`marks-${door.name}`);
    await using orchestrator = visiting(database, [flow]);
    const execution = await orchestrator.flow(flow).createExecution();
    const id = String((await door.intervene(execution, 1))["id"]);

    await door.consume(execution, id, { consumer: "pricing", status: "ignored", note: "why" });
    await door.consume(execution, id, { consumer: "pricing", note: "after all", metadata: { rule: 3 } });
    const record = await door.consume(execution, id, { consumer: "audit", status: "ignored" });
    const codes = [
      await codeOf(door.consume(execution, id, { consumer: "" })),
      await codeOf(door.consume(execution, id, { consumer: "x", status: "eaten" })),
      await codeOf(door.consume(execution, "unknown", { consumer: "x" })),
    ];

    expect(record).toMatchObject({
      status: "pending",
      consumers: {
        pricing: { status: "applied", note: "after all", metadata: { rule: 3 }, consumedAt: expect.any(String) },
        audit: { status: "ignored", note: null, metadata: {} },
      },
    });
    expect(codes).toEqual(Array(3).fill("USAGE_INVALID"));
    expect(await execution.result.getInterventions({ consumedBy: "audit" })).toHaveLength(1);
    expect(await execution.result.getInterventions({ consumedBy: "nobody" })).toEqual([]);
  });
});

test("TF-INV-02: points infer planned, null turns it off, auto with points and other words are refused", async () => {
  const flow = reviewed("modes");
  await using orchestrator = visiting(database, [flow]);
  const bound = orchestrator.flow(flow);
  const create = (interventionMode: "planned" | "auto" | null) => bound.createExecution({ interventionMode });

  expect(await codeOf((await bound.createExecution()).intervene(1))).toBe("ok");
  expect(await codeOf((await create(null)).intervene(1))).toBe("INTERVENTION_DISABLED");
  expect(await codeOf(create("auto"))).toBe("USAGE_INVALID");
  expect(await codeOf(create("sometimes" as "auto"))).toBe("USAGE_INVALID");
});

test("TF-INV-06: auto inserts before the chunk that is named, or before the next one", async () => {
  const flow = defineFlow("auto");
  flow
    .to("draft", (ctx) => ctx.pauseFor({ interruptId: "hold" }))
    .to(
      "first",
      async (ctx) =>
        await ctx.setState(
          "first",
          ctx.interventions.map(({ payload }) => payload),
        ),
    )
    .to(
      "second",
      async (ctx) =>
        await ctx.setState(
          "second",
          ctx.interventions.map(({ payload }) => payload),
        ),
    );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator
    .flow(flow)
    .startExecution(null, { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(execution);
  await execution.intervene("later", { target: "second" });
  await execution.intervene("now");

  await execution.continueWith("hold");

  expect(await execution.waitForClose()).toMatchObject({ first: ["now"], second: ["later", "now"] });
  expect(await execution.result.getLatestIntervention(null)).toMatchObject({
    payload: "now",
    insertion: { mode: "auto", operatorName: "first", operatorKind: "chunk" },
  });
  await expectGuarantees(sql, execution.id);
});

test("TF-INV-08, TF-INV-10: a chunk sees what was inserted when it began, and marks it under its own name", async () => {
  const [began, goOn] = [newGate(), newGate()];
  const flow = defineFlow("visible");
  flow
    .to("draft", (ctx) => ctx.pauseFor({ interruptId: "hold" }))
    .to("slow", async (ctx) => {
      began.open();
      await goOn.passed;
      await ctx.setState(
        "seen",
        ctx.interventions.map(({ payload }) => payload),
      );
      for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id, { note: "done" });
      await ctx.setState("refused", (await codeOf(ctx.markInterventionConsumed("unknown"))) === "USAGE_INVALID");
    })
    .to("next", async (ctx) => await ctx.setState("next", ctx.interventions.length));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator
    .flow(flow)
    .startExecution(null, { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(execution);
  await execution.intervene("before");
  await execution.continueWith("hold");
  await began.passed;

  await execution.intervene("meanwhile");
  goOn.open();

  expect(await execution.waitForClose()).toMatchObject({ seen: ["before"], refused: true, next: 2 });
  expect(await execution.result.getInterventions({ consumedBy: "slow" })).toMatchObject([
    { payload: "before", status: "inserted", consumers: { slow: { status: "applied", note: "done" } } },
  ]);
});

test("TF-INV-11: what is pending at the close expires before the snapshot is frozen", async () => {
  const flow = reviewed("expiring");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilPending(execution);
  await execution.intervene("too late", { target: "nowhere" });

  const snapshot = (await execution.close({ pendingInterrupts: "cancel" })) as JsonObject;

  expect(Object.values(snapshot["$interventions"] as JsonObject)).toMatchObject([
    { status: "expired", expiredAt: expect.any(String) },
  ]);
  await expectGuarantees(sql, execution.id);
});

test.each(doorsOf(sql))(
  "more than an execution can end with is refused, by $name: it can still be cancelled",
  async (door) => {
    const flow = reviewed(`flooded-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const start = () => orchestrator.flow(flow).startExecution(null, { autoClose: false });
    const [many, large] = [await start(), await start()];
    for (const { id } of [many, large]) await untilPending(await orchestrator.getExecution(id));
    await sql`select flowledger.intervene(${many.id}, to_jsonb(n)) from generate_series(1, 1000) n`;
    await sql`select flowledger.intervene(${large.id}, to_jsonb(repeat('x', 1000000))) from generate_series(1, 16)`;

    for (const [execution, words] of [
      [many, /1000 interventions waiting to be taken up/],
      [large, /interventions of 16\d{6} bytes/],
    ] as const) {
      const written = async () =>
        (await ledgerOf(sql, execution.id)).filter((type) => type.startsWith("intervention.")).length;
      const before = await written();
      const refused = door.intervene(execution, "x".repeat(800_000));
      expect(String(await refusal(refused))).toMatch(words);
      expect(await codeOf(refused)).toBe("USAGE_INVALID");
      const [first] = await execution.result.getInterventions({});
      const marked = door.consume(execution, first?.id ?? "", { consumer: "x", metadata: { x: "x".repeat(800_000) } });
      expect(await codeOf(marked)).toBe(execution === large ? "USAGE_INVALID" : "ok");
      expect(await written()).toBe(before + (execution === large ? 0 : 1));
      await execution.cancel();
      expect(await codeOf(execution.waitForClose())).toBe("EXECUTION_CANCELLED");
    }
  },
);

test("what chunks say of interventions has the same limit, and marking again counts once", async () => {
  const flow = defineFlow("much-said");
  const said = "x".repeat(1_000_000);
  flow
    .to("hold", (ctx) => ctx.pauseFor({ interruptId: "hold" }))
    .to("mark", async (ctx) => {
      const [first] = ctx.interventions;
      for (let n = 0; n < 40; n++) {
        await ctx.markInterventionConsumed(first?.id ?? "", { metadata: { said } });
        await ctx.flush();
      }
      for (let n = 0; n < 40; n++)
        await ctx.markInterventionConsumed(first?.id ?? "", { consumer: `c${n}`, metadata: { said } });
    });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator
    .flow(flow)
    .startExecution(null, { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(execution);
  await execution.intervene({ n: 1 });
  await execution.continueWith("hold", null);

  const error = await refusal(execution.waitForClose());
  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "UsageError" } });
  expect(String(error)).toMatch(/has interventions of 1[56]\d{6} bytes, and accepts no more/);
  expect(await execution.result.getInterventions({ consumedBy: "mark" })).toHaveLength(1);
});

test("TF-RES-12, TF-RES-13: records are read by version, by all filters at once, and reading consumes nothing", async () => {
  const flow = reviewed("filtered");
  await using orchestrator = visiting(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution();
  const { result } = execution;
  for (const target of ["risk", "price", "risk", "risk"]) {
    const { id, version } = await execution.intervene(null, { target });
    if (version === 2 || version === 3) await execution.markInterventionConsumed(id, { consumer: "audit" });
  }
  const versions = async (filters: Parameters<typeof result.getInterventions>[0]) =>
    (await result.getInterventions(filters)).map(({ version }) => version);

  expect(await versions({})).toEqual([1, 2, 3, 4]);
  expect(await versions({ target: "risk" })).toEqual([1, 3, 4]);
  expect(await versions({ sinceVersion: 3 })).toEqual([4]);
  expect(await versions({ consumedBy: "audit" })).toEqual([2, 3]);
  expect(await versions({ target: "risk", sinceVersion: 1, consumedBy: "audit", status: "pending" })).toEqual([3]);
  expect(await versions({ target: "risk", status: "inserted" })).toEqual([]);
  expect(await result.getLatestIntervention(null, { target: "risk", consumedBy: "audit" })).toMatchObject({
    version: 3,
  });
  expect(await result.getLatestIntervention("none", { target: "price", sinceVersion: 2 })).toBe("none");
  expect(Object.keys((await result.getLatestIntervention(null))?.consumers ?? {})).toEqual([]);
});

test("TF-INV-14: a point declared twice alike is one point, with another target or without a name it is an error", async () => {
  const flow = defineFlow("points");
  const begin = flow.to("a", () => 1);
  begin.interventionPoint({ name: "p", target: "t" }).to("b", () => 2);
  begin.interventionPoint({ name: "p", target: "t" }).to("c", () => 3);

  expect(flow.interventionPoints).toHaveLength(1);
  const codes = [{ name: "p", target: "u" }, { name: "" }].map((point) =>
    codeOf(Promise.resolve().then(() => begin.interventionPoint(point))),
  );
  expect(await Promise.all(codes)).toEqual(["DEFINITION_INVALID", "DEFINITION_INVALID"]);
});

test("TF-STR-09: the stream tells when an intervention is recorded and when a point inserts it", async () => {
  const flow = reviewed("told");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution);
  const { id } = await execution.intervene("x", { target: "risk" });
  await execution.continueWith("hold");
  await untilEvent(execution, "intervention.inserted");
  await execution.waitForClose();

  const items = (await collect(execution.getRuntimeStream())) as {
    type: string;
    action: string;
    intervention?: { id: string };
  }[];

  expect(items.filter(({ type }) => type === "intervention")).toMatchObject([
    { action: "append", intervention: { id, status: "pending" } },
    { action: "insert", intervention: { id, status: "inserted" } },
  ]);
  expect(await refusal(execution.markInterventionConsumed(id, { consumer: "me" }))).toMatchObject({
    code: "EXECUTION_CLOSED",
  });
});

test("TF-STR-09: so it does when a chunk consumes it, and when it expires with the close", async () => {
  const flow = defineFlow("told-to-the-end");
  flow
    .to("draft", (ctx) => ctx.pauseFor({ interruptId: "hold" }))
    .to("use", async (ctx) => {
      for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id);
    });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator
    .flow(flow)
    .startExecution(null, { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(execution);
  const [used, late] = [await execution.intervene("x"), await execution.intervene("y", { target: "nowhere" })];
  await execution.continueWith("hold");

  const items = await collect(execution.streamItems({ timeout: null }));

  const told = items.filter(({ kind }) => kind === "intervention").map(({ item }) => item as JsonObject);
  expect(told).toMatchObject([
    { action: "append", executionId: execution.id, intervention: { id: used.id } },
    { action: "append", executionId: execution.id, intervention: { id: late.id } },
    { action: "insert", executionId: execution.id, intervention: { id: used.id, status: "inserted" } },
    { action: "consume", executionId: execution.id, intervention: { id: used.id, consumers: { use: {} } } },
    { action: "expire", executionId: execution.id, intervention: { id: late.id, status: "expired" } },
  ]);
});
