/** `execution.explain()`: the states that an execution can be in, each with its sentence. */
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { defineFlow, ExecutionNotFoundError } from "../../src/index.ts";
import type { BoundFlow, Explanation, FlowDefinition } from "../../src/index.ts";
import type { TestOrchestrator } from "../../src/test.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

type StartOptions = NonNullable<Parameters<BoundFlow["startExecution"]>[1]>;

const never = Promise.withResolvers<void>();

const quick = defineFlow("quick").to("add", () => 1);
const asking = defineFlow("asking").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", type: "approval" }));
const askingShortly = defineFlow("asking.shortly").to("ask", (ctx) =>
  ctx.pauseFor({ interruptId: "boss", expiresIn: "2d" }),
);
const askingAll = defineFlow("asking.all")
  .forEach()
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: String(ctx.input) }))
  .endForEach();
const dozing = defineFlow("dozing").to("doze", (ctx) => ctx.sleep("7d"));
const both = defineFlow("both");
both.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
both.to("doze", (ctx) => ctx.sleep("7d"));
const failing = defineFlow("failing").to(
  "capture",
  () => {
    throw new RangeError("card 4711\nwas declined");
  },
  { retry: { maxAttempts: 3, initialInterval: "1h", multiplier: 1, jitter: false } },
);
const stepping = defineFlow("stepping").to("pay", (ctx) =>
  ctx.step(
    "bank",
    () => {
      throw new TypeError("no line");
    },
    { retry: { maxAttempts: 3, initialInterval: "1h", jitter: false } },
  ),
);
const parent = defineFlow("parent").toSubFlow(dozing);
const askingParent = defineFlow("asking.parent").toSubFlow(asking);
const calling = defineFlow("calling").to("call", (ctx) => ctx.call(dozing, null));
const spreading = defineFlow("spreading")
  .forEach({ distribute: true })
  .to("doze", (ctx) => ctx.sleep("7d"))
  .endForEach();
const spreadingBeside = defineFlow("spreading.beside");
spreadingBeside.to("call", (ctx) => ctx.call(dozing, null));
spreadingBeside
  .forEach({ distribute: true })
  .to("doze", (ctx) => ctx.sleep("7d"))
  .endForEach();
const emitting = defineFlow("emitting").to("tell", (ctx) => ctx.emit("Told", null, { wait: true }));
emitting.when("Told").to("hear", (ctx) => ctx.pauseFor({ interruptId: "ear" }));
const timed = defineFlow("timed", {}, { maxDuration: "1h" }).to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
const counting = defineFlow("counting");
counting.to("doze", (ctx) => ctx.sleep("30d"));
counting.when("Counted").to("count", (ctx) => ctx.setState("last", ctx.input));

/** What comes to no end by itself. */
const hanging = defineFlow("hanging").to("hang", () => never.promise);
const hangingTwice = defineFlow("hanging.twice");
hangingTwice.to("hang", () => never.promise);
hangingTwice.to("stall", () => never.promise);
const hangingAsking = defineFlow("hanging.asking");
hangingAsking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
hangingAsking.to("hang", () => never.promise);
const narrow = defineFlow("narrow", {}, { limits: { concurrency: 1 } }).to("hang", () => never.promise);
const keyed = defineFlow("keyed", {}, { limits: { key: String, perKey: { concurrency: 1 } } }).to(
  "hang",
  () => never.promise,
);
const rated = defineFlow("rated", {}, { limits: { rate: { limit: 1, per: "1m" } } }).to("add", () => 1);
const keyRated = defineFlow(
  "rated.by.key",
  {},
  {
    limits: { key: String, perKey: { rate: { limit: 1, per: "1m" } } },
  },
).to("add", () => 1);
const busy = defineFlow("busy").to("hang", () => never.promise);

const parking = defineFlow("parking", {}, { onFailure: "park" });
parking.to(
  "pay",
  () => {
    throw new RangeError("no line");
  },
  { retry: { maxAttempts: 1 } },
);
const parkingAsking = defineFlow("parking.asking", {}, { onFailure: "park" });
parkingAsking.to(
  "pay",
  () => {
    throw new RangeError("no line");
  },
  { retry: { maxAttempts: 1 } },
);
parkingAsking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", type: "approval" }));
const parkingParent = defineFlow("parking.parent").toSubFlow(parking);

