/** Every argument and option of every command of `npx flowledger`: what it takes it means, and all else is refused as a wrong command line before anything is written. */
import type { Command } from "commander";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { newProgram } from "../../src/cli/main.ts";
import { isUsage, sentenceOf } from "../../src/cli/sentences.ts";
import { createOrchestrator, defineFlow, FlowledgerError } from "../../src/index.ts";
import type { Logger } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { commandRows, type CommandRow, type Word } from "./options/cli.ts";

const database = await testDatabase();
const { sql } = database;
const quiet: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const flow = defineFlow("matrix.cli");
flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
const orchestrator = createOrchestrator({ connection: database.url, flows: [flow], logger: quiet });
afterAll(() => orchestrator.close());

const lab: Record<string, string> = {};

beforeAll(async () => {
  {
    await using asking = createOrchestrator({ connection: database.url, flows: [flow], logger: quiet });
    await asking.startWorker({ drainTimeout: "100ms" });
    const bound = asking.flow(flow);
    const [one, other] = await Promise.all([
      bound.startExecution(null, { interventionMode: "auto", autoClose: false }),
      bound.startExecution(null, { autoClose: false }),
    ]);
    await Promise.all([untilPending(one), untilPending(other)]);
    [lab["asking"], lab["operated"]] = [one.id, other.id];
  }
  const [spare, closed] = [
    await orchestrator.flow(flow).createExecution(),
    await orchestrator.flow(flow).createExecution(),
  ];
  await closed.cancel();
  [lab["spare"], lab["closed"]] = [spare.id, closed.id];
  vi.stubEnv("DATABASE_URL", database.url);
  vi.stubEnv("FLOWLEDGER_SCHEMA", undefined);
  for (const stream of [process.stdout, process.stderr]) vi.spyOn(stream, "write").mockReturnValue(true);
});
afterEach(() => {
  process.exitCode = undefined;
});
afterAll(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

const odd: Readonly<Record<string, string>> = {
  "an empty text": "",
  "a text": "text",
  "a name of the library's own": "timer",
  "a long text": "x".repeat(1_100_000),
  "a text with NUL": "a\0b",
  "half an emoji": "a\ud83d",
  __proto__: "__proto__",
  constructor: "constructor",
  "-1": "-1",
  "0": "0",
  "1": "1",
  "0.5": "0.5",
  NaN: "NaN",
  Infinity: "Infinity",
  "beyond 2^53": "9007199254740994",
  "1e400": "1e400",
  null: "null",
  "an empty object": "{}",
  "an object": '{"a": 1}',
  "a key __proto__": '{"__proto__": {"a": 1}}',
  "a constructor with a prototype": '{"constructor": {"prototype": 1}}',
  "an object with half an emoji": '{"a": "\\ud83d"}',
  "a deep list": `${"[".repeat(300)}${"]".repeat(300)}`,
  "a list": "[1]",
  "a date before 1970": "1969-12-31",
  "a day that there is not": "2026-02-30",
  "a date": "2026-01-01",
  "a date after 9999": "+275760-09-13",
};

test("every command has a row, with each of its arguments and options, and every row a command", () => {
  const placesOf = (one: Command) => [
    one.name(),
    ...one.registeredArguments.map((argument) => argument.name()),
    ...one.options.map(({ long, required, optional }) => `${long}${required || optional ? " <value>" : ""}`).toSorted(),
  ];
  const surface = newProgram().commands.map((one) => placesOf(one).join(" "));
  const rows = commandRows.map(({ name, args = {}, options = {} }) => {
    const named = Object.entries(options).map(([long, word]) => `${long}${word ? " <value>" : ""}`);
    return [name, ...Object.keys(args), ...named.toSorted()].join(" ");
  });

  expect(surface.toSorted()).toEqual(rows.toSorted());
});

test.each(commandRows)("$name takes what it says, and refuses all else before anything is written", async (row) => {
  const flaws: string[] = [];
  const places = placesOf(row);
  const before = await rowsOf();
  for (const { where, word, line } of places)
    await eachOf(word, false, async (what, value) => {
      const { error, words } = await outcomeOf(line(value));
      const isRefused =
        isUsage(error) ||
        (error instanceof FlowledgerError && /NOT_FOUND|NOT_PENDING|PAYLOAD_UNSTORABLE/.test(error.code));
      if (!isRefused || notNow.test(words)) flaws.push(`${row.name} ${where} with ${what} is not refused: ${words}`);
    });
  for (const wrong of ["--misspelt", "--misspelt=1"]) {
    const { error } = await outcomeOf([row.name, wrong]);
    if (!isUsage(error)) flaws.push(`${row.name} ${wrong} is not refused`);
  }
  const after = await rowsOf();
  if (after !== before) flaws.push(`${row.name} wrote before it refused: ${before} → ${after}`);
  for (const { where, word, line } of row.isOnlyRefused ? [] : places)
    await eachOf(word, true, async (what, value) => {
      const { error, words } = await outcomeOf(line(value));
      const isTaken =
        error === null ||
        (error instanceof FlowledgerError &&
          error.code !== "DATABASE_REFUSED" &&
          (!isUsage(error) || notNow.test(words)));
      if (!isTaken) flaws.push(`${row.name} ${where} with ${what} is not taken: ${words}`);
    });

  expect(flaws).toEqual([]);
});

/** What an execution is not ready for, whatever the value. */
const notNow =
  /has no parked chunk|has nothing to skip|is not paused|has gone on since|is taken|has no event|beyond the end of the stream|was used with another|answers are kept/;

interface Place {
  readonly where: string;
  readonly word: Word;
  readonly line: (value: string) => readonly string[];
}

/** Every place of a command, with what is right at all others. */
function placesOf({ name, args = {}, options = {}, with: given = [] }: CommandRow): Place[] {
  const samples = Object.values(args).map(({ sample }) => sample);
  const needed = (long: string) => given.filter((one) => !one.startsWith(`${long}=`));
  return [
    ...Object.entries(args).map(([where, word], index) => ({
      where,
      word,
      line: (value: string) => [name, ...given, "--", ...samples.with(index, value)],
    })),
    ...Object.entries(options).flatMap(([where, word]) =>
      word
        ? [
            {
              where,
              word,
              line: (value: string) => [
                name,
                ...alsoOf(name, where),
                ...needed(where),
                `${where}=${value}`,
                "--",
                ...samples,
              ],
            },
          ]
        : [
            {
              where,
              word: { sample: "", takes: (value: string) => value === "" },
              line: () => [name, ...given, where, "--", ...samples],
            },
          ],
    ),
  ].filter(({ where }) => !where.startsWith("--") || options[where] !== null);
}

/** What an option needs beside it. */
function alsoOf(name: string, option: string): readonly string[] {
  if (name === "prune" && option.startsWith("--keep")) return ["--closed-before=1990-01-01"];
  if (name === "prune" && option === "--actor") return ["--id=$closed", "--reason=r"];
  if (name === "prune" && option === "--reason") return ["--id=$closed", "--actor=a"];
  if (name === "prune" && option === "--id") return ["--actor=a", "--reason=r"];
  if (name === "worker" && option === "--metrics-host") return ["--metrics-port=0"];
  return [];
}

/** Every odd value, and what is right. */
async function eachOf(
  word: Word,
  isRight: boolean,
  tried: (what: string, value: string) => Promise<void>,
): Promise<void> {
  const values = [...Object.entries(odd), ["what is right", word.sample] as const].filter(
    ([, value]) => word.takes(value) === isRight && (word.takes(value) || !word.skips?.(value)),
  );
  // Four at once.
  const queue = values.values();
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      for (const [what, value] of queue) await tried(what, value);
    }),
  );
}

/** In this process, as `main` does it. */
async function outcomeOf(line: readonly string[]): Promise<{ error: unknown; words: string }> {
  const argv = line.map((word) =>
    word.replaceAll(/\$(asking|operated|spare|closed)\b/g, (_, what: string) => lab[what] ?? ""),
  );
  try {
    await newProgram().parseAsync(argv, { from: "user" });
    return { error: null, words: "it is taken" };
  } catch (error) {
    return { error, words: sentenceOf(error).slice(0, 250) };
  }
}

async function rowsOf(): Promise<string> {
  const [row] = await sql<[{ all: string }]>`
    select concat_ws(' ', (select count(*) from flowledger.executions), (select count(*) from flowledger.ledger),
      (select count(*) from flowledger.interventions), (select count(*) from flowledger.prunes), (select count(*) from flowledger.anchors)) as all`;
  return row.all;
}
