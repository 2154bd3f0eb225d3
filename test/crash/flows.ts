/** Flows for the crash tests, the same in the test and in its worker processes. A body tells on stdout that it runs. */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import type { Ctx, FlowDefinition } from "../../src/index.ts";

/** `ms`: how long the slow chunk takes. `worker`: only there does it do its harm. */
const Input = z.object({ ms: z.number().default(0), worker: z.string().default("") });

function tell(ctx: Pick<Ctx, "chunk" | "execution" | "attempt">, what = "body"): void {
  process.stdout.write(`${what} ${ctx.chunk} ${ctx.execution.id} ${ctx.attempt}\n`);
}
const isHere = (worker: string) => worker === process.env["CRASH_NAME"];

/** A recorded step, a slow chunk after a commit point, a last one. */
export const work = defineFlow("crash.work", { input: Input });
work
  .to("first", async (ctx) => {
    tell(ctx as Ctx);
    await ctx.step("charge", () => tell(ctx as Ctx, "charged"));
    await ctx.appendState("path", "first");
    return ctx.input;
  })
  .to("slow", async (ctx) => {
    await ctx.step("begin", () => null);
    tell(ctx as Ctx);
    if (ctx.input.worker === "" || isHere(ctx.input.worker)) await delay(ctx.input.ms);
    await ctx.appendState("path", "slow");
  })
  .to("last", async (ctx) => {
    tell(ctx as Ctx);
    await ctx.appendState("path", "last");
  });
work.when("Poke").to("poked", async (ctx) => await ctx.appendState("pokes", ctx.input));

/** A pool that takes its worker down before it sends COMMIT, while that is under way, or when it is in. */
const commits = {
  idleCount: 0,
  async connect() {
    const connection = new pg.Client(process.env["CRASH_URL"]);
    await connection.connect();
    const die = () => void process.kill(process.pid, "SIGKILL");
    return {
      release: () => void connection.end(),
      on: () => {},
      async query(text: string, values?: unknown[]) {
        const when = text === "commit" ? process.env["CRASH_COMMIT"] : undefined;
        if (when === "before") die();
        const answer = connection.query(text, values);
        // The statement is in the socket by then.
        if (when === "in") setImmediate(die);
        await answer;
        if (when === "after") die();
        return answer;
      },
    };
  },
};

/** Writes a row of the application's with a commit of its own. */
export const paying = defineFlow("crash.paying");
paying.to("pay", async (ctx) => {
  tell(ctx as Ctx);
  const count = await ctx.transaction(
    "pay",
    async (tx) => {
      const { rows } = await tx.query<{ count: number }>(
        "with paid as (insert into payments values ($1)) select count(*)::int + 1 as count from payments where execution_id = $1",
        [ctx.execution.id],
      );
      return rows[0]?.count;
    },
    { client: commits },
  );
  await ctx.setState("count", count ?? 0);
});

/** Takes its worker down, wherever it runs. */
export const poison = defineFlow("crash.poison");
poison.to("fatal", () => void process.kill(process.pid, "SIGKILL"));

/** The whole thread of one worker stands still. */
export const block = defineFlow("crash.block", { input: Input });
block.to("spin", async (ctx) => {
  tell(ctx as Ctx);
  if (isHere(ctx.input.worker)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ctx.input.ms);
  await ctx.appendState("path", "spin");
});

/** A promise that nobody waits for is rejected in one worker. */
export const stray = defineFlow("crash.stray", { input: Input });
stray.to("reject", async (ctx) => {
  tell(ctx as Ctx);
  if (isHere(ctx.input.worker)) void Promise.reject(new Error("stray"));
  await delay(50);
});

/** A state of 50 MB; in one worker it fills the heap until that is full. */
export const hoard = defineFlow("crash.hoard", { input: Input });
hoard.to("keep", async (ctx) => {
  tell(ctx as Ctx);
  if (isHere(ctx.input.worker)) for (const kept: object[] = []; ;) kept.push(Array.from({ length: 1e5 }, () => ({})));
  await ctx.setState("kept", "x".repeat(50_000_000));
});

/** Fails whenever it is tried. */
export const failing = defineFlow("crash.failing");
failing.to(
  "fail",
  () => {
    throw new Error("as always");
  },
  { retry: { maxAttempts: 3, initialInterval: "1s", multiplier: 1 } },
);

export const sleeper = defineFlow("crash.sleeper", { input: Input });
sleeper.to("sleep", async (ctx) => {
  tell(ctx as Ctx);
  await ctx.sleep(ctx.input.ms);
});

