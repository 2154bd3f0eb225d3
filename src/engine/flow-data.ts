/** Flow data is shared by all executions of a flow: said once per call site, because it is rarely what one wants. */
import { callSite } from "../base/call-site.ts";
import { requireBoolean, requireKnown, requireText } from "../base/option.ts";
import { toJson } from "../base/json.ts";
import type { FlowDataOptions } from "../flow/context.ts";

const warnedSites = new Set<string>();

/** Checks a call, and warns where that was not switched off. @throws {UsageError | PayloadError} */
export function requireFlowData(method: string, key: string, options: FlowDataOptions = {}): void {
  requireKnown(options, method === "getFlowData" ? ["default", "noWarning"] : ["noWarning"], `${method}()`);
  const { noWarning = false, default: fallback } = options;
  requireBoolean(noWarning, `noWarning of ${method}()`);
  if (fallback !== undefined) toJson(fallback, `default of ${method}()`);
  requireText(key, `key of ${method}()`, { max: 500 });
  if (!noWarning) warnFlowData(method);
}

function warnFlowData(method: string): void {
  const site = callSite();
  if (warnedSites.has(site)) return;
  warnedSites.add(site);
  process.emitWarning(
    `${method}() reads or writes data that all executions of the flow share; use setState() for data of one execution, or pass { noWarning: true }`,
    {
      type: "FlowledgerWarning",
      code: "FLOW_DATA_SHARED",
    },
  );
}
