/** Values as columns: Postgres reads arrays far faster than it takes objects apart, so many rows travel as one array per column. */

type Value = string | number | boolean | Date | null | undefined;

/** An array literal, for `::text::type[]`. */
export function list(values: readonly Value[]): string {
  return `{${values.map(element).join(",")}}`;
}

/** A column of a list of rows. */
export function column<T>(rows: readonly T[], valueOf: (row: T) => Value): string {
  let text = "";
  for (const row of rows) text += text === "" ? element(valueOf(row)) : `,${element(valueOf(row))}`;
  return `{${text}}`;
}

/** A column of JSON values: a JSON array, for `::text::jsonb`. Undefined becomes null. */
export function jsonColumn<T>(rows: readonly T[], valueOf: (row: T) => unknown): string {
  let text = "";
  for (const row of rows) text += `${text === "" ? "" : ","}${JSON.stringify(valueOf(row)) ?? "null"}`;
  return `[${text}]`;
}

/** One element of an array literal. */
export function element(value: Value): string {
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return plain.test(value) && value.toLowerCase() !== "null" ? value : quoted(value);
  return value instanceof Date ? quoted(value.toISOString()) : String(value);
}

const plain = /^[A-Za-z0-9_][A-Za-z0-9_.:-]*$/;

function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}
