/** Children of an execution that nobody waits for any more: their end is asked for, once that is in the ledger. */
import type { Logger } from "../flow/context.ts";
import type { Command } from "../ledger/command.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Dispatch } from "../ledger/parts.ts";
import type { AttemptHost, Engine } from "./host.ts";

/** Of the children that a chunk called in any of its attempts, those whose end nobody has heard of. */
export function abandonedBy(
  { state, ended }: Pick<AttemptHost, "state" | "ended">,
  { id, journal }: Dispatch,
): Command[] {
  return journal.flatMap((entry): Command[] => {
    if (entry.effect !== "call" || ended.has(entry.child)) return [];
    const child = state.children.get(entry.child);
    const runsOn = child === undefined || child.leaves === true || child.closed !== null;
    return runsOn ? [] : [{ type: "abandon", dispatch: id, child: entry.child }];
  });
}

export class Abandoned {
  /** Not asked for yet. */
  readonly #left = new Set<ExecutionId>();
  readonly #id: ExecutionId;
  readonly #engine: Pick<Engine, "cancelChildren">;
  readonly #log: Logger;
  readonly #onAsked: () => void;

  /** @param onAsked called whenever all that were left have been asked for */
  constructor(id: ExecutionId, engine: Pick<Engine, "cancelChildren">, log: Logger, onAsked: () => void) {
    this.#id = id;
    this.#engine = engine;
    this.#log = log;
    this.#onAsked = onAsked;
  }

  /** The execution is not given back before. */
  get isAsking(): boolean {
    return this.#left.size > 0;
  }

  /** It is folded, and not in the ledger yet. */
  add(child: ExecutionId): void {
    this.#left.add(child);
  }

  /** An owner before this one may not have lived to ask. */
  takeOver(children: ExecutionState["children"]): void {
    for (const [child, { isAbandoned, closed }] of children) if (isAbandoned && closed === null) this.#left.add(child);
    this.ask();
  }

  /** Should that fail, whoever claims next asks again, and so does whoever tells of the close. */
  ask(): void {
    if (this.isAsking) void this.#ask([...this.#left]);
  }

  async #ask(children: readonly ExecutionId[]): Promise<void> {
    await this.#engine
      .cancelChildren(this.#id, children)
      .catch((error: unknown) => this.#log.warn("abandoned children could not be cancelled", { error: String(error) }));
    for (const child of children) this.#left.delete(child);
    if (!this.isAsking) this.#onAsked();
  }
}
