/** Flows that operators look after: a service outside fails them at random until it is mended, or they ask somebody. */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Ctx, defineFlow as DefineFlow, Flow } from "../../src/index.ts";
import type { OnBody } from "./flows.ts";

/** The service outside: it keeps what was done to it, whatever becomes of the process that asked or of the database. */
export interface Service {
  /** Fails an attempt, often, until it is mended. */
  isDown(): boolean;
  done(execution: string, what: string, key: string): void;
}

export interface Done {
  readonly execution: string;
  readonly what: string;
  /** The same for the same effect: the service does it once per key. */
  readonly key: string;
}

/** In a folder that all processes of the run see. */
export function openService(folder: string): Service {
  return {
    isDown: () => !existsSync(mendedFile(folder)) && Math.random() < 0.75,
    done: (execution, what, key) =>
      appendFileSync(join(folder, "effects"), `${JSON.stringify({ execution, what, key } satisfies Done)}\n`),
  };
}

export const mendedFile = (folder: string): string => join(folder, "mended");

export function readEffects(folder: string): Done[] {
  const path = join(folder, "effects");
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as Done);
}

/** Of a chunk that fails at the service. */
export const mostAttempts = 2;
const retry = { maxAttempts: mostAttempts, initialInterval: 20, maxInterval: 60 };

export const operatedNames = { parks: "chaos.parks", items: "chaos.items", asks: "chaos.asks", fails: "chaos.fails" };

/** `defineFlow` is a parameter, because a mutant brings its own. */
export function operatedFlows(defineFlow: typeof DefineFlow, service: Service, onBody: OnBody): Flow[] {
  const effect = (ctx: Ctx, what: string) =>
    ctx.step(what, (_signal, key) => service.done(ctx.execution.id, what, key));
  const shaky = (ctx: Ctx) => {
    if (service.isDown()) throw new Error(`the service is down at attempt ${ctx.attempt}`);
  };
  const first = async (ctx: Ctx) => {
    onBody();
    await effect(ctx, "one");
  };
  const second = async (ctx: Ctx) => {
    onBody();
    await effect(ctx, "before");
    shaky(ctx);
    await effect(ctx, "after");
    return "own";
  };
  const third = async (ctx: Ctx) => {
    onBody();
    await ctx.setState("got", ctx.input);
    await effect(ctx, "three");
  };
  const parks = defineFlow(operatedNames.parks, undefined, { onFailure: "park" });
  parks
    .to("one", (ctx) => first(ctx as Ctx))
    .to("two", (ctx) => second(ctx as Ctx), { retry })
    .to("three", (ctx) => third(ctx as Ctx));

  const items = defineFlow(operatedNames.items, undefined, { onFailure: "park" });
  items
    .to("list", () => [0, 1, 2])
    .forEach({ distribute: true })
    .to(
      "item",
      async (ctx) => {
        onBody();
        shaky(ctx as Ctx);
        await effect(ctx as Ctx, `item ${ctx.input}`);
        return ctx.input;
      },
      { retry },
    )
    .endForEach()
    .to("three", (ctx) => third(ctx as Ctx));

  const asks = defineFlow(operatedNames.asks);
  asks
    .to("ask", (ctx) => {
      onBody();
      return ctx.pauseFor({ interruptId: "boss", due: "2s", remind: ["1500ms"] });
    })
    .to("three", (ctx) => third(ctx as Ctx));
  asks.when("$interrupt").to("told", async (ctx) => {
    if (ctx.input.kind !== "reminded") return;
    onBody();
    await ctx.appendState("told", ctx.input.kind);
  });

  const fails = defineFlow(operatedNames.fails);
  fails
    .to("one", (ctx) => first(ctx as Ctx))
    .to("two", (ctx) => second(ctx as Ctx))
    .to("three", (ctx) => third(ctx as Ctx));
  return [parks, items, asks, fails] as unknown as Flow[];
}
