/** How the console looks: every screen in every state, on a desk and on a phone, light and dark. */
import type { Route } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { chromiumPath } from "../support/browser.ts";
import { faultsOf, openStage, picture } from "../support/console-stage.ts";
import { nothing } from "../support/ledger.ts";
import { untilEvent } from "../support/flows.ts";

const refund = defineFlow("refund", { stream: z.any() });
refund
  .to("score", async (ctx) => {
    await ctx.step("look up", () => Promise.resolve(1));
    await ctx.putIntoStream({ said: "looked up" });
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
review.to("ask", (ctx) =>
  ctx.pauseFor({
    type: "review",
    response: z.object({
      grade: z.enum(["good", "fair", "poor"]),
      place: z.enum(["a", "b", "c", "d", "e", "f"]),
      count: z.int().min(1).max(5),
      day: z.iso.date(),
      text: z.string(),
      tags: z.array(z.enum(["legal", "tax"])),
      people: z.array(z.object({ name: z.string(), share: z.number().max(1) })).min(1),
      how: z.discriminatedUnion("kind", [
        z.object({ kind: z.literal("keep"), why: z.string() }),
        z.object({ kind: z.literal("drop") }),
      ]),
      nobody: z.string().nullable(),
      extra: z.record(z.string(), z.number()),
    }),
  }),
);
const failing = defineFlow("failing");
failing.to("capture", () => {
  throw new RangeError("card 4711 was declined", { cause: new Error("the bank answered 502") });
});
const parking = defineFlow("parking", {}, { onFailure: "park" });
parking.to("charge", () => {
  throw new Error("the service is down");
});
const child = defineFlow("child");
child.to("work", nothing);
const parent = defineFlow("parent", {}, { limits: { concurrency: 10, rate: { limit: 100, per: "1m" } } });
parent.to("call", async (ctx) => void (await ctx.call(child, null as never)));

const flows = [refund, review, failing, parking, child, parent];

/** Where one is, in a list that is wider than a phone; what is covered, cut off, told by colour alone, or without its column's name. */
const hidden = `(() => {
  const boxOf = (of) => of.getBoundingClientRect();
  const all = (of) => [...document.querySelectorAll(of)];
  const away = all(".top nav [aria-current], [role=tab][aria-selected=true]")
    .filter((at) => boxOf(at).left < 0 || boxOf(at).right > innerWidth);
  const covered = all(".tree").flatMap((tree) => {
    const tools = boxOf(tree.querySelector(".tools"));
    return [...tree.querySelectorAll(".leaf *")].filter((leaf) =>
      [...leaf.getClientRects()].some((text) =>
        text.right > tools.left && text.left < tools.right && text.bottom > tools.top && text.top < tools.bottom));
  });
  const plain = all("a.button[aria-current]").filter((at) => getComputedStyle(at).boxShadow === "none");
  const cut = all(".bar-row, .event-row").flatMap((row) =>
    [...row.children].filter((at) => at.scrollHeight > boxOf(row).height + 1));
  const colour = all(".bar-row").filter((row) => row.querySelector(".bar-label svg") === null);
  const isCard = (cell) => getComputedStyle(cell.closest("tr")).display === "block";
  const nameless = all(".rows tbody td").filter((cell) => isCard(cell) &&
    /^([\\d.,]+( (ms|s|min|h|d)\\b.*)?|none|nothing|not known|–|-)$/.test(cell.innerText.trim()) &&
    getComputedStyle(cell, "::before").content === "none");
  const wide = all(".field button").filter((at) => boxOf(at).width > 300);
  return Object.entries({ away, covered, plain, cut, colour, nameless, wide }).flatMap(([id, found]) =>
    found.map((one) => ({ id, html: one.outerHTML.slice(0, 200) })));
})()`;

/** What the server says in each state of a screen: the page and what is beside it answer as they are. */
const states = {
  rows: null,
  loading: () => undefined,
  error: (route) =>
    route.fulfill({
      status: 503,
      json: { code: "CONNECTION_FAILED", message: "the database does not answer as it should: try again in a moment" },
    }),
  empty: (route) => withRows(route, () => []),
  // More than a page of a list has. Of forms, as many as a page may have.
  many: (route) =>
    withRows(route, (rows) =>
      Array.from({ length: route.request().url().includes("/inbox") ? 200 : 1000 }, (_, index) => {
        const row = rows[index % rows.length] ?? {};
        const another = (value: unknown) => (typeof value === "number" ? 1000 - index : `${String(value)}-${index}`);
        const names = ["id", "flow", "name", "cursor", "seq"].filter((name) => name in row);
        return { ...row, ...Object.fromEntries(names.map((name) => [name, another(row[name])])) };
      }),
    ),
} satisfies Record<string, ((route: Route) => unknown) | null>;

type Rows = readonly Readonly<Record<string, unknown>>[];

async function withRows(route: Route, change: (rows: Rows) => Rows): Promise<void> {
  const response = await route.fetch();
  const body = (await response.json()) as { rows: Rows };
  await route.fulfill({ response, json: { ...body, rows: change(body.rows), nextCursor: null } });
}

/** Screens whose rows come from a list; the others have no fewer and no more. */
const listed = [
  "executions",
  "inbox",
  "failures",
  "flows",
  "operations",
  "workers",
  "schedules",
  "waiting",
  "ledger",
  "children",
];
/** Nothing is read for them, or it is the list's answer that matters. */
const still = ["empty", "refused", "gone", "data", "stream", "parked", "failed", "form"];

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
    "data",
    "stream",
    "children",
  ],
  "dark 390": ["executions", "inbox", "waiting", "flows"],
};
const sizes = [
  { width: 1440, height: 900 },
  { width: 390, height: 844 },
];

