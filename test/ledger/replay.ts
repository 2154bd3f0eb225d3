/** The fixed histories (`test/histories/*.json`) once more without a database: what an owner wrote is decided anew, from what was before it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import postgres from "postgres";
import { expect } from "vitest";
import type { JsonObject, Json } from "../../src/base/json.ts";
import { askConditions } from "../../src/engine/routing.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import type { Predicate } from "../../src/flow/context.ts";
import { decode } from "../../src/ledger/codec.ts";
import { entryNodes } from "../../src/ledger/arrivals.ts";
import { decide } from "../../src/ledger/decide.ts";
import { nextTimer, settle } from "../../src/ledger/settle.ts";
import type { Command, Effect, Matches } from "../../src/ledger/command.ts";
import { ExecutionId, LedgerRow } from "../../src/ledger/event.ts";
import type { LedgerEvent, Recorded } from "../../src/ledger/event.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import { goesOnTo } from "../../src/ledger/pauses.ts";
import { initialState, type ExecutionState } from "../../src/ledger/state.ts";
import type { Arrival } from "../../src/ledger/parts.ts";
import { histories } from "../histories/flows.ts";
import { Stage } from "../histories/stage.ts";
import { someWorker } from "../support/ledger.ts";

/** Nothing connects before something is asked. */
const url = "postgres://localhost";
const drop = () => Promise.resolve();
const nowhere = { name: "", url, adminUrl: url, sql: postgres(url), drop, [Symbol.asyncDispose]: drop };
const fixtures = join(import.meta.dirname, "../histories");

/** One execution of a fixture. */
interface Fixture {
  readonly flow: FlowDefinition;
  readonly header: JsonObject;
  readonly rows: readonly Recorded[];
}

/** The executions of a fixture whose flows are served by the one worker of all histories: the definitions of others are made while they play. */
export function readFixture(name: string): Fixture[] {
  const text = readFileSync(join(fixtures, `${name}.json`), "utf8")
    .replaceAll("<worker>", someWorker)
    .replaceAll(/<id (\d+)>/g, (_, number: string) => `00000000-0000-7000-8000-${number.padStart(12, "0")}`);
  const dump = JSON.parse(text) as { execution: JsonObject; ledger: JsonObject[] }[];
  const flows = histories[name]?.(new Stage(nowhere, name)).flows ?? [];
  return dump.flatMap(({ execution, ledger }) => {
    const flow = flows.find((one) => one.name === execution["flow"]);
    if (!flow) return [];
    return [{ flow, header: execution, rows: ledger.map((row) => decode(LedgerRow.parse(timed(row)))) }];
  });
}

/** A second apart; when things were due and began is a moment before. */
function timed(row: JsonObject): JsonObject {
  const at = secondOf(row);
  const walk = (value: Json): Json => {
    if (value === "<time>") return at - 1;
    if (Array.isArray(value)) return value.map(walk);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, walk(one)]));
  };
  return { dispatch: null, chunk: null, actor: null, ...row, payload: walk(row["payload"] ?? null), at };
}

function secondOf({ seq }: JsonObject): number {
  return 1e12 + Number(seq) * 1000;
}

/** Folds a ledger, and decides each event of an owner that a command of its own yields. @returns the state, and what was decided */
export async function replay({ flow, rows }: Fixture): Promise<{ state: ExecutionState; decided: string[] }> {
  const state = initialState();
  const decided: string[] = [];
  for (let index = 0; index < rows.length;) {
    const next = rows.slice(index);
    const [first] = next;
    if (!first) break;
    const found = first.epoch === 0 ? null : await decisionOf(flow, state, next);
    if (found === null) {
      const { type } = first.event;
      if (first.epoch > 0 && isOwners(first.event)) expect.fail(`nothing decides ${type} at ${first.seq}`);
    } else decided.push(...found.map(({ type }) => type));
    for (const recorded of next.slice(0, found?.length ?? 1)) evolve(state, recorded);
    index += found?.length ?? 1;
  }
  return { state, decided };
}

/** What nobody but an owner writes. */
function isOwners(event: LedgerEvent): boolean {
  if (event.type === "event.emitted" || event.type === "interrupt.cancelled") return "dispatch" in event;
  return (
    ("ordinal" in event && event.type !== "child.closed") ||
    event.type === "interrupt.raised" ||
    event.type === "intervention.inserted" ||
    event.type === "chunk.interrupted" ||
    event.type === "child.abandoned" ||
    event.type === "execution.claimed" ||
    event.type === "execution.closed" ||
    event.type === "inbox.routed" ||
    event.type === "value.routed" ||
    event.type === "interrupt.expired" ||
    /^(chunk\.(completed|failed|parked)|step|sleep|items|cleanup|result|stream)\b/.test(event.type)
  );
}

