/** A flow with something to watch: it writes a text word by word. */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";

export const story = defineFlow("live-story", {
  input: z.object({ words: z.array(z.string()), everyMs: z.number().default(80) }),
  stream: z.object({ word: z.string() }),
});

story.to("tell", async (ctx) => {
  for (const word of ctx.input.words) {
    await ctx.putIntoStream({ word });
    await sleep(ctx.input.everyMs, null, { signal: ctx.signal });
  }
  return { told: ctx.input.words.length };
});
