/** What a handler's types promise: everything flows from the contract. */
import { expectTypeOf, test } from "vitest";
import { z } from "zod";
import type { Json } from "../../src/index.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Question, StopEvent } from "../../src/index.ts";

const flow = defineFlow("typed", {
  input: z.object({ topic: z.string() }),
  events: { Said: z.object({ word: z.string() }) },
  stream: z.object({ token: z.string() }),
});
const orchestrator = createOrchestrator({ connection: "postgres://localhost/none" });

test("run takes the contract's input, and no option that would give it another id", () => {
  expectTypeOf(orchestrator.flow(flow).run({ topic: "pirates" }, { timeout: "1m" }).id).toExtend<string>();
  // @ts-expect-error the contract wants a text
  orchestrator.flow(flow).run({ topic: 1 });
  // @ts-expect-error the execution of a known key would have another id
  orchestrator.flow(flow).run({ topic: "pirates" }, { idempotencyKey: "a" });
});

test("a handler's events are the contract's items and the stop event", () => {
  const handler = orchestrator.flow(flow).run({ topic: "pirates" });
  type Item = { token: string };

  expectTypeOf<Awaited<typeof handler>>().toEqualTypeOf<Json>();
  expectTypeOf<Awaited<ReturnType<typeof handler.stopEventResult>>>().toEqualTypeOf<{
    readonly type: "stop";
    readonly result: Json;
  }>();
  const events = handler.streamEvents();
  type Event = typeof events extends AsyncGenerator<infer E, void, undefined> ? E : never;
  expectTypeOf<Event>().toEqualTypeOf<Item | Question | StopEvent>();
  void handler.sendEvent("Said", { word: "yes" });
  // @ts-expect-error there is no such event
  void handler.sendEvent("Sad", { word: "yes" });
});
