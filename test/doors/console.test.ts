/** What the console asks the database, what it refuses to strangers, and its command. The page is in console-page.test.ts. */
import { Agent, request } from "node:http";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { openConsole } from "../../src/console.ts";
import { Lookout } from "../../src/execution/look.ts";
import { defineFlow } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent, visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";

const database = await testDatabase();

const long = defineFlow("long");
long.to("many", async (ctx) => {
  for (let i = 0; i < 6000; i++) await ctx.setState(`k${i % 50}`, i);
  await ctx.setState("last", "done");
  return null;
});
const review = defineFlow("review");
review
  .to("ask", (ctx) => ctx.pauseFor({ type: "approval", resumeTo: "next" }))
  .to("keep", (ctx) => ctx.setState("answer", ctx.input));

test("a look at a long ledger reads a page of it, goes on where the last look ended, and ends with the whole state", async () => {
  const worker = await serving(database, [long]);
  const { id } = await worker.flow(long).startExecution(null, { autoClose: false });
  await untilEvent(await worker.getExecution(id), "chunk.completed");
  await worker.close();
  await using orchestrator = visiting(database, [long]);
  const execution = await orchestrator.getExecution(id);
  // Nothing is kept that the fold could begin with.
  await database.sql`delete from flowledger.snapshots where execution_id = ${execution.id}`;
  const lookout = new Lookout(await orchestrator[internals].store());

  const looks = [];
  do looks.push(await lookout.look(execution.id, { events: 200 }));
  while (looks.length < 9 && (looks.at(-1)?.stateSeq ?? 0) < (looks.at(-1)?.meta.stateVersion ?? 0));

  expect(looks.map(({ stateSeq }) => stateSeq)).toEqual([2000, 4000, 6000, looks[0]?.meta.stateVersion]);
  expect(looks.at(-1)?.state).toEqual(await execution.result.getState());
  expect(looks[0]?.events.map(({ seq }) => seq)).toEqual((await execution.history()).slice(-200).map(({ seq }) => seq));
  const pages = await database.sql`
    select flowledger.page_end(${execution.id}, 0, 10, 1000000) as few, flowledger.page_end(${execution.id}, 0, 10, 1) as one,
      flowledger.page_end(${execution.id}, 1000000, 10, 1) as none`;
  expect(pages).toEqual([{ few: 10, one: 1, none: 1_000_000 }]);
});

