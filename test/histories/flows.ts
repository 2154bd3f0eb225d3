/**
 * Small histories, one per thing that executions can do. The order of events in each is fixed: one writer at a time, gates
 * where chunks and commands would race, and whatever comes from outside waits until the execution is at rest, or is held by
 * a chunk at a gate.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import {
  addMetadata,
  awaitResult,
  cancelExecution,
  configure,
  defer,
  delay,
  getExecution,
  rescheduleExecution,
} from "../../src/defer.ts";
import { defineFlow, ExecutionClosedError, ExecutionSealedError } from "../../src/index.ts";
import type { Execution, ExecutionId } from "../../src/index.ts";
import { newGate, refusal, untilEvent } from "../support/flows.ts";
import type { History } from "./stage.ts";

const atOnce = { autoCloseTimeout: 0 } as const;
/** Chunks of an execution one after the other. */
const inTurn = { ...atOnce, concurrency: 1 } as const;
/** Closed by hand. */
const byHand = { autoClose: false, concurrency: 1 } as const;

// ── the graph ───────────────────────────────────────────────────────────────────────────────────────────────

const chain: History = (stage) => {
  const flow = defineFlow(stage.name, { input: z.number() });
  flow
    .to("double", (ctx) => ctx.input * 2)
    .to("text", async (ctx) => ({ text: String(ctx.input) }))
    .to("nothing", () => {})
    .to("keep", (ctx) => ctx.setState("kept", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(21);
    },
  };
};

const fanOut: History = (stage) => {
  const flow = defineFlow(stage.name);
  const first = flow.to("first", () => 1);
  first.to("left", (ctx) => ctx.setState("left", ctx.input));
  first.to("right", (ctx) => ctx.setState("right", ctx.input + 1));
  flow.to("other root", (ctx) => ctx.setState("other", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start("hello", inTurn);
    },
  };
};

const condition: History = (stage) => {
  const flow = defineFlow(stage.name, { input: z.number() });
  flow
    .to("score", (ctx) => ctx.input)
    .ifCondition((ctx) => ctx.input >= 80)
    .to("approve", () => "approved")
    .elifCondition(async (ctx) => ctx.input >= 40)
    .to("ask", () => "asked")
    .elseCondition()
    .to("decline", () => "declined")
    .endCondition()
    .to("record", (ctx) => ctx.setState("decision", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      for (const score of [90, 50, 10]) await orchestrator.flow(flow).start(score);
    },
  };
};

/** The cases are asked about the start input, and about a collected value in a turn of its own. */
const matchAll: History = (stage) => {
  const flow = defineFlow(stage.name, { input: z.number() });
  flow
    .match({ mode: "all" })
    .case((ctx) => ctx.input > 1)
    .to("more than one", () => "> 1")
    .case((ctx) => ctx.input > 2)
    .to("more than two", () => "> 2")
    .case(0)
    .to("nought", () => "0")
    .caseElse()
    .to("else", () => "else")
    .endMatch()
    .match()
    .case((ctx) => Array.isArray(ctx.input))
    .to("list", (ctx) => ctx.setState("list", ctx.input))
    .endMatch();
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      for (const number of [3, 0, 1]) await orchestrator.flow(flow).start(number, inTurn);
    },
  };
};

const batch: History = (stage) => {
  const flow = defineFlow(stage.name, { input: z.number() });
  flow
    .batch({ one: (ctx) => ctx.input + 1, two: async (ctx) => ctx.input + 2, none: () => {} }, { concurrency: 1 })
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(1, inTurn);
    },
  };
};

const forEach: History = (stage) => {
  const flow = defineFlow(stage.name, { input: z.array(z.number()) });
  flow
    .forEach({ concurrency: 1 })
    .to("add", (ctx) => ctx.input + 1)
    .to("text", (ctx) => String(ctx.input))
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start([1, 2, 3]);
      await orchestrator.flow(flow).start([]);
    },
  };
};

const forEachNested: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow
    .to("rows", () => [[1, 2], [], [3]])
    .forEach({ concurrency: 1 })
    .to("row", (ctx) => ctx.input)
    .forEach({ concurrency: 1 })
    .to("cell", (ctx) => ctx.input * 10)
    .endForEach()
    .ifCondition((ctx) => ctx.input.length > 1)
    .to("long", (ctx) => ctx.appendState("long", ctx.input.length))
    .endCondition()
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, inTurn);
    },
  };
};

/** An item may end when the ending of the one before is recorded. */
const distributedForEach: History = (stage) => {
  const gates = [newGate(), newGate(), newGate()];
  const flow = defineFlow(stage.name);
  flow
    .to("list", async (ctx) => {
      await ctx.setState("folder", "holiday");
      return [0, 1, 2];
    })
    .forEach({ distribute: true, concurrency: 2 })
    .to("shrink", async (ctx) => {
      await gates[ctx.input]?.passed;
      await ctx.appendState("seen", `${String(ctx.getState("folder"))} ${ctx.input}`);
      return ctx.input * 10;
    })
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator
        .flow(flow)
        .startExecution(null, { ...atOnce, metadata: { tenant: "north" } });
      for (const [index, gate] of gates.entries()) {
        gate.open();
        await untilEvent(execution, "items.closed", ({ results }) => results.some(([item]) => item === index));
      }
      await execution.waitForClose();
    },
  };
};