/** The events that a command or the end yields which stand next in the ledger; null where they come from outside. */
async function decisionOf(flow: FlowDefinition, state: ExecutionState, next: readonly Recorded[]) {
  const events = next.map(({ event }) => event);
  for (const command of await commandsFor(flow, state, events)) {
    const decided = decide(state, command, flow.graph);
    if (decided.length > 0 && isDeepStrictEqual(plain(decided), plain(events.slice(0, decided.length)))) return decided;
  }
  const at = next[0]?.at ?? 0;
  for (const now of [at, nextTimer(state) ?? at, Infinity]) {
    const decided = settle(state, now, 0, false)?.events ?? [];
    if (decided.length > 0 && isDeepStrictEqual(plain(decided), plain(events.slice(0, decided.length)))) return decided;
  }
  return null;
}

/** As the fixtures have it: what an error says of a time is left out. */
export function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value).replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<time>"));
}

/** The commands that may have led to the next events. */
async function commandsFor(
  flow: FlowDefinition,
  state: ExecutionState,
  events: readonly LedgerEvent[],
): Promise<Command[]> {
  const { graph } = flow;
  // What a point takes comes before what led there.
  const event = events.find(({ type }) => type !== "intervention.inserted");
  if (!event) return [];
  const matchesOf = (ids: readonly string[], value: Json): Promise<Matches> => {
    const ctx = (input: Json) => ({ input, getState: () => state.values }) as unknown as Parameters<Predicate>[0];
    return askConditions(graph, ids, value, ctx);
  };
  const behind = (dispatch: number) => graph.nodes.get(state.dispatches.get(dispatch)?.node ?? "")?.next ?? [];
  const timesOf = ({ queuedAt, startedAt }: { queuedAt?: number | undefined; startedAt?: number | undefined }) =>
    queuedAt !== undefined && startedAt !== undefined ? { times: { queuedAt, startedAt } } : {};
  const effect = async (dispatch: number, done: Effect): Promise<Command[]> => {
    const value = "payload" in done ? done.payload : "value" in done ? done.value : null;
    const heard = "event" in done ? graph.whenEvent.get(done.event) : "key" in done && graph.whenState.get(done.key);
    const matches = await matchesOf(heard || [], value);
    const alike: Effect[] = [{ ...done, matches } as Effect, done, { ...done, silent: true } as Effect];
    return alike.map((one) => ({ type: "effect", dispatch, effect: one }));
  };
  switch (event.type) {
    case "execution.claimed": {
      const { worker, nodes, span, traceparent, fingerprint = state.fingerprint } = event;
      const more = { ...(span !== undefined && { span }), ...(traceparent !== undefined && { traceparent }) };
      const blocked = events[1]?.type === "execution.blocked" ? events[1] : null;
      return [
        ...(blocked ? [{ ...blocked, type: "block", worker } as const] : []),
        { type: "claim", worker, fingerprint, nodes: nodes ?? {}, ...more },
      ];
    }
    case "inbox.routed": {
      const [arrival] = state.inbox;
      const value = event.value ?? arrival?.value ?? null;
      const matches = await matchesOf(arrival ? entryOf(state, flow, arrival) : [], value);
      const { refused } = event;
      return [{ type: "route", matches, value: event.value, ...(refused !== undefined && { refused }) }];
    }
    case "chunk.completed":
    case "cleanup.completed": {
      const output = "output" in event ? event.output : null;
      const matches = await matchesOf(behind(event.dispatch), output);
      return [{ type: "complete", dispatch: event.dispatch, output, matches, ...timesOf(event) }];
    }
    case "chunk.failed":
    case "cleanup.failed":
    case "chunk.parked": {
      const { dispatch, error } = event;
      const retryInMs = "retryInMs" in event ? (event.retryInMs ?? null) : null;
      return [{ type: "fail", dispatch, error, retryInMs, ...timesOf(event as never) }];
    }
    case "value.routed": {
      const { dispatch } = event;
      const from = state.dispatches.get(dispatch);
      const matches = await matchesOf(from ? [from.node] : [], from?.input ?? null);
      const isCollection = [...state.frames.values()].some(({ items }) => items) && state.frames.has(dispatch);
      const rest: Command[] = isCollection ? [{ type: "gather", dispatch }] : [{ type: "forward", dispatch, matches }];
      return [...rest, { type: "drop", dispatch }];
    }
    case "items.started":
      return [{ type: "fanOut", dispatch: event.dispatch, base: ExecutionId.parse(event.base) }];
    case "items.closed": {
      const { dispatch, results, wrote = [] } = event;
      const all = results.map(([index, value]) => ({ index, value, wrote: wrote.includes(index) }));
      return [{ type: "collect", dispatch, results: all }];
    }
    case "execution.failed":
      return [{ type: "abort", reason: event.reason, error: event.error }];
    case "child.abandoned":
      return [{ type: "abandon", dispatch: event.dispatch, child: event.child }];
    case "chunk.interrupted":
      return [{ type: "interrupt", dispatch: event.dispatch, ...timesOf(event) }];
    case "cleanup.planned":
      return [{ type: "cleanUp" }];
    case "interrupt.raised": {
      const { id, kind: type, payload, resumeTo, maxResumes, resumeCount } = event;
      const { expiresInMs = null, onExpire = null, response = null } = event;
      const { title, assign, dueInMs, plan, link } = event;
      const more = { title, assign, dueInMs, plan, link };
      const given = Object.fromEntries(Object.entries(more).filter(([, value]) => value !== undefined));
      const asked = { id, type, payload, resumeTo, maxResumes, resumeCount, expiresInMs, onExpire, response };
      return [{ type: "pause", dispatch: event.dispatch, interrupt: { ...asked, ...given }, ...timesOf(event) }];
    }
    case "interrupt.cancelled": {
      const { dispatch, ordinal = 0, id, reason } = event;
      return dispatch === undefined ? [] : effect(dispatch, { effect: "withdraw", ordinal, interrupt: id, reason });
    }
    default:
      if (!("dispatch" in event) || event.dispatch === undefined || !("ordinal" in event)) return [];
      return effectOf(event).then((done) => (done && event.dispatch !== undefined ? effect(event.dispatch, done) : []));
  }
}

