/** Resources that live with an execution: made when first needed, once, and ended when its owner gives it back. */
import { expect, test } from "vitest";
import { z } from "zod";
import { ExecutionResources, KeptResources } from "../../src/engine/resources.ts";
import type { ResourceLayers } from "../../src/engine/resources.ts";
import { UsageError } from "../../src/base/errors.ts";
import { createOrchestrator, defineFlow, ResourceMissingError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const quiet = { autoCloseTimeout: 0 } as const;
const nothing = { execution: {}, flow: {}, worker: {}, requirements: [] };
const info = { id: "01890000-0000-7000-8000-000000000001", flow: "f", metadata: {} };

test("TF-RSC-08: two chunks that need a resource at once get one instance, also of an async factory", async () => {
  let [made, asked] = [0, 0];
  const both = newGate();
  const flow = defineFlow("at-once");
  const use = async (ctx: { requireResource<T>(name: string): T }) => {
    const resource = ctx.requireResource<Promise<{ n: number }>>("slow");
    if (++asked === 2) both.open();
    return (await resource).n;
  };
  flow.batch({ a: use, b: use }).to("keep", (ctx) => ctx.setState("seen", ctx.input));
  await using orchestrator = await serving(database, [flow], {
    resources: { slow: async () => (await both.passed, { n: ++made }) },
  });

  expect(await orchestrator.flow(flow).start()).toEqual({ seen: { a: 1, b: 1 } });
  expect(made).toBe(1);
});

test("TF-RSC-08: a factory that throws fails the attempt by name, and the next attempt calls it again", async () => {
  let calls = 0;
  const flow = defineFlow("flaky-factory");
  const retry = { maxAttempts: 2, initialInterval: 1 };
  flow
    .to("sync", (ctx) => ctx.requireResource("sync"), { retry })
    .to("async", async (ctx) => await ctx.requireResource<Promise<string>>("async"), { retry })
    .end();
  const flaky = (value: string) => () => {
    if (++calls % 2 === 1) throw new RangeError("busy");
    return value;
  };
  const asyncly = flaky("b");
  await using orchestrator = await serving(database, [flow], {
    resources: { sync: flaky("a"), async: async () => asyncly() },
  });
  const handler = orchestrator.flow(flow).run();

  expect(await handler).toBe("b");
  expect(calls).toBe(4);
  const failed = await untilEvent(handler.execution, "chunk.failed");
  expect(failed.error).toMatchObject({ name: "ResourceMissingError", code: "RESOURCE_MISSING" });
  expect(failed.error.message).toMatch(/factory or resolver of resource "sync" failed in execution .* \(busy\)/);
});

test("TF-RSC-08: what a worker made is disposed before it has stopped, and made anew by the next one", async () => {
  const log: string[] = [];
  const inside = newGate();
  const flow = defineFlow("handed-over");
  flow.to("hold", async (ctx) => {
    const { name } = ctx.requireResource<{ name: string }>("made");
    await ctx.setState("by", name);
    inside.open();
    if (name === "first") await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
  });
  const factory = (name: string) => () => {
    log.push(`made ${name}`);
    return { name, dispose: async () => void log.push(`disposed ${name}`) };
  };
  const first = await serving(database, [flow], { resources: { made: factory("first") } });
  const execution = await first.flow(flow).startExecution(null, quiet);
  await inside.passed;

  await first.close();
  const after = [...log];
  await using second = await serving(database, [flow], { resources: { made: factory("second") } });
  const snapshot = await (await second.getExecution(execution.id)).waitForClose();

  expect(after).toEqual(["made first", "disposed first"]);
  expect(snapshot).toEqual({ by: "second" });
  await second.close();
  expect(log).toEqual([...after, "made second", "disposed second"]);
});

test("TF-RSC-08: a worker stops when a dispose that takes a while has ended, and not before", async () => {
  let isDisposed = false;
  const flow = defineFlow("slow-dispose");
  flow.to("use", (ctx) => void ctx.requireResource("slow"));
  const dispose = () => new Promise<void>((resolve) => setTimeout(resolve, 2000)).then(() => void (isDisposed = true));
  const orchestrator = await serving(database, [flow], { resources: { slow: () => ({ dispose }) } });
  await orchestrator.flow(flow).start(null, quiet);

  await orchestrator.close();

  expect(isDisposed).toBe(true);
});

test(
  "a dispose that throws or hangs keeps nobody else's resources, is told, and ends the wait",
  { timeout: 15_000 },
  async () => {
    const warned: string[] = [];
    const ended: string[] = [];
    const resources = of(
      {
        worker: {
          last: () => ({ [Symbol.dispose]: () => ended.push("last") }),
          hanging: () => ({ dispose: () => new Promise(() => {}) }),
          throwing: () => ({ [Symbol.asyncDispose]: () => Promise.reject(new Error("no")) }),
          broken: () => Promise.reject(new Error("never made")),
        },
      },
      warned,
    );
    for (const name of ["last", "hanging", "throwing"]) resources.get(name);
    await refusal(resources.get("broken") as Promise<unknown>);

    await resources.dispose();

    expect(warned).toEqual([
      'resource "throwing" failed to dispose',
      'resource "hanging" was not disposed within 5000 ms',
    ]);
    expect(ended).toEqual(["last"]);
    expect(resources.dispose()).toBeNull();
    expect(() => resources.get("last")).toThrow(UsageError);
  },
);

test("TF-RSC-07: a declared resolver makes what was not given, in the worker that needs it, and is disposed", async () => {
  const asked: unknown[] = [];
  const disposed = newGate();
  const flow = defineFlow("resolved");
  flow.declareResourceRequirement("db", {
    resolver: (request) => {
      asked.push(request);
      return { url: "made", dispose: () => disposed.open() };
    },
  });
  flow
    .to("one", (ctx) => ctx.requireResource<{ url: string }>("db").url)
    .to("two", (ctx) => ctx.setState("urls", [ctx.input, ctx.requireResource<{ url: string }>("db").url]));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { ...quiet, metadata: { tenant: "a" } });

  expect(await execution.waitForClose()).toEqual({ urls: ["made", "made"] });
  expect(asked).toEqual([{ name: "db", executionId: execution.id, flow: "resolved", metadata: { tenant: "a" } }]);
  await disposed.passed;
});