const distributedBatch: History = (stage) => {
  const gate = newGate();
  const flow = defineFlow(stage.name, { input: z.number() });
  flow
    .batch(
      { one: (ctx) => ctx.input + 1, two: async (ctx) => (await gate.passed, ctx.input + 2) },
      { distribute: true },
    )
    .end();
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(1, atOnce);
      await untilEvent(execution, "items.closed");
      gate.open();
      await execution.waitForClose();
    },
  };
};

const distributedFailed: History = (stage) => {
  const begun = Promise.withResolvers<string>();
  const gate = newGate();
  const flow = defineFlow(stage.name);
  flow
    .to("list", () => ["slow", "bad"])
    .forEach({ distribute: true })
    .to("work", async (ctx) => {
      if (ctx.input === "slow") {
        begun.resolve(ctx.execution.id);
        await sleep(60_000, undefined, { signal: ctx.signal });
      }
      await gate.passed;
      throw new RangeError("bad item");
    })
    .endForEach();
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(await orchestrator.getExecution(await begun.promise), "inbox.routed");
      gate.open();
      await refusal(execution.waitForClose());
    },
  };
};

// ── events ──────────────────────────────────────────────────────────────────────────────────────────────────

const when: History = (stage) => {
  const flow = defineFlow(stage.name, { events: { Paid: z.object({ amount: z.coerce.number() }), Unheard: z.null() } });
  flow.to("pay", async (ctx) => {
    await ctx.emit("Paid", { amount: "7" });
    await ctx.emit("Unheard", null);
    return "paid";
  });
  flow
    .when("Paid")
    .to("thank", (ctx) => [ctx.event, ctx.input.amount])
    .to("keep", (ctx) => ctx.setState("thanked", ctx.input));
  flow.when("Paid").to("count", (ctx) => ctx.appendState("amounts", ctx.input.amount));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, inTurn);
    },
  };
};

const whenAnd: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("emit", async (ctx) => {
    ctx.emitNoWait("Paid", 1);
    ctx.emitNoWait("Paid", 2);
    ctx.emitNoWait("Packed", 3);
    ctx.emitNoWait("Packed", 4);
  });
  flow.when(["Paid", "Packed"]).to("ship", (ctx) => ctx.appendState("shipped", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, inTurn);
    },
  };
};

const whenOr: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("emit", async (ctx) => {
    ctx.emitNoWait("Called", 1);
    ctx.emitNoWait("Mailed", 2);
  });
  flow
    .when(["Called", "Mailed"], { mode: "or" })
    .ifCondition((ctx) => ctx.input.event === "Mailed")
    .to("mail", (ctx) => ctx.appendState("heard", ctx.input))
    .endCondition()
    .to("any", (ctx) => ctx.appendState("all", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, inTurn);
    },
  };
};

const whenState: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("write", async (ctx) => {
    await ctx.setState("list", ["a"]);
    await ctx.appendState("list", "b");
    await ctx.setState("list", ["silent"], { emit: false });
    await ctx.delState("list");
  });
  flow.when({ state: "list" }).to("hear", (ctx) => ctx.appendState("heard", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, inTurn);
    },
  };
};

const emitWait: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("ask", async (ctx) => {
    await ctx.emit("Question", "why", { wait: true });
    ctx.emitNoWait("Answered", ctx.getState("answer"));
  });
  flow
    .when("Question")
    .to("think", async (ctx) => await ctx.emit("Thought", ctx.input))
    .to("answer", (ctx) => ctx.setState("answer", "because"));
  flow.when("Thought").to("note", (ctx) => ctx.setState("thought", ctx.input));
  flow.when("Answered").to("hear", (ctx) => ctx.setState("heard", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, inTurn);
    },
  };
};

const emitFromOutside: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.when("Note").to("note", (ctx) => ctx.appendState("notes", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await stage.rest();
      await execution.emit("Note", 1, { actor: "ann" });
      await stage.rest();
      await execution.emit("Unheard", { nobody: "listens" });
      await stage.rest();
      await execution.close({ reason: "month end", actor: "bob" });
    },
  };
};

// ── state and results ───────────────────────────────────────────────────────────────────────────────────────

const state: History = (stage) => {
  const flow = defineFlow(stage.name, {
    state: z
      .object({
        total: z.object({ euro: z.number(), cents: z.number().optional() }),
        log: z.array(z.string()),
        gone: z.string(),
      })
      .partial(),
  });
  flow
    .to("write", async (ctx) => {
      await ctx.setState("total.euro", 41);
      await ctx.setState("total.cents", 5);
      await ctx.appendState("log", "written");
      await ctx.setState("gone", "soon");
      await ctx.flush();
      await ctx.setState("total.euro", (ctx.getState("total.euro") ?? 0) + 1);
      await ctx.appendState("log", "again");
      await ctx.delState("total.cents");
      await ctx.delState("gone");
      await ctx.delState("gone");
    })
    .to("read", (ctx) => ctx.getState());
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start();
    },
  };
};

