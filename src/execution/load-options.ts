/** What a load is asked with. */
import { requireKnown, requireRecord } from "../base/option.ts";
import type { Resources } from "../engine/resources.ts";
import { requireKey, type KeyOptions } from "./signature.ts";

/** Of a load. */
export interface LoadOptions extends KeyOptions {
  /** Live objects for the execution, in this process only. */
  readonly runtimeResources?: Resources;
}

/** @throws {UsageError} */
export function resourcesIn(options: LoadOptions, where: string): Resources {
  requireKnown(options, ["runtimeResources", "key"], where);
  requireKey(options);
  const { runtimeResources = {} } = options;
  return requireRecord(runtimeResources, `runtimeResources of ${where}`);
}
