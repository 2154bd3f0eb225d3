/** An agent that is cut off at every commit: each model call and each tool counts once, and the page has each text once. */
import { readUIMessageStream, tool, type UIMessage } from "ai";
import { expect, test } from "vitest";
import { z } from "zod";
import { agentFlow, toUIMessageChunks } from "../../src/ai.ts";
import { kit } from "../support/kit.ts";
import { modelOf, testProvider } from "./provider.ts";

test("an agent that asks survives a crash before, in and after each of its commits", { timeout: 120_000 }, async () => {
  await using provider = await testProvider(({ messages }) =>
    messages.at(-1)?.role === "tool"
      ? { text: ["It ", "rains"] }
      : { calls: [{ name: "look", input: { city: "Oslo" } }] },
  );
  const agent = agentFlow("cut", {
    model: modelOf(provider.url),
    tools: { look: tool({ inputSchema: z.object({ city: z.string() }), execute: ({ city }) => `rain in ${city}` }) },
    toolApproval: { look: "user-approval" },
  });
  await using t = await kit({ flows: [agent] });
  const ends = new Set<string>();

  const boundaries = await t.crashEverywhere(agent, "Will it rain?", async (run, { effects }) => {
    await run.answer("tool-approval", { decision: "approve" });
    const { text, messages = [] } = await run.until("closed");
    let page: UIMessage | undefined;
    const stream = ReadableStream.from(toUIMessageChunks(run));
    for await (const message of readUIMessageStream({ stream })) page = message;
    const shown = page?.parts.flatMap((part) =>
      part.type === "text" ? [part.text] : part.type === "tool-look" && "output" in part ? [part.output] : [],
    );
    ends.add(JSON.stringify([text, messages.map(({ role }) => role), shown]));
    expect(effects("look")).toBe(1);
  });

  expect([...ends]).toEqual(['["It rains",["user","assistant","tool","assistant"],["rain in Oslo","It rains"]]']);
  expect(boundaries.length).toBeGreaterThan(12);
});
