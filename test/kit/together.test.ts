/**
 * What operators, questions and cancels leave an execution at × what happens to it then, an hour after its start: each has its end,
 * handlers of a cancel run once, and the ledger stays sound. One database for each happening; the tables below make the tests.
 */
import { beforeEach, describe, expect, test } from "vitest";
import {
  defineFlow,
  type CloseOptions,
  type Ctx,
  type CreateOptions,
  type Execution,
  type Flow,
} from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import type { TestOrchestrator } from "../../src/test.ts";
import { beginClose, kit } from "../support/kit.ts";

const by = { actor: "ann", reason: "INC-12" };
/** All is as usual: idle for ten seconds, and closed. */
const usual = "completed auto_close_idle_timeout";
const failed = "failed failed";

/** Code that somebody has to let go on; some of it before anything happens. */
let held: (() => void)[] = [];
let heldAtFirst: (() => void)[] = [];
beforeEach(() => {
  [held, heldAtFirst] = [[], []];
});
const hold = () => new Promise<void>((resolve) => void held.push(resolve));
const holdAtFirst = () => new Promise<void>((resolve) => void heldAtFirst.push(resolve));
const letGo = (code: (() => void)[]) => {
  for (const resolve of code.splice(0)) resolve();
};

type Work = (ctx: Ctx) => unknown;

const parks: Work = (ctx) => {
  if (ctx.input !== "mended") throw new Error("no carrier");
};
const asks =
  (more: object = {}): Work =>
  (ctx) =>
    ctx.pauseFor({ interruptId: "boss", ...more });
const sleeps =
  (time: string): Work =>
  (ctx) =>
    ctx.sleep(time);

interface Standing {
  /** Side by side; each has an `onCancel`. */
  readonly chunks: Readonly<Record<string, Work>>;
  /** Right after the start. */
  readonly begun?: (execution: Execution, t: TestOrchestrator) => Promise<unknown>;
  /** An hour later, just before it happens. */
  readonly later?: (execution: Execution, t: TestOrchestrator) => Promise<unknown>;
  /** When nothing happens. */
  readonly end: string;
  /** When an operator lets go on what is paused, and retries what is parked. */
  readonly mended: string;
}

const pause = (execution: Execution) => execution.pause(by);
const cancel = (execution: Execution) => execution.cancel();

const given = {
  parked: { chunks: { work: parks }, end: "open", mended: `${usual} 01:00:10` },
  "parked for a day": {
    chunks: { aged: parks },
    end: `${failed} 24:00:00`,
    mended: `${usual} 01:00:10`,
  },
  "parked beside a run": { chunks: { work: parks, side: hold }, end: "open", mended: `${usual} 01:00:10` },
  "parked beside a sleep": { chunks: { work: parks, side: sleeps("5h") }, end: "open", mended: `${usual} 05:00:10` },
  "parked beside a question": {
    chunks: { work: parks, side: asks({ expiresIn: "5h" }) },
    end: "open",
    mended: `${usual} 05:00:10`,
  },
  "parked behind recorded waits": {
    chunks: { work: async (ctx) => void (await ctx.step("one", () => 1), await ctx.sleep("10m"), parks(ctx)) },
    end: "open",
    mended: `${usual} 01:00:10`,
  },
  "paused and parked": { chunks: { work: parks }, begun: pause, end: "open", mended: `${usual} 01:00:10` },
  "paused with a due timer": {
    chunks: { side: sleeps("30m") },
    begun: pause,
    end: "open",
    mended: `${usual} 01:00:10`,
  },
  "paused with a timer to come": {
    chunks: { side: sleeps("5h") },
    begun: pause,
    end: "open",
    mended: `${usual} 05:00:10`,
  },
  "paused in the middle of a run": {
    chunks: { side: async (ctx) => void (await Promise.all([ctx.step("s", hold), ctx.sleep("5h")])) },
    begun: pause,
    end: "open",
    mended: `${usual} 05:00:10`,
  },
  "paused with a question": { chunks: { side: asks() }, begun: pause, end: "open", mended: "open" },
  "paused with a question whose time is over": {
    chunks: { side: asks({ expiresIn: "30m", onExpire: "continue" }) },
    begun: pause,
    end: "open",
    mended: `${usual} 01:00:10`,
  },
  "paused with a question that fails": {
    chunks: { side: asks({ expiresIn: "30m", onExpire: "fail" }) },
    begun: pause,
    end: "open",
    mended: `${failed} 01:00:00`,
  },
  "paused with an answered question": {
    chunks: { side: (ctx) => (ctx.resume ? null : asks({ resumeTo: "self" })(ctx)) },
    begun: async (execution) => {
      await pause(execution);
      await execution.continueWith("boss", "yes");
    },
    end: "open",
    mended: `${usual} 01:00:10`,
  },
  "paused with an early answer": {
    chunks: { side: async (ctx) => (await holdAtFirst(), asks()(ctx)) },
    begun: async (execution) => {
      await execution.continueWith("boss", "early");
      await pause(execution);
    },
    end: "open",
    mended: `${usual} 01:00:10`,
  },
  "paused for two hours": {
    chunks: { side: sleeps("30m") },
    begun: (execution) => execution.pause({ ...by, until: "2026-01-01T11:00:00Z" }),
    end: `${usual} 02:00:10`,
    mended: `${usual} 01:00:10`,
  },
  "cleaning up": {
    chunks: { held: sleeps("5h") },
    later: cancel,
    end: "cancelled cancelled",
    mended: "cancelled cancelled",
  },
  "cleaning up what is parked": {
    chunks: { held: parks },
    later: cancel,
    end: "cancelled cancelled",
    mended: "cancelled cancelled",
  },
  "cleaning up what is paused": {
    chunks: { held: asks() },
    begun: pause,
    later: cancel,
    end: "cancelled cancelled",
    mended: "cancelled cancelled",
  },
} satisfies Record<string, Standing>;
type State = keyof typeof given;
const states: Record<State, Standing> = given;
const all = Object.keys(given) as State[];
const isCleaning = (state: State) => state.startsWith("cleaning up");
const isPaused = (state: State) => state.startsWith("paused");

