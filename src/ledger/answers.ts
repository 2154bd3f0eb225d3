/** The check of an answer, whoever gives it and whenever. */
import { z } from "zod";
import { ContractError, FlowledgerError, UsageError } from "../base/errors.ts";
import { isObject, toJson, type Json } from "../base/json.ts";
import { flaggedPattern } from "../flow/input-schema.ts";
import { CheckTimeout, checkedInTime, schemaProblem } from "../base/json-schema.ts";

/** What an answer must be, as the ledger keeps it. @throws {UsageError} for a type that no JSON has, or that leads to itself */
export function answerSchema(type: z.ZodType, where: string): Json {
  let schema: Json;
  try {
    schema = toJson(
      z.toJSONSchema(type, { io: "input", override: ({ zodSchema }) => refuseFlags(zodSchema, where) }),
      where,
    );
  } catch (error) {
    if (error instanceof FlowledgerError) throw error;
    const { message } = error instanceof Error ? error : new Error(String(error));
    throw new UsageError(`${where} is not a type of JSON: ${message}`, "use types that JSON has", {}, error);
  }
  const problem = schemaProblem(schema);
  if (problem === null) return schema;
  throw new UsageError(`${where} ${problem}`, "let it lead through a property or an item");
}

/** Whoever answers would be refused by a pattern that fits less than the one that was written. */
function refuseFlags(type: z.core.$ZodType, where: string): void {
  const pattern = flaggedPattern(type);
  if (pattern === null) return;
  throw new UsageError(
    `${where} has the pattern ${String(pattern)}, whose flags JSON Schema does not have`,
    "write it without them: [aA] for i, [^] for a dot of s",
  );
}

/** An answer that fits what the interrupt asks for. @throws {ContractError | PayloadError | UsageError} */
export function parseAnswer(interrupt: string, schema: Json, value: unknown): Json {
  const where = `answer to interrupt "${interrupt}"`;
  const answer = value === undefined ? null : toJson(value, where);
  if (!isObject(schema)) return answer;
  // The application's zod may be too old to read JSON Schema.
  if (typeof z.fromJSONSchema !== "function")
    throw new UsageError(
      `the ${where} cannot be checked: this zod cannot read JSON Schema`,
      "install zod 4.2 or newer",
    );
  const problem = schemaProblem(schema);
  if (problem !== null) throw unusable(where, problem);
  const result = usable(where, () => checkedInTime(schema, () => z.fromJSONSchema(schema).safeParse(answer)));
  if (result.success) return toJson(result.data, where);
  throw new ContractError(where, result.error.issues);
}

/** A schema that is none fails in zod's words, or in those of JavaScript. */
function usable<T>(where: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    const { message } = error instanceof Error ? error : new Error(String(error));
    throw unusable(where, error instanceof CheckTimeout ? message : `is not a JSON Schema (${message})`, error);
  }
}

function unusable(where: string, problem: string, cause?: unknown): UsageError {
  return new UsageError(
    `the ${where} cannot be checked: its schema ${problem}`,
    "correct the schema in the code of the flow",
    {},
    cause,
  );
}
