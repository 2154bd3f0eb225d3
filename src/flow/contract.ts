/** The zod parts of a flow: what its input, state, events and stream may be, and parsing where they come in. */
import { z } from "zod";
import { ContractError, DefinitionError, UsageError } from "../base/errors.ts";
import { isObject, toJson, type Json, type Stored, type Unless, type Verdict } from "../base/json.ts";
import { isStorable, requireRecord, requireText, show, type Refuse } from "../base/option.ts";
import { pathOf } from "../base/path.ts";
import { isSchema, strangerIn } from "./storable.ts";

/** Every part is optional, and a part left out takes any JSON. */
export interface Contract {
  /** What `start()` takes and the first chunks receive. */
  readonly input?: z.ZodType;
  /** The keys of the application state; usually `.partial()`, because state starts empty. */
  readonly state?: z.ZodObject;
  /** Payloads by event name; a name that is not here cannot be emitted or heard. */
  readonly events?: Readonly<Record<string, z.ZodType>>;
  /** One live item, as `putIntoStream` takes it. */
  readonly stream?: z.ZodType;
  /**
   * Live objects by name, as chunks ask for them: `{ db: z.instanceof(Pool) }`, or `z.custom<Db>()` for what has a type alone. A name
   * that is not here does not compile, and an object that is none of these is a `ContractError` for the chunk that asks.
   */
  readonly resources?: Readonly<Record<string, z.ZodType>>;
}

// ── types ───────────────────────────────────────────────────────────────────────────────────────────────────

/** What the first chunks receive. */
export type InputOf<C extends Contract> = C extends { readonly input: infer S extends z.ZodType } ? z.output<S> : Json;
/** What `start()` takes, before zod's defaults and coercions. */
export type StartInput<C extends Contract> = C extends { readonly input: infer S extends z.ZodType }
  ? z.input<S>
  : unknown;

/** The whole application state, as `getState()` reads it. */
export type StateOf<C extends Contract> = C extends { readonly state: infer S extends z.ZodObject }
  ? z.output<S>
  : { [key: string]: Json };
/** What a contract has to be: of a part that gives what JSON cannot hold, the compiler says what. */
export type StorableContract<C extends Contract> = Unless<
  Verdict<Given<C>>,
  { readonly [P in keyof C]: StorablePart<C, P> }
>;
type StorablePart<C extends Contract, P> = P extends keyof Given<C>
  ? Unless<Verdict<Given<C>[P]>, NotStorable<Given<C>[P]>>
  : unknown;
/** What its parts give, as it is kept. */
interface Given<C extends Contract> {
  readonly input: InputOf<C>;
  readonly state: StateOf<C>;
  readonly events: EventsOf<C>;
  readonly stream: StreamItem<C>;
}
/** A schema whose values JSON can hold. */
export type StorableSchema<S> = Unless<Verdict<Parsed<S, null>>, NotStorable<Parsed<S, null>>>;
/** What the compiler asks for in the place of a schema that gives what JSON cannot hold. */
export interface NotStorable<Value> {
  readonly "it gives what JSON cannot hold": Stored<Value>;
}
/** What a schema makes of a value; without a schema the value itself. */
export type Parsed<S, Value> = S extends z.ZodType ? z.output<S> : Value;

/** The whole application state before zod's defaults and coercions; null where no contract says it. */
export type StateInput<C extends Contract> = C extends { readonly state: infer S extends z.ZodObject }
  ? z.input<S>
  : null;
/** The top-level keys of the state. */
export type StateKey<C extends Contract> = C extends { readonly state: z.ZodObject }
  ? keyof StateOf<C> & string
  : string;
/** `"a"`, `"a.b"`, `"a.b.c"`, or anything below. Lists have no paths into them. */
export type StatePath<C extends Contract> = C extends { readonly state: z.ZodObject } ? PathsOf<StateOf<C>> : string;
/** What is read at a path. */
export type StateAt<C extends Contract, P extends string> = C extends { readonly state: z.ZodObject }
  ? At<StateOf<C>, P>
  : Json;
/** What may be written at a path; where no contract says it, `Value`. */
export type StateWrite<C extends Contract, P extends string, Value> = C extends { readonly state: z.ZodObject }
  ? At<StateInput<C>, P>
  : Value;
/** One element for `appendState`: of the list at the path, or the value itself where there is no list. */
export type StateItem<C extends Contract, P extends string, Value> = C extends { readonly state: z.ZodObject }
  ? ItemOf<At<StateInput<C>, P>>
  : Value;

