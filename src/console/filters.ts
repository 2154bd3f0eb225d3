/** The query of an address as options of the library: the same names, and unknown ones refused. */
import { UsageError } from "../base/errors.ts";
import { isoMoment } from "../base/duration.ts";
import { isObject } from "../base/json.ts";
import { nearest, show } from "../base/option.ts";
import type { FailureOptions, ListOptions } from "../execution/list.ts";
import type { InboxOptions } from "../execution/inbox.ts";

/** Which values a name may have: one, several, or one of a kind. */
type Kind = "text" | "texts" | "date" | "count" | "flag" | "object";

const listed = {
  flow: "texts",
  status: "texts",
  version: "text",
  createdAfter: "date",
  createdBefore: "date",
  closedAfter: "date",
  closedBefore: "date",
  parent: "text",
  idPrefix: "text",
  idempotencyKey: "text",
  errorLike: "text",
  metadata: "object",
  redriven: "flag",
  order: "text",
  cursor: "text",
  limit: "count",
} as const satisfies Record<keyof ListOptions, Kind>;

/** `mine`: what asks the person or their groups. */
const asked = {
  for: "texts",
  mine: "flag",
  overdue: "flag",
  snoozed: "flag",
  flow: "text",
  type: "text",
  metadata: "object",
  cursor: "text",
  limit: "count",
} as const satisfies Record<keyof InboxOptions | "mine", Kind>;

const failed = { flow: "texts", lastAfter: "date", limit: "count" } as const satisfies Record<
  keyof FailureOptions,
  Kind
>;

export function listOptions(query: URLSearchParams): ListOptions {
  return optionsOf(query, listed);
}

export function inboxOptions(query: URLSearchParams): InboxOptions & { mine?: boolean } {
  return optionsOf(query, asked);
}

export function failureOptions(query: URLSearchParams): FailureOptions {
  return optionsOf(query, failed);
}

/** What each kind of text becomes is checked by whoever takes it. */
export function optionsOf<T extends object>(query: URLSearchParams, kinds: Readonly<Record<string, Kind>>): T {
  const options: Record<string, unknown> = {};
  for (const name of new Set(query.keys())) {
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
    if (kind === undefined) {
      const names = Object.keys(kinds);
      const meant = nearest(name, names);
      const hint = meant === undefined ? "" : ` (did you mean ${JSON.stringify(meant)}?)`;
      throw new UsageError(`there is no filter ${show(name)}`, `use ${names.join(", ") || "none"}${hint}`);
    }
    const values = query.getAll(name);
    if (kind !== "texts" && values.length > 1)
      throw new UsageError(`filter ${name} is there ${values.length} times`, "give it once");
    options[name] = kind === "texts" ? values : valueOf(name, kind, values[0] ?? "");
  }
  return options as T;
}

function valueOf(name: string, kind: Exclude<Kind, "texts">, text: string): unknown {
  if (kind === "date") return isoMoment(text) ?? text;
  if (kind === "count") return /^\d{1,9}$/.test(text) ? Number(text) : text;
  if (kind === "flag") return text === "true" || (text === "false" ? false : text);
  if (kind === "text") return text;
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // The error below says what was wrong.
  }
  throw new UsageError(`filter ${name} is ${show(text)}`, 'use a JSON object like {"tenant": "acme"}');
}
