/** Every command in a transaction of the caller's own: with its commit, and in its name; with its rollback, never. */
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { CreateOptions, Execution } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf } from "../support/doors.ts";
import { serving, untilEvent } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

type Tx = NonNullable<CreateOptions["tx"]>;

const database = await testDatabase();
const child = defineFlow("tx-child");
child.when("Hear").to("heard", (ctx) => ctx.setState("heard", ctx.input as never));
child.to("ask", (ctx) => ctx.pauseFor({ interruptId: "inner" }));
let isRepaired = false;
const flow = defineFlow("tx-commands", {}, { onFailure: "park" });
flow
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", assign: ["ann"] }))
  .to("after", (ctx) => ctx.setState("got", ctx.input as never));
flow.when("Said").to("hear", (ctx) => ctx.setState("said", ctx.input as never));
flow.when("Break").to("break", () => {
  if (!isRepaired) throw new Error("down");
});
flow.when("Call").toSubFlow(child);
const orchestrator = await serving(database, [flow, child]);
const sql = postgres(database.url, { max: 3 });
afterAll(async () => {
  await orchestrator.close();
  await sql.end();
});

const why = { actor: "ann", reason: "INC-1" };

/** What each writes, and what has to be there before. */
const commands: Record<
  string,
  {
    readonly do: (of: Execution, tx: Tx) => Promise<unknown>;
    readonly writes: string;
    readonly needs?: (of: Execution) => Promise<unknown>;
  }
> = {
  emit: { do: (of, tx) => of.emit("Said", 7, { tx }), writes: "event.emitted" },
  seal: { do: (of, tx) => of.seal({ tx, actor: "ann" }), writes: "execution.sealed" },
  cancel: { do: (of, tx) => of.cancel("gone", { tx }), writes: "cancel.requested" },
  continueWith: { do: (of, tx) => of.continueWith("q", { a: 1 }, { tx, actor: "ann" }), writes: "interrupt.resumed" },
  "continueWith before the question": {
    do: (of, tx) => of.continueWith("later", 1, { tx }),
    writes: "interrupt.answered",
  },
  withdraw: { do: (of, tx) => of.withdraw("q", { tx, actor: "ann" }), writes: "interrupt.cancelled" },
  claim: { do: (of, tx) => of.claim("q", { tx, actor: "ann" }), writes: "interrupt.claimed" },
  release: {
    do: (of, tx) => of.release("q", { tx, actor: "ann" }),
    writes: "interrupt.released",
    needs: (of) => of.claim("q", { actor: "ann" }),
  },
  delegate: { do: (of, tx) => of.delegate("q", { tx, to: "bo", actor: "ann" }), writes: "interrupt.delegated" },
  snooze: {
    do: (of, tx) => of.snooze("q", { tx, until: new Date("2100-01-01T00:00:00Z"), actor: "ann" }),
    writes: "interrupt.snoozed",
  },
  intervene: { do: (of, tx) => of.intervene({ a: 1 }, { tx, author: "ann" }), writes: "intervention.recorded" },
  markInterventionConsumed: {
    do: async (of, tx) => {
      const [known] = await of.history({ types: ["intervention.recorded"] });
      if (known?.type !== "intervention.recorded") throw new Error("none");
      return of.markInterventionConsumed(known.id, { tx, consumer: "ann" });
    },
    writes: "intervention.consumed",
    needs: (of) => of.intervene({ a: 1 }, { target: "nobody" }),
  },
  pause: { do: (of, tx) => of.pause({ tx, ...why }), writes: "execution.paused" },
  unpause: { do: (of, tx) => of.unpause({ tx, ...why }), writes: "execution.unpaused", needs: (of) => of.pause(why) },
  editState: { do: (of, tx) => of.editState({ set: { edited: 1 } }, { tx, ...why }), writes: "state.edited" },
  skip: { do: (of, tx) => of.skip({ tx, chunk: "ask", output: 1, ...why }), writes: "chunk.skipped" },
  retry: {
    do: (of, tx) => {
      isRepaired = true;
      return of.retry({ tx, ...why });
    },
    writes: "chunk.retried",
    needs: async (of) => {
      isRepaired = false;
      await of.emit("Break", null);
      await untilEvent(of, "chunk.parked");
    },
  },
};

