/** The places of a limited collection and of a limited sub-flow: who waits for one keeps nobody up, and who has one keeps it. */
import { expect, test } from "vitest";
import { defineFlow, type Ctx, type Flow } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

const hour = 3_600_000;
const items = [1, 2, 3, 4, 5];

/** Outside of the database: which items have begun and not ended, and the most that ever were. */
class Gauge {
  readonly #begun = new Set<number>();
  most = 0;
  readonly ended: number[] = [];

  begin(item: number): void {
    if (this.ended.includes(item)) return;
    this.#begun.add(item);
    this.most = Math.max(this.most, this.#begun.size);
  }

  end(item: number): void {
    this.#begun.delete(item);
    this.ended.push(item);
  }
}

type Body = (gauge: Gauge) => Flow;

const each = (name: string, handler: (ctx: Ctx, gauge: Gauge) => unknown, options: object = {}): Body => {
  return (gauge) => {
    const flow = defineFlow(`places.${name}`);
    flow
      .to("list", () => items)
      .forEach({ concurrency: 2 })
      .to("work", (ctx) => handler(ctx, gauge), options)
      .to("end", (ctx) => gauge.end(Number(ctx.input)))
      .endForEach();
    return flow;
  };
};

const bodies: Record<string, Body> = {
  sleep: each("sleep", async (ctx, gauge) => {
    gauge.begin(Number(ctx.input));
    await ctx.sleep("10h");
    return ctx.input;
  }),
  "back off": each(
    "retry",
    (ctx, gauge) => {
      gauge.begin(Number(ctx.input));
      if (ctx.attempt === 1) throw new Error("busy");
      return ctx.input;
    },
    { retry: { waits: ["10h"] } },
  ),
  ask: each("ask", (ctx, gauge) => {
    gauge.begin(Number(ctx.input));
    return ctx.pauseFor({ interruptId: "boss", expiresIn: "10h", onExpire: { value: ctx.input } });
  }),
  "call a limited sub-flow": (gauge) => {
    const child = defineFlow("places.child");
    child
      .to("work", async (ctx) => {
        gauge.begin(Number(ctx.input));
        await ctx.sleep("10h");
        gauge.end(Number(ctx.input));
      })
      .end();
    const flow = defineFlow("places.parent");
    flow
      .to("list", () => items)
      .forEach()
      .toSubFlow(child, { concurrency: 2, capture: { input: "value" } })
      .endForEach();
    return flow;
  },
  "contain a collection": (gauge) => {
    const flow = defineFlow("places.nested");
    flow
      .to("list", () => items)
      .forEach({ concurrency: 2 })
      .forEach()
      .to("work", async (ctx) => {
        gauge.begin(Number(ctx.input));
        await ctx.sleep("10h");
        return ctx.input;
      })
      .endForEach()
      .to("end", (ctx) => gauge.end(Number([ctx.input].flat()[0])))
      .endForEach();
    return flow;
  },
};

test.each(Object.entries(bodies))(
  "while two items %s for long nobody holds the execution, and whoever takes it begins no third",
  async (_, body) => {
    const gauge = new Gauge();
    const flow = body(gauge);
    await using base = await kit({ flows: [], workers: 0 });
    let id = "";
    const kinds = new Set<string>();
    for (const hours of [1, 15, 30]) {
      await using t = await kit({ flows: [flow], database: base.database, logger: { ...console, info: () => {} } });
      const run = id === "" ? await t.start(flow, null, { autoCloseTimeout: 0 }) : await t.attach(id);
      id = run.id;
      const until = t.clock.now().getTime() + hours * hour;
      while (t.clock.now().getTime() < until) {
        await t.clock.advance("1h");
        kinds.add((await run.explain()).kind);
      }
    }

    expect([...kinds]).toEqual(["waiting", "closed"]);
    expect(gauge.most).toBe(2);
    expect(gauge.ended.toSorted((a, b) => a - b)).toEqual(items);
  },
  60_000,
);

test.each([
  ["withdrawn", {}],
  ["over without an answer", { expiresIn: "5h" }],
] as const)(
  "a pause that is %s gives its place to the next item",
  async (what, options) => {
    const asked: number[] = [];
    const flow = defineFlow("places.ended");
    flow
      .to("list", () => items)
      .forEach({ concurrency: 1 })
      .to("ask", (ctx) => {
        asked.push(Number(ctx.input));
        return Number(ctx.input) < 3
          ? ctx.pauseFor({ interruptId: `boss ${String(ctx.input)}`, ...options })
          : ctx.input;
      })
      .endForEach();
    await using t = await kit({ flows: [flow] });
    const run = await t.start(flow, null, { autoClose: false });
    for (const asking of [1, 2]) {
      await t.settle();
      expect(asked.at(-1)).toBe(asking);
      if (what === "withdrawn") await run.withdraw(`boss ${asking}`, { actor: "ann", reason: "asked by mistake" });
      else await t.clock.advance("6h");
    }
    await t.settle();

    expect(asked).toEqual(items);
    await run.cancel();
  },
  60_000,
);
