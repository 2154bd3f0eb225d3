/** A JSON Schema as the fields of a form; what it says is checked by the server, so this may understand less than all of it. */
import type { Json, JsonObject } from "../base/json.ts";

export interface Named {
  readonly title: string | null;
  readonly description: string | null;
}

export type Field = Named &
  (
    | { readonly kind: "boolean"; readonly yes: string; readonly no: string }
    | { readonly kind: "choice"; readonly options: readonly { readonly value: Json; readonly label: string }[] }
    | { readonly kind: "constant"; readonly value: Json }
    | {
        readonly kind: "text";
        readonly input: "text" | "email" | "url" | "date" | "time" | "datetime-local" | "area";
        readonly min: number | null;
        readonly max: number | null;
      }
    | {
        readonly kind: "number";
        readonly isWhole: boolean;
        readonly min: number | null;
        readonly max: number | null;
        /** What it may be, in words; empty where it may be anything. */
        readonly bounds: string;
      }
    | { readonly kind: "several"; readonly options: readonly { readonly value: Json; readonly label: string }[] }
    | { readonly kind: "list"; readonly item: Field; readonly max: number | null }
    | { readonly kind: "object"; readonly fields: readonly Member[] }
    | {
        readonly kind: "variants";
        readonly key: string;
        readonly variants: readonly { readonly value: Json; readonly label: string; readonly field: Field }[];
      }
    | { readonly kind: "nullable"; readonly field: Field }
    | { readonly kind: "json"; readonly schema: Json }
  );

export interface Member {
  readonly name: string;
  readonly field: Field;
  readonly isRequired: boolean;
}

const deepest = 8;

/** @param root where `$ref` leads */
export function fieldOf(schema: Json, root: Json = schema, depth = 0): Field {
  const resolved = follow(schema, root);
  if (!isObject(resolved) || depth > deepest) return { kind: "json", schema, title: null, description: null };
  const named: Named = { title: textIn(resolved, "title"), description: textIn(resolved, "description") };
  const json: Field = { kind: "json", schema: resolved, ...named };
  if ("const" in resolved) return { kind: "constant", value: resolved["const"] ?? null, ...named };
  const choices = resolved["enum"];
  if (Array.isArray(choices))
    return { kind: "choice", options: choices.map((value) => ({ value, label: labelOf(value) })), ...named };
  const options = resolved["anyOf"] ?? resolved["oneOf"];
  if (Array.isArray(options)) return { ...alternatives(options, root, depth, json), ...titled(named) };
  const { type } = resolved;
  if (Array.isArray(type)) {
    const rest = type.filter((one) => one !== "null");
    const [only] = rest;
    if (rest.length !== 1 || rest.length === type.length || only === undefined) return json;
    return { kind: "nullable", field: fieldOf({ ...resolved, type: only }, root, depth + 1), ...named };
  }
  switch (type) {
    case "boolean":
      return {
        kind: "boolean",
        yes: textIn(resolved, "trueLabel") ?? "Yes",
        no: textIn(resolved, "falseLabel") ?? "No",
        ...named,
      };
    case "integer":
    case "number":
      return { kind: "number", isWhole: type === "integer", ...boundsOf(resolved, type), ...named };
    case "string":
      return {
        kind: "text",
        input: inputOf(resolved),
        min: numberIn(resolved, "minLength"),
        max: numberIn(resolved, "maxLength"),
        ...named,
      };
    case "array":
      return listOf(resolved, root, depth, json, named);
    case "object": {
      const properties = resolved["properties"];
      const required = resolved["required"];
      if (!isObject(properties) || isObject(resolved["additionalProperties"])) return json;
      // jsonb loses the order of keys; `required` is a list and keeps it.
      const order = Array.isArray(required) ? required.filter((name) => typeof name === "string") : [];
      const names = [
        ...order.filter((name) => Object.hasOwn(properties, name)),
        ...Object.keys(properties).filter((name) => !order.includes(name)),
      ];
      const fields = names.map((name) => ({
        name,
        field: fieldOf(properties[name] ?? null, root, depth + 1),
        isRequired: order.includes(name),
      }));
      return { kind: "object", fields, ...named };
    }
    default:
      return json;
  }
}

function alternatives(options: readonly Json[], root: Json, depth: number, json: Field): Field {
  const resolved = options.map((option) => follow(option, root));
  const rest = resolved.filter((option) => !(isObject(option) && option["type"] === "null"));
  const [only] = rest;
  if (rest.length === 1 && resolved.length > 1 && only !== undefined)
    return { kind: "nullable", field: fieldOf(only, root, depth + 1), title: null, description: null };
  if (rest.length !== resolved.length) return json;
  // Options that are all constants are a choice.
  if (rest.every((option) => isObject(option) && "const" in option))
    return {
      kind: "choice",
      options: rest.map((option) => {
        const value = isObject(option) ? (option["const"] ?? null) : null;
        return { value, label: (isObject(option) ? textIn(option, "title") : null) ?? labelOf(value) };
      }),
      title: null,
      description: null,
    };
  const key = discriminator(rest);
  if (key === null) return json;
  return {
    kind: "variants",
    key,
    variants: rest.map((option) => {
      const value = constantOf(option, key) ?? null;
      return {
        value,
        label: (isObject(option) ? textIn(option, "title") : null) ?? labelOf(value),
        field: fieldOf(option, root, depth + 1),
      };
    }),
    title: null,
    description: null,
  };
}

