/**
 * What a model writes comes in pieces of a few letters: those of one part are joined for a moment before they become an item, and for as
 * long as the item before it is on its way. So where the database has too much to do, items become larger and not more.
 */
import type { UIMessageChunk } from "ai";
import { systemTimers, type Timer, type Timers } from "../base/timers.ts";

/** A piece waits so long for the next one, at ease, and never when there are so many bytes of them. */
const joinMs = 20;
const joinBytes = 4096;

export type Delta = Extract<UIMessageChunk, { type: "text-delta" | "reasoning-delta" | "tool-input-delta" }>;

export class Deltas {
  readonly #put: (chunk: UIMessageChunk) => Promise<void>;
  readonly #arrived: () => Promise<void>;
  readonly #timers: Pick<Timers, "after">;
  #waiting: Delta | null = null;
  #bytes = 0;
  #timer: Timer | undefined;
  /** What was put by the timer: whoever puts next hears of its failure. */
  #late: Promise<void> = Promise.resolve();

  /** @param arrived resolves when what was put is in the stream, or never will be */
  constructor(
    put: (chunk: UIMessageChunk) => Promise<void>,
    arrived: () => Promise<void>,
    timers: Pick<Timers, "after"> = systemTimers,
  ) {
    this.#put = put;
    this.#arrived = arrived;
    this.#timers = timers;
  }

  /** In order. Resolves when there is room for more. */
  async put(chunk: UIMessageChunk): Promise<void> {
    const joined = this.#waiting && joinOf(this.#waiting, chunk);
    if (!joined) await this.flush();
    if (!isDelta(chunk)) return this.#put(chunk);
    this.#waiting = joined ?? chunk;
    this.#bytes += Buffer.byteLength(textOf(chunk));
    if (this.#bytes >= joinBytes) {
      await this.#late;
      return this.#send({ isMore: true });
    }
    this.#timer ??= this.#timers.after(joinMs, () => void this.#due(), "pieces of a model's output are joined");
  }

  async #due(): Promise<void> {
    const timer = this.#timer;
    await this.#arrived();
    // Everything may have been put while this waited.
    if (timer !== this.#timer) return;
    const sent = this.#send({ isMore: true });
    sent.catch(() => {});
    this.#late = Promise.all([this.#late, sent]).then(() => {});
    this.#late.catch(() => {});
  }

  /** Puts what waits. @throws what an earlier put has failed with */
  async flush(): Promise<void> {
    await this.#late;
    await this.#send();
  }

  /** Nothing is put any more. */
  stop(): void {
    this.#timer?.cancel();
    this.#waiting = null;
  }

  /**
   * Async, so that a timer that calls it gets a rejection and no exception.
   *
   * @param options.isMore of this part: half of a pair waits for the other half
   */
  async #send({ isMore = false } = {}): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    const chunk = this.#waiting;
    const half = isMore && chunk ? (/[\uD800-\uDBFF]$/.exec(textOf(chunk))?.[0] ?? "") : "";
    this.#waiting = chunk && half !== "" ? withText(chunk, half) : null;
    this.#bytes = 0;
    if (!chunk) return;
    const text = textOf(chunk);
    if (text !== half || half === "") await this.#put(half === "" ? chunk : withText(chunk, text.slice(0, -1)));
  }
}

/** The two as one, where they are pieces of one part; null where they are not. */
export function joinOf(first: Delta, next: UIMessageChunk): Delta | null {
  if ("providerMetadata" in first || "providerMetadata" in next) return null;
  if (first.type === "tool-input-delta")
    return next.type === first.type && next.toolCallId === first.toolCallId
      ? { ...first, inputTextDelta: first.inputTextDelta + next.inputTextDelta }
      : null;
  if (next.type !== first.type || next.id !== first.id) return null;
  return { ...first, delta: first.delta + next.delta };
}

export function isDelta(chunk: UIMessageChunk): chunk is Delta {
  return chunk.type === "text-delta" || chunk.type === "reasoning-delta" || chunk.type === "tool-input-delta";
}

function withText(delta: Delta, text: string): Delta {
  return delta.type === "tool-input-delta" ? { ...delta, inputTextDelta: text } : { ...delta, delta: text };
}

function textOf(delta: Delta): string {
  return delta.type === "tool-input-delta" ? delta.inputTextDelta : delta.delta;
}