interface World {
  readonly t: TestOrchestrator;
  /** The same database, by hand. */
  readonly sql: postgres.Sql;
  /** Ids that a sentence names. */
  readonly names: Map<string, string>;
}

interface Situation {
  readonly what: string;
  readonly in: "quiet" | "empty" | "busy";
  /** Brings an execution about, and gives its id. */
  readonly make: (world: World) => Promise<string>;
  readonly says: string;
  readonly kind: Explanation["kind"];
}

const at = (time: string) => `2026-01-${time}.000Z`;
const nine = at("01T09:00:00");

async function begun({ t }: World, flow: FlowDefinition, input: unknown = null, options: StartOptions = {}) {
  const { id } = await t.orchestrator.flow(flow).startExecution(input, options);
  // What hangs never settles.
  if (!hangingFlows.includes(flow)) await t.settle();
  return id;
}

/** In the busy world it also has to have routed what came in. */
async function untilKind(where: World, id: string, kind: Explanation["kind"]): Promise<Explanation> {
  let found = await explained(where, id);
  const isThere = async () => {
    found = await explained(where, id);
    return found.kind === kind && (found.kind !== "running" || found.chunks.length > 0);
  };
  await expect.poll(isThere, { timeout: 5000 }).toBe(true);
  return found;
}

async function childOf({ sql, names }: World, id: string): Promise<string> {
  const [child] = await sql<{ id: string }[]>`
    select id from flowledger.executions where parent_id = ${id} and not flowledger.is_item(id)`;
  names.set(child?.id ?? "", "CHILD");
  return id;
}

