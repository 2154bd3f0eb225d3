/** `flowledger dev` over many edits of the module that it serves. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { cliPath } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import { untilEvent } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";

const library = resolve(import.meta.dirname, "../../src/index.ts");
const edits = 10;

/** What the module is worth at an edit. */
const moduleText = (version: number) => `
  import { defineFlow } from ${JSON.stringify(library)};
  const flow = defineFlow("edited");
  flow
    .to("ask", (ctx) => (ctx.input === "asks" ? ctx.pauseFor({ interruptId: "boss" }) : null))
    .to("doze", (ctx) => ctx.sleep("1s"))
    .to("say", (ctx) => ctx.setState("version", ${version}));
  export const flows = [flow];`;

test(
  "ten edits leave as many connections as one, and what slept meanwhile goes on with the last of them",
  { timeout: 120_000 },
  async () => {
    const database = await testDatabase();
    await using orchestrator = createOrchestrator({ connection: `${database.url}?application_name=client` });
    const folder = await mkdtemp(join(tmpdir(), "flowledger-edits-"));
    const module = join(folder, "flows.ts");
    await writeFile(module, moduleText(0));
    await using dev = await startProcess(cliPath, { args: ["dev", module], env: { DATABASE_URL: database.url } });
    const ready = (times: number) =>
      expect.poll(() => dev.output().match(/^ready worker/gm)?.length, { timeout: 30_000 }).toBe(times);
    const started = (input: string) =>
      orchestrator.flow(defineFlow("edited")).startExecution(input, { autoCloseTimeout: 0 });
    /** Those of `dev` and its worker, once that has opened as many as it may. */
    const connections = async () => {
      const burst = await Promise.all(Array.from({ length: 30 }, () => started("runs")));
      await Promise.all(burst.map((one) => one.waitForClose()));
      const found = await database.sql`
      select 1 from pg_stat_activity where datname = ${database.name} and application_name like 'flowledger%'`;
      return found.length;
    };
    await ready(1);
    const asking = await started("asks");
    await untilEvent(asking, "interrupt.raised");
    let afterOne = 0;

    for (let version = 1; version <= edits; version++) {
      // It sleeps over the last edit, and waits for an answer over the others.
      if (version === edits) {
        await asking.continueWith("boss", null);
        await untilEvent(asking, "sleep.started");
      }
      await writeFile(module, moduleText(version));
      await ready(version + 1);
      if (version === 1) afterOne = await connections();
    }

    expect(await asking.waitForClose()).toMatchObject({ version: edits });
    await expect.poll(connections, { timeout: 20_000 }).toBeLessThanOrEqual(afterOne);
    expect(await database.sql`select 1 from flowledger.workers`).toHaveLength(1);
    await rm(folder, { recursive: true });
  },
);
