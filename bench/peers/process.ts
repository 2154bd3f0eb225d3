/** The process of one engine: `process.ts <engine> <database> <concurrency>`. It does what its parent asks, and ends with it. */
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { Load, sample } from "../timing.ts";
import { engines } from "./engine.ts";
import type { Engine, EngineName, Open } from "./engine.ts";
import type { Ask, Counted, Reply } from "./parent.ts";

const opens: Record<EngineName, () => Promise<{ open: Open }>> = {
  flowledger: () => import("./flowledger.ts"),
  dbos: () => import("./dbos.ts"),
  openworkflow: () => import("./openworkflow.ts"),
  absurd: () => import("./absurd.ts"),
  pgboss: () => import("./pgboss.ts"),
  graphile: () => import("./graphile.ts"),
};
const [, , asked = "", url = "", concurrency = ""] = process.argv;
const name = engines.find((engine) => engine === asked);
if (!name) throw new Error(`there is no engine ${asked}`);

const { open } = await opens[name]();
const engine = await open({ url, concurrency: Number(concurrency), running: () => void process.send?.("running") });
let load: Load | null = null;

process.on("message", (ask: Ask & { id: number }) => {
  const reply = (answer: Reply) => void process.send?.({ id: ask.id, ...answer });
  obey(ask).then(
    (value) => reply({ value }),
    (error: unknown) => reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
process.on("disconnect", () => process.exit());
process.send?.("ready");

async function obey(ask: Ask): Promise<number[] | Counted | null> {
  switch (ask.ask) {
    case "load":
      load = new Load(() => engine.run(ask.work), ask.inFlight * (1 + engine.queued));
      return null;
    case "count": {
      const { user, system } = process.cpuUsage();
      return { done: load?.done ?? 0, at: performance.now(), cpu: (user + system) / 1000 };
    }
    case "stop":
      await load?.stop();
      await untilAllEnded(engine);
      return null;
    case "result":
      return sample(ask.ms, () => Promise.resolve(() => engine.result()));
    case "answer":
      return engine.pause === null ? [] : sample(ask.ms, engine.pause);
    case "hold":
      await engine.hold();
      return null;
    case "close":
      await engine[Symbol.asyncDispose]();
      return null;
  }
}

/** That a function has ended does not say that its end is written. */
async function untilAllEnded(engine: Engine): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    const until = performance.now() + 60_000;
    for (;;) {
      const [row] = await sql.unsafe<[{ count: number }]>(engine.unfinished);
      if (row.count === 0) return;
      if (performance.now() > until)
        throw new Error(`${row.count} executions of ${name} have not ended within a minute`);
      await delay(20);
    }
  } finally {
    await sql.end();
  }
}
