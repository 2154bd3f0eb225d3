/** A service that fails parks many executions; it is mended, they are retried, and their worker dies on the way. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { parked } from "./flows.ts";
import { startWorker, until } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
const names = ["one", "two", "three", "four", "five"];
const size = 50;

/** Its third endpoint fails until it is mended. What it did has a key, so what is sent again changes nothing. */
async function startService() {
  const done = new Map<string, number>();
  const state = { isMended: false, onCall: (_key: string) => {} };
  const server = createServer((request, response) => {
    const key = request.url ?? "";
    const isRefused = key.startsWith("/three/") && !state.isMended;
    if (!isRefused) done.set(key, (done.get(key) ?? 0) + 1);
    state.onCall(key);
    response.writeHead(isRefused ? 503 : 200).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    state,
    done,
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test("fifty executions park at a service that fails, are retried when it is mended, and each effect is there once, although the worker dies", async () => {
  await using service = await startService();
  await using orchestrator = visiting(database, [parked]);
  await using first = await startWorker(database.url);
  const ids = await orchestrator.flow(parked).startMany(
    Array.from({ length: size }, () => service.url),
    { autoCloseTimeout: 0 },
  );
  const count = async (status: string) =>
    (
      await sql`select count(*)::int as n from flowledger.executions where status = ${status} and id = any(${ids})`
    )[0]?.["n"] as number;
  await until(async () => (await count("parked")) === size, 60_000);
  expect(await count("parked")).toBe(size);
  expect([...service.done.values()]).toEqual(Array.from({ length: 2 * size }, () => 1));

  service.state.isMended = true;
  const { promise: isUnderWay, resolve } = Promise.withResolvers<void>();
  service.state.onCall = (key) => key.startsWith("/four/") && resolve();
  for (const id of ids)
    await (await orchestrator.getExecution(id)).retry({ actor: "ann", reason: "the service is back" });
  await isUnderWay;
  first.kill("SIGKILL");
  await using _second = await startWorker(database.url);
  await until(async () => (await count("completed")) === size, 60_000);

  expect(await count("completed")).toBe(size);
  expect([...service.done.keys()].toSorted()).toEqual(
    ids.flatMap((id) => names.map((name) => `/${name}/${id}`)).toSorted(),
  );
  // Before the worker died nothing was on its way twice; what it had in its hands then may have been sent again.
  for (const [key, times] of service.done)
    expect({ key, isRight: times <= (/^.(one|two)/.test(key) ? 1 : 2) }).toEqual({ key, isRight: true });
  const ended = await sql`
    select l.chunk, count(*)::int as n, count(distinct l.execution_id)::int as executions from flowledger.ledger l
    where l.type = 'chunk.completed' and l.execution_id = any(${ids}) group by l.chunk order by l.chunk`;
  expect(ended.map(({ chunk, n, executions }) => [chunk, n, executions])).toEqual(
    names.toSorted().map((name) => [name, size, size]),
  );
  expect(await orchestrator.verify()).toEqual([]);
  expect(await orchestrator.rebuild()).toEqual([]);
}, 180_000);
