/** The agent that the tests kill; its model is the provider of the test. */
import { appendFileSync } from "node:fs";
import { tool } from "ai";
import { z } from "zod";
import { agentFlow } from "../../src/ai.ts";
import { modelOf } from "./provider.ts";

/** Each run of a tool leaves a line in this file, whatever becomes of its process. */
const log = process.env["AI_LOG"] ?? "";

export const agent = agentFlow("crashed", {
  model: modelOf(process.env["AI_URL"] ?? ""),
  tools: {
    note: tool({
      inputSchema: z.object({ line: z.string(), wait: z.boolean().optional() }),
      execute: async ({ line, wait }, { abortSignal }) => {
        appendFileSync(log, `${line}\n`);
        process.stdout.write(`ran ${line}\n`);
        // A tool that takes its time, so that the test can kill between two of them.
        if (wait === true && process.env["AI_HEIR"] === undefined)
          await new Promise((_, reject) => abortSignal?.addEventListener("abort", () => reject(new Error("stopped"))));
        return line;
      },
    }),
  },
  toolCallConcurrency: 1,
});
