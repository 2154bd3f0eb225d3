/** The ledger in a test: given events, when a command, then events; an owner in a few lines; and what every ledger guarantees. */
import type postgres from "postgres";
import { v7 as uuidv7 } from "uuid";
import { expect } from "vitest";
import type { Append } from "../../src/store/append.ts";
import type { NewExecution } from "../../src/store/starts.ts";
import type { Claim } from "../../src/store/claims.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import type { Graph } from "../../src/flow/graph.ts";
import { decide } from "../../src/ledger/decide.ts";
import { settle } from "../../src/ledger/settle.ts";
import type { Command, Effect, Matches } from "../../src/ledger/command.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import {
  freezeState,
  initialState,
  pendingInterrupts,
  thawState,
  type ExecutionState,
} from "../../src/ledger/state.ts";
import type { Dispatch } from "../../src/ledger/parts.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { LedgerEvent, Recorded } from "../../src/ledger/event.ts";
import type { Json, JsonObject } from "../../src/base/json.ts";
import { closeSnapshot } from "../../src/ledger/views.ts";
import { storeOn } from "./store.ts";

/** Something to define with whose handlers never run here. */
export const nothing = () => null;

export const someWorker = "00000000-0000-4000-8000-000000000001" as Extract<Command, { type: "claim" }>["worker"];

/** A recorded history of events, a second apart. */
export function recorded(events: readonly LedgerEvent[], from = 1): Recorded[] {
  return events.map((event, index) => ({ seq: from + index, epoch: 1, at: (from + index) * 1000, event }));
}

export function fold(events: readonly Recorded[], state = initialState()): ExecutionState {
  return events.reduce(evolve, state);
}

/** Everything that the events say, as JSON text. */
export function folded(events: readonly Recorded[]): string {
  return freezeState(fold(events));
}

/** What `freezeState` froze. */
export function thawed(frozen: string): ExecutionState {
  return thawState(JSON.parse(frozen) as JsonObject);
}

/** `given(flow, events).when(command).then(events)`; the state must come out of the decision as it went in. */
export function given(flow: FlowDefinition, events: readonly LedgerEvent[]) {
  const state = fold(recorded(events));
  return {
    when(command: Command) {
      const decideNow = () => {
        const before = freezeState(state);
        const decided = decide(state, command, flow.graph);
        expect(freezeState(state)).toBe(before);
        return decided;
      };
      return {
        // oxlint-disable-next-line unicorn/no-thenable -- it reads as given, when, then, and nobody awaits it
        then: (expected: readonly LedgerEvent[]) => expect(decideNow()).toEqual(expected),
        thenThrows: (problem: RegExp) => expect(decideNow).toThrow(problem),
      };
    },
  };
}

export const created = (
  flow: FlowDefinition,
  settings: Extract<LedgerEvent, { type: "execution.created" }>["settings"] = {},
): LedgerEvent => ({
  type: "execution.created",
  flow: flow.name,
  settings,
});
export const started = (input: Json = null): LedgerEvent => ({ type: "execution.started", input });

/** An execution without a database: what an owner would fold, and the ledger it would leave. */
export class Ledger {
  readonly graph: Graph;
  readonly history: Recorded[] = [];
  state = initialState();
  now = 1_000_000;
  epoch = 0;

  constructor(flow: FlowDefinition, settings: Extract<LedgerEvent, { type: "execution.created" }>["settings"] = {}) {
    this.graph = flow.graph;
    this.record(created(flow, { autoCloseMs: 0, ...settings }));
  }

  record(event: LedgerEvent): void {
    const next = { seq: this.state.seq + 1, epoch: this.epoch, at: this.now, event };
    this.history.push(structuredClone(next));
    evolve(this.state, next);
  }

  /** @returns what was decided, already folded */
  do(command: Command): LedgerEvent[] {
    if (command.type === "claim") this.epoch += 1;
    const events = decide(this.state, command, this.graph);
    for (const event of events) this.record(event);
    return events;
  }

  effect(dispatch: Dispatch, effect: Effect): LedgerEvent[] {
    return this.do({ type: "effect", dispatch: dispatch.id, effect });
  }

  start(input: Json = null): this {
    this.record(started(input));
    this.do({ type: "claim", worker: someWorker, fingerprint: null });
    return this.route();
  }

