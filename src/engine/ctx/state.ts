/** The part of `ctx` that writes application state: buffered, checked at once, committed at the next commit point. */
import { UsageError } from "../../base/errors.ts";
import { requireBoolean, requireKnown } from "../../base/option.ts";
import { toJson, type Json, type JsonObject } from "../../base/json.ts";
import { getPath } from "../../base/path.ts";
import type { Ctx, StateWriteOptions } from "../../flow/context.ts";
import { parseState, requireStatePath } from "../../flow/contract.ts";
import { withWrites } from "../state-contract.ts";
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
        const done = { ordinal, effect: "delete" as const, key: path, silent: options?.emit === false };
        host.stateContract.check(done, journal.pendingWrites());
        journal.buffer(done);
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
    const done = { ordinal, effect, key: path, value: parsed, silent: options?.emit === false };
    host.stateContract.check(done, journal.pendingWrites());
    host.stateSize.grow(path, parsed, () => this.#values());
    journal.buffer(done);
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
