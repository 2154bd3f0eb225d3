/** W3C Trace Context: `00-<trace id>-<span id>-<flags>`. What is malformed counts as none, so that no start fails for it. */
import { UsageError } from "../base/errors.ts";
import { show } from "../base/option.ts";
import { callSite } from "../base/call-site.ts";

/** The same as `flowledger.traceparent_of` in SQL. */
const wellFormed = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

const warnedSites = new Set<string>();

/** Null where it is malformed, with one warning for each place that gives such. @throws {UsageError} it is no text */
export function parseTraceparent(text: unknown): string | null {
  if (typeof text !== "string")
    throw new UsageError(
      `traceparent must be a text, got ${show(text)}`,
      "pass the header as it came, or leave it out",
    );
  if (wellFormed.test(text)) return text;
  const site = callSite();
  if (warnedSites.has(site)) return null;
  warnedSites.add(site);
  process.emitWarning(
    `traceparent ${JSON.stringify(text.slice(0, 80))} is malformed and ignored: pass "00-<32 hex>-<16 hex>-<2 hex>", as W3C Trace Context writes it`,
    { type: "FlowledgerWarning", code: "TRACEPARENT_MALFORMED" },
  );
  return null;
}

/** What a line of the log says of the trace; nothing where there is none, or its spans go nowhere. */
export function traceIdOf(traceparent: string | null): { readonly traceId?: string } {
  const [, traceId, , flags = "0"] = traceparent?.split("-") ?? [];
  return traceId !== undefined && Number.parseInt(flags, 16) & 1 ? { traceId } : {};
}
