/** What Next.js alone has: a server action, and a development server that evaluates modules again after each edit. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { freePort, Host } from "./host.ts";

const edits = 10;
/** Over the last of them. */
const sleepsFrom = 8;
const sleepSeconds = 20;
const settlesWithinMs = 30_000;

/** By the page's form, as a browser without scripts sends it: the purchase and its execution are both there, or neither is. */
export async function buy(host: Host, url: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    const page = await (await fetch(host.base)).text();
    const [, action = ""] = /name="(\$ACTION_ID_\w+)"/.exec(page) ?? [];
    const send = async (amount: number) => {
      const body = new FormData();
      body.set(action, "");
      body.set("amount", `${amount}`);
      return (await fetch(host.base, { method: "POST", body, redirect: "manual" })).status;
    };
    const [{ before } = { before: 0 }] = await sql<{ before: number }[]>`
      select count(*)::int as before from flowledger.executions`;
    const statuses = [await send(900), await send(1001)];
    const [found] = await sql<{ purchases: number; executions: number }[]>`
      select (select count(*)::int from purchases) as purchases, count(*)::int as executions from flowledger.executions`;
    const seen = JSON.stringify({ statuses, ...found });
    const expected = JSON.stringify({ statuses: [303, 500], purchases: 1, executions: before + 1 });
    if (seen !== expected) throw new Error(`the server action: ${seen}, not ${expected}\n${host.output}`);
  } finally {
    await sql.end();
  }
}

/**
 * Ten edits under `next dev`: each is what runs next, an execution that sleeps meanwhile goes on with the last one, and there are
 * no more connections than after the first.
 */
export async function edit(home: string, options: string, url: string): Promise<void> {
  const file = join(home, "lib/order.ts");
  const source = readFileSync(file, "utf8");
  const write = (version: number) =>
    writeFileSync(
      file,
      source.replace(
        /^order\n[^]*?;$/m,
        `order
  .to("sleep", (ctx) => ctx.sleep(ctx.input.amount === 1 ? "${sleepSeconds}s" : "1ms"))
  .to("charge", (ctx) => ctx.setState("charged", ${version}));`,
      ),
    );
  write(0);
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  const port = await freePort();
  const host = new Host(home, `next dev -p ${port} ${options}`, { DATABASE_URL: url }, port);
  const run = async (amount: number) => (await host.ask<{ id: string }>("POST", "/orders", { amount })).id;
  const closes = (id: string, version: number) =>
    host.until(`/orders/${id}`, { status: "completed", state: { charged: version } });
  const connections = async () =>
    (await sql`select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`).length;
  /** Once the pools have opened as many as they may. */
  const most = async () => {
    const burst = await Promise.all(Array.from({ length: 30 }, () => run(900)));
    for (const id of burst) await host.untilStatus(`/orders/${id}`, "completed");
    return settled(connections);
  };
  try {
    await closes(await run(900), 0);
    let [sleeping, afterOne] = ["", 0];
    for (let version = 1; version <= edits; version++) {
      if (version === sleepsFrom) sleeping = await run(1);
      write(version);
      await untilRuns(version, run, host);
      if (version === 1) afterOne = await most();
    }
    await closes(sleeping, edits);
    const afterAll = await most();
    if (afterAll > afterOne)
      throw new Error(`${edits} edits leave ${afterAll} connections, one leaves ${afterOne}\n${host.output}`);
    const workers = await sql`select 1 from flowledger.workers`;
    if (workers.length !== 1) throw new Error(`${edits} edits leave ${workers.length} workers\n${host.output}`);
  } finally {
    await host.kill("SIGTERM");
    await sql.end();
  }
}

async function untilRuns(version: number, run: (amount: number) => Promise<string>, host: Host): Promise<void> {
  for (const until = performance.now() + settlesWithinMs; ; await delay(100)) {
    const id = await run(900);
    const seen = await host.untilStatus(`/orders/${id}`, "completed");
    if (seen["charged"] === version) return;
    if (performance.now() > until)
      throw new Error(`after edit ${version} it still runs ${JSON.stringify(seen)}\n${host.output}`);
  }
}

/** The same number, five times in a row. */
async function settled(count: () => Promise<number>): Promise<number> {
  const seen: number[] = [];
  for (const until = performance.now() + settlesWithinMs; performance.now() < until; await delay(600)) {
    seen.push(await count());
    const last = seen.slice(-5);
    if (last.length === 5 && new Set(last).size === 1) break;
  }
  return seen.at(-1) ?? 0;
}
