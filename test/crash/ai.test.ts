/** A worker that is killed in the middle of a model call, or between two tool calls: the page has each text once. */
import { randomUUID } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readUIMessageStream, type UIMessage } from "ai";
import { afterAll, expect, test } from "vitest";
import { toUIMessageChunks } from "../../src/ai.ts";
import { expectGuarantees, untilClosed } from "./support.ts";
import { testDatabase } from "../support/database.ts";
import { untilEvent, visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";
import { testProvider } from "../ai/provider.ts";

const database = await testDatabase();
const log = join(tmpdir(), `flowledger-ai-${randomUUID()}`);
afterAll(() => rm(log, { force: true }));

const words = ["The ", "answer ", "is ", "here."];
const note = (line: string, wait = false) => ({ name: "note", input: { line, wait } });

async function messageOf(stream: AsyncIterable<unknown>): Promise<UIMessage | undefined> {
  let message: UIMessage | undefined;
  for await (const state of readUIMessageStream({ stream: ReadableStream.from(stream) as never })) message = state;
  return message;
}

/** An execution of the agent, the worker that is to be killed, and the one that takes over. */
async function begun(url: string) {
  process.env["AI_URL"] = url;
  process.env["AI_LOG"] = log;
  const { agent } = await import("./ai-flows.ts");
  const env = { AI_URL: url, AI_LOG: log, AI_DATABASE: database.url };
  const worker = join(import.meta.dirname, "ai-worker.ts");
  const stack = new AsyncDisposableStack();
  const orchestrator = stack.use(visiting(database, [agent]));
  const doomed = stack.use(await startProcess(worker, { env }));
  const execution = await orchestrator.flow(agent).startExecution("?", { autoCloseTimeout: 0 });
  const heir = () => startProcess(worker, { env: { ...env, AI_HEIR: "1" } });
  return { execution, doomed, heir, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const moments: readonly [string, number | null][] = [
  ["at its first token", 1],
  ["in the middle of its text", 2],
  ["after its last token", 4],
  ["between two tool calls", null],
];

test.each(moments)(
  "a worker killed %s: text once, each tool once, each completed call once",
  async (_, holdBefore) => {
    await writeFile(log, "");
    let held = 0;
    await using provider = await testProvider(({ messages }) => {
      const isLast = messages.some(({ role }) => role === "tool");
      if (!isLast) return { calls: [note("first"), note("second", holdBefore === null)] };
      // Held once: the heir's call goes through.
      if (holdBefore === null || held++ > 0) return { text: words };
      return { text: words, holdBefore };
    });
    await using started = await begun(provider.url);
    const { execution, doomed } = started;
    const live = messageOf(toUIMessageChunks(execution));

    if (holdBefore === null) await doomed.untilLine(/^asked about second/);
    else {
      await provider.held();
      // What the worker was sent is in the stream before it dies.
      for await (const { item } of execution.streamItems({ timeout: null }))
        if (JSON.stringify(item).includes(words[holdBefore - 1]?.trim() ?? "")) break;
    }
    doomed.kill("SIGKILL");
    await using _heir = await started.heir();
    await untilClosed(database.sql, execution.id);
    const [seen, late] = [await live, await messageOf(toUIMessageChunks(execution))];

    for (const message of [seen, late])
      expect(message?.parts.filter(({ type }) => type === "text")).toMatchObject([{ text: words.join("") }]);
    for (const message of [seen, late])
      expect(message?.parts.filter(({ type }) => type === "tool-note")).toMatchObject([
        { state: "output-available", output: "first" },
        { state: "output-available", output: "second" },
      ]);
    const ran = (await readFile(log, "utf8")).trim().split("\n");
    expect(ran).toEqual(["first", "second"]);
    expect(provider.completed()).toBe(2);
    expect(provider.asked).toHaveLength(holdBefore === null ? 2 : 3);
    await expectGuarantees(database.sql);
  },
  60_000,
);

test("a worker killed while it waits as the provider said: the call is made once more, not before, and counted once", async () => {
  await writeFile(log, "");
  const askedAt: number[] = [];
  await using provider = await testProvider(() => {
    askedAt.push(performance.now());
    return askedAt.length === 1 ? { status: 429, headers: { "retry-after": "9" } } : { text: words };
  });
  await using started = await begun(provider.url);
  const { execution, doomed } = started;
  await untilEvent(execution, "chunk.failed");

  doomed.kill("SIGKILL");
  await using _heir = await started.heir();
  await untilClosed(database.sql, execution.id);

  const [first = 0, second = 0] = askedAt;
  expect(askedAt).toHaveLength(2);
  // The clocks of the database and of this process may differ by a little.
  expect(second - first).toBeGreaterThan(8900);
  expect(await execution.waitForClose()).toMatchObject({ text: words.join(""), usage: { inputTokens: 10 } });
  const message = await messageOf(toUIMessageChunks(execution));
  expect(message?.parts.filter(({ type }) => type === "text")).toMatchObject([{ text: words.join("") }]);
  await expectGuarantees(database.sql);
});