const results: History = (stage) => {
  const ending = defineFlow(`${stage.name}.end`);
  ending
    .to("make", () => ({ ok: true }))
    .end()
    .to("after", (ctx) => ctx.setState("after", ctx.input.ok));
  const setting = defineFlow(`${stage.name}.set`);
  setting.to("set", async (ctx) => {
    await ctx.setResult("first");
    await ctx.setResult(null);
  });
  return {
    flows: [ending, setting],
    drive: async (orchestrator) => {
      await orchestrator.flow(ending).start();
      await orchestrator.flow(setting).start();
    },
  };
};

// ── attempts, steps, time ───────────────────────────────────────────────────────────────────────────────────

const quick = { initialInterval: 10, jitter: false } as const;

const steps: History = (stage) => {
  let tries = 0;
  let runs = 0;
  const flow = defineFlow(stage.name);
  flow.to(
    "work",
    async (ctx) => {
      const recorded = await ctx.step("count", () => ++runs);
      await ctx.step(
        "flaky",
        () => {
          if (++tries < 3) throw Object.assign(new Error(`try ${tries}`), { code: "EBUSY" });
          return { tries };
        },
        { retry: { maxAttempts: 3, ...quick } },
      );
      await ctx
        .step("hopeless", () => {
          throw new TypeError("never");
        })
        .catch(() => {});
      if (ctx.attempt < 2) throw new Error("once more");
      await ctx.setState("recorded", recorded);
    },
    { retry: { maxAttempts: 2, ...quick } },
  );
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start();
    },
  };
};

const chunkRetried: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to(
    "flaky",
    async (ctx) => {
      await ctx.putIntoStream({ attempt: ctx.attempt });
      await ctx.setState("begun", true);
      await ctx.flush();
      await ctx.setState("lost", ctx.attempt);
      if (ctx.attempt < 3) throw Object.assign(new Error(`attempt ${ctx.attempt}`), { code: "EBUSY" });
      return "at last";
    },
    { retry: { maxAttempts: 3, multiplier: 3, ...quick } },
  );
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start();
    },
  };
};

const chunkFailed: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("bad", async (ctx) => {
    await ctx.setState("kept", true);
    await ctx.flush();
    await ctx.setState("lost", true);
    throw Object.assign(new TypeError("no"), { code: "E_NO" });
  });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await refusal(orchestrator.flow(flow).start());
    },
  };
};

const chunkTimeout: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("slow", (ctx) => (ctx.attempt === 1 ? new Promise<string>(() => {}) : "in time"), {
    timeout: "30ms",
    retry: { maxAttempts: 2, ...quick },
  });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start();
    },
  };
};

const executionTimeout: History = (stage) => {
  const flow = defineFlow(stage.name, {}, { maxDuration: "100ms" });
  flow.to("slow", () => new Promise<void>(() => {}));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await refusal(orchestrator.flow(flow).start());
    },
  };
};

/** The first wait is short enough to stay in memory; for the second the execution is given back. */
const sleeps: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("nap", async (ctx) => {
    await ctx.sleep("20ms");
    await ctx.setState("napped", true);
    await ctx.sleep("2s");
    await ctx.setState("slept", true);
  });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start();
    },
  };
};

// ── children ────────────────────────────────────────────────────────────────────────────────────────────────

/** That a child has closed, and what its parent goes on with, have two writers: the parent waits to hear of it. */
const call: History = (stage) => {
  const told = newGate();
  const child = defineFlow(`${stage.name}.child`, { input: z.number() });
  child.to("double", (ctx) => ctx.setState("doubled", ctx.input * 2));
  const flow = defineFlow(stage.name, { input: z.number() });
  flow.to("call", async (ctx) => {
    const { doubled } = await ctx.call(child, ctx.input, { metadata: { for: "parent" }, priority: 3, timeout: "1h" });
    await told.passed;
    await ctx.setState("doubled", doubled);
  });
  return {
    flows: [flow, child],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(4, atOnce);
      await untilEvent(execution, "child.closed");
      told.open();
      await execution.waitForClose();
    },
  };
};

const callFailed: History = (stage) => {
  const told = newGate();
  const child = defineFlow(`${stage.name}.child`);
  child.to("fail", () => {
    throw new RangeError("the child's own");
  });
  const flow = defineFlow(stage.name);
  flow.to("call", async (ctx) => {
    const error = await refusal(ctx.call(child, null));
    await told.passed;
    await ctx.setState("failed", error instanceof Error && error.name);
  });
  return {
    flows: [flow, child],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(execution, "child.closed");
      told.open();
      await execution.waitForClose();
    },
  };
};

const subFlow: History = (stage) => {
  const told = newGate();
  const child = defineFlow(`${stage.name}.child`, { stream: z.string() });
  child.to("review", async (ctx) => {
    await ctx.putIntoStream(`reading ${JSON.stringify(ctx.input)}`);
    await ctx.setState("verdict", { text: "good", tone: ctx.getState("tone") });
  });
  const flow = defineFlow(stage.name, { stream: z.string() });
  flow
    .to("draft", async (ctx) => {
      await ctx.putIntoStream("drafted");
      await ctx.setState("style.tone", "dry");
      return { draft: { text: "Bees dance." } };
    })
    .toSubFlow(child, {
      capture: { "input.text": "value.draft.text", "state.tone": "state.style.tone" },
      writeBack: { "value.verdict": "result.verdict.text", "state.style.last": "snapshot.verdict.tone" },
    })
    .ifCondition(async () => (await told.passed, true))
    .to("keep", (ctx) => ctx.setState("kept", ctx.input))
    .endCondition();
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(execution, "child.closed");
      told.open();
      await execution.waitForClose();
    },
  };
};

