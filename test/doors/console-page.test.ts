/** The console's page in a real Chromium: mounted under a prefix, behind a login, under the host's own strict policy. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { chromiumPath } from "../support/browser.ts";
import { admin, faultsOf, openStage, picture, tabTo } from "../support/console-stage.ts";
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
const failing = defineFlow("failing");
failing.to("capture", () => {
  throw new RangeError("card 4711 was declined");
});
const parking = defineFlow("parking", {}, { onFailure: "park" });
let isRepaired = false;
parking.to("charge", () => {
  if (!isRepaired) throw new Error("the service is down");
});
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

const flows = [refund, review, failing, parking, evil, many, live];
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
      .getByText(/\d+ match\./)
      .waitFor();
    await page.getByRole("dialog").getByLabel("Reason").fill("the card is good again");
    await page.getByRole("dialog").getByRole("button", { name: "Redrive" }).click();
    await page.getByText("Redrive: done.").waitFor({ state: "attached" });

    expect(who).toMatchObject(Array.from({ length: 3 }, () => ({ actor: "ann@acme.example" })));
    expect(refused).toMatchObject({ code: "FLOW_PAUSED" });
    await expect
      .poll(async () => (await orchestrator.listExecutions({ flow: "failing", redriven: true })).executions.length)
      .toBeGreaterThan(0);
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

  /** Those that a phone lays out in another way. */
  const onPhone = [
    "executions",
    "inbox",
    "failures",
    "flows",
    "operations",
    "schedules",
    "waiting",
    "failed",
    "ledger",
    "state",
    "stream",
    "workers",
  ];
  /** Where one is, in a list that is wider than a phone; and texts that lie under the buttons of their payload. */
  const hidden = `(() => {
    const boxOf = (of) => of.getBoundingClientRect();
    const away = [...document.querySelectorAll(".top nav [aria-current], [role=tab][aria-selected=true]")]
      .filter((at) => boxOf(at).left < 0 || boxOf(at).right > innerWidth);
    const covered = [...document.querySelectorAll(".tree")].flatMap((tree) => {
      const tools = boxOf(tree.querySelector(".tools"));
      return [...tree.querySelectorAll(".leaf *")].filter((leaf) =>
        [...leaf.getClientRects()].some((text) =>
          text.right > tools.left && text.left < tools.right && text.bottom > tools.top && text.top < tools.bottom));
    });
    const plain = [...document.querySelectorAll("a.button[aria-current]")]
      .filter((at) => getComputedStyle(at).boxShadow === "none");
    return [["away", away], ["covered", covered], ["not told apart", plain]].flatMap(([id, all]) =>
      all.map((one) => ({ id, html: one.outerHTML.slice(0, 200) })));
  })()`;
  /** Those of docs/console.md: `UPDATE_SCREENSHOTS=1` takes them anew. */
  const pictures: Readonly<Record<string, readonly string[]>> = {
    "light 1440": [
      "executions",
      "inbox",
      "waiting",
      "failed",
      "state",
      "ledger",
      "failures",
      "flows",
      "operations",
      "workers",
      "schedules",
    ],
    "dark 390": ["executions", "inbox", "waiting"],
  };
  const sizes = [
    { width: 1440, height: 900 },
    { width: 390, height: 844 },
  ];

  test.each(["light", "dark"] as const)(
    "no screen has a fault that axe finds, nor is wider than its window: %s",
    async (colorScheme) => {
      const { page } = stage;
      const [waiting, parked, failed] = [await start(refund), await start(parking), await start(failing)];
      await untilEvent(waiting, "interrupt.raised");
      await failed.waitForClose().catch(() => {});
      const of = ({ id }: { readonly id: string }, tab = "timeline") => `?execution=${id}&tab=${tab}`;
      const screens: Readonly<Record<string, string>> = {
        executions: "",
        inbox: "?screen=inbox",
        failures: "?screen=failures",
        flows: "?screen=flows",
        operations: "?screen=operations",
        workers: "?screen=workers",
        schedules: "?screen=schedules",
        waiting: of(waiting),
        parked: of(parked),
        failed: of(failed),
        data: of(waiting, "data"),
        state: `${of(waiting, "state")}&with=2`,
        ledger: of(waiting, "ledger"),
        stream: of(waiting, "stream"),
        children: of(waiting, "children"),
        empty: "?flow=nothing",
        refused: "?sttus=failed",
        gone: of({ id: "01890000-0000-7000-8000-000000000000" }),
      };
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const faults: unknown[] = [];
      for (const size of sizes) {
        await page.setViewportSize(size);
        for (const [name, query] of Object.entries(screens)) {
          if (size.width < 500 && !onPhone.includes(name)) continue;
          await page.goto(stage.base + query);
          await page.locator("main h1, main .empty, main .problem").first().waitFor();
          await page.locator(".loading").waitFor({ state: "detached" });
          for (const fault of await faultsOf(page)) faults.push({ name, size, ...fault });
          for (const fault of (await page.evaluate(hidden)) as object[]) faults.push({ name, size, ...fault });
          if (await page.evaluate("document.documentElement.scrollWidth > innerWidth"))
            faults.push({ name, size, id: "wide" });
          if (pictures[`${colorScheme} ${size.width}`]?.includes(name) === true)
            await picture(page, `${name}-${size.width}-${colorScheme}`);
        }
        await page.goto(`${stage.base}${of(waiting)}`);
        await page.getByRole("button", { name: "Edit state" }).click();
        for (const fault of await faultsOf(page)) faults.push({ name: "dialog", size, ...fault });
      }
      await page.setViewportSize({ width: 1440, height: 900 });

      expect(faults).toEqual([]);
      expect(stage.complaints).toEqual([]);
    },
  );

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
