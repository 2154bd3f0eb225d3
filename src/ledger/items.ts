/** Items of a distributed collection: their ids follow from one base, so that a range of ids is the collection; and what it hears of them. */
import type { Json } from "../base/json.ts";
import { dispatchOf } from "./dispatches.ts";
import type { EventOf, ExecutionId } from "./event.ts";
import type { ExecutionState } from "./state.ts";

/** Hex digits at the end of an id that hold the item's index. */
const indexDigits = 8;

/** The id of an item: the base with the index in its last eight digits. The base is the id of item 0. */
export function itemId(base: ExecutionId, index: number): ExecutionId {
  return `${familyOf(base)}${index.toString(16).padStart(indexDigits, "0")}` as ExecutionId;
}

export function indexOf(id: string): number {
  return Number.parseInt(id.slice(-indexDigits), 16);
}

/** What the ids of all items of one collection begin with. */
export function familyOf(id: string): string {
  return id.slice(0, -indexDigits);
}

/** The collection of a distributed dispatch has the dispatch's own id. */
export function itemsStarted(state: ExecutionState, event: EventOf<"items.started">): void {
  const { id, node, at, scope, group } = dispatchOf(state, event.dispatch);
  state.frames.set(id, {
    id,
    node,
    keys: event.keys ?? null,
    results: new Array<Json>(event.size).fill(null),
    done: new Array<boolean>(event.size).fill(false),
    missing: event.size,
    at,
    scope,
    group,
    items: {
      base: event.base,
      readsState: state.item?.readsState || Object.keys(state.values).length > 0,
      wrote: [],
      ...(event.earlier && { earlier: event.earlier }),
    },
  });
}

/** A batch of them has ended; each counts once. */
export function itemsClosed(state: ExecutionState, event: EventOf<"items.closed">): void {
  const frame = state.frames.get(event.dispatch);
  if (!frame) return;
  for (const [index, value] of event.results) {
    if (frame.done[index]) continue;
    frame.results[index] = value;
    frame.done[index] = true;
    frame.missing -= 1;
  }
  frame.items?.wrote.push(...(event.wrote ?? []));
}