/** The parent is given back while its sub-flow waits, and its answer goes through the parent. */
const subFlowPaused: History = (stage) => {
  const child = defineFlow(`${stage.name}.child`);
  child
    .to("ask", (ctx) => ctx.pauseFor({ type: "review", interruptId: "verdict", payload: ctx.input }))
    .to("keep", (ctx) => ctx.setState("verdict", ctx.input));
  const flow = defineFlow(stage.name);
  flow
    .to("draft", () => "Bees dance.")
    .toSubFlow(child)
    .to("print", (ctx) => ctx.setState("printed", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(execution, "child.started");
      await stage.rest();
      const [interrupt] = await execution.getPendingInterrupts();
      await execution.continueWith(interrupt?.id ?? "", "good", { actor: "ann" });
      await execution.waitForClose();
    },
  };
};

/** Told that it is cancelled while nobody serves either of them; the child ends first, then its parent goes on. */
const subFlowCancelled: History = (stage) => ({
  drive: async () => {
    const begun = Promise.withResolvers<string>();
    const child = defineFlow(`${stage.name}.child`);
    child.to("ask", (ctx) => {
      begun.resolve(ctx.execution.id);
      return ctx.pauseFor({ interruptId: "q" });
    });
    const flow = defineFlow(stage.name);
    flow.toSubFlow(child).to("never", (ctx) => ctx.setState("never", true));
    const first = await stage.serve([flow]);
    const { id } = await first.flow(flow).startExecution(null, atOnce);
    await stage.rest({ id: await begun.promise });
    await first.close();

    const execution = await stage.visit([flow]).getExecution(id);
    const [frame] = await execution.getSubFlowFrames();
    await execution.cancelSubFlow(frame?.id ?? "", "no longer needed", { actor: "ann" });
    await stage.serve([child]);
    await untilEvent(execution, "child.closed");
    await stage.serve([flow]);
    await execution.waitForClose();
  },
});

const familyCancelled: History = (stage) => {
  const begun = Promise.withResolvers<string>();
  const child = defineFlow(`${stage.name}.child`);
  child.to("hang", async (ctx) => {
    begun.resolve(ctx.execution.id);
    await sleep(60_000, undefined, { signal: ctx.signal });
  });
  const flow = defineFlow(stage.name);
  flow.to("call", (ctx) => ctx.call(child, null));
  return {
    flows: [flow, child],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(await orchestrator.getExecution(await begun.promise), "inbox.routed");
      await execution.cancel("no longer needed", { actor: "ann" });
      await refusal(execution.waitForClose());
    },
  };
};

// ── people in the loop ──────────────────────────────────────────────────────────────────────────────────────

const pauseNext: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow
    .to("ask", (ctx) =>
      ctx.pauseFor({
        type: "approval",
        interruptId: "boss",
        payload: { amount: ctx.input },
        response: z.object({ approved: z.boolean() }),
        expiresIn: "7d",
      }),
    )
    .to("unnamed", (ctx) => (ctx.input.approved ? ctx.pauseFor() : null))
    .to("record", (ctx) => ctx.setState("answer", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(900, atOnce);
      await stage.rest();
      const answer = { resumeRequestId: "mail-7", actor: "ann" };
      await execution.continueWith("boss", { approved: true }, answer);
      await execution.continueWith("boss", { approved: true }, answer);
      await stage.rest();
      const [interrupt] = await execution.getPendingInterrupts();
      await execution.continueWith(interrupt?.id ?? "", "fine");
      await execution.waitForClose();
    },
  };
};

const pauseSelf: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("ask", async (ctx) => {
    await ctx.appendState("answers", ctx.isResume ? (ctx.resume?.value ?? null) : "none yet");
    if (ctx.resume?.count === 2) return "done";
    return ctx.pauseFor({ resumeTo: "self", interruptId: "q", maxResumes: 2, payload: ctx.input });
  });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution("in", atOnce);
      await stage.rest();
      await execution.continueWith("q", 1, { actor: "ann" });
      await stage.rest();
      await execution.continueWith("q", 2, { resumeRequestId: "r-2" });
      await execution.waitForClose();
    },
  };
};

/** One is answered by name, the other by the event itself. */
const pauseEvent: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow
    .to("ask", (ctx) => ctx.pauseFor({ resumeTo: { event: "Decided" }, interruptId: "q" }))
    .to("never", (ctx) => ctx.setState("never", true));
  flow.when("Decided").to("heard", (ctx) => ctx.appendState("heard", [ctx.event, ctx.input]));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const named = await orchestrator.flow(flow).startExecution(null, atOnce);
      await stage.rest();
      await named.continueWith("q", 42);
      await named.waitForClose();
      const heard = await orchestrator.flow(flow).startExecution(null, atOnce);
      await stage.rest();
      await heard.emit("Decided", 43, { actor: "bob" });
      await heard.waitForClose();
    },
  };
};

