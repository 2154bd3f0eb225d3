/** The part of `ctx` that emits events and puts live items into the stream. */
import { UsageError } from "../../base/errors.ts";
import { requireBoolean, requireKnown, show } from "../../base/option.ts";
import type { Ctx, EmitOptions } from "../../flow/context.ts";
import { parseEvent, parseStreamItem } from "../../flow/contract.ts";
import { own } from "./attempt.ts";
import { StateCtx } from "./state.ts";

export class EventsCtx
  extends StateCtx
  implements Pick<Ctx, "emit" | "emitNoWait" | "putIntoStream" | "stopStream" | "flush">
{
  #hasStopped = false;

  get emit() {
    return (event: string, payload: unknown, options?: EmitOptions) =>
      this[own].durable(`emit(${show(event)})`, async (turn) => {
        const { host, dispatch } = this[own];
        if (options !== undefined) {
          requireKnown(options, ["wait"], "emit()");
          if (options.wait !== undefined) requireBoolean(options.wait, "wait of emit()");
        }
        const isWaiting = options?.wait === true;
        const { ordinal, isNew } = this.#emit(event, payload, isWaiting);
        this[own].turns.place(turn, ordinal);
        const agreed = this[own].agreed();
        if (agreed) await agreed;
        if (isNew) await this[own].flush();
        if (!isWaiting) return;
        const entry = dispatch.journal.find((known) => known.ordinal === ordinal);
        if (entry?.effect === "emit" && entry.group !== null) await host.groupEnd(dispatch.id, entry.group);
      });
  }

  get emitNoWait() {
    return (event: string, payload: unknown) => void this.#emit(event, payload, false);
  }

  #emit(event: string, payload: unknown, wait: boolean): { ordinal: number; isNew: boolean } {
    const { host, journal } = this[own];
    this[own].requireLive();
    const parsed = parseEvent(host.flow, event, payload);
    const { ordinal, entry } = journal.next("emit", event, parsed);
    if (!entry) journal.buffer({ ordinal, effect: "emit", event, payload: parsed, wait });
    return { ordinal, isNew: entry === null };
  }

  get putIntoStream() {
    return (item: unknown) => {
      let admitted: Promise<void> | undefined;
      const put = this[own].write(() => {
        const { host, dispatch } = this[own];
        const parsed = parseStreamItem(host.flow, item);
        if (this.#isStreamStopped()) return;
        this[own].requireNoneRefused();
        const sent = host.putIntoStream(dispatch, parsed);
        this[own].streams(sent.durable);
        ({ admitted } = sent);
      });
      // The item is durable at the next commit point. Here the chunk waits only while the stream's backlog is full.
      const wait = this[own].turns.pass(admitted);
      return wait === undefined ? put : put.then(() => this[own].busy(() => wait));
    };
  }

  get stopStream() {
    return () =>
      this[own].durable("stopStream()", async (turn) => {
        this.#hasStopped = true;
        const { ordinal, entry } = this[own].journal.next("stopStream", "");
        this[own].turns.place(turn, ordinal);
        const agreed = this[own].agreed();
        if (agreed) await agreed;
        if (entry) return;
        this[own].journal.buffer({ ordinal, effect: "stopStream" });
        await this[own].flush();
      });
  }

  /** True where an earlier attempt stopped the stream that this one has not come to yet. */
  #isStreamStopped(): boolean {
    const { host, dispatch, chunk } = this[own];
    if (!host.state.streamStopped && !this.#hasStopped) return false;
    if (!this.#hasStopped && dispatch.journal.some(({ effect }) => effect === "stopStream")) return true;
    throw new UsageError(
      `chunk "${chunk.name}" put an item into a stream that was stopped`,
      "put all items before stopStream()",
    );
  }

  get flush() {
    return () => this[own].durable("flush()", () => this[own].flush());
  }
}
