/** Four roles, every route, an execution of one's own tenant and one of another: who gets what. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { createConsole } from "../../src/console.ts";
import { roles, type Role } from "../../src/console/access.ts";
import { routes } from "../../src/console/routes.ts";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { consoleClient } from "../support/console.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const inner = defineFlow("inner");
inner
  .to(
    "try",
    async (ctx) => {
      await ctx.putIntoStream(`attempt ${ctx.attempt}`);
      if (ctx.attempt === 1) throw new Error("not yet");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  )
  .to("ask", (ctx) => ctx.pauseFor({ type: "inner", payload: "x".repeat(70_000) }));
const above = defineFlow("above");
above.to("begin", () => null).toSubFlow(inner);
const outer = defineFlow("outer", {}, { onFailure: "park" });
outer.to("ask", async (ctx) => {
  await ctx.setState("secret", `of ${JSON.stringify(ctx.execution.metadata)}`);
  await ctx.putIntoStream("secret");
  return ctx.pauseFor({ type: "approval", interruptId: "q" });
});
outer.when("fail").to("fail", () => {
  throw new Error("secret failure");
});
outer.when("call").to("call", (ctx) => ctx.call(inner, null, { metadata: { tenant: "other" } }));
const broken = defineFlow("broken");
broken.to("fail", () => {
  throw new Error("secret failure");
});
const parking = defineFlow("parking", {}, { onFailure: "park" });
parking.to("park", () => {
  throw new Error("secret failure");
});
for (const below of [broken, parking])
  outer
    .when(`call ${below.name}`)
    .to(`call ${below.name}`, (ctx) => ctx.call(below, null, { metadata: { tenant: "other" } }));
const orchestrator = await serving(database, [outer, inner, above, broken, parking]);
afterAll(() => orchestrator.close());

const tenants = ["own", "other"] as const;
const made: Record<string, Execution> = {};

beforeAll(async () => {
  for (const tenant of tenants) {
    const execution = await orchestrator
      .flow(outer)
      .startExecution(null, { autoClose: false, metadata: { tenant }, interventionMode: "auto" });
    made[tenant] = execution;
    await untilEvent(execution, "interrupt.raised");
    await execution.emit("fail", null);
    await untilEvent(execution, "chunk.parked");
    const failed = await orchestrator.flow(broken).startExecution(null, { metadata: { tenant } });
    await failed.waitForClose().catch(() => {});
    made[`${tenant} failed`] = failed;
  }
});

const bodies: Readonly<Record<string, object>> = {
  answer: { interrupt: "q", value: "yes", requestId: "r" },
  claim: { interrupt: "q" },
  release: { interrupt: "q" },
  delegate: { interrupt: "q", to: "user:bo" },
  snooze: { interrupt: "q", until: "2100-01-01T00:00:00Z" },
  retry: { reason: "INC-1" },
  skip: { chunk: "fail", reason: "INC-1" },
  pause: { reason: "INC-1" },
  unpause: { reason: "INC-1" },
  cancel: { reason: "INC-1" },
  intervene: { payload: 1, reason: "INC-1" },
  fork: { at: 3, reason: "INC-1" },
  redrive: { reason: "INC-1" },
  "edit-state": { set: { a: 1 }, reason: "INC-1" },
};
const queries: Readonly<Record<string, string>> = { payload: "?part=state" };

function clientOf(role: Role, tenant: string | null = "own") {
  const access = { actor: `${role}@own`, role, ...(tenant !== null && { where: { metadata: { tenant } } }) };
  return consoleClient(createConsole({ orchestrator, authorize: () => access }));
}

/** The id of the question that it asks, or shows. */
async function untilAsked(execution: Execution): Promise<string> {
  for await (const { kind } of execution.streamItems({ timeout: null })) if (kind === "interrupt") break;
  const [asked] = await execution.getPendingInterrupts();
  return asked?.id ?? "";
}

const ofOne = Object.entries(routes).filter(([name]) => name.includes(":id"));

