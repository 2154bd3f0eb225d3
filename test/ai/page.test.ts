/** What a page is told of a stream: pure, by the items. The SDK's own reader makes the message of it. */
import { readUIMessageStream, type UIMessage, type UIMessageChunk } from "ai";
import { expect, test } from "vitest";
import { Page } from "../../src/ai/page.ts";
import { toUIMessageChunks } from "../../src/ai/ui.ts";

const step = (from: string, ...chunks: UIMessageChunk[]) =>
  [{ type: "start-step" as const }, ...chunks, { type: "finish-step" as const }].map((chunk) => ({ ...chunk, from }));
const text = (from: string, words: string): UIMessageChunk[] => [
  { type: "text-start", id: from },
  { type: "text-delta", id: from, delta: words },
  { type: "text-end", id: from },
];
const call = (toolCallId: string): UIMessageChunk => ({
  type: "tool-input-available",
  toolCallId,
  toolName: "note",
  input: {},
});
const ask = (id: string, toolCallId: string, action = "pause") => ({
  kind: "interrupt",
  item: { type: "interrupt", action, interrupt: { id, type: "tool-approval", payload: { tool: "note", toolCallId } } },
});
const items = (...all: object[]) => all.map((item) => ("kind" in item ? item : { kind: null, item }));

/** What the page has in the end, as the SDK reads it. */
async function messageOf(entries: readonly object[]): Promise<UIMessage["parts"]> {
  const page = new Page();
  const chunks = entries.flatMap((entry) => page.take(entry as { kind: null; item: unknown }));
  let message: UIMessage | undefined;
  for await (const state of readUIMessageStream({ stream: ReadableStream.from(chunks) })) message = state;
  return message?.parts ?? [];
}
const texts = (parts: UIMessage["parts"]) => parts.flatMap((part) => (part.type === "text" ? [part.text] : []));

test("a step that begins anew takes back what was told of it, wherever it was cut off", async () => {
  const whole = step("a", ...text("a", "hello"));

  for (let cut = 1; cut <= whole.length; cut++)
    expect(
      texts(await messageOf(items(...step("0", ...text("0", "before")), ...whole.slice(0, cut), ...whole))),
    ).toEqual(["before", "hello"]);
});

test("steps of agents that run beside each other are told one after the other, each once, cut off or not", async () => {
  const [a, b] = [step("a", ...text("a", "one")), step("b", ...text("b", "two"))];
  const mixed = [a[0], b[0], b[1], b[2], b[0], a[1], b[1], a[2], b[2], a[3], b[3], b[4], a[4]].map(
    (item) => item ?? {},
  );

  expect(texts(await messageOf(items(...mixed)))).toEqual(["one", "two"]);
  expect(texts(await messageOf(items(...a, ...b, ...a)))).toEqual(["one", "two"]);
  // Cut off while the other one had begun.
  const cut = [...step("a", ...text("a", "o")).slice(0, 3), ...b.slice(0, 2), ...a, ...b.slice(2)];
  expect(texts(await messageOf(items(...cut)))).toEqual(["one", "two"]);
});

test("what a model call that failed had told goes at once, and what others tell stays", () => {
  const told = (key: string, item: object) => {
    const page = new Page("own");
    const before = items(...step(key, ...text("a", "half")).slice(0, 3), { kind: "retry", item });
    return before.flatMap((entry) => page.take(entry as { kind: null; item: unknown })).at(-1)?.type;
  };
  const retry = { type: "retry", chunk: "model", attempt: 2 };

  expect(told("own/model/3", retry)).toBe("reset-step");
  expect(told("below/model/3", { ...retry, executionId: "below" })).toBe("reset-step");
  expect(told("below/model/3", retry)).toBe("text-delta");
  expect(told("own/model/3", { ...retry, chunk: "tool" })).toBe("text-delta");
  expect(told("own/model/3/0", retry)).toBe("text-delta");
});

test("a step that never ends holds up neither the next one of its chunk nor, in the end, others", () => {
  const page = new Page();
  const first = step("x/model/1", ...text("a", "one")).slice(0, 3);
  const [second, other] = [
    step("x/model/2", ...text("b", "two")),
    step("y/model/1", ...text("c", "three")).slice(0, 4),
  ];
  const told = items(...first, ...other, ...second).flatMap((entry) =>
    page.take(entry as { kind: null; item: unknown }),
  );
  const shown = (chunks: readonly UIMessageChunk[]) =>
    chunks.flatMap((one) => (one.type === "text-delta" ? [one.delta] : []));

  expect(shown(told)).toEqual(["one", "two", "three"]);
  expect(page.end()).toEqual([]);
  const stuck = new Page();
  for (const entry of items(...first, ...other)) stuck.take(entry as { kind: null; item: unknown });
  expect(shown(stuck.end())).toEqual(["three"]);
});

test("a page waits when all that is left are questions, and not while a tool runs", () => {
  const page = new Page();
  const waits = items(
    ...step("a", call("1"), call("2")),
    ask("q", "1"),
    { type: "tool-output-available", toolCallId: "2", output: 1, from: "t" },
    ask("q", "1", "resume"),
    { type: "tool-output-available", toolCallId: "1", output: 1, from: "u" },
  ).map((entry) => {
    page.take(entry as { kind: null; item: unknown });
    return page.isWaiting;
  });

  expect(waits).toEqual([false, false, false, false, false, true, false, false]);
});

test("what is no chunk for a page is left out", () => {
  const page = new Page();
  const odd = [
    null,
    7,
    "text",
    { type: "start" },
    { type: 7 },
    { no: "type" },
    { type: "text-start", id: "a", from: 7 },
  ];

  expect(odd.flatMap((item) => page.take({ kind: null, item }))).toEqual([]);
  expect(page.take({ kind: "interrupt", item: { interrupt: null } })).toEqual([]);
  expect(page.take({ kind: null, item: { type: "data-note", data: 1 } })).toEqual([{ type: "data-note", data: 1 }]);
});

test("pieces that were taken back before they were told are not told", async () => {
  const from = "e/model/1";
  const items = ["taken back", "told"].flatMap((delta) => [
    { type: "start-step", from },
    { type: "text-start", id: "t", from },
    { type: "text-delta", id: "t", delta, from },
  ]);
  const execution = {
    id: "e",
    async *streamItems() {
      for (const item of items) yield { kind: null, item };
    },
    getPendingInterrupts: () => Promise.resolve([]),
    waitForClose: () => Promise.resolve(),
    result: { getMeta: () => Promise.resolve({ lifecycleState: "closed" }) },
  };

  const told = await Array.fromAsync(toUIMessageChunks(execution));

  expect(told.filter(({ type }) => type === "text-delta" || type === "reset-step")).toEqual([
    { type: "reset-step" },
    { type: "text-delta", id: "t", delta: "told" },
  ]);
});
