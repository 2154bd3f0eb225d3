/** Random flows from a seed: every process that builds them gets the same ones, down to the fingerprint. */
import { setTimeout as delay } from "node:timers/promises";
import type { Ctx, defineFlow as DefineFlow, Flow } from "../../src/index.ts";
import { newRandom } from "./random.ts";
import type { Random } from "./random.ts";

export interface Input {
  n: number;
}

/** What a chunk reports when its body begins. */
export type OnBody = () => void;

export const pokeEvent = "Poke";

/** Of the first flow, over all workers. */
export const chaosLimit = 8;

type Place = Flow<Record<string, never>, unknown, unknown>;

/** `defineFlow` is a parameter, because a mutant brings its own. */
export function randomFlows(seed: number, count: number, defineFlow: typeof DefineFlow, onBody: OnBody): Flow[] {
  return Array.from({ length: count }, (_, index) => randomFlow(seed * 1000 + index, index, defineFlow, onBody));
}

function randomFlow(seed: number, index: number, defineFlow: typeof DefineFlow, onBody: OnBody): Flow {
  const random = newRandom(seed);
  const flow = defineFlow(`chaos.${index}`, undefined, index === 0 ? { limits: { concurrency: chaosLimit } } : {});
  const names = newNames();
  // Kept apart from what the flow does by itself: how many arrive depends on the clients.
  flow.when(pokeEvent).to("poked", async (ctx) => {
    onBody();
    await work(1, 10);
    await ctx.appendState("pokes", ctx.input);
  });
  flow.when("Said").to("heard", async (ctx) => {
    onBody();
    await work(2, 30);
    await ctx.appendState("said", ctx.input);
  });
  flow.when(["Left", "Right"]).to("joined", async (ctx) => {
    onBody();
    await ctx.appendState("joined", ctx.input);
  });
  let place = flow as unknown as Place;
  const length = random.between(3, 7);
  for (let step = 0; step < length; step++) place = segment(place, random, names, { index, defineFlow, onBody });
  place.to("last", async (ctx) => {
    onBody();
    await ctx.appendState("path", "last");
  });
  return flow;
}

interface Around {
  readonly index: number;
  readonly defineFlow: typeof DefineFlow;
  readonly onBody: OnBody;
}