  /** An event from outside, sent on its way. */
  emit(event: string, payload: Json = null): this {
    this.record({ type: "event.emitted", event, payload });
    return this.route();
  }

  route(matches?: Matches): this {
    while (this.state.inbox.length > 0) this.do({ type: "route", matches });
    return this;
  }

  open(chunk: string): Dispatch[] {
    return [...this.state.dispatches.values()].filter((dispatch) => dispatch.chunk === chunk);
  }

  one(chunk: string): Dispatch {
    const [dispatch] = this.open(chunk);
    if (!dispatch) throw new Error(`chunk ${chunk} is not planned; open: ${this.names().join(", ") || "nothing"}`);
    return dispatch;
  }

  names(): string[] {
    return [...this.state.dispatches.values()].map(({ chunk, node }) => chunk ?? node);
  }

  complete(dispatch: Dispatch, output: Json = null, matches?: Matches): this {
    this.do({ type: "complete", dispatch: dispatch.id, output, matches });
    return this;
  }

  /** Runs everything that is planned, in the order that `pick` chooses; a chunk without a handler returns its input. */
  run(
    handlers: Record<string, (input: Json) => Json> = {},
    pick: (open: readonly Dispatch[]) => Dispatch | undefined = ([first]) => first,
  ): this {
    for (let turns = 0; this.state.dispatches.size > 0; turns++) {
      if (turns > 10_000) throw new Error(`no end in sight: ${this.names().slice(0, 10).join(", ")}`);
      const dispatch = pick([...this.state.dispatches.values()]);
      if (!dispatch) break;
      if (dispatch.chunk === null) this.do({ type: "forward", dispatch: dispatch.id, matches: new Map() });
      else this.complete(dispatch, (handlers[dispatch.chunk] ?? same)(dispatch.input));
    }
    return this;
  }

  settle(running = 0): LedgerEvent[] {
    const settlement = settle(this.state, this.now, running, false);
    for (const event of settlement?.events ?? []) this.record(event);
    return settlement?.events ?? [];
  }
}

const same = (input: Json) => input;

interface HeaderRow {
  seq: number;
  epoch: number;
  status: string;
  lifecycle: string;
  outcome: string | null;
  closeReason: string | null;
  closeSnapshot: JsonObject | null;
  pendingInterrupts: number;
  createdAt: number;
  startedAt: number | null;
  sealedAt: number | null;
  closedAt: number | null;
}

/** What holds for every execution at every moment, read from the database alone; fails with the ledger printed. */
export async function expectGuarantees(sql: postgres.Sql, executionId: string): Promise<void> {
  const id = ExecutionId.parse(executionId);
  const [ledger, header, state] = await sql.begin("isolation level repeatable read", async (tx) => {
    const rows = await tx<{ seq: number; epoch: number; type: string; dispatch: number | null }[]>`
      select seq, epoch, type, dispatch from flowledger.ledger where execution_id = ${id} order by seq`;
    const [row] = await tx<HeaderRow[]>`
      select seq, epoch, status, lifecycle, outcome, close_reason as "closeReason", close_snapshot as "closeSnapshot",
        pending_interrupts as "pendingInterrupts", flowledger.to_ms(created_at) as "createdAt",
        flowledger.to_ms(started_at) as "startedAt", flowledger.to_ms(sealed_at) as "sealedAt",
        flowledger.to_ms(closed_at) as "closedAt"
      from flowledger.executions where id = ${id}`;
    return [rows, row, await storeOn(tx as unknown as postgres.Sql).reads.loadState(id)] as const;
  });
  const printed = ledger
    .map(({ seq, epoch, type, dispatch }) => `${seq} (${epoch}) ${type} ${dispatch ?? ""}`)
    .join("\n");
  if (!header || !state) throw new Error(`there is no execution ${id}`);

  try {
    const seqs = ledger.map(({ seq }) => seq);
    expect(seqs).toEqual(Array.from({ length: header.seq }, (_, index) => index + 1));
    const epochs = [...ledger.map(({ epoch }) => epoch), header.epoch];
    expect(epochs).toEqual(epochs.toSorted((a, b) => a - b));
    const closes = ledger.flatMap(({ type, seq }) => (type === "execution.closed" ? [seq] : []));
    expect(closes).toEqual(header.closedAt === null ? [] : [header.seq]);
    const completed = ledger.flatMap(({ type, dispatch }) => (type === "chunk.completed" ? [dispatch] : []));
    expect(completed).toEqual([...new Set(completed)]);
    expect(header).toEqual(derivedFrom(state, header.epoch));
  } catch (error) {
    if (error instanceof Error) error.message += `\nof execution ${id}\n${printed}`;
    throw error;
  }
}

