/** Random histories played into a real database: an owner's commits go through `append`, all else through the commands. */
import type postgres from "postgres";
import { v7 as uuidv7 } from "uuid";
import { FlowledgerError } from "../../src/base/errors.ts";
import { systemTimers } from "../../src/base/timers.ts";
import { idsBy } from "../../src/engine/ids.ts";
import { fork } from "../../src/execution/history.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import type { Graph } from "../../src/flow/graph.ts";
import { decide } from "../../src/ledger/decide.ts";
import { settle } from "../../src/ledger/settle.ts";
import { answeredBy } from "../../src/ledger/pauses.ts";
import type { Command } from "../../src/ledger/command.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { LedgerEvent, Recorded } from "../../src/ledger/event.ts";
import { evolve } from "../../src/ledger/evolve.ts";
import { freezeState, initialState, pendingInterrupts } from "../../src/ledger/state.ts";
import type { ExecutionState } from "../../src/ledger/state.ts";
import type { Dispatch } from "../../src/ledger/parts.ts";
import { closeSnapshot, finalResultKey } from "../../src/ledger/views.ts";
import { append } from "../../src/store/append.ts";
import type { Append } from "../../src/store/append.ts";
import type { Claim } from "../../src/store/claims.ts";
import type { NewExecution } from "../../src/store/starts.ts";
import { fold, newExecution, someWorker, thawed } from "./ledger.ts";
import { anyPause, nextStep } from "./random.ts";
import { storeOn } from "./store.ts";

/** What a command wrote, and what the library's rules say it should have written. */
export interface Written {
  readonly what: string;
  readonly written: readonly LedgerEvent[];
  readonly expected: readonly LedgerEvent[];
}

/** An execution and its children in a database, with the fold of what their ledgers say. */
export class Family {
  readonly members: Member[] = [];
  readonly compared: Written[] = [];
  readonly #sql: postgres.Sql;
  readonly #flow: FlowDefinition;
  readonly #propagated = new Set<ExecutionId>();

  private constructor(sql: postgres.Sql, flow: FlowDefinition) {
    this.#sql = sql;
    this.#flow = flow;
  }

