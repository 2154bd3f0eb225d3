/** The flows and functions that an orchestrator was given, by name, with the sub-flows of each. */
import { DefinitionError, UsageError } from "../base/errors.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Meter } from "../telemetry/meter.ts";
import type { ScheduleOptions } from "../worker/schedules.ts";
import type { FunctionDefinition, OrchestratorOptions } from "./options.ts";

export class Known {
  readonly flows = new Map<string, FlowDefinition>();
  readonly functions = new Map<string, FunctionDefinition>();
  /** Those of the options, and those of functions with a cron. */
  readonly schedules: readonly ScheduleOptions[];
  readonly #meter: Meter;

  constructor({ flows = [], functions = [], schedules = [] }: OrchestratorOptions, meter: Meter) {
    this.#meter = meter;
    for (const flow of flows) this.#addFlow(flow);
    for (const [index, definition] of functions.entries()) this.#addFunction(definition, index);
    for (const schedule of schedules) this.#addFlow(schedule.flow);
    this.schedules = [...schedules, ...functions.flatMap(scheduleOf)];
  }

  #addFlow(flow: FlowDefinition): void {
    const known = this.flows.get(flow.name);
    if (known && known.fingerprint !== flow.fingerprint)
      throw new DefinitionError(flow.name, "two different flows have this name", "rename one of them");
    // Reading the graph finishes the definition, so an open block throws here and not at the first start.
    void flow.graph;
    this.flows.set(flow.name, flow);
    // Counters begin at 0: one that appears with its first event has no rate.
    this.#meter.flow(flow.name);
    for (const child of flow.subFlows.values()) this.#addFlow(child);
  }

  #addFunction(definition: FunctionDefinition, index: number): void {
    if (typeof definition !== "function" || typeof definition.flow !== "object")
      throw new UsageError(`functions[${index}] is not a deferred function`, "wrap it: defer(fn)");
    const { flow } = definition;
    // Two functions have the same structure, so the fingerprint does not tell them apart.
    if (this.flows.has(flow.name) && this.flows.get(flow.name) !== flow)
      throw new DefinitionError(
        flow.name,
        "a flow and a function, or two functions, have this name",
        "rename one of them, or give it a name: defer(fn, { name })",
      );
    this.#addFlow(flow);
    this.functions.set(flow.name, definition);
  }
}

/** A function with a cron is called without arguments. */
function scheduleOf({ flow, __metadata: { cron } }: FunctionDefinition): ScheduleOptions[] {
  return cron === undefined ? [] : [{ flow, name: flow.name, cron, input: [] }];
}
