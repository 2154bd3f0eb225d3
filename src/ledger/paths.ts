/** Values by dot path. */
import { copyJson } from "./payload.ts";
import type { Json, JsonObject } from "./payload.ts";
import type { StateWrite } from "./state.ts";

/** The same writes again, in their order, on values that are handed over. */
export function repeatWrites(values: JsonObject, writes: readonly StateWrite[]): JsonObject {
  for (const { effect, key, value } of writes) {
    if (effect === "set") setPath(values, key, copyJson(value));
    else if (effect === "append") appendPath(values, key, copyJson(value));
    else deletePath(values, key);
  }
  return values;
}

/** Reads by dot path; undefined when a segment is missing or the walk meets something that is not an object. */
export function getPath(values: JsonObject, path: string): Json | undefined {
  if (Object.hasOwn(values, path)) return values[path];
  let here: Json | undefined = values;
  for (const segment of path.split(".")) {
    if (here === null || typeof here !== "object" || Array.isArray(here)) return undefined;
    if (!Object.hasOwn(here, segment)) return undefined;
    here = here[segment];
  }
  return here;
}

/** Writes by dot path, making objects on the way. The chunk's journal has refused paths through other values. */
export function setPath(values: JsonObject, path: string, value: Json): void {
  const segments = path.split(".");
  if (segments.includes("__proto__")) throw new Error(`path "${path}" names __proto__`);
  const last = segments.pop() ?? path;
  let here = values;
  for (const segment of segments) {
    const next = here[segment];
    if (next !== null && typeof next === "object" && !Array.isArray(next)) here = next;
    else here = here[segment] = {};
  }
  here[last] = value;
}

/** A missing list becomes `[value]`, a list grows, anything else becomes `[old, value]`. */
export function appendPath(values: JsonObject, path: string, value: Json): void {
  const old = getPath(values, path);
  if (Array.isArray(old)) old.push(value);
  else setPath(values, path, old === undefined ? [value] : [old, value]);
}

export function deletePath(values: JsonObject, path: string): void {
  const dot = path.lastIndexOf(".");
  const holder = dot < 0 ? values : getPath(values, path.slice(0, dot));
  if (holder !== null && typeof holder === "object" && !Array.isArray(holder)) delete holder[path.slice(dot + 1)];
}
