/** What happens to executions that the next version of a flow cannot go on with: each has its end at an exact time. */
import { expect, test } from "vitest";
import { defineFlow, type Execution, type Flow } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { kit } from "../support/kit.ts";

/** Outside of the database: what code of a chunk came to its end, by execution. */
const ended: string[] = [];

function flowOf(hasWork: boolean): Flow {
  const flow = defineFlow("deployed");
  const say = (chunk: string) => (ctx: { readonly execution: { readonly id: string } }) =>
    void ended.push(`${ctx.execution.id} ${chunk}`);
  if (hasWork) flow.to("work", (ctx) => ctx.sleep("30m")).to("after", say("after"));
  flow.when("Ping").to("pong", say("pong"));
  return flow;
}

interface Happening {
  readonly happen?: (execution: Execution) => unknown;
  readonly start?: object;
  /** How it ended, and when, in seconds; those that go on do so within 15 seconds of the return of their chunk, at 01:00:00. */
  readonly end: string;
  readonly ran: readonly string[];
}

const after = ["after"];
const happenings: Record<string, Happening> = {
  nothing: { end: "completed auto_close_idle_timeout after the return", ran: after },
  "an event": {
    happen: (execution) => execution.emit("Ping", null),
    end: "completed auto_close_idle_timeout after the return",
    ran: ["after", "pong"],
  },
  "a seal": {
    happen: (execution) => execution.seal(),
    end: "completed auto_close_idle_timeout after the return",
    ran: after,
  },
  "a close": {
    happen: (execution) => void execution.close().catch(() => {}),
    end: "completed manual after the return",
    ran: after,
  },
  "a cancel": { happen: (execution) => execution.cancel(), end: "cancelled cancelled 2700", ran: [] },
  "its timeout": { start: { timeout: "50m" }, end: "failed timeout 3000", ran: [] },
  "a timeout that is over before it blocks": { start: { timeout: "20m" }, end: "failed timeout 1200", ran: [] },
};

test("a deploy takes their chunk away for half an hour, and brings it back", async () => {
  const before = flowOf(true);
  await using t = await kit({ flows: [before], logger: { ...console, error: () => {} } });
  const begun = t.clock.now().getTime();
  const executions = new Map<string, Execution>();
  for (const [what, { start = {} }] of Object.entries(happenings))
    executions.set(what, await t.orchestrator.flow(before).startExecution(null, start));
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();

  await using next = await kit({
    flows: [flowOf(false)],
    database: t.database,
    logger: { ...console, error: () => {} },
  });
  await next.clock.advance("45m");
  for (const [what, execution] of executions) await happenings[what]?.happen?.(execution);
  await next.clock.advance("15m");
  const blocked = await Promise.all(
    [...executions.values()].map((execution) => execution.history({ types: ["execution.blocked"] })),
  );
  await next.close();
  await t.orchestrator.startWorker();
  await t.clock.advance("1d");

  // Said once, however often it was looked at.
  expect(blocked.map(({ length }) => length)).toEqual([1, 1, 1, 1, 1, 1, 0]);
  const seen: Record<string, string> = {};
  for (const [what, execution] of executions) {
    const [closed] = await execution.history({ types: ["execution.closed"] });
    if (closed?.type !== "execution.closed") continue;
    const seconds = (closed.at.getTime() - begun) / 1000;
    const isAfter = seconds >= 3600 && seconds <= 3600 + 15 + 10;
    seen[what] = `${closed.outcome} ${closed.reason} ${isAfter ? "after the return" : seconds}`;
  }
  expect(seen).toEqual(Object.fromEntries(Object.entries(happenings).map(([what, { end }]) => [what, end])));
  const ran = (execution: Execution) =>
    ended
      .filter((one) => one.startsWith(execution.id))
      .map((one) => one.slice(37))
      .toSorted();
  expect([...executions.values()].map(ran)).toEqual(Object.values(happenings).map((happening) => happening.ran));
  expect(await t.orchestrator.verify()).toEqual([]);
});
