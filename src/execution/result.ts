/** Readers of one outcome. Nothing is stored here: every view is a fold of the ledger, or the frozen close snapshot. */
import { unlessAborted, withTimeout } from "../base/async.ts";
import type { Timers } from "../base/timers.ts";
import type { Reads } from "../store/reads.ts";
import type { Store } from "../store/store.ts";
import { requireKnown, show } from "../base/option.ts";
import { requireFilters } from "../ledger/interventions.ts";
import { ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import type { Intervention, InterventionFilters } from "../flow/context.ts";
import type { CloseSnapshot, Contract, InputOf, StateAt, StateOf, StatePath } from "../flow/contract.ts";
import { getPath } from "../base/path.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { closeSnapshot, explicitResult, matchesIntervention, publicIntervention } from "../ledger/views.ts";
import type { Meta } from "../ledger/views.ts";
import type { Outcomes } from "./outcomes.ts";
import { requireWaiting } from "./waiting.ts";
import type { WaitingOptions } from "./waiting.ts";

/** The outcome of an execution, as live or as frozen as it is; stores nothing of its own. */
export class ExecutionResult<C extends Contract = Contract> {
  readonly #reads: Reads;
  readonly #outcomes: Outcomes;
  readonly #timers: Timers;
  readonly #id: ExecutionId;

  constructor(host: { readonly store: Store; readonly outcomes: Outcomes; readonly timers: Timers }, id: ExecutionId) {
    this.#reads = host.store.reads;
    this.#outcomes = host.outcomes;
    this.#timers = host.timers;
    this.#id = id;
  }

  /** Live state before the close, the frozen close snapshot after it. Lists have no paths into them. */
  getState(): Promise<CloseSnapshot<C>>;
  getState<P extends StatePath<C>, D = null>(path: P, fallback?: D): Promise<StateAt<C, P> | D>;
  async getState(path?: string, fallback: unknown = null): Promise<unknown> {
    if (path !== undefined && typeof path !== "string")
      throw new UsageError(`path of getState() must be a text, got ${show(path)}`, null);
    const state = await this.#load();
    const values: JsonObject = state.closed ? closeSnapshot(state) : state.values;
    if (path === undefined) return values as StateOf<C>;
    const found = getPath(values, path);
    return found === undefined ? fallback : found;
  }

  /**
   * `$final_result`, else what `setResult` or `end()` wrote, else the close snapshot once the execution has closed.
   * Waits for whichever comes first.
   *
   * @param options.timeout null, with a warning, when it passes @default waits for ever
   * @param options.signal rejects with its reason when it aborts
   */
  async getFinalResult(options: WaitingOptions = {}): Promise<Json> {
    requireKnown(options, ["timeout", "signal"], "getFinalResult()");
    const { timeoutMs, signal } = requireWaiting(options, "getFinalResult()");
    signal?.throwIfAborted();
    let found: Json | undefined;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = async (): Promise<void> => {
      const state = await this.#load();
      found = explicitResult(state);
      if (found === undefined && state.closed) found = closeSnapshot(state);
      if (found !== undefined) resolve();
    };
    const stop = this.#outcomes.watch(this.#id, () => void look().catch(reject));
    look().catch(reject);
    try {
      const limited = withTimeout(
        promise,
        timeoutMs,
        () => {},
        this.#timers,
        "the time is over that somebody waits for a result",
      );
      await (signal ? unlessAborted(limited, signal) : limited);
    } finally {
      stop();
      // Resolving ends the timer, too.
      resolve();
    }
    if (found !== undefined) return found;
    process.emitWarning(
      `execution ${this.#id} had no result after ${timeoutMs} ms: raise timeout, or read getState() for what is there`,
      {
        type: "FlowledgerWarning",
        code: "RESULT_TIMEOUT",
      },
    );
    return null;
  }

  /** Intervention records by version; [] when there are none. Reading consumes nothing. */
  async getInterventions(filters: InterventionFilters = {}): Promise<Intervention[]> {
    requireFilters(filters, "getInterventions()");
    const state = await this.#load();
    return state.interventions.filter((record) => matchesIntervention(record, filters)).map(publicIntervention);
  }

  /** The matching record of the highest version, or the fallback. */
  async getLatestIntervention<D = null>(fallback: D, filters: InterventionFilters = {}): Promise<Intervention | D> {
    return (await this.getInterventions(filters)).at(-1) ?? fallback;
  }

  /** What the execution is and how far it came; `startInput` as `ctx.startInput` gives it, null before the start. */
  async getMeta(): Promise<Meta<InputOf<C>>> {
    const meta = await this.#reads.meta(this.#id);
    if (!meta) throw new ExecutionNotFoundError(this.#id);
    return meta as Meta<InputOf<C>>;
  }

  async #load(): Promise<ExecutionState> {
    const state = await this.#reads.loadState(this.#id);
    if (!state) throw new ExecutionNotFoundError(this.#id);
    return state;
  }
}
