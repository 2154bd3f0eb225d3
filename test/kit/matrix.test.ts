/**
 * What an execution stands at × what happens to it, an hour after its start: each has its end at an exact time, its code has run as
 * often as its ledger says, and then all is quiet. One database for each happening; the tables below make the tests.
 */
import { beforeEach, describe, expect, test } from "vitest";
import {
  defineFlow,
  type Ctx,
  type Duration,
  type Execution,
  type Flow,
  type FlowDefinition,
} from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import type { TestOrchestrator } from "../../src/test.ts";
import { beginClose, kit, kitOn } from "../support/kit.ts";
import { Machine } from "../support/machine.ts";

/** What each state waits for takes so long. */
const wait = "24h";
/** All is as usual: idle for ten seconds, and closed. */
const usual = "completed auto_close_idle_timeout";

/** Code that came to its end, outside of the database: "<execution> <chunk>". */
let ended: string[] = [];
/** Chunks that somebody has to let go on. */
let held: (() => void)[] = [];
let now = (): number => 0;
let begunAt = 0;

beforeEach(() => {
  ended = [];
  held = [];
});

type Work = (ctx: Ctx) => unknown;

/** @param work nothing where a version of the flow has no such chunk */
function flowOf(name: string, work: Work | null, more: { readonly chunk?: object; readonly flow?: object } = {}): Flow {
  const flow = defineFlow(`matrix.${name}`, {}, more.flow);
  const counted = (chunk: string, body: Work) => async (ctx: object) => {
    const { execution } = ctx as Ctx;
    const value = await body(ctx as Ctx);
    ended.push(`${execution.id} ${chunk}`);
    return value ?? null;
  };
  if (work) flow.to("work", counted("work", work), more.chunk);
  flow.when("Ping").to(
    "pong",
    counted("pong", () => "pong"),
  );
  flow.when("Far").to(
    "far",
    counted("far", (ctx) => ctx.sleep(wait)),
  );
  return flow;
}

const once = () => {
  if (now() < begunAt + 86_400_000) throw new Error("not yet");
};
const retry = { maxAttempts: 2, initialInterval: wait, maxInterval: wait, jitter: false };
const child = flowOf("child-of", (ctx) => ctx.sleep(wait));

interface Standing {
  readonly work: Work;
  readonly chunk?: object;
  readonly flow?: object;
  /** When nothing happens. */
  readonly end: string;
}

const given = {
  created: { work: () => {}, end: "open" },
  delayed: { work: () => {}, end: `${usual} 24:00:10` },
  queued: { work: () => {}, flow: { limits: { rate: { limit: 1, per: wait } } }, end: `${usual} 24:00:10` },
  "parked by a sleep": { work: (ctx) => ctx.sleep(wait), end: `${usual} 24:00:10` },
  "parked by a pause": { work: (ctx) => ctx.pauseFor({ expiresIn: wait }), end: `${usual} 24:00:10` },
  "parked by a retry": { work: once, chunk: { retry }, end: `${usual} 24:00:10` },
  "parked by a retry of a step": { work: (ctx) => ctx.step("s", once, { retry }), end: `${usual} 24:00:10` },
  "parked by a child": { work: (ctx) => ctx.call(child, null), end: `${usual} 24:00:10` },
  "parked by a group": { work: (ctx) => ctx.emit("Far", null, { wait: true }), end: `${usual} 24:00:10` },
  "a step beside a far sleep": {
    work: async (ctx) => void (await Promise.all([ctx.step("s", () => 1), ctx.sleep(wait)])),
    end: `${usual} 24:00:10`,
  },
  sealed: { work: (ctx) => ctx.sleep(wait), end: `${usual} 24:00:10` },
  owned: { work: () => new Promise<void>((resolve) => void held.push(resolve)), end: `${usual} 01:00:10` },
} satisfies Record<string, Standing>;
type State = keyof typeof given;
const states: Record<State, Standing> = given;
const all = Object.keys(given) as State[];

