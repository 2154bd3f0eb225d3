/** What follows while nobody answers a pause, each once and at its time, and what the flow hears of it. */
import postgres from "postgres";
import { expect, test } from "vitest";
import { z } from "zod";
import {
  ClaimedError,
  defineFlow,
  TokenClosedError,
  TokenUnknownError,
  TokenUsedError,
  type Execution,
  type InboxOptions,
  type InterruptNotice,
  type PauseOptions,
} from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import type { TestOrchestrator } from "../../src/test.ts";
import { refusal } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const Decision = z.object({ approved: z.boolean() });

const approval: PauseOptions<typeof Decision> = {
  interruptId: "boss",
  type: "approval",
  title: "Refund of 900 €",
  payload: { amount: 900 },
  response: Decision,
  assign: ["group:finance"],
  due: "2d",
  remind: ["1d", "4h"],
  escalate: [
    { after: "3d", assign: ["group:managers"] },
    { after: "4d", answer: { approved: false } },
  ],
};

/** A flow that asks, and tells people in its state: what, when in hours, whom. */
function asking(name: string, options: PauseOptions<typeof Decision> = approval) {
  const flow = defineFlow(name, { state: z.object({ told: z.array(z.string()), got: z.json() }).partial() });
  flow.to("ask", (ctx) => ctx.pauseFor(options)).to("after", (ctx) => ctx.setState("got", ctx.input));
  flow.when("$interrupt").to("tell", async (ctx) => {
    const { kind, interrupt } = ctx.input;
    await ctx.appendState("told", `${kind} ${interrupt.assignees?.join() ?? "nobody"}`);
  });
  return flow;
}

/** The worker is gone without a word, and another one is there. */
async function crash(t: TestOrchestrator): Promise<void> {
  for (const { inside } of t.orchestrator[internals].workers) inside.crash();
  await t.orchestrator.startWorker();
}

const hours = (from: Date, at: Date) => (at.getTime() - from.getTime()) / 3_600_000;

test("raised, reminded, escalated, answered by default: each once, at its time, with kills between", async () => {
  const flow = asking("plan");
  await using t = await kit({ flows: [flow] });
  const begun = t.clock.now();
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  const due = [];
  for (let day = 0; day < 5; day++) {
    await crash(t);
    await t.clock.advance("12h");
    await crash(t);
    await t.clock.advance("12h");
    due.push((await t.orchestrator.inbox({ for: ["group:managers"] })).interrupts.length);
  }

  expect(await run.until("closed")).toEqual({
    told: [
      "raised group:finance",
      "reminded group:finance",
      "reminded group:finance",
      "escalated group:managers",
      "answered group:managers",
    ],
    got: { approved: false },
  });
  expect(due).toEqual([0, 0, 1, 0, 0]);
  const events = await run.history({
    types: ["interrupt.raised", "interrupt.reminded", "interrupt.escalated", "interrupt.resumed"],
  });
  expect(events.map(({ type, at }) => [type, hours(begun, at)])).toEqual([
    ["interrupt.raised", 0],
    ["interrupt.reminded", 24],
    ["interrupt.reminded", 44],
    ["interrupt.escalated", 72],
    ["interrupt.resumed", 96],
  ]);
  expect(events.at(-1)).toMatchObject({ actor: "timer", byDefault: true, value: { approved: false } });
  expect(await t.orchestrator.verify()).toEqual([]);
});

test("all of it survives a crash before, in and after each commit", async () => {
  const flow = asking("plan.crash", { ...approval, remind: ["1d"] });
  await using t = await kit({ flows: [flow] });

  await t.crashEverywhere(flow, null, async (run, { advance }) => {
    await advance("5d");
    const snapshot = await run.until("closed");
    expect(snapshot).toEqual({
      told: ["raised group:finance", "reminded group:finance", "escalated group:managers", "answered group:managers"],
      got: { approved: false },
    });
  });
}, 120_000);

