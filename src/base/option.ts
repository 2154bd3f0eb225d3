/** Checks of options. A refusal says what is expected, where, and what came instead. */
import { types } from "node:util";
import { UsageError } from "./errors.ts";
import { isObject } from "./json.ts";

/** What throws: a `UsageError` where a call is refused, a `DefinitionError` where a flow is. */
export type Refuse = (problem: string, remedy: string | null) => never;

const refuseUse: Refuse = (problem, remedy) => {
  throw new UsageError(problem, remedy);
};

/** Refuses an option that nobody reads: a typing error would silently mean the default. */
export function requireKnown(given: unknown, names: readonly string[], where: string, refuse = refuseUse): void {
  // A Map or a Date has no own options: all would be left out silently.
  if (!isRecord(given)) return refuse(`options of ${where} must be an object, got ${show(given)}`, null);
  const unknown = Object.keys(given).find((name) => !names.includes(name));
  if (unknown === undefined) return;
  const meant = nearest(unknown, names);
  const hint = meant === undefined ? "" : ` (did you mean ${JSON.stringify(meant)}?)`;
  refuse(`${where} has an unknown option ${JSON.stringify(unknown)}`, `use ${names.join(", ")}${hint}`);
}

export interface NumberRange {
  readonly min: number;
  /** @default none */
  readonly max?: number;
  /** What null means; without it null is refused like any other value. */
  readonly orNull?: string;
}

/** A whole number in its range. */
export function requireInteger(
  value: unknown,
  where: string,
  range: NumberRange & { readonly orNull: string },
  refuse?: Refuse,
): number | null;
export function requireInteger(value: unknown, where: string, range: NumberRange, refuse?: Refuse): number;
export function requireInteger(value: unknown, where: string, range: NumberRange, refuse = refuseUse): number | null {
  if (value === null && range.orNull !== undefined) return null;
  if (typeof value === "number" && Number.isSafeInteger(value) && isWithin(value, range)) return value;
  return refuse(`${where} must be an integer ${inWords(range)}, got ${show(value)}`, null);
}

/** A number in its range, fractions included. Infinity is none. */
export function requireNumber(value: unknown, where: string, range: NumberRange, refuse = refuseUse): number {
  if (typeof value === "number" && Number.isFinite(value) && isWithin(value, range)) return value;
  return refuse(`${where} must be a number ${inWords(range)}, got ${show(value)}`, null);
}

/** One of a few texts. */
export function requireOneOf<const T extends string>(
  value: unknown,
  choices: readonly T[],
  where: string,
  refuse = refuseUse,
): T {
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  const quoted = choices.map((choice) => JSON.stringify(choice));
  const last = quoted.pop() ?? "";
  return refuse(
    `${where} must be ${quoted.length ? `${quoted.join(", ")} or ${last}` : last}, got ${show(value)}`,
    null,
  );
}

export function requireBoolean(value: unknown, where: string, refuse = refuseUse): boolean {
  if (typeof value === "boolean") return value;
  return refuse(`${where} must be true or false, got ${show(value)}`, null);
}

/** A text that is not empty, and that Postgres can hold: no NUL, no half of a surrogate pair. */
export function isStorable(value: unknown): value is string {
  return typeof value === "string" && value !== "" && !value.includes("\0") && value.isWellFormed();
}

/** A text that Postgres can hold. @param max in characters */
export function requireText(
  value: unknown,
  where: string,
  { max }: { readonly max: number },
  refuse = refuseUse,
): string {
  if (isStorable(value) && Array.from(value).length <= max) return value;
  return refuse(`${where} must be a text of 1 to ${max} characters, got ${show(value)}`, null);
}

/** Who does something in the ledger where nobody does: a close above, a limit of the flow, a time that is over, who has a link. */
export const reservedActors: readonly string[] = ["parent", "limit", "timer", "link"];

/** White space, and characters without a width. */
const unseen = /[\s\p{Cc}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb]/gu;

/** What people see of a text, as `seen_of` of SQL has it. */
export function seenOf(text: string): string {
  return text.replace(unseen, "");
}

/** A text that people can see: a name, a reason. @param max in characters */
export function requireName(value: unknown, where: string, range: { readonly max: number }): string {
  const name = requireText(value, where, range);
  return seenOf(name) === ""
    ? refuseUse(`of ${where} nothing is seen: ${show(name)}`, "write something that people see")
    : name;
}

