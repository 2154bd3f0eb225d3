/** What came in from outside goes its way: checked by the contract, asked about by conditions, or refused. */
import { UsageError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import { parseEvent, parseInput } from "../flow/contract.ts";
import { entryNodes } from "../ledger/arrivals.ts";
import type { Command, Matches } from "../ledger/command.ts";
import { goesOnTo } from "../ledger/pauses.ts";
import type { Arrival } from "../ledger/parts.ts";
import { abandonedBy } from "./abandoned.ts";
import type { Asks } from "./asks.ts";
import { ReadCtx } from "./ctx/read.ts";
import type { Entries } from "./entries.ts";
import type { Loop } from "./loop.ts";
import { serializeError } from "./retries.ts";
import { askConditions, meetsMatch } from "./routing.ts";
import type { Slots } from "./slots.ts";

interface Parts {
  readonly asks: Asks;
  readonly entries: Entries;
  readonly slots: Slots;
  readonly loop: Loop;
}

export class Arrivals {
  readonly #of: Parts;

  constructor(parts: Parts) {
    this.#of = parts;
  }

  /** Sends the oldest arrival on its way. False when its conditions have to be asked first. */
  route(): boolean {
    const { asks, slots, loop } = this.#of;
    const { flow, graph, state } = asks;
    const [arrival] = state.inbox;
    if (!arrival) return true;
    let value: Json | undefined;
    if (arrival.raw) {
      try {
        value =
          arrival.kind === "start" ? parseInput(flow, arrival.value) : parseEvent(flow, arrival.event, arrival.value);
      } catch (error) {
        this.#refuse(arrival, error);
        return true;
      }
    }
    if (arrival.kind === "resume") asks.trace?.waited(state.interrupts.get(arrival.interrupt));
    if (arrival.kind === "event" && asks.trace)
      for (const interrupt of state.interrupts.values())
        if (interrupt.answeredBy === arrival.seq) asks.trace.waited(interrupt);
    // The skipped chunk may have begun another attempt.
    const skipped = arrival.kind === "skip" && !arrival.paused ? slots.running.get(arrival.dispatch) : undefined;
    if (skipped) slots.cutOff(skipped, new UsageError("the chunk was skipped", "stop when ctx.signal aborts"));
    const nodes = this.#entryOf(arrival);
    if (!meetsMatch(graph, nodes)) {
      this.#routeOrRefuse(arrival, { type: "route", value });
      return true;
    }
    loop.waitFor("routing");
    const asked = askConditions(graph, nodes, value ?? arrival.value, (seen) => new ReadCtx(asks, seen));
    void this.#afterAsking(asked, (matches) => ({ type: "route", matches, value }), arrival);
    return false;
  }

  #routeOrRefuse(arrival: Arrival, command: Command): void {
    const { asks, entries } = this.#of;
    const skipped =
      arrival.kind === "skip" && !arrival.paused ? asks.state.dispatches.get(arrival.dispatch) : undefined;
    try {
      entries.fold([command]);
    } catch (error) {
      // The chunk that the command leads to takes no more input.
      if (!(error instanceof UsageError)) throw error;
      return this.#refuse(arrival, error);
    }
    if (skipped) entries.fold(abandonedBy(asks, skipped));
  }

  /** What came in and breaks the contract, or where it leads takes no more: an input ends the execution, an event goes nowhere. */
  #refuse(arrival: Arrival, error: unknown): void {
    const { asks, entries } = this.#of;
    const serialized = serializeError(error);
    entries.fold([{ type: "route", refused: serialized.message }]);
    if (arrival.kind === "start") entries.fold([{ type: "abort", reason: "failed", error: serialized }]);
    else
      asks.log.warn("an event was refused", {
        error: serialized.message,
      });
  }

  async #afterAsking(asked: Promise<Matches>, command: (matches: Matches) => Command, arrival: Arrival): Promise<void> {
    const folded = await asked.then(command, (error: unknown): Command => {
      return { type: "abort", reason: "failed", error: serializeError(error) };
    });
    await this.#of.loop.resumeAfter(() => this.#routeOrRefuse(arrival, folded));
  }

  #entryOf(arrival: Arrival): readonly string[] {
    const { graph, state } = this.#of.asks;
    if (arrival.kind === "start") return entryNodes(state, graph);
    if (arrival.kind === "event") return graph.whenEvent.get(arrival.event) ?? [];
    if (arrival.kind === "skip") {
      const place = arrival.paused ?? state.dispatches.get(arrival.dispatch);
      return place ? (graph.nodes.get(place.node)?.next ?? []) : [];
    }
    const interrupt = state.interrupts.get(arrival.interrupt);
    if (!interrupt?.paused) return [];
    const to = goesOnTo(interrupt);
    if (to === "next") return graph.nodes.get(interrupt.paused.node)?.next ?? [];
    return to === "self" ? [] : (graph.whenEvent.get(to.event) ?? []);
  }
}
