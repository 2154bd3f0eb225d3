/** What is no id names no execution: every door that takes an id says so in the same way, as of one that nobody has. */
import type { Command } from "commander";
import { afterAll, expect, test } from "vitest";
import { newProgram } from "../../src/cli/main.ts";
import { isUsage } from "../../src/cli/sentences.ts";
import { openConsole } from "../../src/console.ts";
import { routes } from "../../src/console/routes.ts";
import * as defer from "../../src/defer.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, visiting } from "../support/flows.ts";

const database = await testDatabase();
const orchestrator = visiting(database);
defer.configure(orchestrator);
afterAll(() => orchestrator.close());

const wrongIds = [
  "nonsense",
  "",
  "refund-1",
  "0190a000-0000-7000-8000-00000000000",
  "0190a000-0000-7000-8000-000000000000",
];
const why = { actor: "ann", reason: "INC-1" };

// ── the library ─────────────────────────────────────────────────────────────────────────────────────────────

test.each([
  ["getExecution()", (id: string) => orchestrator.getExecution(id)],
  ["verify()", (id: string) => orchestrator.verify({ id })],
  ["rebuild()", (id: string) => orchestrator.rebuild({ id })],
  ["prune()", (id: string) => orchestrator.prune({ ids: [id], ...why })],
  ["getExecution() of functions", defer.getExecution],
  ["getExecutionResult()", defer.getExecutionResult],
  ["cancelExecution()", (id: string) => defer.cancelExecution(id)],
  ["rescheduleExecution()", (id: string) => defer.rescheduleExecution(id)],
  ["reRunExecution()", defer.reRunExecution],
  ["listExecutionAttempts()", (id: string) => defer.listExecutionAttempts(id)],
] as const)("%s", async (_, call) => {
  for (const id of [...wrongIds, 7 as unknown as string])
    expect([id, await refusal(call(id))]).toMatchObject([
      id,
      { code: "EXECUTION_NOT_FOUND", details: { executionId: String(id) } },
    ]);
});

// ── the command line ────────────────────────────────────────────────────────────────────────────────────────

const takesId = (command: Command) => command.registeredArguments.some((argument) => argument.name() === "id");
const idOption = (command: Command) => command.options.find(({ long }) => long === "--id");
const commands = newProgram().commands.filter((command) => takesId(command) || idOption(command));

test("the commands that take an id are known", () => {
  expect(commands.length).toBeGreaterThan(16);
});

test.each(commands.map((command) => [command.name(), command] as const))("flowledger %s", async (name, command) => {
  const values: Readonly<Record<string, string>> = { event: "Named", interrupt: "q", json: "null" };
  const wanted: Readonly<Record<string, string>> = { "--until": "2100-01-01T00:00:00Z", "--at": "1" };
  for (const id of wrongIds) {
    const rest = command.registeredArguments.map((argument) =>
      argument.name() === "id" ? id : (values[argument.name()] ?? "x"),
    );
    const flags = idOption(command) ? ["--id", id, "--actor", "ann", "--reason", "INC-1"] : [];
    for (const { long, mandatory } of command.options) if (mandatory && long) flags.push(long, wanted[long] ?? "x");

    const error = await refusal(
      newProgram().parseAsync(["--database", database.url, name, ...rest, ...flags], { from: "user" }),
    );

    expect([id, error]).toMatchObject([id, { code: "EXECUTION_NOT_FOUND", details: { executionId: id } }]);
    // It exits with 1, as the command line itself was understood.
    expect(isUsage(error)).toBe(false);
  }
});

// ── the console ─────────────────────────────────────────────────────────────────────────────────────────────

const ofOne = Object.keys(routes).filter((route) => route.includes(":id"));

test.each(ofOne)("the console's %s", async (route) => {
  await using opened = await openConsole(orchestrator);
  const { origin, hash } = new URL(opened.url);
  const [method = "", path = ""] = route.split(" ");
  for (const id of wrongIds.filter((one) => one !== "")) {
    const answer = await fetch(`${origin}/-/${path.replace(":id", id)}`, {
      method,
      headers: {
        authorization: `Bearer ${hash.slice(1)}`,
        "content-type": "application/json",
        "sec-fetch-site": "same-origin",
      },
      ...(method === "POST" && { body: "{}" }),
    });

    expect([id, answer.status, await answer.json()]).toMatchObject([id, 404, { code: "EXECUTION_NOT_FOUND" }]);
  }
});
