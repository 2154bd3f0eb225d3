/** What a sub-flow gets of the execution above it, and what it writes back: paths bound to paths. */
import { isObject, type Json } from "../base/json.ts";
import { showWhole, type Refuse } from "../base/option.ts";

import type { Contract, Reach, ResourceName, ResourceOf, StartInput, StateInput, StateOf } from "./contract.ts";

export type Bindings = Readonly<Record<string, string>> | null;

/** A capture from flow `C`, whose value is a `Value`, into flow `K`: the compiler says which path is wrong. */
export type Capture<C extends Contract, Value, K extends Contract, B> = {
  readonly [T in keyof B]: Binding<T, Captured<K, T>, B[T], Source<C, Value, B[T]>>;
};
/** What flow `C` writes back of flow `K`: likewise. */
export type WriteBack<C extends Contract, K extends Contract, B> = {
  readonly [T in keyof B]: Binding<T, Written<C, T>, B[T], Left<K, B[T]>>;
};

/** What the compiler asks for in the place of a path that leads nowhere. */
export interface NoSuchPath<Path> {
  readonly "there is no such path": Path;
}
/** What the compiler asks for in the place of a source that is something else than its target. */
export interface NotFitting<Value, Target> {
  readonly "it does not fit": readonly [Value, into: Target];
}

/** A text that is only known when it runs is checked then. */
type Binding<To, Target, From, Value> = string extends From
  ? From
  : [Target] extends [never]
    ? NoSuchPath<To>
    : [Value] extends [never]
      ? NoSuchPath<From>
      : [Value] extends [Target]
        ? From
        : Json extends Value
          ? From
          : NotFitting<Value, Target>;

type Captured<K extends Contract, T> = T extends "input"
  ? StartInput<K>
  : T extends `input.${infer P}`
    ? Reach<StartInput<K>, P>
    : StateOrResource<K, T, StateInput<K>>;
type Source<C extends Contract, Value, S> = S extends "value"
  ? Value
  : S extends `value.${infer P}`
    ? Reach<Value, P>
    : S extends `flowData.${string}`
      ? unknown
      : StateOrResource<C, S, StateOf<C>>;
type Written<C extends Contract, T> = T extends "value" | `value.${string}` | `flowData.${string}`
  ? unknown
  : T extends `state.${string}`
    ? StateOrResource<C, T, StateInput<C>>
    : never;
/** What `end()` and `setResult()` leave has no type. */
type Left<K extends Contract, S> = S extends "snapshot" | "result" | `result.${string}`
  ? unknown
  : S extends `snapshot.${infer P}`
    ? StateOrResource<K, `state.${P}`, StateOf<K>>
    : never;
type StateOrResource<C extends Contract, Path, State> = Path extends `state.${infer P}`
  ? C extends { readonly state: object }
    ? Reach<State, P>
    : unknown
  : Path extends `resources.${infer N}`
    ? N extends ResourceName<C>
      ? Live<ResourceOf<C, N>>
      : never
    : never;
/** No data. */
interface Live<T> {
  readonly live: T;
}

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