describe.skipIf(chromiumPath === null)("the page", () => {
  let stage: Awaited<ReturnType<typeof openStage>>;
  let screens: Readonly<Record<string, string>>;
  beforeAll(async () => {
    stage = await openStage(flows, { schedules: [{ flow: failing, cron: "0 7 1 1 *", name: "once a year" }] });
    const start = (flow: (typeof flows)[number]) =>
      stage.orchestrator.flow(flow).startExecution(null as never, {
        autoCloseTimeout: 0,
        metadata: { tenant: "acme", note: "a long one ".repeat(9) },
      });
    const [waiting, form, parked, failed, called] = [
      await start(refund),
      await start(review),
      await start(parking),
      await start(failing),
      await start(parent),
    ];
    for (const asking of [waiting, form]) await untilEvent(asking, "interrupt.raised");
    await untilEvent(parked, "chunk.parked");
    await failed.waitForClose().catch(() => {});
    await called.waitForClose();
    const bulk = await stage.orchestrator.bulk({
      action: "skip",
      where: { flow: "refund" },
      options: { chunk: "nothing", output: null },
      actor: "bo",
      reason: "INC-7",
    });
    await bulk.wait();
    const of = ({ id }: { readonly id: string }, tab = "timeline") => `?execution=${id}&tab=${tab}`;
    screens = {
      executions: "",
      inbox: "?screen=inbox",
      failures: "?screen=failures",
      flows: "?screen=flows",
      picture: "?screen=flows&graph=refund",
      operations: "?screen=operations",
      workers: "?screen=workers",
      schedules: "?screen=schedules",
      waiting: of(waiting),
      form: of(form),
      parked: of(parked),
      failed: of(failed),
      graph: of(waiting, "graph"),
      data: of(waiting, "data"),
      state: `${of(waiting, "state")}&with=2`,
      ledger: of(waiting, "ledger"),
      stream: of(waiting, "stream"),
      children: of(called, "children"),
      empty: "?flow=nothing",
      refused: "?sttus=failed",
      gone: of({ id: "01890000-0000-7000-8000-000000000000" }),
    };
  });
  afterAll(() => stage?.[Symbol.asyncDispose]());
  afterEach(() => stage.page.unrouteAll({ behavior: "ignoreErrors" }));

  const cells = (["light", "dark"] as const).flatMap((scheme) =>
    (Object.keys(states) as (keyof typeof states)[]).map((state) => [scheme, state] as const),
  );
  test.each(cells)(
    "no screen has a fault that axe finds, is wider than its window, or hides something: %s, %s",
    async (scheme, state) => {
      const { page } = stage;
      const answer = states[state];
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      // What a screen reads of its own: not who it is, not the head of an execution, and no stream of events.
      if (answer !== null)
        await page.route(/\/-\/(?!(?:me|count|executions\/[^/?]+(?:\/watch|\/stream)?)(?:\?|$)).*/, async (route) => {
          await answer(route);
        });
      const faults: unknown[] = [];
      const shown = Object.entries(screens).filter(
        ([name]) =>
          state === "rows" || (!still.includes(name) && (!["empty", "many"].includes(state) || listed.includes(name))),
      );
      // Colours are those of a scheme and places those of a size, so the other states need each once.
      const tried = state === "rows" ? sizes : sizes.filter(({ width }) => width > 1000 === (scheme === "light"));
      for (const size of tried) {
        await page.setViewportSize(size);
        for (const [name, query] of shown) {
          await page.goto(stage.base + query);
          await page.locator("main h1, main .empty, main .problem").first().waitFor();
          if (state === "loading") await page.locator(".loading").first().waitFor();
          else await page.locator(".loading").waitFor({ state: "detached" });
          if (state === "error") await page.getByRole("alert").getByText("the database does not answer").waitFor();
          if (state === "empty") await page.locator(".empty").waitFor();
          for (const fault of await faultsOf(page)) faults.push({ name, size, ...fault });
          for (const fault of (await page.evaluate(hidden)) as object[]) faults.push({ name, size, ...fault });
          if (await page.evaluate("document.documentElement.scrollWidth > innerWidth"))
            faults.push({ name, size, id: "wider" });
          if (state === "rows" && pictures[`${scheme} ${size.width}`]?.includes(name) === true)
            await picture(page, `${name}-${size.width}-${scheme}`);
        }
      }

      expect(faults).toEqual([]);
      expect(stage.complaints).toEqual([]);
    },
    240_000,
  );

  test.each(["light", "dark"] as const)("no dialog has one either: %s", async (colorScheme) => {
    const { page } = stage;
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const faults: unknown[] = [];
    for (const size of sizes) {
      await page.setViewportSize(size);
      const dialogs: Readonly<Record<string, readonly [screen: string, button: string | RegExp]>> = {
        "edit state": [screens["waiting"] ?? "", "Edit state"],
        fork: [screens["failed"] ?? "", "Fork"],
        delegate: [screens["inbox"] ?? "", "Delegate"],
        "put off": [screens["inbox"] ?? "", "Put off"],
        "pause a flow": [screens["flows"] ?? "", "Pause flow child"],
        "many at once": ["?flow=child&status=completed", "Act on all of them"],
        "a group": [screens["failures"] ?? "", /^Redrive what failed/],
      };
      for (const [name, [screen, button]] of Object.entries(dialogs)) {
        await page.goto(stage.base + screen);
        await page.getByRole("button", { name: button }).first().click();
        await page.getByRole("dialog").waitFor();
        await page.getByText("Counting…").waitFor({ state: "detached" });
        for (const fault of await faultsOf(page)) faults.push({ name, size, ...fault });
        if (await page.evaluate("document.documentElement.scrollWidth > innerWidth"))
          faults.push({ name, size, id: "wider" });
      }
    }

    expect(faults).toEqual([]);
  });

  test("a length says no part that is nothing, and no sixty seconds", async () => {
    const { page } = stage;
    await page.goto(`${stage.base}${screens["flows"]}`);
    await page.getByText("100 per 1 min", { exact: true }).waitFor();
    await page.route(/-\/workers/, (route) =>
      withRows(route, (rows) =>
        [59_600, 119_700, 3_600_000, 176_400_000].map((silentMs, id) => ({ ...rows[0], id: String(id), silentMs })),
      ),
    );
    await page.goto(`${stage.base}${screens["workers"]}`);
    await page.getByText("2 d 1 h", { exact: true }).waitFor();

    expect(await page.locator("td:last-child").allTextContents()).toEqual(["1 min", "2 min", "1 h", "2 d 1 h"]);
  });
});
