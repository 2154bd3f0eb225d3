/** Flows made at random, and owners that do one thing after another at random. */
import fc from "fast-check";
import { defineFlow } from "../../src/flow/builder.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import type { Json } from "../../src/base/json.ts";
import type { Command, Effect, Matches } from "../../src/ledger/command.ts";
import type { LedgerEvent } from "../../src/ledger/event.ts";
import { pendingInterrupts, type ExecutionState } from "../../src/ledger/state.ts";
import { nothing, someWorker, type Ledger } from "./ledger.ts";

export type Step = { command: Command } | { event: LedgerEvent } | "settle";

/** What a step looks at. */
type Owned = Pick<Ledger, "state" | "graph">;

export interface Play {
  readonly flow: FlowDefinition;
  readonly choices: readonly number[];
}

/** A flow, and numbers that choose what happens to an execution of it. */
export function anyPlay(
  length: { minLength: number; maxLength: number } = { minLength: 5, maxLength: 40 },
  onFailure: fc.Arbitrary<"fail" | "park"> = fc.constant("fail"),
) {
  return fc.record({ flow: anyFlow(onFailure), choices: fc.array(fc.nat(), { ...length, size: "max" }) });
}

/** One of the things that could happen next. */
export function nextStep(ledger: Owned, choice: number): Step {
  const { state } = ledger;
  if (state.startedAt === null) return { event: { type: "execution.started", input: { list: [1, 2] } } };
  const what = choice % 16;
  const rest = choice >>> 4;
  if (what === 0) return { command: { type: "claim", worker: someWorker, fingerprint: rest % 2 ? "new" : null } };
  if (what === 1) return { event: outside(state, rest) };
  if (what === 2) return "settle";
  const matches = anyHits(ledger, rest);
  if (state.inbox.length > 0 && (what < 6 || state.dispatches.size === 0))
    return { command: { type: "route", matches } };
  const dispatches = [...state.dispatches.values()].filter(({ id }) => !state.parked.has(id));
  const dispatch = dispatches[rest % Math.max(1, dispatches.length)];
  if (!dispatch) return { event: outside(state, rest) };
  const { id } = dispatch;
  if (dispatch.chunk === null) return { command: { type: "forward", dispatch: id, matches } };
  const ordinal = dispatch.journal.length;
  const wants = rest >>> 4;
  if (what < 10) return { command: { type: "complete", dispatch: id, output: anyOutput(wants), matches } };
  if (what === 10)
    return {
      command: { type: "fail", dispatch: id, error: { name: "E", message: "m" }, retryInMs: wants % 5 ? wants : null },
    };
  if (what === 11) return { command: { type: "pause", dispatch: id, interrupt: anyPause(state, wants) } };
  return { command: { type: "effect", dispatch: id, effect: anyEffect(state, ordinal, wants, matches) } };
}

export function foreignTo(state: ExecutionState, choice: number): LedgerEvent[] {
  const events: LedgerEvent[] = [
    { type: "event.emitted", event: "A", payload: choice },
    { type: "execution.sealed", close: true, reason: "enough" },
    { type: "execution.sealed", close: true, pendingInterrupts: "cancel", reason: "at once" },
    { type: "cancel.requested", reason: "stop" },
    {
      type: "intervention.recorded",
      id: `v${choice}`,
      payload: 1,
      target: null,
      author: null,
      note: null,
      metadata: {},
    },
  ];
  for (const { id } of pendingInterrupts(state)) {
    events.push({ type: "interrupt.resumed", id, value: choice });
    events.push(anyHandling(id, choice));
    // An owner routes an answer before anything is asked anew under the same id.
    if (!state.inbox.some((arrival) => arrival.kind === "resume" && arrival.interrupt === id))
      events.push({ type: "interrupt.cancelled", id, reason: "moot", withdrawn: true, actor: "ann" });
  }
  return events;
}

