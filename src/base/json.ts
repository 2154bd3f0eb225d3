/** What JSON and Postgres can hold. Everything that enters the ledger passes `toJson` once. */
import { PayloadError } from "./errors.ts";

/** What JSON holds: no functions, dates or class instances. */
export type Json = null | boolean | number | string | Json[] | JsonObject;
/** An object of JSON. */
export interface JsonObject {
  [key: string]: Json;
}

// ── what the compiler refuses ───────────────────────────────────────────────────────────────────────────────

/**
 * What the compiler asks for in the place of what JSON cannot hold: its name and `Instead` stand in the error. A class without
 * methods looks like plain data to it, and is refused when it runs.
 */
export interface NotJson<What extends string, Instead extends string> {
  readonly "JSON cannot hold it": readonly [What, use: Instead];
}

/** The type as JSON can hold it: `NotJson` where it cannot. */
export type Stored<T> = T extends null | undefined | void | boolean | number | string
  ? T
  : T extends bigint
    ? NotJson<"a bigint", "a text">
    : T extends symbol
      ? NotJson<"a symbol", "a text">
      : T extends (...given: never) => unknown
        ? NotJson<"a function", "data, and resources for live objects">
        : T extends Date
          ? NotJson<"a Date", "date.toISOString()">
          : T extends ReadonlyMap<unknown, unknown>
            ? NotJson<"a Map", "Object.fromEntries(map)">
            : T extends ReadonlySet<unknown>
              ? NotJson<"a Set", "[...set]">
              : T extends readonly unknown[]
                ? readonly Stored<T[number]>[] // Not mapped: a list that contains itself has no end then.
                : T extends object
                  ? { [K in keyof T]: K extends symbol ? T[K] : Stored<T[K]> }
                  : unknown;

/**
 * "stored" where JSON can hold all of it. It is `any` where not, for the compiler leaves that out when it asks what may become of a
 * type parameter: so code that is generic compiles, and its callers are checked.
 */
// oxlint-disable-next-line typescript/no-explicit-any -- see above; it only chooses a property below
export type Verdict<T> = [T] extends [Stored<T>] ? "stored" : any;
/** Nothing to ask for where the verdict is "stored"; else `Refused`. */
export type Unless<Word extends string, Refused> = ({ readonly stored: unknown } & {
  readonly [other: string]: Refused;
})[Word];

/** A constraint: `<T extends Storable<T>>(value: T)` takes what JSON can hold, and the compiler names what it cannot. */
export type Storable<T> = Unless<Verdict<T>, Stored<T>>;
/** The same for what a function returns, which may be a promise. */
export type StorableReturn<T> = Unless<Verdict<Settled<T>>, StoredReturn<T>>;
type Settled<T> = T extends PromiseLike<infer Value> ? Value : T;
type StoredReturn<T> =
  T extends Promise<infer Value>
    ? Promise<Stored<Value>>
    : T extends PromiseLike<infer Value>
      ? PromiseLike<Stored<Value>>
      : Stored<T>;

// ── at run time ─────────────────────────────────────────────────────────────────────────────────────────────

/** Nesting allowed in one payload. V8's `JSON.stringify` overflows its stack between 3,000 and 5,000 levels. */
export const maxDepth = 200;

/** Bytes of UTF-8 allowed in one payload, as Postgres writes it, unless the caller gives its own limit. */
export const maxPayloadBytes = 1_048_576;

/**
 * Copies a value into plain JSON, or says why it cannot be one. The copy is deep, so what a caller changes
 * afterwards never reaches the ledger. A property that is undefined is left out, as JSON does.
 *
 * @param where names the value for the error, e.g. `input`, `state "a.b"`
 * @throws {PayloadError} undefined alone or in a list, functions, symbols, BigInt, NaN and infinities, class instances, cycles,
 *   `\u0000`, lone surrogates, a `__proto__` key, a `prototype` in a `constructor`, more than 200 levels, more than `maxBytes`
 *
 * SQL has the same rules in `flowledger.check_json`.
 */
export function toJson(value: unknown, where: string, maxBytes = maxPayloadBytes, levels = maxDepth): Json {
  const walk: Walk = { where, path: [], bytes: 0, maxBytes, levels, open: new Set() };
  return copy(value, walk);
}

/** Is it an object with keys, and no list? */
export function isObject(value: Json | undefined): value is JsonObject;
export function isObject(value: unknown): value is Readonly<Record<string, unknown>>;
export function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A deep copy of a value that is JSON already. */
export function copyJson(value: JsonObject): JsonObject;
export function copyJson(value: Json): Json;
export function copyJson(value: Json): Json {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((item) => copyJson(item));
  const result: JsonObject = {};
  for (const key in value) result[key] = copyJson(value[key] ?? null);
  return result;
}

