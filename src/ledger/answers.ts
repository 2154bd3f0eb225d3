/** The check of an answer, whoever gives it and whenever. */
import { z } from "zod";
import { ContractError, UsageError } from "../base/errors.ts";
import { isObject, toJson, type Json } from "../base/json.ts";

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