const flows = new Map(all.map((state) => [state, flowOf(state)]));
function flowOf(state: State): Flow {
  const flow = defineFlow(`together.${state.replaceAll(" ", "-")}`);
  const begin = flow.to("begin", () => null);
  for (const [name, work] of Object.entries<Work>(states[state].chunks))
    begin.to(name, async (ctx) => (await work(ctx)) ?? null, {
      onFailure: "park",
      ...(name === "aged" && { park: { after: "1d" } }),
      onCancel: name === "held" ? hold : () => {},
    });
  flow.when("Ping").to("pong", () => "pong");
  return flow;
}

interface Happening {
  readonly start?: CreateOptions;
  /** What is done to each; a copy that it makes is followed, too. */
  readonly each?: (execution: Execution, t: TestOrchestrator, state: State) => Promise<Execution | void>;
  /** What happens to all of them at once. */
  readonly once?: (t: TestOrchestrator) => Promise<void>;
  /** Where that is another end than when nothing happens. */
  readonly ends?: (state: State) => string | undefined;
  /** Where it is an error, and changes nothing. */
  readonly refused?: (state: State) => boolean;
  /** Chunks whose `onCancel` runs, once, where it cancels. */
  readonly cleans?: (state: State) => string[];
}

/** The worker is gone, in one way or another, and another one is there. */
const replace =
  (leave: (worker: { stop(): Promise<void>; inside: { crash(): void } }) => unknown) => async (t: TestOrchestrator) => {
    // What it had under way dies with it, or is cut off.
    held = [];
    const [worker] = t.orchestrator[internals].workers;
    if (worker) await leave(worker);
    await t.orchestrator.startWorker();
  };

const hasParked = (state: State) => state.startsWith("parked") || state === "paused and parked";
const hasAsked = (state: State) =>
  "side" in states[state].chunks && state.includes(" a question") ? true : state === "cleaning up what is paused";
const mend = async (execution: Execution, state: State) => {
  if (hasParked(state)) await execution.retry({ ...by, input: "mended" });
  if (isPaused(state)) await execution.unpause(by);
};
const mended = (state: State) => states[state].mended;
const skip = (execution: Execution) => execution.skip({ ...by, output: "skipped" });
const answer = (execution: Execution) => execution.continueWith("boss", "late");
const close = (options: CloseOptions) => (execution: Execution) => beginClose(execution, options);
const openChunks = (state: State) => Object.keys(states[state].chunks).toSorted();
/** A close of what an operator paused comes when it goes on. */
const closes = (state: State) => (state === "paused for two hours" ? "completed manual 02:00:00" : undefined);
const failsParked = (state: State) => (hasParked(state) && !isPaused(state) ? `${failed} 01:00:00` : closes(state));
const letGone: Partial<Record<State, string>> = {
  "paused and parked": `${failed} 01:00:00`,
  "paused with a timer to come": "completed manual 05:00:00",
  "paused in the middle of a run": "completed manual 05:00:00",
};

