/** `docs/status.md`: what the nightly run found, and on what. */
import { format } from "prettier";
import type { Outcome } from "./runner.ts";

export interface Run {
  readonly at: Date;
  /** What ran, by name, e.g. `{ Node: "24.21.0" }`. */
  readonly versions: Readonly<Record<string, string>>;
  readonly outcomes: readonly Outcome[];
}

/** The page, as the formatter wants it. */
export function statusPage({ at, versions, outcomes }: Run): Promise<string> {
  const count = (verdict: Outcome["verdict"]) => outcomes.filter((outcome) => outcome.verdict === verdict).length;
  const facts = { Date: dayOf(at), ...versions };
  const rows = outcomes.map(
    ({ name, verdict, reason, seconds }) =>
      `| ${name} | ${verdict}${reason === null ? "" : `: ${reason.replaceAll("|", "\\|")}`} | ${Math.round(seconds)} s |`,
  );
  const page = [
    "# Status",
    "What the last `npm run nightly` found. It writes this page.",
    Object.entries(facts)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join("\n"),
    `${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped.`,
    ["| Job | Result | Time |", "| --- | --- | --: |", ...rows].join("\n"),
  ];
  return format(page.join("\n\n"), { parser: "markdown" });
}

/**
 * What is wrong with the status beside the changelog, in one sentence; null when it is from the day of the newest release,
 * or later. A version that is not released yet needs none.
 */
export function staleness(status: string | null, changelog: string): string | null {
  const releases: { version: string; day: string }[] = [];
  for (const [heading, version = "", day = ""] of changelog.matchAll(/^## (\S+)(?: \((.*)\))?$/gm)) {
    if (day === "unreleased") continue;
    if (!isDay(day))
      return `CHANGELOG.md has "${heading}", expected "## ${version} (2026-01-31)" or "## ${version} (unreleased)".`;
    releases.push({ version, day });
  }
  const newest = releases.toSorted((a, b) => (a.day < b.day ? 1 : -1))[0];
  if (!newest) return null;
  const remedy = `run \`npm run nightly\` before version ${newest.version} (${newest.day}) is released.`;
  if (status === null) return `docs/status.md is missing: ${remedy}`;
  const day = /^- Date: (.*)$/m.exec(status)?.[1] ?? "";
  if (!isDay(day)) return `docs/status.md has no line "- Date: 2026-01-31": ${remedy}`;
  return day < newest.day ? `docs/status.md is of ${day}: ${remedy}` : null;
}

function isDay(text: string): boolean {
  return /^\d{4}-\d\d-\d\d$/.test(text);
}

function dayOf(at: Date): string {
  return at.toISOString().slice(0, 10);
}
