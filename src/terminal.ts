/** What the commands share: where they write, how a table looks, how a module is loaded. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type pc from "picocolors";
import { UsageError } from "./base/errors.ts";

/** Where a command writes: for a person at a terminal, for a pipe, or for a program. */
export interface Terminal {
  readonly isJson: boolean;
  readonly isInteractive: boolean;
  readonly paint: ReturnType<typeof pc.createColors>;
  line(text?: string): void;
  json(value: unknown): void;
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
  return typeof value === "string" ? value : JSON.stringify(value);
}
