/** The attempt that a `ctx` belongs to, as its parts see it. */
import type { Json } from "../../base/json.ts";
import type { Chunk } from "../../flow/graph.ts";
import type { Dispatch } from "../../ledger/parts.ts";
import type { AttemptTrace } from "../../telemetry/attempt-trace.ts";
import type { AttemptHost } from "../host.ts";
import type { Journal } from "../journal.ts";
import type { Turn, Turns } from "../turns.ts";
import type { Effect } from "./effect.ts";

/** Where the parts of a `ctx` keep the attempt that they share; out of the way of what a chunk sees. */
export const own: unique symbol = Symbol("attempt");

export interface CtxAttempt {
  readonly host: AttemptHost;
  readonly dispatch: Dispatch;
  /** What the dispatch has, with what is this attempt's alone. */
  readonly input: Json;
  readonly chunk: Chunk;
  readonly journal: Journal;
  readonly turns: Turns;
  readonly trace: AttemptTrace | null;
  readonly signal: AbortSignal;
  /** Which try of the chunk it is, from 1. */
  readonly number: number;
  /** The same in every attempt of this run of the chunk, and in no other run. */
  readonly idempotencyKey: string;
  /** @throws what cut the attempt off; {UsageError} after the chunk has returned */
  requireLive(): void;
  /** A buffered write: committed with the next commit point, at the latest with the chunk's return. */
  write<T>(work: () => T): Promise<T>;
  /**
   * To be asked behind an effect that the journal was asked about. Returns what says that the attempt goes the way of those before
   * it, where that is not known yet; it rejects where the attempt does not.
   */
  agreed(): Promise<void> | undefined;
  /** Something that has happened when it resolves. What is still under way when the chunk returns has no end. */
  durable<T>(what: string, work: (turn: Turn) => Promise<T>): Effect<T>;
  /** The same, for work that a park would cut off. */
  busy<T>(work: () => Promise<T>): Promise<T>;
  /** What the handler has to return, or nobody is asked. */
  asks(mark: object): void;
  /** Commits what is buffered. What was buffered by others meanwhile travels along. */
  flush(): Promise<void>;
  /** An item is on its way into the stream. */
  streams(durable: Promise<void>): void;
  /** Resolves when all items that were put so far are in the stream, or never will be. */
  readonly streaming: Promise<void> | null;
  /** @throws why items that were on their way are not in the stream, once */
  requireNoneRefused(): void;
}
