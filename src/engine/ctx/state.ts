/** The part of `ctx` that writes application state: buffered, checked at once, committed at the next commit point. */
import { UsageError } from "../../base/errors.ts";
import { requireBoolean, requireKnown } from "../../base/option.ts";
import { copyJson, isObject, toJson, type Json, type JsonObject } from "../../base/json.ts";
import { appendPath, deletePath, getPath, setPath } from "../../base/path.ts";
import type { Ctx, StateWriteOptions } from "../../flow/context.ts";
import { parseState, requireStatePath } from "../../flow/contract.ts";
import type { Effect as LedgerEffect } from "../../ledger/command.ts";
import { own, type CtxAttempt } from "./attempt.ts";
import { ReadCtx, readFrom } from "./read.ts";

export class StateCtx extends ReadCtx implements Pick<Ctx, "setState" | "appendState" | "delState" | "setResult"> {
  readonly [own]: CtxAttempt;

  constructor(attempt: CtxAttempt, input: Json) {
    super(attempt.host, input);
    this[own] = attempt;
  }

  protected override readState(path: string | undefined, fallback: unknown): unknown {
    return readFrom(this.#values(), path, fallback);
  }

  #values(): JsonObject {
    const { host, journal } = this[own];
    const values = journal.asOfHere(host.state.values);
    const writes = journal.pendingWrites();
    return writes.length === 0 ? values : withWrites(values, writes);
  }

  get setState(): Ctx["setState"] {
    return (path, value, options) => this[own].write(() => this.#write("set", path, value, options));
  }

  get appendState(): Ctx["appendState"] {
    return (path, value, options) => this[own].write(() => this.#write("append", path, value, options));
  }

  get delState(): Ctx["delState"] {
    return (path, options) =>
      this[own].write(() => {
        const { host, journal } = this[own];
        requireStatePath(host.flow, path);
        requireWriteOptions(options, "delState()");
        const { ordinal, entry } = journal.next("delete", path);
        if (entry || getPath(this.#values(), path) === undefined) return;
        journal.buffer({ ordinal, effect: "delete", key: path, silent: options?.emit === false });
      });
  }

  #write(effect: "set" | "append", path: string, value: unknown, options: StateWriteOptions | undefined): void {
    const { host, journal } = this[own];
    requireWriteOptions(options, `${effect}State()`);
    requireStatePath(host.flow, path);
    const parsed =
      effect === "set"
        ? parseState(host.flow, path, value)
        : toJson(value, `state "${path}" of flow "${host.flow.name}"`);
    const { ordinal, entry } = journal.next(effect, path, parsed);
    if (entry) return;
    const done: LedgerEffect = { ordinal, effect, key: path, value: parsed, silent: options?.emit === false };
    this.#check(path, done);
    host.stateSize.grow(path, parsed, () => this.#values());
    journal.buffer(done);
  }

  /** A dot path and an append are checked by what the whole top-level value becomes. */
  #check(path: string, effect: LedgerEffect): void {
    const { host, journal } = this[own];
    const [top = path] = path.split(".");
    const isNested = path !== top;
    const hasContract = host.flow.contract.state !== undefined;
    if (!isNested && (effect.effect === "set" || !hasContract)) return;
    const after = withWrites(host.state.values, [...journal.pendingWrites(), effect], path);
    if (hasContract) parseState(host.flow, top, after[top]);
  }

  get setResult() {
    return (value: unknown) =>
      this[own].write(() => {
        const { host, journal, chunk, number } = this[own];
        if (host.state.item)
          throw new UsageError(
            `chunk "${chunk.name}" called setResult() in an item of a distributed collection`,
            "return the value, and call setResult() after endForEach()",
          );
        const parsed = toJson(value, `result of chunk "${chunk.name}"`);
        const { ordinal, entry } = journal.next("result", "", parsed);
        if (entry) return;
        if (host.state.result)
          host.log.warn("setResult overwrote an earlier result", { chunk: chunk.name, attempt: number });
        journal.buffer({ ordinal, effect: "result", value: parsed });
      });
  }
}

/** @throws {UsageError} */
function requireWriteOptions(options: StateWriteOptions | undefined, where: string): void {
  if (options === undefined) return;
  requireKnown(options, ["emit"], where);
  if (options.emit !== undefined) requireBoolean(options.emit, `emit of ${where}`);
}

/** The state with writes that are not committed yet; only the top-level keys they touch are copied. */
export function withWrites(values: JsonObject, writes: readonly LedgerEffect[], strictPath?: string): JsonObject {
  const result: JsonObject = { ...values };
  const copied = new Set<string>();
  for (const write of writes) {
    if (!("key" in write)) continue;
    const [top = write.key] = write.key.split(".");
    const current = result[top];
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
