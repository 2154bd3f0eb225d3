/** What an argument takes: by its kind, of all odd values those that mean something. */
import { createHash } from "node:crypto";
import { PayloadError } from "../../../src/index.ts";
import { isObject, toJson } from "../../../src/base/json.ts";
import { reservedActors, seenOf } from "../../../src/base/option.ts";

export interface Kind {
  /** What is right; undefined leaves it out. */
  sample(): unknown;
  takes(value: unknown): boolean;
  /** Of an object: its options. */
  readonly fields?: Fields;
  /** Of a list: what each is. */
  readonly item?: Kind;
  /** Of an object whose keys are the user's own. */
  readonly hasAnyKey?: true;
  /** A text that is as long as can be, in characters and in bytes. */
  readonly longest?: string;
  /** It is given whole, whatever the types say of its parts. */
  readonly isWhole?: true;
}
export type Fields = Readonly<Record<string, Kind>>;

const hundredYearsMs = 36_525 * 86_400_000;
const isText = (value: unknown): value is string => typeof value === "string";
const isStorable = (value: unknown): value is string =>
  isText(value) && value !== "" && !value.includes("\0") && value.isWellFormed();
const isDate = (value: unknown): value is Date => value instanceof Date && !Number.isNaN(value.getTime());

/** Written as `{}`, and made of no class. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

const isReserved = (value: unknown) => isText(value) && reservedActors.includes(seenOf(value));

function isJson(value: unknown): boolean {
  try {
    toJson(value, "it");
    return true;
  } catch (error) {
    if (error instanceof PayloadError) return false;
    throw error;
  }
}

function kind(sample: unknown, takes: (value: unknown) => boolean): Kind {
  return { sample: () => sample, takes };
}

/** It may be left out. */
export function optional(given: Kind): Kind {
  return { ...given, takes: (value) => value === undefined || given.takes(value), sample: () => undefined };
}

export function orNull(given: Kind): Kind {
  return { ...given, takes: (value) => value === null || given.takes(value) };
}

export const boolean = kind(false, (value) => typeof value === "boolean");
export const text = (max = 500, sample = "some"): Kind => ({
  ...kind(sample, (value) => isStorable(value) && Array.from(value).length <= max),
  ...(max <= 10_000 && { longest: widest(max) }),
});
/** Nothing that Postgres could press together so that it fits into an index: of Unicode's rarer ideographs. */
function widest(length: number): string {
  const random = (at: number) => createHash("sha256").update(`${at}`).digest().readUInt16BE(0);
  return String.fromCodePoint(...Array.from({ length }, (_, at) => 0x20000 + (random(at) % 42_000)));
}
/** Who, or why: people see something of it. */
export const seen = (max = 500): Kind => ({
  ...text(max),
  takes: (value) => text(max).takes(value) && isText(value) && seenOf(value) !== "",
});
/** A name in one line. */
export const printable = (max: number): Kind => ({
  ...text(max),
  takes: (value) => text(max).takes(value) && !/\p{Cc}/u.test(String(value)),
});
/** Of a flow: ASCII alone. */
export const flowName: Kind = {
  ...kind("matrix.named", (value) => isText(value) && /^[A-Za-z0-9][\w.:-]{0,99}$/.test(value)),
  longest: "n".repeat(100),
};
/** A dot path, as TypeScript and SQL count it: in bytes. */
export const path: Kind = {
  ...text(2000),
  takes: (value) => text(2000).takes(value) && Buffer.byteLength(String(value)) <= 2000,
  longest: "p".repeat(2000),
};
/** Who it was: nobody has a name in which the library itself speaks. */
export const person: Kind = { ...text(), takes: (value) => seen().takes(value) && !isReserved(value) };
/** Texts that a reader compares: what Postgres cannot hold is nowhere either. */
export const anyText = kind("some", isText);
export const oneOf = (...choices: readonly string[]) => kind(choices[0], (value) => choices.includes(value as string));
export const integer = (min: number, max = Number.MAX_SAFE_INTEGER, sample = Math.max(min, 1)) =>
  kind(sample, (value) => Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max);
