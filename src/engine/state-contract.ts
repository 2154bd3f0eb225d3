/** What the contract says of a key of the state that chunks write below side by side. */
import { UsageError } from "../base/errors.ts";
import { copyJson, isObject, type Json, type JsonObject } from "../base/json.ts";
import { appendPath, deletePath, setPath } from "../base/path.ts";
import { parseState } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Command, Effect } from "../ledger/command.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Commits } from "./commit.ts";

/** A write by dot path, an append or a delete is judged by what the whole value of its top-level key becomes. */
export class StateContract {
  readonly #flow: FlowDefinition;
  readonly #state: ExecutionState;
  readonly #commits: Pick<Commits, "writesOf">;
  /** How many writes its key had when it was judged. */
  readonly #judged = new WeakMap<Effect, number>();

  constructor(flow: FlowDefinition, state: ExecutionState, commits: Pick<Commits, "writesOf">) {
    this.#flow = flow;
    this.#state = state;
    this.#commits = commits;
  }

  /** @param before what its attempt wrote, and is not folded. @throws {ContractError | UsageError} */
  check(effect: Effect & { readonly key: string }, before: readonly Effect[]): void {
    const top = topOf(effect.key);
    const isNested = effect.key !== top;
    const hasContract = this.#flow.contract.state !== undefined;
    if (!isNested && (effect.effect !== "append" || !hasContract)) return;
    const after = withWrites(this.#state.values, [...before, effect], effect.key);
    if (!hasContract) return;
    parseState(this.#flow, top, after[top]);
    this.#judged.set(effect, this.#commits.writesOf(top));
  }

  /** Others may have come between. @throws {ContractError} what they wrote and this break the contract together */
  checkAgain(commands: readonly Command[]): void {
    if (this.#flow.contract.state === undefined) return;
    const effects = commands.flatMap((command) => (command.type === "effect" ? command.effect : []));
    const stale = new Set<string>();
    for (const effect of effects) {
      const judged = this.#judged.get(effect);
      if (judged === undefined || !("key" in effect)) continue;
      if (judged !== this.#commits.writesOf(topOf(effect.key))) stale.add(topOf(effect.key));
    }
    if (stale.size === 0) return;
    const after = withWrites(this.#state.values, effects);
    for (const top of stale) if (Object.hasOwn(after, top)) parseState(this.#flow, top, after[top]);
  }
}

function topOf(key: string): string {
  const [top = key] = key.split(".");
  return top;
}

/** The state with writes that are not committed yet; only the top-level keys they touch are copied. */
export function withWrites(values: JsonObject, writes: readonly Effect[], strictPath?: string): JsonObject {
  const result: JsonObject = { ...values };
  const copied = new Set<string>();
  for (const write of writes) {
    if (!("key" in write)) continue;
    const [top = write.key] = write.key.split(".");
    const current = Object.hasOwn(result, top) ? result[top] : undefined;
    if (!copied.has(top) && current !== undefined) result[top] = copyJson(current);
    copied.add(top);
    if (write.key === strictPath) requireObjects(result, write.key);
    if (write.effect === "set") setPath(result, write.key, copyJson(write.value));
    else if (write.effect === "append") appendPath(result, write.key, copyJson(write.value));
    else deletePath(result, write.key);
  }
  return result;
}

function requireObjects(values: JsonObject, path: string): void {
  const segments = path.split(".").slice(0, -1);
  let here: Json = values;
  for (const [index, segment] of segments.entries()) {
    if (!isObject(here)) break;
    if (!Object.hasOwn(here, segment)) return;
    const next: Json | undefined = here[segment];
    if (next === undefined) return;
    if (!isObject(next))
      throw new UsageError(
        `state "${path}" cannot be written: "${segments.slice(0, index + 1).join(".")}" is not an object`,
        "write that key first, or choose another path",
      );
    here = next;
  }
}