test("every route of one execution is known to this matrix", () => {
  const names = ofOne.filter(([name]) => name.startsWith("POST")).map(([name]) => name.split("/").at(-1) ?? "");

  expect(names.toSorted()).toEqual(Object.keys(bodies).toSorted());
});

test.each(roles)("%s: what another tenant has does not exist, and what the role may not is refused", async (role) => {
  const client = clientOf(role);
  const wrong: unknown[] = [];
  for (const [name, route] of ofOne) {
    const [method = "", path = ""] = name.split(" ");
    const action = path.split("/").at(-1) ?? "";
    const isAllowed = roles.indexOf(role) >= roles.indexOf(route.role);
    for (const tenant of tenants) {
      const id = made[action === "redrive" ? `${tenant} failed` : tenant]?.id ?? "";
      const address = path.replace(":id", id) + (queries[action] ?? "");
      // An own execution would be changed: what each does is the next test's.
      if (method === "POST" && tenant === "own" && isAllowed) continue;
      const answer = await client(method, address, bodies[action]);
      await answer.body?.cancel();
      const expected = !isAllowed ? 403 : tenant === "other" ? 404 : 200;
      if (answer.status !== expected) wrong.push({ name, tenant, status: answer.status, expected });
    }
  }

  expect(wrong).toEqual([]);
});

test("lists have one's own, whatever filter is given beside", async () => {
  const client = clientOf("admin");
  const rowsOf = async (path: string) =>
    ((await (await client("GET", path)).json()) as { rows: { id: string }[] }).rows;
  const ids = (rows: { id?: string; executionId?: string; lastId?: string }[]) =>
    rows.map((row) => row.executionId ?? row.lastId ?? row.id ?? "").toSorted();
  const [own = "", failed = "", other = ""] = ["own", "own failed", "other"].map((name) => made[name]?.id);

  expect(ids(await rowsOf("executions"))).toEqual([own, failed].toSorted());
  expect(await rowsOf(`executions?metadata=${encodeURIComponent('{"tenant":"other"}')}`)).toEqual([]);
  expect(await rowsOf(`executions?idPrefix=${other}`)).toEqual([]);
  expect(await rowsOf(`executions?parent=${other}`)).toEqual([]);
  expect(ids(await rowsOf("executions?flow=broken&status=failed"))).toEqual([failed]);
  expect(await (await client("GET", "count")).json()).toEqual({ count: 2, isMore: false });
  expect(ids(await rowsOf("inbox"))).toEqual([own]);
  expect(await rowsOf(`inbox?metadata=${encodeURIComponent('{"tenant":"other"}')}`)).toEqual([]);
  expect(await rowsOf("failures")).toMatchObject([{ executions: 1, lastId: failed }]);
  expect(await rowsOf("flows")).toMatchObject([
    { flow: "broken", failed: 1 },
    { flow: "outer", open: { parked: 1 } },
  ]);
  for (const path of ["workers", "schedules"]) expect((await client("GET", path)).status).toBe(403);
});

test("people with different limits who ask for the same at the same time get each their own", async () => {
  let tenant = "";
  const authorize = () => ({ actor: tenant, role: "admin", where: { metadata: { tenant } } }) as const;
  const client = consoleClient(createConsole({ orchestrator, authorize }));
  const seen: unknown[] = [];
  for (tenant of tenants) {
    const { rows } = (await (await client("GET", "executions?flow=broken")).json()) as { rows: { id: string }[] };
    seen.push(rows.map(({ id }) => id));
  }

  expect(seen).toEqual([[made["own failed"]?.id], [made["other failed"]?.id]]);
  const statuses = [];
  for (tenant of tenants) statuses.push((await client("GET", `executions/${made["own"]?.id}`)).status);
  expect(statuses).toEqual([200, 404]);
});

test("who has lost a tenant no longer sees what they looked at a moment ago", async () => {
  let tenant = "own";
  const authorize = () => ({ actor: "ann", role: "viewer" as const, where: { metadata: { tenant } } });
  const client = consoleClient(createConsole({ orchestrator, authorize }));
  const look = async () => (await client("GET", `executions/${made["own"]?.id}`)).status;

  expect(await look()).toBe(200);
  tenant = "other";
  expect(await look()).toBe(404);
});