const situations: Situation[] = [
  {
    what: "made and not started",
    in: "quiet",
    kind: "created",
    make: async ({ t }) => (await t.orchestrator.flow(quick).createExecution()).id,
    says: `It was created at ${nine} and not started: it waits for its input.`,
  },
  {
    what: "made, sent an event, and not started",
    in: "quiet",
    kind: "created",
    make: async ({ t }) => {
      const execution = await t.orchestrator.flow(quick).createExecution();
      await execution.emit("Early", null);
      await t.settle();
      return execution.id;
    },
    says: `It was created at ${nine} and not started: it waits for its input, and closes without one at ${at("01T09:00:10")}.`,
  },
  {
    what: "delayed",
    in: "quiet",
    kind: "delayed",
    make: (world) => begun(world, quick, null, { delay: "1h" }),
    says: `It does not start before ${at("01T10:00:00")}.`,
  },
  {
    what: "delayed, to be discarded",
    in: "quiet",
    kind: "delayed",
    make: (world) => begun(world, quick, null, { delay: "1h", discardAfter: "2h" }),
    says: `It does not start before ${at("01T10:00:00")}, and is discarded unless a worker has it by ${at("01T11:00:00")}.`,
  },
  {
    what: "delayed, and nobody serves it",
    in: "empty",
    kind: "delayed",
    make: (world) => begun(world, quick, null, { delay: "1h" }),
    says: `It does not start before ${at("01T10:00:00")}; no worker that is alive serves flow "quick".`,
  },
  {
    what: "started, and nobody serves it",
    in: "empty",
    kind: "unserved",
    make: (world) => begun(world, quick),
    says: `It is due since ${nine}, and no worker that is alive serves flow "quick": start one.`,
  },
  {
    what: "started, to be discarded, and nobody serves it",
    in: "empty",
    kind: "unserved",
    make: (world) => begun(world, quick, null, { discardAfter: "2h" }),
    says: `It is due since ${nine}, and no worker that is alive serves flow "quick": start one; it is discarded at ${at("01T11:00:00")}.`,
  },
  {
    what: "a pause",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, asking),
    says: `It waits for an answer to interrupt "boss" (approval, chunk "ask") since ${nine}.`,
  },
  {
    what: "a pause that expires",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, askingShortly),
    says: `It waits for an answer to interrupt "boss" (pause, chunk "ask") since ${nine}, until ${at("03T09:00:00")}.`,
  },
  {
    what: "two pauses",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, askingAll, ["a", "b"]),
    says: `It waits for an answer to interrupt "a" (pause, chunk "ask") since ${nine}, and an answer to interrupt "b" (pause, chunk "ask") since ${nine}.`,
  },
  {
    what: "more pauses than a sentence bears",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, askingAll, ["a", "b", "c", "d", "e"]),
    says: `It waits for ${["a", "b", "c"].map((id) => `an answer to interrupt "${id}" (pause, chunk "ask") since ${nine}`).join("; ")}; and 2 more.`,
  },
  {
    what: "a pause in a sub-flow",
    in: "quiet",
    kind: "waiting",
    make: async (world) => childOf(world, await begun(world, askingParent)),
    says: `It waits for an answer to interrupt "CHILD:boss" (approval, chunk "ask" of flow "asking") since ${nine}, and execution CHILD of flow "asking" (waiting), which it called.`,
  },
  {
    what: "a sleep",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, dozing),
    says: `It waits for chunk "doze", which sleeps until ${at("08T09:00:00")}.`,
  },
  {
    what: "a sleep beside a pause",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, both),
    says: `It waits for an answer to interrupt "boss" (pause, chunk "ask") since ${nine}, and chunk "doze", which sleeps until ${at("08T09:00:00")}.`,
  },
  {
    what: "the second attempt",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, failing),
    says: `It waits for chunk "capture", which tries again at ${at("01T10:00:00")} (attempt 2, after RangeError: card 4711 was declined).`,
  },
  {
    what: "another attempt of a step",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, stepping),
    says: `It waits for step "bank" of chunk "pay", which tries again at ${at("01T10:00:00")} (attempt 2, after TypeError: no line).`,
  },
  {
    what: "a sub-flow",
    in: "quiet",
    kind: "waiting",
    make: async (world) => childOf(world, await begun(world, parent)),
    says: 'It waits for execution CHILD of flow "dozing" (running), which it called.',
  },
  {
    what: "a call",
    in: "quiet",
    kind: "waiting",
    make: async (world) => childOf(world, await begun(world, calling)),
    says: 'It waits for execution CHILD of flow "dozing" (running), which it called.',
  },
  {
    what: "items on all workers",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, spreading, [1, 2, 3]),
    says: "It waits for 3 items that run as executions of their own.",
  },
  {
    what: "one item on all workers",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, spreading, [1]),
    says: "It waits for 1 item that runs as an execution of its own.",
  },
  {
    what: "items on all workers, and a call beside them",
    in: "quiet",
    kind: "waiting",
    make: async (world) => childOf(world, await begun(world, spreadingBeside, [1, 2, 3])),
    says: 'It waits for execution CHILD of flow "dozing" (running), which it called, and 3 items that run as executions of their own.',
  },
  {
    what: "the handlers of an event",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, emitting),
    says: `It waits for an answer to interrupt "ear" (pause, chunk "hear") since ${nine}, and what hears event "Told" of chunk "tell".`,
  },
  {
    what: "a sleep that began long before the last events",
    in: "quiet",
    kind: "waiting",
    make: async (world) => {
      const id = await begun(world, counting);
      const execution = await world.t.orchestrator.getExecution(id);
      for (let page = 0; page < 10; page++)
        await Promise.all(Array.from({ length: 50 }, (_, index) => execution.emit("Counted", "x".repeat(index))));
      await world.t.settle();
      return id;
    },
    says: `It waits for chunk "doze", which sleeps until ${at("31T09:00:00")}.`,
  },
  {
    what: "idle",
    in: "quiet",
    kind: "idle",
    make: (world) => begun(world, quick),
    says: `Nothing is left to do: it closes by itself at ${at("01T09:00:10")}.`,
  },
  {
    what: "idle, and open for events",
    in: "quiet",
    kind: "idle",
    make: (world) => begun(world, quick, null, { autoClose: false }),
    says: "Nothing is left to do: it takes events until somebody closes it.",
  },
  {
    what: "sealed, with nothing left to do",
    in: "quiet",
    kind: "sealed",
    make: async (world) => {
      const id = await begun(world, quick, null, { autoClose: false });
      await (await world.t.orchestrator.getExecution(id)).seal();
      await world.t.settle();
      return id;
    },
    says: `Nothing is left to do: it stays sealed until somebody closes it; it is sealed since ${nine}.`,
  },
  {
    what: "sealed, with a sleep before it",
    in: "quiet",
    kind: "waiting",
    make: async (world) => {
      const id = await begun(world, dozing);
      await (await world.t.orchestrator.getExecution(id)).seal();
      await world.t.settle();
      return id;
    },
    says: `It waits for chunk "doze", which sleeps until ${at("08T09:00:00")}; it is sealed since ${nine}.`,
  },
  {
    what: "a copy that waits as its original does",
    in: "quiet",
    kind: "waiting",
    make: async (world) => {
      const original = await world.t.orchestrator.getExecution(await begun(world, asking));
      const { id } = await original.fork({ at: (await original.history()).length });
      await world.t.settle();
      return id;
    },
    says: `It waits for an answer to interrupt "boss" (approval, chunk "ask") since ${nine}.`,
  },
  {
    what: "owned by a worker that is gone",
    // Where somebody sweeps, it may be taken over before it is explained.
    in: "empty",
    kind: "lost",
    make: async (world) => {
      const id = await begun(world, quick);
      await world.sql`update flowledger.executions set owner = '01900000-0000-7000-8000-000000000001' where id = ${id}`;
      return id;
    },
    says: 'It is owned by worker 01900000-0000-7000-8000-000000000001, which is gone: another one takes it over; no worker that is alive serves flow "quick".',
  },
  {
    what: "owned by a worker that is silent",
    in: "empty",
    kind: "lost",
    make: async (world) => {
      const id = await begun(world, quick);
      const worker = "01900000-0000-7000-8000-000000000002";
      await world.sql`
        insert into flowledger.workers (id, host, pid, flows, role, backend_pid, session_key, started_at, heartbeat_at)
        values (${worker}, 'far', 7, '{}', 'r', 1, 1, ${nine}, ${nine})`;
      await world.sql`update flowledger.executions set owner = ${worker} where id = ${id}`;
      return id;
    },
    says: `It is owned by worker far:7, which has been silent since ${nine}: another one takes it over; no worker that is alive serves flow "quick".`,
  },
  {
    what: "completed by itself",
    in: "quiet",
    kind: "closed",
    make: (world) => begun(world, quick, null, { autoCloseTimeout: 0 }),
    says: `It completed at ${nine}: all work was done.`,
  },
  {
    what: "closed by hand",
    in: "quiet",
    kind: "closed",
    make: async (world) => {
      const id = await begun(world, quick, null, { autoClose: false });
      await (await world.t.orchestrator.getExecution(id)).close();
      return id;
    },
    says: `It completed at ${nine}: it was closed by hand.`,
  },
  {
    what: "closed for a reason",
    in: "quiet",
    kind: "closed",
    make: async (world) => {
      const id = await begun(world, quick, null, { autoClose: false });
      await (await world.t.orchestrator.getExecution(id)).close({ reason: "enough of it" });
      return id;
    },
    says: `It completed at ${nine}: enough of it.`,
  },
  {
    what: "cancelled",
    in: "quiet",
    kind: "closed",
    make: async (world) => {
      const id = await begun(world, asking);
      await (await world.t.orchestrator.getExecution(id)).cancel("not needed");
      await world.t.settle();
      return id;
    },
    says: `It was cancelled at ${nine}: not needed.`,
  },
  {
    what: "parked",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, parking),
    says: `It waits for an operator: chunk "pay" is parked since ${nine}, after RangeError: no line.`,
  },
  {
    what: "parked beside a question",
    in: "quiet",
    kind: "waiting",
    make: (world) => begun(world, parkingAsking),
    says: `It waits for an operator: chunk "pay" is parked since ${nine}, after RangeError: no line, and an answer to interrupt "boss" (approval, chunk "ask") since ${nine}.`,
  },
  {
    what: "above a sub-flow that is parked",
    in: "quiet",
    kind: "waiting",
    make: async (world) => childOf(world, await begun(world, parkingParent)),
    says: `It waits for execution CHILD of flow "parking" (parked), which it called.`,
  },
  {
    what: "paused by an operator",
    in: "quiet",
    kind: "paused",
    make: async (world) => {
      const id = await begun(world, dozing);
      const execution = await world.t.orchestrator.getExecution(id);
      await execution.pause({ actor: "ann", reason: "INC-12", until: new Date("2026-01-03T09:00Z") });
      await world.t.settle();
      return id;
    },
    says: `It is paused since ${nine} by "ann" (INC-12), until ${at("03T09:00:00")}.`,
  },
  {
    what: "paused and parked, without an end",
    in: "quiet",
    kind: "paused",
    make: async (world) => {
      const id = await begun(world, parking);
      const execution = await world.t.orchestrator.getExecution(id);
      await execution.pause({ actor: "ann", reason: "INC-12" });
      await world.t.settle();
      return id;
    },
    says: `It is paused since ${nine} by "ann" (INC-12).`,
  },
  {
    what: "running",
    in: "busy",
    kind: "running",
    make: (world) => begun(world, hanging),
    says: `It runs chunk "hang": worker HOST has it since ${nine}.`,
  },
  {
    what: "running two chunks",
    in: "busy",
    kind: "running",
    make: (world) => begun(world, hangingTwice),
    says: `It runs chunks "hang" and "stall": worker HOST has it since ${nine}.`,
  },
  {
    what: "running beside a pause",
    in: "busy",
    kind: "running",
    make: (world) => begun(world, hangingAsking),
    says: `It runs chunk "hang": worker HOST has it since ${nine}.`,
  },
  {
    what: "the first in the queue of a flow",
    in: "busy",
    kind: "queued",
    make: async (world) => {
      await untilKind(world, await begun(world, narrow), "running");
      return begun(world, narrow);
    },
    says: `It is number 1 in the queue of flow "narrow" since ${nine}: the one slot is taken.`,
  },
  {
    what: "behind others in the queue of a flow",
    in: "busy",
    kind: "queued",
    make: (world) => begun(world, narrow),
    says: `It is number 2 in the queue of flow "narrow" since ${nine}: the one slot is taken.`,
  },
  {
    what: "in the queue of a key",
    in: "busy",
    kind: "queued",
    make: async (world) => {
      await untilKind(world, await begun(world, keyed, "acme"), "running");
      return begun(world, keyed, "acme");
    },
    says: `It is number 1 in the queue of flow "keyed" since ${nine}: the one slot of key "acme" is taken.`,
  },
  {
    what: "in the queue of a rate",
    in: "quiet",
    kind: "queued",
    make: async (world) => {
      await begun(world, rated);
      return begun(world, rated);
    },
    says: `It is number 1 in the queue of flow "rated" since ${nine}: 1 started within 60000 ms, and the next may at ${at("01T09:01:00")}.`,
  },
  {
    what: "in the queue of a rate by key",
    in: "quiet",
    kind: "queued",
    make: async (world) => {
      await begun(world, keyRated, "acme");
      return begun(world, keyRated, "acme");
    },
    says: `It is number 1 in the queue of flow "rated.by.key" since ${nine}: 1 of key "acme" started within 60000 ms, and the next may at ${at("01T09:01:00")}.`,
  },
  {
    what: "due, while its worker has no room",
    in: "busy",
    kind: "due",
    make: async (world) => {
      // That takes the last of its room.
      await untilKind(world, await begun(world, busy), "running");
      return begun(world, busy);
    },
    says: `It is due since ${nine}: the worker of flow "busy" takes it next.`,
  },
  {
    what: "due, after it lost workers",
    in: "busy",
    kind: "due",
    make: async (world) => {
      const id = await begun(world, busy);
      await world.sql`update flowledger.executions set takeovers = 2 where id = ${id}`;
      return id;
    },
    says: `It is due since ${nine}: the worker of flow "busy" takes it next, after 2 that it lost.`,
  },
  {
    what: "running, and asked to end",
    in: "busy",
    kind: "running",
    make: async (world) => {
      const [{ id }] = await world.sql<[{ id: string }]>`select id from flowledger.executions where flow = 'hanging'`;
      await world.sql`select flowledger.cancel(${id}, 'too slow', 'ann')`;
      return id;
    },
    says: `It runs chunk "hang": worker HOST has it since ${nine}; its end was asked for at ${nine} by ann: too slow.`,
  },
];

