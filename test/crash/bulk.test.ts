/** A service fails for many executions; it is mended, one bulk retries them, and its worker is killed twice on the way. */
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
/** `PROOF_SIZE=1000` in `npm run test:all`. */
const size = Number(process.env["PROOF_SIZE"] ?? 60);
const rate = { limit: Math.ceil(size / 6), per: "250ms" } as const;

/** It does what it is asked to once per key, as a service does that takes idempotency keys; its third endpoint fails until it is mended. */
async function startService() {
  const effects = new Map<string, number>();
  const requests = new Map<string, number>();
  const state = { isMended: false };
  const server = createServer((request, response) => {
    const key = request.url ?? "";
    if (key.startsWith("/three/") && !state.isMended) return response.writeHead(503).end();
    requests.set(key, (requests.get(key) ?? 0) + 1);
    if (requests.get(key) === 1) effects.set(key, (effects.get(key) ?? 0) + 1);
    return response.writeHead(200).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    state,
    effects,
    requests,
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test(`${size} executions park at a service that fails, a bulk retries them when it is mended, and each effect is there once, although its worker is killed twice`, async () => {
  await using service = await startService();
  await using orchestrator = visiting(database, [parked]);
  await using first = await startWorker(database.url);
  const ids = await orchestrator.flow(parked).startMany(
    Array.from({ length: size }, () => service.url),
    { autoCloseTimeout: 0 },
  );
  const count = async (status: string) =>
    (
      await sql<{ n: number }[]>`
        select count(*)::int as n from flowledger.executions where status = ${status} and id = any(${ids})`
    )[0]?.n;
  await until(async () => (await count("parked")) === size, 120_000);
  expect(await count("parked")).toBe(size);
  expect([...service.requests.values()]).toEqual(Array.from({ length: 2 * size }, () => 1));

  service.state.isMended = true;
  const bulk = await orchestrator.bulk({
    action: "retry",
    where: { flow: "crash.parked", errorLike: "three answered 503" },
    rate,
    actor: "ann",
    reason: "INC-12: the service is back",
  });
  const untilDone = (least: number) => until(async () => (await bulk.report()).done >= least, 60_000);
  await untilDone(1);
  first.kill("SIGKILL");
  await using second = await startWorker(database.url);
  const killedAt = (await bulk.report()).done;
  expect(killedAt).toBeLessThan(size);
  await untilDone(killedAt + 1);
  second.kill("SIGKILL");
  expect((await bulk.report()).done).toBeLessThan(size);
  await using _third = await startWorker(database.url);

  expect(await bulk.wait({ timeout: "2m" })).toEqual({ matched: size, done: size, skipped: 0, failed: 0 });
  await until(async () => (await count("completed")) === size, 120_000);
  expect(await count("completed")).toBe(size);
  expect(Object.fromEntries(service.effects)).toEqual(
    Object.fromEntries(ids.flatMap((id) => names.map((name) => [`/${name}/${id}`, 1]))),
  );
  // One and two had long been done, and nothing asked for them again.
  const early = [...service.requests].filter(([key]) => /^.(one|two)/.test(key));
  expect(early.filter(([, times]) => times !== 1)).toEqual([]);
  const events = await sql<{ type: string; n: number; executions: number }[]>`
    select concat(l.type, ' ', l.chunk) as type, count(*)::int as n, count(distinct l.execution_id)::int as executions from flowledger.ledger l
    where l.type in ('chunk.completed', 'chunk.retried') and l.execution_id = any(${ids}) group by 1 order by 1`;
  expect(events.map(({ type, n, executions }) => [type, n, executions])).toEqual(
    [...names.map((name) => `chunk.completed ${name}`), "chunk.retried three"]
      .toSorted()
      .map((type) => [type, size, size]),
  );
  const whose = await sql`
    select distinct l.actor, l.payload ->> 'reason' as reason, l.payload ->> 'bulk' as bulk from flowledger.ledger l where l.type = 'chunk.retried'`;
  expect([...whose]).toEqual([{ actor: "ann", reason: "INC-12: the service is back", bulk: bulk.id }]);
  // Whatever died: never more than the rate.
  const times = await sql<{ ms: number }[]>`
    select extract(epoch from l.at)::float8 * 1000 as ms from flowledger.ledger l where l.type = 'chunk.retried' order by l.at`;
  const waits = times.slice(rate.limit).map(({ ms }, index) => ms - (times[index]?.ms ?? 0));
  expect(waits.filter((wait) => wait < 249)).toEqual([]);
  expect(await orchestrator.verify()).toEqual([]);
  expect(await orchestrator.rebuild()).toEqual([]);
}, 600_000);
