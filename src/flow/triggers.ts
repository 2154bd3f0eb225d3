/** What `when()` hears: events, or writes to a key of the state. */
import { isObject } from "../base/json.ts";
import { requireKnown, showWhole, type Refuse } from "../base/option.ts";
import { asDefinition } from "./chunk-options.ts";
import { noticeEvent, requireEvent, requireStatePath, type Contract } from "./contract.ts";
import type { WhenNode } from "./graph.ts";

/** @throws {DefinitionError} naming what the contract does not have */
export function heardBy(
  flow: { readonly name: string; readonly contract: Contract },
  trigger: string | readonly string[] | { readonly state: string },
  refuse: Refuse,
): WhenNode["trigger"] {
  if (isObject(trigger)) requireKnown(trigger, ["state"], "when()", refuse);
  if (!(typeof trigger === "string" || Array.isArray(trigger) || (isObject(trigger) && "state" in trigger)))
    refuse(`when() hears ${showWhole(trigger)}`, 'give it an event, a list of events, or { state: "key" }');
  const heard: WhenNode["trigger"] =
    typeof trigger === "object" && "state" in trigger
      ? { state: trigger.state }
      : { events: [...new Set(typeof trigger === "string" ? [trigger] : trigger)] };
  if ("events" in heard && heard.events.length === 0) refuse("when([]) hears nothing", "name at least one event");
  asDefinition(flow.name, "when()", () => {
    if ("state" in heard) requireStatePath(flow, heard.state);
    else if (!(heard.events.length === 1 && heard.events[0] === noticeEvent))
      for (const event of heard.events) requireEvent(flow, event);
  });
  return heard;
}
