/** Everything about ledgers as a whole: verified, rebuilt from, pruned, copied. */
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { changedDefinitions } from "./definitions.ts";
import { anchor } from "./anchors.ts";
import type { Anchor } from "./anchors.ts";
import { prune, pruneIds } from "./prune.ts";
import type { NamedPrune, Pruned } from "./prune.ts";
import { answersFor } from "./questions.ts";
import type { Answer } from "./questions.ts";
import { rebuild } from "./rebuild.ts";
import type { Difference, RebuildOptions } from "./rebuild.ts";
import { verify } from "./verify.ts";
import type { VerifyOptions, Violation } from "./verify.ts";

/** The header of a copy, as the fold of its events has it. */
export interface CopyHeader {
  readonly flow: string;
  readonly epoch: number;
  readonly metadata: JsonObject | null;
  readonly fingerprint: string | null;
  readonly started: number | null;
  /** It goes on at once, and not at the time of its start alone. */
  readonly begun: boolean;
  readonly due: number | null;
  readonly discard: number | null;
  readonly sealed: number | null;
  readonly closed: number | null;
  readonly outcome: string | null;
  readonly reason: string | null;
  readonly error: object | null;
  readonly snapshot: JsonObject | null;
  readonly streamEnded: boolean;
}

/** [epoch, ms, type, dispatch, chunk, actor, payload], seq 1 first. */
export type CopiedEvent = readonly [
  number,
  number,
  string,
  number | null,
  string | null,
  string | null,
  JsonObject | null,
];

export interface Audit {
  verify(options: VerifyOptions): Promise<Violation[]>;
  rebuild(options: RebuildOptions): Promise<Difference[]>;
  prune(closedBefore: Date, keep: JsonObject, onProgress?: (pruned: Pruned) => void): Promise<Pruned>;
  /** @throws {ExecutionNotFoundError | UsageError} one is not there, or open */
  pruneIds(named: NamedPrune): Promise<Pruned>;
  anchor(): Promise<Anchor>;
  /** What an auditor asks first of one execution. */
  answers(id: ExecutionId): Promise<Answer[]>;
  /** A new execution whose ledger is the past of another; it goes on at once. */
  copy(id: ExecutionId, header: CopyHeader, events: readonly CopiedEvent[]): Promise<void>;
}

export function auditOf({ sql, names }: Pick<Database, "sql" | "names">): Audit {
  return {
    async verify(options) {
      const changed = await changedDefinitions({ sql, names });
      return [
        ...changed.map((detail) => ({ invariant: "I25", executionId: "-", detail })),
        ...(await verify(sql, options)),
      ];
    },
    rebuild: (options) => rebuild(sql, options),
    prune: (closedBefore, keep, onProgress) => prune(sql, closedBefore, keep, onProgress),
    pruneIds: (named) => pruneIds(sql, named),
    anchor: () => anchor(sql),
    answers: (id) => answersFor({ sql, names }, id),
    async copy(id, header, events) {
      await sql`
        select flowledger.copy_execution(${id}::uuid, ${JSON.stringify(header)}::text::jsonb, ${JSON.stringify(events)}::text::jsonb)`;
    },
  };
}
