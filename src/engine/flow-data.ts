/** Flow data is shared by all executions of a flow: said once per call site, because it is rarely what one wants. */
import { callSite } from "../base/call-site.ts";

const warnedSites = new Set<string>();

export function warnFlowData(method: string): void {
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