/** What somebody does with a question beside answering it. */
function anyHandling(id: string, choice: number): LedgerEvent {
  const actor = `actor ${choice % 3}`;
  const events: LedgerEvent[] = [
    { type: "interrupt.claimed", id, actor },
    { type: "interrupt.claimed", id, exclusive: true, actor },
    { type: "interrupt.released", id, actor },
    { type: "interrupt.delegated", id, assign: [`user:${choice % 5}`], actor },
    { type: "interrupt.snoozed", id, until: 1000 * (choice % 99), actor },
  ];
  return events[(choice >>> 2) % events.length] ?? { type: "interrupt.released", id, actor };
}

function outside(state: ExecutionState, choice: number): LedgerEvent {
  const events: LedgerEvent[] = [
    { type: "event.emitted", event: "A", payload: choice % 7 },
    { type: "event.emitted", event: "B", payload: [choice % 7] },
    { type: "execution.copied" },
    ...foreignTo(state, choice).slice(4),
  ];
  return events[choice % events.length] ?? { type: "event.emitted", event: "A", payload: 1 };
}

function anyOutput(choice: number): Json {
  const outputs: Json[] = [null, 1, "two", { three: 3 }, [], [1, 2, 3], [[1], [2, 3]], { list: [1] }];
  return outputs[choice % outputs.length] ?? null;
}

export function anyPause(state: ExecutionState, choice: number): Extract<Command, { type: "pause" }>["interrupt"] {
  const targets = ["next", "self", { event: "A" }] as const;
  const known = [...state.interrupts.values()].filter(({ status }) => status !== "pending" || choice % 11 === 0);
  return {
    // Now and then an id that was used before.
    id: known[choice % 3]?.id ?? (choice % 3 ? state.early[0]?.id : undefined) ?? `i${state.interrupts.size}`,
    type: "approval",
    payload: choice % 5 ? choice : null,
    resumeTo: targets[choice % 3] ?? "next",
    maxResumes: choice % 3 ? choice % 3 : null,
    resumeCount: choice % 2,
    expiresInMs: choice % 2 ? choice % (choice % 3 ? 3000 : 30) : null,
    onExpire:
      choice % 2
        ? (([null, "fail", "continue", { event: "A", payload: 1 }, { value: 2 }] as const)[choice % 5] ?? null)
        : null,
    response: choice % 4 ? null : { type: "object" },
    ...(choice % 5 > 2 && { title: `t${choice}`, assign: ["a", `b${choice % 7}`], dueInMs: choice % 3000 }),
    ...(choice % 7 > 4 && {
      plan: [{ inMs: choice % 20 }, { inMs: 20 + (choice % 300), assign: ["boss"] }, { inMs: 400, answer: choice }],
    }),
  };
}

function anyEffect(state: ExecutionState, ordinal: number, choice: number, matches: Matches): Effect {
  const key = ["x", "x.y", "list", "deep.er.key", "$final_result"][choice % 5] ?? "x";
  const value = anyOutput(choice >>> 2);
  const effects: Effect[] = [
    { effect: "set", ordinal, key: "x", value: { y: 1 }, matches },
    { effect: "set", ordinal, key, value, matches },
    { effect: "append", ordinal, key, value, matches },
    { effect: "delete", ordinal, key, matches },
    { effect: "emit", ordinal, event: "A", payload: value, wait: false, matches },
    { effect: "emit", ordinal, event: "B", payload: value, wait: true, matches },
    { effect: "emit", ordinal, event: "A", payload: value, wait: true, matches },
    { effect: "step", ordinal, name: "s", value },
    {
      effect: "stepFailed",
      ordinal,
      name: "s",
      attempt: 1,
      error: { name: "E", message: "m" },
      retryInMs: choice % 2 ? 10 : null,
    },
    { effect: "sleep", ordinal, forMs: choice % 500 },
    { effect: "result", ordinal, value },
    { effect: "stopStream", ordinal },
    { effect: "withdraw", ordinal, interrupt: pendingInterrupts(state)[0]?.id ?? "none", reason: "moot" },
    ...state.interventions.slice(0, 2).map(({ id }) => ({
      effect: "consume" as const,
      ordinal,
      intervention: id,
      consumer: `c${choice % 2}`,
      status: choice % 3 ? ("applied" as const) : ("ignored" as const),
      note: choice % 5 ? null : "n",
      metadata: choice % 4 ? {} : { choice },
    })),
  ];
  return effects[(choice >>> 3) % effects.length] ?? { effect: "stopStream", ordinal };
}