export const number = (min: number, max = Number.MAX_VALUE) =>
  kind(Math.max(min, 1), (value) => Number.isFinite(value) && Number(value) >= min && Number(value) <= max);
export const duration = kind(
  "1h",
  (value) => value === "1h" || (typeof value === "number" && value >= 0 && value <= hundredYearsMs),
);
export const date = kind(
  new Date("2030-01-01T00:00:00Z"),
  (value) => isDate(value) && value.getTime() <= Date.UTC(9999, 11, 31),
);
/** A moment that Postgres and JavaScript agree on. */
export const moment = kind(
  new Date("2030-01-01T00:00:00Z"),
  (value) => isDate(value) && value.getTime() >= 0 && value.getTime() <= Date.UTC(9999, 11, 31),
);
export const either = (...kinds: readonly Kind[]): Kind => {
  const object = kinds.find(({ fields }) => fields);
  const items = kinds.find(({ item }) => item);
  return {
    sample: () => kinds[0]?.sample(),
    takes: (value) => kinds.some((one) => one.takes(value)),
    ...(object?.fields && { fields: object.fields }),
    ...(items?.item && { item: items.item }),
  };
};
export const json = kind({ n: 1 }, isJson);
/** What is left out is null. */
export const input = kind({ n: 1 }, (value) => value === undefined || isJson(value));
export const jsonObject: Kind = { ...kind({ n: 1 }, (value) => isObject(value) && isJson(value)), hasAnyKey: true };
export const anything = kind(null, () => true);
export const callable = kind(
  () => null,
  (value) => typeof value === "function",
);
/** What the library or another library makes: nothing else is right. */
export const made = (sample: unknown): Kind => ({ ...kind(sample, (value) => value === sample), isWhole: true });
export const id = (sample: string) => kind(sample, (value) => value === sample);
/** An id by which nothing is found where it is none. */
export const search = (sample: string) => text(1000, sample);

export function list(item: Kind): Kind {
  return {
    sample: () => [item.sample()],
    takes: (value) => Array.isArray(value) && value.every((one) => item.takes(one)),
    item,
  };
}

export function object(fields: Fields): Kind {
  const sampled = () =>
    Object.fromEntries(
      Object.entries(fields)
        .map(([name, field]) => [name, field.sample()] as const)
        .filter(([, value]) => value !== undefined),
    );
  return {
    sample: sampled,
    takes: (value) =>
      isObject(value) &&
      isPlain(value) &&
      Object.keys(value).every((name) => Object.hasOwn(fields, name)) &&
      Object.entries(fields).every(([name, field]) =>
        field.takes(Object.hasOwn(value, name) ? value[name] : undefined),
      ),
    fields,
  };
}

/** Names of the user's own, each with such a value. */
export function record(item: Kind): Kind {
  return {
    sample: () => ({ some: item.sample() }),
    takes: (value) => isObject(value) && isPlain(value) && Object.values(value).every((one) => item.takes(one)),
    hasAnyKey: true,
  };
}

/** A place in an argument: its name as the surface has it, and the argument with another value there. */
export interface Place {
  readonly name: string;
  readonly kind: Kind;
  readonly given: (value: unknown) => unknown;
}

export function placesOf(label: string, of: Kind, given: (value: unknown) => unknown = (value) => value): Place[] {
  const below = Object.entries(of.fields ?? {}).flatMap(([name, field]) =>
    placesOf(`${label}.${name}`, field, (value) => given({ ...filled(of), [name]: value })),
  );
  const items = of.item ? placesOf(`${label}[]`, of.item, (value) => given([value])) : [];
  return [{ name: label, kind: of, given }, ...below, ...items];
}

/** What is right, or what an option that was left out needs so that one of its own options can be given. */
function filled(of: Kind): object {
  const given = of.sample();
  return isObject(given) ? given : new Object(object(of.fields ?? {}).sample());
}

/** One value, or a list of alternatives. */
export function choice(item: Kind): Kind {
  const some = list(item);
  return either(item, { ...some, takes: (value) => some.takes(value) && Array.isArray(value) && value.length > 0 });
}
