/** What a condition may read of the value it is asked about, and every chunk too. */
import { UsageError } from "../../base/errors.ts";
import { show } from "../../base/option.ts";
import { copyJson, type Json } from "../../base/json.ts";
import { getPath } from "../../base/path.ts";
import type { FlowDataOptions, ReadOnlyCtx } from "../../flow/context.ts";
import { checkResource } from "../../flow/contract.ts";
import type { Contract, StateAt, StateOf, StatePath } from "../../flow/contract.ts";
import type { JsonObject } from "../../base/json.ts";
import { requireFlowData } from "../flow-data.ts";
import type { AttemptHost } from "../host.ts";

// Getters that return functions, so that `({ getState }) => …` works and an attempt costs no closure it does not use.
export class ReadCtx implements ReadOnlyCtx {
  readonly #host: AttemptHost;
  readonly #value: Json;
  #input: Json | undefined;
  #startInput: Json | undefined;

  constructor(host: AttemptHost, value: Json) {
    this.#host = host;
    this.#value = value;
  }

  get input(): Json {
    // A copy: siblings and the ledger get the same value.
    return (this.#input ??= copyJson(this.#value));
  }

  get startInput(): Json {
    const started = this.#host.state.startInput;
    if (started) return (this.#startInput ??= copyJson(started.value));
    throw new UsageError(
      `ctx.startInput was read in execution ${this.#host.info.id} of flow "${this.#host.flow.name}", which has not been started`,
      "start it before you send events, or keep what an event's handlers need in its payload",
    );
  }

  get execution() {
    return this.#host.info;
  }

  get getState() {
    const read = (path: string | undefined, fallback: unknown) => this.readState(path, fallback);
    function getState(): StateOf<Contract>;
    function getState<P extends StatePath<Contract>, D = null>(path: P, fallback?: D): StateAt<Contract, P> | D;
    function getState(path?: string, fallback: unknown = null): unknown {
      return read(path, fallback);
    }
    return getState;
  }

  protected readState(path: string | undefined, fallback: unknown): unknown {
    return readFrom(this.#host.state.values, path, fallback);
  }

  get getResource() {
    const { resources, flow } = this.#host;
    function getResource<T = unknown, D = null>(name: string, fallback?: D): T | D;
    function getResource(name: string, fallback: unknown = null): unknown {
      requireResourceName(name, "getResource()");
      const value = resources.get(name);
      if (value === undefined || value === null) return fallback;
      checkResource(flow, name, value);
      return value;
    }
    return getResource;
  }

  get requireResource() {
    const { resources, flow } = this.#host;
    function requireResource<T = unknown>(name: string): T;
    function requireResource(name: string): unknown {
      requireResourceName(name, "requireResource()");
      const value = resources.require(name);
      checkResource(flow, name, value);
      return value;
    }
    return requireResource;
  }

  get getFlowData() {
    return async (key: string, options?: FlowDataOptions): Promise<Json> => {
      requireFlowData("getFlowData", key, options);
      return (await this.#host.flowData.get(key)) ?? options?.default ?? null;
    };
  }
}

function requireResourceName(name: unknown, where: string): void {
  if (typeof name !== "string") throw new UsageError(`name of ${where} must be a text, got ${show(name)}`, null);
}

export function readFrom(values: JsonObject, path: string | undefined, fallback: unknown): unknown {
  if (path === undefined) return copyJson(values);
  if (typeof path !== "string") throw new UsageError(`path of getState() must be a text, got ${show(path)}`, null);
  const found = getPath(values, path);
  return found === undefined ? fallback : copyJson(found);
}
