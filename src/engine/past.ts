/** The state as an earlier attempt saw it: what that one wrote further on has not happened yet. */
import { copyJson, type JsonObject } from "../base/json.ts";
import { undoWrite } from "../base/path.ts";
import { repeatWrites, type JournalEntry, type WriteEntry } from "../ledger/state.ts";

/** Each write is undone once and repeated once, so that a chunk that reads between its writes costs what it did at first. */
export class Past {
  readonly #writes: readonly WriteEntry[];
  /** The first of them that this attempt has not come to. */
  #next = 0;
  /** The values of the keys that are written further on. */
  #values: JsonObject | null = null;
  /** How often each of these keys is written further on. */
  readonly #left = new Map<string, number>();

  constructor(recorded: readonly JournalEntry[]) {
    this.#writes = recorded.filter(isWrite).toSorted((a, b) => a.ordinal - b.ordinal);
  }

  /** @param ordinal of the next effect; it only grows. @param current the state as it is. Returns what is not to be written to */
  at(ordinal: number, current: JsonObject): JsonObject {
    for (let write = this.#writes[this.#next]; write && write.ordinal < ordinal; write = this.#writes[++this.#next])
      this.#repeat(write);
    if (this.#next === this.#writes.length) return current;
    this.#values ??= this.#undone(current);
    const result = { ...current };
    for (const top of this.#left.keys())
      if (this.#values[top] === undefined) delete result[top];
      else result[top] = this.#values[top];
    return result;
  }

  #undone(current: JsonObject): JsonObject {
    const values: JsonObject = {};
    const ahead = this.#writes.slice(this.#next);
    this.#left.clear();
    for (const { key } of ahead) this.#left.set(topOf(key), (this.#left.get(topOf(key)) ?? 0) + 1);
    for (const top of this.#left.keys()) if (current[top] !== undefined) values[top] = copyJson(current[top]);
    for (const { key, found } of ahead.toReversed()) if (found) undoWrite(values, key, found);
    return values;
  }

  #repeat({ effect, key, value }: WriteEntry): void {
    if (!this.#values) return;
    const top = topOf(key);
    const left = (this.#left.get(top) ?? 1) - 1;
    if (left > 0) this.#left.set(top, left);
    else {
      this.#left.delete(top);
      delete this.#values[top];
    }
    // What an older release folded, or an operator let go on, is not known: it is undone anew.
    if (value === undefined && effect !== "delete") this.#values = null;
    else if (left > 0) repeatWrites(this.#values, [{ effect, key, value: value ?? null }]);
  }
}

function isWrite(entry: JournalEntry): entry is WriteEntry {
  return entry.effect === "set" || entry.effect === "append" || entry.effect === "delete";
}

function topOf(key: string): string {
  return key.split(".", 1)[0] ?? key;
}