/** The event that a flow hears of its own pauses by; nobody else may send it. */
export const noticeEvent = "$interrupt";

/** What the handlers of `when("$interrupt")` get: what became of a pause of this flow, for its code to tell people. */
export interface InterruptNotice {
  readonly kind: "raised" | "reminded" | "escalated" | "delegated" | "answered" | "expired" | "withdrawn";
  /** The pause as it was then; times are ISO 8601. */
  readonly interrupt: {
    readonly id: string;
    readonly type: string;
    readonly chunk: string;
    readonly title: string | null;
    readonly payload: Json;
    /** null is nobody in particular. */
    readonly assignees: readonly string[] | null;
    readonly claimedBy: string | null;
    readonly createdAt: string;
    readonly dueAt: string | null;
    readonly expiresAt: string | null;
    /** The answer, and who gave it; null until there is one. */
    readonly value: Json;
    readonly actor: string | null;
  };
  /** Of a pause with `link: true` that waits: it leads to the answer, once. Each attempt gets one of its own. */
  readonly link: string | null;
}

export type EventName<C extends Contract> = C extends { readonly events: infer E } ? keyof E & string : string;
/** Payloads by event name, as their handlers receive them. */
export type EventsOf<C extends Contract> = { readonly [E in EventName<C>]: EventPayload<C, E> };
/** What a handler of the event receives. */
export type EventPayload<C extends Contract, E extends string> = E extends typeof noticeEvent
  ? InterruptNotice
  : PayloadOf<C, E>;
type PayloadOf<C extends Contract, E extends string> = C extends { readonly events: infer Events }
  ? E extends keyof Events
    ? z.output<Events[E]>
    : never
  : Json;
/** What `emit` takes; where no contract says it, `Value`. */
export type EmitPayload<C extends Contract, E extends string, Value = unknown> = C extends {
  readonly events: infer Events;
}
  ? E extends keyof Events
    ? z.input<Events[E]>
    : never
  : Value;

/** What a closed execution leaves: its state, and two keys of ours where they were used. */
export type CloseSnapshot<C extends Contract> = StateOf<C> & {
  readonly $final_result?: Json;
  readonly $interventions?: Json;
};

/** What a reader of the stream sees. */
export type StreamItem<C extends Contract> = C extends { readonly stream: infer S extends z.ZodType }
  ? z.output<S>
  : Json;
/** What `putIntoStream` takes; where no contract says it, `Value`. */
export type StreamInput<C extends Contract, Value> = C extends { readonly stream: infer S extends z.ZodType }
  ? z.input<S>
  : Value;

/** The names of the live objects that chunks may ask for. */
export type ResourceName<C extends Contract> = C extends { readonly resources: infer R } ? keyof R & string : string;
/** The live object of a name; where no contract says it, `Value`. */
export type ResourceOf<C extends Contract, N, Value = unknown> = C extends { readonly resources: infer R }
  ? N extends keyof R
    ? z.output<R[N]>
    : never
  : Value;
/** Live objects by name, as they are given: those of the contract have its types, and each may be left out. */
export type ResourcesOf<C extends Contract> = Readonly<Record<string, unknown>> &
  (C extends { readonly resources: infer R } ? { readonly [N in keyof R]?: z.output<R[N]> } : unknown);

// Three levels by hand instead of a recursion: schemas may be recursive, and every level multiplies the union.
type PathsOf<T> = T extends unknown
  ? { [K in keyof T & string]: K | Below<K, Paths2<Tree<T[K]>>> }[keyof T & string]
  : never;
type Paths2<T> = T extends unknown
  ? { [K in keyof T & string]: K | Below<K, Paths3<Tree<T[K]>>> }[keyof T & string]
  : never;
type Paths3<T> = T extends unknown
  ? { [K in keyof T & string]: K | ([Tree<T[K]>] extends [never] ? never : Below<K, string>) }[keyof T & string]
  : never;
type Below<K extends string, Rest extends string> = `${K}.${Rest}`;

/** The members of a union that have keys. */
type Tree<T> = T extends readonly unknown[] ? never : T extends object ? T : never;
type At<T, P extends string> = P extends `${infer Head}.${infer Rest}` ? At<Field<T, Head>, Rest> : OrJson<Field<T, P>>;
type Field<T, K extends string> = FieldOfTree<Tree<T>, K>;
type FieldOfTree<T, K extends string> = T extends unknown
  ? K extends keyof T
    ? Exclude<T[K], undefined>
    : never
  : never;
