/** JSON Schemas that come from outside: what makes one unusable, and a limit of the time that a check by one may take. */
import { createContext, Script } from "node:vm";
import { isObject, type Json, type JsonObject } from "./json.ts";

/** Keywords whose schemas are about the same value. */
const same = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else"];
/** Those whose schemas are about a part of it. */
const below = ["items", "prefixItems", "contains", "additionalProperties", "propertyNames"];
const named = ["properties", "patternProperties"];

/**
 * Why no value can be checked by a schema, in words that follow its name; null where one can: a `$ref` that leads nowhere, or back
 * to itself without a step into the value. As `schema_problem` of SQL says it.
 */
export function schemaProblem(schema: Json): string | null {
  const [open, done] = [new Set<JsonObject>(), new Set<JsonObject>()];
  const visit = (part: Json | undefined, seen: ReadonlySet<JsonObject>): string | null => {
    if (!isObject(part) || done.has(part)) return null;
    const { $ref: ref } = part;
    if (seen.has(part)) return `leads to itself${typeof ref === "string" ? ` at ${JSON.stringify(ref)}` : ""}`;
    // Reached again through a part of the value, and under check already.
    if (open.has(part)) return null;
    open.add(part);
    const within = new Set([...seen, part]);
    const problem = typeof ref === "string" ? follow(ref, within) : all(same, part, within);
    const found = problem ?? all(below, part, none) ?? all(named, part, none);
    open.delete(part);
    done.add(part);
    return found;
  };
  const follow = (ref: string, seen: ReadonlySet<JsonObject>): string | null => {
    const target = schemaAt(schema, ref);
    return target === undefined ? `names ${JSON.stringify(ref)}, which is not in it` : visit(target, seen);
  };
  const all = (keywords: readonly string[], part: JsonObject, seen: ReadonlySet<JsonObject>): string | null => {
    for (const keyword of keywords) {
      const value = part[keyword];
      const parts = Array.isArray(value)
        ? value
        : named.includes(keyword) && isObject(value)
          ? Object.values(value)
          : [value];
      for (const one of parts) {
        const problem = visit(one, seen);
        if (problem !== null) return problem;
      }
    }
    return null;
  };
  try {
    return visit(schema, none);
  } catch (error) {
    if (error instanceof RangeError) return "is nested too deep";
    throw error;
  }
}

const none: ReadonlySet<JsonObject> = new Set();

/** What a `$ref` names: a part of the same schema, as a JSON Pointer. */
function schemaAt(root: Json, ref: string): Json | undefined {
  if (ref === "#") return root;
  if (!ref.startsWith("#/")) return undefined;
  let at: Json | undefined = root;
  for (const step of ref.slice(2).split("/")) {
    const key = step.replaceAll("~1", "/").replaceAll("~0", "~");
    if (Array.isArray(at)) at = at[Number(key)];
    else at = isObject(at) && Object.hasOwn(at, key) ? at[key] : undefined;
  }
  return at;
}

/** What a check by a schema could take for ever for. */
const slow = /"(?:pattern|patternProperties|\$ref)"/;

/** Of real time, since it is the thread that would stand still. */
const checkWithinMs = 1000;

/** It took longer than it may. */
export class CheckTimeout extends Error {
  override readonly name = "CheckTimeout";
}

let guard: { readonly script: Script; readonly context: { work?: () => unknown } } | undefined;

/** Runs a check by a schema. @throws {CheckTimeout} it took a second: a pattern, or parts that multiply */
export function checkedInTime<T>(schema: Json, check: () => T): T {
  if (!slow.test(JSON.stringify(schema))) return check();
  // Only in a `vm` script can a regular expression be stopped.
  guard ??= { script: new Script("work()"), context: createContext({}) as { work?: () => unknown } };
  let result: { readonly value: T } | undefined;
  guard.context.work = () => {
    result = { value: check() };
  };
  try {
    guard.script.runInContext(guard.context, { timeout: checkWithinMs });
  } catch (error) {
    if (typeof error === "object" && error !== null && "code" in error && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT")
      throw new CheckTimeout(`took longer than ${checkWithinMs} ms`);
    throw error;
  } finally {
    delete guard.context.work;
  }
  if (!result) throw new CheckTimeout("did not end");
  return result.value;
}
