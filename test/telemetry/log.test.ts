/** What is logged, in which shape, and how often. */
import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { format } from "node:util";
import { expect, test, vi } from "vitest";
import { createOrchestrator, defineFlow, jsonLogger } from "../../src/index.ts";
import type { Logger } from "../../src/index.ts";
import { initialState } from "../../src/ledger/state.ts";
import { openLogs } from "../../src/telemetry/log.ts";
import { Meter, OwnerMeter } from "../../src/telemetry/meter.ts";
import { traceIdOf } from "../../src/telemetry/traceparent.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, untilEvent, visiting } from "../support/flows.ts";

const root = resolve(import.meta.dirname, "../..");

interface Line {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

function recorded(): { readonly lines: Line[]; readonly logger: Logger } {
  const lines: Line[] = [];
  return { lines, logger: jsonLogger({ level: "debug", write: (line) => lines.push(JSON.parse(line) as Line) }) };
}

async function untilLine(lines: readonly Line[], event: string): Promise<Line> {
  return await vi.waitFor(
    () => {
      const found = lines.find((line) => line["event"] === event);
      if (!found) throw new Error(`no ${event} among ${JSON.stringify(lines)}`);
      return found;
    },
    { timeout: 9000 },
  );
}

const database = await testDatabase();

test("a line of ctx.log says whose it is, in the shape of pino's; its own fields come first", async () => {
  const { lines, logger } = recorded();
  const flow = defineFlow("logged");
  flow.to(
    "say",
    (ctx) => {
      ctx.log.info("said", { to: "Ada", flow: "mine" });
      if (ctx.attempt === 1) throw new Error("once more");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow], { logger });

  const execution = await orchestrator.flow(flow).createExecution({ autoClose: false });
  await execution.start(null);
  await vi.waitFor(() => expect(lines.filter(({ msg }) => msg === "said")).toHaveLength(2), { timeout: 8000 });

  const said = lines.filter(({ msg }) => msg === "said");
  expect(said.map(({ attempt }) => attempt)).toEqual([1, 2]);
  expect(said[0]).toMatchObject({
    level: 30,
    name: "flowledger",
    pid: process.pid,
    executionId: execution.id,
    chunk: "say",
    to: "Ada",
    flow: "mine",
  });
});

test("what a lost worker leaves is said: fenced, taken over, claimed late", async () => {
  const { lines, logger } = recorded();
  const [begun, gate] = [newGate(), newGate()];
  const held = defineFlow("held");
  held.to("hold", async () => {
    begun.open();
    await gate.passed;
  });
  await using own = await testDatabase();
  await using away = visiting(own, [held]);
  const execution = await away.flow(held).createExecution({ autoClose: false });
  await execution.start(null);
  // It was due a minute ago, by its ledger too.
  await own.sql`alter table flowledger.ledger disable trigger user`;
  await own.sql`update flowledger.ledger set at = at - interval '1 minute'`;
  await own.sql`update flowledger.executions set created_at = created_at - interval '1 minute', started_at = started_at - interval '1 minute'`;

  await using _worker = await serving(own, [held], { logger });
  await begun.passed;
  const late = await untilLine(lines, "claimed_late");
  await own.sql`
    update flowledger.executions set owner = gen_random_uuid(), lease_token = gen_random_uuid(), epoch = epoch + 1, commit_no = 0,
      wake_at = flowledger.now() - interval '10 seconds'`;
  gate.open();
  const fenced = await untilLine(lines, "fenced");
  const taken = await untilLine(lines, "taken_over");

  const whose = { executionId: execution.id, flow: "held" };
  expect(late).toMatchObject({ ...whose, level: 40 });
  expect(late["lateMs"]).toBeGreaterThanOrEqual(60_000);
  expect(fenced).toMatchObject({ ...whose, level: 30 });
  expect(taken).toMatchObject({ ...whose, level: 30, takeovers: 1 });
});

test("a stop says that it drains, and what it gives back when its time is over", async () => {
  const { lines, logger } = recorded();
  const begun = newGate();
  const stuck = defineFlow("stuck");
  stuck.to("hang", () => {
    begun.open();
    return new Promise(() => {});
  });
  await using own = await testDatabase();
  await using orchestrator = createOrchestrator({ connection: own.url, flows: [stuck], logger });
  const worker = await orchestrator.startWorker({ drainTimeout: "100ms" });
  await orchestrator.flow(stuck).startExecution(null, { autoClose: false });
  await begun.passed;

  await worker.stop();

  expect(
    lines.filter(({ event }) => event !== undefined).map(({ event, level, executions }) => [event, level, executions]),
  ).toEqual([
    ["draining", 30, 1],
    ["given_back", 40, 1],
  ]);
});

test("each event that a line has is in the docs with its level, and each there is in the source", () => {
  const levels = new Map<string, Set<string>>();
  for (const file of globSync("src/**/*.ts", { cwd: root })) {
    const text = readFileSync(join(root, file), "utf8");
    for (const [, level = "", , one, other] of text.matchAll(
      /log\.(info|warn|error)\(([^;]*?)(?:\bevent: "(\w+)"|#fields\("(\w+)"\))/g,
    )) {
      const event = one ?? other ?? "";
      levels.set(event, (levels.get(event) ?? new Set()).add(level));
    }
  }
  const docs = readFileSync(join(root, "docs/observability.md"), "utf8");
  const documented = [...docs.matchAll(/^\| `(\w+)` +\| (info|warn|error) +\|/gm)].map(([, event = "", level = ""]) => [
    event,
    level,
  ]);

  expect(documented.length).toBeGreaterThan(10);
  for (const [event = "", level = ""] of documented) expect([event, ...(levels.get(event) ?? [])]).toContain(level);
  for (const event of levels.keys()) expect(docs).toContain(`\`${event}\``);
});

test("what is said of an execution says which flow it is of, whatever it is", async () => {
  const { lines, logger } = recorded();
  const flow = defineFlow("telling");
  flow
    .to("tell", (ctx) => {
      void ctx.setResult(1);
      ctx.requireResource("sticky");
    })
    .to("again", (ctx) => ctx.setResult(2));
  const sticky = () => ({ [Symbol.asyncDispose]: () => Promise.reject(new Error("stuck")) });
  await using orchestrator = await serving(database, [flow], { logger, resources: { sticky } });
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "execution.closed");
  const of = (text: string) =>
    vi.waitFor(() => {
      const found = lines.find(({ msg }) => msg.includes(text));
      if (!found) throw new Error(`no "${text}" among ${JSON.stringify(lines)}`);
      return found;
    });

  const whose = { executionId: execution.id, flow: "telling" };
  expect(await of("setResult overwrote")).toMatchObject({ ...whose, chunk: "again", attempt: 1 });
  expect(await of("failed to dispose")).toMatchObject(whose);
});

test("a crash loop is said with the number of workers it took", async () => {
  const { lines, logger } = recorded();
  const flow = defineFlow("looping");
  flow.to("pass", () => null);
  await using own = await testDatabase();
  await using away = visiting(own, [flow]);
  const execution = await away.flow(flow).createExecution({ autoClose: false });
  await execution.start(null);
  await own.sql`update flowledger.executions set takeovers = 5`;

  await using _worker = await serving(own, [flow], { logger });

  expect(await untilLine(lines, "crash_loop")).toMatchObject({ level: 50, executionId: execution.id, takeovers: 5 });
});

test("LISTEN that is lost is said once, and that it stands again; its end with the orchestrator is not", async () => {
  const { lines, logger } = recorded();
  const flow = defineFlow("listening");
  flow.to("pass", () => null);
  await using own = await testDatabase();
  const orchestrator = await serving(own, [flow], { logger });

  await own.sql`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and query like 'listen%' and pid <> pg_backend_pid()`;
  await untilLine(lines, "listen_back");
  await orchestrator.close();

  expect(lines.filter(({ event }) => event === "listen_lost")).toHaveLength(1);
});

test("a commit that Postgres refuses is said with its chunk", async () => {
  const { lines, logger } = recorded();
  const flow = defineFlow("refused");
  flow.to("write", (ctx) => ctx.setState("a", "b"));
  await using own = await testDatabase();
  await own.sql.unsafe(`
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'never' using errcode = '22P05'; end $$;
    create trigger refuse before insert on flowledger.ledger for each row when (new.type = 'state.set') execute function refuse()`);
  await using orchestrator = await serving(own, [flow], { logger });

  await expect(orchestrator.flow(flow).start(null)).rejects.toThrow(/refused/);

  expect(await untilLine(lines, "commit_refused")).toMatchObject({
    level: 50,
    flow: "refused",
    chunk: "write",
    attempt: 1,
  });
});

test("a line that repeats is counted, and said again with its number; lines of users are all written", () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const { lines, logger } = recorded();
    const logs = openLogs(logger);
    const { library, user } = logs;
    for (let n = 0; n < 50; n++) library.warn("taken over", { event: "taken_over", executionId: `e${n}`, flow: "a" });
    library.warn("taken over", { event: "taken_over", executionId: "x", flow: "b" });
    for (let n = 0; n < 3; n++) user.info("mine");
    const atOnce = lines.map(({ msg, flow, repeated }) => [msg, flow, repeated]);

    vi.advanceTimersByTime(10_000);
    const counted = lines.slice(atOnce.length);
    library.warn("taken over", { event: "taken_over", executionId: "e50", flow: "a" });
    logs.flush();

    expect(atOnce).toEqual([
      ["taken over", "a", undefined],
      ["taken over", "b", undefined],
      ["mine", undefined, undefined],
      ["mine", undefined, undefined],
      ["mine", undefined, undefined],
    ]);
    expect(counted).toEqual([
      expect.objectContaining({ msg: "taken over", flow: "a", executionId: "e49", repeated: 49 }),
    ]);
    // It was still counted when the process ended.
    expect(lines.at(-1)).toMatchObject({ executionId: "e50", repeated: 1 });
    vi.advanceTimersByTime(60_000);
    library.warn("taken over", { event: "taken_over", executionId: "e51", flow: "a" });
    expect(lines.at(-1)).toMatchObject({ executionId: "e51" });
    expect(lines.at(-1)).not.toHaveProperty("repeated");
  } finally {
    vi.useRealTimers();
  }
});

