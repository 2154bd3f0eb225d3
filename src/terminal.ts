/** What the commands share: where they write, how a table looks, how a module is loaded. */
import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import pc from "picocolors";
import { UsageError } from "./base/errors.ts";

/** Where a command writes: for a person at a terminal, for a pipe, or for a program. */
export interface Terminal {
  readonly isJson: boolean;
  readonly isInteractive: boolean;
  readonly paint: ReturnType<typeof pc.createColors>;
  line(text?: string): void;
  json(value: unknown): void;
}

// Control characters but tab and line feed, and what changes the direction of others or has no width.
// oxlint-disable-next-line no-control-regex
const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Stored text as it may be written to a terminal: what would move its cursor, or change what else is there, is shown as what it is. */
export function visible(text: string): string {
  return text.replace(hidden, escapeOf);
}

function escapeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Writes to the standard output. Colours are the only control characters that get there, and only from `paint`. */
export function openTerminal({ isJson, isColored }: { isJson: boolean; isColored: boolean }): Terminal {
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
    isInteractive: process.stdout.isTTY && !isJson,
    paint,
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

export function printTable(out: Terminal, heads: readonly string[], rows: readonly (readonly string[])[]): void {
  rows = rows.map((row) => row.map((cell) => visible(cell).replaceAll(/[\t\n]/g, escapeOf)));
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const format = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  out.line(out.paint.dim(format(heads)));
  for (const row of rows) out.line(format(row));
}

function inline(value: unknown): string {
  if (value instanceof Date) return value.toISOString();
  return typeof value === "string" ? value.replaceAll(/[\t\n]/g, escapeOf) : JSON.stringify(value);
}