test("after an outage all that came due is told once, in its order", async () => {
  const flow = asking("outage");
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.clock.advance("1h");
  await run.pause({ actor: "ann", reason: "maintenance" });
  await t.clock.advance("10d");
  expect(await run.history({ types: ["interrupt.reminded"] })).toEqual([]);

  await run.unpause({ actor: "ann", reason: "done" });

  expect(await run.until("closed")).toMatchObject({ got: { approved: false } });
  const counts = (await run.history()).map(({ type }) => type).filter((type) => type.startsWith("interrupt."));
  expect(counts).toEqual([
    "interrupt.raised",
    "interrupt.reminded",
    "interrupt.reminded",
    "interrupt.escalated",
    "interrupt.resumed",
  ]);
});

test.each([
  [
    "an answer",
    "answered",
    (run: { answer: (id: string, value: unknown) => Promise<unknown> }) => run.answer("boss", { approved: true }),
  ],
  ["a withdrawal", "withdrawn", (run: { withdraw: (id: string) => Promise<unknown> }) => run.withdraw("boss")],
])("%s ends all of it, and the execution closes as if there had been none", async (name, kind, end) => {
  const flow = asking(`ends.${name.replaceAll(" ", "-")}`);
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.clock.advance("25h");

  await end(run as never);
  const snapshot = await run.until("closed");
  await t.clock.advance("10d");

  expect(snapshot).toMatchObject({ told: ["raised group:finance", "reminded group:finance", `${kind} group:finance`] });
  expect(await run.history({ types: ["interrupt.reminded", "interrupt.escalated"] })).toHaveLength(1);
});

test("an expiry is told too, and a close cancels what waits without a word", async () => {
  const flow = asking("expires", { interruptId: "boss", expiresIn: "1d", due: "20h", remind: ["1h"] });
  await using t = await kit({ flows: [flow] });
  const expired = await t.start(flow, null, { autoCloseTimeout: 0 });
  const closed = await t.start(flow, null, { autoClose: false });
  await t.clock.advance("1h");
  await closed.close({ pendingInterrupts: "cancel" });
  await t.clock.advance("10d");

  expect(await expired.until("closed")).toEqual({ told: ["raised nobody", "reminded nobody", "expired nobody"] });
  expect(await closed.result.getState()).toEqual({ told: ["raised nobody"] });
});

test("a handler that fails parks, and what it tells of goes on", async () => {
  const flow = defineFlow("mail.down", { state: z.object({ got: z.json() }).partial() });
  flow.to("ask", (ctx) => ctx.pauseFor(approval)).to("after", (ctx) => ctx.setState("got", ctx.input));
  flow.when("$interrupt").to("mail", () => {
    throw new Error("no mail today");
  });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.clock.advance("1h");

  expect(await run.history({ types: ["chunk.parked", "chunk.failed"] })).toMatchObject([{ type: "chunk.parked" }]);
  await run.answer("boss", { approved: true });
  await t.clock.advance("1h");
  expect(await run.result.getState("got")).toEqual({ approved: true });
  await run.skip({ chunk: "mail", output: null, actor: "ann", reason: "told by phone" }).catch(() => null);
  await run.cancel();
});

test("a fork whose times are over asks anew, and tells each once", async () => {
  const flow = asking("fork");
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.clock.advance("25h");
  const at = (await run.result.getMeta()).stateVersion;
  await run.withdraw("boss");
  await t.clock.advance("30d");

  const begun = t.clock.now();
  const fork = await run.fork({ at });
  const [asked] = await fork.getPendingInterrupts();
  expect(hours(begun, asked?.dueAt ?? begun)).toBe(48);
  expect(await t.orchestrator.verify({ id: fork.id })).toEqual([]);
  await t.clock.advance("5d");

  const events = await fork.history({ types: ["interrupt.reminded", "interrupt.escalated", "interrupt.resumed"] });
  expect(events.map(({ type, at: when }) => [type, hours(begun, when)]).slice(1)).toEqual([
    ["interrupt.reminded", 44],
    ["interrupt.escalated", 72],
    ["interrupt.resumed", 96],
  ]);
  expect(await t.orchestrator.verify()).toEqual([]);
});

test("nobody else sends what a flow hears of its pauses", async () => {
  const flow = asking("reserved");
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoClose: false });

  expect(await refusal(run.emit("$interrupt", {}))).toMatchObject({ code: "USAGE_INVALID" });
  expect(() => defineFlow("both").when(["$interrupt", "Other"] as never)).toThrow(/cannot be sent/);
  expect(() => defineFlow("named", { events: { $interrupt: z.string() } })).toThrow(/the library's/);
  await run.cancel();
});

