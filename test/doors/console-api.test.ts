/** The console as a server: who gets in, what every answer has, what is refused, and what a look costs. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import fastify from "fastify";
import { afterAll, expect, test, vi } from "vitest";
import { createConsole, openConsole, toNodeHandler, type ConsoleOptions } from "../../src/console.ts";
import { assets } from "../../src/console/assets.ts";
import { Folds } from "../../src/console/folds.ts";
import { Poll } from "../../src/console/poll.ts";
import { contrast } from "../../src/console/theme.ts";

import { defineFlow } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { freezeState, snapshotVersion } from "../../src/ledger/state.ts";
import { internals } from "../../src/orchestrator.ts";
import { gzipSync } from "node:zlib";
import { z } from "zod";
import { consoleClient } from "../support/console.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();
const ask = defineFlow("ask");
ask
  .to("ask", async (ctx) => {
    await ctx.setState("card", { number: "4711", holder: "Ann" });
    return ctx.pauseFor({
      interruptId: "q",
      response: z.object({ n: z.int().min(1), sub: z.object({ mail: z.email() }) }),
    });
  })
  .to("keep", (ctx) => ctx.setState("answer", ctx.input as never));
function fails(): null {
  throw new Error("the card of Ann");
}
const deep = defineFlow("deep");
deep.to("write", async (ctx) => {
  let nested: unknown = "bottom";
  for (let level = 0; level < 190; level++) nested = [nested];
  await ctx.setState("nested", nested as never);
  await ctx.setState("long", "x".repeat(1_000_000));
  await ctx.setState("hostile", "<script>alert(1)</script>\u202Egnp.exe");
});
const leaky = defineFlow("leaky");
leaky.to("pay", fails).batch({ Ann: () => null, Bo: () => null });
const orchestrator = await serving(database, [ask, deep, leaky]);
afterAll(() => orchestrator.close());

const admin = { actor: "ann", role: "admin" } as const;
const consoleOf = (options: Partial<ConsoleOptions> = {}) =>
  createConsole({ orchestrator, authorize: () => admin, ...options });
const clientOf = (options: Partial<ConsoleOptions> = {}) => consoleClient(consoleOf(options));
const open = async (input: unknown = null) => {
  const execution = await orchestrator.flow(ask).startExecution(input, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");
  return execution;
};

test("without authorize, or with options that cannot be meant, there is no console", () => {
  const wrong: [object, RegExp][] = [
    [{ authorize: undefined }, /has no authorize.*authorize: \(request\)/],
    [{ authorize: "yes" }, /authorize of createConsole\(\) must be a function, got "yes"/],
    [{ orchestrator: null }, /orchestrator of createConsole\(\) is null/],
    [{ authorise: () => null }, /unknown option "authorise".*did you mean "authorize"/],
    [{ redact: 1 }, /redact of createConsole\(\) must be a function, got 1/],
    [{ theme: { accent: "red; }" } }, /theme.accent of createConsole\(\) must be a colour, got "red; }"/],
    [{ theme: { css: "//evil.example/x.css" } }, /theme.css of createConsole\(\) must be a path/],
    [{ links: { trace: "x" } }, /links.trace of createConsole\(\) must be a function/],
    [{ limits: { pageSize: 0 } }, /limits.pageSize of createConsole\(\) must be an integer from 1 to 200, got 0/],
    [{ limits: { previewBytes: 5 } }, /limits.previewBytes/],
    [{ limits: { bulk: 0.5 } }, /limits.bulk/],
  ];

  for (const [options, message] of wrong)
    expect(() => createConsole({ orchestrator, authorize: () => admin, ...(options as object) })).toThrow(message);
  expect(() => createConsole(null as never)).toThrow(/options of createConsole\(\) must be an object, got null/);
});

test("null is 401, a Response is sent as it is, and an answer that cannot be meant lets nobody in", async () => {
  const warned = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  const login = new Response(null, { status: 302, headers: { location: "/login" } });
  const page = (authorize: () => unknown) =>
    consoleOf({ authorize: authorize as ConsoleOptions["authorize"] }).fetch(new Request("http://app.example/admin"));
  const strange = [
    { actor: "", role: "admin" },
    { actor: "ann", role: "root" },
    { actor: "ann" },
    { actor: "ann", role: "admin", where: {} },
    { actor: "ann", role: "admin", where: { metadata: {} } },
    { actor: "ann", role: "admin", where: { metadata: { tenant: undefined } } },
    { actor: "ann", role: "admin", tenant: "a" },
    "ann",
    true,
  ];

  expect((await page(() => null)).status).toBe(401);
  expect((await page(() => undefined)).status).toBe(401);
  expect(await page(() => login)).toBe(login);
  for (const access of strange) {
    const client = clientOf({ authorize: () => access as never });
    expect([access, (await client("GET", "executions")).status, (await page(() => access)).status]).toEqual([
      access,
      expect.toBeOneOf([400, 500]),
      expect.toBeOneOf([400, 500]),
    ]);
  }
  const failing = clientOf({ authorize: () => Promise.reject(new Error("no session store")) });
  const answer = await failing("GET", "executions");
  expect([answer.status, await answer.text()]).toEqual([500, expect.not.stringContaining("session store")]);
  expect(warned).toHaveBeenCalled();
  warned.mockRestore();
});

test("a Response of the platform's own is one where a server has put another class in its place", async () => {
  const login = Response.redirect("https://sso.example/login");
  vi.stubGlobal("Response", class extends Response {});
  const client = clientOf({ authorize: () => login });

  const answer = await client("GET", "executions");
  vi.unstubAllGlobals();

  expect(answer).toBe(login);
});

test("a wrong method is told the right ones, and an event that there is not is none", async () => {
  const flow = defineFlow("methods");
  flow.to("work", () => null);
  await using worker = await serving(database, [flow]);
  const { id } = await worker.flow(flow).startExecution(null);
  const client = clientOf();
  const allowed = async (method: string, path: string) => {
    const { status, headers } = await client(method, path);
    return [status, headers.get("allow")];
  };

  expect(await allowed("PUT", "me")).toEqual([405, "GET, HEAD"]);
  expect(await allowed("POST", `executions/${id}/state`)).toEqual([405, "GET, HEAD"]);
  for (const method of ["GET", "DELETE"])
    expect(await allowed(method, `executions/${id}/retry`)).toEqual([405, "POST"]);
  const page = await consoleOf().fetch(new Request("http://app.example/admin", { method: "POST" }));
  expect([page.status, page.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  expect((await client("GET", `executions/${id}/payload?part=event&seq=1`)).status).toBe(200);
  expect((await client("GET", `executions/${id}/payload?part=event&seq=9999`)).status).toBe(400);
});

test("a HEAD has the headers of a GET and no body, so no stream stays open for it", async () => {
  const flow = defineFlow("heads");
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
  await using worker = await serving(database, [flow]);
  const { id } = await worker.flow(flow).startExecution(null);
  const client = clientOf();
  for (const [path, type] of [
    ["me", "application/json; charset=utf-8"],
    [`executions/${id}/stream`, "text/event-stream; charset=utf-8"],
    [`executions/${id}/watch`, "text/event-stream; charset=utf-8"],
  ] as const) {
    const { status, headers, body } = await client("HEAD", path);
    expect([path, status, headers.get("content-type"), body]).toEqual([path, 200, type, null]);
  }
});

test("every status has every header, and nothing allows another origin, a cookie, or anything unsafe", async () => {
  const { id } = await open();
  const client = clientOf();
  const answers = {
    200: await client("GET", "executions"),
    400: await client("GET", "executions?sttus=failed"),
    401: await clientOf({ authorize: () => null })("GET", "executions"),
    403: await client("POST", `executions/${id}/pause`, { reason: "x" }, { "sec-fetch-site": "cross-site" }),
    404: await client("GET", "executions/01890000-0000-7000-8000-000000000000"),
    405: await client("POST", "executions", {}),
    413: await client("POST", `executions/${id}/pause`, { reason: "x".repeat(1_100_000) }),
    page: await consoleOf().fetch(new Request("http://app.example/admin/flows?execution=1")),
    script: await consoleOf().fetch(new Request("http://app.example/admin/flows?asset=page-000000000000.js")),
  };

  for (const [name, answer] of Object.entries(answers)) {
    expect([name, answer.status]).toEqual([name, Number(name) || 200]);
    const policy = answer.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain("unsafe");
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cross-origin-resource-policy": "same-origin",
      "cache-control": "no-store",
    });
    for (const header of ["set-cookie", "access-control-allow-origin"]) expect(answer.headers.get(header)).toBeNull();
  }
});

test("a command comes from the page's own origin, and as JSON", async () => {
  const { id } = await open();
  const client = clientOf();
  const post = async (headers: Record<string, string>) =>
    (await client("POST", `executions/${id}/unpause`, { reason: "x" }, headers)).status;
  const without = (headers: Record<string, string>) =>
    consoleOf()
      .fetch(
        new Request(`http://app.example/x/-/executions/${id}/unpause`, {
          method: "POST",
          headers: { "content-type": "application/json", host: "app.example", ...headers },
          body: '{"reason":"x"}',
        }),
      )
      .then(({ status }) => status);

  expect(await post({ "sec-fetch-site": "cross-site" })).toBe(403);
  expect(await post({ "sec-fetch-site": "same-site" })).toBe(403);
  expect(await post({ "sec-fetch-site": "none" })).toBe(403);
  expect(await post({ "content-type": "text/plain" })).toBe(403);
  expect(await post({ "content-type": "application/x-www-form-urlencoded" })).toBe(403);
  expect(await without({})).toBe(403);
  expect(await without({ origin: "https://evil.example" })).toBe(403);
  expect(await without({ origin: "null" })).toBe(403);
  // A proxy that puts another Host in its place: what the browser itself says counts, and without it nobody knows.
  const behind = { origin: "http://app.example", host: "internal:3000" };
  expect(await without(behind)).toBe(403);
  expect(await without({ ...behind, "x-forwarded-host": "app.example" })).toBe(403);
  expect(await without({ ...behind, "sec-fetch-site": "same-origin" })).toBe(400);
  // It is let in, and refused for another reason: it is not paused.
  expect(await without({ origin: "http://app.example" })).toBe(400);
  expect(await post({})).toBe(400);
});

test("a schedule that this release cannot read is shown without its times, and workers with their slots and versions", async () => {
  const client = clientOf();
  await database.sql`
    insert into flowledger.schedules (name, flow, cron, time_zone, fired_until)
    values ('later grammar', 'ask', 'every full moon', 'UTC', now()), ('later zone', 'ask', '0 7 * * *', 'Mars/Olympus', now())`;

  const schedules: unknown = await (await client("GET", "schedules")).json();
  const workers: unknown = await (await client("GET", "workers")).json();
  await database.sql`delete from flowledger.schedules where name like 'later %'`;

  expect(schedules).toMatchObject({
    rows: [
      { name: "later grammar", next: [] },
      { name: "later zone", next: [] },
    ],
  });
  expect(workers).toMatchObject({ rows: [{ slots: 100, versions: { ask: ask.fingerprint, deep: deep.fingerprint } }] });
});

test("filters are those of listExecutions(), and what is unknown or cannot be meant is 400 by name", async () => {
  const client = clientOf();
  const wrong: [string, string][] = [
    ["executions?sttus=failed", 'there is no filter "sttus".*did you mean "status"'],
    ["executions?status=broken", "status of listExecutions"],
    ["executions?limit=5000", "limit of listExecutions"],
    ["executions?limit=x", "limit of listExecutions"],
    ["executions?createdAfter=soon", "createdAfter of listExecutions"],
    ["executions?metadata=acme", "filter metadata is"],
    ["executions?cursor=1&cursor=2", "filter cursor is there 2 times"],
    ["executions?idPrefix=zz", "idPrefix"],
    ["count?upTo=1", 'there is no filter "upTo"'],
    ["inbox?group=x", 'there is no filter "group"'],
    ["failures?status=failed", 'there is no filter "status"'],
    ["workers?x=1", 'there is no filter "x"'],
  ];
  const { id } = await open();
  for (const path of [
    "timeline?cursor=x",
    "state?seq=0",
    "state?seq=999",
    "payload?part=state&seq=999",
    "ledger?type=no",
    "ledger?before=0",
    "payload?part=all",
    "payload",
  ])
    wrong.push([`executions/${id}/${path}`, "."]);

  for (const [path, message] of wrong) {
    const answer = await client("GET", path);
    expect([path, answer.status, await answer.json()]).toEqual([
      path,
      400,
      expect.objectContaining({ message: expect.stringMatching(message) as string }) as object,
    ]);
  }
});

test("two people answer at once: one is told who was first, and when", async () => {
  const execution = await orchestrator.flow(ask).startExecution(null, { autoClose: false });
  await untilEvent(execution, "interrupt.raised");
  const answer = (actor: string, n: number) =>
    clientOf({ authorize: () => ({ actor, role: "responder" }) })("POST", `executions/${execution.id}/answer`, {
      interrupt: "q",
      value: { n, sub: { mail: "a@b.example" } },
      requestId: actor,
    });

  const answers = await Promise.all([answer("ann", 1), answer("bo", 2)]);
  await execution.close();
  const closed = await execution.waitForClose();
  const late = await answer("cy", 3);

  expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409]);
  const [first] = answers.map(({ status }, index) => (status === 200 ? ["ann", "bo"][index] : "")).filter(Boolean);
  const lost = (await answers.find(({ status }) => status === 409)?.json()) as object;
  expect(lost).toMatchObject({
    code: "INTERRUPT_NOT_PENDING",
    by: first,
    at: expect.stringMatching(/^\d{4}-/) as string,
  });
  expect(closed).toMatchObject({ answer: { n: first === "ann" ? 1 : 2 } });
  expect(late.status).toBe(409);
});

test("an answer to a question that nobody asks is refused, and not kept for one that may come", async () => {
  const execution = await open();
  const answer = await clientOf()("POST", `executions/${execution.id}/answer`, {
    interrupt: "another",
    value: 1,
    requestId: "r",
  });

  expect([answer.status, await answer.json()]).toEqual([
    409,
    expect.objectContaining({ code: "INTERRUPT_NOT_PENDING" }) as object,
  ]);
  expect(await execution.history({ types: ["interrupt.answered"] })).toEqual([]);
});

test("a stale action is 409 with who and when; an answer against its schema names each field", async () => {
  const execution = await open();
  const client = clientOf();
  const act = async (path: string, body: object) => {
    const answer = await client("POST", `executions/${execution.id}/${path}`, { reason: "INC-1", ...body });
    return { status: answer.status, ...((await answer.json()) as object) };
  };

  const wrong = await client("POST", `executions/${execution.id}/answer`, {
    interrupt: "q",
    value: { n: 0, sub: { mail: "none" } },
    requestId: "r",
  });
  await act("edit-state", { set: { a: 1 } });
  const stale = await act("edit-state", { set: { a: 2 }, expectedSeq: 3 });
  await execution.cancel("enough", { actor: "bo" });
  await untilEvent(execution, "execution.closed");

  expect([wrong.status, await wrong.json()]).toMatchObject([
    400,
    { issues: [{ path: ["n"] }, { path: ["sub", "mail"] }] },
  ]);
  expect(stale).toMatchObject({
    status: 409,
    code: "CONFLICT",
    by: "ann",
    at: expect.stringMatching(/^\d{4}-/) as string,
  });
  expect(await act("pause", {})).toMatchObject({
    status: 409,
    code: "EXECUTION_CLOSED",
    at: expect.any(String) as string,
  });
});

test("who has done something sees it at once, and not what was read before", async () => {
  const { id } = await open();
  const client = clientOf();
  const isPaused = async () =>
    ((await (await client("GET", `executions/${id}`)).json()) as { isPaused: boolean }).isPaused;
  const seen = [await isPaused()];

  for (const command of ["pause", "unpause"]) {
    expect((await client("POST", `executions/${id}/${command}`, { reason: "INC-12" })).status).toBe(200);
    seen.push(await isPaused());
  }

  expect(seen).toEqual([false, true, false]);
});

test("a state of the past is that of its event, whatever was kept since", async () => {
  const { id } = await open();
  const { reads } = await orchestrator[internals].store();
  const state = await reads.loadState(ExecutionId.parse(id));
  if (!state) throw new Error("there is no such execution");
  await database.sql`
    insert into flowledger.snapshots (execution_id, seq, version, state)
    values (${id}, ${state.seq}, ${snapshotVersion}, ${freezeState(state)}::text::jsonb)`;
  const client = clientOf();

  const stateAt = async (seq: number) =>
    ((await (await client("GET", `executions/${id}/state?seq=${seq}`)).json()) as { state: object }).state;

  expect(await stateAt(2)).toEqual({ json: {} });
  expect(await stateAt(state.seq)).toEqual({ json: { card: { number: "4711", holder: "Ann" } } });
});

test("fifty viewers of one view cost one query, and views that refresh themselves take turns", async () => {
  const { reads } = await orchestrator[internals].store();
  const asked = vi.spyOn(reads, "listHeaders");
  const client = clientOf();
  const look = (path: string) => client("GET", path, undefined, { "x-refresh": "1" });
  vi.useFakeTimers({ toFake: ["performance"] });
  try {
    await Promise.all(Array.from({ length: 50 }, () => client("GET", "executions?flow=ask")));
    const first = asked.mock.calls.length;
    await client("GET", "executions?flow=deep");
    for (let second = 0; second < 20; second++) {
      vi.advanceTimersByTime(1000);
      await Promise.all(
        ["ask", "deep"].flatMap((flow) => Array.from({ length: 25 }, () => look(`executions?flow=${flow}`))),
      );
    }

    expect(first).toBe(1);
    const refreshes = asked.mock.calls.slice(2).map(([{ filter }]) => filter.flow?.[0]);
    expect(refreshes.length).toBeLessThanOrEqual(10);
    expect(refreshes.filter((flow) => flow === "ask").length).toBeGreaterThan(3);
    expect(refreshes.filter((flow) => flow === "deep").length).toBeGreaterThan(3);
  } finally {
    vi.useRealTimers();
    asked.mockRestore();
  }
});

test("what redact() replaces leaves the server nowhere, and a rule that fails shows nothing", async () => {
  const execution = await orchestrator
    .flow(ask)
    .startExecution({ card: { number: "4711" } }, { metadata: { card: { number: "4711" } } });
  await untilEvent(execution, "interrupt.raised");
  const parts = new Set<string>();
  const client = clientOf({
    redact(value, { flow, part, path }) {
      expect(["ask", "flowledger.bulk"]).toContain(flow);
      parts.add(part);
      return path.at(-1) === "number" ? "•••" : value;
    },
  });
  const failing = clientOf({
    redact() {
      throw new Error("rule");
    },
  });
  const where = { idPrefix: execution.id };
  const options = { chunk: "Ann" };
  const bulk = await orchestrator.bulk({ action: "skip", where, options, actor: "bo", reason: "INC-12" });
  expect(await bulk.wait()).toMatchObject({ failed: 1 });
  const paths = [
    `executions?idPrefix=${execution.id}`,
    `executions/${execution.id}`,
    `operation-failures?id=${bulk.id}`,
    ...[
      "timeline",
      "state",
      "ledger",
      "payload?part=input",
      "payload?part=state",
      "payload?part=metadata",
      "payload?part=event&seq=2",
    ].map((path) => `executions/${execution.id}/${path}`),
  ];

  for (const path of paths) {
    const answer = await client("GET", path);
    expect([path, answer.status]).toEqual([path, 200]);
    expect(await answer.text()).not.toContain("4711");
    expect(await (await failing("GET", path)).text()).not.toContain("Ann");
  }
  expect([...parts]).toEqual(expect.arrayContaining(["input", "state", "metadata", "event", "sentence"]));
  expect(await (await client("GET", `executions/${execution.id}/payload?part=input`)).json()).toEqual({
    card: { number: "•••" },
  });
});

test("errors of failures and attempts, names in a graph, and what a bulk is about go through redact() too", async () => {
  const metadata = { holder: "Ann" };
  const execution = await orchestrator.flow(leaky).startExecution(null, { autoCloseTimeout: 0, metadata });
  await execution.waitForClose().catch(() => {});
  await orchestrator.bulk({ action: "pause", where: { flow: "leaky", metadata }, actor: "bo", reason: "INC-12" });
  const hiding = clientOf({
    redact: (value) => (typeof value === "string" ? value.replaceAll("Ann", "•••") : value),
  });
  const words = async (client: ReturnType<typeof clientOf>, path: string): Promise<string> => {
    const shown = (await (await client("GET", path)).json()) as {
      graph?: { nodes: { label: string; entries: object }[] };
    };
    // Ids are those of the code.
    return JSON.stringify(shown.graph?.nodes.map(({ label, entries }) => [label, entries]) ?? shown);
  };

  for (const path of ["failures?flow=leaky", `executions/${execution.id}/timeline`, "graph?flow=leaky", "operations"]) {
    expect([path, await words(clientOf(), path)]).toEqual([path, expect.stringContaining("Ann")]);
    expect([path, await words(hiding, path)]).toEqual([path, expect.not.stringContaining("Ann")]);
  }
});

test("a look that failed is kept for nobody, of a view and of a fold", async () => {
  const fails = () => Promise.reject(new Error("no"));
  const poll = new Poll();
  const folds = new Folds<{ count: number }>(1);
  const count = (fold: { count: number }) => Promise.resolve(void (fold.count += 1));

  await expect(poll.read("view", false, fails)).rejects.toThrow("no");
  await expect(folds.goOn("fold", () => ({ count: 0 }), fails)).rejects.toThrow("no");

  expect(await poll.read("view", false, () => Promise.resolve(1))).toBe(1);
  expect(await folds.goOn("fold", () => ({ count: 7 }), count)).toEqual({ count: 8 });
  expect(await folds.goOn("fold", () => ({ count: 7 }), count)).toEqual({ count: 9 });
});

test("a bulk is of as many executions as the application allows", async () => {
  for (let index = 0; index < 2; index++)
    await orchestrator.flow(ask).startExecution(null, { metadata: { of: "limits" } });
  const body = { action: "cancel", where: { metadata: { of: "limits" } }, reason: "INC-1" };

  const refused = await clientOf({ limits: { bulk: 1 } })("POST", "bulk", body);

  expect([refused.status, await refused.json()]).toMatchObject([400, { message: /more than 1 executions match/ }]);
  expect((await clientOf({ limits: { bulk: 2 } })("POST", "bulk", body)).status).toBe(200);
});

test("a page that watches an execution hears of what nobody has to do anything for, as a seal before its start", async () => {
  const execution = await orchestrator.flow(ask).createExecution();
  const answer = await clientOf()("GET", `executions/${execution.id}/watch`);
  const reader = answer.body?.getReader();
  const decoder = new TextDecoder();
  const heard = async () => decoder.decode((await reader?.read())?.value);
  expect(await heard()).toContain(": open");

  await execution.seal();

  expect(await heard()).toContain("event: news");
  await reader?.cancel();
  await execution.cancel();
});

test("each cookie of an answer of the application's is one of its own", async () => {
  const headers = new Headers([
    ["set-cookie", "a=1; Path=/"],
    ["set-cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"],
  ]);
  const handler = toNodeHandler(
    consoleOf({ authorize: () => new Response(null, { status: 302, headers: [...headers, ["location", "/login"]] }) }),
  );
  const server = createServer((request, response) => void handler(request, response)).listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));

  const { port } = server.address() as AddressInfo;
  const answer = await fetch(`http://127.0.0.1:${port}/`, { redirect: "manual" });

  expect(answer.headers.getSetCookie()).toEqual(headers.getSetCookie());
  server.close();
});

test("a payload of 1 MiB and of 200 levels is shown in part, and whole when asked for", async () => {
  const execution = await orchestrator.flow(deep).startExecution(null, { autoCloseTimeout: 0 });
  await execution.waitForClose();
  const client = clientOf();
  const look = async (path: string) => (await client("GET", `executions/${execution.id}${path}`)).text();

  const sizes = (await Promise.all(["", "/state", "/ledger"].map(look))).map((text) => text.length);
  const { output } = JSON.parse(await look("")) as { output: { preview: string; bytes: number; load: string } };
  const whole = (await (await client("GET", output.load)).json()) as { long: string; nested: unknown; hostile: string };

  for (const size of sizes) expect(size).toBeLessThan(200_000);
  expect(output.preview.length).toBeLessThanOrEqual(65_536);
  expect(output.bytes).toBeGreaterThan(1_000_000);
  expect(whole.long).toHaveLength(1_000_000);
  expect(whole.hostile).toContain("<script>");
});

test("it works under any path, behind Express's stripped one and behind a body that was parsed already", async () => {
  const execution = await open();
  const app = consoleOf();
  const handler = toNodeHandler(app);
  const server = createServer((request, response) => {
    // As express.json() and app.use("/admin/flows") leave a request.
    const chunks: Buffer[] = [];
    request.url = `/${(request.url ?? "").replace(/^\/admin\/flows\/?/, "")}`;
    if (request.method === "GET") return void handler(request, response);
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      Object.assign(request, { body: JSON.parse(Buffer.concat(chunks).toString()) as unknown });
      setImmediate(() => void handler(request, response));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const page = await fetch(`${origin}/admin/flows?execution=${execution.id}`);
    const [, script = ""] = /src="(\?asset=[^"]+)"/.exec(await page.text()) ?? [];
    const paused = await fetch(`${origin}/admin/flows/-/executions/${execution.id}/pause`, {
      method: "POST",
      headers: { "content-type": "application/json", "sec-fetch-site": "same-origin" },
      body: '{"reason":"INC-1"}',
    });

    expect((await fetch(`${origin}/admin/flows${script}`)).headers.get("content-type")).toContain("javascript");
    expect([paused.status, await paused.json()]).toEqual([200, {}]);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
  for (const prefix of ["", "/flows", "/api/-/x", "/admin/flows"]) {
    const client = consoleClient(app, prefix);
    expect([prefix, (await client("GET", `executions/${execution.id}`)).status]).toEqual([prefix, 200]);
    expect([prefix, (await client("GET", "nothing")).status]).toEqual([prefix, 404]);
  }
});

test("a policy that the host has set stays beside the console's own", async () => {
  const handler = toNodeHandler(consoleOf());
  const server = createServer((request, response) => {
    response.setHeader("Content-Security-Policy", "object-src 'none'");
    void handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const policies = await Promise.all(
    ["", "/nothing"].map(async (path) => (await fetch(origin + path)).headers.get("content-security-policy")),
  );
  server.close();

  for (const policy of policies) expect(policy).toMatch(/^object-src 'none', .*script-src 'self'/);
});

test("a route of Fastify hands over what it has parsed, and a reader that leaves ends its stream", async () => {
  const execution = await open();
  const handler = toNodeHandler(consoleOf());
  const app = fastify();
  for (const path of ["/admin/flows", "/admin/flows/*"])
    app.all(path, (request, reply) => {
      reply.hijack();
      void handler(Object.assign(request.raw, { body: request.body }), reply.raw);
    });
  const origin = await app.listen({ host: "127.0.0.1", port: 0 });
  try {
    const { streams } = orchestrator[internals].host;
    const opened = vi.spyOn(streams, "open");
    const leave = new AbortController();
    const stream = await fetch(`${origin}/admin/flows/-/executions/${execution.id}/stream`, { signal: leave.signal });
    const first = await stream.body?.getReader().read();
    leave.abort();
    const paused = await fetch(`${origin}/admin/flows/-/executions/${execution.id}/pause`, {
      method: "POST",
      headers: { "content-type": "application/json", "sec-fetch-site": "same-origin" },
      body: '{"reason":"INC-1"}',
    });

    expect(first?.done).toBe(false);
    expect((await fetch(`${origin}/admin/flows`)).status).toBe(200);
    expect((await fetch(`${origin}/admin/flows`, { method: "HEAD" })).status).toBe(200);
    expect([paused.status, await paused.json()]).toEqual([200, {}]);
    expect(opened).toHaveBeenCalled();
    opened.mockRestore();
  } finally {
    // It waits for what is under way: a stream whose reader is gone is not.
    await app.close();
  }
});

test("the token of the command ends after twelve hours, and read-only does nothing", async () => {
  const reader = visiting(database);
  let now = 0;
  const hour = 3_600_000;
  await using opened = await openConsole(reader, { as: "ann", readOnly: true, timers: { now: () => now } });
  const { origin, hash } = new URL(opened.url);
  const headers = {
    authorization: `Bearer ${hash.slice(1)}`,
    "content-type": "application/json",
    "sec-fetch-site": "same-origin",
  };
  const { id } = await open();
  const look = () => fetch(`${origin}/-/me`, { headers });

  const me = await (await look()).json();
  const done = await fetch(`${origin}/-/executions/${id}/pause`, { method: "POST", headers, body: '{"reason":"x"}' });
  now = 12 * hour - 1;
  const last = await look();
  now = 12 * hour;
  const ended = await look();

  expect(me).toMatchObject({ actor: "ann", role: "viewer" });
  expect(done.status).toBe(403);
  expect(last.status).toBe(200);
  expect([ended.status, await ended.json()]).toMatchObject([401, { code: "TOKEN_ENDED" }]);
  await reader.close();
});

test("the page is small: script at most 60 kB, style at most 12 kB, compressed", async () => {
  const { script, style } = await assets();

  expect(gzipSync(script).length).toBeLessThan(60_000);
  expect(gzipSync(style).length).toBeLessThan(12_000);
  expect(script).not.toMatch(/\beval\(|new Function/);
  expect(script).not.toContain("dangerouslySetInnerHTML:{");
});

test("an accent of any colour can be read on both grounds", async () => {
  for (const accent of ["#0a6", "#ffff00", "#000000", "#fff", "#3450c4"]) {
    const css = await (
      await consoleOf({ theme: { accent } }).fetch(new Request("http://a.example/?asset=theme.css"))
    ).text();
    const [light = "", dark = ""] = [...css.matchAll(/--accent:(#[\da-f]{6})/g)].map(([, hex]) => hex);
    const rgb = (hex: string) =>
      [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as [number, number, number];

    expect(contrast(rgb(light), [255, 255, 255])).toBeGreaterThan(4.5);
    expect(contrast(rgb(dark), [22, 24, 29])).toBeGreaterThan(4.5);
  }
});

test("a trace's link is the application's own, and only a web address", async () => {
  const id = await orchestrator.flow(ask).createExecution({
    traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  } as never);
  const urlOf = async (trace: (traceId: string) => string) => {
    const answer = await clientOf({ links: { trace } })("GET", `executions/${id.id}`);
    return ((await answer.json()) as { traceUrl: string | null }).traceUrl;
  };

  expect(await urlOf((trace) => `https://tempo.example/trace/${trace}`)).toBe(
    "https://tempo.example/trace/4bf92f3577b34da6a3ce929d0e0e4736",
  );
  expect(await urlOf(() => "javascript:alert(1)")).toBeNull();
  expect(await urlOf(() => "nowhere")).toBeNull();
});