const nameOf = (state: State) => state.replaceAll(" ", "-");
const flows = new Map(all.map((state) => [state, flowOf(nameOf(state), states[state].work, states[state])]));
const served: FlowDefinition[] = [...flows.values(), child];
/** The same flows in a version without the chunk that they all begin with. */
const without = [...all.map((state) => flowOf(nameOf(state), null, states[state])), flowOf("child-of", null)];
async function begin(t: TestOrchestrator, state: State): Promise<Execution> {
  const flow = t.orchestrator.flow(flows.get(state) ?? child);
  if (state === "created") return flow.createExecution({ interventionMode: "auto" });
  // The first takes what the rate allows.
  if (state === "queued") await flow.startExecution(null);
  const execution = await flow.startExecution(null, {
    interventionMode: "auto",
    ...(state === "delayed" && { delay: wait }),
  });
  if (state === "sealed") {
    await t.settle();
    await execution.seal();
  }
  return execution;
}

interface Happening {
  /** What is done to each; a copy that it makes is followed, too. */
  readonly each?: (execution: Execution, t: TestOrchestrator) => Promise<Execution | void>;
  /** What happens to all of them at once. */
  readonly once?: (t: TestOrchestrator) => Promise<void>;
  /** Where that is another end than when nothing happens; "refused" is that end, and an error. */
  readonly ends?: Partial<Record<State, string>> | ((state: State) => string | undefined);
  readonly copies?: Partial<Record<State, string>>;
  /** What the worker runs on. @default one whose clock is the database's */
  readonly machine?: Machine;
}

const drained = (state: State) => (state === "created" || state === "owned" ? "01:00:00" : "24:00:00");

/** The worker is gone, in one way or another, and another one is there. */
const replace =
  (leave: (worker: { stop(): Promise<void>; inside: { crash(): void } }) => unknown) => async (t: TestOrchestrator) => {
    // What it had under way dies with it, or is cut off.
    held = [];
    const [worker] = t.orchestrator[internals].workers;
    if (worker) await leave(worker);
    await t.orchestrator.startWorker();
  };

/** Another version stands in the place of this one for so long, and goes again. */
async function deployFor(t: TestOrchestrator, time: Duration): Promise<void> {
  held = [];
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  const logger = { ...console, error: () => {} };
  const next = await kit({ flows: without, database: t.database, patience: "20ms", logger });
  await next.clock.advance(time);
  await next.close();
  await t.orchestrator.startWorker();
}

const setBack = new Machine();

const happenings: Record<string, Happening> = {
  nothing: {},
  "an event": {
    each: (execution) => execution.emit("Ping", null),
    ends: { created: `${usual} 01:00:10`, sealed: "refused" },
  },
  "a seal": { each: (execution) => execution.seal() },
  "a close": {
    each: (execution) => beginClose(execution),
    ends: (state) => (state === "parked by a pause" ? "refused" : `completed manual ${drained(state)}`),
  },
  "a close that cancels what waits for an answer": {
    each: (execution) => beginClose(execution, { pendingInterrupts: "cancel" }),
    ends: (state) =>
      state === "parked by a pause" ? "cancelled manual 01:00:00" : `completed manual ${drained(state)}`,
  },
  "a cancel": {
    each: async (execution) => void (await execution.cancel()),
    ends: () => "cancelled cancelled 01:00:00",
  },
  "an intervention": {
    each: async (execution) => void (await execution.intervene({ note: 1 })),
    ends: { sealed: "refused" },
  },
  "a fork": {
    each: async (execution) => {
      const history = await execution.history();
      return execution.fork({ at: history.at(-1)?.seq ?? 0 });
    },
    ends: { "parked by a child": "refused" },
    // It queues behind the one that it was made of.
    copies: { queued: `${usual} 48:00:10` },
  },
  "a save and a load": {
    each: async (execution, t) => t.orchestrator.load(JSON.parse(JSON.stringify(await execution.save()))),
    ends: { "parked by a child": "refused" },
    copies: { queued: `${usual} 48:00:10` },
  },
  "a rebuild": {
    each: async (execution, t) => {
      expect(await t.orchestrator.rebuild({ id: execution.id })).toEqual([]);
    },
  },
  "a drain": { once: replace((worker) => worker.stop()) },
  "a kill": { once: replace((worker) => worker.inside.crash()) },
  // Nothing is due meanwhile but what was cut off.
  "a deploy with the chunk gone, for an hour,": {
    once: (t) => deployFor(t, "1h"),
    ends: { owned: `${usual} 02:00:10` },
  },
  // What comes due is blocked until the chunk is back; what nobody has begun is begun by the version that is there.
  "a deploy with the chunk gone, for two days,": {
    once: (t) => deployFor(t, "2d"),
    ends: (state) => {
      if (state === "created" || state === "delayed") return undefined;
      // Its idle time was over before it had its turn.
      return `${usual} ${state === "queued" ? "24:00:10" : "49:00:10"}`;
    },
  },
  "a worker whose clock is 5 % fast": { machine: new Machine(1.05) },
  // A worker notices within a minute. Times that are due stay as they are, by the database's clock.
  "the database's clock, set back by ten minutes,": {
    machine: setBack,
    once: async (t) => {
      await setBack.setBack(t, 600_000);
      await t.clock.advance("2m");
    },
    ends: { owned: `${usual} 00:52:10` },
  },
};