test("an unlimited person sees all of it, with the groups of the view", async () => {
  const client = clientOf("viewer", null);
  const rows = async (path: string) => ((await (await client("GET", path)).json()) as { rows: object[] }).rows;

  expect(await rows("failures")).toEqual(
    (await orchestrator.failures()).map((group) => ({
      ...group,
      firstAt: group.firstAt.toISOString(),
      lastAt: group.lastAt.toISOString(),
    })),
  );
  expect(await rows("failures")).toMatchObject([{ executions: 2 }]);
  expect(await rows("workers")).toHaveLength(1);
  expect((await rows("executions")).length).toBeGreaterThanOrEqual(4);
});

test("a child of another tenant is a bar without a name, and nobody's link", async () => {
  const execution = await orchestrator
    .flow(outer)
    .startExecution(null, { autoClose: false, metadata: { tenant: "own" } });
  await execution.emit("call", null);
  const { child } = await untilEvent(execution, "child.started");
  // It is announced before it is there.
  await expect
    .poll(async () => (await orchestrator.listPendingInterrupts({ flow: "inner" })).interrupts)
    .toMatchObject([{ executionId: child }]);
  const client = clientOf("admin");

  const timeline = await (await client("GET", `executions/${execution.id}/timeline`)).text();
  const overview = await (await client("GET", `executions/${execution.id}`)).text();
  const children = await (await client("GET", `executions/${execution.id}/children`)).json();

  expect(timeline).toContain("an execution that you do not see");
  for (const text of [timeline, overview]) expect(text).not.toContain(child);
  expect(children).toMatchObject({ rows: [] });
  expect((await client("GET", `executions/${child}`)).status).toBe(404);
  expect((await clientOf("admin", null)("GET", `executions/${child}`)).status).toBe(200);
});

test("a question of a sub-flow is read and answered above it, and is not there for who does not see the sub-flow", async () => {
  const execution = await orchestrator.flow(above).startExecution(null, { metadata: { tenant: "own" } });
  const interrupt = await untilAsked(execution);
  const path = `executions/${execution.id}`;
  interface Seen {
    readonly questions: readonly { readonly id: string; readonly payload: { readonly load: string } }[];
  }
  const look = async (tenant: string | null) => (await (await clientOf("admin", tenant)("GET", path)).json()) as Seen;
  const load = `${path}/payload?part=question&interrupt=${encodeURIComponent(interrupt)}`;
  const answer = (tenant: string | null) =>
    clientOf("responder", tenant)("POST", `${path}/answer`, { interrupt, value: null, requestId: "r" });

  expect((await look("own")).questions).toEqual([]);
  expect(await (await clientOf("admin")("GET", load)).json()).toBe(null);
  const refused = await answer("own");
  expect([refused.status, await refused.json()]).toMatchObject([409, { code: "INTERRUPT_NOT_PENDING" }]);
  expect(await execution.getPendingInterrupts()).toMatchObject([{ id: interrupt }]);

  const [question] = (await look(null)).questions;
  expect(question).toMatchObject({ id: interrupt, payload: { load } });
  expect(await (await clientOf("admin", null)("GET", load)).json()).toBe("x".repeat(70_000));
  expect((await answer(null)).status).toBe(200);
});