const flows = [
  quick,
  asking,
  askingShortly,
  askingAll,
  dozing,
  both,
  failing,
  stepping,
  parent,
  parking,
  parkingAsking,
  parkingParent,
  askingParent,
  calling,
  spreading,
  spreadingBeside,
  emitting,
  counting,
  rated,
  keyRated,
];
const hangingFlows: FlowDefinition[] = [hanging, hangingTwice, hangingAsking, narrow, keyed, busy];

const worlds = new Map<Situation["in"], World>();
const close: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const open = async (name: Situation["in"], t: TestOrchestrator) => {
    const sql = postgres(t.database, { max: 1, onnotice: () => {} });
    worlds.set(name, { t, sql, names: new Map() });
    close.push(async () => {
      await sql.end();
      await t.close();
    });
  };
  const now = "2026-01-01T09:00Z";
  await open("quiet", await kit({ flows, now }));
  await open("empty", await kit({ flows: [...flows], now, workers: 0 }));
  // Its room is taken one by one.
  await open("busy", await kit({ flows: hangingFlows, now, patience: "20ms", worker: { concurrency: 6 } }));
});

afterAll(async () => {
  never.resolve();
  for (const one of close) await one();
});

function world(name: Situation["in"]): World {
  const found = worlds.get(name);
  if (!found) throw new Error(`no world ${name}`);
  return found;
}