const pauseExpired: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", expiresIn: "30ms" }))
    .to("never", (ctx) => ctx.setState("never", true));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await execution.waitForClose();
    },
  };
};

const pauseLate: History = (stage) => {
  const flow = defineFlow(stage.name);
  const late = { expiresIn: "30ms", maxResumes: 1 } as const;
  flow
    .to("skip", (ctx) => ctx.pauseFor({ ...late, interruptId: "a", onExpire: "continue" }))
    .to("decide", (ctx) => ctx.pauseFor({ ...late, interruptId: "b", onExpire: { value: { approved: false } } }))
    .to("tell", (ctx) => ctx.pauseFor({ ...late, interruptId: "c", onExpire: { event: "Late", payload: ctx.input } }))
    .to("never", (ctx) => ctx.setState("never", true));
  flow.when("Late").to("fail", (ctx) => ctx.pauseFor({ ...late, interruptId: "d", onExpire: "fail" }));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await refusal(execution.waitForClose());
    },
  };
};

const pauseWithdrawn: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("outside", (ctx) => ctx.pauseFor({ interruptId: "a" })).to("never", (ctx) => ctx.setState("never", true));
  flow.when("Ask").to("inside", (ctx) => ctx.pauseFor({ interruptId: "b" }));
  flow.when("Sold").to("withdraw", (ctx) => ctx.withdraw("b", { reason: "sold" }));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await stage.rest();
      await execution.emit("Ask", null);
      await stage.rest();
      await execution.withdraw("a", { actor: "ann", reason: "moot" });
      await stage.rest();
      await execution.emit("Sold", null);
      await stage.rest();
      await execution.close();
    },
  };
};

const pauseEarly: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow
    .when("Ask")
    .to("ask", (ctx) =>
      ctx.pauseFor({ interruptId: String(ctx.input), response: z.object({ n: z.number().default(1) }) }),
    );
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await stage.rest();
      await execution.continueWith("taken", {}, { actor: "ann", resumeRequestId: "r-1" });
      await execution.continueWith("refused", { n: "one" });
      await execution.continueWith("unasked", 1);
      await stage.rest();
      for (const id of ["taken", "refused"]) {
        await execution.emit("Ask", id);
        await stage.rest();
      }
      await execution.close({ pendingInterrupts: "cancel" });
    },
  };
};

const interventionsPlanned: History = (stage) => {
  const gate = newGate();
  const flow = defineFlow(stage.name);
  flow
    .to("draft", async (ctx) => (await gate.passed, ctx.input))
    .interventionPoint({ name: "before risk", target: "risk" })
    .to("risk", async (ctx) => {
      for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id, { note: "done" });
      return ctx.input;
    })
    .interventionPoint({ name: "any" })
    .to("last", (ctx) =>
      ctx.setState(
        "seen",
        ctx.getInterventions({ sinceVersion: 1 }).map(({ payload }) => payload),
      ),
    );
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution("in", atOnce);
      await untilEvent(execution, "inbox.routed");
      await execution.intervene("for risk", { target: "risk", author: "ann", note: "see mail", metadata: { mail: 7 } });
      await execution.intervene("for anyone");
      await execution.intervene("for nobody", { target: "elsewhere" });
      gate.open();
      await execution.waitForClose();
    },
  };
};

const interventionsAuto: History = (stage) => {
  const [first, second] = [newGate(), newGate()];
  const flow = defineFlow(stage.name);
  flow
    .to("draft", () => first.passed)
    .to("write", async (ctx) => {
      for (const { id } of ctx.interventions) await ctx.markInterventionConsumed(id, { status: "ignored" });
      await ctx.flush();
      await second.passed;
    })
    .to("last", (ctx) => ctx.setState("count", ctx.interventions.length));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, { ...atOnce, interventionMode: "auto" });
      await untilEvent(execution, "inbox.routed");
      const { id } = await execution.intervene({ text: "use the new prices" }, { author: "reviewer" });
      await execution.intervene("for the last", { target: "last" });
      first.open();
      await untilEvent(execution, "intervention.consumed");
      await execution.markInterventionConsumed(id, { consumer: "audit", note: "seen", metadata: { page: 2 } });
      second.open();
      await execution.waitForClose();
    },
  };
};

// ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

const sealed: History = (stage) => {
  const gate = newGate();
  const flow = defineFlow(stage.name);
  flow.to("root", async (ctx) => {
    await gate.passed;
    await ctx.emit("Inner", 1);
  });
  flow.when("Inner").to("inner", (ctx) => ctx.setState("inner", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await untilEvent(execution, "inbox.routed");
      await execution.seal({ actor: "ann" });
      await execution.seal();
      expectError(await refusal(execution.emit("Inner", 2)), ExecutionSealedError);
      gate.open();
      await stage.rest();
      await execution.close();
      await execution.close();
      expectError(await refusal(execution.emit("Inner", 3)), ExecutionClosedError);
    },
  };
};