test("lines that differ in ids and numbers of their error alone are one kind; other chunks and other errors are not", () => {
  const { lines, logger } = recorded();
  const logs = openLogs(logger);
  const blocked = (more: object) => {
    const id = crypto.randomUUID();
    const own = { executionId: id, ...traceIdOf(`00-${id.replaceAll("-", "")}-00f067aa0ba902b7-01`) };
    logs.library.error("blocked", { event: "blocked", ...own, flow: "a", error: `${id} at 17`, ...more });
  };
  for (let n = 0; n < 1000; n++) blocked({ error: `execution ${crypto.randomUUID()} stands at seq ${n}` });
  blocked({ chunk: "step 1" });
  blocked({ chunk: "step 2" });
  blocked({ error: "something else" });
  expect(lines).toHaveLength(4);
  expect(lines[0]).toMatchObject({ traceId: expect.stringMatching(/^[0-9a-f]{32}$/) });

  logs.flush();

  expect(lines.map(({ repeated }) => repeated).filter((count) => count !== undefined)).toEqual([999]);
});

test("lines that differ in how late something was are one kind; beyond a thousand kinds each line is said", () => {
  const { lines, logger } = recorded();
  const { library } = openLogs(logger);
  const inLetters = (n: number) => String(n).replace(/\d/g, (digit) => "abcdefghij"[Number(digit)] ?? "");

  for (let n = 0; n < 5; n++) library.warn("late", { lateMs: n });
  for (let n = 1; n < 1000; n++) library.warn(inLetters(n));
  for (let n = 0; n < 5; n++) library.warn("one more");

  expect(lines.filter(({ msg }) => msg === "late")).toHaveLength(1);
  expect(lines.filter(({ msg }) => msg === "one more")).toHaveLength(5);
});