async function explained(where: World, id: string): Promise<Explanation> {
  return (await where.t.orchestrator.getExecution(id)).explain();
}

test.each(situations)("$what", async ({ in: place, make, kind, says }) => {
  const where = world(place);

  const id = await make(where);
  const explanation = await untilKind(where, id, kind);

  const [host] = await where.sql<
    { name: string }[]
  >`select host || ':' || pid as name from flowledger.workers where host <> 'far'`;
  let sentence = explanation.sentence.replaceAll(host?.name ?? "HOST", "HOST");
  for (const [named, name] of where.names) sentence = sentence.replaceAll(named, name);
  expect([sentence, explanation.kind]).toEqual([says, kind]);
  expect(explanation).toMatchObject({ executionId: id });
});

test("what the clock brings: attempts, the last of them, a timeout, an end that nobody waited for", async () => {
  const flows = [failing, timed, asking];
  await using t = await kit({ flows, now: "2026-01-01T09:00Z" });
  const start = async (flow: FlowDefinition, options: StartOptions = {}) =>
    t.orchestrator.flow(flow).startExecution(null, options);
  const [failed, timedOut, asked] = [await start(failing), await start(timed), await start(asking)];
  const discarded = await t.orchestrator.flow(asking).startExecution(null, { delay: "2h", discardAfter: "1h" });
  const said = async (execution: { explain(): Promise<Explanation> }) => (await execution.explain()).sentence;

  await t.clock.advance("1h");

  expect(await said(failed)).toBe(
    `It waits for chunk "capture", which tries again at ${at("01T11:00:00")} (attempt 3, after RangeError: card 4711 was declined).`,
  );
  expect(await said(timedOut)).toMatch(/^It failed at 2026-01-01T10:00:00.000Z with ExecutionTimeout\w*: .+\.$/);
  expect(await said(discarded)).toBe(`It was cancelled at ${at("01T10:00:00")}: discarded.`);
  await t.clock.advance("1h");
  expect(await failed.explain()).toMatchObject({
    kind: "closed",
    outcome: "failed",
    since: new Date("2026-01-01T11:00Z"),
    error: { name: "RangeError", chunk: "capture", attempt: 3 },
    sentence: `It failed at ${at("01T11:00:00")} in chunk "capture", attempt 3, with RangeError: card 4711 was declined.`,
  });
  expect(await asked.explain()).toMatchObject({
    kind: "waiting",
    status: "waiting",
    workers: 1,
    owner: null,
    waits: [
      { kind: "answer", interruptId: "boss", executionId: asked.id, since: new Date("2026-01-01T09:00Z"), until: null },
    ],
  });
});

