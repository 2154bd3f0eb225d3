/** Values on their way out: what `redact` says in their place, and a piece of what is long. */
import { isObject, type Json, type JsonObject } from "../base/json.ts";
import type { Redact, RedactContext } from "./options.ts";
import type { Shown } from "./api.ts";

export interface Showing {
  /** A value as a page gets it. @param load where the whole of it is */
  show(value: Json, of: Omit<RedactContext, "path">, load?: string | null): Shown;
  /** The whole of it. */
  whole(value: Json, of: Omit<RedactContext, "path">): Json;
  /** A text that a person reads. */
  text(value: string, of: Omit<RedactContext, "path">): string;
}

const failed = "(not shown: redact() failed)";

/** @param previewBytes longer ones are cut */
export function showingOf(redact: Redact | null, previewBytes: number): Showing {
  const whole = (value: Json, of: Omit<RedactContext, "path">): Json =>
    redact === null ? value : redacted(redact, value, { ...of, path: [] });
  return {
    whole,
    show(value, of, load = null) {
      const json = whole(value, of);
      const text = JSON.stringify(json);
      if (text.length <= previewBytes) return { json };
      return { preview: text.slice(0, previewBytes).toWellFormed(), bytes: Buffer.byteLength(text), load };
    },
    text(value, of) {
      const shown = whole(value, of);
      return typeof shown === "string" ? shown : JSON.stringify(shown);
    },
  };
}

/** From the outside in: what is replaced is not looked into. A rule that fails shows nothing. */
function redacted(redact: Redact, value: Json, context: RedactContext): Json {
  let given: unknown;
  try {
    given = redact(value, context);
  } catch {
    return failed;
  }
  if (given !== value) return plain(given);
  if (Array.isArray(value))
    return value.map((item, index) => redacted(redact, item, { ...context, path: [...context.path, index] }));
  if (!isObject(value)) return value;
  const result: JsonObject = {};
  for (const [key, item] of Object.entries(value))
    result[key] = redacted(redact, item, { ...context, path: [...context.path, key] });
  return result;
}

function plain(given: unknown): Json {
  try {
    return (JSON.parse(JSON.stringify(given) ?? "null") as Json) ?? null;
  } catch {
    return failed;
  }
}
