/** What `prune()` is asked for: by time, or by name. */
import { UsageError } from "../base/errors.ts";
import {
  requireActor,
  requireDate,
  requireFunction,
  requireKnown,
  requireList,
  requireName,
  requireText,
  show,
} from "../base/option.ts";
import { isObject } from "../base/json.ts";
import { Outcome } from "../ledger/event.ts";
import type { Audit } from "../store/audit.ts";
import type { Pruned } from "../store/prune.ts";
import { parseMetadata } from "./start-options.ts";
import { requireExecutionId } from "./ids.ts";

/** By age. */
export interface AgePruneOptions {
  /** Executions that closed before this go. */
  closedBefore: Date;
  /** What stays all the same: one of these statuses or flows, or metadata that contains this. */
  keep?: {
    readonly status?: readonly ("completed" | "failed" | "cancelled")[];
    readonly flow?: readonly string[];
    readonly metadata?: Readonly<Record<string, unknown>>;
  };
  /** Called after each page with what went so far. */
  onProgress?: (pruned: Pruned) => void;
}

/** By name, as for a person's right to be forgotten. */
export interface NamedPruneOptions {
  /** Closed executions: they go with their sub-flows, all or none. */
  ids: readonly string[];
  /** Who asked for it: 1 to 500 characters, kept in `flowledger.prunes`. */
  actor: string;
  /** Why: 1 to 10,000 characters, kept there too, so without what is to be forgotten. */
  reason: string;
}

/** Of `prune()`: by age, or by id with who asked for it and why. */
export type PruneOptions = AgePruneOptions | NamedPruneOptions;

const endings = new Set<string>(Outcome.options);
/** Of a text that is searched for: longer ones are nowhere. */
const longest = 1000;

/** @throws {UsageError | ExecutionNotFoundError} */
export function parsePrune(options: PruneOptions): (audit: Audit) => Promise<Pruned> {
  if (!isNamed(options)) return parseAge(options);
  requireKnown(options, ["ids", "actor", "reason"], "prune() with ids");
  const { ids, actor, reason } = options;
  if (!Array.isArray(ids) || ids.length === 0)
    throw new UsageError("ids of prune() must be a list with at least one id", "pass the ids of closed executions");
  const named = {
    ids: ids.map(requireExecutionId),
    actor: requireActor(actor, "actor of prune()"),
    reason: requireName(reason, "reason of prune()", { max: 10_000 }),
  };
  return (audit) => audit.pruneIds(named);
}

function isNamed(options: PruneOptions): options is NamedPruneOptions {
  return isObject(options) && "ids" in options && options["ids"] !== undefined;
}

function parseAge(options: AgePruneOptions): (audit: Audit) => Promise<Pruned> {
  requireKnown(options, ["closedBefore", "keep", "onProgress"], "prune()");
  requireDate(options.closedBefore, "closedBefore of prune()");
  if (options.onProgress !== undefined) requireFunction(options.onProgress, "onProgress of prune()");
  const { keep: kept = {} } = options;
  requireKnown(kept, ["status", "flow", "metadata"], "keep of prune()");
  const { status = [], flow = [], metadata } = kept;
  requireList(status, "status in keep of prune()", (one) => {
    if (typeof one !== "string" || !endings.has(one))
      throw new UsageError(
        `status ${show(one)} in keep of prune() is none a closed execution has`,
        `use ${[...endings].join(", ")}`,
      );
  });
  requireList(flow, "flow in keep of prune()", (one, of) => requireText(one, of, { max: longest }));
  const keep = {
    status: [...status],
    flow: [...flow],
    ...(metadata !== undefined && { metadata: parseMetadata(metadata) }),
  };
  return (audit) => audit.prune(options.closedBefore, keep, options.onProgress);
}
