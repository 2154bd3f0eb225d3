/** A chunk's effects in order: buffered until the next commit point, recognised when an attempt repeats them. */
import { JournalMismatchError } from "../base/errors.ts";
import { canonical, type Json, type JsonObject } from "../base/json.ts";
import type { Effect } from "../ledger/decide.ts";
import type { JournalEntry } from "../ledger/state.ts";
import { Past } from "./past.ts";

export class Journal {
  readonly #recorded: ReadonlyMap<number, JournalEntry>;
  readonly #place: { readonly executionId: string; readonly chunk: string };
  readonly #live: readonly JournalEntry[];
  #past: Past | null = null;
  #buffer: Effect[] = [];
  /** On its way into the ledger, and perhaps not folded yet. */
  #taken: readonly Effect[] = [];
  #next = 0;

  constructor(recorded: readonly JournalEntry[], place: { readonly executionId: string; readonly chunk: string }) {
    this.#recorded = recorded.length === 0 ? nothing : new Map(recorded.map((entry) => [entry.ordinal, entry]));
    this.#live = recorded;
    this.#place = place;
  }

  /**
   * The recorded entry of the next effect, or null when the effect is new. Takes the position either way.
   *
   * @param value of a write: it is compared
   * @throws {JournalMismatchError} when the ledger has something else at this position
   */
  next(effect: JournalEntry["effect"], key: string, value?: Json): { ordinal: number; entry: JournalEntry | null } {
    const ordinal = this.#next++;
    const entry = this.#recorded.get(ordinal);
    if (!entry) return { ordinal, entry: null };
    const isStep = effect === "step" && entry.effect === "stepFailed";
    if ((entry.effect !== effect && !isStep) || entry.key !== key)
      throw new JournalMismatchError(
        this.#place.executionId,
        this.#place.chunk,
        ordinal,
        words(entry.effect, entry.key),
        words(effect, key),
      );
    if (value !== undefined && "value" in entry && canonical(entry.value) !== canonical(value))
      throw new JournalMismatchError(
        this.#place.executionId,
        this.#place.chunk,
        ordinal,
        words(effect, key),
        `${words(effect, key)} with another value`,
      );
    return { ordinal, entry };
  }

  /** The state as the first attempt saw it at this place. */
  asOfHere(current: JsonObject): JsonObject {
    return this.#recorded.size === 0 ? current : (this.#past ??= new Past(this.#live)).at(this.#next, current);
  }

  buffer(effect: Effect): void {
    this.#buffer.push(effect);
  }

  get hasBuffered(): boolean {
    return this.#buffer.length > 0;
  }

  /** State writes that are not folded yet. */
  pendingWrites(): readonly Effect[] {
    const [first] = this.#taken;
    // They are folded together.
    if (first && this.#live.findLast(({ ordinal }) => ordinal === first.ordinal)) this.#taken = [];
    return [...this.#taken, ...this.#buffer].filter((effect) => "key" in effect);
  }

  /** The buffered effects, for the commit that is about to be sent. */
  take(): Effect[] {
    const taken = this.#buffer;
    this.#buffer = [];
    this.#taken = taken;
    return taken;
  }
}

const nothing: ReadonlyMap<number, JournalEntry> = new Map();

function words(effect: JournalEntry["effect"], key: string): string {
  const name = effect === "stepFailed" ? "step" : effect;
  return key === "" ? name : `${name} "${key}"`;
}
