/** Ids of the items of a distributed collection: they follow from one base, so that a range of ids is the collection. */
import type { ExecutionId } from "./event.ts";

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
