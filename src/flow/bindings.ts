/** What a sub-flow gets of the execution above it, and what it writes back: paths bound to paths. */
import { isObject } from "../base/json.ts";
import { showWhole, type Refuse } from "../base/option.ts";

export type Bindings = Readonly<Record<string, string>> | null;

// Flow data is shared by all executions of the child, so one call does not write it.
const captured = { targets: ["input", "state", "resources"], sources: ["value", "state", "flowData", "resources"] };
const writtenBack = { targets: ["value", "state", "flowData"], sources: ["result", "snapshot"] };

/** @throws {DefinitionError} naming the path */
export function resolveCapture(given: Bindings | undefined, place: string, refuse: Refuse): Bindings {
  return resolve(given, `capture of ${place}`, captured, refuse);
}

/** @throws {DefinitionError} naming the path */
export function resolveWriteBack(given: Bindings | undefined, place: string, refuse: Refuse): Bindings {
  return resolve(given, `writeBack of ${place}`, writtenBack, refuse);
}

function resolve(
  given: Bindings | undefined,
  where: string,
  { targets, sources }: typeof captured,
  refuse: Refuse,
): Bindings {
  if (given === undefined || given === null) return null;
  if (!isObject(given) || given instanceof Date || given instanceof Map)
    refuse(`${where} is ${showWhole(given)}`, `bind paths to paths: { "state.topic": "value.topic" }`);
  const paths = Object.keys(given);
  for (const [target, source] of Object.entries(given)) {
    requirePath(target, targets, `target of ${where}`, refuse);
    requirePath(source, sources, `source of ${where}`, refuse);
    if (target.startsWith("resources.") !== source.startsWith("resources."))
      refuse(
        `${where} binds ${showWhole(target)} to ${showWhole(source)}`,
        "bind resources to resources: live objects are not data",
      );
    const inner = paths.find((other) => other.startsWith(`${target}.`));
    if (inner !== undefined)
      refuse(`${where} sets both ${showWhole(target)} and ${showWhole(inner)}`, "keep one of them");
  }
  return { ...given };
}

function requirePath(path: string, scopes: readonly string[], where: string, refuse: Refuse): void {
  const [scope, ...segments] = typeof path === "string" ? path.split(".") : [];
  const alone = ["input", "value", "result", "snapshot"];
  if (scope === undefined || !scopes.includes(scope))
    return refuse(`${where} is ${showWhole(path)}`, `begin it with ${scopes.join(", ")}`);
  if (segments.length === 0 && !alone.includes(scope))
    refuse(`${where} is ${showWhole(path)}`, `name a key: "${scope}.key"`);
  if (!segments.every((segment) => /^[A-Za-z_]\w*$/.test(segment) && segment !== "__proto__"))
    refuse(`${where} is ${showWhole(path)}`, "use segments of letters, digits and _");
}
