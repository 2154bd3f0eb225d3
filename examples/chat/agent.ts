/** An agent that refunds: small amounts by itself, large ones when a person has agreed. */
import { isStepCount, tool } from "ai";
import { z } from "zod";
import { agentFlow, idempotencyKeyOf } from "../../src/ai.ts";
import { modelOf } from "./model.ts";

export const support = agentFlow("support", {
  model: modelOf(process.env["MODEL_URL"]),
  instructions: "You refund tickets. Be short.",
  tools: {
    refund: tool({
      description: "Pays the money of a ticket back",
      inputSchema: z.object({ ticket: z.string(), amount: z.number().positive() }),
      execute: ({ ticket, amount }, options) => {
        // A payment service takes the key, so that a call which was cut off pays once.
        console.log(`refund ${ticket} ${amount} ${idempotencyKeyOf(options)}`);
        return `${amount} € for ${ticket}`;
      },
    }),
  },
  toolApproval: { refund: ({ amount }) => (amount > 100 ? "user-approval" : "approved") },
  stopWhen: isStepCount(10),
  budget: { tokens: 100_000, onExceeded: "ask" },
  approval: { assign: ["group:support"], due: "1d" },
});