test("questions of one execution that are due at one moment come each once, page by page", async () => {
  const flow = defineFlow("inbox.equal");
  const names = ["due a", "due b", "due c", "never a", "never b", "never c"];
  for (const name of names)
    flow.to(`ask ${name}`, (ctx) =>
      ctx.pauseFor({ interruptId: name, assign: ["user:ann"], ...(name.startsWith("due") && { due: "2d" }) }),
    );
  await using t = await kit({ flows: [flow] });
  const execution = await t.start(flow, null, { autoClose: false });
  await t.settle();

  for (const whom of [{}, { for: ["user:ann"] }]) {
    const ids: string[] = [];
    for (let cursor: string | null = ""; cursor !== null;) {
      const page: Awaited<ReturnType<typeof t.orchestrator.inbox>> = await t.orchestrator.inbox({
        ...whom,
        limit: 1,
        ...(cursor !== "" && { cursor }),
      });
      ids.push(...page.interrupts.map(({ id }) => id));
      cursor = page.nextCursor;
    }
    expect(ids).toEqual(names);
  }
  await execution.cancel();
});

test("what is due is overdue from its moment on, and what is put off is back at its own", async () => {
  const flow = defineFlow("inbox.moments");
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "anybody", due: "1h" }));
  flow.to("ask ann", (ctx) => ctx.pauseFor({ interruptId: "ann", due: "1h", assign: ["user:ann"] }));
  await using t = await kit({ flows: [flow] });
  const execution = await t.start(flow, null, { autoClose: false });
  await t.settle();
  const [asked] = await execution.getPendingInterrupts();
  const due = asked?.dueAt?.getTime() ?? 0;
  const listed = async (options: InboxOptions) =>
    (await t.orchestrator.inbox(options)).interrupts.map(({ id }) => id).toSorted();

  await t.clock.set(new Date(due - 1));
  expect(await listed({ overdue: true })).toEqual([]);
  await t.clock.set(new Date(due));
  expect(await listed({ overdue: true })).toEqual(["ann", "anybody"]);
  expect(await listed({ overdue: true, for: ["user:ann"] })).toEqual(["ann"]);

  await execution.snooze("ann", { until: new Date(due + 1000), actor: "ann" });
  await t.clock.set(new Date(due + 999));
  expect(await listed({})).toEqual(["anybody"]);
  await t.clock.set(new Date(due + 1000));
  expect(await listed({})).toEqual(["ann", "anybody"]);
  await execution.cancel();
});

test("a link answers its own question: not one that is asked again, not that of a copy, and not past an exclusive claim", async () => {
  const links = new Map<string, string[]>();
  const flow = defineFlow("links.own");
  const ask = { interruptId: "boss", link: true } as const;
  flow.to("ask", (ctx) => ctx.pauseFor(ask)).to("again", (ctx) => ctx.pauseFor(ask));
  flow.when("$interrupt").to("mail", (ctx) => {
    const { link }: InterruptNotice = ctx.input;
    const { id } = ctx.execution;
    if (link !== null) links.set(id, [...(links.get(id) ?? []), link.split("/a/")[1] ?? ""]);
  });
  await using t = await kit({ flows: [flow], publicUrl: "https://example.com/" });
  const answer = (token = "", actor?: string) =>
    t.orchestrator.answerByToken(token, 1, actor === undefined ? {} : { actor });
  const pending = async (one: Execution) => (await one.getPendingInterrupts()).map(({ id }) => id);
  const [own, other] = [
    await t.start(flow, null, { autoCloseTimeout: 0 }),
    await t.start(flow, null, { autoCloseTimeout: 0 }),
  ];
  await t.settle();

  await own.claim("boss", { actor: "ann", exclusive: true });
  for (const actor of [undefined, "bo"])
    expect(await refusal(answer(links.get(own.id)?.[0], actor))).toBeInstanceOf(ClaimedError);
  await own.release("boss", { actor: "ann" });

  await other.continueWith("boss", 1);
  await t.settle();
  expect(await refusal(answer(links.get(other.id)?.[0]))).toBeInstanceOf(TokenClosedError);
  const sealed = await t.start(flow, null);
  await t.settle();
  await sealed.seal();
  for (const look of [
    () => answer(links.get(sealed.id)?.[0]),
    () => t.orchestrator.askedByToken(links.get(sealed.id)?.[0] ?? ""),
  ])
    expect(await refusal(look())).toBeInstanceOf(TokenClosedError);
  expect(await pending(sealed)).toEqual(["boss"]);
  expect(await pending(other)).toEqual(["boss"]);

  const copy = await own.fork({ at: (await own.result.getMeta()).stateVersion });
  const [token] = links.get(own.id) ?? [];
  await own.cancel();
  await t.settle();
  await t.orchestrator.prune({ ids: [own.id], actor: "ann", reason: "asked for" });
  expect(await refusal(answer(token))).toBeInstanceOf(TokenUnknownError);
  expect(await pending(copy)).toEqual(["boss"]);
  for (const one of [other, sealed, copy]) await one.cancel();
});

