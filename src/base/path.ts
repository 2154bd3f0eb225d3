/** Values by dot path. The SQL of `migrations/functions/90_audit.sql` has the same rules. */
import { UsageError } from "./errors.ts";
import { show } from "./option.ts";
import { copyJson, isObject, maxDepth, type Json, type JsonObject } from "./json.ts";

const maxBytes = 2_000;

/**
 * The parts of a path that may be written to.
 *
 * @param what it is refused as @default "a path"
 * @throws {UsageError}
 */
export function pathOf(path: string, what = "a path"): string[] {
  const parts = typeof path === "string" ? path.split(".") : [];
  const isPath =
    parts.length > 0 &&
    parts.length <= maxDepth &&
    !parts.includes("") &&
    !parts.includes("__proto__") &&
    !path.includes("\0") &&
    path.isWellFormed() &&
    Buffer.byteLength(path) <= maxBytes;
  if (isPath) return parts;
  throw new UsageError(
    `${show(path)} is not ${what}`,
    `use "key" or a dot path like "key.part": up to ${maxDepth} parts, ${maxBytes} bytes, none of them empty or __proto__`,
  );
}

/**
 * Reads by dot path; undefined when a part is missing or the walk meets something that is not an object. A key that has the
 * whole path as its name is read before anything else.
 */
export function getPath(values: JsonObject, path: string): Json | undefined {
  return Object.hasOwn(values, path) ? values[path] : walk(values, path.split("."));
}

/** Writes by dot path, making objects on the way. The chunk's journal has refused paths through other values. */
export function setPath(values: JsonObject, path: string, value: Json): void {
  put(values, pathOf(path), value);
}

/** A missing list becomes `[value]`, a list grows, anything else becomes `[old, value]`. */
export function appendPath(values: JsonObject, path: string, value: Json): void {
  const parts = pathOf(path);
  const old = walk(values, parts);
  if (Array.isArray(old)) old.push(value);
  else put(values, parts, old === undefined ? [value] : [old, value]);
}

export function deletePath(values: JsonObject, path: string): void {
  const parts = pathOf(path);
  const last = parts.pop() ?? path;
  const holder = walk(values, parts);
  if (isObject(holder)) delete holder[last];
}

/** What a write found: a value that it replaced, a list of that length which it made longer, or that many parts of its path missing. */
export type Found = { readonly value: Json } | { readonly length: number } | { readonly missing: number };

/** What the next write of a path will find: by reference, as what is replaced is out of the values' reach from then on. */
export function foundAt(values: JsonObject, path: string, isAppend: boolean): Found {
  const parts = path.split(".");
  let here: Json | undefined = values;
  for (const [index, part] of parts.entries()) {
    if (!isObject(here) || !Object.hasOwn(here, part)) return { missing: parts.length - index };
    here = here[part];
  }
  return isAppend && Array.isArray(here) ? { length: here.length } : { value: here ?? null };
}

/** Undoes a write in place. Where others have written since, as far as there is something to undo. */
export function undoWrite(values: JsonObject, path: string, found: Found): void {
  const parts = path.split(".");
  if ("missing" in found) return deletePath(values, parts.slice(0, parts.length - found.missing + 1).join("."));
  if ("value" in found) return put(values, parts, copyJson(found.value));
  const list = walk(values, parts);
  if (Array.isArray(list)) list.length = Math.min(list.length, found.length);
}

function walk(values: JsonObject, parts: readonly string[]): Json | undefined {
  let here: Json | undefined = values;
  for (const part of parts) {
    if (!isObject(here) || !Object.hasOwn(here, part)) return undefined;
    here = here[part];
  }
  return here;
}

function put(values: JsonObject, parts: readonly string[], value: Json): void {
  let here = values;
  for (const part of parts.slice(0, -1)) {
    const next = here[part];
    if (isObject(next)) here = next;
    else here = here[part] = {};
  }
  here[parts.at(-1) ?? ""] = value;
}
