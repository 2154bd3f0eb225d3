/** Edits of the state by an operator, which may come before writes that the owner has folded already. */
import { appendPath, deletePath, setPath } from "../base/path.ts";
import { copyJson } from "../base/json.ts";
import type { EventOf, LedgerEvent } from "./event.ts";
import type { ExecutionState } from "./state.ts";

export function edited(state: ExecutionState, { changes }: EventOf<"state.edited">): void {
  for (const change of changes) {
    const { path: key, op } = change;
    if (op === "set") setPath(state.values, key, copyJson(change.value));
    else deletePath(state.values, key);
    state.writes?.push({ effect: op, key, value: op === "set" ? change.value : null });
  }
}

/**
 * Edits that were folded behind what an owner had written, and that come before it in the ledger: what it wrote there counts.
 *
 * @param own the owner's events that come behind the edits
 * @throws {Error} that cannot be put right here: whoever claims next folds the ledger in its order
 */
export function writeAgain(
  state: ExecutionState,
  foreign: readonly { readonly event: LedgerEvent }[],
  own: readonly LedgerEvent[],
): void {
  const paths = foreign
    .flatMap(({ event }) => (event.type === "state.edited" ? event.changes : []))
    .map(({ path }) => path);
  if (paths.length === 0) return;
  for (const event of own) {
    if (event.type !== "state.set" && event.type !== "state.appended" && event.type !== "state.deleted") continue;
    const { key } = event;
    if (event.type === "state.appended" && paths.some((path) => path.startsWith(`${key}.`)))
      throw new Error(`the state was edited below "${key}" while a chunk appended to it`);
    if (!paths.some((path) => path === key || isBelow(path, key) || isBelow(key, path))) continue;
    // Repeating this write may undo later writes below or above it, so they are repeated too.
    paths.push(key);
    if (event.type === "state.set") setPath(state.values, key, copyJson(event.value));
    else if (event.type === "state.appended") appendPath(state.values, key, copyJson(event.value));
    else deletePath(state.values, key);
  }
}

function isBelow(path: string, above: string): boolean {
  return path.startsWith(`${above}.`);
}