test("a ledger that cannot be read is shown all the same", async () => {
  await using orchestrator = visiting(database, [review]);
  await using opened = await openConsole(orchestrator);
  const { origin, hash } = new URL(opened.url);
  const execution = await orchestrator.flow(review).createExecution();
  await database.sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    values (${execution.id}, 2, 0, flowledger.now(), 'never.heard', '{"of": 1}')`;
  await database.sql`update flowledger.executions set seq = 2 where id = ${execution.id}`;

  const look = async (path: string) => {
    const answer = await fetch(`${origin}/-/executions/${execution.id}${path}`, {
      headers: { authorization: `Bearer ${hash.slice(1)}` },
    });
    return [answer.status, await answer.json()];
  };

  expect(await look("")).toMatchObject([200, { status: "created" }]);
  expect(await look("/state")).toMatchObject([200, { problem: expect.stringContaining("cannot be read") as string }]);
  expect(await look("/ledger")).toMatchObject([
    200,
    { rows: [{ type: "never.heard", payload: { json: { of: 1 } } }, { type: "execution.created" }] },
  ]);
});

test("whoever has no token, or comes under another name, gets nothing", async () => {
  await using orchestrator = visiting(database, [review]);
  await using opened = await openConsole(orchestrator);
  const { origin, port, hash } = new URL(opened.url);
  const authorization = `Bearer ${hash.slice(1)}`;
  const { id } = await orchestrator.flow(review).createExecution();
  const path = "/-/executions/01890000-0000-7000-8000-000000000000";
  const headers = { authorization, "content-type": "application/json", "sec-fetch-site": "same-origin" };
  const post = (body: string) => fetch(`${origin}/-/executions/${id}/cancel`, { method: "POST", headers, body });

  const page = await fetch(origin);
  const answers = [
    await fetch(`${origin}/-/executions`),
    await fetch(`${origin}/-/executions`, { headers: { authorization: `${authorization}x` } }),
    await fetch(`${origin}/-/executions`, { headers: { authorization } }),
    await fetch(`${origin}${path}`, { headers: { authorization } }),
    await fetch(`${origin}/-/executions/${id}/stream?from=-1`, { headers: { authorization } }),
    await post("{"),
    await post('{ "reason": 1 }'),
  ];

  expect(answers.map(({ status }) => status)).toEqual([401, 401, 200, 404, 400, 400, 400]);
  expect(await statusOf({ port, path: "/", headers: { host: "evil.example" } })).toEqual([403, "nosniff"]);
  expect((await post(JSON.stringify({ reason: "x".repeat(2_000_000) }))).status).toBe(413);
  expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
  for (const { headers } of [page, ...answers]) expect(headers.get("access-control-allow-origin")).toBeNull();
  expect(await page.text()).not.toContain(hash.slice(1));
});

test("the command prints the URL, ends on a signal, and refuses a port that is taken", async () => {
  const cli = resolve(import.meta.dirname, "../../src/cli.ts");
  const env = { DATABASE_URL: database.url };
  await using running = await startProcess(cli, { args: ["console", "--read-only", "--as", "ann"], env });
  const url = /http:\S+/.exec(running.readyLine)?.[0] ?? "";
  const { origin, hash } = new URL(url);
  const me = await fetch(`${origin}/-/me`, { headers: { authorization: `Bearer ${hash.slice(1)}` } });

  const page = await fetch(url);
  const { port } = new URL(url);
  const second = startProcess(cli, { args: ["console", "--port", port], env });

  expect(page.status).toBe(200);
  expect(await me.json()).toMatchObject({ actor: "ann", role: "viewer" });
  await expect(second).rejects.toThrow(/cannot listen on port .* choose another --port/);
  running.kill("SIGTERM");
  expect(await running.exited).toEqual({ code: 0, signal: null });
});

/** `fetch` does not let one choose the name of the host. */
async function statusOf(options: {
  port: string;
  path: string;
  headers: Record<string, string>;
}): Promise<[number, unknown]> {
  const { promise, resolve: answer, reject } = Promise.withResolvers<[number, unknown]>();
  request({ host: "127.0.0.1", ...options }, (response) => {
    response.resume();
    answer([response.statusCode ?? 0, response.headers["x-content-type-options"]]);
  })
    .on("error", reject)
    .end();
  return promise;
}

test("a body that is too large, said or not, leaves its connection to the next request", async () => {
  await using orchestrator = visiting(database, [review]);
  await using opened = await openConsole(orchestrator);
  const { port, hash, host } = new URL(opened.url);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const headers = {
    authorization: `Bearer ${hash.slice(1)}`,
    "content-type": "application/json",
    origin: `http://${host}`,
  };
  const large = JSON.stringify({ reason: "x".repeat(2_000_000) });
  const ask = (method: string, path: string, body: string, isSaid: boolean) =>
    new Promise<number>((done, failed) => {
      const sent = request({
        agent,
        port,
        method,
        path,
        headers: { ...headers, ...(isSaid && { "content-length": body.length }) },
      });
      sent.on("response", (answer) => answer.resume().once("end", () => done(answer.statusCode ?? 0)));
      sent.on("error", failed);
      if (!isSaid && body !== "") sent.write(body.slice(0, 10));
      sent.end(isSaid ? body : body.slice(10));
    });
  const statuses = [];
  for (const isSaid of [true, false]) {
    statuses.push(await ask("POST", "/api/executions/01a1fc32-0000-7000-8000-00000000dead/cancel", large, isSaid));
    statuses.push(await ask("GET", "/api/executions", "", true));
  }
  agent.destroy();

  expect(statuses[0]).toBe(413);
  expect([statuses[1], statuses[3]]).toEqual([200, 200]);
});