/** What there is at a path below a type; never where there is nothing. */
export type Reach<T, P extends string> = unknown extends T
  ? unknown
  : P extends `${infer Head}.${infer Rest}`
    ? Reach<Field<T, Head>, Rest>
    : Field<T, P>;
type OrJson<T> = [T] extends [never] ? Json : T;
type ItemOf<T> = T extends readonly (infer Item)[] ? Item : T;

// ── at run time ─────────────────────────────────────────────────────────────────────────────────────────────

/** What parsing needs of a flow. */
export interface ContractOwner {
  readonly name: string;
  readonly contract: Contract;
}

export function isContractOwner(value: unknown): value is ContractOwner {
  return typeof value === "object" && value !== null && "name" in value && "contract" in value;
}

/** What `defineFlow()` makes, or another object that is one. */
export function requireFlow(value: unknown, where: string, refuse: Refuse = refuseUse): void {
  const isFlow = typeof value === "object" && value !== null && "graph" in value && "fingerprint" in value;
  if (!isFlow) refuse(`${where} must be a flow, got ${show(value)}`, "give it what defineFlow() returned");
}

const refuseUse: Refuse = (problem, remedy) => {
  throw new UsageError(problem, remedy);
};

/** @throws {DefinitionError} for a part that is no zod schema, or a part that does not exist */
export function checkContract(flow: string, contract: Contract): void {
  const refuse: Refuse = (problem, remedy) => {
    throw new DefinitionError(flow, problem, remedy);
  };
  requireRecord(contract, "the contract", refuse);
  for (const [part, schema] of Object.entries(contract)) {
    if (!["input", "state", "events", "stream", "resources"].includes(part))
      throw new DefinitionError(
        flow,
        `the contract has an unknown part "${part}"`,
        "its parts are input, state, events, stream and resources",
      );
    if (schema === undefined) continue;
    // Live objects are not stored, so their schemas may give anything.
    if (part === "resources") {
      for (const [name, type] of Object.entries(requireRecord(schema, 'contract part "resources"', refuse)))
        if (!isSchema(type))
          refuse(`contract resource "${name}" must be a zod schema`, "use z.instanceof(Class) or z.custom<Type>()");
    } else if (part !== "events") checkSchema(flow, `contract part "${part}"`, schema);
    else
      for (const [event, payload] of Object.entries(requireRecord(schema, 'contract part "events"', refuse))) {
        checkSchema(flow, `contract event "${event}"`, payload);
        if (event === noticeEvent)
          throw new DefinitionError(
            flow,
            `the contract has event "${noticeEvent}", which is the library's`,
            "rename it",
          );
      }
  }
  const kind: string | undefined = contract.state?._zod.def.type;
  if (kind !== undefined && kind !== "object")
    throw new DefinitionError(flow, `contract part "state" is a z.${kind}`, "use z.object({ … }).partial()");
}

/** @throws {DefinitionError} */
export function checkSchema(flow: string, where: string, schema: unknown): void {
  if (!isSchema(schema)) throw new DefinitionError(flow, `${where} must be a zod schema`, "use a schema of zod 4");
  const stranger = strangerIn(schema);
  if (stranger)
    throw new DefinitionError(
      flow,
      `${where} gives a z.${stranger.type}${stranger.path === "" ? "" : ` at "${stranger.path}"`}, which JSON cannot hold`,
      `use ${stranger.instead}`,
    );
}

/** What starts an execution, coerced by the contract. A missing input is null. */
export function parseInput(flow: ContractOwner, value: unknown): Json {
  return parseReturn(flow.contract.input, value, `input of flow "${flow.name}"`);
}

/** The payload of an event, coerced by the contract. A missing payload is null. */
export function parseEvent(flow: ContractOwner, event: string, payload: unknown): Json {
  requireEvent(flow, event);
  return parseReturn(flow.contract.events?.[event], payload, `event "${event}" of flow "${flow.name}"`);
}

/** @throws {ContractError} for an event that the contract does not have */
export function requireEvent(flow: ContractOwner, event: string): void {
  if (!isStorable(event))
    throw new UsageError(
      `${show(event)} is not an event name of flow "${flow.name}"`,
      "use a text that is not empty, without \\u0000 and half characters",
    );
  requireText(event, `an event name of flow "${flow.name}"`, { max: 500 });
  if (event === noticeEvent)
    throw new UsageError(
      `event "${noticeEvent}" of flow "${flow.name}" reports its pauses, and cannot be sent`,
      'use another name; when("$interrupt") alone hears it',
    );
  const { events } = flow.contract;
  if (events === undefined || Object.hasOwn(events, event)) return;
  throw new ContractError(`event "${event}" of flow "${flow.name}"`, [
    { code: "invalid_key", path: [], message: `there is no such event (there are ${named(Object.keys(events))})` },
  ]);
}