  static async begin(sql: postgres.Sql, flow: FlowDefinition, choice: number): Promise<Family> {
    const family = new Family(sql, flow);
    await family.#add({
      input: choice % 3 ? { list: [1, 2] } : undefined,
      settings: settingsOf(choice),
      metadata: choice % 4 ? null : { tenant: choice % 9 },
      priority: choice % 5 ? 0 : choice % 9,
      idempotencyKey: choice % 6 ? null : `key ${uuidv7()}`,
      resourceKeys: choice % 7 ? [] : ["db"],
      state: choice % 8 ? {} : { x: { y: [1] }, "a.b": "a key with a dot" },
    });
    if (choice % 3 === 1) await family.#beginGenerations(choice % 2 === 0);
    return family;
  }

  /** Three of them, of which the youngest waits for a person; the one in the middle may be cancelled over it. */
  async #beginGenerations(isCancelled: boolean): Promise<void> {
    for (let depth = 0; depth < 3; depth++) {
      const youngest = this.members.at(-1);
      for (let steps = 0; youngest && steps < 30 && !youngest.running && !youngest.state.closed; steps++) {
        await youngest.goOn();
        await this.#read();
      }
      if (!youngest?.running) return;
      if (depth < 2) await this.#beget(youngest, 1);
      else await youngest.pause();
    }
    const [, middle] = this.members;
    for (let steps = 0; middle && isCancelled && steps < 2; steps++) {
      await middle.goOnToCancel();
      await this.#read();
    }
    await this.#propagate();
  }

  /** Somebody of the family does something, or something is done to it. */
  async step(choice: number): Promise<void> {
    const member = this.members[choice % this.members.length];
    if (!member) throw new Error("nobody is there");
    const rest = choice >>> 2;
    if (rest % 13 === 0 && this.members.length < 4) await this.#beget(member, rest >>> 4);
    else if (rest % 17 === 0 && this.members.length < 5) await this.#fork(member, rest >>> 5);
    else await member.step(rest);
    await this.#read();
    await this.#propagate();
  }

  /** All of them come to their end, the youngest first. */
  async finish(): Promise<void> {
    for (const member of this.members.toReversed()) {
      for (let steps = 0; member.state.closed === null && steps < 100; steps++) {
        await member.goOn();
        await this.#read();
      }
      await this.#propagate();
    }
  }

  /** A sub-flow, a called flow, or an item of a distributed collection. */
  async #beget(parent: Member, choice: number): Promise<void> {
    const dispatch = parent.running;
    if (!dispatch || parent.state.item) return;
    const ordinal = dispatch.journal.length;
    const child = ExecutionId.parse(uuidv7());
    const above = [parent.id, ...(parent.state.parent?.visibleIn ?? [])];
    const collection = [...parent.graph.nodes.values()].find(({ kind }) => kind === "forEach");
    const isItem = choice % 3 === 0 && collection !== undefined;
    if (!isItem) {
      const effect = { effect: "call", ordinal, child, flow: this.#flow.name } as const;
      if (!(await parent.do({ type: "effect", dispatch: dispatch.id, effect }))) return;
    }
    await this.#add({
      id: child,
      settings: settingsOf(choice),
      state: choice % 3 || isItem ? {} : { list: ["given"], $final_result: 1 },
      parent: {
        id: parent.id,
        dispatch: dispatch.id,
        ...(!isItem && { ordinal }),
        ...(choice % 3 && !isItem && { visibleIn: above }),
      },
      ...(isItem && {
        item: { node: collection.id, index: choice % 3, fingerprint: null, ...(choice % 2 && { readsState: true }) },
      }),
    });
  }

  /** A copy of its past, which goes on by itself. */
  async #fork(member: Member, choice: number): Promise<void> {
    const stopped = this.members.find(({ state }) => state.streamStopped && !state.closed);
    const { id, history } = choice % 2 && stopped ? stopped : member;
    try {
      this.#join(
        await fork(
          storeOn(this.#sql),
          id,
          { at: choice % 4 ? history.length : 1 + (choice % history.length) },
          idsBy(systemTimers),
        ),
      );
    } catch (error) {
      if (!(error instanceof FlowledgerError)) throw error;
    }
  }

  async #add(changes: Partial<NewExecution>): Promise<void> {
    const execution = newExecution({ flow: this.#flow.name, ...changes });
    await storeOn(this.#sql).starts.create([execution]);
    this.#join(execution.id);
    await this.#read();
  }

  #join(id: ExecutionId): void {
    this.members.push(new Member(this.#sql, id, this.#flow.graph, this.compared));
  }

  /** Those that have closed are heard of, which may close others. */
  async #propagate(): Promise<void> {
    for (;;) {
      const closed = this.members
        .filter(({ id, state }) => state.closed && !this.#propagated.has(id))
        .map(({ id }) => id);
      if (closed.length === 0) return;
      await storeOn(this.#sql).children.propagateClose(closed);
      for (const id of closed) this.#propagated.add(id);
      await this.#read();
    }
  }

  /** What has come in anywhere. */
  async #read(): Promise<void> {
    const asked = this.members.map(({ id, state }) => ({ id, after: state.seq }));
    const found = await storeOn(this.#sql).reads.events(asked);
    this.members.forEach((member, index) => member.take(found[index] ?? []));
  }
}

/** One execution of a family. */
export class Member {
  readonly id: ExecutionId;
  readonly graph: Graph;
  readonly history: Recorded[] = [];
  readonly #sql: postgres.Sql;
  readonly #compared: Written[];
  state: ExecutionState = initialState();
  #lease: Claim | null = null;
  #commitNo = 0;

  constructor(sql: postgres.Sql, id: ExecutionId, graph: Graph, compared: Written[]) {
    this.#sql = sql;
    this.id = id;
    this.graph = graph;
    this.#compared = compared;
  }

  take(events: readonly Recorded[]): void {
    this.history.push(...structuredClone(events));
    for (const event of events) this.state = evolve(this.state, event);
  }

  async step(choice: number): Promise<void> {
    if (this.state.closed) return;
    const rest = choice >>> 5;
    if (choice % 3 === 0) return this.#ask(rest);
    const often = this.#often(choice, rest);
    if (often) {
      await this.do(often);
      // As an owner does at once.
      if (often.type === "pause" && this.state.early.length > 0) await this.#settle(0);
      return;
    }
    const step = nextStep(this, choice >>> 2);
    if (step === "settle") await this.#settle(rest % 4000);
    else if ("event" in step) await this.#ask(rest);
    else if (step.command.type === "claim") await this.#giveBack(rest);
    else await this.do(step.command);
  }

  /** A chunk that is at work. */
  get running(): Dispatch | undefined {
    return [...this.state.dispatches.values()].find(({ chunk }) => chunk !== null);
  }

  async pause(): Promise<void> {
    const { running } = this;
    if (running) await this.do({ type: "pause", dispatch: running.id, interrupt: anyPause(this.state, 1) });
  }

  /** Asked for first, then done. */
  async goOnToCancel(): Promise<void> {
    if (this.state.cancelling) await this.#settle(0);
    else await this.#cancel("not wanted", null);
  }

  /** What the rules are about happens more often than the rest. */
  #often(choice: number, rest: number): Command | null {
    const { running } = this;
    if (!running) return null;
    const { id: dispatch, journal } = running;
    if (choice % 7 === 0) return { type: "pause", dispatch, interrupt: anyPause(this.state, rest) };
    const ordinal = journal.length;
    if (choice % 2 === 0 && this.state.item)
      return { type: "effect", dispatch, effect: { effect: "set", ordinal, key: finalResultKey, value: rest } };
    if (choice % 11 === 0) return { type: "effect", dispatch, effect: { effect: "result", ordinal, value: rest } };
    if (choice % 13 === 0) return { type: "fail", dispatch, error: { name: "E", message: "m" }, retryInMs: null };
    return null;
  }

  /** What brings it nearer to its end. */
  async goOn(): Promise<void> {
    const [dispatch] = this.state.dispatches.values();
    if (this.state.startedAt === null && this.state.sealedAt !== null) await this.#cancel("nothing came", null);
    else if (this.state.startedAt === null) await storeOn(this.#sql).starts.start(this.id, null, null);
    else if (this.state.inbox.length > 0) await this.do({ type: "route", matches: new Map() });
    else if (!dispatch) await this.#settle(10_000);
    else if (dispatch.chunk === null) await this.do({ type: "forward", dispatch: dispatch.id, matches: new Map() });
    else await this.do({ type: "complete", dispatch: dispatch.id, output: { by: dispatch.id } });
  }

  /** @returns whether the execution was ours to do it */
  async do(command: Command): Promise<boolean> {
    return (await this.#own()) && this.#commit(decide(this.state, command, this.graph));
  }

  async #own(): Promise<boolean> {
    if (this.#lease) return true;
    const claims = await storeOn(this.#sql).claims.claim(someWorker, [this.id]);
    this.#lease = claims.get(this.id) ?? null;
    this.#commitNo = 0;
    if (!this.#lease) return false;
    const fingerprint = this.#lease.epoch % 2 ? "one" : null;
    return this.#commit(decide(this.state, { type: "claim", worker: someWorker, fingerprint }, this.graph));
  }

  async #giveBack(choice: number): Promise<void> {
    if (!(await this.#own())) return;
    const isBlocked = choice % 5 === 0;
    const blocked = { type: "execution.blocked", fingerprint: "one", problem: `it lacks ${choice}` } as const;
    await this.#commit(isBlocked ? [blocked] : [], { release: { wakeInMs: choice % 3 ? 0 : null } });
    this.#lease = null;
  }

  async #settle(afterMs: number): Promise<void> {
    if (!(await this.#own())) return;
    const settlement = settle(this.state, this.state.activeAt + afterMs, 0, false);
    if (!settlement) return;
    const closed = settlement.events.at(-1);
    const { outcome, reason, error = null } = closed?.type === "execution.closed" ? closed : {};
    await this.#commit(settlement.events, {
      conditional: settlement.isConditional ? settlement.events.length : 0,
      close: outcome && reason !== undefined ? { outcome, reason, error, snapshot: closeSnapshot(this.state) } : null,
      hasRelatives: true,
    });
  }

  async #commit(events: readonly LedgerEvent[], changes: Partial<Append> = {}): Promise<boolean> {
    const lease = this.#lease;
    if (!lease) return false;
    const fingerprint = this.#commitNo === 0 ? fold(this.#recorded(events), this.#copy()).fingerprint : null;
    const [result] = await append(this.#sql, [
      {
        id: this.id,
        epoch: lease.epoch,
        token: lease.token,
        commitNo: ++this.#commitNo,
        base: this.state.seq,
        events,
        conditional: 0,
        fingerprint,
        close: null,
        release: null,
        snapshot: null,
        ...changes,
      },
    ]);
    if (result?.verdict !== "ok" || result.foreign) throw new Error(`a commit was ${JSON.stringify(result)}`);
    this.take(await this.#new());
    return true;
  }

  /** A command from outside; what it may not do now is refused, and writes nothing. */
  async #ask(choice: number): Promise<void> {
    const { commands, starts } = storeOn(this.#sql);
    const { state, id } = this;
    const rest = choice >>> 4;
    const actor = rest % 3 ? null : "ann";
    const someInterrupt = [...state.interrupts.keys()][rest % Math.max(1, state.interrupts.size)];
    const someIntervention = state.interventions[rest % Math.max(1, state.interventions.length)]?.id;
    const kinds = [
      "emit",
      "answer",
      "intervene",
      "consume",
      "intervene",
      "consume",
      "emit",
      "answer",
      "seal",
      "close",
      "cancel",
    ] as const;
    const isFresh = state.epoch === 0 && choice % 5 === 0;
    const kind = isFresh ? "cancel" : state.startedAt === null && choice % 2 ? "start" : kinds[choice % kinds.length];
    try {
      if (kind === "start") await starts.start(id, { n: rest }, null);
      else if (kind === "emit") await this.#emit(rest % 4 ? "A" : "B", rest, actor);
      else if (kind === "answer" && someInterrupt !== undefined && rest % 6 === 0)
        await commands.withdraw(id, someInterrupt, { reason: rest % 4 ? null : "moot", actor });
      else if (kind === "answer")
        await commands.continueWith(
          id,
          someInterrupt === undefined || rest % 5 === 1 ? `early${rest % 3}` : someInterrupt,
          {
            value: rest % 2 ? { yes: rest } : null,
            requestId: rest % 4 > 1 ? `r${rest}` : null,
            actor,
            onlyIfPending: false,
            checked: null,
            traceparent: rest % 3 ? null : "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
          },
        );
      else if (kind === "intervene") {
        const target = rest % 4 ? {} : { target: "c0" };
        const author = rest % 3 ? { author: "bob" } : {};
        await commands.intervene(id, "random", rest % 5 ? { text: rest } : null, { ...target, ...author });
      } else if (kind === "consume" && someIntervention !== undefined)
        for (const status of rest % 3 ? (["applied"] as const) : (["ignored", "applied"] as const))
          await commands.markInterventionConsumed(id, someIntervention, {
            consumer: `c${rest % 2}`,
            status,
            note: rest % 4 ? null : `seen as ${status}`,
            metadata: rest % 5 ? {} : { rest },
          });
      else if (kind === "seal" && rest % 2) await commands.seal(id, actor);
      else if (kind === "close" && rest % 3) await this.#close(rest % 2 ? "cancel" : "reject", actor);
      else if (kind === "cancel" && rest % 3) await this.#cancel(`because ${rest}`, actor);
    } catch (error) {
      if (!(error instanceof FlowledgerError)) throw error;
    }
  }

  async #emit(event: string, payload: number, actor: string | null): Promise<void> {
    const expected = answeredBy(pendingInterrupts(this.state), event, payload);
    const of = this.state.seq + 1;
    await storeOn(this.#sql).commands.emit(this.id, { event, payload, idempotencyKey: null, actor });
    const by = actor === null ? {} : { actor };
    this.#compare(
      `emit("${event}")`,
      (await this.#new()).slice(1),
      expected.map((answer) => (answer.type === "interrupt.resumed" ? { ...answer, ...by, of } : answer)),
    );
  }

  /** As an owner ends what waits, so does a close from outside. */
  async #close(pending: "reject" | "cancel", actor: string | null): Promise<void> {
    const reason = "enough";
    const ended = settle({ ...this.#cancelled(reason), failing: null }, 0, 0, false)?.events.filter(
      ({ type }) => type === "interrupt.cancelled",
    );
    await storeOn(this.#sql).commands.close(this.id, { reason, pendingInterrupts: pending, parked: "reject", actor });
    const by = actor === null ? {} : { actor };
    this.#compare(
      `close("${pending}")`,
      (await this.#new()).filter(({ event }) => event.type !== "child.cancelled"),
      [
        ...(ended ?? []),
        {
          type: "execution.sealed",
          close: true,
          ...(pending === "cancel" && { pendingInterrupts: pending }),
          reason,
          ...by,
        },
      ],
    );
  }

  /** What nobody has claimed is closed at once, as its owner would close it. */
  async #cancel(reason: string, actor: string | null): Promise<void> {
    const isUnclaimed = this.state.epoch === 0 && !this.#lease;
    const ending = isUnclaimed ? this.#ending(reason) : [];
    await storeOn(this.#sql).commands.cancel(this.id, { reason, actor });
    const by = actor === null ? {} : { actor };
    this.#compare("cancel()", await this.#new(), [{ type: "cancel.requested", reason, ...by }, ...ending]);
  }

  /** What an owner would write until it has closed. */
  #ending(reason: string): LedgerEvent[] {
    const state = this.#cancelled(reason);
    const events: LedgerEvent[] = [];
    while (!state.closed) {
      const more = settle(state, 0, 0, false)?.events ?? [];
      if (more.length === 0) break;
      for (const event of more) evolve(state, { seq: state.seq + 1, epoch: 0, at: state.activeAt, event });
      events.push(...more);
    }
    return events;
  }

  #cancelled(reason: string): ExecutionState {
    return fold(this.#recorded([{ type: "cancel.requested", reason }]), { ...this.#copy(), cancelling: null });
  }

  #compare(what: string, written: readonly Recorded[], expected: readonly LedgerEvent[]): void {
    const sorted = (events: readonly LedgerEvent[]) =>
      events.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
    this.#compared.push({ what, written: sorted(written.map(({ event }) => event)), expected: sorted(expected) });
  }

  #copy(): ExecutionState {
    return thawed(freezeState(this.state));
  }

  /** Events that the state does not have yet, as they would be recorded. */
  #recorded(events: readonly LedgerEvent[]): Recorded[] {
    const { seq, epoch, activeAt: at } = this.state;
    return events.map((event, index) => ({ seq: seq + index + 1, epoch, at, event }));
  }

  async #new(): Promise<readonly Recorded[]> {
    const [events = []] = await storeOn(this.#sql).reads.events([{ id: this.id, after: this.state.seq }]);
    return events;
  }
}

function settingsOf(choice: number): NewExecution["settings"] {
  const mode = (["planned", "auto", null] as const)[choice % 3] ?? null;
  return {
    interventionMode: mode,
    ...(choice % 2 ? { autoClose: false } : { autoCloseMs: choice % 4 ? 0 : 5000 }),
  };
}

/** Does it wait for a person, itself or in a sub-flow that is visible in it and reached by open ones alone? */
export function isWaiting(member: Member, members: readonly Member[], seenFrom = member.id): boolean {
  if (pendingInterrupts(member.state).length > 0) return true;
  return members.some(
    (child) =>
      child.state.parent?.id === member.id &&
      child.state.closed === null &&
      child.state.parent.visibleIn?.includes(seenFrom) === true &&
      isWaiting(child, members, seenFrom),
  );
}
