/** An order that somebody approves, and a client for it. */
import { createOrchestrator, defineFlow } from "flowledger";
import { z } from "zod";

export const order = defineFlow("order", {
  input: z.object({ amount: z.number().positive() }),
  state: z.object({ charged: z.number(), shipped: z.boolean() }).partial(),
});
order
  .to("charge", (ctx) => ctx.setState("charged", ctx.input.amount))
  .to("approve", (ctx) => ctx.pauseFor({ type: "approval", response: z.object({ approved: z.boolean() }) }))
  .to("ship", (ctx) => ctx.setState("shipped", ctx.input.approved));

/** Connects at its first use, to DATABASE_URL. */
export const orchestrator = createOrchestrator({ flows: [order] });

export async function begin(input: { amount: number }) {
  const { id } = await orchestrator.flow(order).startExecution(input, { autoCloseTimeout: 0 });
  return { id };
}

export async function look(id: string) {
  const { result } = await orchestrator.getExecution(id);
  const [{ status }, state] = await Promise.all([result.getMeta(), result.getState()]);
  return { status, state };
}

export async function approve(id: string, answer: { approved: boolean }) {
  const execution = await orchestrator.getExecution(id);
  const [question] = await execution.getPendingInterrupts();
  if (question) await execution.continueWith(question.id, answer);
  return { isAnswered: question !== undefined };
}
