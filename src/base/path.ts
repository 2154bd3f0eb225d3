/** Values by dot path. */
import { isObject, type Json, type JsonObject } from "./json.ts";

/** Reads by dot path; undefined when a segment is missing or the walk meets something that is not an object. */
export function getPath(values: JsonObject, path: string): Json | undefined {
  if (Object.hasOwn(values, path)) return values[path];
  let here: Json | undefined = values;
  for (const segment of path.split(".")) {
    if (!isObject(here) || !Object.hasOwn(here, segment)) return undefined;
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
    if (isObject(next)) here = next;
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
  if (isObject(holder)) delete holder[path.slice(dot + 1)];
}
