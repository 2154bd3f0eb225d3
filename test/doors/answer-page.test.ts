/** The page behind a link: what it shows, what a form without JavaScript sends, and what it refuses. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { createAnswerPage, toNodeHandler } from "../../src/console.ts";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { chromiumPath, openBrowser } from "../support/browser.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const hostile = "<script>alert(1)</script>\u202e";
const Review = z.object({
  grade: z.enum(["good", "fair"]).meta({ title: "Grade" }),
  place: z.enum(["a", "b", "c", "d", "e", "f"]).optional(),
  count: z.int().min(1).max(5),
  mail: z.email(),
  at: z.iso.datetime(),
  text: z.string(),
  tags: z.array(z.enum(["legal", "tax"])),
  people: z.array(z.object({ name: z.string() })),
  how: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("keep"), why: z.string().min(3) }),
    z.object({ kind: z.literal("drop") }),
  ]),
  nobody: z.number().nullable(),
  'A & "B" <c>/~': z.string(),
  approved: z.boolean().meta({ trueLabel: "Approve", falseLabel: "Decline" }),
});
const schemas: Readonly<Record<string, z.ZodType>> = {
  approval: z.object({
    approved: z.boolean().meta({ trueLabel: "Approve the refund", falseLabel: "Decline" }),
    note: z.string().max(20).optional(),
  }),
  review: Review,
  yes: z.boolean(),
  any: z.any(),
  story: z.object({ story: z.string().max(300), more: z.number().gt(0).lt(2.5), whole: z.int().positive().lt(7) }),
  named: z.object({
    fine: z.boolean().meta({ title: "Is the car fine?", description: "Look at its <tyres> too" }),
    note: z.string().max(20).optional(),
  }),
};
const links = new Map<string, string>();
const flow = defineFlow("linked");
flow
  .to("ask", (ctx) =>
    ctx.pauseFor({
      interruptId: "q",
      type: "approval",
      title: `Refund ${hostile}`,
      payload: { amount: 900, iban: "DE00", said: hostile },
      response: schemas[String(ctx.input)] ?? z.any(),
      link: true,
    }),
  )
  .to("keep", (ctx) => ctx.setState("answer", ctx.input as never));
flow.when("$interrupt").to("tell", (ctx) => {
  if (ctx.input.kind !== "raised") return;
  links.set(ctx.execution.id, ctx.input.link ?? "");
});

const orchestrator = await serving(database, [flow], { publicUrl: "https://example.com/x" });
afterAll(() => orchestrator.close());
const pages = createAnswerPage({
  orchestrator,
  redact: (value, { path }) => (path.at(-1) === "iban" ? "•••" : value),
  actor: (request) => request.headers.get("x-person") ?? "link",
});

test("all of a question goes through redact(), its title too", async () => {
  const { path } = await asked("yes");
  const hiding = createAnswerPage({ orchestrator, redact: () => "•••" });

  const text = await (await hiding.fetch(new Request(`http://app.example${path}`))).text();

  expect(text).toContain("•••");
  for (const word of ["Refund", "900", "alert"]) expect(text).not.toContain(word);
});

/** An execution that asks, and the path of its link. */
async function asked(schema: string): Promise<{ execution: Execution; path: string }> {
  const execution = await orchestrator.flow(flow).startExecution(schema, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.linked");
  await expect.poll(() => links.get(execution.id)).toBeDefined();
  return { execution, path: new URL(links.get(execution.id) ?? "").pathname };
}

const get = (path: string, method = "GET") => pages.fetch(new Request(`https://example.com${path}`, { method }));
const post = (
  path: string,
  fields: Record<string, string> | URLSearchParams,
  type = "application/x-www-form-urlencoded",
) =>
  pages.fetch(
    new Request(`https://example.com${path}`, {
      method: "POST",
      headers: { "content-type": type, "x-person": "ann" },
      body: new URLSearchParams(fields).toString(),
    }),
  );

test("a look answers nothing, however often; what is stored is text, and its headers keep the link", async () => {
  const { execution, path } = await asked("approval");

  const [first, second, head] = [await get(path), await get(path), await get(path, "HEAD")];
  const html = await first.text();

  expect([first.status, second.status, head.status]).toEqual([200, 200, 200]);
  expect(html).toContain("Approve the refund");
  expect(html).toContain('<meta name="robots" content="noindex">');
  expect(html).toContain("&lt;script&gt;alert(1)&lt;/script&gt;\\u202e");
  expect(html).toContain("•••");
  expect(html).not.toMatch(/<script|\u202e|DE00/);
  expect(Object.fromEntries(first.headers)).toMatchObject({
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "content-security-policy": expect.stringMatching(/default-src 'none'; style-src 'sha256-.+'; form-action 'self'/),
  });
  expect((await execution.getPendingInterrupts()).length).toBe(1);
  await execution.cancel();
});

test("the form answers once, in the name of the person; then the page says when", async () => {
  const { execution, path } = await asked("approval");

  const refused = await post(path, { "answer/approved": "true", "answer/note": "more than twenty characters" });
  const html = await refused.text();
  const answered = await post(path, { "answer/approved": "true", "answer/note": "" });
  const again = await post(path, { "answer/approved": "false" });

  expect(refused.status).toBe(400);
  expect(html).toContain("note: Too big");
  expect(html).toContain("more than twenty characters");
  expect([answered.status, again.status]).toEqual([200, 410]);
  expect(await again.text()).toMatch(/answered on \d{4}-/);
  expect((await get(path)).status).toBe(410);
  expect(await execution.waitForClose()).toEqual({ answer: { approved: true } });
  expect(await execution.history({ types: ["interrupt.resumed"] })).toMatchObject([{ actor: "ann" }]);
});

test("every kind of field is read as what it is", async () => {
  const { execution, path } = await asked("review");
  const fields = new URLSearchParams({
    "answer/grade": "1",
    "answer/place": "",
    "answer/count": "9",
    "answer/mail": "ann@example.com",
    "answer/at": "2026-03-01T10:00",
    "answer/text": "long\r\ntext",
    "answer/people": "{ no JSON",
    "answer/how": "0",
    "answer/how/0/why": "because",
    "answer/nobody?": "none",
    'answer/A & "B" <c>~1~0': "odd",
    "answer/approved": "false",
  });
  fields.append("answer/tags", "0");
  fields.append("answer/tags", "1");

  const noJson = await post(path, fields);
  fields.set("answer/people", '[{"name": "Ann"}]');
  const wrong = await post(path, fields);
  fields.set("answer/count", "3");
  const right = await post(path, fields);

  expect([noJson.status, wrong.status, right.status]).toEqual([400, 400, 200]);
  expect(await noJson.text()).toContain("people: this is not valid JSON");
  const again = await wrong.text();
  expect(again).toContain("count: Too big");
  // What was typed is there again, at the same names, and no line end has changed.
  expect(again).toContain('name="answer/A &amp; &quot;B&quot; &lt;c&gt;~1~0" rows="4" required>odd</textarea>');
  expect(again).toContain(">long\ntext</textarea>");
  expect(await execution.waitForClose()).toEqual({
    answer: {
      grade: "fair",
      count: 3,
      mail: "ann@example.com",
      at: "2026-03-01T10:00:00Z",
      text: "long\ntext",
      tags: ["legal", "tax"],
      people: [{ name: "Ann" }],
      how: { kind: "keep", why: "because" },
      nobody: null,
      'A & "B" <c>/~': "odd",
      approved: false,
    },
  });
});

test("a line end is one character, as the browser counts it, and no line is lost in a page that comes back", async () => {
  const { execution, path } = await asked("story");
  const story = `\n${"line\n".repeat(59)}last`;
  const sent = (more: string) =>
    post(path, { "answer/story": story.replaceAll("\n", "\r\n"), "answer/more": more, "answer/whole": "1" });

  const html = await (await sent("0")).text();
  expect(html).toContain(` required>\n\nline\nline\n`);
  expect((await sent("1")).status).toBe(200);

  expect(await execution.waitForClose()).toEqual({ answer: { story, more: 1, whole: 1 } });
});

test("a bound that is out is none that a browser takes", async () => {
  const { execution, path } = await asked("story");
  const html = await (await get(path)).text();

  expect(html).toMatch(/name="answer\/whole" value="" min="1" max="6" step="1"/);
  expect(html).toContain("more than 0, less than 2.5");
  await execution.cancel();
});

test("what cannot be kept is refused at its field, and is no failure of the server", async () => {
  const { execution, path } = await asked("approval");

  const refused = await post(path, { "answer/approved": "true", "answer/note": "a\u0000b" });
  const html = await refused.text();

  expect([refused.status, html.includes("contains \\u0000")]).toEqual([400, true]);
  expect(html).toContain("note");
  expect((await post(path, { "answer/approved": "true" })).status).toBe(200);
  await execution.waitForClose();
});

test("what was typed comes back as it was typed, with characters that nobody sees", async () => {
  const { execution, path } = await asked("approval");
  const note = 'a family 👨‍👩‍👧 of more than "twenty"';

  const html = await (await post(path, { "answer/approved": "true", "answer/note": note })).text();

  expect(html).toContain(`value="${note.replaceAll('"', "&quot;")}"`);
  await execution.cancel();
});

test("the two buttons say what they are about", async () => {
  const { execution, path } = await asked("named");
  const html = await (await get(path)).text();

  expect(html).toContain("Is the car fine?");
  expect(html).toContain("Look at its &lt;tyres&gt; too");
  await execution.cancel();
});

test("what is no link, no form or no more asked is said, and nothing is written", async () => {
  const { execution, path } = await asked("yes");
  const strange = path.replace(/[\w-]{43}$/, "A".repeat(43));

  const statuses = {
    root: (await get("/x/a/")).status,
    short: (await get("/x/a/abc")).status,
    strange: (await get(strange)).status,
    strangePost: (await post(strange, { answer: "true" })).status,
    json: (await post(path, { answer: "true" }, "application/json")).status,
    put: (await get(path, "PUT")).status,
    empty: (await post(path, {})).status,
    large: (await post(path, { answer: "x".repeat(1_100_000) })).status,
  };
  expect((await get(path, "PUT")).headers.get("allow")).toBe("GET, HEAD, POST");
  await execution.claim("q", { actor: "bo", exclusive: true });
  const claimed = (await post(path, { answer: "true" })).status;
  await execution.release("q", { actor: "bo" });
  await execution.continueWith("q", false);
  const late = await post(path, { answer: "true" });

  expect(statuses).toEqual({
    root: 404,
    short: 404,
    strange: 404,
    strangePost: 404,
    json: 415,
    put: 405,
    empty: 400,
    large: 413,
  });
  expect(claimed).toBe(409);
  expect(late.status).toBe(410);
  expect(await execution.waitForClose()).toEqual({ answer: false });
  for (const options of [{}, { orchestrator: 7 }, { orchestrator, redact: 7 }, { orchestrator, actr: () => "ann" }])
    expect(() => createAnswerPage(options as never)).toThrow(/createAnswerPage\(\)/);
});

test.skipIf(chromiumPath === null)("a browser without JavaScript answers by it", async () => {
  const handler = toNodeHandler(pages);
  const server = createServer((request, response) => void handler(request, response));
  await new Promise<void>((resolved) => server.listen(0, "127.0.0.1", resolved));
  const { port } = server.address() as AddressInfo;
  const browser = await openBrowser();
  try {
    const { execution, path } = await asked("approval");
    const page = await browser.newPage({ javaScriptEnabled: false, viewport: { width: 390, height: 844 } });
    page.setDefaultTimeout(10_000);
    await page.goto(`http://127.0.0.1:${port}${path}`);
    await page.getByLabel("Note").fill("thank you");
    await page.getByRole("button", { name: "Approve the refund" }).click();
    await page.getByText("Your answer was taken.").waitFor();

    expect(await execution.waitForClose()).toEqual({ answer: { approved: true, note: "thank you" } });
  } finally {
    await browser.close();
    server.close();
  }
});