function segment(place: Place, random: Random, names: () => string, { index, defineFlow, onBody }: Around): Place {
  const name = names();
  const [low, high] = random.pick([
    [1, 10],
    [1, 10],
    [20, 80],
    [100, 400],
    [400, 900],
  ] as const);
  const path = (ctx: Ctx) => ctx.appendState("path", ctx.chunk);
  switch (
    random.pick([
      "plain",
      "step",
      "sleep",
      "far",
      "emit",
      "wait",
      "stream",
      "retry",
      "batch",
      "each",
      "if",
      "match",
      "join",
      "stepRetry",
      "subFlow",
    ] as const)
  ) {
    case "plain":
      return place.to(name, async (ctx) => {
        onBody();
        await work(low, high);
        await path(ctx as Ctx);
      });
    case "step":
      return place.to(name, async (ctx) => {
        onBody();
        const first = await ctx.step("first", () => work(low, high));
        await ctx.setState(`steps.${name}`, 1);
        const second = await ctx.step("second", async () => 2);
        await work(low, high);
        await path(ctx as Ctx);
        return { first, second };
      });
    case "stepRetry": {
      const failures = random.between(1, 2);
      return place.to(name, async (ctx) => {
        onBody();
        let tries = 0;
        await ctx.step(
          "shaky",
          async () => {
            await work(1, 20);
            if (tries++ < failures) throw new Error("shaky");
            return "held";
          },
          { retry: { maxAttempts: 50, initialInterval: 30, maxInterval: 200 } },
        );
        await path(ctx as Ctx);
      });
    }
    case "subFlow": {
      const rest = random.pick([10, 1500] as const);
      const child = defineFlow(`chaos.child.${index}.${name}`);
      child
        .to("put", async (inner) => {
          onBody();
          for (let item = 0; item < 3; item++) await inner.putIntoStream({ chunk: name, attempt: inner.attempt, item });
          await work(low, high);
        })
        .to("rest", async (inner) => {
          onBody();
          await inner.sleep(rest);
          await inner.appendState("path", name);
        });
      return place.toSubFlow(child, { capture: {} }) as unknown as Place;
    }
    case "sleep": {
      const ms = random.between(30, 400);
      return place.to(name, async (ctx) => {
        onBody();
        await ctx.sleep(ms);
        await path(ctx as Ctx);
      });
    }
    case "far": {
      const ms = random.between(1200, 2500);
      return place.to(name, async (ctx) => {
        onBody();
        await ctx.appendState("slept", name);
        await ctx.sleep(ms);
        await path(ctx as Ctx);
      });
    }
    case "emit":
      return place.to(name, async (ctx) => {
        onBody();
        await ctx.emit("Said", name);
        await work(low, high);
        ctx.emitNoWait("Said", `${name} again`);
        await path(ctx as Ctx);
      });
    case "wait":
      return place.to(name, async (ctx) => {
        onBody();
        await ctx.emit("Said", name, { wait: true });
        await path(ctx as Ctx);
      });
    case "join":
      return place.to(name, async (ctx) => {
        onBody();
        ctx.emitNoWait("Left", name);
        await ctx.emit("Right", name);
        await path(ctx as Ctx);
      });
    case "stream": {
      const items = random.between(2, 12);
      return place.to(name, async (ctx) => {
        onBody();
        for (let item = 0; item < items; item++) {
          await ctx.putIntoStream({ chunk: name, attempt: ctx.attempt, item });
          await work(1, 5);
        }
        await path(ctx as Ctx);
      });
    }
    case "retry": {
      const failures = random.between(1, 3);
      return place.to(
        name,
        async (ctx) => {
          onBody();
          await work(low, Math.min(high, 60));
          if (ctx.attempt <= failures) throw new Error(`attempt ${ctx.attempt}`);
          await path(ctx as Ctx);
        },
        { retry: { maxAttempts: 5, initialInterval: 40, maxInterval: 300 } },
      );
    }
    case "batch":
      return place.batch({
        [`${name}a`]: async (ctx) => {
          onBody();
          await work(low, Math.min(high, 100));
          await path(ctx as Ctx);
          return "a";
        },
        [`${name}b`]: async (ctx) => {
          onBody();
          await work(1, 30);
          await path(ctx as Ctx);
          return "b";
        },
      }) as unknown as Place;
    case "each": {
      const size = random.between(2, 6);
      return (
        place
          .to(`${name}list`, () => {
            onBody();
            return Array.from({ length: size }, (_, item) => item);
          })
          // A flow with limits refuses to distribute.
          .forEach({ concurrency: random.chance(0.5) ? 2 : null, distribute: random.chance(0.5) && index !== 0 })
          .to(`${name}item`, async (ctx) => {
            onBody();
            await work(1, Math.min(high, 60));
            await ctx.appendState("items", `${name} ${ctx.input}`);
            return ctx.input;
          })
          .endForEach() as unknown as Place
      );
    }
    case "if":
      return place
        .to(`${name}ask`, (ctx) => {
          onBody();
          return String(ctx.execution.metadata["n"]);
        })
        .ifCondition((ctx) => ctx.input === "1")
        .to(`${name}yes`, async (ctx) => {
          onBody();
          await work(low, Math.min(high, 100));
          await path(ctx as Ctx);
        })
        .elseCondition()
        .to(`${name}no`, async (ctx) => {
          onBody();
          await path(ctx as Ctx);
        })
        .endCondition() as unknown as Place;
    case "match":
      return place
        .match({ mode: "all" })
        .case((ctx) => ctx.execution.metadata["n"] !== 0)
        .to(`${name}some`, async (ctx) => {
          onBody();
          await work(1, 40);
          await path(ctx as Ctx);
        })
        .case(() => true)
        .to(`${name}every`, async (ctx) => {
          onBody();
          await path(ctx as Ctx);
        })
        .endMatch() as unknown as Place;
  }
}

function newNames(): () => string {
  let count = 0;
  return () => `c${++count}`;
}

/** Takes some time, which need not be the same twice. */
async function work(low: number, high: number): Promise<number> {
  await delay(low + Math.random() * (high - low));
  return low;
}