const lengthOf = (ms: number) =>
  [ms / 3_600_000, (ms / 60_000) % 60, (ms / 1000) % 60]
    .map((part) => String(Math.trunc(part)).padStart(2, "0"))
    .join(":");

async function endOf(execution: Execution): Promise<string> {
  const [closed] = await execution.history({ types: ["execution.closed"] });
  if (closed?.type !== "execution.closed") return "open";
  return `${closed.outcome} ${closed.reason} ${lengthOf(closed.at.getTime() - begunAt)}`;
}

/** Code that came to its end, by the ledger; what was there before a copy was made ran elsewhere. */
async function inLedger(execution: Execution): Promise<string[]> {
  const events = await execution.history({ types: ["execution.copied", "chunk.completed", "interrupt.raised"] });
  const own = events.slice(events.findLastIndex(({ type }) => type === "execution.copied") + 1);
  return own.map((event) => `${execution.id} ${"chunk" in event ? String(event.chunk) : "work"}`).toSorted();
}

const ran = (execution: Execution) => ended.filter((one) => one.startsWith(execution.id)).toSorted();

const rows = Object.entries(happenings).map(([name, happening]) => ({ name, ...happening }));

describe.each(rows)("$name", ({ each, once: happenOnce, ends = {}, copies = {}, machine }) => {
  test(`comes to executions that are ${all.join(", ")}`, async () => {
    const worker = { drainTimeout: "10ms", cancelGrace: "10ms" } as const;
    await using t = machine
      ? await kitOn(machine, served, worker, 20)
      : await kit({ flows: served, patience: "20ms", worker });
    now = () => t.clock.now().getTime();
    begunAt = now();
    const executions = new Map<State, Execution>();
    for (const state of all) executions.set(state, await begin(t, state));
    await t.clock.advance("1h");

    const refused = new Set<State>();
    const copied = new Map<State, Execution>();
    await happenOnce?.(t);
    for (const [state, execution] of executions)
      try {
        const copy = await each?.(execution, t);
        if (copy) copied.set(state, copy);
      } catch {
        refused.add(state);
      }
    await t.settle();
    for (const resolve of held.splice(0)) resolve();
    await t.clock.advance("3d");

    const expectedOf = (state: State) => (typeof ends === "function" ? ends(state) : ends[state]);
    const seen: Record<string, string> = {};
    const expected: Record<string, string> = {};
    for (const [state, execution] of executions) {
      seen[state] = `${refused.has(state) ? "refused, " : ""}${await endOf(execution)}`;
      const end = expectedOf(state);
      expected[state] = end === "refused" ? `refused, ${states[state].end}` : (end ?? states[state].end);
    }
    for (const [state, copy] of copied) {
      seen[`copy: ${state}`] = await endOf(copy);
      expected[`copy: ${state}`] = copies[state] ?? states[state].end;
    }
    expect(seen).toEqual(expected);
    const [outside, inside]: [string[], string[]] = [[], []];
    for (const execution of [...executions.values(), ...copied.values()]) {
      // A chunk that was cut off by a cancel may run on in this process.
      if ((await endOf(execution)).startsWith("cancelled")) continue;
      outside.push(...ran(execution));
      inside.push(...(await inLedger(execution)));
    }
    expect(outside).toEqual(inside);
    expect(await t.orchestrator.verify()).toEqual([]);
  });
});
