/** The state as an earlier attempt saw it: what that one wrote further on has not happened yet. */
import { copyJson, type JsonObject } from "../base/json.ts";
import { undoWrite } from "../base/path.ts";
import { repeatWrites, type JournalEntry, type WriteEntry } from "../ledger/parts.ts";

/** Each write is undone once and repeated once, so that a chunk that reads between its writes costs what it did at first. */
export class Past {
  readonly #live: readonly JournalEntry[];
  readonly #claimed: ReadonlySet<number>;
  /** What earlier attempts wrote, as the ledger has it. */
  readonly #writes: readonly WriteEntry[];
  readonly #ordinals: ReadonlySet<number>;
  /** The first of them that this attempt has not come to. */
  #next = 0;
  /** How long the journal was, and how much had come, when that was last looked at. */
  #length = 0;
  #come = 0;
  /** The values of the keys that are written further on. */
  #values: JsonObject | null = null;
  /** How often each of these keys is written further on. */
  readonly #left = new Map<string, number>();

  /**
   * @param recorded what earlier attempts did
   * @param live the same, and what this one adds
   * @param claimed the ordinals that this attempt has come to; they only grow
   */
  constructor(recorded: Iterable<JournalEntry>, live: readonly JournalEntry[], claimed: ReadonlySet<number>) {
    this.#writes = [...recorded].filter(isWrite);
    this.#ordinals = new Set(this.#writes.map(({ ordinal }) => ordinal));
    this.#live = live;
    this.#claimed = claimed;
  }

  /** @param current the state as it is. @param isInOrder this attempt came to everything as it was recorded. Returns what is not to be written to */
  at(current: JsonObject, isInOrder: boolean): JsonObject {
    for (let write = this.#writes[this.#next]; write && this.#claimed.has(write.ordinal);) {
      if (isInOrder) this.#repeat(write);
      write = this.#writes[++this.#next];
    }
    if (this.#next === this.#writes.length) return current;
    const { length } = this.#live;
    const { size } = this.#claimed;
    if (length !== this.#length || (!isInOrder && size !== this.#come)) this.#values = null;
    this.#length = length;
    this.#come = size;
    this.#values ??= this.#undone(current);
    const result = { ...current };
    for (const top of this.#left.keys())
      if (this.#values[top] === undefined) delete result[top];
      else result[top] = this.#values[top];
    return result;
  }

  #isAhead({ ordinal }: WriteEntry): boolean {
    return this.#ordinals.has(ordinal) && !this.#claimed.has(ordinal);
  }

  #undone(current: JsonObject): JsonObject {
    const values: JsonObject = {};
    const writes = this.#live.filter(isWrite);
    const since = writes.slice(writes.findIndex((write) => this.#isAhead(write)));
    this.#left.clear();
    for (const write of since)
      if (this.#isAhead(write)) this.#left.set(topOf(write.key), (this.#left.get(topOf(write.key)) ?? 0) + 1);
    for (const top of this.#left.keys()) if (current[top] !== undefined) values[top] = copyJson(current[top]);
    const touching = since.filter(({ key }) => this.#left.has(topOf(key)));
    for (const { key, found } of touching.toReversed()) if (found) undoWrite(values, key, found);
    for (const write of touching) if (!this.#isAhead(write)) repeatOne(values, write);
    return values;
  }

  #repeat(write: WriteEntry): void {
    if (!this.#values) return;
    const top = topOf(write.key);
    const left = (this.#left.get(top) ?? 1) - 1;
    if (left > 0) this.#left.set(top, left);
    else {
      this.#left.delete(top);
      delete this.#values[top];
    }
    // The value is unknown where an older release folded the write or an operator let it go on: the past is undone again.
    if (write.value === undefined && write.effect !== "delete") this.#values = null;
    else if (left > 0) repeatOne(this.#values, write);
  }
}

function repeatOne(values: JsonObject, { effect, key, value }: WriteEntry): void {
  if (value !== undefined || effect === "delete") repeatWrites(values, [{ effect, key, value: value ?? null }]);
}

function isWrite(entry: JournalEntry): entry is WriteEntry {
  return entry.effect === "set" || entry.effect === "append" || entry.effect === "delete";
}

function topOf(key: string): string {
  return key.split(".", 1)[0] ?? key;
}