/** Who it is, as `check_actor` of SQL takes it: a name, and none that looks like one in which the library itself speaks. */
export function requireActor(value: unknown, where: string): string {
  const actor = requireName(value, where, { max: 500 });
  return reservedActors.includes(seenOf(actor))
    ? refuseUse(`${where} is reserved: ${show(actor)}`, "name who asked for it")
    : actor;
}

/** A list of such items. */
export function requireList<T>(
  value: unknown,
  where: string,
  item: (value: unknown, where: string) => T,
  refuse = refuseUse,
): T[] {
  if (!Array.isArray(value)) return refuse(`${where} must be a list, got ${show(value)}`, null);
  return value.map((one: unknown) => item(one, `an item of ${where}`));
}

/** What is searched for: one value, or a list of alternatives. An empty list would find nothing, without a word. */
export function requireChoice<T>(
  value: unknown,
  where: string,
  item: (value: unknown, where: string) => T,
  refuse = refuseUse,
): T[] {
  if (!Array.isArray(value)) return [item(value, where)];
  if (value.length === 0) refuse(`${where} is an empty list, which nothing can be`, "leave it out for all");
  return requireList(value, where, item, refuse);
}

/** A function of the user's own. */
export function requireFunction(value: unknown, where: string, refuse = refuseUse): void {
  if (typeof value !== "function") refuse(`${where} must be a function, got ${show(value)}`, null);
}

/** Values by names of the user's own: an object, and no list, date or map. */
export function requireRecord(value: unknown, where: string, refuse = refuseUse): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : refuse(`${where} must be an object, got ${show(value)}`, null);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return isObject(value) && Object.prototype.toString.call(value) === "[object Object]";
}

/** What ISO 8601 writes with four digits of a year: Postgres reads no other. */
const years = { first: Date.parse("0001-01-01T00:00:00Z"), last: Date.parse("9999-12-31T23:59:59.999Z") };

/**
 * A date that is one: `new Date("soon")` is not. One of another realm, as what jest and `node:vm` run makes them, is as good, and
 * becomes one of ours.
 */
export function requireDate(value: unknown, where: string, refuse = refuseUse): Date {
  const ms = types.isDate(value) ? value.getTime() : Number.NaN;
  if (ms >= years.first && ms <= years.last) return new Date(ms);
  return refuse(
    `${where} must be a valid Date${Number.isNaN(ms) ? "" : " of the years 1 to 9999"}, got ${show(value)}`,
    null,
  );
}

export function requireSignal(value: unknown, where: string, refuse = refuseUse): AbortSignal {
  if (value instanceof AbortSignal) return value;
  return refuse(`${where} must be an AbortSignal, got ${show(value)}`, null);
}

function isWithin(value: number, { min, max = Infinity }: NumberRange): boolean {
  return value >= min && value <= max;
}

function inWords({ min, max, orNull }: NumberRange): string {
  const range = max === undefined ? `of at least ${min}` : `from ${min} to ${max}`;
  return orNull === undefined ? range : `${range}, or null for ${orNull}`;
}

/** A value as an error shows it: short, and texts in quotes. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "bigint") return `${String(value).slice(0, 40)}n`;
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null || types.isDate(value)) return String(value);
  return Array.isArray(value) ? "a list" : "an object";
}

/** The same with texts whole: names, which are looked for in the source. */
export function showWhole(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : show(value);
}

/** The name that was meant, as far as a typing error or two goes. */
export function nearest(name: string, names: readonly string[]): string | undefined {
  const near = names
    // A difference in length is as many errors, so long texts are not compared.
    .filter((known) => Math.abs(name.length - known.length) <= Math.max(1, Math.floor(known.length / 3)))
    .map((known) => ({ known, distance: distanceOf(name.toLowerCase(), known.toLowerCase()) }))
    .filter(({ known, distance }) => distance <= Math.max(1, Math.floor(known.length / 3)))
    .toSorted((a, b) => a.distance - b.distance);
  return near[0]?.known;
}

/** Levenshtein: letters that have to be put in, taken out or replaced. */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++)
      next.push(Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1)));
    row = next;
  }
  return row.at(-1) ?? 0;
}

/** Of whichever class: a server may have put one of its own in the place of the platform's. */
export function isResponse(given: unknown): given is Response {
  return Object.prototype.toString.call(given) === "[object Response]";
}