test("a stream tells nothing of a sub-flow's questions and attempts to who does not see the sub-flow", async () => {
  const execution = await orchestrator.flow(above).startExecution(null, { metadata: { tenant: "own" } });
  const interrupt = await untilAsked(execution);
  await execution.cancel();
  await execution.waitForClose().catch(() => {});
  const kinds = async (tenant: string | null, from = "0") => {
    const stream = await clientOf("viewer", tenant)("GET", `executions/${execution.id}/stream?from=${from}`);
    const text = await stream.text();
    return { text, kinds: [...text.matchAll(/^data: \{"kind":"(\w+)"/gm)].map(([, kind]) => kind) };
  };
  const [subFlow = ""] = interrupt.split(":");

  expect((await kinds(null)).kinds).toEqual(["retry", "interrupt"]);
  for (const from of ["0", "1", "2"]) {
    const seen = await kinds("own", from);
    expect([from, seen.kinds]).toEqual([from, []]);
    expect(seen.text).toContain("event: end");
    expect(seen.text).not.toContain(subFlow);
  }
});

test("what fails or is parked below in another tenant's name is not told above", async () => {
  const execution = await orchestrator
    .flow(outer)
    .startExecution(null, { autoClose: false, metadata: { tenant: "own" } });
  const client = clientOf("admin");
  interface Seen {
    readonly parked: { readonly executionId: string }[];
    readonly rows: { readonly kind: string; readonly status: string; readonly error: object | null }[];
  }
  const look = async (path = "") => (await (await client("GET", `executions/${execution.id}${path}`)).json()) as Seen;
  for (const below of [broken, parking]) await execution.emit(`call ${below.name}`, null);
  await untilEvent(execution, "chunk.parked");
  await expect
    .poll(async () => (await orchestrator.listExecutions({ flow: "parking", status: "parked" })).executions)
    .toHaveLength(1);

  const { parked } = await look();
  const children = (await look("/timeline")).rows.filter(({ kind }) => kind === "child");

  expect(parked.map(({ executionId }) => executionId)).toEqual([execution.id]);
  expect(children.filter(({ error }) => error !== null)).toEqual([]);
  expect(children.map(({ status }) => status).toSorted()).toEqual(["failed", "open"]);
  await execution.cancel();
});

test("each command names the person, and from operators on the reason", async () => {
  const [execution, failed] = [made["own"], made["own failed"]];
  if (!execution || !failed) throw new Error("not made");
  const { id } = execution;
  const act = async (role: Role, path: string) =>
    clientOf(role)("POST", `executions/${path === "redrive" ? failed.id : id}/${path}`, bodies[path]);
  const ids: Record<string, string> = {};
  const statuses: Record<string, number> = {};
  const did = async (role: Role, path: string) => {
    const answer = await act(role, path);
    statuses[path] = answer.status;
    ids[path] = ((await answer.json()) as { id?: string }).id ?? "";
  };
  for (const path of ["claim", "release", "snooze", "delegate"]) await did("responder", path);
  for (const path of ["intervene", "pause", "unpause", "retry"]) await did("operator", path);
  await untilEvent(execution, "chunk.parked", ({ dispatch: _dispatch }) => true);
  await did("admin", "edit-state");
  await did("responder", "answer");
  for (const path of ["fork", "redrive"]) await did("operator", path);
  await did("operator", "cancel");

  expect(statuses).toEqual({
    claim: 200,
    release: 200,
    snooze: 200,
    delegate: 200,
    intervene: 200,
    pause: 200,
    unpause: 200,
    retry: 200,
    "edit-state": 200,
    answer: 200,
    fork: 200,
    redrive: 200,
    cancel: 200,
  });
  const events = await execution.history();
  const operator = { actor: "operator@own", reason: "INC-1" };
  for (const [type, who] of Object.entries({
    "execution.paused": operator,
    "execution.unpaused": operator,
    "chunk.retried": operator,
    "state.edited": { actor: "admin@own", reason: "INC-1" },
    "interrupt.claimed": { actor: "responder@own" },
    "interrupt.released": { actor: "responder@own" },
    "interrupt.snoozed": { actor: "responder@own" },
    "interrupt.delegated": { actor: "responder@own", assign: ["user:bo"] },
    "interrupt.resumed": { actor: "responder@own" },
    "cancel.requested": operator,
    "intervention.recorded": { author: "operator@own", note: "INC-1" },
  }))
    expect(events.find((event) => event.type === type)).toMatchObject(who);
  const [forked] = await (await orchestrator.getExecution(ids["fork"] ?? "")).history();
  expect(forked).toMatchObject({ forkedFrom: { id, seq: 3, ...operator } });
  const redriven = await (await orchestrator.getExecution(ids["redrive"] ?? "")).history();
  expect(redriven.find(({ type }) => type === "execution.redriven")).toMatchObject({ of: failed.id, ...operator });
  expect(await orchestrator.verify()).toEqual([]);
});

/** What answers, or hands on, is its own reason. */
const reasonless = ["answer", "claim", "release", "delegate", "snooze"];

test.each(Object.keys(bodies).filter((name) => !reasonless.includes(name)))(
  "%s without a reason is refused",
  async (name) => {
    const client = clientOf("admin");
    for (const reason of [undefined, "", "   "]) {
      const answer = await client("POST", `executions/${made["own failed"]?.id}/${name}`, { ...bodies[name], reason });

      expect([name, reason, answer.status, await answer.json()]).toMatchObject([
        name,
        reason,
        400,
        { code: "CONTRACT_VIOLATED", issues: [{ path: ["reason"] }] },
      ]);
    }
  },
);

test("a question that somebody has is theirs to say, with who and since when", async () => {
  const execution = await orchestrator
    .flow(outer)
    .startExecution(null, { autoClose: false, metadata: { tenant: "own" } });
  await untilEvent(execution, "interrupt.raised");
  await execution.claim("q", { actor: "cy", exclusive: true });
  const client = clientOf("responder");

  for (const name of ["claim", "release", "delegate", "snooze", "answer"]) {
    const answer = await client("POST", `executions/${execution.id}/${name}`, bodies[name]);
    expect([name, answer.status, await answer.json()]).toMatchObject([
      name,
      409,
      { code: "INTERRUPT_CLAIMED", by: "cy" },
    ]);
  }
  await execution.cancel();
});

test("the inbox is what asks the person or their groups, where they say so", async () => {
  const asking = defineFlow("asking");
  asking.to("ask", (ctx) => ctx.pauseFor({ type: "a", title: "May it?", assign: [String(ctx.input)], due: "1ms" }));
  await using worker = await serving(database, [asking]);
  for (const assign of ["ann", "group:finance", "bo"]) {
    const execution = await worker.flow(asking).startExecution(assign, { metadata: { tenant: "own" } });
    await untilEvent(execution, "interrupt.raised");
  }
  const access = {
    actor: "ann",
    role: "viewer" as const,
    groups: ["group:finance"],
    where: { metadata: { tenant: "own" } },
  };
  const client = consoleClient(createConsole({ orchestrator, authorize: () => access }));
  const asked = async (query: string) =>
    ((await (await client("GET", `inbox?flow=asking&${query}`)).json()) as { rows: { assignees: string[] }[] }).rows
      .flatMap(({ assignees }) => assignees)
      .toSorted();

  expect(await asked("mine=true")).toEqual(["ann", "group:finance"]);
  // Of many groups not all are asked for; the person is.
  access.groups = Array.from({ length: 120 }, (_, index) => `group:${index}`);
  expect(await asked("mine=true")).toEqual(["ann"]);
  expect(await asked("")).toEqual(["ann", "bo", "group:finance"]);
  expect(await asked("for=bo&overdue=true")).toEqual(["bo"]);
  expect(await asked(`metadata=${encodeURIComponent('{"tenant":"other"}')}`)).toEqual([]);
  expect((await client("GET", "inbox?mine=perhaps")).status).toBe(400);
});

test("a schedule is run by operators who see all executions, with who and why", async () => {
  const flow = defineFlow("scheduled");
  flow.to("work", () => null);
  await using _worker = await serving(database, [], { schedules: [{ flow, cron: "0 7 1 1 *", name: "yearly" }] });
  const body = { name: "yearly", reason: "INC-4" };
  for (const role of roles) expect((await clientOf(role)("POST", "run-schedule", body)).status).toBe(403);
  for (const role of ["viewer", "responder"] as const)
    expect((await clientOf(role, null)("POST", "run-schedule", body)).status).toBe(403);
  const client = clientOf("operator", null);

  for (const wrong of [{ ...body, reason: " " }, { name: "yearly" }, { ...body, name: "yaerly" }, { ...body, at: 1 }])
    expect([wrong, (await client("POST", "run-schedule", wrong)).status]).toEqual([wrong, 400]);
  const { id } = (await (await client("POST", "run-schedule", body)).json()) as { id: string };
  const rows = ((await (await client("GET", "schedules")).json()) as { rows: object[] }).rows;

  expect(rows).toMatchObject([
    { name: "yearly", lastId: id, next: Array.from({ length: 5 }, () => expect.any(String)) },
  ]);
  expect(await (await orchestrator.getExecution(id)).history({ types: ["execution.started"] })).toMatchObject([
    { actor: "operator@own", reason: "INC-4" },
  ]);
});

test("a flow is switched by operators who see all of it", async () => {
  const body = { flow: "inner", intake: "refuse", reason: "INC-2" };
  for (const role of roles) {
    expect((await clientOf(role)("POST", "pause-flow", body)).status).toBe(403);
    expect((await clientOf(role)("POST", "unpause-flow", { flow: "inner", reason: "INC-2" })).status).toBe(403);
  }
  expect((await clientOf("responder", null)("POST", "pause-flow", body)).status).toBe(403);
  const client = clientOf("operator", null);
  const flows = async () => ((await (await client("GET", "flows")).json()) as { rows: { flow: string }[] }).rows;

  expect((await client("POST", "pause-flow", { ...body, reason: " " })).status).toBe(400);
  expect((await client("POST", "pause-flow", { ...body, flow: "iner" })).status).toBe(400);
  expect(await (await client("POST", "pause-flow", body)).json()).toEqual({ isNews: true });
  expect((await flows()).find(({ flow }) => flow === "inner")).toMatchObject({
    paused: { intake: "refuse", actor: "operator@own", reason: "INC-2" },
  });
  expect(await (await client("POST", "unpause-flow", { flow: "inner", reason: "INC-2" })).json()).toEqual({
    isNews: true,
  });
  expect((await flows()).find(({ flow }) => flow === "inner")).toMatchObject({ paused: null });
});

test("a bulk is about what the person sees, in their name", async () => {
  const client = clientOf("operator");
  const where = { flow: "broken", status: "failed", errorLike: "secret failure" };
  const body = { action: "redrive", where, reason: "INC-3" };
  const other = made["other failed"];
  // Another test redrives its own; these two are new.
  const mine = await orchestrator.flow(broken).startExecution(null, { metadata: { tenant: "own", n: 2 } });
  await mine.waitForClose().catch(() => {});

  expect((await clientOf("responder")("POST", "bulk", body)).status).toBe(403);
  expect((await client("POST", "bulk", { ...body, reason: "" })).status).toBe(400);
  expect((await client("POST", "bulk", { ...body, where: { nonsense: 1 } })).status).toBe(400);
  const preview = (await (await client("POST", "bulk", { ...body, dryRun: true })).json()) as { samples: string[] };
  expect(preview.samples).toContain(mine.id);
  expect(preview.samples).not.toContain(other?.id);
  // Every filter of a list is one of a bulk.
  const [minute, id] = [60_000, mine.id];
  const every = {
    flow: ["broken"],
    status: ["failed"],
    version: broken.fingerprint,
    createdAfter: new Date(Date.now() - 60 * minute).toISOString(),
    createdBefore: new Date(Date.now() + minute).toISOString(),
    closedAfter: new Date(Date.now() - 60 * minute).toISOString(),
    closedBefore: new Date(Date.now() + minute).toISOString(),
    idPrefix: id,
    errorLike: "secret",
    metadata: { n: 2 },
    redriven: false,
  };
  const narrow = async (more: object) =>
    (await client("POST", "bulk", { ...body, where: { ...every, ...more }, dryRun: true })).json();
  expect(await narrow({})).toEqual({ matched: 1, isMore: false, samples: [id] });
  const others = { version: "ffff", createdAfter: every.createdBefore, closedBefore: every.closedAfter };
  for (const [name, other] of Object.entries({ ...others, parent: id, idempotencyKey: "k", redriven: true }))
    expect([name, await narrow({ [name]: other })]).toEqual([name, { matched: 0, isMore: false, samples: [] }]);
  const foreign = { ...where, metadata: { tenant: "other" } };
  expect(await (await client("POST", "bulk", { ...body, where: foreign, dryRun: true })).json()).toMatchObject({
    matched: 0,
  });

  const begun = (await (await client("POST", "bulk", body)).json()) as { id: string };
  const bulk = await orchestrator.getBulk(begun.id);
  await bulk.wait();
  const { executions } = await orchestrator.listExecutions({ flow: "broken", redriven: true });
  const redriven = executions.map(({ id }) => id);
  expect(redriven).toContain(mine.id);
  expect(redriven).not.toContain(other?.id);
  const { executions: newest } = await orchestrator.listExecutions({ flow: "broken", metadata: { n: 2 }, limit: 1 });
  const history = await (await orchestrator.getExecution(newest[0]?.id ?? "")).history();
  expect(history.find(({ type }) => type === "execution.redriven")).toMatchObject({
    of: mine.id,
    actor: "operator@own",
    reason: "INC-3",
    bulk: begun.id,
  });
});

test("operations: what, who, why and how far, for who sees all that they are about; operators end them", async () => {
  interface Row {
    id: string;
    status: string;
  }
  const rows = async (role: Role, tenant: string | null) =>
    ((await (await clientOf(role, tenant)("GET", "operations")).json()) as { rows: Row[] }).rows;
  const begin = async (tenant: string | null, body: object) =>
    ((await (await clientOf("operator", tenant)("POST", "bulk", { reason: "INC-5", ...body })).json()) as Row).id;
  // What nobody serves is not ended by itself, so its bulk is in progress for long enough.
  const where = { flow: "outer" };
  const [own, other, all] = [
    await begin("own", { action: "pause", where }),
    await begin("other", { action: "pause", where }),
    await begin(null, { action: "unpause", where }),
  ];
  for (const id of [own, other, all]) await (await orchestrator.getBulk(id)).wait();

  expect((await rows("viewer", null)).slice(0, 3).map(({ id }) => id)).toEqual([all, other, own]);
  for (const role of roles) {
    const ids = (await rows(role, "own")).map(({ id }) => id);
    expect([role, ids.includes(own), ids.includes(other), ids.includes(all)]).toEqual([role, true, false, false]);
  }
  expect(await rows("viewer", "nobody")).toEqual([]);
  expect((await rows("viewer", "own")).find(({ id }) => id === own)).toMatchObject({
    action: "pause",
    filter: { json: { flow: "outer", metadata: { tenant: "own" } } },
    actor: "operator@own",
    reason: "INC-5",
    status: "completed",
    closedAt: expect.any(String),
    failed: 0,
  });
  for (const role of roles)
    for (const [id, status] of [
      [own, 200],
      [other, 404],
      [all, 404],
      ["01890000-0000-7000-8000-000000000000", 404],
    ] as const) {
      expect((await clientOf(role)("GET", `operation-failures?id=${id}`)).status).toBe(status);
      const answer = await clientOf(role)("POST", "cancel-operation", { id, reason: "INC-5" });
      expect([role, id, answer.status]).toEqual([
        role,
        id,
        roles.indexOf(role) < roles.indexOf("operator") ? 403 : status,
      ]);
    }
  for (const reason of [undefined, "", " "])
    expect((await clientOf("admin")("POST", "cancel-operation", { id: own, reason })).status).toBe(400);
  for (const query of ["operations?cursor=x", "operations?page=2", "operation-failures", "operation-failures?id=x"])
    expect([query, (await clientOf("viewer", null)("GET", query)).status < 500]).toEqual([query, true]);
});
