/** A chunk body means what plain async code means: with parks, crashes at any commit and any passing of time, the same values, effects and state. */
import fc from "fast-check";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import type { Json } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { TestOrchestrator } from "../../src/test.ts";
import { Cutter, phases, type Phase } from "../../src/test/crash.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { bodies, Outside, plainWorld, run, worldOf, type Piece } from "./bodies.ts";

/** By execution: one that a failed run left behind does not get into the next. */
const runs = new Map<string, { readonly body: Piece; readonly outside: Outside }>();
const runOf = (id: string) => {
  const found = runs.get(id);
  if (!found) throw new Error(`no body for ${id}`);
  return found;
};

const child = defineFlow("bodies.child");
child
  .to("double", (ctx) => {
    const [of, n] = z.tuple([z.string(), z.number()]).parse(ctx.input);
    runOf(of).outside.saw(`child ${Math.abs(n)}`, ctx.idempotencyKey);
    if (n < 0) throw new Error("child failed");
    return n * 2;
  })
  .end();
const flow = defineFlow("bodies");
flow
  .to(
    "body",
    (ctx) => {
      const { body, outside } = runOf(ctx.execution.id);
      return run(body, worldOf(ctx, child, outside), outside);
    },
    { retry: { maxAttempts: 1000, initialInterval: "1m", jitter: false } },
  )
  .to("done", (ctx) => ctx.setState("result", ctx.input));
flow
  .when("Said")
  .to("hear", (ctx) => void runOf(ctx.execution.id).outside.saw(`event ${Number(ctx.input)}`, ctx.idempotencyKey));

interface Outcome {
  readonly state: Record<string, Json>;
  readonly effects: Record<string, number>;
}

const cutter = new Cutter((worker) => workers[worker]?.inside.crash());
let t: TestOrchestrator;
let workers: readonly { readonly inside: { crash(): void; revive(): void } }[] = [];
beforeAll(async () => {
  process.env["DATABASE_URL"] = inject("serverUrl");
  const logger = { debug() {}, info() {}, warn() {}, error() {} };
  const settings = { flows: [flow, child], begin: new Date("2026-01-01T09:00Z"), workers: 2, patienceMs: 2000, logger };
  t = await TestOrchestrator.open(settings, { committer: cutter.wrap });
  workers = [...t.orchestrator[internals].workers];
});
afterAll(() => t.close());

async function plainly(body: Piece): Promise<Outcome> {
  const [outside, state]: [Outside, Record<string, Json>] = [new Outside(), {}];
  const result = await run(body, plainWorld(outside, state), outside);
  return { state: { ...state, result }, effects: outside.effects };
}

interface Trouble {
  /** The commit that does not come through, counted from the start; 0 is none. */
  readonly commit: number;
  readonly phase: Phase;
  /** How far time is moved, before it goes on by itself. */
  readonly moves: readonly number[];
}

async function durably(body: Piece, { commit, phase, moves }: Trouble): Promise<Outcome> {
  const outside = new Outside();
  const id = t.orchestrator[internals].newId();
  runs.set(id, { body, outside });
  cutter.arm(id, commit === 0 ? null : { commit, phase });
  const started = await t.start(flow, null, { id, autoCloseTimeout: 0 });
  for (const ms of moves) await t.clock.advance(ms);
  for (let stops = 0; stops < 500 && (await started.isOpen()); stops++) {
    await t.settle();
    if (!(await t.clock.next())) break;
  }
  for (const { inside } of workers) inside.revive();
  cutter.disarm();
  if (await started.isOpen()) throw new Error((await started.explain()).sentence);
  return { state: await started.waitForClose(), effects: outside.effects };
}

const trouble: fc.Arbitrary<Trouble> = fc.record({
  commit: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 20 })),
  phase: fc.constantFrom(...phases),
  moves: fc.array(fc.constantFrom(1, 60_000, 3_600_000, 8 * 86_400_000), { maxLength: 3 }),
});

test(
  "a body at random comes to the same values, effects and state as plain async code",
  { timeout: 60_000 + fuzzRuns().numRuns * 30 },
  async () => {
    await fc.assert(
      fc.asyncProperty(bodies, trouble, async (body, where) => {
        expect(await durably(body, where)).toEqual(await plainly(body));
      }),
      {
        ...fuzzRuns(1 / 30),
        ...(process.env["QUICK"] ? { endOnFailure: true } : {}),
      },
    );
  },
);