/** The property that each has, with a value of its own. */
function discriminator(options: readonly Json[]): string | null {
  const [first] = options;
  const properties = isObject(first) ? first["properties"] : undefined;
  if (!isObject(properties)) return null;
  for (const key of Object.keys(properties)) {
    const values = options.map((option) => constantOf(option, key));
    if (values.every((value) => value !== undefined) && new Set(values).size === options.length) return key;
  }
  return null;
}

function constantOf(option: Json | undefined, key: string): Json | undefined {
  const properties = isObject(option) ? option["properties"] : undefined;
  const property = isObject(properties) ? properties[key] : undefined;
  return isObject(property) ? property["const"] : undefined;
}

function listOf(schema: JsonObject, root: Json, depth: number, json: Field, named: Named): Field {
  const items = schema["items"];
  if (items === undefined || "prefixItems" in schema) return json;
  const item = fieldOf(items, root, depth + 1);
  if (item.kind === "choice") return { kind: "several", options: item.options, ...named };
  if (item.kind === "json") return json;
  return { kind: "list", item, max: numberIn(schema, "maxItems"), ...named };
}

function follow(schema: Json, root: Json, steps = 0): Json {
  const ref = isObject(schema) ? schema["$ref"] : undefined;
  if (!isObject(schema) || typeof ref !== "string" || steps > 20) return schema;
  if (ref !== "#" && !ref.startsWith("#/")) return {};
  let at: Json | undefined = root;
  for (const step of ref === "#" ? [] : ref.slice(2).split("/")) {
    const key = step.replaceAll("~1", "/").replaceAll("~0", "~");
    at = isObject(at) && Object.hasOwn(at, key) ? at[key] : undefined;
  }
  if (at === undefined) return {};
  const { $ref: _ref, ...beside } = schema;
  const found = follow(at, root, steps + 1);
  return isObject(found) ? { ...found, ...beside } : found;
}

function inputOf(schema: JsonObject) {
  const formats = { email: "email", uri: "url", date: "date", time: "time", "date-time": "datetime-local" } as const;
  const format = textIn(schema, "format");
  for (const [name, input] of Object.entries(formats)) if (name === format) return input;
  const longest = numberIn(schema, "maxLength");
  const isFormless = format === null && !("pattern" in schema);
  return isFormless && (longest === null || longest > 200) ? "area" : "text";
}

/** zod says of each whole number that it is no larger than JavaScript can count. A whole one has no bound that is out. */
function boundsOf(schema: JsonObject, type: "integer" | "number") {
  const real = (name: string) => {
    const value = numberIn(schema, name);
    return value === null || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? null : value;
  };
  const [above, below] = [real("exclusiveMinimum"), real("exclusiveMaximum")];
  const [least, most] = [real("minimum"), real("maximum")];
  if (type === "integer") {
    const min = greatest(least === null ? null : Math.ceil(least), above === null ? null : Math.floor(above) + 1);
    const max = smallest(most === null ? null : Math.floor(most), below === null ? null : Math.ceil(below) - 1);
    return { min, max, bounds: inWords(min, max, "at least", "at most") };
  }
  const [min, max] = [greatest(least, above), smallest(most, below)];
  const [isAbove, isBelow] = [above !== null && above === min, below !== null && below === max];
  return { min, max, bounds: inWords(min, max, isAbove ? "more than" : "at least", isBelow ? "less than" : "at most") };
}

function inWords(min: number | null, max: number | null, from: string, to: string): string {
  if (min !== null && max !== null && from === "at least" && to === "at most") return `${min} to ${max}`;
  return [min === null ? [] : `${from} ${min}`, max === null ? [] : `${to} ${max}`].flat().join(", ");
}

function greatest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.max(a, b);
}

function smallest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}

/** What is said of a field outweighs what is said of its kind. */
function titled({ title, description }: Named): Partial<Named> {
  return { ...(title !== null && { title }), ...(description !== null && { description }) };
}

function textIn(schema: JsonObject, name: string): string | null {
  const value = schema[name];
  return typeof value === "string" && value !== "" ? value : null;
}

function numberIn(schema: JsonObject, name: string): number | null {
  const value = schema[name];
  return typeof value === "number" ? value : null;
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function labelOf(value: Json): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** `approvedBy` and `approved_by` as people write it. */
export function wordsOf(name: string): string {
  const words = name
    .replace(/([a-z\d])([A-Z])/g, "$1 $2")
    .replaceAll(/[_-]+/g, " ")
    .toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** What a form begins with: what has one value only, and nothing that nobody chose. */
export function emptyOf(field: Field): Json | undefined {
  switch (field.kind) {
    case "constant":
      return field.value;
    case "several":
    case "list":
      return [];
    case "object": {
      const value: JsonObject = {};
      for (const { name, field: inner, isRequired } of field.fields) {
        const empty = emptyOf(inner);
        if (empty !== undefined && (isRequired || inner.kind === "constant")) value[name] = empty;
      }
      return value;
    }
    default:
      return undefined;
  }
}
