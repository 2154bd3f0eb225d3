/** Live objects of this process, by name: the nearest wins of execution, flow and worker. Never stored. */
import { ResourceMissingError } from "../errors.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";

export type Resources = Readonly<Record<string, unknown>>;

/** A value, or a factory `(execution) => value` that runs once per execution when it is first needed. */
export type WorkerResources = Readonly<Record<string, unknown>>;

export interface ResourceLayers {
  /** Given with `runtimeResources`. */
  readonly execution: Resources;
  /** Given with `updateRuntimeResources`. */
  readonly flow: Resources;
  /** Given to the orchestrator; functions are factories. */
  readonly worker: WorkerResources;
}

export class ExecutionResources {
  readonly #layers: ResourceLayers;
  readonly #info: ExecutionInfo;
  readonly #made = new Map<string, unknown>();

  constructor(layers: ResourceLayers, info: ExecutionInfo) {
    this.#layers = layers;
    this.#info = info;
  }

  get(name: string): unknown {
    const { execution, flow, worker } = this.#layers;
    for (const layer of [execution, flow]) if (Object.hasOwn(layer, name)) return layer[name];
    if (this.#made.has(name)) return this.#made.get(name);
    if (!Object.hasOwn(worker, name)) return undefined;
    const value = worker[name];
    if (typeof value !== "function") return value;
    const made: unknown = (value as (info: ExecutionInfo) => unknown)(this.#info);
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

  /** Ends what factories made, last made first: `Symbol.asyncDispose`, `Symbol.dispose` or `dispose()`. */
  async dispose(log: Logger): Promise<void> {
    const made = [...this.#made].toReversed();
    this.#made.clear();
    for (const [name, value] of made) {
      try {
        await disposeOf(await value);
      } catch (error) {
        log.warn(`resource "${name}" failed to dispose`, { executionId: this.#info.id, error: String(error) });
      }
    }
  }
}

async function disposeOf(value: unknown): Promise<void> {
  if (typeof value !== "object" || value === null) return;
  const end: unknown =
    Reflect.get(value, Symbol.asyncDispose) ?? Reflect.get(value, Symbol.dispose) ?? Reflect.get(value, "dispose");
  if (typeof end === "function") await Reflect.apply(end, value, []);
}
