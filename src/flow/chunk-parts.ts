/** A chunk as `to()` and `batch()` take it, from typed to stored. */
import { DefinitionError } from "../base/errors.ts";
import { show } from "../base/option.ts";
import type { ChunkHandler } from "./context.ts";
import type { ChunkOptions } from "./definition.ts";

/** What `chunk()` makes and `to()` takes. */
export interface ChunkParts {
  readonly name: string;
  readonly handler: ChunkHandler;
  readonly options: ChunkOptions | undefined;
}

export function partsOf(name: unknown, handler: unknown, options: ChunkOptions | undefined): ChunkParts {
  return { name: erase(name), handler: erase(handler), options };
}

/** @param key the name of what is a function alone; null takes the function's own. @throws {DefinitionError} it is no chunk */
export function branchPartsOf(branch: unknown, key: string | null): ChunkParts {
  if (typeof branch === "function") return partsOf(key ?? branch.name, branch, undefined);
  if (typeof branch === "object" && branch !== null && "handler" in branch) return branch as ChunkParts;
  throw new DefinitionError(
    "?",
    `${show(key ?? branch)} is no chunk`,
    "give a function of ctx, or what flow.chunk() returned",
  );
}

/**
 * The cast between the typed chain and the graph. A handler is stored for any input, and the engine gives it what the step before
 * returned: that this is its `In` was checked where the two were chained.
 */
export function erase<F>(handler: unknown): F {
  return handler as F;
}
