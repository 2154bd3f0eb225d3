/** The processes that `npm run bench -- peers` measures engines in. */
import { expect, test } from "vitest";
import { EngineProcess } from "../../bench/peers/parent.ts";
import { testDatabase } from "../support/database.ts";

test("an engine's process runs what it is asked for, counts it, and ends when all of it has ended", async () => {
  const database = await testDatabase();
  await using engine = await EngineProcess.open("flowledger", database.url, 10);

  expect(await engine.sample("result", 0)).toHaveLength(3);
  expect(Math.min(...(await engine.sample("answer", 0)))).toBeGreaterThan(0);
  const before = await engine.count();
  await engine.do({ ask: "load", work: { steps: 5, style: "steps" }, inFlight: 5 });
  await expect.poll(async () => (await engine.count()).done).toBeGreaterThan(10);
  await engine.do({ ask: "stop" });
  const after = await engine.count();

  expect(after.at).toBeGreaterThan(before.at);
  expect(after.cpu).toBeGreaterThan(before.cpu);
  const [row] = await database.sql<[{ closed: number; open: number }]>`
    select count(closed_at)::int as closed, count(*) filter (where closed_at is null)::int as open
    from flowledger.executions where flow = 'bench-steps-5'`;
  expect(row).toEqual({ closed: after.done, open: 0 });
});

test("a step that never ends says that it runs", async () => {
  const database = await testDatabase();
  await using engine = await EngineProcess.open("flowledger", database.url, 10);

  await engine.do({ ask: "hold" });

  await engine.running;
  await engine.kill();
  await expect(engine.count()).rejects.toThrow("closed");
});

test("a process that cannot begin is an error of who opens it, with what it wrote", async () => {
  const database = await testDatabase();
  const url = new URL(database.url);
  url.pathname = "/nowhere";

  await expect(EngineProcess.open("flowledger", url.href, 10)).rejects.toThrow(
    /^the process of flowledger has ended \(code 1\)\n[^]*nowhere/,
  );
});