/** The header as the ledger says it is; the epoch has no event of its own, because a claim writes none. */
function derivedFrom(state: ExecutionState, epoch: number): HeaderRow {
  return {
    seq: state.seq,
    epoch,
    status: statusOf(state, pendingInterrupts(state).length > 0),
    lifecycle: lifecycleOf(state),
    outcome: state.closed?.outcome ?? null,
    closeReason: state.closed?.reason ?? null,
    closeSnapshot: state.closed ? closeSnapshot(state) : null,
    pendingInterrupts: pendingInterrupts(state).length,
    createdAt: state.createdAt,
    startedAt: state.startedAt,
    sealedAt: state.sealedAt,
    closedAt: state.closed?.at ?? null,
  };
}

/** The meta as the fold has it. @param isWaiting whether it, or a sub-flow that is visible in it, waits for a person */
export function metaOf(id: ExecutionId, state: ExecutionState, isWaiting: boolean): JsonObject {
  const iso = (ms: number | null | undefined) => (ms == null ? null : new Date(ms).toISOString());
  return {
    executionId: id,
    runId: id,
    flowName: state.flow,
    status: statusOf(state, isWaiting),
    lifecycleState: lifecycleOf(state),
    createdAt: iso(state.createdAt),
    startedAt: iso(state.startedAt),
    startInput: state.startInput?.value ?? null,
    sealedAt: iso(state.sealedAt),
    closedAt: iso(state.closed?.at),
    closeReason: state.closed?.reason ?? null,
    stateVersion: state.seq,
    fingerprint: state.fingerprint,
    paused: null,
    blocked: state.blocked?.epoch === state.claimedIn ? state.blocked.problem : null,
    parentId: state.parent?.id ?? null,
    metadata: state.metadata,
    resourceKeys: state.resourceKeys,
    loadedFrom: state.loadedFrom,
    forkedFrom: state.forkedFrom,
    trace: state.trace,
  };
}

function statusOf({ closed, startedAt, parked }: ExecutionState, isWaiting: boolean): string {
  if (closed) return closed.outcome;
  if (startedAt === null) return "created";
  if (parked.size > 0) return "parked";
  return isWaiting ? "waiting" : "running";
}

function lifecycleOf({ closed, sealedAt }: ExecutionState): string {
  if (closed) return "closed";
  return sealedAt === null ? "open" : "sealed";
}

/** One execution to create, started at once with `{}`. */
export function newExecution(changes: Partial<NewExecution> = {}): NewExecution {
  return {
    id: ExecutionId.parse(uuidv7()),
    flow: "f",
    input: {},
    settings: {},
    metadata: null,
    idempotencyKey: null,
    limitKey: null,
    priority: 0,
    delayMs: null,
    startAt: null,
    resourceKeys: [],
    parent: null,
    state: {},
    ...changes,
  };
}

/** Executions that are started and claimed, in id order. */
export async function leases(sql: postgres.Sql, count: number): Promise<Claim[]> {
  const made = await storeOn(sql).starts.create(Array.from({ length: count }, () => newExecution()));
  const claims = await storeOn(sql).claims.claim(
    someWorker,
    made.map(({ id }) => id),
  );
  return [...claims.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

/** The first commit of a lease; without events of its own, that it was claimed. */
export function appendTo(lease: Claim, changes: Partial<Append> = {}): Append {
  return {
    id: lease.id,
    epoch: lease.epoch,
    token: lease.token,
    commitNo: 1,
    base: lease.state.seq,
    events: [{ type: "execution.claimed", worker: someWorker }],
    conditional: 0,
    fingerprint: null,
    close: null,
    release: null,
    snapshot: null,
    ...changes,
  };
}

/** Types of an execution's ledger events, in order. */
export async function ledgerOf(sql: postgres.Sql, id: ExecutionId): Promise<string[]> {
  const rows = await sql<
    { type: string }[]
  >`select type from flowledger.ledger where execution_id = ${id} order by seq`;
  return rows.map(({ type }) => type);
}
