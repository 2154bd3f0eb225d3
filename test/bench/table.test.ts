/** The tables of the benchmarks: their arithmetic, and how they are printed. */
import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { cpuOfServer } from "../../bench/cpu.ts";
import { read } from "../../bench/options.ts";
import { print, quantile, Sheet, type Row } from "../../bench/table.ts";

const rate: Row = { name: "5 steps", unit: "executions/s", shows: "median" };
const latency: Row = { name: "start → result", unit: "ms", shows: "p50/p95" };
const kill: Row = { name: "kill -9", unit: "s", shows: "median", atMost: 180 };

test.each([
  [[], 0.5, null],
  [[7], 0.95, 7],
  [[3, 1, 2], 0.5, 2],
  [[4, 1, 3, 2], 0.5, 2.5],
  [Array.from({ length: 101 }, (_, n) => n), 0.95, 95],
  [[Infinity, Infinity, 1], 0.5, Infinity],
])("the quantile of %j at %d is %d", (values, share, expected) => {
  expect(quantile(values, share)).toBe(expected);
});

test("a figure is the median of the rounds, a latency the quantiles of all samples", () => {
  const sheet = new Sheet();
  for (const [round, value] of [100, 300, 200].entries()) sheet.add(rate, "ours", round, [value]);
  sheet.add(latency, "ours", 0, [1, 2]);
  sheet.add(latency, "ours", 1, [3, 4, 5]);

  expect(sheet.value(rate, "ours")).toBe(200);
  expect([sheet.value(latency, "ours"), sheet.value(latency, "ours", 1)]).toEqual([3, 5]);
  expect(sheet.value(rate, "theirs")).toBeNull();
});

test("a ratio is that of the same round: a round in which all are slow changes none", () => {
  const sheet = new Sheet();
  const rounds = [
    [1000, 100],
    [50, 5],
    [2000, 200],
  ] as const;
  for (const [round, [ours, theirs]] of rounds.entries()) {
    sheet.add(rate, "ours", round, [ours]);
    // The last round of theirs is missing.
    if (round < 2) sheet.add(rate, "theirs", round, [theirs]);
  }

  expect(sheet.ratio(rate, "ours", { column: "theirs" })).toBe(10);
  expect(sheet.ratio(rate, "ours", { column: "nobody's" })).toBeNull();
  expect(sheet.ratio(rate, "ours", { row: latency, column: "ours" })).toBeNull();
});

test("the table has a line for what was measured, a dash for what an engine cannot do, and says what took too long", () => {
  const sheet = new Sheet();
  sheet.add(rate, "ours", 0, [2060.4]);
  sheet.add(rate, "theirs", 0, [24.55]);
  sheet.add(latency, "ours", 0, [4.641, 6.8]);
  sheet.add(kill, "ours", 0, [1.02]);
  sheet.add(kill, "theirs", 0, [Infinity]);
  const unmeasured: Row = { name: "1 step", unit: "executions/s", shows: "median" };

  const printed = print(sheet.table("a title", [unmeasured, rate, latency, kill], ["ours", "theirs"]));

  expect(printed).toBe(
    [
      "a title",
      "",
      "|                              |        ours | theirs |",
      "| ---------------------------- | ----------: | -----: |",
      "| 5 steps, executions/s        |       2,060 |   24.6 |",
      "| start → result, ms p50 / p95 | 5.72 / 6.69 |      – |",
      "| kill -9, s                   |        1.02 |  > 180 |",
    ].join("\n"),
  );
});

test("the table of ratios leaves out what nobody else has", () => {
  const sheet = new Sheet();
  sheet.add(rate, "ours", 0, [2000]);
  sheet.add(rate, "theirs", 0, [250]);
  sheet.add(latency, "ours", 0, [4]);

  expect(sheet.ratios("to", [rate, latency], "ours", ["theirs", "none's"]).rows).toEqual([
    { name: "5 steps", cells: ["8 ×", "–"] },
  ]);
});

test.runIf(process.platform === "linux")(
  "the CPU of a server is that of its processes, those that have ended too",
  async () => {
    const work = "const until = process.cpuUsage().user + 100_000; while (process.cpuUsage().user < until);";
    const before = (await cpuOfServer(process.pid)) ?? NaN;
    const own = process.cpuUsage();

    execFileSync(process.execPath, ["-e", work]);

    const { user, system } = process.cpuUsage(own);
    const after = (await cpuOfServer(process.pid)) ?? NaN;
    expect(after - before).toBeGreaterThan(90);
    expect(after - before).toBeGreaterThan((user + system) / 1000 + 80);
    expect(await cpuOfServer(null)).toBeNull();
  },
);

describe("the command line", () => {
  const names = ["peers", "apart", "floor"];

  test("says what is measured, and how much", () => {
    const argv = ["floor", "peers", "--rounds", "3", "--seconds", "0.5", "--engines", "dbos,flowledger,dbos", "--json"];

    expect(read(argv, names)).toEqual({
      asked: ["floor", "peers"],
      isJson: true,
      size: { rounds: 3, seconds: 0.5, engines: ["flowledger", "dbos"], newest: false },
    });
    expect(read([], names).size).toEqual({ rounds: 5, seconds: 2, engines: null, newest: false });
  });

  test.each([
    [["peer"], "no such benchmark: peer; there are peers, apart, floor"],
    [["peers", "--rounds", "0"], "--rounds 0: give a number from 1 to 100"],
    [["peers", "--rounds", "1.5"], "--rounds 1.5: give a whole number"],
    [["peers", "--seconds", "long"], "--seconds long: give a number from 0.05 to 600"],
    [["peers", "--seconds", ""], "--seconds : give a number"],
    [["peers", "--engines", "temporal"], "--engines temporal: there are flowledger, dbos"],
    [["floor", "--rounds", "3"], "--rounds and --seconds are for peers and apart"],
    [["apart", "--newest"], "--engines and --newest are for peers"],
    [["peers", "--round", "3"], "--round"],
  ])("refuses %j", (argv, message) => {
    expect(() => read(argv, names)).toThrow(message);
  });
});
