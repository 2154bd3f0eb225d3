/** Interrupts as people and systems that answer them see them, and the check of an answer. */
import { z } from "zod";
import { ContractError, UsageError } from "../base/errors.ts";
import { ExecutionId, ResumeTo } from "../ledger/event.ts";
import { JsonValue, isObject, toJson, type Json } from "../base/json.ts";

const moment = z.iso.datetime().transform((text) => new Date(text));

/** One pause that waits, or waited, for an answer. */
export const InterruptRecord = z.object({
  id: z.string(),
  executionId: ExecutionId,
  flow: z.string(),
  chunk: z.string(),
  /** What kind of answer is asked for. */
  type: z.string(),
  status: z.enum(["pending", "resumed", "expired", "cancelled"]),
  payload: JsonValue,
  resumeTo: ResumeTo,
  resumeCount: z.int(),
  maxResumes: z.int().nullable(),
  createdAt: moment,
  expiresAt: moment.nullable(),
  resolvedAt: moment.nullable(),
  /** The answer; null until there is one. */
  value: JsonValue,
  requestId: z.string().nullable(),
  /** Who answered, as they said. */
  actor: z.string().nullable(),
  /** What an answer must be, as JSON Schema; null is any JSON. */
  response: JsonValue,
  /** Where it waits in truth, when it is a sub-flow's and shows on this execution. */
  projectedFrom: z.object({ executionId: ExecutionId, interruptId: z.string() }).nullable(),
});
export type InterruptRecord = z.infer<typeof InterruptRecord>;

/** An answer that fits what the interrupt asks for. @throws {ContractError | PayloadError} */
export function parseAnswer(interrupt: string, schema: Json, value: unknown): Json {
  const where = `answer to interrupt "${interrupt}"`;
  const answer = value === undefined ? null : toJson(value, where);
  if (!isObject(schema)) return answer;
  // The application's zod, which may be older than what reads a JSON Schema.
  if (typeof z.fromJSONSchema !== "function")
    throw new UsageError(
      `the ${where} cannot be checked: this zod cannot read JSON Schema`,
      "install zod 4.2 or newer",
    );
  const result = z.fromJSONSchema(schema).safeParse(answer);
  if (result.success) return toJson(result.data, where);
  throw new ContractError(where, result.error.issues);
}