test("a later attempt that runs", async () => {
  const gate = Promise.withResolvers<void>();
  const flow = defineFlow("hanging.later").to(
    "hang",
    async (ctx) => {
      if (ctx.attempt === 1) throw new Error("once");
      await gate.promise;
    },
    { retry: { maxAttempts: 2, initialInterval: "1h", jitter: false } },
  );
  await using t = await kit({ flows: [flow], now: "2026-01-01T09:00Z", patience: "50ms" });
  const { id } = await t.orchestrator.flow(flow).startExecution(null);
  await t.settle();
  await t.clock.advance("1h");

  const { sentence } = await explained({ t, sql: world("quiet").sql, names: new Map() }, id);
  gate.resolve();

  expect(sentence).toMatch(/^It runs chunk "hang" \(attempt 2\): worker \S+ has it since 2026-01-01T10:00:00.000Z\.$/);
});

test("a version that does not fit is named, and what it lacks", async () => {
  const database = await testDatabase();
  const before = defineFlow("moved")
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
    .to("end", () => 1);
  const after = defineFlow("moved").to("report", () => 1);
  const execution = await (async () => {
    await using old = await serving(database, [before]);
    const begun = await old.flow(before).startExecution(null);
    await untilPending(begun);
    return begun.id;
  })();
  await using orchestrator = await serving(database, [after]);
  const blocked = await orchestrator.getExecution(execution);
  await blocked.continueWith("q", 1);

  await expect.poll(async () => (await blocked.explain()).kind, { timeout: 10_000 }).toBe("blocked");

  expect(await blocked.explain()).toMatchObject({
    kind: "blocked",
    recorded: before.fingerprint,
    found: after.fingerprint,
    sentence: expect.stringMatching(
      /^It is blocked since \S+Z, as no worker's version of flow "moved" fits: .*"?ask"?.*\.$/,
    ),
  });
});

