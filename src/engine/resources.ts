/** Live objects of this process, by name: the nearest wins of execution, flow, worker and resolver. Never stored. */
import { types } from "node:util";
import { withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { ResourceMissingError, UsageError } from "../base/errors.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";
import type { Contract, Parsed } from "../flow/contract.ts";
import type { FlowDefinition, ResourceRequirement, ResourceResolver } from "../flow/definition.ts";
import type { ExecutionId } from "../ledger/event.ts";

export type Resources = Readonly<Record<string, unknown>>;

/** A value, or a factory `(execution) => value` that runs once per owner of an execution, when it is first needed. */
export type WorkerResources = Readonly<Record<string, unknown>>;

/** What the contracts of flows say of them; a function is a factory, so a resource that is one comes from a factory. */
export type ResourcesFor<F extends FlowDefinition> = All<F extends FlowDefinition<infer C> ? Givable<C> : never>;
type Givable<C extends Contract> = C extends { readonly resources: infer R }
  ? { readonly [N in keyof R]?: Given<Parsed<R[N], never>> }
  : object;
type Given<T> = Factory<T> | (T extends (...given: never) => unknown ? never : T);
type Factory<T> = (execution: ExecutionInfo) => T | undefined;
/** The intersection of what is a union. */
type All<T> = (T extends unknown ? (one: T) => void : never) extends (one: infer Every) => void ? Every : never;

export interface ResourceLayers {
  /** Given with `runtimeResources`. */
  readonly execution: Resources;
  /** Given with `updateRuntimeResources`. */
  readonly flow: Resources;
  /** Given to the orchestrator; functions are factories. */
  readonly worker: WorkerResources;
  /** Declared by the flow; a resolver is the factory of last resort. */
  readonly requirements: readonly ResourceRequirement[];
}

/** How long a `dispose()` may take before nobody waits for it any more. */
const disposeWithinMs = 5000;

export class ExecutionResources {
  readonly #layers: ResourceLayers;
  readonly #info: ExecutionInfo;
  readonly #log: Logger;
  readonly #made = new Map<string, unknown>();
  #isOver = false;

  constructor(layers: ResourceLayers, info: ExecutionInfo, log: Logger) {
    this.#layers = layers;
    this.#info = info;
    this.#log = log;
  }

  /**
   * Undefined where nobody gave or makes it. A promise, the same for all who ask, where its factory is async.
   *
   * @throws {ResourceMissingError} when its factory or resolver throws; the next attempt tries again
   * @throws {UsageError} when the execution was given back meanwhile
   */
  get(name: string): unknown {
    const { execution, flow, worker } = this.#layers;
    for (const layer of [execution, flow]) if (Object.hasOwn(layer, name)) return layer[name];
    if (this.#made.has(name)) return this.#made.get(name);
    const given = Object.hasOwn(worker, name) ? worker[name] : undefined;
    const declared = this.#layers.requirements.find((requirement) => requirement.name === name);
    const make =
      given === undefined
        ? declared?.resolver && this.#byResolver(name, declared.resolver)
        : typeof given === "function"
          ? given
          : null;
    if (!make) return given;
    if (this.#isOver)
      throw new UsageError(
        `resource "${name}" was asked for after execution ${this.#info.id} was given back`,
        "stop when ctx.signal aborts",
      );
    return this.#make(name, make as (info: ExecutionInfo) => unknown, declared?.failPolicy === "open");
  }

  #byResolver(name: string, resolver: ResourceResolver): () => unknown {
    const { id: executionId, flow, metadata } = this.#info;
    return () => resolver({ name, executionId, flow, metadata }) ?? undefined;
  }

  #make(name: string, make: (info: ExecutionInfo) => unknown, isOptional: boolean): unknown {
    const fail = (cause: unknown): undefined => {
      const error = new ResourceMissingError(this.#info.id, name, this.names(), cause);
      if (!isOptional) throw error;
      this.#log.warn(error.message);
    };
    let made: unknown;
    try {
      made = make(this.#info);
    } catch (error) {
      return fail(error);
    }
    if (made === undefined) return undefined;
    if (types.isPromise(made)) {
      const coming: Promise<unknown> = made.catch((error: unknown) => {
        if (this.#made.get(name) === coming) this.#made.delete(name);
        return fail(error);
      });
      // The error reaches whoever asked for the resource.
      coming.catch(() => {});
      made = coming;
    }
    this.#made.set(name, made);
    return made;
  }

  /** @throws {ResourceMissingError} */
  require(name: string): unknown {
    const value = this.get(name);
    if (value === undefined) throw new ResourceMissingError(this.#info.id, name, this.names());
    return value;
  }

  names(): string[] {
    const { execution, flow, worker } = this.#layers;
    return [...new Set([...Object.keys(execution), ...Object.keys(flow), ...Object.keys(worker)])].toSorted();
  }

  /**
   * Ends what factories made, last made first: `Symbol.asyncDispose`, `Symbol.dispose` or `dispose()`. Never throws, and
   * waits five seconds at most for each. Null when there is nothing to end.
   */
  dispose(): Promise<void> | null {
    this.#isOver = true;
    const made = [...this.#made].toReversed();
    this.#made.clear();
    return made.length === 0 ? null : this.#disposeAll(made);
  }

  async #disposeAll(made: readonly (readonly [string, unknown])[]): Promise<void> {
    for (const [name, value] of made) {
      const ended = disposeOf(value).catch((error: unknown) => {
        // A resource that was never made has nothing to dispose of.
        if (!(error instanceof ResourceMissingError))
          this.#log.warn(`resource "${name}" failed to dispose`, { error: String(error) });
      });
      await withTimeout(ended, disposeWithinMs, () =>
        this.#log.warn(`resource "${name}" was not disposed within ${disposeWithinMs} ms`),
      );
    }
  }
}

async function disposeOf(made: unknown): Promise<void> {
  const value = await made;
  if (typeof value !== "object" || value === null) return;
  const end: unknown =
    Reflect.get(value, Symbol.asyncDispose) ?? Reflect.get(value, Symbol.dispose) ?? Reflect.get(value, "dispose");
  if (typeof end === "function") await Reflect.apply(end, value, []);
}

/** An execution that this process keeps resources for. */
export interface Kept {
  readonly id: ExecutionId;
  /** The transaction that creates it, where that is the caller's own. */
  readonly transaction: string | null;
}

/** How often it is asked which executions are over: those that others closed, that never came, or were rolled back. */
const sweepEveryMs = 60_000;

interface Entry {
  readonly resources: Resources;
  /** Its creation is under way. */
  isComing: boolean;
  transaction: string | null;
}

/** `runtimeResources` of executions until they close, wherever they close. */
export class KeptResources {
  readonly #kept = new Map<ExecutionId, Entry>();
  readonly #findOver: (kept: readonly Kept[]) => Promise<readonly ExecutionId[]>;
  #timer: Timer | undefined;

  /** @param findOver those of them that are closed, or that do not exist and never will */
  constructor(findOver: (kept: readonly Kept[]) => Promise<readonly ExecutionId[]>) {
    this.#findOver = findOver;
  }

  /** @param created which execution it became: another one where the start was answered by a known idempotency key */
  keep(id: ExecutionId, resources: Resources, created: Promise<ExecutionId>): void {
    if (Object.keys(resources).length === 0) return;
    const entry: Entry = { resources, isComing: true, transaction: null };
    this.#kept.set(id, entry);
    this.#timer ??= liveness.every(sweepEveryMs, () => void this.sweep().catch(() => {})).unref();
    created.then(
      (actual) => (actual === id ? (entry.isComing = false) : this.drop(id)),
      // If only the answer was lost, the execution exists: the sweep finds out.
      () => (entry.isComing = false),
    );
  }

  /** The execution comes with a transaction of the caller's, or not at all. */
  within(id: ExecutionId, transaction: string): void {
    const entry = this.#kept.get(id);
    if (entry) entry.transaction = transaction;
  }

  get(id: ExecutionId): Resources {
    return this.#kept.get(id)?.resources ?? {};
  }

  drop(id: ExecutionId): void {
    this.#kept.delete(id);
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Forgets what is over. */
  async sweep(): Promise<void> {
    const kept = [...this.#kept].flatMap(([id, { isComing, transaction }]) => (isComing ? [] : [{ id, transaction }]));
    for (let start = 0; start < kept.length; start += 1000)
      for (const id of await this.#findOver(kept.slice(start, start + 1000))) this.drop(id);
    if (this.#kept.size === 0) this.close();
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}
