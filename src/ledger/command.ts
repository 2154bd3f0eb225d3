/** Every command of an execution's owner: what `decide` is asked. */
import type { SerializedError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import type { NodeId } from "../flow/graph.ts";
import type { EventOf, ExecutionId, FollowUp, OnExpire, ResumeTo, WorkerId } from "./event.ts";

/** Which cases a value entered, by match node: conditions are the user's code, so they are asked before `decide`. */
export type Matches = ReadonlyMap<NodeId, readonly number[]>;

/** What a chunk did, in its journal's order. */
export type Effect = {
  ordinal: number;
  /** What had reached the chunk since its last commit, where several things were under way: their numbers, in that order. */
  turns?: readonly number[];
} & (
  | { effect: "set" | "append"; key: string; value: Json; matches?: Matches; silent?: boolean }
  | { effect: "delete"; key: string; matches?: Matches; silent?: boolean }
  | { effect: "emit"; event: string; payload: Json; wait: boolean; matches?: Matches }
  | { effect: "step"; name: string; value: Json }
  | { effect: "stepFailed"; name: string; attempt: number; error: SerializedError; retryInMs: number | null }
  | { effect: "sleep"; forMs: number; until?: number }
  | { effect: "result"; value: Json }
  | { effect: "stopStream" }
  | { effect: "call"; child: ExecutionId; flow: string; input?: string; leaves?: boolean }
  | {
      effect: "consume";
      intervention: string;
      status: "applied" | "ignored";
      consumer: string;
      note: string | null;
      metadata: JsonObject;
    }
  | { effect: "withdraw"; interrupt: string; reason: string }
);

export type Command =
  | {
      type: "claim";
      worker: WorkerId;
      fingerprint: string | null;
      nodes?: Readonly<Record<string, string>>;
      /** As `execution.claimed` has them. */
      span?: string;
      traceparent?: string;
    }
  /** This worker's version of the flow does not have what the execution stands at. */
  | { type: "block"; worker: WorkerId; fingerprint: string; problem: string }
  /** Sends the oldest arrival on its way; `value` is what the contract made of it, `refused` why it went nowhere. */
  | { type: "route"; matches?: Matches | undefined; value?: Json | undefined; refused?: string | undefined }
  | { type: "effect"; dispatch: number; effect: Effect }
  | { type: "complete"; dispatch: number; output: Json; matches?: Matches | undefined; times?: AttemptTimes }
  /** A dispatch without a chunk goes on from its node. */
  | { type: "forward"; dispatch: number; matches?: Matches | undefined }
  /** A distributed collection begins; its items' ids follow from `base`. */
  | { type: "fanOut"; dispatch: number; base: ExecutionId }
  /** A batch of its items has ended. */
  | { type: "collect"; dispatch: number; results: readonly ItemResult[] }
  /** All of them have: their results go on as one value. */
  | { type: "gather"; dispatch: number }
  | {
      type: "fail";
      dispatch: number;
      error: SerializedError;
      retryInMs: number | null;
      times?: AttemptTimes & Pick<EventOf<"chunk.failed">, "turns">;
    }
  /** A dispatch ends, and nothing follows from it. */
  | { type: "drop"; dispatch: number }
  | { type: "pause"; dispatch: number; interrupt: PauseRequest; times?: AttemptTimes }
  /** The chunk that called a child has ended without its result. */
  | { type: "abandon"; dispatch: number; child: ExecutionId }
  /** Who tells of a pause is given a link that answers it. */
  | { type: "link"; interrupt: string; hash: string }
  /** The attempt was cut off and shall go on at once, whatever else it waits for. */
  | { type: "interrupt"; dispatch: number; times?: AttemptTimes }
  /** It cannot go on, whatever still runs. */
  | { type: "abort"; reason: string; error: SerializedError }
  /** After a cancel nothing runs any more: what is to be done before the close. */
  | { type: "cleanUp" };

/** When an attempt was due and when its handler was called, in milliseconds since 1970. */
export interface AttemptTimes {
  readonly queuedAt: number;
  readonly startedAt: number;
}

export interface ItemResult {
  readonly index: number;
  readonly value: Json;
  /** It wrote application state. */
  readonly wrote: boolean;
}

export interface PauseRequest {
  id: string;
  type: string;
  payload: Json;
  resumeTo: ResumeTo;
  maxResumes: number | null;
  resumeCount: number;
  expiresInMs: number | null;
  /** Null ends the chain. */
  onExpire: OnExpire | null;
  /** JSON Schema; null is any JSON. */
  response: Json;
  title?: string;
  assign?: string[];
  dueInMs?: number;
  /** In the order of their times. */
  plan?: FollowUp[];
  link?: true;
}
