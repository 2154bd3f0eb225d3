/** What the types of a flow carry from place to place: what the next chunk receives, and which blocks are open. Types only. */
import type { z } from "zod";
import type { Json, StorableReturn, Unless, Verdict } from "../base/json.ts";
import type { Output } from "./context.ts";
import type {
  Contract,
  EventName,
  EventPayload,
  NotStorable,
  StateAt,
  StateKey,
  StateOf,
  noticeEvent,
} from "./contract.ts";

export type Trigger<C extends Contract> =
  EventName<C> | typeof noticeEvent | readonly EventName<C>[] | { readonly state: StateKey<C> };

/** What the first chunk after `when()` receives. */
export type Heard<C extends Contract, T, M> = T extends string
  ? EventPayload<C, T>
  : T extends readonly [infer Only extends string]
    ? EventPayload<C, Only>
    : T extends readonly (infer E extends string)[]
      ? M extends "or"
        ? { [K in E]: { event: K; value: EventPayload<C, K> } }[E]
        : { [K in E]: EventPayload<C, K> }
      : T extends { readonly state: infer K extends string }
        ? StateAt<C, K> | null
        : never;

/** An open match or condition: what entered, what its cases gave so far, and the blocks around it. */
export interface OpenMatch<Entry, Outs, Part extends Parts, Mode extends Modes, Outer> {
  readonly match: { readonly entry: Entry; readonly outs: Outs; readonly part: Part; readonly mode: Mode };
  readonly outer: Outer;
}

type Parts = "start" | "case" | "else";
type Modes = "if" | "first" | "all";

export interface ForEachFrame<Outer> {
  readonly forEach: true;
  readonly outer: Outer;
}

/** A place inside of an `ifCondition()`, before its else for what comes before that. What ends or continues it stands nowhere else. */
export interface InCondition {
  readonly "~open"?: OpenMatch<unknown, unknown, Parts, "if", unknown>;
}
/** A place inside of a `match()`. */
export interface InMatch {
  readonly "~open"?: OpenMatch<unknown, unknown, Parts, "first" | "all", unknown>;
}
/** A place inside of a `forEach()`. */
export interface InForEach {
  readonly "~open"?: ForEachFrame<unknown>;
}

export type EntryOf<F> = F extends OpenMatch<infer Entry, unknown, Parts, Modes, unknown> ? Entry : never;
export type OuterOf<F> = F extends { readonly outer: infer Outer } ? Outer : never;
export type NextCase<F, Last, Part extends "case" | "else"> =
  F extends OpenMatch<infer Entry, infer Outs, infer Before, infer Mode, infer Outer>
    ? OpenMatch<Entry, Before extends "start" ? Outs : Outs | Last, Part, Mode, Outer>
    : never;
/** What comes out of a closed match: the results of the cases, then the else or, without one, the input. */
export type Joined<F, Last> =
  F extends OpenMatch<infer Entry, infer Outs, infer Part, infer Mode, unknown>
    ? Part extends "else"
      ? MatchOutput<Mode, Outs> | Last
      : MatchOutput<Mode, Outs | Last> | Entry
    : never;
type MatchOutput<Mode, Outs> = Mode extends "all" ? Outs[] : Outs;

/** What a handler may return: what JSON can hold, or with a schema whatever that makes storable. */
export type StorableOut<R, Out> = [R] extends [z.ZodType] ? unknown : StorableReturn<Out>;
export type ItemOf<List> = List extends readonly (infer Item)[] ? Item : List;
export type BranchOutput<B> = B extends { readonly handler: (ctx: never) => infer Out }
  ? Output<Out>
  : B extends (ctx: never) => infer Out
    ? Output<Out>
    : never;
/** What a batch has to be: of a branch that returns what JSON cannot hold, the compiler says what. */
export type StorableBranches<B> = Unless<
  Verdict<{ [K in keyof B]: BranchOutput<B[K]> }>,
  { [K in keyof B]: Unless<Verdict<BranchOutput<B[K]>>, NotStorable<BranchOutput<B[K]>>> }
>;
export type SubFlowResult<K extends Contract> = K extends { readonly state: z.ZodObject } ? StateOf<K> : Json;
