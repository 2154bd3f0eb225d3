/** `crashEverywhere({ process: true })`: real processes, killed with SIGKILL. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { CrashFoundError } from "../../src/test.ts";
import { kit } from "../support/kit.ts";
import { careful, careless, mocked, mocks } from "./kit-flows.ts";

const minutes = 60_000;
let folder: string;
let file: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "flowledger-kit-"));
  file = join(folder, "outside");
  process.env["OUTSIDE"] = file;
});

afterAll(() => {
  delete process.env["OUTSIDE"];
  rmSync(folder, { recursive: true });
});

const reset = () => writeFileSync(file, "");
/** What processes wrote, without the keys; each key once. */
const seen = () =>
  [...new Set(readFileSync(file, "utf8").split("\n").filter(Boolean))].map((line) => line.split(" ")[0]);

test("a flow that is right survives the death of its process at each commit", { timeout: 3 * minutes }, async () => {
  await using t = await kit({ flows: [careful] });
  const pids = new Set<string>();

  const boundaries = await t.crashEverywhere(
    careful,
    null,
    async (run, { effects, calls }) => {
      await run.answer("ask", true);
      await run.until("closed");
      expect(["bank", "mail"].map(effects)).toEqual([1, 1]);
      expect(calls("bank")).toBeLessThanOrEqual(2);
      expect(seen()).toEqual(["bank", "mail"]);
      for (const event of await run.history({ types: ["execution.claimed"] }))
        if ("worker" in event) pids.add(event.worker);
    },
    { process: true, reset },
  );

  expect(boundaries.length).toBeGreaterThanOrEqual(12);
  // Each victim was another worker.
  expect(pids.size).toBeGreaterThan(boundaries.length / 2);
});

test("a bug that only a crash shows is found, and its boundary named", { timeout: 2 * minutes }, async () => {
  await using t = await kit({ flows: [careless] });

  const found = t.crashEverywhere(careless, null, () => expect(seen()).toEqual(["charge"]), { process: true, reset });

  await expect(found).rejects.toThrow(CrashFoundError);
  await expect(found).rejects.toMatchObject({
    details: { boundary: expect.stringMatching(/^before commit 1 of \d+ \(/) },
  });
});

test(
  "mocks come from the module that the process imports, and the real handlers never run there",
  { timeout: 2 * minutes },
  async () => {
    const module = new URL("./kit-flows.ts", import.meta.url);
    await using t = await kit({ flows: [mocked], mocks });

    const closed = t.crashEverywhere(mocked, null, (run) => run.until("closed"), { process: module });

    await expect(closed).resolves.not.toEqual([]);
  },
);

test("what no other process can import is refused", { timeout: 2 * minutes }, async () => {
  const here = defineFlow("here");
  here.to("a", () => 1);
  await using t = await kit({ flows: [here, careful] });
  const elsewhere = new URL("./kit-flows.ts", import.meta.url);

  await expect(t.crashEverywhere(here, null, () => {}, { process: true })).rejects.toThrow(
    /flow "here" comes from cannot be imported by a process of its own|does not export flow "here"/,
  );
  await expect(t.crashEverywhere(here, null, () => {}, { process: elsewhere })).rejects.toThrow(
    'does not export flow "here": export it',
  );
});