/** Puts one item, then waits in one worker; the sibling puts nothing before the wait is over. */
export const talker = defineFlow("crash.talker", { input: Input });
talker.to("talk", async (ctx) => {
  await ctx.putIntoStream(`from ${process.env["CRASH_NAME"] ?? ""}`);
  await ctx.flush();
  tell(ctx as Ctx);
  if (isHere(ctx.input.worker)) await delay(ctx.input.ms);
  await ctx.putIntoStream("talked");
});
talker.to("sibling", async (ctx) => {
  if (isHere(ctx.input.worker)) await delay(ctx.input.ms);
  await ctx.putIntoStream("sibling");
});

/** 300 items that each take `ms`, on any worker; a recorded step tells whose body ran. */
export const spread = defineFlow("crash.spread", { input: Input });
spread
  .to("make", (ctx) => Array.from({ length: 300 }, (_, n) => ({ n, ms: ctx.input.ms })))
  .forEach({ distribute: true })
  .to("item", async (ctx) => {
    tell(ctx as Ctx, `item ${ctx.input.n}`);
    await delay(ctx.input.ms);
    return ctx.input.n;
  })
  .endForEach()
  .end();

/** At most four at once, and one of a tenant. */
export const limited = defineFlow(
  "crash.limited",
  { input: z.object({ ms: z.number(), tenant: z.string() }) },
  { limits: { concurrency: 4, key: (input) => input.tenant, perKey: { concurrency: 1 } } },
);
limited.to("hold", async (ctx) => {
  tell(ctx as Ctx);
  await ctx.step("begin", () => null);
  await delay(ctx.input.ms);
});

/** Started every second by workers that are asked to. */
export const ticked = defineFlow("crash.ticked");
ticked.to("tick", () => null);

/** Streams, asks, and streams again: in a sub-flow, so its parent shows all of it. */
export const inner = defineFlow("crash.inner");
inner
  .to("put", async (ctx) => {
    for (let n = 0; n < 5; n++) await ctx.putIntoStream({ inner: n });
    await ctx.flush();
    tell(ctx as Ctx);
  })
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }))
  .to("more", async (ctx) => {
    for (let n = 5; n < 10; n++) await ctx.putIntoStream({ inner: n });
    return ctx.input;
  })
  .end();
export const outer = defineFlow("crash.outer");
outer
  .to("before", async (ctx) => {
    tell(ctx as Ctx);
    await ctx.putIntoStream({ outer: 0 });
  })
  .toSubFlow(inner)
  .to("after", async (ctx) => {
    await ctx.putIntoStream({ outer: 1 });
    await ctx.setState("answer", ctx.input);
  });
/** Waits for the same child inside a chunk of its own. */
export const caller = defineFlow("crash.caller");
caller.to("call", async (ctx) => {
  tell(ctx as Ctx);
  await ctx.setState("answer", await ctx.call(inner, null));
});

/** A step beside a sleep of an hour. */
export const beside = defineFlow("crash.beside", { input: Input });
beside.to("beside", async (ctx) => {
  const step = ctx.step("step", async () => {
    tell(ctx as Ctx, "beside");
    if (isHere(ctx.input.worker)) await delay(60_000);
  });
  await Promise.all([step, ctx.sleep("1h")]);
});

/** Five chunks that each call a service, at the address that it is started with; what the service refuses parks. */
export const parked = defineFlow("crash.parked", { input: z.string() }, { onFailure: "park" });
const called = async (ctx: Pick<Ctx, "chunk" | "execution" | "signal">, url: string) => {
  const response = await fetch(`${url}/${ctx.chunk}/${ctx.execution.id}`, { method: "POST", signal: ctx.signal });
  if (!response.ok) throw new Error(`${ctx.chunk} answered ${response.status}`);
  return url;
};
parked
  .to("one", (ctx) => called(ctx as Ctx, ctx.input))
  .to("two", (ctx) => called(ctx as Ctx, ctx.input))
  .to("three", (ctx) => called(ctx as Ctx, ctx.input))
  .to("four", (ctx) => called(ctx as Ctx, ctx.input))
  .to("five", (ctx) => called(ctx as Ctx, ctx.input));

export const crashFlows: readonly FlowDefinition[] = [
  parked,
  beside,
  work,
  poison,
  block,
  stray,
  hoard,
  failing,
  sleeper,
  talker,
  spread,
  limited,
  outer,
  caller,
  paying,
];