/**
 * A write to the state. At a top-level key the value is coerced by the contract. At a dot path only the key is
 * checked, so that no coercion runs twice: whoever writes calls again with the key and the whole new value below it.
 */
export function parseState(flow: ContractOwner, path: string, value: unknown): Json {
  const schema = requireStatePath(flow, path);
  if (`.${path}`.endsWith(".constructor") && isObject(value) && "prototype" in value) refusePrototype(flow, path);
  return parseValue(path.includes(".") ? undefined : schema, value, `state "${path}" of flow "${flow.name}"`);
}

/**
 * The schema of a path's top-level key, if the contract has one.
 *
 * @throws {ContractError} for a key that the contract does not have
 */
export function requireStatePath(flow: ContractOwner, path: string): z.core.$ZodType | undefined {
  const [key = ""] = pathOf(path, `a state key of flow "${flow.name}"`);
  if (`.${path}.`.includes(".constructor.prototype.")) refusePrototype(flow, path);
  const { state } = flow.contract;
  if (state === undefined) return undefined;
  const schema = Object.hasOwn(state.shape, key) ? state.shape[key] : state._zod.def.catchall;
  if (schema !== undefined && schema._zod.def.type !== "never") return schema;
  throw new ContractError(`state "${path}" of flow "${flow.name}"`, [
    {
      code: "unrecognized_keys",
      path: [key],
      message: `there is no such key (there are ${named(Object.keys(state.shape))})`,
    },
  ]);
}

/** As in any value: what merges it would write to every object. */
function refusePrototype(flow: ContractOwner, path: string): never {
  throw new UsageError(
    `state ${show(path)} of flow "${flow.name}": the key prototype in constructor is not allowed`,
    "rename it",
  );
}

export function parseStreamItem(flow: ContractOwner, item: unknown): Json {
  return parseValue(flow.contract.stream, item, `stream item of flow "${flow.name}"`);
}

/** @throws {ContractError} a live object that is not what the contract says. It is given to the chunk as it is, and never parsed */
export function checkResource(flow: ContractOwner, name: string, value: unknown): void {
  const { resources } = flow.contract;
  const schema = resources && Object.hasOwn(resources, name) ? resources[name] : undefined;
  if (schema) coerce(schema, value, `resource "${name}" of flow "${flow.name}"`);
}

/**
 * What a handler returned or a caller left out: `undefined` has no JSON form, so it travels as null. A schema that takes
 * `undefined` (a default, say) gets that; one that takes null alone gets null.
 */
export function parseReturn(schema: z.core.$ZodType | null | undefined, value: unknown, where: string): Json {
  if (!schema) return value === undefined ? null : toJson(value, where);
  const parsed = value === undefined ? coerceMissing(schema, where) : coerce(schema, value, where);
  return parsed === undefined ? null : toJson(parsed, where);
}

/** A value coerced by a schema, as JSON. */
export function parseValue(schema: z.core.$ZodType | null | undefined, value: unknown, where: string): Json {
  return toJson(schema ? coerce(schema, value, where) : value, where);
}

function coerceMissing(schema: z.core.$ZodType, where: string): unknown {
  try {
    return coerce(schema, undefined, where);
  } catch (error) {
    try {
      return coerce(schema, null, where);
    } catch {
      throw error;
    }
  }
}

function coerce(schema: z.core.$ZodType, value: unknown, where: string): unknown {
  try {
    const result = z.safeParse(schema, value);
    if (result.success) return result.data;
    throw new ContractError(where, result.error.issues);
  } catch (error) {
    if (error instanceof RangeError)
      throw new UsageError(
        `${where} cannot be checked: its contract leads to itself, or deeper than JavaScript goes`,
        "let it lead through a property or an item",
        { where },
        error,
      );
    if (!(error instanceof z.core.$ZodAsyncError)) throw error;
    throw new UsageError(
      `${where} has a contract with an async refinement or transform`,
      "make it synchronous, or check in a chunk",
      { where },
      error,
    );
  }
}

function named(names: readonly string[]): string {
  return names.length ? names.join(", ") : "none";
}
