/** What a pause does when nobody answers in time, checked where it is written. */
import { UsageError } from "../../base/errors.ts";
import { isObject, type Json } from "../../base/json.ts";
import { requireKnown, requireOneOf, show } from "../../base/option.ts";
import type { PauseOptions } from "../../flow/context.ts";
import { parseEvent } from "../../flow/contract.ts";
import type { FlowDefinition } from "../../flow/definition.ts";
import { parseAnswer } from "../../ledger/answers.ts";
import type { OnExpire } from "../../ledger/event.ts";

interface Pausing {
  readonly flow: FlowDefinition;
  readonly interrupt: string;
  /** As JSON Schema; null is any JSON. */
  readonly response: Json;
  readonly where: string;
}

/**
 * @throws {UsageError} it is no onExpire, there is no `expiresIn`, or nothing hears the event
 * @throws {ContractError} the value is not what the pause asks for, or the payload not what the event takes
 */
export function parseOnExpire(
  { onExpire, expiresIn }: Pick<PauseOptions, "onExpire" | "expiresIn">,
  { flow, interrupt, response, where }: Pausing,
): OnExpire | null {
  if (onExpire === undefined) return null;
  const what = `onExpire of ${where}`;
  if (!isObject(onExpire))
    requireOneOf(onExpire, ["end", "fail", "continue"], `${what}, where it is no { event } or { value },`);
  if (expiresIn === undefined || expiresIn === null)
    throw new UsageError(
      `${where} has onExpire ${show(onExpire)} and never expires`,
      'give it an expiresIn, such as "7d"',
    );
  if (typeof onExpire === "string") return onExpire === "end" ? null : onExpire;
  if ("value" in onExpire) {
    requireKnown(onExpire, ["value"], what);
    return { value: parseAnswer(interrupt, response, onExpire.value) };
  }
  requireKnown(onExpire, ["event", "payload"], what);
  const { event, payload = null } = onExpire;
  const parsed = parseEvent(flow, event, payload);
  if (!flow.graph.whenEvent.has(event)) {
    const heard = [...flow.graph.whenEvent.keys()].map((name) => JSON.stringify(name));
    throw new UsageError(
      `${what} is the event ${show(event)}, which nothing in flow "${flow.name}" hears`,
      heard.length > 0 ? `use one of ${heard.join(", ")}, or add when(${show(event)})` : `add when(${show(event)})`,
    );
  }
  return { event, payload: parsed };
}