async function waiting(): Promise<Execution> {
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false, interventionMode: "auto" });
  await untilEvent(execution, "interrupt.raised");
  return execution as unknown as Execution;
}

test.each(Object.entries(commands))("%s", async (_, command) => {
  const execution = await waiting();
  await command.needs?.(execution);
  const written = async () => (await execution.history({ types: [command.writes as never] })).length;

  await sql
    .begin(async (tx) => {
      await command.do(execution, tx);
      throw new Error("back");
    })
    .catch(() => {});
  const rolledBack = await written();
  await sql.begin(async (tx) => {
    await command.do(execution, tx);
    expect(await written()).toBe(0);
  });

  expect([rolledBack, await written()]).toEqual([0, 1]);
  await execution.cancel();
  await untilEvent(execution, "execution.closed");
  await expectGuarantees(database.sql, execution.id);
});

test("sub-flows hear of it when it commits, and so does a worker of another process's connection", async () => {
  const execution = await waiting();
  await execution.emit("Call", null);
  const { child: id } = await untilEvent(execution, "child.started");
  await expect.poll(async () => (await execution.getSubFlowFrames())[0]?.status).toBe("waiting");

  await sql.begin(async (tx) => {
    await execution.emitToSubFlow(id, "Hear", 7, { tx });
    await execution.emit("Said", "hello", { tx });
  });
  const inner = await orchestrator.getExecution(id);
  await untilEvent(inner, "state.set");
  await untilEvent(execution, "state.set");
  const cancelled = await sql.begin((tx) => execution.cancelSubFlow(id, "gone", { tx }));

  expect(cancelled).toBe(true);
  await untilEvent(inner, "execution.closed");
  await execution.cancel();
});

test("what is refused is refused as without a transaction, and what is none is no tx", async () => {
  const execution = await waiting();
  const nobody = await orchestrator.flow(flow).createExecution({ autoClose: false });
  await nobody.cancel();
  await untilEvent(nobody, "execution.closed");
  /** A statement that failed ends its transaction. */
  const within = async (work: (tx: Tx) => Promise<unknown>) => {
    let code = "";
    await sql.begin(async (tx) => void (code = await codeOf(work(tx)))).catch(() => {});
    return code;
  };
  await execution.continueWith("q", 1, { resumeRequestId: "r" });

  expect(await within((tx) => execution.continueWith("q", 2, { tx, resumeRequestId: "r" }))).toBe("RESUME_CONFLICT");
  expect(await within((tx) => execution.claim("none", { tx, actor: "ann" }))).toBe("INTERRUPT_NOT_PENDING");
  expect(await within((tx) => nobody.emit("Said", 1, { tx }))).toBe("EXECUTION_CLOSED");
  expect(await within((tx) => execution.retry({ tx, actor: "", reason: "" }))).toBe("USAGE_INVALID");
  for (const wrong of [sql, {}, 7, null, "tx"])
    expect(await codeOf(execution.emit("Said", 1, { tx: wrong as never }))).toBe("USAGE_INVALID");
  expect(await codeOf(execution.close({ tx: {} } as never))).toBe("USAGE_INVALID");
  await execution.cancel();
});

test("an answer that commits with the caller's own row is both or neither, and goes on from another process", async () => {
  await database.sql`create table decisions (id uuid primary key)`;
  await using elsewhere = createOrchestrator({ connection: database.url, flows: [flow, child] });
  const execution = await waiting();
  const handle = await elsewhere.getExecution(execution.id);
  const decide = (isRight: boolean) =>
    sql.begin(async (tx) => {
      await tx`insert into decisions values (${execution.id}::uuid)`;
      await handle.continueWith("q", "yes", { tx });
      if (!isRight) throw new Error("no");
    });

  await decide(false).catch(() => {});
  expect([(await sql`select from decisions`).length, (await execution.getPendingInterrupts()).length]).toEqual([0, 1]);
  await decide(true);

  await untilEvent(execution, "state.set");
  expect((await sql`select from decisions`).length).toBe(1);
  await execution.cancel();
});
