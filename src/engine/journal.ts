/** A chunk's effects in order: buffered until the next commit point, recognised when an attempt repeats them. */
import { JournalMismatchError } from "../base/errors.ts";
import { canonical, type Json, type JsonObject } from "../base/json.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { Effect } from "../ledger/command.ts";
import type { JournalEntry } from "../ledger/parts.ts";
import type { AttemptHost } from "./host.ts";
import { Past } from "./past.ts";

interface Place {
  readonly executionId: string;
  readonly chunk: string;
  /** What has only begun binds nobody: a sleep that is not over, a call that has not ended, a step that is tried again. */
  readonly isOver: (entry: JournalEntry) => boolean;
  /** Whether an attempt before this one failed: then plain code may go further, and branches come in another order. */
  readonly hasFailed: boolean;
  /** How long the attempts before it took to fail, or to their last effect; 0 where no time tells. */
  readonly tookMs: number;
  /** Ends its waiting. */
  readonly signal: AbortSignal;
}

/** An effect that came before one which an earlier attempt did first: a branch beside it may still come to that. */
interface Doubt {
  /** What is recorded before this position has to come. */
  readonly bound: number;
  readonly recorded: { readonly ordinal: number; readonly words: string };
  readonly found: string;
}

interface Found {
  readonly ordinal: number;
  /** Null when the effect is new. */
  readonly entry: JournalEntry | null;
}

export class Journal {
  readonly #recorded: ReadonlyMap<number, JournalEntry>;
  readonly #place: Place;
  readonly #live: readonly JournalEntry[];
  #past: Past | null = null;
  #buffer: Effect[] = [];
  /** On its way into the ledger, and perhaps not folded yet. */
  #taken: readonly Effect[] = [];
  #next = 0;
  /** After all that is recorded: for what comes where something else is. */
  #end = 0;
  /** Positions that are not to be come to any more. */
  readonly #passed = new Set<number>();
  readonly #claimed = new Set<number>();
  #isInOrder = true;
  /** Its sleeps have other times than the recorded ones, as those that are counted from now have. */
  #isRelaxed: boolean;
  /** Positions by what was done there; made when something comes in another order. */
  #byWords: Map<string, number[]> | null = null;
  #doubts: Doubt[] = [];
  #isNewlyDoubted = false;
  #refused: JournalMismatchError | null = null;
  #onClaim: (() => void)[] = [];

  constructor(recorded: readonly JournalEntry[], place: Place) {
    this.#recorded = recorded.length === 0 ? nothing : new Map(recorded.map((entry) => [entry.ordinal, entry]));
    for (const { ordinal } of recorded) this.#end = Math.max(this.#end, ordinal + 1);
    this.#live = recorded;
    this.#place = place;
    this.#isRelaxed = !place.hasFailed;
  }