test("a ledger of 20,000 events costs no more than its last thousand", async () => {
  const where = world("quiet");
  const id = await begun(where, dozing);
  await where.sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, payload)
    select ${id}, e.seq + n, e.epoch, flowledger.now(), 'state.set', 1, 'doze', jsonb_build_object('ordinal', n, 'key', 'k', 'value', md5(random()::text))
    from flowledger.executions e, generate_series(1, 20000) n where e.id = ${id}`;
  await where.sql`update flowledger.executions set seq = seq + 20000 where id = ${id}`;

  // A session that asks for the first time reads the catalog too.
  await where.sql`select flowledger.explain(${id})`;
  const [plan] = await where.sql<[{ "QUERY PLAN": [{ Plan: Record<string, number> }] }]>`
    explain (analyze, buffers, format json) select flowledger.explain(${id})`;
  const { "Shared Hit Blocks": hit = 0, "Shared Read Blocks": read = 0 } = plan["QUERY PLAN"][0].Plan;

  // All of its ledger has some 450 pages, and as many of its index.
  expect(hit + read).toBeLessThan(250);
});

test("an id that is unknown is refused by name", async () => {
  const { sql } = world("quiet");
  const id = "0190a000-0000-7000-8000-000000000000";

  await expect(sql`select flowledger.explain(${id})`).rejects.toMatchObject({ code: "FL001" });
  await expect(explained(world("quiet"), id)).rejects.toThrow(ExecutionNotFoundError);
});

test("what people wrote stays in one line, and is cut", async () => {
  const where = world("quiet");
  const id = await begun(where, asking);
  await (await where.t.orchestrator.getExecution(id)).cancel(`one\ntwo ${"x".repeat(1000)}`);
  await where.t.settle();

  const { sentence } = await explained(where, id);

  expect(sentence).toMatch(/: one two x+…$/);
  expect(sentence.length).toBeLessThan(400);
});
