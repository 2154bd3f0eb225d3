/** Child executions: what a sub-flow takes from its parent, and what it gives back. */
import { UsageError } from "../base/errors.ts";
import type { Ctx } from "../flow/context.ts";
import { parseInput } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Chunk, SubFlowNode } from "../flow/graph.ts";
import { limitKeyOf } from "../flow/limits.ts";
import { resolveRetry } from "../flow/retry.ts";
import { show } from "../base/option.ts";
import { getPath, setPath } from "../base/path.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { NewExecution } from "../store/starts.ts";
import { copyJson, isObject, type Json, type JsonObject } from "../base/json.ts";
import { finalResultKey } from "../ledger/views.ts";

/** A child to create; creating the same id again changes nothing. */
export interface NewChild {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly input: Json;
  readonly parent: {
    readonly id: ExecutionId;
    readonly dispatch: number;
    readonly ordinal: number;
    /** For a sub-flow: the executions whose stream and interrupts show its own too, the nearest first. */
    readonly visibleIn?: readonly ExecutionId[];
  };
  /** Nobody holds a handle of its parent, so a pause could never be answered. */
  readonly isHidden?: boolean;
  /** Application state it begins with. */
  readonly state: JsonObject;
  readonly metadata: JsonObject | null;
  readonly priority: number;
  readonly delayMs: number | null;
  readonly startAt: Date | null;
  readonly discardAfter: Date | number | null;
  readonly timeoutMs: number | null;
  readonly idempotencyKey: string | null;
  /** Live objects it shares with its parent, when it runs in the same process. */
  readonly resources: Readonly<Record<string, unknown>>;
}

/** What a child starts with. */
export type Captured = Pick<NewChild, "input" | "state" | "resources">;

/** What the synthetic chunk of a sub-flow may do beyond `ctx`. */
export interface SubFlowCtx extends Ctx {
  /** null when it was cancelled from outside. */
  callChild(flow: string, captured: Captured): Promise<JsonObject | null>;
}

/** What the chunk of a sub-flow returns when the child was cancelled from outside: nothing follows from it. */
export const dropped = Symbol("dropped");

/** A sub-flow runs like a chunk whose only work is the child: journaled, so that a retry attaches to the same one. */
export function subFlowChunk(node: SubFlowNode, definition: FlowDefinition): Chunk {
  const { flow, capture, writeBack } = node;
  return {
    name: flow,
    options: {
      retry: resolveRetry(undefined, `sub-flow "${flow}"`),
      timeoutMs: null,
      onFailure: null,
      input: null,
      output: null,
    },
    handler: async (ctx) => {
      const parent = ctx as SubFlowCtx;
      const given = await captured(parent, flow, capture);
      const input = parseInput(definition, given.input);
      const snapshot = await parent.callChild(definition.name, { ...given, input });
      if (!snapshot) return dropped;
      if (!writeBack) return resultOf(snapshot);
      return writtenBack(parent, flow, writeBack, snapshot);
    },
  };
}

/** `$final_result` where there is one, else the close snapshot. */
export function resultOf(snapshot: JsonObject): Json {
  return Object.hasOwn(snapshot, finalResultKey) ? (snapshot[finalResultKey] ?? null) : snapshot;
}

async function captured(ctx: SubFlowCtx, flow: string, capture: SubFlowNode["capture"]): Promise<Captured> {
  if (!capture) return { input: ctx.input, state: {}, resources: {} };
  const targets: JsonObject = {};
  const resources: Record<string, unknown> = {};
  for (const [target, source] of Object.entries(capture)) {
    const [scope = "", ...rest] = target.split(".");
    if (scope === "resources") resources[rest.join(".")] = ctx.requireResource(source.replace(/^resources\./, ""));
    else setPath(targets, target, await readSource(ctx, flow, source));
  }
  const state = targets["state"];
  return { input: targets["input"] ?? null, state: isObject(state) ? state : {}, resources };
}

async function readSource(ctx: SubFlowCtx, flow: string, source: string): Promise<Json> {
  const [scope = "", ...rest] = source.split(".");
  let root: Json = scope === "state" ? (ctx.getState() as JsonObject) : ctx.input;
  if (scope === "flowData") root = await ctx.getFlowData(rest.shift() ?? "", { noWarning: true });
  const path = rest.join(".");
  const found = path === "" ? root : isObject(root) ? getPath(root, path) : undefined;
  if (found !== undefined) return copyJson(found);
  throw new UsageError(
    `sub-flow "${flow}" captures ${source}, which does not exist`,
    "write it before the sub-flow, or capture another path",
  );
}

async function writtenBack(
  ctx: SubFlowCtx,
  flow: string,
  writeBack: Readonly<Record<string, string>>,
  snapshot: JsonObject,
): Promise<Json> {
  const holder: JsonObject = { value: copyJson(ctx.input) };
  for (const [target, source] of Object.entries(writeBack)) {
    const value = readResult(flow, source, snapshot);
    if (target === "value" || target.startsWith("value.")) setPath(holder, target, value);
    else if (target.startsWith("state.")) await ctx.setState(target.slice("state.".length), value);
    else await ctx.setFlowData(target.slice("flowData.".length), value, { noWarning: true });
  }
  return holder["value"] ?? null;
}

/** `result.a.b` is looked for in `$final_result` first, then in the close snapshot; `snapshot.a.b` only there. */
function readResult(flow: string, source: string, snapshot: JsonObject): Json {
  const [scope = "", ...rest] = source.split(".");
  const path = rest.join(".");
  if (path === "") return scope === "result" ? resultOf(snapshot) : snapshot;
  const final = snapshot[finalResultKey];
  const fromFinal = scope === "result" && isObject(final) ? getPath(final, path) : undefined;
  const found = fromFinal ?? getPath(snapshot, path);
  if (found !== undefined) return copyJson(found);
  throw new UsageError(
    `sub-flow "${flow}" path "${source}" was not found in its result`,
    "let the child write it, or correct writeBack",
  );
}

/** A child closes as soon as it is idle, and its parent waits for that. */
export function childExecution(child: NewChild, definition: FlowDefinition | undefined): NewExecution {
  const { timeoutMs, resources, isHidden, ...rest } = child;
  const longest = timeoutMs ?? definition?.maxDurationMs ?? null;
  return {
    ...rest,
    settings: { autoCloseMs: 0, ...(longest !== null && { timeoutMs: longest }), ...(isHidden && { hidden: true }) },
    limitKey: definition ? limitKeyOf(definition, child.input) : null,
    resourceKeys: Object.keys(resources).toSorted(),
  };
}

/** The child's id, where that is what the database has. @throws {UsageError} where its idempotency key is another execution's */
export function ownChild({ id, flow, idempotencyKey }: NewChild, found: ExecutionId): ExecutionId {
  if (found === id) return id;
  throw new UsageError(
    `idempotencyKey ${show(idempotencyKey)} of ctx.call("${flow}") is the key of execution ${found}`,
    "wait for that one by its handle, or take another key",
  );
}