  /**
   * The recorded entry of the next effect. It is known by its kind, its name and what it is given; its position decides among
   * several, and says whether the attempt goes the way of those before.
   *
   * @param value what it is given: it is compared
   */
  next(effect: JournalEntry["effect"], key: string, value?: Json): Found {
    if (this.#claimed.size === this.#recorded.size) return { ordinal: this.#free(), entry: null };
    while (this.#passed.delete(this.#next)) this.#next++;
    const here = this.#recorded.get(this.#next);
    if (here && !this.#claimed.has(this.#next) && isSame(here, effect, key, value)) return this.#claim(this.#next++);
    const found = this.#find(effect, key, value);
    if (found === null && !here) return { ordinal: this.#free(), entry: null };
    if (found === null && here && effect === "sleep" && this.#isRelaxed && this.#isEndedSleep(here))
      return this.#claim(this.#next++);
    this.#doubtOf(found ?? Infinity, effect, key);
    this.#isInOrder = false;
    const ordinal = found ?? this.#end++;
    this.#passed.add(ordinal);
    return found === null ? { ordinal, entry: null } : this.#claim(ordinal);
  }

  #isEndedSleep(entry: JournalEntry): boolean {
    return entry.effect === "sleep" && !this.#claimed.has(entry.ordinal) && this.#place.isOver(entry);
  }

  #free(): number {
    while (this.#passed.delete(this.#next)) this.#next++;
    return this.#next++;
  }

  #claim(ordinal: number): Found {
    this.#claimed.add(ordinal);
    for (const hear of this.#onClaim.splice(0)) hear();
    return { ordinal, entry: this.#recorded.get(ordinal) ?? null };
  }

  #find(effect: JournalEntry["effect"], key: string, value: Json | undefined): number | null {
    if (!this.#byWords) {
      this.#byWords = new Map();
      for (const { ordinal, ...entry } of this.#recorded.values()) {
        const list = this.#byWords.get(words(entry.effect, entry.key));
        if (list) list.push(ordinal);
        else this.#byWords.set(words(entry.effect, entry.key), [ordinal]);
      }
    }
    const list = this.#byWords.get(words(effect, key)) ?? [];
    while (this.#claimed.has(list[0] ?? -1)) list.shift();
    for (const ordinal of list) {
      const entry = this.#recorded.get(ordinal);
      if (entry && !this.#claimed.has(ordinal) && isSame(entry, effect, key, value)) return ordinal;
    }
    return null;
  }

  #doubtOf(bound: number, effect: JournalEntry["effect"], key: string): void {
    const first = this.#missing(bound);
    if (!first) return;
    const recorded = words(first.effect, first.key);
    const found = words(effect, key);
    this.#doubts.push({
      bound,
      recorded: { ordinal: first.ordinal, words: recorded },
      found: recorded === found ? `${found} with another value` : found,
    });
    this.#isNewlyDoubted = true;
  }

  /** What an earlier attempt has done before this position, and this one has not come to. */
  #missing(bound: number): JournalEntry | null {
    for (let ordinal = this.#next; ordinal < Math.min(bound, this.#end); ordinal++) {
      if (this.#claimed.has(ordinal) || this.#passed.has(ordinal)) continue;
      const entry = this.#recorded.get(ordinal);
      if (entry && this.#place.isOver(entry)) return entry;
    }
    return null;
  }

  /** Whether something that came is still in doubt. */
  get isDoubted(): boolean {
    if (this.#doubts.length === 0) return false;
    this.#doubts = this.#doubts.filter(({ bound }) => this.#missing(bound) !== null);
    return this.#doubts.length > 0;
  }

  /** Whether what came since this was last asked has to be settled before anything follows from it. */
  takeDoubt(): boolean {
    const isDoubted = this.#isNewlyDoubted;
    this.#isNewlyDoubted = false;
    return isDoubted;
  }

  /**
   * Waits until the branches beside it have come to what is recorded before. When none does, one that runs alone has gone another
   * way than the attempts before it, unless plain code runs beside it, which nobody sees: that has some time. Of several nobody can
   * say, and each goes on.
   *
   * @throws {JournalMismatchError}
   */
  async settled(isAlone: () => boolean): Promise<void> {
    const patienceMs = Math.max(3 * lookMs, Math.min(3 * this.#place.tookMs, longestMs));
    for (let waitedMs = 0; this.isDoubted;) {
      if (this.#refused) throw this.#refused;
      if (await this.#isClaiming()) {
        waitedMs = 0;
        continue;
      }
      if (this.#place.signal.aborted) return;
      waitedMs += lookMs;
      if (this.#doubts.every(isOfSleeps)) {
        // The remaining time of a sleep may be counted from now, so a differing one is accepted.
        this.#isRelaxed = true;
        for (const { recorded } of this.#doubts.splice(0)) this.#passed.add(recorded.ordinal);
        return;
      }
      if (isAlone() && waitedMs < patienceMs) continue;
      if (isAlone()) this.refuse();
      // The missing entries are no longer waited for; they are taken wherever they come.
      for (const { bound } of this.#doubts)
        for (let entry = this.#missing(bound); entry; entry = this.#missing(bound)) this.#passed.add(entry.ordinal);
    }
  }

  /** Nothing comes any more. @throws {JournalMismatchError} where something is in doubt */
  refuse(): void {
    const [doubt] = this.isDoubted ? this.#doubts : [];
    if (!doubt) return;
    const { executionId, chunk } = this.#place;
    const { recorded, found } = doubt;
    throw (this.#refused ??= new JournalMismatchError(executionId, chunk, recorded.ordinal, recorded.words, found));
  }

  /** Whether something more is found, soon. */
  async #isClaiming(): Promise<boolean> {
    const { size } = this.#claimed;
    const claimed = Promise.withResolvers<void>();
    this.#onClaim.push(claimed.resolve);
    const done = new AbortController();
    const look = liveness.sleep(lookMs, { signal: done.signal, ref: false });
    await Promise.race([claimed.promise, look.catch(() => {})]);
    done.abort();
    // After the process was suspended the time is over although nothing could run: give it three more rounds.
    for (let round = 0; round < 3 && size === this.#claimed.size; round++) await new Promise(setImmediate);
    return size !== this.#claimed.size;
  }

  /** The state as the first attempt saw it at this place. */
  asOfHere(current: JsonObject): JsonObject {
    if (this.#recorded.size === 0) return current;
    this.#past ??= new Past(this.#recorded.values(), this.#live, this.#claimed);
    return this.#past.at(current, this.#isInOrder);
  }

  buffer(effect: Effect): void {
    this.#buffer.push(effect);
  }

  get hasBuffered(): boolean {
    return this.#buffer.length > 0;
  }

  /** State writes that are not folded yet. */
  pendingWrites(): readonly Effect[] {
    return this.pending().filter((effect) => "key" in effect);
  }

  /** Effects that are not folded yet. */
  pending(): readonly Effect[] {
    const [first] = this.#taken;
    // Taken and live effects are folded together.
    if (first && this.#live.findLast(({ ordinal }) => ordinal === first.ordinal)) this.#taken = [];
    return [...this.#taken, ...this.#buffer];
  }

  /** The buffered effects, for the commit that is about to be sent. */
  take(): Effect[] {
    const taken = this.#buffer;
    this.#buffer = [];
    this.#taken = taken;
    return taken;
  }

  /** What was taken last was refused: it is nowhere. */
  drop(): void {
    this.#taken = [];
  }
}

/** Whether what is recorded of it has an end: what has only begun may be another in the next attempt. */
export function isOver(host: AttemptHost, entry: JournalEntry): boolean {
  switch (entry.effect) {
    case "sleep":
      return entry.until <= host.now();
    case "stepFailed":
      return entry.notBefore === null;
    case "call":
      return host.ended.has(entry.child) || (host.state.children.get(entry.child)?.closed ?? null) !== null;
    default:
      return true;
  }
}

const nothing: ReadonlyMap<number, JournalEntry> = new Map();

/** So long branches may do something else before one comes to what it did in an earlier attempt. */
const lookMs = 1000;
/** And so long what seems to run alone waits, at most. */
const longestMs = 60_000;

function isSame(entry: JournalEntry, effect: JournalEntry["effect"], key: string, value: Json | undefined): boolean {
  if (entry.key !== key || (entry.effect !== effect && !(effect === "step" && entry.effect === "stepFailed")))
    return false;
  // An entry of an older release, or one that an operator let go on, has no value and matches.
  if (value === undefined || !("value" in entry) || entry.value === undefined) return true;
  return canonical(entry.value) === canonical(value);
}

function isOfSleeps({ recorded, found }: Doubt): boolean {
  return recorded.words === "sleep" && found.startsWith("sleep ");
}

function words(effect: JournalEntry["effect"], key: string): string {
  const name = effect === "stepFailed" ? "step" : effect;
  return key === "" ? name : `${name} "${key}"`;
}
