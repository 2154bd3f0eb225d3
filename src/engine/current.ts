/** Which chunk the code that runs now belongs to, so that `awaitResult` is journaled wherever it is called. */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Ctx } from "../flow/context.ts";
import type { Chunk } from "../flow/graph.ts";

// Made with the first deferred function of the process: without one nothing pays for the tracking.
let contexts: AsyncLocalStorage<Ctx> | undefined;

export function trackChunks(): void {
  contexts ??= new AsyncLocalStorage();
}

export function insideChunk(ctx: Ctx, handler: Chunk["handler"]): unknown {
  return contexts ? contexts.run(ctx, handler, ctx) : handler(ctx);
}

export function currentChunk(): Ctx | undefined {
  return contexts?.getStore();
}