const happenings: Record<string, Happening> = {
  nothing: {},
  "an operator who mends it": { each: (execution, _, state) => mend(execution, state), ends: mended },
  "a retry": {
    each: async (execution) => void (await execution.retry({ ...by, input: "mended" })),
    refused: (state) => !hasParked(state),
    ends: (state) => (isPaused(state) ? undefined : mended(state)),
  },
  "a skip": {
    each: async (execution) => void (await skip(execution)),
    refused: (state) => hasParked(state) === hasAsked(state),
    ends: (state) => (hasParked(state) && !isPaused(state) && !hasAsked(state) ? mended(state) : undefined),
  },
  "an edit": { each: async (execution) => void (await execution.editState({ set: { "a.b": 1 } }, by)) },
  "a pause": {
    each: (execution) => execution.pause(by),
    ends: () => "open",
  },
  "a pause for half an hour": {
    each: (execution) => execution.pause({ ...by, until: "2026-01-01T10:30:00Z" }),
    ends: (state) => (hasParked(state) ? undefined : mended(state).replace("01:00:", "01:30:")),
  },
  "an unpause": {
    each: (execution) => execution.unpause(by),
    refused: (state) => !isPaused(state) && state !== "cleaning up what is paused",
    ends: (state) => (hasParked(state) ? undefined : mended(state)),
  },
  "a withdrawal": {
    each: async (execution) => void (await execution.withdraw("boss", by)),
    refused: (state) => !hasAsked(state),
  },
  "an answer": {
    each: async (execution) => void (await answer(execution)),
    // The first one counts, also one that came before the question.
    refused: (state) => state.includes("answer"),
  },
  "an answer to what is never asked": { each: async (execution) => void (await execution.continueWith("later", 1)) },
  "an event": { each: (execution) => execution.emit("Ping", null) },
  "a seal": { each: (execution) => execution.seal() },
  "a close": { each: close({}), refused: (state) => hasParked(state) || hasAsked(state), ends: closes },
  "a close that cancels questions": { each: close({ pendingInterrupts: "cancel" }), refused: hasParked, ends: closes },
  "a close that fails what is parked": {
    each: close({ parked: "fail" }),
    refused: hasAsked,
    ends: (state) => (hasAsked(state) ? undefined : failsParked(state)),
  },
  "a close that waits for nobody": {
    each: close({ pendingInterrupts: "cancel", parked: "fail" }),
    ends: failsParked,
  },
  "a close that waits for nobody, and an operator who lets go on": {
    each: async (execution, _, state) => {
      await close({ pendingInterrupts: "cancel", parked: "fail" })(execution);
      if (isPaused(state)) await execution.unpause(by);
    },
    ends: (state) =>
      letGone[state] ??
      (isPaused(state) ? `${hasAsked(state) ? "cancelled" : "completed"} manual 01:00:00` : failsParked(state)),
  },
  "a cancel": {
    each: async (execution) => void (await execution.cancel()),
    ends: () => "cancelled cancelled 01:00:00",
    // Its answer is there, and nothing of it is left to do.
    cleans: (state) => (state === "paused with an early answer" ? [] : openChunks(state)),
  },
  "a skip and a cancel": {
    each: async (execution) => {
      await skip(execution).catch(() => null);
      await execution.cancel();
    },
    ends: () => "cancelled cancelled 01:00:00",
    cleans: (state) =>
      state === "paused with an early answer"
        ? []
        : openChunks(state).filter(
            (chunk) => hasParked(state) === hasAsked(state) || (hasParked(state) && chunk === "side"),
          ),
  },
  "an answer and a cancel": {
    each: async (execution) => {
      await answer(execution).catch(() => null);
      await execution.cancel();
    },
    ends: () => "cancelled cancelled 01:00:00",
    cleans: (state) =>
      openChunks(state).filter(
        (chunk) => chunk !== "side" || !(hasAsked(state) || state === "paused with an early answer"),
      ),
  },
  "a timeout": { start: { timeout: "2h" }, ends: () => "failed timeout 02:00:00" },
  "a fork": {
    each: async (execution) => {
      const history = await execution.history();
      return execution.fork({ at: history.at(-1)?.seq ?? 0 });
    },
  },
  "a save and a load": {
    each: async (execution, t) => t.orchestrator.load(JSON.parse(JSON.stringify(await execution.save()))),
  },
  "a drain": { once: replace((worker) => worker.stop()) },
  "a kill": { once: replace((worker) => worker.inside.crash()) },
  "a drain, and an operator who mends it": {
    once: replace((worker) => worker.stop()),
    each: (execution, _, state) => mend(execution, state),
    ends: mended,
  },
  "a kill, and an operator who mends it": {
    once: replace((worker) => worker.inside.crash()),
    each: (execution, _, state) => mend(execution, state),
    ends: mended,
  },
};

