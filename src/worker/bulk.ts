/** The library's own flow that does bulks: each round gives a few targets their command, and says when the next may come. */
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import { Flow } from "../flow/builder.ts";
import type { Ctx } from "../flow/context.ts";
import { Draft } from "../flow/draft.ts";
import { bulkFlowName } from "../flow/names.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { ExecutionId } from "../ledger/event.ts";
import { retryTransient } from "../store/batcher.ts";
import type { Bulks } from "../store/bulks.ts";

const Asked = z.object({ bulk: ExecutionId });
const contract = {
  input: Asked,
  events: { More: Asked },
  state: z.object({ matched: z.int(), done: z.int(), skipped: z.int(), failed: z.int() }),
};

/** Targets of one statement: their rows are locked meanwhile. */
const targetsAtOnce = 100;
/** Rounds of so long are one step: a stop and a pause are heard between them. */
const stepMs = 1000;

export function bulkFlow(bulks: Bulks): FlowDefinition {
  const draft = new Draft(bulkFlowName, contract);
  const flow = new Flow(draft, draft.start);
  const rounds = async (bulk: ExecutionId, by: ExecutionId, signal: AbortSignal): Promise<number | null> => {
    const until = liveness.monotonic() + stepMs;
    let waitMs: number | null;
    do {
      // A repeated statement goes on where the one before stopped.
      waitMs = await retryTransient(() => bulks.run(bulk, by, targetsAtOnce), signal);
    } while (waitMs === 0 && !signal.aborted && liveness.monotonic() < until);
    return waitMs;
  };
  const work = flow.chunk(
    "work",
    async (ctx: Ctx<typeof contract, z.infer<typeof Asked>>) => {
      const { bulk } = ctx.input;
      const by = ExecutionId.parse(ctx.execution.id);
      const waitMs = await ctx.step("rounds", () => rounds(bulk, by, ctx.signal));
      if (waitMs === null) {
        const report = await ctx.step("report", () => retryTransient(() => bulks.report(bulk), ctx.signal));
        for (const name of ["matched", "done", "skipped", "failed"] as const)
          if (report) await ctx.setState(name, report[name]);
        return;
      }
      if (waitMs > 0) await ctx.sleep(waitMs);
      ctx.emitNoWait("More", { bulk });
    },
    // Only connection trouble passes with time: what the database refuses it refuses again.
    {
      retry: {
        maxAttempts: 1000,
        initialInterval: "1s",
        maxInterval: "1m",
        retryIf: (error) => !(error instanceof UsageError),
      },
    },
  );
  flow.to(work);
  flow.when("More").to(work);
  return flow;
}