test("a process that logs in JSON writes lines of users that way too", () => {
  const written: string[] = [];
  const stderr = vi.spyOn(process.stderr, "write").mockImplementation((line) => written.push(String(line)) > 0);
  const logs = openLogs(undefined);
  logs.useJson();
  logs.user.info("mine", { a: 1 });
  logs.library.warn("ours");
  stderr.mockRestore();

  expect(written.map((line) => JSON.parse(line) as unknown)).toEqual([
    expect.objectContaining({ msg: "mine", a: 1, level: 30 }),
    expect.objectContaining({ msg: "ours", level: 40 }),
  ]);
});

test("what its limits hold back is not called late", () => {
  const { lines, logger } = recorded();
  const state = { ...initialState(), createdAt: 0, startedAt: 0 };
  for (const limits of [null, { concurrency: 1 }]) {
    const claim = { id: crypto.randomUUID(), flow: limits ? "limited" : "free", state, now: 60_000, takeovers: 0 };
    const owner = new OwnerMeter({ meter: new Meter(), log: logger }, claim as never, { limits } as never);
    owner.committed([], 60_000, state);
  }

  expect(lines.map(({ event, flow }) => [event, flow])).toEqual([["claimed_late", "free"]]);
});

test("pino gets its fields first, others the message; what a logger throws ends nothing", () => {
  const heard: unknown[][] = [];
  const hear = (...args: unknown[]) => void heard.push(args);
  const methods = { debug: hear, info: hear, warn: hear, error: hear };
  const fails = () => {
    throw new Error("disk full");
  };

  openLogs({ ...methods, bindings: () => ({}) } as Logger).library.warn("late", { a: 1 });
  openLogs(methods).library.warn("late", { a: 1 });
  openLogs({ debug: fails, info: fails, warn: fails, error: fails }).library.warn("late", { a: 1 });
  // What is async passes for what gives nothing.
  const rejects: (...args: unknown[]) => unknown = () => Promise.reject(new Error("disk full"));
  openLogs({ debug: rejects, info: rejects, warn: rejects, error: rejects }).library.warn("late", { a: 1 });

  expect(heard).toEqual([
    [{ a: 1 }, "late"],
    ["late", { a: 1 }],
  ]);
});

