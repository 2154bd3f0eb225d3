/** The distributed collections of one owner, while their items run as executions of their own. */
import type { BatchNode, ForEachNode } from "../flow/graph.ts";
import type { Command } from "../ledger/command.ts";
import type { Asks } from "./asks.ts";
import type { Entries } from "./entries.ts";
import { FanOut, type FanOutHost } from "./fanout.ts";
import type { Engine } from "./host.ts";
import type { Loop } from "./loop.ts";
import { serializeError } from "./retries.ts";
import type { Running } from "./running.ts";

interface Parts {
  readonly engine: Engine;
  readonly asks: Asks;
  readonly entries: Entries;
  readonly loop: Loop;
}

export class Collections {
  readonly #of: Parts;
  /** Under way, by dispatch; null once they are told to stop. */
  #fanOuts: Map<number, FanOut> | null = new Map();

  constructor(parts: Parts) {
    this.#of = parts;
  }

  get all(): readonly FanOut[] {
    return [...(this.#fanOuts?.values() ?? [])];
  }

  get(dispatch: number): FanOut | undefined {
    return this.#fanOuts?.get(dispatch);
  }

  /** Nothing happens here until items end. */
  get isQuiet(): boolean {
    for (const fanOut of this.#fanOuts?.values() ?? []) if (!fanOut.isQuiet) return false;
    return true;
  }

  /** Something came in from outside: where that ended a pause, items begin that it held. */
  pump(): void {
    for (const fanOut of this.#fanOuts?.values() ?? []) fanOut.pump();
  }

  /** Hears of items that a worker closed and did not live to tell of. */
  async look(): Promise<void> {
    for (const fanOut of this.#fanOuts?.values() ?? []) await fanOut.look();
  }

  /** Runs the items of one, and has it end with what they gave. */
  async distribute(running: Running, node: ForEachNode | BatchNode): Promise<void> {
    const { dispatch, abort } = running;
    const { engine, asks, entries } = this.#of;
    const fanOut = new FanOut(this.#host(), dispatch, node);
    this.#fanOuts?.set(dispatch.id, fanOut);
    // The collection takes no slot: each item has its own.
    running.wait({ kind: "items" });
    engine.waitsForOthers(asks.id);
    abort.signal.addEventListener("abort", () => void fanOut.stop(), { once: true });
    const commands = await fanOut
      .run()
      .catch((error: unknown): Command[] => [
        { type: "fail", dispatch: dispatch.id, error: serializeError(error, dispatch.node, 1), retryInMs: null },
      ]);
    this.#fanOuts?.delete(dispatch.id);
    entries.end(running, asks.state.cancelling ? [] : (commands ?? []));
  }

  #host(): FanOutHost {
    const { engine, asks, entries, loop } = this.#of;
    const under = (node: string) => this.all.filter((fanOut) => fanOut.node.id === node);
    return {
      id: asks.id,
      state: asks.state,
      items: engine.items,
      newId: engine.newId,
      submit: (_, commands) => entries.submit(null, commands),
      itemsUnderWay: (node) => under(node).reduce((sum, fanOut) => sum + fanOut.underWay, 0),
      itemsEnded: (node) => under(node).forEach((fanOut) => fanOut.pump()),
      idle: () => loop.advance(),
    };
  }

  /** The execution ends early, and its items have not been told. */
  get hasItemsToStop(): boolean {
    const { failing, cancelling, frames } = this.#of.asks.state;
    if (this.#fanOuts === null || !(failing || cancelling)) return false;
    for (const { items } of frames.values()) if (items) return true;
    return false;
  }

  /** Before an execution ends early its items are told, so that none is left behind if this worker dies in between. */
  async stopItems(): Promise<void> {
    const { engine, asks, loop } = this.#of;
    const { state } = asks;
    loop.waitFor("stoppingItems");
    await Promise.all(this.all.map((fanOut) => fanOut.stop()));
    const reason = `parent ${state.failing ? "failed" : "cancelled"}`;
    for (const { items, done, missing } of state.frames.values())
      if (items && missing > 0)
        await engine.items
          .cancel(items.base, done.length, reason)
          .catch((error: unknown) => asks.log.warn("items could not be cancelled", { error: String(error) }));
    await loop.resumeAfter(() => void (this.#fanOuts = null));
  }

  /** The owner has ended: nothing is begun or recorded any more. */
  stop(): void {
    for (const fanOut of this.#fanOuts?.values() ?? []) void fanOut.stop();
  }

  /** Race: an item that closed during the release still saw an owner and sent no wake-up, so look once more. */
  async lookBack(fanOuts: readonly FanOut[]): Promise<void> {
    const { engine, asks } = this.#of;
    for (const fanOut of fanOuts) if (await fanOut.hasUnheard().catch(() => true)) return engine.items.wake(asks.id);
  }
}
