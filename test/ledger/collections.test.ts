/** Collections, joins, groups and the end: what is planned when, whichever order the chunks finish in. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { defineFlow } from "../../src/flow/builder.ts";
import type { Json } from "../../src/base/json.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { Ledger, nothing } from "../support/ledger.ts";

const echo = (ctx: { input: Json }) => ctx.input;
const anyOrder = fc.infiniteStream(fc.nat());

function keep(seen: Json[], value: Json): null {
  seen.push(value);
  return null;
}

test("forEach gives its results in the order of the items, whichever ends first", () => {
  const flow = defineFlow("f");
  flow
    .to("list", () => [1])
    .forEach()
    .to("x", nothing)
    .to("y", nothing)
    .endForEach()
    .to("after", nothing);
  fc.assert(
    fc.property(fc.array(fc.nat(), { maxLength: 12 }), anyOrder, (items, order) => {
      const seen: Json[] = [];

      const ledger = new Ledger(flow)
        .start()
        .run(
          { list: () => items, x: (n) => [n], y: (n) => [n, "y"], after: (all) => keep(seen, all) },
          (open) => open[(order.next().value ?? 0) % open.length],
        );

      expect(seen).toEqual([items.map((n) => [[n], "y"])]);
      expect(ledger.state.frames.size).toBe(0);
    }),
    fuzzRuns(),
  );
});

test("forEach over nothing goes on with nothing, in the same decision", () => {
  const flow = defineFlow("f");
  flow
    .to("list", () => [1])
    .forEach()
    .to("x", nothing)
    .endForEach()
    .to("after", nothing);
  const ledger = new Ledger(flow).start();

  ledger.complete(ledger.one("list"), []);

  expect(ledger.names()).toEqual(["after"]);
  expect(ledger.one("after").input).toEqual([]);
  expect(ledger.state.frames.size).toBe(0);
});

test("forEach over something that is no list has one item", () => {
  const flow = defineFlow("f");
  flow
    .to("list", () => [1])
    .forEach()
    .to("x", nothing)
    .endForEach()
    .to("after", nothing);
  const ledger = new Ledger(flow).start();

  ledger.complete(ledger.one("list"), { a: 1 });

  expect(ledger.one("x").input).toEqual({ a: 1 });
});

test("nested collections come out nested, whichever ends first", () => {
  const flow = defineFlow("f");
  flow
    .to("rows", () => [[1]])
    .forEach()
    .forEach()
    .to("cell", nothing)
    .endForEach()
    .to("row", nothing)
    .endForEach()
    .to("table", nothing);
  fc.assert(
    fc.property(fc.array(fc.array(fc.nat(), { maxLength: 4 }), { maxLength: 5 }), anyOrder, (rows, order) => {
      const seen: Json[] = [];

      new Ledger(flow).start().run(
        {
          rows: () => rows,
          cell: (n) => `c${String(n)}`,
          row: (cells) => ({ cells }),
          table: (all) => keep(seen, all),
        },
        (open) => open[(order.next().value ?? 0) % open.length],
      );

      expect(seen).toEqual([rows.map((row) => ({ cells: row.map((n) => `c${n}`) }))]);
    }),
    fuzzRuns(),
  );
});

test("a batch gives an object in the order of its branches, whichever ends first", () => {
  const flow = defineFlow("f");
  flow.batch({ b: nothing, a: nothing, c: nothing }).to("after", nothing);
  fc.assert(
    fc.property(anyOrder, (order) => {
      let seen = "";

      new Ledger(flow)
        .start(1)
        .run(
          { a: () => "A", b: () => "B", c: () => "C", after: (all) => ((seen = JSON.stringify(all)), null) },
          (open) => open[(order.next().value ?? 0) % open.length],
        );

      expect(seen).toBe('{"b":"B","a":"A","c":"C"}');
    }),
    fuzzRuns(),
  );
});

test("a batch inside forEach inside a batch comes out whole", () => {
  const flow = defineFlow("f");
  flow
    .to("list", () => [1])
    .forEach()
    .batch({ p: nothing, q: nothing })
    .endForEach()
    .to("after", nothing);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5 }), anyOrder, (size, order) => {
      const seen: Json[] = [];

      new Ledger(flow)
        .start()
        .run(
          { list: () => Array.from({ length: size }, (_, n) => n), after: (all) => keep(seen, all) },
          (open) => open[(order.next().value ?? 0) % open.length],
        );

      expect(seen).toEqual([Array.from({ length: size }, (_, n) => ({ p: n, q: n }))]);
    }),
    fuzzRuns(),
  );
});

test("match with mode all gives the results of the cases that hit, in the order of the cases", () => {
  const flow = defineFlow("f");
  flow
    .to("a", nothing)
    .match({ mode: "all" })
    .case(1)
    .to("x", nothing)
    .case(2)
    .to("y", nothing)
    .case(3)
    .to("z", nothing)
    .endMatch()
    .to("after", nothing);
  const ledger = new Ledger(flow).start();
  const match = [...flow.graph.nodes.values()].find(({ kind }) => kind === "match");

  ledger.complete(ledger.one("a"), 0, new Map([[match?.id ?? "", [0, 2]]]));
  ledger.complete(ledger.one("z"), "Z").complete(ledger.one("x"), "X");

  expect(ledger.names()).toEqual(["after"]);
  expect(ledger.one("after").input).toEqual(["X", "Z"]);
});

test("a match without a case that matches lets the value through", () => {
  const flow = defineFlow("f");
  flow.to("a", nothing).match().case(1).to("x", nothing).endMatch().to("after", nothing);
  const ledger = new Ledger(flow).start();
  const match = [...flow.graph.nodes.values()].find(({ kind }) => kind === "match");

  ledger.complete(ledger.one("a"), "through", new Map([[match?.id ?? "", []]]));

  expect(ledger.one("after").input).toBe("through");
});

test("a join pairs first in, first out, and takes no more than a thousand that have no partner", () => {
  const flow = defineFlow("f");
  flow.when(["A", "B"]).to("both", nothing);
  const ledger = new Ledger(flow, { autoClose: false }).start();

  ledger.emit("A", 1).emit("A", 2);
  expect(ledger.names()).toEqual([]);
  ledger.emit("B", 3);
  expect(ledger.open("both").map(({ input }) => input)).toEqual([{ A: 1, B: 3 }]);

  ledger.emit("B", 4).emit("B", 5).emit("A", 6);
  expect(ledger.open("both").map(({ input }) => input)).toEqual([
    { A: 1, B: 3 },
    { A: 2, B: 4 },
    { A: 6, B: 5 },
  ]);
  expect(ledger.state.joins.size).toBe(0);

  for (let n = 0; n < 1000; n++) ledger.emit("A", n);
  expect(() => ledger.emit("A", 1000)).toThrow(/1000 of them wait for their partners in when\(\["A", "B"\]\)/);
});

test("an or hears each event, with its name", () => {
  const flow = defineFlow("f");
  flow.when(["A", "B"], { mode: "or" }).to("either", nothing);
  const ledger = new Ledger(flow, { autoClose: false }).start();

  ledger.emit("B", 1).emit("A", 2);

  expect(ledger.open("either").map(({ input }) => input)).toEqual([
    { event: "B", value: 1 },
    { event: "A", value: 2 },
  ]);
});

test("joins inside forEach pair within their item", () => {
  const flow = defineFlow("f");
  flow
    .to("list", () => [1])
    .forEach()
    .to("x", echo)
    .endForEach();
  flow.when(["A", "B"]).to("both", nothing);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), anyOrder, (size, order) => {
      const ledger = new Ledger(flow).start();
      ledger.complete(
        ledger.one("list"),
        Array.from({ length: size }, (_, n) => n),
      );
      const halves = ledger.open("x").flatMap((dispatch) => [
        { dispatch, event: "A" },
        { dispatch, event: "B" },
      ]);

      while (halves.length > 0) {
        const [half] = halves.splice((order.next().value ?? 0) % halves.length, 1);
        if (half)
          ledger.effect(half.dispatch, {
            effect: "emit",
            ordinal: half.event === "A" ? 0 : 1,
            event: half.event,
            payload: half.dispatch.input,
            wait: false,
          });
      }

      const pairs = ledger.open("both").map(({ input }) => input as { A: number; B: number });
      expect(pairs.toSorted((a, b) => a.A - b.A)).toEqual(Array.from({ length: size }, (_, n) => ({ A: n, B: n })));
      expect(ledger.state.joins.size).toBe(0);
    }),
    fuzzRuns(),
  );
});

test("a waiting emit ends exactly when everything that follows from it has run", () => {
  const flow = defineFlow("f");
  flow.to("ask", nothing);
  flow.when("Go").to("list", nothing).forEach().to("x", nothing).endForEach().to("after", nothing);
  flow.when("Go").to("other", nothing);
  flow.when("Deep").to("deep", nothing);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4 }), anyOrder, (size, order) => {
      const ledger = new Ledger(flow).start();
      const ask = ledger.one("ask");
      ledger.effect(ask, { effect: "emit", ordinal: 0, event: "Go", payload: null, wait: true });
      const [group] = ledger.state.groups.keys();
      let deep = 0;

      for (;;) {
        const open = [...ledger.state.dispatches.values()].filter(({ chunk }) => chunk !== "ask");
        expect(ledger.state.groups.has(group ?? -1)).toBe(open.length > 0);
        const next = open[(order.next().value ?? 0) % Math.max(1, open.length)];
        if (!next) break;
        if (next.chunk === "x" && deep++ === 0)
          ledger.effect(next, { effect: "emit", ordinal: 0, event: "Deep", payload: 1, wait: false });
        ledger.complete(next, next.chunk === "list" ? Array.from({ length: size }, (_, n) => n) : null);
      }

      expect(ledger.names()).toEqual(["ask"]);
      expect(ledger.state.groups.size).toBe(0);
    }),
    fuzzRuns(),
  );
});

test("a waiting emit that nobody hears is over at once", () => {
  const flow = defineFlow("f");
  flow.to("ask", nothing);
  const ledger = new Ledger(flow).start();

  ledger.effect(ledger.one("ask"), { effect: "emit", ordinal: 0, event: "Nobody", payload: null, wait: true });

  expect(ledger.state.groups.size).toBe(0);
});

test("a waiting emit inside a waiting emit holds the outer one", () => {
  const flow = defineFlow("f");
  flow.to("ask", nothing);
  flow.when("Outer").to("middle", nothing);
  flow.when("Inner").to("inner", nothing);
  const ledger = new Ledger(flow).start();

  ledger.effect(ledger.one("ask"), { effect: "emit", ordinal: 0, event: "Outer", payload: null, wait: true });
  ledger.effect(ledger.one("middle"), { effect: "emit", ordinal: 0, event: "Inner", payload: null, wait: true });
  ledger.complete(ledger.one("middle"));
  expect(ledger.state.groups.size).toBe(2);
  ledger.complete(ledger.one("inner"));

  expect(ledger.state.groups.size).toBe(0);
});

test("a write of a state key wakes its chain with the value, unless it is silent", () => {
  const flow = defineFlow("f");
  flow.to("write", nothing);
  flow.when({ state: "key" }).to("heard", nothing);
  const ledger = new Ledger(flow).start();
  const write = ledger.one("write");

  ledger.effect(write, { effect: "set", ordinal: 0, key: "key", value: 1 });
  ledger.effect(write, { effect: "set", ordinal: 1, key: "key", value: 2, silent: true });
  ledger.effect(write, { effect: "append", ordinal: 2, key: "key", value: 3 });
  ledger.effect(write, { effect: "delete", ordinal: 3, key: "key" });

  expect(ledger.open("heard").map(({ input }) => input)).toEqual([1, [2, 3], null]);
});

test("a drained execution settles at its idle time, not before, and only if nothing comes in", () => {
  const flow = defineFlow("f");
  flow.to("a", nothing);
  const ledger = new Ledger(flow, { autoCloseMs: 500 }).start();
  expect(ledger.settle()).toEqual([]);
  ledger.complete(ledger.one("a"));

  ledger.now += 499;
  expect(ledger.settle()).toEqual([]);
  ledger.now += 1;

  expect(ledger.settle()).toEqual([
    { type: "execution.closed", outcome: "completed", reason: "auto_close_idle_timeout" },
  ]);
});

test("a failure ends the execution whatever still runs; the first failure is the one it ends with", () => {
  const flow = defineFlow("f");
  flow.to("a", nothing);
  flow.to("b", nothing);
  const ledger = new Ledger(flow).start();

  for (const chunk of ["b", "a"])
    ledger.do({
      type: "fail",
      dispatch: ledger.one(chunk).id,
      error: { name: "Error", message: chunk },
      retryInMs: null,
    });

  expect(ledger.settle(1)).toEqual([
    { type: "execution.closed", outcome: "failed", reason: "failed", error: { name: "Error", message: "b" } },
  ]);
});

test("an asked close waits for what was accepted, and a cancel only for what runs", () => {
  const flow = defineFlow("f");
  flow.to("a", nothing);
  const closing = new Ledger(flow, { autoClose: false }).start();
  closing.record({ type: "execution.sealed", close: true, reason: "enough" });
  const cancelled = new Ledger(flow, { autoClose: false }).start();
  cancelled.record({ type: "cancel.requested", reason: "stop" });

  expect(closing.settle(0)).toEqual([]);
  closing.complete(closing.one("a"));
  expect(closing.settle(0)).toEqual([{ type: "execution.closed", outcome: "completed", reason: "enough" }]);
  expect(cancelled.settle(1)).toEqual([]);
  expect(cancelled.settle(0)).toEqual([{ type: "execution.closed", outcome: "cancelled", reason: "stop" }]);
});

test("what still waits at the end is ended in a commit of its own before the close", () => {
  const flow = defineFlow("f");
  flow.to("a", nothing);
  const ledger = new Ledger(flow, { autoClose: false }).start();
  const request = {
    id: "i",
    type: "approval",
    payload: null,
    resumeTo: "next" as const,
    maxResumes: 1,
    resumeCount: 0,
    expiresInMs: null,
    onExpire: null,
    response: null,
  };
  ledger.do({ type: "pause", dispatch: ledger.one("a").id, interrupt: request });
  ledger.record({
    type: "intervention.recorded",
    id: "v",
    payload: 1,
    target: null,
    author: null,
    note: null,
    metadata: {},
  });
  ledger.record({ type: "cancel.requested", reason: "stop" });

  expect(ledger.settle().map(({ type }) => type)).toEqual([
    "interrupt.cancelled",
    "intervention.expired",
    "execution.sealed",
  ]);
  expect(ledger.settle().map(({ type }) => type)).toEqual(["execution.closed"]);
});