test("TF-RSC-07: a resolver that fails is an error where the policy is closed, and a warning where it is open", () => {
  const resolver = () => {
    throw new Error("no such host");
  };
  const warned: string[] = [];
  const resources = of(
    {
      requirements: [
        { name: "strict", resolver, failPolicy: "closed" },
        { name: "lax", resolver, failPolicy: "open" },
        { name: "gone", resolver: () => null, failPolicy: "closed" },
      ],
    },
    warned,
  );

  expect(() => resources.get("strict")).toThrow(ResourceMissingError);
  expect(resources.get("lax")).toBeUndefined();
  expect(warned).toEqual([expect.stringContaining('resource "lax" failed')]);
  expect(resources.get("gone")).toBeUndefined();
  for (const name of ["strict", "lax", "gone"]) expect(() => resources.require(name)).toThrow(ResourceMissingError);
});

test("TF-RSC-05, TF-RSC-06: a save has the names of resources, sorted, and none of them; a load asks for what the execution ran with, unless a resolver makes it", async () => {
  const flow = defineFlow("loadable");
  flow.declareResourceRequirement("made", { resolver: () => "resolved" });
  flow.when("Go").to("use", (ctx) => ctx.setState("got", [ctx.requireResource("given"), ctx.requireResource("made")]));
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow(flow);
  const runtimeResources = { made: "live object", given: "live object" };
  const execution = await bound.startExecution(null, { autoClose: false, runtimeResources });
  const saved = await execution.save();

  expect(saved.resourceKeys).toEqual(["given", "made"]);
  expect(JSON.stringify(saved)).not.toContain("live object");
  expect(orchestrator.inspectLoad(saved)).toMatchObject({ status: "missing_resources", missingResources: ["given"] });
  expect(await refusal(orchestrator.load(saved))).toBeInstanceOf(ResourceMissingError);
  const copy = await orchestrator.load(saved, { runtimeResources: { given: 3 } });
  await copy.emit("Go", null);

  expect(await copy.close()).toEqual({ got: [3, "resolved"] });
});

