/** The command line of `npm run bench`. */
import { parseArgs } from "node:util";
import { engines } from "./peers/engine.ts";
import type { EngineName } from "./peers/engine.ts";
import type { Size } from "./server.ts";

/** Those that go in rounds. */
const inRounds = ["peers", "apart"];

/** Says what is wrong and exits with 2. */
export function options(argv: string[], names: readonly string[]) {
  try {
    return read(argv, names);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(2);
  }
}

/** Which benchmarks were asked for (none: all), how much of them, and whether as JSON. */
export function read(
  argv: string[],
  names: readonly string[],
): { readonly asked: readonly string[]; readonly isJson: boolean; readonly size: Size } {
  const { values, positionals: asked } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: {
      json: { type: "boolean", default: false },
      newest: { type: "boolean", default: false },
      rounds: { type: "string" },
      seconds: { type: "string" },
      engines: { type: "string" },
    },
  });
  const unknown = asked.filter((name) => !names.includes(name));
  if (unknown.length > 0) throw new Error(`no such benchmark: ${unknown.join(", ")}; there are ${names.join(", ")}`);
  const sizes = values.rounds !== undefined || values.seconds !== undefined;
  if (sizes && asked.length > 0 && !asked.some((name) => inRounds.includes(name)))
    throw new Error(`--rounds and --seconds are for ${inRounds.join(" and ")}`);
  if ((values.newest || values.engines !== undefined) && !asked.includes("peers"))
    throw new Error("--engines and --newest are for peers: name it");
  const chosen = values.engines?.split(",").map(engine);
  const size = {
    rounds: number("--rounds", values.rounds ?? "5", 1, 100),
    seconds: number("--seconds", values.seconds ?? "2", 0.05, 600),
    engines: chosen ? engines.filter((name) => chosen.includes(name)) : null,
    newest: values.newest,
  };
  if (!Number.isInteger(size.rounds)) throw new Error(`--rounds ${size.rounds}: give a whole number`);
  return { asked, isJson: values.json, size };
}

function number(option: string, text: string, least: number, most: number): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (!(value >= least && value <= most)) throw new Error(`${option} ${text}: give a number from ${least} to ${most}`);
  return value;
}

function engine(text: string): EngineName {
  const found = engines.find((name) => name === text);
  if (!found) throw new Error(`--engines ${text}: there are ${engines.join(", ")}`);
  return found;
}
