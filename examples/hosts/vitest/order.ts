/** An order that somebody approves. */
import { defineFlow } from "flowledger";
import { z } from "zod";

export const order = defineFlow("order", {
  input: z.object({ amount: z.number().positive() }),
  state: z.object({ charged: z.number(), shipped: z.boolean() }).partial(),
});
order
  .to("charge", (ctx) => ctx.setState("charged", ctx.input.amount))
  .to("approve", (ctx) => ctx.pauseFor({ type: "approval", response: z.object({ approved: z.boolean() }) }))
  .to("ship", (ctx) => ctx.setState("shipped", ctx.input.approved));