const closedRunning: History = (stage) => {
  const gate = newGate();
  const flow = defineFlow(stage.name);
  flow.to("slow", async (ctx) => (await gate.passed, ctx.emit("More", "accepted")));
  flow.when("More").to("more", (ctx) => ctx.setState("more", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await untilEvent(execution, "inbox.routed");
      const closing = execution.close({ reason: "month end" });
      await untilEvent(execution, "execution.sealed");
      gate.open();
      await closing;
    },
  };
};

const closedPaused: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("one", (ctx) => ctx.pauseFor({ interruptId: "first" }));
  flow.to("two", (ctx) => ctx.pauseFor({ interruptId: "second" }));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await stage.rest();
      await refusal(execution.close());
      await execution.close({ pendingInterrupts: "cancel", reason: "given up", actor: "ann" });
    },
  };
};

const cancelledRunning: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("hang", async (ctx) => {
    await ctx.setState("begun", true);
    await ctx.flush();
    await sleep(60_000, undefined, { signal: ctx.signal });
  });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(execution, "state.set");
      await execution.cancel("no longer needed", { actor: "ann" });
      await refusal(execution.waitForClose());
      await execution.cancel("too late");
    },
  };
};

const who = { actor: "ann", reason: "INC-12" } as const;

/** Fails as often as its name says, and parks then. */
function parking(stage: { name: string }) {
  const flow = defineFlow(stage.name, {}, { onFailure: "park" });
  let fails = 2;
  flow
    .to(
      "pay",
      async (ctx) => {
        const id = await ctx.step("bank", () => "b-1");
        if (fails-- > 0) throw new RangeError("no line");
        return id;
      },
      { retry: { maxAttempts: 1 } },
    )
    .to("keep", (ctx) => ctx.setState("paid", ctx.input));
  return flow;
}

/** @param go what is done once it has parked */
function parked(go: (execution: Execution, rest: () => Promise<void>) => Promise<unknown>): History {
  return (stage) => {
    const flow = parking(stage);
    return {
      flows: [flow],
      drive: async (orchestrator) => {
        const execution = await orchestrator.flow(flow).startExecution(null, byHand);
        await stage.rest();
        await go(execution, () => stage.rest());
      },
    };
  };
}

const parkedRetried = parked(async (execution, rest) => {
  await execution.retry(who);
  await rest();
  await execution.editState({ set: { note: "mended" }, delete: [] }, who);
  await rest();
  await execution.retry({ chunk: "pay", ...who });
  await rest();
  await execution.close();
});

const parkedSkipped = parked(async (execution, rest) => {
  await execution.pause(who);
  await rest();
  await execution.skip({ chunk: "pay", output: "by hand", ...who });
  await rest();
  await execution.unpause(who);
  await rest();
  await execution.close();
});

const parkedClosed = parked((execution) => refusal(execution.close({ parked: "fail" })));

const cancelledCleanup: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("book", (ctx) => ctx.pauseFor({ interruptId: "boss" }), {
    onCancel: async (ctx) => {
      await ctx.step("unbook", () => null);
    },
  });
  flow.onCancel(() => {
    throw new RangeError("nobody there");
  });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).startExecution(null, byHand);
      await stage.rest();
      await execution.cancel("no longer needed", { actor: "ann" });
      await refusal(execution.waitForClose());
    },
  };
};

const cancelledUnclaimed: History = (stage) => ({
  drive: async () => {
    const flow = defineFlow(stage.name);
    flow.to("never", () => null);
    const orchestrator = stage.visit([flow]);

    const execution = await orchestrator.flow(flow).startExecution(null, { ...atOnce, delay: "1h" });
    await execution.cancel("no longer needed", { actor: "ann" });
  },
});

/** The worker comes when it is too late. */
const discarded: History = (stage) => ({
  drive: async () => {
    const flow = defineFlow(stage.name);
    flow.to("never", () => null);

    const execution = await stage
      .visit([flow])
      .flow(flow)
      .startExecution("in", { ...atOnce, discardAfter: 1 });
    await sleep(20);
    await stage.serve([flow]);
    await refusal(execution.waitForClose());
  },
});

// ── starts ──────────────────────────────────────────────────────────────────────────────────────────────────

const idempotent: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("root", (ctx) => ctx.setState("input", ctx.input));
  flow.when("Note").to("note", (ctx) => ctx.appendState("notes", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const start = () => orchestrator.flow(flow).startExecution("once", { ...byHand, idempotencyKey: "order-17" });

      const execution = await start();
      await stage.rest();
      await start();
      await execution.emit("Note", 1, { idempotencyKey: "form-1" });
      await execution.emit("Note", 1, { idempotencyKey: "form-1" });
      await stage.rest();
      await execution.emit("Note", 1, { idempotencyKey: "form-1" });
      await execution.close();
    },
  };
};

const created: History = (stage) => {
  const flow = defineFlow(stage.name, { input: z.string() });
  flow.to("open", (ctx) => ctx.setState("topic", ctx.input));
  flow.when("Note").to("note", (ctx) => ctx.appendState("notes", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const execution = await orchestrator.flow(flow).createExecution({ ...atOnce, metadata: { early: true } });
      await execution.emit("Note", "before the start");
      await stage.rest();
      await execution.start("tea");
    },
  };
};