test("a link answers once; what is unknown, used or over says no more than that, and no token is in the database", async () => {
  const links: string[] = [];
  const flow = defineFlow("links", { state: z.object({ got: z.json() }).partial() });
  flow
    .to("ask", (ctx) => ctx.pauseFor({ ...approval, link: true }))
    .to("after", (ctx) => ctx.setState("got", ctx.input));
  flow.when("$interrupt").to("mail", (ctx) => {
    const { kind, link }: InterruptNotice = ctx.input;
    if (link !== null) links.push(`${kind} ${link}`);
  });
  await using t = await kit({ flows: [flow], publicUrl: "https://example.com/x/" });
  const [first, second] = [
    await t.start(flow, null, { autoCloseTimeout: 0 }),
    await t.start(flow, null, { autoCloseTimeout: 0 }),
  ];
  await t.clock.advance("25h");
  const tokens = links.map((link) => /\/a\/(.*)$/.exec(link)?.[1] ?? "");

  expect(links).toHaveLength(4);
  for (const link of links) expect(link).toMatch(/^(raised|reminded) https:\/\/example\.com\/x\/a\/[\w-]{43}$/);
  const ledgers = JSON.stringify([await first.history(), await second.history(), await first.save()]);
  for (const token of tokens) expect(ledgers).not.toContain(token);

  const asked = await t.orchestrator.askedByToken(tokens[0] ?? "");
  const [own, other] = asked.executionId === first.id ? [first, second] : [second, first];
  const bad = await refusal(t.orchestrator.answerByToken(tokens[0] ?? "", { approved: "maybe" }));
  const client = postgres(t.database, { max: 1 });
  const badBySql = await refusal(
    client`select flowledger.answer_by_token(${tokens[0] ?? ""}, '{"approved": "maybe"}')`,
  );
  await client.end();
  const record = await t.orchestrator.answerByToken(tokens[0] ?? "", { approved: true });
  const used = await refusal(t.orchestrator.answerByToken(tokens[0] ?? "", { approved: true }));

  expect(asked).toMatchObject({ id: "boss", title: "Refund of 900 €", status: "pending" });
  expect(bad).toMatchObject({ code: "CONTRACT_VIOLATED" });
  expect(badBySql).toMatchObject({ code: "FL008", message: expect.stringContaining("approved") as string });
  expect(record).toMatchObject({ status: "resumed", actor: "link", executionId: own.id });
  expect(await own.until("closed")).toEqual({ got: { approved: true } });
  expect(used).toBeInstanceOf(TokenUsedError);
  expect(String(used)).not.toContain(own.id);
  for (const unknown of ["", "x", "A".repeat(43)])
    expect(await refusal(t.orchestrator.answerByToken(unknown, 1))).toBeInstanceOf(TokenUnknownError);
  await other.withdraw("boss");
  const over = [];
  for (const token of tokens.slice(1))
    over.push(await refusal(t.orchestrator.answerByToken(token, { approved: true })));
  for (const error of over) expect(error).toBeInstanceOf(TokenClosedError);
  expect(await own.history({ types: ["interrupt.resumed"] })).toHaveLength(1);
  expect(await t.orchestrator.verify()).toEqual([]);
});