/** Where something that came in goes. */
function entryOf(state: ExecutionState, { graph }: FlowDefinition, arrival: Arrival): readonly string[] {
  const behind = (node: string | undefined) => graph.nodes.get(node ?? "")?.next ?? [];
  switch (arrival.kind) {
    case "start":
      return entryNodes(state, graph);
    case "event":
      return graph.whenEvent.get(arrival.event) ?? [];
    case "skip":
      return behind((arrival.paused ?? state.dispatches.get(arrival.dispatch))?.node);
    case "resume": {
      const interrupt = state.interrupts.get(arrival.interrupt);
      const to = interrupt ? goesOnTo(interrupt) : "self";
      if (typeof to === "object") return graph.whenEvent.get(to.event) ?? [];
      return to === "next" ? behind(interrupt?.paused?.node) : [];
    }
  }
}

async function effectOf(event: LedgerEvent): Promise<Effect | null> {
  const ordinal = "ordinal" in event ? (event.ordinal ?? 0) : 0;
  const turns = "turns" in event && event.turns ? { turns: event.turns } : {};
  const place = { ordinal, ...turns };
  switch (event.type) {
    case "state.set":
      return { ...place, effect: "set", key: event.key, value: event.value };
    case "state.appended":
      return { ...place, effect: "append", key: event.key, value: event.value };
    case "state.deleted":
      return { ...place, effect: "delete", key: event.key };
    case "event.emitted":
      return {
        ...place,
        effect: "emit",
        event: event.event,
        payload: event.payload,
        wait: event.group !== undefined,
      };
    case "step.completed":
      return { ...place, effect: "step", name: event.name, value: event.value };
    case "step.failed": {
      const { name, attempt, error, retryInMs = null } = event;
      return { ...place, effect: "stepFailed", name, attempt, error, retryInMs };
    }
    case "sleep.started":
      return {
        ...place,
        effect: "sleep",
        forMs: event.forMs,
        ...(event.until !== undefined && { until: event.until }),
      };
    case "result.set":
      return { ...place, effect: "result", value: event.value };
    case "stream.stopped":
      return { ...place, effect: "stopStream" };
    case "child.started":
      return {
        ...place,
        effect: "call",
        child: event.child,
        flow: event.flow,
        ...(event.input !== undefined && { input: event.input }),
        ...(event.leaves && { leaves: true }),
      };
    case "intervention.consumed": {
      const { id: intervention, consumer, status, note = null, metadata = {} } = event;
      return { ...place, effect: "consume", intervention, consumer, status, note, metadata };
    }
    default:
      return null;
  }
}