const lengthOf = (ms: number) =>
  [ms / 3_600_000, (ms / 60_000) % 60, (ms / 1000) % 60]
    .map((part) => String(Math.trunc(part)).padStart(2, "0"))
    .join(":");

async function endOf(execution: Execution, begunAt: number): Promise<string> {
  const [closed] = await execution.history({ types: ["execution.closed"] });
  if (closed?.type !== "execution.closed") return "open";
  return `${closed.outcome} ${closed.reason} ${lengthOf(closed.at.getTime() - begunAt)}`;
}

/** Chunks whose `onCancel` has ended, by the ledger. */
async function cleanedIn(execution: Execution): Promise<string[]> {
  const events = await execution.history({ types: ["cleanup.completed", "cleanup.failed"] });
  return events.map((event) => ("chunk" in event ? String(event.chunk) : "")).toSorted();
}

async function expectSound(t: TestOrchestrator, executions: Iterable<readonly [string, Execution]>): Promise<void> {
  expect(await t.orchestrator.verify()).toEqual([]);
  expect(await t.orchestrator.rebuild()).toEqual([]);
  for (const [state, execution] of executions)
    expect([state, (await execution.explain()).sentence]).toEqual([
      state,
      expect.stringMatching(/^[A-Z].{10,}[.!?…]$/s),
    ]);
}

const rows = Object.entries(happenings).map(([name, happening]) => ({ name, ...happening }));

describe.each(rows)("$name", ({ start, each, once, ends, refused, cleans }) => {
  test(`comes to executions in ${flows.size} states`, async () => {
    await using t = await kit({
      flows: [...flows.values()],
      patience: "20ms",
      worker: { drainTimeout: "10ms", cancelGrace: "1m" },
    });
    const begunAt = t.clock.now().getTime();
    const executions = new Map<State, Execution>();
    for (const [state, flow] of flows) {
      const execution = await t.orchestrator.flow(flow).startExecution(null, start);
      executions.set(state, execution);
    }
    await t.settle();
    for (const [state, execution] of executions) await states[state].begun?.(execution, t);
    await t.settle();
    letGo(heldAtFirst);
    await t.clock.advance("1h");
    for (const [state, execution] of executions) await states[state].later?.(execution, t);
    await t.settle();

    const seen: Record<string, string> = {};
    const copied = new Map<State, Execution>();
    await once?.(t);
    for (const [state, execution] of executions) {
      try {
        const copy = await each?.(execution, t, state);
        if (copy) copied.set(state, copy);
      } catch {
        seen[state] = "refused, ";
      }
    }
    await t.settle();
    await expectSound(t, executions);
    letGo(held);
    await t.clock.advance("3d");

    const expected: Record<string, string> = {};
    const endIn = (state: State) =>
      isCleaning(state) ? `${states[state].end} 01:00:00` : (ends?.(state) ?? states[state].end);
    for (const [state, execution] of executions) {
      const cleaned = isCleaning(state) ? ["held"] : (cleans?.(state) ?? []);
      seen[state] =
        `${seen[state] ?? ""}${await endOf(execution, begunAt)}, cleaned: ${(await cleanedIn(execution)).join()}`;
      expected[state] = `${refused?.(state) ? "refused, " : ""}${endIn(state)}, cleaned: ${cleaned.join()}`;
    }
    for (const [state, copy] of copied) {
      seen[`copy: ${state}`] = await endOf(copy, begunAt);
      expected[`copy: ${state}`] = endIn(state);
    }
    expect(seen).toEqual(expected);
    await expectSound(t, [...executions, ...copied]);
  });
});