/** What a JSON round trip makes of our own data: dates become text, keys without a value are gone. */
export function plain(value: object): JsonObject {
  return JSON.parse(JSON.stringify(value)) as JsonObject;
}

/** One text for equal JSON, whatever the order of its keys: jsonb has an order of its own. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return `{${fields
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, field]) => `${JSON.stringify(name)}:${canonical(field)}`)
    .join(",")}}`;
}

interface Walk {
  readonly where: string;
  readonly path: (string | number)[];
  bytes: number;
  readonly maxBytes: number;
  readonly levels: number;
  readonly open: Set<object>;
}

function copy(value: unknown, walk: Walk): Json {
  switch (typeof value) {
    case "string":
      return text(value, walk);
    case "number":
      if (!Number.isFinite(value)) refuse(walk, `${value} is not a JSON number`, "send null or a string instead");
      spend(walk, digits(value));
      return value === 0 ? 0 : value;
    case "boolean":
      spend(walk, value ? 4 : 5);
      return value;
    case "object":
      if (value === null) {
        spend(walk, 4);
        return null;
      }
      return copyObject(value, walk);
    case "undefined":
      return refuse(walk, "undefined has no JSON form", "send null");
    case "bigint":
      return refuse(walk, `BigInt ${String(value).slice(0, 40)} has no JSON form`, "send it as a string");
    default:
      return refuse(walk, `a ${typeof value} has no JSON form`, "send data, and pass live objects as runtimeResources");
  }
}

function copyObject(value: object, walk: Walk): Json {
  if (walk.open.has(value)) refuse(walk, "the value contains itself", "send a tree without cycles");
  if (walk.path.length >= walk.levels) refuse(walk, `nested deeper than ${walk.levels} levels`, "flatten it");
  walk.open.add(value);
  const result = Array.isArray(value) ? copyArray(value, walk) : copyRecord(value, walk);
  walk.open.delete(value);
  return result;
}

function copyArray(value: readonly unknown[], walk: Walk): Json[] {
  spend(walk, 2);
  const result: Json[] = [];
  for (let index = 0; index < value.length; index++) {
    walk.path.push(index);
    result.push(copy(value[index], walk));
    walk.path.pop();
    if (index > 0) spend(walk, 2);
  }
  return result;
}

function copyRecord(value: object, walk: Walk): JsonObject {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    const name = value.constructor?.name || "class instance";
    refuse(walk, `a ${name} is not plain data`, name === "Date" ? "send date.toISOString()" : "send a plain object");
  }
  spend(walk, 2);
  const result: JsonObject = {};
  let isFirst = true;
  for (const [key, item] of Object.entries(value)) {
    if (item === undefined) continue;
    walk.path.push(key);
    if (key === "__proto__") refuse(walk, "the key __proto__ is not allowed", "rename it");
    if (key === "constructor" && typeof item === "object" && item !== null && Object.hasOwn(item, "prototype"))
      refuse(walk, "the key prototype in constructor is not allowed", "rename it");
    text(key, walk);
    result[key] = copy(item, walk);
    walk.path.pop();
    spend(walk, isFirst ? 2 : 4);
    isFirst = false;
  }
  return result;
}

function text(value: string, walk: Walk): string {
  if (!value.isWellFormed()) refuse(walk, "the text contains half of a surrogate pair", "use text.toWellFormed()");
  if (escaped.test(value)) {
    if (value.includes("\u0000")) refuse(walk, "the text contains \\u0000, which Postgres cannot store", "remove it");
    spend(walk, Buffer.byteLength(JSON.stringify(value)));
  } else spend(walk, Buffer.byteLength(value) + 2);
  return value;
}

/** What JSON writes with a backslash. */
// eslint-disable-next-line no-control-regex
const escaped = /["\\\u0000-\u001f]/;

/** How many characters Postgres writes for a number: it knows no exponents. */
function digits(value: number): number {
  // Most numbers are small and whole.
  if (Number.isSafeInteger(value)) return value >= 0 && value < 10 ? 1 : String(value).length;
  const text = String(value);
  const [mantissa = "", exponent] = text.split("e");
  if (exponent === undefined) return text.length;
  const [whole = "", fraction = ""] = mantissa.replace("-", "").split(".");
  const shift = Number(exponent);
  const sign = value < 0 ? 1 : 0;
  return shift > 0 ? sign + whole.length + Math.max(shift, fraction.length) : sign + 2 + fraction.length + -shift;
}

function spend(walk: Walk, bytes: number): void {
  walk.bytes += bytes;
  if (walk.bytes > walk.maxBytes)
    refuse(walk, `larger than ${walk.maxBytes} bytes`, "store the data elsewhere and send a reference to it");
}

function refuse(walk: Walk, problem: string, remedy: string): never {
  throw new PayloadError(walk.where, walk.path, problem, remedy);
}
