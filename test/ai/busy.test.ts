/** A database that is busy: what a model says meanwhile becomes larger items, and not more of them. */
import { streamText, wrapLanguageModel } from "ai";
import { expect, test } from "vitest";
import { z } from "zod";
import { agentFlow, durableCalls } from "../../src/ai.ts";
import { defineFlow, type FlowDefinition } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving } from "../support/flows.ts";
import { modelOf, testProvider } from "./provider.ts";

const database = await testDatabase();
const { sql } = database;

const Delta = z.object({ delta: z.string() });

const flows: Readonly<Record<string, (url: string) => FlowDefinition>> = {
  "an agent": (url) => agentFlow("busy-agent", { model: modelOf(url) }),
  "a call in a chunk": (url) => {
    const flow = defineFlow("busy-chunk", { input: z.string(), stream: z.looseObject({ type: z.string() }) });
    flow
      .to("ask", async (ctx) => {
        const durable = wrapLanguageModel({ model: modelOf(url), middleware: durableCalls(ctx) });
        return await streamText({ model: durable, prompt: ctx.input }).text;
      })
      .end();
    return flow;
  },
};

test.each(Object.keys(flows))(
  "while items cannot be put, pieces of %s gather and leave together, all of them",
  async (name) => {
    const words = Array.from({ length: 21 }, (_, n) => `${n} `);
    await using provider = await testProvider(() => ({ text: words, holdBefore: 1, pauseMs: 25 }));
    const flow = flows[name]?.(provider.url) as FlowDefinition;
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("Count", { autoCloseTimeout: 0 });
    const [locked, unlock] = [newGate(), newGate()];
    const deltas: string[] = [];
    let busy: Promise<unknown> = Promise.resolve();
    for await (const { item } of execution.streamItems({ timeout: null })) {
      const { delta } = Delta.safeParse(item).data ?? {};
      if (delta === undefined) continue;
      deltas.push(delta);
      if (deltas.length > 1) continue;
      busy = sql.begin(async (tx) => {
        await tx`select from flowledger.executions where id = ${execution.id}::uuid for no key update`;
        locked.open();
        await unlock.passed;
      });
      await locked.passed;
      provider.release();
      void provider.ended().then(() => unlock.open());
    }
    await busy;

    expect(deltas.join("")).toBe(words.join(""));
    // The first, one that was on its way already, the rest, and what was still to be read when the row was free again.
    expect(deltas.length).toBeLessThan(8);
  },
);