const priorityAndMetadata: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow.to("read", (ctx) => ctx.setState("tenant", ctx.execution.metadata["tenant"]));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start(null, {
        priority: -7,
        metadata: { tenant: "north", tags: ["a", "b"] },
        runtimeResources: { clock: () => "noon" },
      });
    },
  };
};

const bySql: History = (stage) => {
  const flow = defineFlow(stage.name, {
    input: z.object({ n: z.coerce.number() }),
    events: { Note: z.object({ text: z.string().trim() }) },
  });
  flow.to("root", (ctx) => ctx.setState("n", ctx.input.n));
  flow.when("Note").to("note", (ctx) => ctx.appendState("notes", ctx.input.text));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const { sql } = stage;
      const settings = { autoClose: false, metadata: { from: "psql" }, priority: 2 };

      const [row] = await sql<[{ id: ExecutionId }]>`
    select flowledger.start(${flow.name}, '{"n": "2"}', ${JSON.stringify(settings)}::text::jsonb) as id`;
      await stage.rest();
      await sql`select flowledger.emit(${row.id}, 'Note', '{"text": " as it should be "}', 'mail-1', 'ann')`;
      await stage.rest();
      await sql`select flowledger.emit(${row.id}, 'Note', '{"text": 7}')`;
      await stage.rest();
      await sql`select flowledger.emit(${row.id}, 'Unknown')`;
      await stage.rest();
      await sql`select flowledger.close(${row.id}, 'by SQL', actor => 'ann')`;
      await (await orchestrator.getExecution(row.id)).waitForClose();
    },
  };
};

const bySqlRefused: History = (stage) => {
  // What only the code can say: the rest is refused where it comes in.
  const n = z.number().refine((given) => given % 2 === 0, "an even number is expected");
  const flow = defineFlow(stage.name, { input: z.object({ n }) });
  flow.to("never", () => null);
  return {
    flows: [flow],
    drive: async () => {
      await stage.sql`select flowledger.start(${flow.name}, '{"n": 3}', '{"autoCloseTimeout": "0s"}')`;
    },
  };
};

const limited: History = (stage) => {
  const gate = newGate();
  const flow = defineFlow(
    stage.name,
    { input: z.object({ tenant: z.string() }) },
    { limits: { concurrency: 1, key: (input) => input.tenant, perKey: { concurrency: 1 } } },
  );
  flow.to("work", () => gate.passed);
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const first = await orchestrator.flow(flow).startExecution({ tenant: "north" }, atOnce);
      await untilEvent(first, "inbox.routed");
      const second = await orchestrator.flow(flow).startExecution({ tenant: "south" }, atOnce);
      gate.open();
      await Promise.all([first.waitForClose(), second.waitForClose()]);
    },
  };
};

const limitedCancelled: History = (stage) => {
  const gate = newGate();
  const flow = defineFlow(stage.name, {}, { limits: { concurrency: 1, maxConcurrencyAction: "cancel" } });
  flow.to("work", () => gate.passed);
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const first = await orchestrator.flow(flow).startExecution(null, atOnce);
      await untilEvent(first, "inbox.routed");
      const second = await orchestrator.flow(flow).startExecution(null, atOnce);
      await refusal(second.waitForClose());
      gate.open();
      await first.waitForClose();
    },
  };
};

// ── streams, copies, workers, functions ─────────────────────────────────────────────────────────────────────

const stream: History = (stage) => {
  const flow = defineFlow(stage.name, { stream: z.object({ word: z.string().nullable() }) });
  flow
    .to("write", async (ctx) => {
      for (const word of ["roses", "are", null]) await ctx.putIntoStream({ word });
      await ctx.setState("written", true);
    })
    .to("stop", async (ctx) => {
      await ctx.putIntoStream({ word: "red" });
      await ctx.stopStream();
      await ctx.setState("stopped", true);
    });
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      await orchestrator.flow(flow).start();
    },
  };
};

const copies: History = (stage) => {
  const flow = defineFlow(stage.name);
  flow
    .to("draft", (ctx) => ctx.setState("draft", `on ${String(ctx.input)}`))
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "title" }))
    .to("name", (ctx) => ctx.setState("title", ctx.input));
  return {
    flows: [flow],
    drive: async (orchestrator) => {
      const source = await orchestrator
        .flow(flow)
        .startExecution("tea", { ...atOnce, metadata: { essay: 1 }, priority: 4 });
      await stage.rest();
      const asked = (await source.history()).length;
      const saved = await source.save();
      await source.continueWith("title", "Tea");
      await source.waitForClose();
      const fork = await source.fork({ at: asked, metadata: { essay: 2 } });
      await finish(fork, "A fork");
      const beginning = await source.fork({ at: 2, input: "coffee" });
      await finish(beginning, "Another beginning");
      await finish(await orchestrator.load(JSON.stringify(saved)), "A load");

      async function finish(copy: Execution, title: string): Promise<void> {
        await stage.rest();
        await copy.continueWith("title", title);
        await copy.waitForClose();
      }
    },
  };
};

