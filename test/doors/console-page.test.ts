/** The console's page in a real Chromium: mounted under a prefix, behind a login, under the host's own strict policy. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { chromiumPath } from "../support/browser.ts";
import { admin, openStage, tabTo } from "../support/console-stage.ts";
import { newGate, refusal, untilEvent } from "../support/flows.ts";

const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>\u202Egnp.exe\u0007`;

const refund = defineFlow("refund", { stream: z.any() });
refund
  .to("score", async (ctx) => {
    await ctx.step("look up", () => Promise.resolve(1));
    await ctx.setState("risk", { score: 40, reasons: ["new customer"] });
    return 40;
  })
  .to("ask", (ctx) =>
    ctx.pauseFor({
      type: "approval",
      payload: { question: "Refund 900 € to Ann?" },
      response: z.object({
        approved: z.boolean().meta({ title: "Refund", trueLabel: "Approve the refund", falseLabel: "Decline" }),
        note: z.string().max(20).optional().meta({ description: "Told to the customer" }),
      }),
    }),
  )
  .to("keep", (ctx) => ctx.setState("answer", ctx.input as never));
const review = defineFlow("review");
review
  .to("ask", (ctx) =>
    ctx.pauseFor({
      type: "review",
      response: z.object({
        grade: z.enum(["good", "fair", "poor"]),
        place: z.enum(["a", "b", "c", "d", "e", "f"]),
        count: z.int().min(1).max(5),
        mail: z.email(),
        day: z.iso.date(),
        at: z.iso.datetime(),
        text: z.string(),
        yes: z.boolean(),
        tags: z.array(z.enum(["legal", "tax"])),
        people: z.array(z.object({ name: z.string().min(2), share: z.number().max(1) })),
        how: z.discriminatedUnion("kind", [
          z.object({ kind: z.literal("keep"), why: z.string() }),
          z.object({ kind: z.literal("drop") }),
        ]),
        nobody: z.string().nullable(),
        extra: z.record(z.string(), z.number()),
      }),
    }),
  )
  .to("keep", (ctx) => ctx.setState("answer", ctx.input as never));
const judged = defineFlow("judged");
judged
  .to("ask", (ctx) =>
    ctx.pauseFor({
      type: "judged",
      response: z.object({
        grade: z.enum(["good", "poor"]),
        place: z.enum(["a", "b", "c", "d", "e", "f"]),
        count: z.int().min(1),
        mail: z.email(),
        site: z.url(),
        day: z.iso.date(),
        hour: z.iso.time(),
        at: z.iso.datetime(),
        code: z.string().regex(/^[A-Z]{3}$/),
        story: z.string().min(5),
        sure: z.boolean(),
        marks: z.array(z.enum(["x", "y"])).min(1),
        lines: z.array(z.object({ sku: z.string().min(2) })).min(1),
        address: z.object({ street: z.string().min(2), geo: z.object({ north: z.number().max(90) }) }),
        how: z.discriminatedUnion("kind", [
          z.object({ kind: z.literal("keep"), why: z.string().min(3) }),
          z.object({ kind: z.literal("drop") }),
        ]),
        nobody: z.string().min(2).nullable(),
        extra: z.record(z.string(), z.number()),
      }),
    }),
  )
  .to("keep", (ctx) => ctx.setState("answer", ctx.input as never));
const worded = defineFlow("worded");
worded.to("ask", (ctx) => ctx.pauseFor({ type: "worded", response: z.string().min(3) }));
const bounded = defineFlow("bounded");
bounded.to("ask", (ctx) =>
  ctx.pauseFor({
    type: "bounded",
    response: z.object({
      fine: z.boolean().meta({ description: "Look at its <tyres> too" }),
      share: z.number().gt(0).lt(2.5),
      whole: z.int().positive().lt(7),
    }),
  }),
);
const failing = defineFlow("failing");
failing.to("capture", () => {
  throw new RangeError("card 4711 was declined", { cause: new Error("the bank answered 502") });
});
const parking = defineFlow("parking", {}, { onFailure: "park" });
let isRepaired = false;
parking.to("charge", () => {
  if (!isRepaired) throw new Error("the service is down");
});
const called = defineFlow("called");
called.to("fail", () => {
  throw new RangeError("no account");
});
const calling = defineFlow("calling");
calling.toSubFlow(called);
const evil = defineFlow("evil", { stream: z.any() });
evil.to("ask", async (ctx) => {
  await ctx.setState("shown", { [hostile]: hostile });
  await ctx.putIntoStream({ said: hostile });
  return ctx.pauseFor({ type: hostile, payload: { [hostile]: hostile } });
});
const many = defineFlow("many");
many.to("steps", async (ctx) => {
  for (let index = 0; index < 900; index++) await ctx.step(`step ${index}`, () => Promise.resolve(index));
});
const going = newGate();
const live = defineFlow("live", { stream: z.any() });
live.to("tell", async (ctx) => {
  for (const word of ["first", "second"]) await ctx.putIntoStream(word);
  await ctx.flush();
  await going.passed;
  for (const word of ["third", "last"]) await ctx.putIntoStream(word);
});

const flows = [refund, review, judged, worded, bounded, failing, parking, calling, evil, many, live];
const metadata = { tenant: "acme" };

describe.skipIf(chromiumPath === null)("the page", () => {
  let stage: Awaited<ReturnType<typeof openStage>>;
  beforeAll(async () => {
    stage = await openStage(flows, {
      schedules: [{ flow: failing, cron: "0 7 1 1 *", name: "once a year" }],
    });
  });
  afterAll(() => stage?.[Symbol.asyncDispose]());

  const start = async (flow: (typeof flows)[number]) =>
    stage.orchestrator.flow(flow).startExecution(null as never, { autoCloseTimeout: 0, metadata });

  test("a person answers by the form's own buttons, and the ledger has their name", async () => {
    const { page } = stage;
    const execution = await start(refund);
    await untilEvent(execution, "interrupt.raised");
    await page.goto(`${stage.base}?screen=inbox`);
    const card = page.getByRole("article").filter({ hasText: execution.id });

    await card.getByLabel("Note").evaluate((input: { value: string; removeAttribute(name: string): void }) => {
      input.removeAttribute("maxlength");
    });
    await card.getByLabel("Note").fill("more than twenty characters of it");
    await card.getByRole("button", { name: "Approve the refund" }).click();
    await card.getByText("Too big: expected string to have <=20 characters").waitFor();
    await expect.poll(() => page.evaluate("document.activeElement.getAttribute('aria-invalid')")).toBe("true");
    await card.getByLabel("Note").fill("sorry");
    await card.getByRole("button", { name: "Approve the refund" }).click();
    await card.waitFor({ state: "detached" });

    expect(await execution.waitForClose()).toMatchObject({ answer: { approved: true, note: "sorry" } });
    expect(await execution.history({ types: ["interrupt.resumed"] })).toMatchObject([{ actor: "ann@acme.example" }]);
  });

  test("every kind of field takes what it says, and shows what is refused at its place", async () => {
    const { page } = stage;
    const execution = await start(review);
    await untilEvent(execution, "interrupt.raised");
    await page.goto(`${stage.base}?execution=${execution.id}`);
    const form = page.getByRole("form");
    const issueOf = (label: string) =>
      form.locator(".field", { hasText: label }).locator(".issue").last().textContent({ timeout: 4000 });

    await form.getByLabel("poor").check();
    await form.getByLabel("Place").selectOption("c");
    await form.getByLabel("Count").fill("9");
    await form.getByLabel("Mail").fill("nobody");
    await form.getByLabel("Day").fill("2026-03-01");
    await form.getByLabel("At", { exact: true }).fill("2026-03-01T10:00:00");
    await form.getByLabel("Text").fill("long\ntext");
    await form.getByRole("group", { name: "Yes" }).getByLabel("No").check();
    await form.getByLabel("tax").check();
    await form.getByRole("button", { name: "Add" }).click();
    await form.getByLabel("Name").fill("A");
    await form.getByLabel("Share").fill("2");
    await form.getByLabel("keep").check();
    await form.getByLabel("Why").fill("because");
    await form.getByLabel("Nobody: none").check();
    await form.getByLabel("Extra").fill("{ no JSON");
    await form.getByRole("button", { name: "Answer" }).click();
    await form.getByText("One field is not valid JSON yet.").waitFor();
    await form.getByLabel("Extra").fill('{ "a": "text" }');
    await form.getByRole("button", { name: "Answer" }).click();
    await page.getByText("Some of it was refused: see the fields.").waitFor();

    expect(await issueOf("Count")).toMatch(/<=5/);
    expect(await issueOf("Mail")).toMatch(/email/i);
    expect(await form.locator(".issue").allTextContents()).toHaveLength(5);
    await form.getByLabel("Count").fill("3");
    await form.getByLabel("Mail").fill("a@b.example");
    await form.getByLabel("Name").fill("Ann");
    await form.getByLabel("Share").fill("0.5");
    await form.getByLabel("Extra").fill('{ "a": 1 }');
    await form.getByRole("button", { name: "Answer" }).click();

    expect(await execution.waitForClose()).toMatchObject({
      answer: {
        grade: "poor",
        place: "c",
        count: 3,
        mail: "a@b.example",
        day: "2026-03-01",
        at: new Date("2026-03-01T10:00:00").toISOString(),
        text: "long\ntext",
        yes: false,
        tags: ["tax"],
        people: [{ name: "Ann", share: 0.5 }],
        how: { kind: "keep", why: "because" },
        nobody: null,
        extra: { a: 1 },
      },
    });
  });

  test("a wrong value of each kind, and one that is missing, is refused at its own field", async () => {
    const { page } = stage;
    const execution = await start(judged);
    await untilEvent(execution, "interrupt.raised");
    await page.goto(`${stage.base}?execution=${execution.id}`);
    const form = page.getByRole("form");
    const refused = async () => {
      await form.getByRole("button", { name: "Answer" }).click();
      await page.getByText("Some of it was refused: see the fields.").waitFor();
      return (await page.evaluate(`[...document.querySelectorAll("form .issue")].map((issue) =>
        issue.closest(".field").querySelector("label, legend").textContent.toLowerCase())`)) as string[];
    };

    await form.getByLabel("Extra").fill("{}");
    const missing = await refused();
    await form.getByLabel("poor").check();
    await form.getByLabel("Place").selectOption("c");
    await form.getByLabel("Count").fill("0");
    await form.getByLabel("Mail").fill("nobody");
    await form.getByLabel("Site").fill("nowhere");
    await form.getByLabel("Code").fill("abc");
    await form.getByLabel("Story").fill("long");
    await form.getByRole("button", { name: "Add" }).click();
    await form.getByLabel("Sku").fill("x");
    await form.getByLabel("Street").fill("x");
    await form.getByLabel("North").fill("91");
    await form.getByLabel("keep").check();
    await form.getByLabel("Why").fill("x");
    await form.getByLabel("Nobody", { exact: true }).fill("x");
    await form.getByLabel("Extra").fill('{ "a": "text" }');
    const wrong = await refused();

    const kinds = ["count", "mail", "site", "day", "hour", "at", "code", "story", "sure", "marks"];
    const inside = ["street", "north", "how", "nobody"];
    expect(missing).toEqual(["grade", "place", ...kinds, "lines", ...inside]);
    expect(new Set(wrong)).toEqual(new Set([...kinds, "sku", "why", ...inside, "extra"]));
    await execution.cancel();
  });

  test("a refusal of an answer without fields is said once", async () => {
    const { page } = stage;
    const execution = await start(worded);
    await untilEvent(execution, "interrupt.raised");
    await page.goto(`${stage.base}?execution=${execution.id}`);
    const form = page.getByRole("form");

    await form.getByLabel("Answer").fill("x");
    await form.getByRole("button", { name: "Answer" }).click();
    await form.locator(".issue").first().waitFor();

    expect(await form.locator(".issue").allTextContents()).toEqual([
      "Too small: expected string to have >=3 characters",
    ]);
    await execution.cancel();
  });

  test("a form says which numbers are out, what its buttons are about, and where something cannot be kept", async () => {
    const { page } = stage;
    const [execution, asking] = [await start(bounded), await start(refund)];
    for (const one of [execution, asking]) await untilEvent(one, "interrupt.raised");
    await page.goto(`${stage.base}?execution=${execution.id}`);
    const form = page.getByRole("form");
    await form.getByText("Look at its <tyres> too").waitFor();
    for (const words of ["more than 0, less than 2.5", "1 to 6"])
      await form.getByText(words, { exact: true }).waitFor();
    await page.goto(`${stage.base}?execution=${asking.id}`);
    await form.getByLabel("Note").evaluate((input: { value: string; dispatchEvent(event: Event): void }) => {
      input.value = "a\u0000b";
      input.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await form.getByRole("button", { name: "Approve the refund" }).click();
    await page.getByText("Some of it was refused: see the fields.").waitFor();

    expect(await form.locator(".issue").allTextContents()).toEqual([expect.stringContaining("\\u0000")]);
    for (const one of [execution, asking]) await one.cancel();
  });

  test("who is signed out while they fill in a form is told, wherever the login is, and what they wrote is there after it", async () => {
    const { page } = stage;
    const execution = await start(refund);
    await untilEvent(execution, "interrupt.raised");
    const form = page.getByRole("form");
    for (const elsewhere of [
      null,
      new Response(null, { status: 302, headers: { location: "https://sso.example/login" } }),
    ]) {
      await page.goto(`${stage.base}?execution=${execution.id}`);
      await form.getByLabel("Note").fill("half a");
      stage.access = elsewhere;
      await form.getByRole("button", { name: "Approve the refund" }).click();
      await form
        .locator("..")
        .getByText(/sign in|signed out/)
        .waitFor();
      expect(await form.getByLabel("Note").inputValue()).toBe("half a");
      stage.access = admin;
      await page
        .getByText(/sign in|signed out/)
        .first()
        .waitFor({ state: "attached" });
    }
    await form.getByRole("button", { name: "Approve the refund" }).click();
    await page.getByText("Your answer was taken.").waitFor();
    stage.complaints.length = 0;

    expect(await execution.waitForClose()).toMatchObject({ answer: { approved: true, note: "half a" } });
  });

  test("a question is claimed, given on and put off; a flow is switched; a group of failures goes on", async () => {
    const { page, orchestrator } = stage;
    const [asked, failed] = [await start(refund), await start(failing)];
    await untilEvent(asked, "interrupt.raised");
    await failed.waitForClose().catch(() => {});
    await page.goto(`${stage.base}?screen=inbox`);
    const card = page.getByRole("article").filter({ hasText: asked.id });

    await card.getByRole("button", { name: "Claim" }).click();
    await card.getByText("You have it, since").waitFor();
    await card.getByRole("button", { name: "Delegate" }).click();
    await page.getByRole("dialog").getByLabel("To whom").fill("user:bo");
    await page.getByRole("dialog").getByRole("button", { name: "Delegate" }).click();
    await card.getByText("asks user:bo").waitFor();
    await page.getByRole("link", { name: "Mine and my groups'" }).click();
    await page.getByText("Nothing waits for an answer").waitFor();
    await page.getByRole("link", { name: "All", exact: true }).click();
    await card.getByRole("button", { name: "Put off" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Put off" }).click();
    await page.getByRole("dialog").getByText("Until is empty.").waitFor();
    await page.getByRole("dialog").getByLabel("Until").fill("2100-01-01T09:00");
    await page.getByRole("dialog").getByRole("button", { name: "Put off" }).click();
    await card.waitFor({ state: "detached" });
    const who = await asked.history({ types: ["interrupt.claimed", "interrupt.delegated", "interrupt.snoozed"] });

    await page.goto(`${stage.base}?screen=flows`);
    await page.getByRole("button", { name: "Pause flow many" }).click();
    await page.getByRole("dialog").getByLabel("Starts meanwhile").selectOption("refuse");
    await page.getByRole("dialog").getByLabel("Reason").fill("INC-1");
    await page.getByRole("dialog").getByRole("button", { name: "Pause many" }).click();
    await page.getByText("paused by ann@acme.example").waitFor();
    const refused = await refusal(start(many));
    await page.getByRole("button", { name: "Let go on flow many" }).click();
    await page.getByRole("dialog").getByLabel("Reason").fill("it is over");
    await page.getByRole("dialog").getByRole("button", { name: "Go on many" }).click();
    await page.getByRole("button", { name: "Pause flow many" }).waitFor();

    await page.goto(`${stage.base}?screen=failures`);
    await page.getByRole("button", { name: /Redrive what failed in failing with/ }).click();
    await page
      .getByRole("dialog")
      .getByText(/\d+ match(es)?\./)
      .waitFor();
    await page.getByRole("dialog").getByLabel("Reason").fill("the card is good again");
    await page.getByRole("dialog").getByRole("button", { name: "Redrive" }).click();
    await page.getByRole("row").filter({ hasText: "the card is good again" }).waitFor();

    expect(who).toMatchObject(Array.from({ length: 3 }, () => ({ actor: "ann@acme.example" })));
    expect(refused).toMatchObject({ code: "FLOW_PAUSED" });
    await expect
      .poll(async () => (await orchestrator.listExecutions({ flow: "failing", redriven: true })).executions.length)
      .toBeGreaterThan(0);
  });

  test("what a search found is counted, and gets one command with who and why", async () => {
    const { page, orchestrator } = stage;
    const of = (order: number) =>
      orchestrator.flow(refund).startExecution(null as never, { autoCloseTimeout: 0, metadata: { order } });
    const [first, second, other] = [await of(9), await of(9), await of(10)];
    for (const asking of [first, second, other]) await untilEvent(asking, "interrupt.raised");
    const act = page.getByRole("button", { name: "Act on all of them" });
    const dialog = page.getByRole("dialog");
    await page.goto(stage.base);
    await page.locator(`a[href*="${first.id}"]`).waitFor();
    const isOfferedForAll = await act.isVisible();
    await page.goto(`${stage.base}?flow=refund&status=parked&status=waiting&metadata={"order":9}`);

    await act.focus();
    await page.keyboard.press("Enter");
    await dialog.getByText("0 match.").waitFor();
    await dialog.getByLabel("What").selectOption("cancel");
    await dialog.getByText("2 match.").waitFor();
    await dialog.getByText(/^The first/).click();
    await dialog.getByText(first.id).waitFor();
    await dialog.getByLabel("Reason").fill("INC-9: not asked for");
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("row").filter({ hasText: "INC-9" }).getByText("completed", { exact: true }).waitFor();

    expect(isOfferedForAll).toBe(false);
    for (const target of [first, second]) {
      await untilEvent(target, "execution.closed");
      expect(await target.history({ types: ["cancel.requested"] })).toMatchObject([
        { actor: "ann@acme.example", reason: "INC-9: not asked for" },
      ]);
    }
    expect(await other.history({ types: ["cancel.requested"] })).toEqual([]);
    await other.cancel();
  });

  test("a fork begins at the event that one looks at, in the ledger and in the state of the past", async () => {
    const { page, orchestrator } = stage;
    const execution = await start(refund);
    await untilEvent(execution, "interrupt.raised");
    const fork = page.getByRole("button", { name: "Fork from here" });
    const forkedAfter = async () => {
      await fork.click();
      await page.getByRole("dialog").getByLabel("Reason").fill("to look at it");
      await page.getByRole("dialog").getByRole("button", { name: "Fork" }).click();
      await page.waitForURL((url) => !url.search.includes(execution.id));
      const made = await orchestrator.getExecution(new URL(page.url()).searchParams.get("execution") ?? "");
      const [created] = await made.history();
      await made.cancel();
      return created;
    };

    await page.goto(`${stage.base}?execution=${execution.id}&tab=ledger`);
    await page.getByRole("button", { name: /state\.set/ }).click();
    const set = await execution.history({ types: ["state.set"] });
    const ofLedger = await forkedAfter();
    await page.goto(`${stage.base}?execution=${execution.id}&tab=state&seq=3`);
    const ofState = await forkedAfter();
    stage.access = { actor: "rita", role: "responder" };
    await page.goto(`${stage.base}?execution=${execution.id}&tab=state&seq=3`);
    await page.getByText(/^3 of/).waitFor();
    const offered = await fork.count();
    stage.access = admin;

    expect(ofLedger).toMatchObject({ forkedFrom: { id: execution.id, seq: set[0]?.seq } });
    expect(ofState).toMatchObject({ forkedFrom: { id: execution.id, seq: 3 } });
    expect(offered).toBe(0);
  });

  test("a tab that nobody sees asks nothing, and asks at once when it is seen again", async () => {
    await using context = await stage.page.context().browser()?.newContext();
    const page = await context?.newPage();
    if (!page) throw new Error("there is no browser");
    await page.clock.install();
    await page.goto(stage.base);
    await page.locator("#executions .row").first().waitFor();
    const asked: string[] = [];
    page.on("request", (request) => asked.push(request.url()));
    const becomes = (state: "hidden" | "visible") =>
      page.evaluate(`
        Object.defineProperty(document, "visibilityState", { value: "${state}", configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));`);

    await becomes("hidden");
    await page.clock.runFor(60_000);
    const whileHidden = [...asked];
    const answered = page.waitForResponse(/-\/executions\?/);
    await becomes("visible");
    await answered;
    await page.clock.runFor(2000);
    await expect.poll(() => asked.length).toBeGreaterThanOrEqual(2);

    expect(whileHidden).toEqual([]);
  });

  test("a schedule is run now, and its execution opened", async () => {
    const { page } = stage;
    await page.goto(`${stage.base}?screen=schedules`);
    await page.getByRole("button", { name: "Run now: once a year" }).waitFor();
    const times = await page.locator("tbody tr").filter({ hasText: "once a year" }).locator("time").count();
    await page.getByRole("button", { name: "Run now: once a year" }).click();
    await page.getByRole("dialog").getByLabel("Reason").fill("the auditors ask");
    await page.getByRole("dialog").getByRole("button", { name: "Run once a year now" }).click();
    await page.waitForURL(/execution=/);
    const id = new URL(page.url()).searchParams.get("execution") ?? "";

    expect(times).toBeGreaterThanOrEqual(5);
    expect(await (await stage.orchestrator.getExecution(id)).history({ types: ["execution.started"] })).toMatchObject([
      { actor: "ann@acme.example", reason: "the auditors ask" },
    ]);
  });

  test("a bulk in progress says how far it is and what failed of it, and is ended by who may", async () => {
    const { page, orchestrator } = stage;
    const targets = [await start(refund), await start(refund), await start(refund)];
    for (const target of targets) await untilEvent(target, "interrupt.raised");
    // The second one refuses: what is asked has no chunk of that name.
    const bulk = await orchestrator.bulk({
      action: "skip",
      where: { flow: "refund", status: "waiting" },
      options: { chunk: "nothing", output: null },
      rate: { limit: 1, per: "1h" },
      actor: "bo",
      reason: "INC-7",
    });
    await expect.poll(async () => (await bulk.report()).failed).toBe(1);
    await page.goto(`${stage.base}?screen=operations`);
    const row = page.getByRole("row").filter({ hasText: "INC-7" });

    await row.getByText("1 failed").waitFor();
    await row.getByRole("button", { name: "What failed" }).click();
    await row.getByText(/"nothing"/).waitFor();
    expect(await row.textContent()).toMatch(/skip.*flow refund.*0 of \d+ done, 1 failed, \d+ to come.*bo.*INC-7/);
    await row.getByRole("button", { name: "Cancel skip by bo" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").getByLabel("Reason").fill("wrong chunk");
    await page
      .getByRole("dialog")
      .getByRole("button", { name: /^Cancel skip of/ })
      .click();
    await row.getByText("cancelled", { exact: true }).waitFor();
    await row.getByText(/left out/).waitFor();

    expect(await bulk.execution.history({ types: ["cancel.requested"] })).toMatchObject([
      { actor: "ann@acme.example", reason: "wrong chunk" },
    ]);
    for (const target of targets) await target.cancel();
  });

  test("approve, retry and fork by the keyboard alone", async () => {
    const { page } = stage;
    const [asked, parked] = [await start(refund), await start(parking)];
    await untilEvent(asked, "interrupt.raised");
    await untilEvent(parked, "chunk.parked");

    await page.goto(`${stage.base}?execution=${asked.id}`);
    await tabTo(page, "Approve the refund");
    await page.keyboard.press("Enter");
    await asked.waitForClose();

    await page.goto(`${stage.base}?execution=${parked.id}`);
    await tabTo(page, "Retry");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await tabTo(page, "Reason");
    isRepaired = true;
    await page.keyboard.type("INC-1: repaired");
    await tabTo(page, "Retry");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await parked.waitForClose();

    await tabTo(page, "Fork");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.getByRole("dialog").getByLabel("After event").fill("2");
    await tabTo(page, "Reason");
    await page.keyboard.type("to look at it");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => !url.search.includes(parked.id));

    expect(await parked.history({ types: ["chunk.retried"] })).toMatchObject([
      { actor: "ann@acme.example", reason: "INC-1: repaired" },
    ]);
    const forked = await stage.orchestrator.getExecution(new URL(page.url()).searchParams.get("execution") ?? "");
    expect((await forked.history())[0]).toMatchObject({
      forkedFrom: { id: parked.id, seq: 2, actor: "ann@acme.example", reason: "to look at it" },
    });
  });

  test("an action without a reason is not sent, one that comes too late says who was first, and cancelling is named as the person's", async () => {
    const { page } = stage;
    const execution = await start(refund);
    await untilEvent(execution, "interrupt.raised");
    await page.goto(`${stage.base}?execution=${execution.id}`);

    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Pause" }).click();
    await page.getByText("Say why: the reason is empty.").waitFor();
    await execution.cancel("gone", { actor: "bo" });
    await untilEvent(execution, "execution.closed");
    await page.getByRole("dialog").getByLabel("Reason").fill("wait");
    await page.getByRole("dialog").getByRole("button", { name: "Pause" }).click();
    await page.getByRole("dialog").getByRole("alert").getByText("is closed").waitFor();
    await page.getByRole("dialog").getByText("Before you").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });

    await page.locator("header .status", { hasText: "cancelled" }).waitFor();
    expect(await execution.history({ types: ["execution.paused"] })).toEqual([]);
  });

  test("a dialog proposes where it was looked at; what was called is not redriven alone; what is put off is shown where asked", async () => {
    const { page, orchestrator } = stage;
    const dialog = page.getByRole("dialog");
    const open = async (id: string, name: string) => {
      await page.goto(`${stage.base}?execution=${id}`);
      await page.getByRole("button", { name, exact: true }).click();
    };
    const asking = await start(refund);
    await untilEvent(asking, "interrupt.raised");
    const parent = await start(calling);
    await refusal(parent.waitForClose());
    const [{ child }] = [await untilEvent(parent, "child.started")];

    await open(asking.id, "Edit state");
    const { stateVersion } = await asking.result.getMeta();
    expect(await dialog.getByLabel("As of event").inputValue()).toBe(String(stateVersion));
    await open(parent.id, "Fork");
    const ended = (await parent.history()).length;
    expect(await dialog.getByLabel("After event").inputValue()).toBe(String(ended - 1));
    expect(await page.getByRole("button", { name: "Redrive", exact: true }).isVisible()).toBe(true);
    await open(child, "Fork");
    expect(await page.getByRole("button", { name: "Redrive", exact: true }).isVisible()).toBe(false);

    const [question] = await asking.getPendingInterrupts();
    await asking.snooze(question?.id ?? "", { actor: "ann", until: "2999-01-01T00:00:00Z" });
    const { interrupts } = await orchestrator.inbox({ flow: "refund" });
    expect(interrupts.map(({ executionId }) => executionId)).not.toContain(asking.id);
    await page.goto(`${stage.base}?screen=inbox`);
    await page.getByRole("link", { name: "Put off too" }).click();
    await page.getByRole("article").filter({ hasText: asking.id }).getByText("put off until").waitFor();
    await asking.cancel();
  });

  test("what an execution says is text: no script, no hidden character, in no view", async () => {
    const { page } = stage;
    const execution = await start(evil);
    await untilEvent(execution, "interrupt.raised");
    for (const tab of ["timeline", "data", "state", "ledger", "stream"]) {
      await page.goto(`${stage.base}?execution=${execution.id}&tab=${tab}`);
      await page.getByRole("article").waitFor();
      await page.getByText("\\u202egnp.exe").first().waitFor();

      expect([tab, await page.locator("img").count(), await page.title()]).toEqual([
        tab,
        0,
        expect.stringContaining("flowledger"),
      ]);
      const shown = await page.locator("body").textContent();
      for (const hidden of ["\u202e", "\u0007"]) expect(shown).not.toContain(hidden);
    }
    await page.goto(stage.base);
    await page.getByRole("link", { name: "evil" }).first().waitFor();
    expect(stage.complaints).toEqual([]);
  });

  test("it says why one failed, on a phone; a link, a reload and the way back keep the place, a refresh the focus", async () => {
    const { page } = stage;
    await page.setViewportSize({ width: 390, height: 844 });
    const execution = await start(failing);
    await execution.waitForClose().catch(() => {});
    await page.goto(`${stage.base}?flow=failing`);
    const link = page.locator(`a[href*="${execution.id}"]`);

    await link.click();
    await page.getByText("card 4711 was declined").first().waitFor();
    await page.getByText("Stack").first().click();
    await page.getByText("Caused by: Error: the bank answered 502").first().waitFor();
    const widths = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]");
    await page.getByRole("tab", { name: "Ledger" }).click();
    await page.getByText("chunk.failed").first().waitFor();
    const address = page.url();
    await page.reload();
    await page.getByText("chunk.failed").first().waitFor();
    await page.goBack();
    await link.waitFor();
    const list = page.url();
    await link.focus();
    const other = await start(failing);
    await other.waitForClose().catch(() => {});
    await page.locator(`a[href*="${other.id}"]`).waitFor();
    const focused = await page.evaluate("document.activeElement.getAttribute('href')");
    await page.setViewportSize({ width: 1440, height: 900 });

    expect(widths).toEqual([390, 390]);
    expect(new URL(address).searchParams.get("execution")).toBe(execution.id);
    expect(new URL(address).searchParams.get("tab")).toBe("ledger");
    expect(new URL(list).search).toBe("?flow=failing");
    expect(focused).toContain(execution.id);
  });

  test("the search is the address, a view is kept, and what is no filter is said", async () => {
    const { page } = stage;
    await (await start(failing)).waitForClose().catch(() => {});
    await page.goto(stage.base);
    await page.getByRole("combobox", { name: "Search executions" }).fill("flow:failing meta.tenant:acme declined");
    await page.keyboard.press("Enter");
    // Rows were there before.
    await page.waitForURL((url) => url.searchParams.has("flow"));
    await page.locator("#executions .row").first().waitFor();
    const { searchParams } = new URL(page.url());
    await page.getByRole("button", { name: "completed" }).click();
    await page.getByText("Nothing fits these filters").waitFor();
    await page.getByRole("button", { name: "Keep this view" }).click();
    await page.keyboard.type("declined cards");
    await page.keyboard.press("Enter");
    await page.goto(stage.base);
    await page.getByRole("link", { name: "declined cards" }).click();
    await page.getByText("Nothing fits these filters").waitFor();
    const kept = await page.getByRole("combobox", { name: "Search executions" }).inputValue();
    await page.goto(`${stage.base}?sttus=failed`);
    await page.getByRole("alert").getByText('there is no filter "sttus"').waitFor();

    expect(Object.fromEntries(searchParams)).toEqual({
      flow: "failing",
      errorLike: "declined",
      metadata: '{"tenant":"acme"}',
    });
    expect(kept).toBe("flow:failing error:declined meta.tenant:acme");
  });

  test("a long timeline is in the page as far as it is seen", async () => {
    const { page } = stage;
    const execution = await start(many);
    await execution.waitForClose();
    await page.goto(`${stage.base}?execution=${execution.id}`);
    const list = page.getByRole("list", { name: "Timeline" });
    await list.getByText("step 0", { exact: false }).first().waitFor();

    let most = 0;
    // Pages come as the end is reached.
    const atEnd = async () => {
      most = Math.max(most, await list.getByRole("listitem").count());
      await list.evaluate((box: { scrollTop: number; scrollHeight: number }) => {
        box.scrollTop = box.scrollHeight;
      });
      return list.getByText("step 899").count();
    };
    await expect.poll(atEnd).toBeGreaterThan(0);

    expect(most).toBeLessThan(100);
    expect(await list.getByRole("listitem").last().getAttribute("aria-setsize")).toBe("901");
  });

  test("the stream is live, and goes on where it was after the server was gone", async () => {
    const { page } = stage;
    const execution = await start(live);
    await page.goto(`${stage.base}?execution=${execution.id}&tab=stream`);
    const log = page.getByRole("log");
    await log.getByText("second").waitFor();

    await stage.restart();
    going.open();
    await execution.waitForClose();
    await log.getByText("last").waitFor();
    await page.getByText("The stream has ended").waitFor();

    expect(await log.locator("li").allTextContents()).toEqual(["first", "second", "third", "last"]);
  });

  test("a viewer sees no buttons, a tenant no other's, and who is signed out is told", async () => {
    const { page } = stage;
    const execution = await start(refund);
    await untilEvent(execution, "interrupt.raised");
    stage.access = { actor: "vera", role: "viewer", where: { metadata } };
    await page.goto(`${stage.base}?execution=${execution.id}`);
    await page.getByText("You may look, and not answer.").waitFor();
    const buttons = await page.getByRole("group", { name: "Actions" }).getByRole("button").count();
    stage.access = { actor: "olga", role: "operator", where: { metadata: { tenant: "other" } } };
    await page.goto(`${stage.base}?execution=${execution.id}`);
    await page.getByText("There is no such execution").waitFor();
    await page.goto(stage.base);
    await page.getByText("No execution yet").waitFor();
    const screens = await page.getByRole("navigation", { name: "Screens" }).getByRole("link").allTextContents();
    stage.access = null;
    await page.getByRole("alert").getByText("sign in").waitFor();
    stage.access = admin;
    stage.complaints.length = 0;

    expect(buttons).toBe(0);
    expect(screens).toEqual(["Executions", "Inbox", "Failures", "Flows", "Operations"]);
  });
});
