/** Values as columns: Postgres reads arrays far faster than it takes objects apart, so many rows travel as one array per column. */

type Value = string | number | boolean | Date | null | undefined;

/** An array literal, for `::text::type[]`. */
export function list(values: readonly Value[]): string {
  return `{${values.map(element).join(",")}}`;
}

/** A column of values that need no quotes: numbers, ids. */
export function plainColumn<T>(rows: readonly T[], valueOf: (row: T) => number | string): string {
  return `{${rows.map(valueOf).join(",")}}`;
}

/**
 * A column of a list of rows. One that holds nothing at all is empty: beside the others `unnest` makes it as long as they are, and
 * most columns of most statements travel for nothing.
 */
export function column<T>(rows: readonly T[], valueOf: (row: T) => Value): string {
  return rows.some((row) => (valueOf(row) ?? null) !== null)
    ? `{${rows.map((row) => element(valueOf(row))).join(",")}}`
    : "{}";
}

/** A column of yes and no, empty where all say no. */
export function flags<T>(rows: readonly T[], isSet: (row: T) => boolean): string {
  return rows.some(isSet) ? `{${rows.map((row) => (isSet(row) ? "t" : "f")).join(",")}}` : "{}";
}

/** JSON values as they are: a JSON array, for `::text::jsonb`. Undefined becomes null. */
export function jsonList(values: readonly unknown[]): string {
  return `[${values.map((value) => JSON.stringify(value) ?? "null").join(",")}]`;
}

/** A column of JSON values: a JSON array, for `::text::jsonb`; empty as with `column`. */
export function jsonColumn<T>(rows: readonly T[], valueOf: (row: T) => unknown): string {
  return rows.some((row) => (valueOf(row) ?? null) !== null) ? jsonList(rows.map(valueOf)) : "[]";
}

/** The same of what is JSON text already. */
export function jsonTexts<T>(rows: readonly T[], textOf: (row: T) => string | undefined): string {
  return rows.some((row) => textOf(row) !== undefined)
    ? `[${rows.map((row) => textOf(row) ?? "null").join(",")}]`
    : "[]";
}

/** One element of an array literal. */
export function element(value: Value): string {
  if (typeof value === "string") {
    // An unquoted null in any spelling is none.
    const isWord = plain.test(value) && (value.length !== 4 || value.toLowerCase() !== "null");
    return isWord ? value : quoted(value);
  }
  if (value === null || value === undefined) return "null";
  return value instanceof Date ? quoted(value.toISOString()) : String(value);
}

const plain = /^[A-Za-z0-9_][A-Za-z0-9_.:-]*$/;

function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

/** A statement whose values stand where its text has a question mark, as a template would have it. */
export function statement(text: string): TemplateStringsArray {
  const parts = text.split("?");
  return Object.assign(parts, { raw: parts });
}