test("runtime resources are forgotten when the start was answered by a known key, rolled back, or closed elsewhere", async () => {
  const kept = new KeptResources((asked) => storeOn(database.sql).reads.findOver(asked));
  const flow = defineFlow("kept");
  flow.to("only", () => null);
  await using elsewhere = visiting(database, [flow]);
  const bound = elsewhere.flow(flow);
  const ids = await bound.startMany([1, 2, 3]);
  const [open, closed, known] = ids.map((id) => ({ id }));
  if (!open || !closed || !known) throw new Error("three were started");
  await (await elsewhere.getExecution(closed.id)).cancel();
  await database.sql`update flowledger.executions set closed_at = now(), outcome = 'cancelled', owner = null, wake_at = null where id = ${closed.id}`;
  const begun = newGate();
  const decided = newGate();
  let rolledBack = "";
  const transaction = database.sql
    .begin(async (tx) => {
      const execution = await bound.startExecution(null, { tx });
      rolledBack = execution.id;
      kept.keep(execution.id as never, { a: 1 }, Promise.resolve(execution.id as never));
      kept.within(execution.id as never, (await tx<[{ id: string }]>`select pg_current_xact_id()::text as id`)[0].id);
      begun.open();
      await decided.passed;
      throw new Error("rolled back");
    })
    .catch(() => {});
  await begun.passed;
  for (const { id } of [open, closed]) kept.keep(id, { a: 1 }, Promise.resolve(id));
  const never = Promise.withResolvers<typeof open.id>();
  kept.keep("01890000-0000-7000-8000-00000000000a" as never, { a: 1 }, Promise.resolve(known.id));
  kept.keep("01890000-0000-7000-8000-00000000000b" as never, { a: 1 }, never.promise);
  await Promise.resolve();

  await kept.sweep();
  const whileOpen = kept.size;
  decided.open();
  await transaction;
  await kept.sweep();

  expect(whileOpen).toBe(3);
  expect(kept.get(rolledBack as never)).toEqual({});
  expect([kept.size, kept.get(open.id)]).toEqual([2, { a: 1 }]);
  kept.close();
});

test("TF-RSC-05: a sub-flow gets its parent's resource itself, by the name that the capture gives it", async () => {
  const db = { name: "db" };
  let got: unknown = null;
  const child = defineFlow("child-with-resource");
  child.to("use", (ctx) => {
    got = ctx.requireResource("database");
    return ctx.setState("names", [ctx.getResource("db")]);
  });
  const flow = defineFlow("parent-with-resource");
  flow
    .to("begin", () => ({ n: 1 }))
    .toSubFlow(child, { capture: { input: "value", "resources.database": "resources.db" } });
  await using orchestrator = await serving(database, [flow, child]);

  await orchestrator.flow(flow).start(null, { runtimeResources: { db } });

  expect(got).toBe(db);
});

test("what a contract says of a resource is what a chunk gets, itself, or an error that names it", async () => {
  class Pool {
    readonly size = 1;
  }
  const given = { pool: new Pool(), clock: { now: () => "noon", extra: 1 } };
  const got: unknown[] = [];
  const flow = defineFlow("typed-resources", {
    resources: { pool: z.instanceof(Pool), clock: z.object({ now: z.function() }), mail: z.string() },
  });
  flow.to("use", (ctx) => {
    got.push(ctx.requireResource("pool"), ctx.getResource("clock"), ctx.getResource("mail", "none"));
    return ctx.setState("size", ctx.requireResource("pool").size);
  });
  await using orchestrator = await serving(database, [flow]);
  const wrong = { pool: { size: 2 } } as never;

  const closed = await orchestrator.flow(flow).start(null, { runtimeResources: given });
  const failed = orchestrator.flow(flow).start(null, { runtimeResources: wrong });

  await expect(failed).rejects.toThrow(/resource "pool" of flow "typed-resources".*Pool/);
  expect(closed).toEqual({ size: 1 });
  expect(got).toEqual([given.pool, given.clock, "none"]);
  expect(got[1]).toBe(given.clock);
});

test("a start with a known key leaves the execution the resources it has", async () => {
  const flow = defineFlow("same-key");
  flow.to("use", (ctx) => ctx.setState("got", ctx.requireResource("thing")));
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const options = { ...quiet, idempotencyKey: "k" };
  const first = await orchestrator.flow(flow).startExecution(null, { ...options, runtimeResources: { thing: 1 } });
  await orchestrator.flow(flow).startExecution(null, { ...options, runtimeResources: { thing: 2 } });

  await orchestrator.startWorker();

  expect(await first.waitForClose()).toEqual({ got: 1 });
});

function of(layers: Partial<ResourceLayers>, warned: string[]): ExecutionResources {
  const log = { debug() {}, info() {}, error() {}, warn: (message: string) => void warned.push(message) };
  return new ExecutionResources({ ...nothing, ...layers }, info, log);
}
