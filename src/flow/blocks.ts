/** Blocks of a flow while they are written: what is open, what may come next, and where its cases lead. */
import { toJson, type Json } from "../base/json.ts";
import { showWhole, type Refuse } from "../base/option.ts";
import { asDefinition } from "./chunk-options.ts";
import type { Predicate } from "./context.ts";
import type { CaseTest, ForEachStep, MatchStep, Outlet } from "./steps.ts";

/** An opened match, ifCondition or forEach. */
export interface Block {
  readonly kind: "if" | "match" | "forEach";
  readonly step: Outlet & (MatchStep | ForEachStep);
  readonly outer: Block | null;
  readonly from: Outlet;
  part: "start" | "case" | "else" | "closed";
}

/** Where a chain stands. There is no outlet between `match()` and its first case. */
export interface Position {
  readonly outlet: Outlet | null;
  readonly block: Block | null;
}

/** Stands for the else of a match; compared by identity, because a case may equal any JSON. */
export const otherwise = Object.freeze({ otherwise: true } as const);

export function isOtherwise(test: unknown): test is { readonly otherwise: true } {
  return test === otherwise;
}

const calls = {
  if: { opens: "ifCondition()", closes: "endCondition()" },
  match: { opens: "match()", closes: "endMatch()" },
  forEach: { opens: "forEach()", closes: "endForEach()" },
};

/** The block that a call continues. @param called e.g. `endMatch()`. @throws {DefinitionError} it stands in none, or in another */
export function requireBlock({ block }: Position, kind: Block["kind"], called: string, refuse: Refuse): Block {
  const { opens } = calls[kind];
  if (block === null) return refuse(`${called} stands outside ${opens}`, `begin with ${opens}`);
  if (block.kind !== kind)
    refuse(
      `${called} stands inside ${calls[block.kind].opens} after ${showWhole(block.step.label)}`,
      `close that first, or begin with ${opens}`,
    );
  if (block.part === "closed")
    refuse(`${called} comes after ${opens} was closed`, "go on with the chain that the end returned");
  return block;
}

/** @throws {DefinitionError} naming the first that is still open */
export function requireClosed(blocks: Iterable<Block>, refuse: Refuse): void {
  for (const { kind, step } of blocks)
    refuse(`${calls[kind].opens} after ${showWhole(step.label)} is never closed`, `add ${calls[kind].closes}`);
}

/** Leads the chain of a case, or of an item, to the end of its block. */
export function reachEnd(at: Position, block: Block): void {
  if (at.outlet !== null && !at.outlet.next.includes(block.step.end)) at.outlet.next.push(block.step.end);
}

/** @throws {DefinitionError} a value that JSON cannot hold, or a condition that is no function */
export function caseTest(
  flow: string,
  test: Json | Predicate,
  kind: "if" | "match",
  step: MatchStep & Outlet,
  refuse: Refuse,
): CaseTest {
  if (typeof test === "function")
    return { predicate: test, name: null, word: kind === "match" ? "case" : step.cases.length ? "elif" : "if" };
  if (kind === "if")
    refuse(`a condition after ${showWhole(step.label)} must be a function`, "use ifCondition((ctx) => boolean)");
  return { equals: asDefinition(flow, "case()", () => toJson(test, `case of flow "${flow}"`)) };
}
