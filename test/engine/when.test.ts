/** Events inside an execution: who hears them, how joins pair, and loops. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();

test("TF-EVT-01: emit with wait resolves when the handlers and all that follows from them have run", async () => {
  const flow = defineFlow("waiting");
  flow
    .when("A")
    .to("a", (ctx) => ctx.emit("B", ctx.input))
    .to("afterA", (ctx) => ctx.appendState("order", "afterA"));
  flow
    .when("B")
    .to("b", (ctx) => ctx.step("work", () => ctx.input))
    .to("afterB", (ctx) => ctx.setState("b", ctx.input));
  flow.to("root", async (ctx) => {
    await ctx.emit("A", 7, { wait: true });
    await ctx.appendState("order", ["root", ctx.getState("b")]);
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ b: 7, order: ["afterA", ["root", 7]] });
});

test("TF-EVT-01: emit without wait resolves when the event is accepted, while its handler still runs", async () => {
  const gate = newGate();
  const flow = defineFlow("accepted");
  flow.when("A").to("slow", () => gate.passed);
  flow.to("root", async (ctx) => {
    await ctx.emit("A", null);
    await ctx.setState("went", "on");
    await ctx.flush();
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "root");

  expect(await execution.result.getState("went")).toBe("on");
  gate.open();
  expect(await execution.waitForClose()).toEqual({ went: "on" });
});

test("TF-EVT-01: emit with wait resolves where nobody hears the event", async () => {
  const flow = defineFlow("nobody");
  flow.to("root", async (ctx) => {
    await ctx.emit("Unheard", null, { wait: true });
    await ctx.setState("went", "on");
  });
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start(null, { timeout: "5s" })).toEqual({ went: "on" });
});

test("TF-EVT-02: emitNoWait goes with the chunk's next commit, and is drained before the close", async () => {
  const flow = defineFlow("noWait");
  flow.when("A").to("a", (ctx) => ctx.emitNoWait("B", ctx.input));
  flow.when("B").to("b", (ctx) => ctx.setState("b", ctx.input));
  flow.to("root", (ctx) => ctx.emitNoWait("A", 1));
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ b: 1 });
});

test("TF-EVT-03: all branches of an event run side by side", async () => {
  const [left, right] = [newGate(), newGate()];
  const flow = defineFlow("branches");
  flow.when("A").to("left", async (ctx) => {
    left.open();
    await right.passed;
    await ctx.setState("left", ctx.input);
  });
  flow.when("A").to("right", async (ctx) => {
    right.open();
    await left.passed;
    await ctx.setState("right", ctx.event);
  });
  flow.to("root", (ctx) => ctx.emit("A", 1));
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start(null, { timeout: "5s" })).toEqual({ left: 1, right: "A" });
});

test("TF-EVT-04: an event emitted three times runs its branch three times", async () => {
  const flow = defineFlow("ticks");
  flow.when("Tick").to("tick", (ctx) => ctx.appendState("ticks", ctx.input));
  flow.to("root", async (ctx) => {
    for (const n of [1, 2, 3]) await ctx.emit("Tick", n);
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect((snapshot["ticks"] as number[]).toSorted((a, b) => a - b)).toEqual([1, 2, 3]);
});

test("TF-EVT-06: an emit from the host runs the same branches", async () => {
  const flow = defineFlow("host", { events: { Decided: z.object({ by: z.string().trim() }) } });
  flow.when("Decided").to("keep", (ctx) => ctx.setState("by", ctx.input.by));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  await execution.emit("Decided", { by: " ann " });

  expect(await execution.close()).toEqual({ by: "ann" });
});

test("TF-EVT-07: an and-join runs once with both payloads, then arms again; a repeated half waits behind the first", async () => {
  const flow = defineFlow("and");
  flow.when(["A", "B"]).to("both", (ctx) => ctx.appendState("both", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  for (const [event, payload] of [
    ["A", 1],
    ["A", 2],
    ["B", 3],
    ["B", 4],
    ["A", 5],
    ["A", 6],
  ] as const)
    await execution.emit(event, payload);

  expect(await execution.close()).toEqual({
    both: [
      { A: 1, B: 3 },
      { A: 2, B: 4 },
    ],
  });
});

test("TF-EVT-07: of events that find no partner a thousand wait, and the next is refused where its sender sees it", async () => {
  const flow = defineFlow("unpaired");
  flow.when(["A", "B"]).to("both", (ctx) => ctx.appendState("both", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  // Of those that are sent side by side any may be first.
  await execution.emit("A", 0);
  for (let page = 0; page < 10; page++)
    await Promise.all(Array.from({ length: 100 }, (_, n) => execution.emit("A", 1 + page * 100 + n)));
  await execution.emit("B", 0);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "both");
  const routed = await execution.history({ types: ["inbox.routed"] });

  expect(routed.filter((event) => "refused" in event)).toHaveLength(1);
  expect(await execution.close()).toEqual({ both: [{ A: 0, B: 0 }] });
});

test.each([true, false])(
  "TF-EVT-07: a chunk that emits more of them fails by name (flushed: %s)",
  async (isFlushed) => {
    const flow = defineFlow(`unpaired-${isFlushed ? "flushed" : "returned"}`);
    flow.when(["A", "B"]).to("both", () => null);
    flow.to("many", async (ctx) => {
      for (let n = 0; n <= 1000; n++) ctx.emitNoWait("A", n);
      if (isFlushed) await ctx.flush();
    });
    await using orchestrator = await serving(database, [flow]);

    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    await expect(execution.waitForClose()).rejects.toThrow(/chunk "many".*1000 of them wait for their partners/);
  },
);

test("TF-EVT-08: an or-join hears each event with its name, and ctx.event has no single one", async () => {
  const flow = defineFlow("or");
  flow.when(["A", "B"], { mode: "or" }).to("either", (ctx) => ctx.appendState("heard", ctx.input));
  flow.to("root", async (ctx) => {
    await ctx.emit("A", 1, { wait: true });
    await ctx.emit("B", 2, { wait: true });
  });
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({
    heard: [
      { event: "A", value: 1 },
      { event: "B", value: 2 },
    ],
  });
});

test("TF-EVT-09: joins inside forEach pair within their own item", async () => {
  const flow = defineFlow("scopes");
  flow.when(["A", "B"]).to("pair", (ctx) => ctx.appendState("pairs", [ctx.input["A"], ctx.input["B"]]));
  flow
    .to("make", () => [1, 2, 3, 4])
    .forEach()
    .to("a", async (ctx) => {
      await ctx.emit("A", ctx.input);
      return ctx.input;
    })
    .to("b", (ctx) => ctx.emit("B", ctx.input * 10))
    .endForEach();
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect((snapshot["pairs"] as [number, number][]).toSorted(([a], [b]) => a - b)).toEqual([
    [1, 10],
    [2, 20],
    [3, 30],
    [4, 40],
  ]);
});

test("TF-EVT-09: halves from outside and from inside an item do not pair", async () => {
  const flow = defineFlow("outside");
  flow.when(["A", "B"]).to("pair", (ctx) => ctx.appendState("pairs", [ctx.input["A"], ctx.input["B"]]));
  flow
    .when("Go")
    .forEach()
    .to("each", (ctx) => ctx.emit("A", "inside"))
    .endForEach();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await execution.emit("Go", [1]);
  await untilEvent(execution, "event.emitted", ({ event }) => event === "A");

  await execution.emit("B", "outside");
  await execution.emit("A", "outside");

  expect(await execution.close()).toEqual({ pairs: [["outside", "outside"]] });
});

test("TF-EVT-10: a half-filled join is dropped at the close and reaches no other execution", async () => {
  const flow = defineFlow("halves");
  flow.when(["A", "B"]).to("both", (ctx) => ctx.setState("both", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const [one, other] = [
    await orchestrator.flow(flow).startExecution(null, { autoClose: false }),
    await orchestrator.flow(flow).startExecution(null, { autoClose: false }),
  ];

  await one.emit("A", 1);
  await other.emit("B", 2);

  expect([await one.close(), await other.close()]).toEqual([{}, {}]);
});

test("TF-PAT-16: a loop of events drains once it stops emitting, and the execution closes", async () => {
  const flow = defineFlow("loop");
  flow.when("Loop").to("loop", async (ctx) => {
    const n = Number(ctx.input);
    await ctx.setState("n", n);
    if (n < 50) await ctx.emit("Loop", n + 1);
  });
  flow.to("begin", (ctx) => ctx.emit("Loop", 1));
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ n: 50 });
});

test("TF-EVT-12: nested emits with wait at concurrency 1 do not deadlock", async () => {
  const flow = defineFlow("nested");
  flow
    .when("A")
    .to("a", (ctx) => ctx.emit("B", null, { wait: true }))
    .to("endA", (ctx) => ctx.appendState("o", "A"));
  flow
    .when("B")
    .to("b", (ctx) => ctx.emit("C", null, { wait: true }))
    .to("endB", (ctx) => ctx.appendState("o", "B"));
  flow.when("C").to("c", (ctx) => ctx.appendState("o", "C"));
  flow.to("root", async (ctx) => {
    await ctx.emit("A", null, { wait: true });
    await ctx.appendState("o", "root");
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start(null, { concurrency: 1, timeout: "5s" });

  expect(snapshot).toEqual({ o: ["C", "B", "A", "root"] });
});

test("TF-EVT-02: an event from a failed attempt before its commit point is never heard", async () => {
  const flow = defineFlow("uncommitted");
  flow.when("A").to("a", (ctx) => ctx.appendState("heard", ctx.input));
  flow.to(
    "root",
    (ctx) => {
      ctx.emitNoWait("A", ctx.attempt);
      if (ctx.attempt === 1) throw new Error("again");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ heard: [2] });
});

test("an owner hears an event whose notification is lost, although it is busy with something else", async () => {
  const heard = newGate();
  const flow = defineFlow("unheard");
  flow.to("hold", () => heard.passed);
  flow.when("Said").to("hear", () => heard.open());
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "inbox.routed");

  await database.sql`select flowledger.emit(${execution.id}::uuid, 'Said', 'null', notify => false)`;

  expect(await execution.waitForClose()).toEqual({});
});
