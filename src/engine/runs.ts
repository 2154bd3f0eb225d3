/** What runs: dispatches that are ready are started, each as what it is, and how they ended is handed in. */
import type { Json } from "../base/json.ts";
import type { Chunk } from "../flow/graph.ts";
import { isCleaning } from "../ledger/cleanup.ts";
import type { Command } from "../ledger/command.ts";
import type { Dispatch, Notice } from "../ledger/parts.ts";
import { isPaused } from "../ledger/waits.ts";
import { abandonedBy } from "./abandoned.ts";
import type { Asks } from "./asks.ts";
import { Attempt, type Ended } from "./attempt.ts";
import { subFlowChunk } from "./child.ts";
import { cleanupChunk, goneCommand } from "./cleanup.ts";
import type { Collections } from "./collections.ts";
import { ReadCtx } from "./ctx/read.ts";
import type { Entries } from "./entries.ts";
import type { Engine } from "./host.ts";
import { newLink, wantsLink, withLink } from "./links.ts";
import type { Ready } from "./ready.ts";
import { serializeError } from "./retries.ts";
import { askConditions } from "./routing.ts";
import type { Running } from "./running.ts";
import type { Slots } from "./slots.ts";
import { effectCommands } from "./work.ts";

interface Parts {
  readonly engine: Engine;
  readonly asks: Asks;
  readonly entries: Entries;
  readonly ready: Ready;
  readonly slots: Slots;
  readonly collections: Collections;
}

export class Runs {
  readonly #of: Parts;
  #checkedAt = 0;

  constructor(parts: Parts) {
    this.#of = parts;
  }

  /** When what is ready was last looked through, by the database's clock. */
  get checkedAt(): number {
    return this.#checkedAt;
  }

  /** Its flow is paused, and nothing ends it. */
  get isFlowPaused(): boolean {
    const { engine, asks } = this.#of;
    return asks.state.cancelling === null && engine.isFlowPaused(asks.flow.name);
  }

  /** Starts what is ready, as far as there are slots. */
  start(): void {
    const { asks, entries, ready, slots } = this.#of;
    const { state } = asks;
    const now = (this.#checkedAt = asks.now());
    if (slots.isDraining || state.closed || state.failing) return;
    if (state.cancelling ? !isCleaning(state) : isPaused(state) || this.isFlowPaused) return;
    // What an ended chunk wrote is folded before the next chunk starts, so that it sees it.
    if (entries.hasWork) return;
    slots.resume();
    ready.leaveEnded();
    if (ready.isEmpty) return;
    for (const dispatch of ready.take(now, slots.free, slots.running)) this.#startOne(dispatch, now);
  }

  #startOne(dispatch: Dispatch, now: number): void {
    const { asks, entries, ready, slots, collections } = this.#of;
    const { graph } = asks;
    const due = ready.at(dispatch);
    const queuedAt = Math.trunc(Math.max(dispatch.plannedAt, dispatch.notBefore ?? 0, due <= now ? due : 0));
    const running = slots.begin(dispatch, { queuedAt, startedAt: Math.max(queuedAt, Math.trunc(now)) });
    const node = dispatch.chunk === null ? graph.nodes.get(dispatch.node) : undefined;
    if ((node?.kind === "forEach" || node?.kind === "batch") && node.distribute)
      return void collections.distribute(running, node);
    if (dispatch.cleanup) {
      const cleanup = cleanupChunk(graph, dispatch);
      return cleanup ? void this.#attempt(running, cleanup) : entries.end(running, [goneCommand(dispatch)]);
    }
    const chunk = dispatch.chunk === null ? this.#subFlow(dispatch) : graph.chunks.get(dispatch.chunk);
    if (chunk) void this.#attempt(running, chunk);
    else void this.#forward(running);
  }

  #subFlow(dispatch: Dispatch): Chunk | undefined {
    const { graph, flow } = this.#of.asks;
    const node = graph.nodes.get(dispatch.node);
    const definition = node?.kind === "subFlow" ? flow.subFlows.get(node.flow) : undefined;
    return node?.kind === "subFlow" && definition ? subFlowChunk(node, definition) : undefined;
  }

  async #attempt(running: Running, chunk: Chunk): Promise<void> {
    const { asks, entries } = this.#of;
    const { dispatch } = running;
    const input = dispatch.tells ? await this.#linked(running, dispatch.tells) : dispatch.input;
    if (input === undefined) return;
    running.attempt = new Attempt(asks, dispatch, chunk, running.abort, input);
    const ended = await running.attempt.run();
    entries.end(running, this.#endCommands(running, ended));
  }

  /** With a link of its own, whose hash is in the ledger by then; undefined where the attempt was cut off meanwhile. */
  async #linked(running: Running, notice: Notice): Promise<Json | undefined> {
    const { asks, entries, slots } = this.#of;
    const { publicUrl } = asks;
    const { dispatch } = running;
    if (publicUrl === null || !wantsLink(asks.state, notice)) return dispatch.input;
    const link = newLink(publicUrl);
    const isKept = await entries
      .submit(dispatch.id, [{ type: "link", interrupt: notice.interrupt, hash: link.hash }])
      .then(
        () => true,
        () => false,
      );
    return isKept && slots.running.get(dispatch.id) === running ? withLink(dispatch.input, link) : undefined;
  }

  #endCommands({ dispatch, times }: Running, ended: Ended): Command[] {
    const { id } = dispatch;
    switch (ended.kind) {
      case "completed":
        return [
          ...effectCommands(id, ended.effects),
          { type: "complete", dispatch: id, output: ended.output, matches: ended.matches, times },
          ...abandonedBy(this.#of.asks, dispatch),
        ];
      case "paused":
        return [
          ...effectCommands(id, ended.effects),
          { type: "pause", dispatch: id, interrupt: ended.interrupt, times },
          ...abandonedBy(this.#of.asks, dispatch),
        ];
      case "dropped":
        return [{ type: "drop", dispatch: id }];
      case "failed":
        return [
          {
            type: "fail",
            dispatch: id,
            error: ended.serialized,
            retryInMs: ended.retryInMs,
            times: ended.turns.length > 0 ? { ...times, turns: ended.turns } : times,
          },
        ];
    }
  }

  /** A dispatch without a chunk: its node's conditions are asked, and its value goes on. */
  async #forward(running: Running): Promise<void> {
    const { asks, entries } = this.#of;
    const { dispatch } = running;
    const asked = askConditions(asks.graph, [dispatch.node], dispatch.input, (value) => new ReadCtx(asks, value));
    const command = await asked.then(
      (matches): Command => ({ type: "forward", dispatch: dispatch.id, matches }),
      (error: unknown): Command => {
        const serialized = serializeError(error, dispatch.node, 1);
        return { type: "fail", dispatch: dispatch.id, error: serialized, retryInMs: null };
      },
    );
    entries.end(running, [command]);
  }
}
