/** Who is there, and what they may do. */
import { UsageError } from "../base/errors.ts";
import { canonical, isObject, toJson, type JsonObject } from "../base/json.ts";
import { requireActor, requireKnown, requireList, requireOneOf, requireRecord, requireText } from "../base/option.ts";

/** Each may what the one before may: read; answer what waits for people; operate executions; edit state. */
export const roles = ["viewer", "responder", "operator", "admin"] as const;
/** What somebody may do: a viewer reads, a responder also answers what waits for people, an operator also operates executions, an admin also edits state. */
export type Role = (typeof roles)[number];

/** What `authorize` says of a request. */
export interface Access {
  /** Who it is, as the ledger names them in everything they do: 1 to 500 characters. */
  actor: string;
  /** "viewer" reads; "responder" answers, claims, delegates and puts off too; "operator" also retries, skips, pauses, cancels, intervenes, forks, redrives, and does so in bulk; "admin" also edits state. */
  role: Role;
  /** The groups that they are in. @default none */
  groups?: readonly string[];
  /** Only executions whose metadata contain this exist for them. @default all */
  where?: { metadata: Readonly<Record<string, unknown>> };
}

/** The same, checked. */
export interface Person {
  readonly actor: string;
  readonly role: Role;
  readonly groups: readonly string[];
  /** null: all executions. */
  readonly within: JsonObject | null;
}

/** @throws {UsageError} what `authorize` gave is invalid: nobody gets in by it */
export function personOf(given: unknown): Person {
  const where = "the answer of authorize()";
  requireKnown(given, ["actor", "role", "groups", "where"], where);
  const access = requireRecord(given, where);
  return {
    actor: requireActor(access["actor"], `actor of ${where}`),
    role: requireOneOf(access["role"], roles, `role of ${where}`),
    groups:
      access["groups"] === undefined
        ? []
        : requireList(access["groups"], `groups of ${where}`, (one, of) => requireText(one, of, { max: 500 })),
    within: access["where"] === undefined ? null : withinOf(access["where"], `where of ${where}`),
  };
}

/** May they do what needs that role? */
export function may(person: Person, role: Role): boolean {
  return roles.indexOf(person.role) >= roles.indexOf(role);
}

/** A condition that says nothing lets nobody through: it is more likely a user without a tenant than one of all tenants. */
function withinOf(given: unknown, where: string): JsonObject {
  requireKnown(given, ["metadata"], where);
  const metadata = requireRecord(requireRecord(given, where)["metadata"], `metadata of ${where}`);
  const names = Object.keys(metadata);
  const missing = names.find((name) => metadata[name] === undefined);
  if (names.length === 0 || missing !== undefined)
    throw new UsageError(
      missing === undefined ? `metadata of ${where} is empty` : `metadata of ${where} has no value for "${missing}"`,
      "say what their executions have in common, or leave `where` out for all",
    );
  const within = toJson(metadata, `metadata of ${where}`);
  if (!isObject(within)) throw new UsageError(`metadata of ${where} must be an object`, null);
  return within;
}

/**
 * What they ask for of what they may see, as one condition: what they asked for themselves, if they see all, and "nothing" where the
 * two cannot both hold.
 */
export function narrowed(
  { within }: Person,
  asked: Readonly<Record<string, unknown>> | undefined,
): Readonly<Record<string, unknown>> | undefined | "nothing" {
  if (within === null || asked === undefined) return within ?? asked;
  const differs = (name: string) =>
    Object.hasOwn(asked, name) && canonical(toJson(asked[name], name)) !== canonical(within[name] ?? null);
  return Object.keys(within).some(differs) ? "nothing" : { ...asked, ...within };
}
