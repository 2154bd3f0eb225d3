/** What differs between two values, by path: the shortest paths that say it. */
import type { Json } from "../../base/json.ts";

export interface Difference {
  readonly path: string;
  /** undefined: not there. */
  readonly before: Json | undefined;
  readonly after: Json | undefined;
}

/** More are not shown. */
const most = 500;

export function diffOf(before: Json, after: Json): Difference[] {
  const found: Difference[] = [];
  walk(before, after, "", found);
  return found;
}

function walk(before: Json | undefined, after: Json | undefined, path: string, found: Difference[]): void {
  if (found.length >= most || before === after) return;
  if (isBranch(before) && isBranch(after) && Array.isArray(before) === Array.isArray(after)) {
    const [a, b] = [new Map(Object.entries(before)), new Map(Object.entries(after))];
    for (const key of new Set([...a.keys(), ...b.keys()]))
      walk(a.get(key), b.get(key), path === "" ? key : `${path}.${key}`, found);
    return;
  }
  found.push({ path: path === "" ? "(all)" : path, before, after });
}

function isBranch(value: Json | undefined): value is Json[] | { [key: string]: Json } {
  return typeof value === "object" && value !== null;
}
