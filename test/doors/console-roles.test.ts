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
inner.to("ask", (ctx) => ctx.pauseFor({ type: "inner" }));
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
const orchestrator = await serving(database, [outer, inner, broken]);
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
  for (const path of ["intervene", "pause", "unpause", "retry"]) await did("operator", path);
  await untilEvent(execution, "chunk.parked", ({ dispatch: _dispatch }) => true);
  await did("admin", "edit-state");
  await did("responder", "answer");
  for (const path of ["fork", "redrive"]) await did("operator", path);
  await did("operator", "cancel");

  expect(statuses).toEqual({
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

test.each(Object.keys(bodies).filter((name) => name !== "answer"))("%s without a reason is refused", async (name) => {
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
});
