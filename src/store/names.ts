/** The names of our schemas: in SQL text they are written `flowledger` and `flowledger_jobs`, whatever they are in a database. */
import { UsageError } from "../base/errors.ts";
import { show } from "../base/option.ts";

export interface SchemaNames {
  /** Tables, views and functions. */
  readonly schema: string;
  /** graphile-worker's tables for our jobs. */
  readonly jobs: string;
}

export const defaultNames: SchemaNames = { schema: "flowledger", jobs: "flowledger_jobs" };

/** @throws {UsageError} for what Postgres, or a channel's name, could not hold */
export function schemaNames(schema: string): SchemaNames {
  if (
    typeof schema !== "string" ||
    !/^[a-z_][a-z0-9_]{0,40}$/.test(schema) ||
    schema.startsWith("pg_") ||
    schema === "information_schema"
  )
    throw new UsageError(
      `schema ${show(schema)} is not a name for a schema`,
      "use lower-case letters, digits and _, at most 41, and not pg_… as Postgres itself does",
    );
  return schema === defaultNames.schema ? defaultNames : { schema, jobs: `${schema}_jobs` };
}

/** The channels that wake-ups travel on; `flowledger.channel(id)` chooses among them. */
export function channelsOf({ schema }: SchemaNames): string[] {
  return Array.from({ length: 8 }, (_, index) => `${schema}_${index}`);
}

// Comments and texts are passed over; the inside of a dollar-quoted body is SQL again, so only its quotes are.
const tokens =
  /--[^\n]*|\/\*[\s\S]*?\*\/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$\w*\$|"(?:[^"]|"")*"|[A-Za-z_][\w$]*/g;

/** SQL text with the names put in: as identifiers, and where a text is nothing but one of them. */
export function withNames(text: string, names: SchemaNames): string {
  if (names === defaultNames) return text;
  return text.replace(tokens, (token) => {
    switch (token) {
      case "flowledger":
      case '"flowledger"':
        return `"${names.schema}"`;
      case "flowledger_jobs":
      case '"flowledger_jobs"':
        return `"${names.jobs}"`;
      case "'flowledger'":
        return `'${names.schema}'`;
      case "'flowledger_jobs'":
        return `'${names.jobs}'`;
      default:
        return token;
    }
  });
}

const renamed = new WeakMap<TemplateStringsArray, Map<string, TemplateStringsArray>>();

/** The same for the text of a tagged template, worked out once per place in the code. */
export function templateWithNames(strings: TemplateStringsArray, names: SchemaNames): TemplateStringsArray {
  if (names === defaultNames) return strings;
  const known = renamed.get(strings) ?? new Map<string, TemplateStringsArray>();
  renamed.set(strings, known);
  let found = known.get(names.schema);
  if (!found) {
    found = Object.assign(
      strings.map((text) => withNames(text, names)),
      { raw: strings.raw.map((text) => withNames(text, names)) },
    );
    known.set(names.schema, found);
  }
  return found;
}