test("what is no logger is refused with its missing method, and what JSON cannot hold is left out of a line", () => {
  const lines: string[] = [];
  const circle: Record<string, unknown> = { n: 1n };

  jsonLogger({ write: (line) => lines.push(line) }).error("odd", { circle });
  jsonLogger({ write: (line) => lines.push(line) }).error("failed", { error: new RangeError("far") });

  expect(JSON.parse(lines[0] ?? "")).toMatchObject({ level: 50, msg: "odd" });
  expect(JSON.parse(lines[1] ?? "")).toMatchObject({ error: { type: "RangeError", message: "far" } });
  const none = JSON.parse('{"logger": {"debug": 1}}') as { logger: Logger };
  expect(() => createOrchestrator(none)).toThrow(/debug of logger of createOrchestrator\(\)/);
  const level = JSON.parse('{"level": "loud"}') as { level: "info" };
  expect(() => jsonLogger(level)).toThrow(/level of jsonLogger\(\).*"?loud/);
});

test("what is logged cannot write control characters to a terminal, nor lines that look like others, nor formats", () => {
  const evil = "a\u001b[2J\u202egnp\u009b\nerror: fake %s %o";
  const written: string[] = [];
  const spy = vi.spyOn(console, "warn").mockImplementation((...args: unknown[]) => void written.push(format(...args)));
  openLogs(undefined).user.warn(evil, { evil });
  spy.mockRestore();
  jsonLogger({ write: (line) => written.push(line) }).warn(evil, { evil });

  expect(written).toHaveLength(2);
  // oxlint-disable-next-line no-control-regex
  expect(written.join("")).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]|^error/m);
  expect(written[0]).toContain("fake %s %o");
  expect(JSON.parse(written[1] ?? "")).toMatchObject({ msg: evil, evil });
});

test("a trace that was sampled out is named in no line: nobody finds its spans", () => {
  const of = (flags: string) => traceIdOf(`00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-${flags}`);

  expect([of("00"), of("02"), traceIdOf(null)]).toEqual([{}, {}, {}]);
  expect([of("01"), of("03")]).toEqual(Array(2).fill({ traceId: "4bf92f3577b34da6a3ce929d0e0e4736" }));
});
