/** What a schema gives is stored as JSON: a type that JSON cannot hold is found when the flow is defined, and not in its first run. */
import type { z } from "zod";

type Schema = z.core.$ZodType;

/** By zod's name; what to use in the place of each. */
const strangers: Readonly<Record<string, string>> = {
  date: "z.iso.datetime()",
  map: "z.record()",
  set: "z.array()",
  bigint: "z.string()",
  symbol: "z.string()",
  function: "a resource",
  file: "a resource",
  promise: "what it resolves with",
};

/** Where in what it gives there is something that JSON cannot hold; null where there is nothing. */
export interface Stranger {
  /** "" is the whole. */
  readonly path: string;
  readonly type: string;
  readonly instead: string;
}

/** Of a pipe only its end counts: a codec or a transform may well begin with a Date. */
export function strangerIn(schema: Schema, path = "", seen = new Set<Schema>()): Stranger | null {
  if (seen.has(schema)) return null;
  seen.add(schema);
  const { def } = schema._zod;
  const instead = strangers[def.type];
  if (instead !== undefined) return { path, type: def.type, instead };
  for (const [key, part] of parts(def)) {
    const found = strangerIn(part, path === "" || key === "" ? path + key : `${path}.${key}`, seen);
    if (found) return found;
  }
  return null;
}

function parts(def: object): readonly (readonly [string, Schema])[] {
  try {
    return [...partsOf(def)];
  } catch {
    // A lazy schema may need a later declaration of its module: it is checked when a value comes in.
    return [];
  }
}

/** The schemas that it is made of, by the key that leads to them. */
function* partsOf(def: object): Iterable<readonly [string, Schema]> {
  for (const [name, value] of Object.entries(def) as [string, unknown][]) {
    if (name === "in" || name === "keyType") continue;
    if (name === "shape" && typeof value === "object" && value !== null) {
      for (const [key, part] of Object.entries(value)) if (isSchema(part)) yield [key, part];
    } else if (name === "getter" && typeof value === "function") {
      const part: unknown = value();
      if (isSchema(part)) yield ["", part];
    } else if (Array.isArray(value)) {
      for (const [index, part] of value.entries()) if (isSchema(part)) yield [name === "items" ? `${index}` : "", part];
    } else if (isSchema(value)) yield ["", value];
  }
}

export function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && "_zod" in value;
}