/** What stands at a pause goes on by a definition that has more. */
const newVersion: History = (stage) => ({
  drive: async () => {
    const before = defineFlow(stage.name);
    before
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
      .to("keep", (ctx) => ctx.setState("answer", ctx.input));
    const after = defineFlow(stage.name);
    after
      .to("check", (ctx) => ctx.input)
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
      .to("mail", (ctx) => ctx.input)
      .to("keep", (ctx) => ctx.setState("answer", ctx.input));
    const first = await stage.serve([before]);
    const { id } = await first.flow(before).startExecution(null, atOnce);
    await stage.rest();
    await first.close();

    const second = await stage.serve([after]);
    const execution = await second.getExecution(id);
    await execution.continueWith("q", "yes");
    await execution.waitForClose();
  },
});

/** A worker that stops gives its execution back at the next commit point; another one replays what is recorded. */
const drained: History = (stage) => ({
  drive: async () => {
    const [begun, gate] = [newGate(), newGate()];
    const flow = defineFlow(stage.name);
    flow.to("work", async (ctx) => {
      await ctx.step("first", () => 1);
      begun.open();
      await gate.passed;
      const second = await ctx.step("second", () => 2);
      await ctx.setState("second", second);
    });
    const first = stage.visit([flow]);
    const worker = await first.startWorker();

    const { id } = await first.flow(flow).startExecution(null, atOnce);
    await begun.passed;
    const stopped = worker.stop();
    gate.open();
    await stopped;
    const second = await stage.serve([flow]);
    await (await second.getExecution(id)).waitForClose();
  },
});

const functions: History = (stage) => ({
  drive: async () => {
    const told = newGate();
    let tries = 0;
    const double = defer((n: number) => n * 2, { name: `${stage.name}.double`, maxDuration: 60 });
    const sum = defer(
      async (a: number, b: number) => {
        const doubled = await awaitResult(double)(a);
        await told.passed;
        return doubled + b;
      },
      { name: `${stage.name}.sum` },
    );
    const flaky = defer(
      () => {
        if (++tries < 2) throw new RangeError("once more");
      },
      { name: `${stage.name}.flaky`, retry: { maxAttempts: 1, initialInterval: 0.01, randomizationFactor: 0 } },
    );
    const orchestrator = await stage.serve([], { functions: [double, sum, flaky] });
    configure(orchestrator);

    const { id } = await addMetadata(sum, { tenant: "north" })(3, 1);
    const execution = await orchestrator.getExecution(id);
    await untilEvent(execution, "child.closed");
    told.open();
    await execution.waitForClose();
    await awaitResult(flaky)();
  },
});

const functionsLater: History = (stage) => ({
  drive: async () => {
    const later = defer((what: string) => what, { name: `${stage.name}.later` });
    const orchestrator = await stage.serve([], { functions: [later] });
    configure(orchestrator);

    const moved = await delay(later, "1 hour")("moved");
    await rescheduleExecution(moved.id);
    await (await orchestrator.getExecution(moved.id)).waitForClose();
    const cancelled = await delay(later, "1 hour")("cancelled");
    await cancelExecution(cancelled.id);
    await getExecution(cancelled.id);
  },
});

function expectError(error: unknown, kind: new (...args: never[]) => Error): void {
  if (!(error instanceof kind)) throw new Error(`not a ${kind.name}: ${String(error)}`);
}

/** By the name of the fixture. */
export const histories: Readonly<Record<string, History>> = {
  chain,
  "fan-out": fanOut,
  condition,
  "match-all": matchAll,
  batch,
  "for-each": forEach,
  "for-each-nested": forEachNested,
  "distributed-for-each": distributedForEach,
  "distributed-batch": distributedBatch,
  "distributed-failed": distributedFailed,
  when,
  "when-and": whenAnd,
  "when-or": whenOr,
  "when-state": whenState,
  "emit-wait": emitWait,
  "emit-from-outside": emitFromOutside,
  state,
  results,
  steps,
  "chunk-retried": chunkRetried,
  "chunk-failed": chunkFailed,
  "chunk-timeout": chunkTimeout,
  "execution-timeout": executionTimeout,
  sleeps,
  call,
  "call-failed": callFailed,
  "sub-flow": subFlow,
  "sub-flow-paused": subFlowPaused,
  "sub-flow-cancelled": subFlowCancelled,
  "family-cancelled": familyCancelled,
  "pause-next": pauseNext,
  "pause-self": pauseSelf,
  "pause-event": pauseEvent,
  "pause-expired": pauseExpired,
  "pause-late": pauseLate,
  "pause-withdrawn": pauseWithdrawn,
  "pause-early": pauseEarly,
  "interventions-planned": interventionsPlanned,
  "interventions-auto": interventionsAuto,
  sealed,
  "closed-running": closedRunning,
  "closed-paused": closedPaused,
  "cancelled-running": cancelledRunning,
  "cancelled-unclaimed": cancelledUnclaimed,
  "cancelled-cleanup": cancelledCleanup,
  "parked-retried": parkedRetried,
  "parked-skipped": parkedSkipped,
  "parked-closed": parkedClosed,
  discarded,
  idempotent,
  created,
  "priority-and-metadata": priorityAndMetadata,
  "by-sql": bySql,
  "by-sql-refused": bySqlRefused,
  limited,
  "limited-cancelled": limitedCancelled,
  stream,
  copies,
  "new-version": newVersion,
  drained,
  functions,
  "functions-later": functionsLater,
};
