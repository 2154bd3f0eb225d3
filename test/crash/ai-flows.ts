/** The agent that the tests kill; its model is the provider of the test. */
import { appendFileSync } from "node:fs";
import { tool } from "ai";
import { z } from "zod";
import { agentFlow } from "../../src/ai.ts";
import { modelOf } from "../ai/provider.ts";

/** Each run of a tool leaves a line in this file, whatever becomes of its process. */
const log = process.env["AI_LOG"] ?? "";

export const agent = agentFlow("crashed", {
  model: modelOf(process.env["AI_URL"] ?? ""),
  tools: {
    note: tool({
      inputSchema: z.object({ line: z.string(), wait: z.boolean().optional() }),
      execute: ({ line }) => {
        appendFileSync(log, `${line}\n`);
        return line;
      },
    }),
  },
  toolApproval: {
    note: async ({ line, wait }) => {
      // Between two tool calls: the first has run, and the second never begins in this process.
      if (wait === true && process.env["AI_HEIR"] === undefined) {
        process.stdout.write(`asked about ${line}\n`);
        await new Promise(() => {});
      }
      return "approved" as const;
    },
  },
  toolCallConcurrency: 1,
});
