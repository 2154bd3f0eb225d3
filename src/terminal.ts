/** What the commands share: where they write, how a table looks, how a module is loaded. */
import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { stripVTControlCharacters } from "node:util";
import pc from "picocolors";
import { UsageError } from "./base/errors.ts";
import { systemTimers } from "./base/timers.ts";
import { escapeOf, visible } from "./base/visible.ts";

/** Where a command writes: for a person at a terminal, for a pipe, or for a program. */
export interface Terminal {
  readonly isJson: boolean;
  readonly isInteractive: boolean;
  /** Columns of the screen; null where nobody cuts lines. */
  readonly width: number | null;
  readonly paint: ReturnType<typeof pc.createColors>;
  /** What is seen of a painted text. */
  plain(text: string): string;
  line(text?: string): void;
  json(value: unknown): void;
}

/** Writes to the standard output. Colours are the only control characters that get there, and only from `paint`. */
export function openTerminal({ isJson, isColored }: { isJson: boolean; isColored: boolean }): Terminal {
  const isInteractive = process.stdout.isTTY && !isJson;
  const colors = pc.createColors(isColored);
  // Nobody who wrote into the database knows the mark that stands for an escape until the line is written.
  const mark = `<${randomUUID()}>`;
  const paint = Object.fromEntries(
    Object.entries(colors).map(([name, color]) => [
      name,
      typeof color === "function" ? (text: string) => color(visible(text)).replaceAll("\u001b", mark) : color,
    ]),
  ) as unknown as typeof colors;
  return {
    isJson,
    isInteractive,
    width: isInteractive ? process.stdout.columns || null : null,
    paint,
    plain: (text) => stripVTControlCharacters(text.replaceAll(mark, "\u001b")),
    line: (text = "") => void process.stdout.write(`${visible(text).replaceAll(mark, "\u001b")}\n`),
    // In JSON the escape means the same character.
    json: (value) => void process.stdout.write(`${visible(JSON.stringify(value))}\n`),
  };
}

/** Where `dev` and `demo --keep` have their data. */
export const devFolder = ".flowledger";

/** @throws {UsageError} when there is no such file; what the module itself throws passes */
export async function importModule(path: string): Promise<Readonly<Record<string, unknown>>> {
  const url = pathToFileURL(resolve(path)).href;
  try {
    return (await import(url)) as Readonly<Record<string, unknown>>;
  } catch (error) {
    const isMissing = error instanceof Error && "url" in error && error.url === url;
    if (!isMissing) throw error;
    throw new UsageError(`there is no module ${path}`, "give the path of a .js or .ts file", { path }, error);
  }
}

export function printFields(out: Terminal, title: string, fields: object): void {
  out.line(out.paint.bold(title));
  const width = Math.max(...Object.keys(fields).map((key) => key.length));
  for (const [key, value] of Object.entries(fields)) out.line(`${out.paint.dim(key.padEnd(width))}  ${inline(value)}`);
}

/** What the last column needs to be worth its place in the line. */
const leastOfLast = 24;

/** No line is wider than the screen. What does not fit beside what is before it stands below, indented; of the last column, which says most, a part fits. */
export function printTable(out: Terminal, heads: readonly string[], rows: readonly (readonly string[])[]): void {
  const shown = rows.map((row) => row.map((cell) => visible(cell).replaceAll(/[\t\n]/g, escapeOf)));
  const lengthIn = (cell: string | undefined) => out.plain(cell ?? "").length;
  const widths = heads.map((head, column) => Math.max(head.length, ...shown.map((row) => lengthIn(row[column]))));
  const last = heads.length - 1;
  const ofLast = Math.max(0, ...shown.map((row) => lengthIn(row[last])));
  const lines: number[][] = [];
  let used = Infinity;
  for (const [column, width] of widths.entries()) {
    const needed = column === last ? Math.min(ofLast, leastOfLast) : width;
    if (column === 0 || (out.width !== null && used + needed > out.width)) {
      lines.push([]);
      used = column === 0 ? 0 : gap;
    }
    lines.at(-1)?.push(column);
    used += width + gap;
  }
  const print = (row: readonly string[], paint: (line: string) => string = (line) => line) => {
    for (const [nth, columns] of lines.entries()) {
      const indent = nth === 0 ? 0 : gap;
      const cells = columns.map((column) => ({ cell: row[column] ?? "", width: widths[column] ?? 0 }));
      const line = lineOf(out, cells, (out.width ?? Infinity) - indent);
      if (nth === 0 || line !== "") out.line(" ".repeat(indent) + paint(line));
    }
  };
  // The last column says what it is where it stands alone.
  print(lines.at(-1)?.[0] === last && last > 0 ? heads.slice(0, last) : heads, out.paint.dim);
  for (const row of shown) print(row);
}

/** Between columns. */
const gap = 2;

/** No longer than `most`; a cell that is cut has no colour, whose end would be lost. */
function lineOf(
  out: Terminal,
  cells: readonly { readonly cell: string; readonly width: number }[],
  most: number,
): string {
  let [line, used] = ["", 0];
  for (const { cell, width } of cells) {
    const text = out.plain(cell);
    const left = most - used;
    if (left <= 0) break;
    if (text.length > left) return line + fit(text, left);
    const padding = " ".repeat(width - text.length + gap);
    line += cell + padding;
    used += text.length + padding.length;
  }
  return line.trimEnd();
}

export function fit(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

export function paintStatus({ paint }: Terminal, status: string): string {
  if (status === "failed" || status === "parked") return paint.red(status);
  if (status === "completed") return paint.green(status);
  return status === "waiting" ? paint.yellow(status) : status;
}

/** How long ago, in one unit. */
export function ageOf(date: Date): string {
  return `${lengthOf(date, null)} ago`;
}

/** How long it took, or takes until now. */
export function lengthOf(from: Date, to: Date | null): string {
  const ms = Math.max(0, (to?.getTime() ?? systemTimers.now()) - from.getTime());
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  return ms < 86_400_000 * 2 ? `${Math.round(ms / 3_600_000)} h` : `${Math.round(ms / 86_400_000)} d`;
}

function inline(value: unknown): string {
  if (value instanceof Date) return value.toISOString();
  return typeof value === "string" ? value.replaceAll(/[\t\n]/g, escapeOf) : JSON.stringify(value);
}