/** As if every condition had been asked; a match with mode "first" matches one case or none. */
function anyHits(ledger: Owned, choice: number): Matches {
  const matches = new Map<string, readonly number[]>();
  let bits = choice;
  for (const node of ledger.graph.nodes.values()) {
    if (node.kind !== "match") continue;
    const all = node.cases.map((_, index) => index).filter((index) => (bits >>> index) & 1);
    matches.set(node.id, node.mode === "all" ? all : all.slice(0, 1));
    bits = (bits >>> 3) ^ choice;
  }
  return matches;
}

type Block =
  | { kind: "chunk" | "end" | "point" }
  | { kind: "batch"; branches: number }
  | { kind: "forEach"; body: Block[] }
  | { kind: "match"; mode: "first" | "all"; cases: Block[][]; hasElse: boolean };

/** A place in a flow whose types do not matter here. */
interface Place {
  to(name: string, handler: () => null): Place;
  batch(branches: Record<string, () => null>): Place;
  forEach(): Place;
  endForEach(): Place;
  match(options: { mode: "first" | "all" }): Place;
  case(value: Json): Place;
  caseElse(): Place;
  endMatch(): Place;
  interventionPoint(point: { name: string }): Place;
  end(): Place;
}

export function anyFlow(onFailure: fc.Arbitrary<"fail" | "park"> = fc.constant("fail")): fc.Arbitrary<FlowDefinition> {
  const { body } = fc.letrec<{ body: Block[]; block: Block }>((tie) => ({
    block: fc.oneof(
      { maxDepth: 3, depthIdentifier: "block" },
      fc.record({ kind: fc.constant("chunk" as const) }),
      fc.record({ kind: fc.constantFrom("end" as const, "point" as const) }),
      fc.record({ kind: fc.constant("batch" as const), branches: fc.integer({ min: 1, max: 3 }) }),
      fc.record({ kind: fc.constant("forEach" as const), body: tie("body") }),
      fc.record({
        kind: fc.constant("match" as const),
        mode: fc.constantFrom("first" as const, "all" as const),
        cases: fc.array(tie("body"), { minLength: 1, maxLength: 3 }),
        hasElse: fc.boolean(),
      }),
    ),
    body: fc.array(tie("block"), { minLength: 1, maxLength: 4, depthIdentifier: "block" }),
  }));
  return fc
    .tuple(fc.array(body, { minLength: 1, maxLength: 2 }), body, body, body, body, onFailure)
    .map(([roots, a, and, or, state, then]) => {
      const parking = then === "park" ? ({ onFailure: then, park: { after: 3000 } } as const) : {};
      const flow = defineFlow("random", {}, parking);
      let names = 0;
      const name = () => `c${names++}`;
      const chain = (place: Place, blocks: readonly Block[]): Place =>
        blocks.reduce((at, block) => add(at, block), place);
      const add = (place: Place, block: Block): Place => {
        switch (block.kind) {
          case "chunk":
            return place.to(name(), nothing);
          case "end":
            return place.end();
          case "point":
            return place.interventionPoint({ name: name() });
          case "batch":
            return place.batch(Object.fromEntries(Array.from({ length: block.branches }, () => [name(), nothing])));
          case "forEach":
            return chain(place.forEach().to(name(), nothing), block.body).endForEach();
          case "match": {
            let at = place.match({ mode: block.mode });
            block.cases.forEach((body, index) => (at = chain(at.case(index).to(name(), nothing), body)));
            if (block.hasElse) at = at.caseElse().to(name(), nothing);
            return at.endMatch();
          }
        }
      };
      const begin = (place: unknown, blocks: readonly Block[]) =>
        void chain((place as Place).to(name(), nothing), blocks);
      for (const root of roots) begin(flow, root);
      begin(flow.when("A"), [...a, { kind: "end" }]);
      begin(flow.when(["A", "B"]), and);
      begin(flow.when(["A", "B"], { mode: "or" }), or);
      begin(flow.when({ state: "x" }), state);
      if (roots.length > 1) begin(flow.when("$interrupt"), []);
      return flow;
    });
}
