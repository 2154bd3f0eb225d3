/** What every argument and option of every command takes. */
import { isoMoment } from "../../../src/base/duration.ts";
import { reservedActors, seenOf } from "../../../src/base/option.ts";
import { json, jsonObject, object, type Kind } from "./kinds.ts";
import { start } from "./sql.ts";

/** A text, as a shell gives it. */
export interface Word {
  readonly sample: string;
  readonly takes: (text: string) => boolean;
  /** What is neither right nor wrong here, as it would have its effect on this machine. */
  readonly skips?: (text: string) => boolean;
}

export interface CommandRow {
  readonly name: string;
  /** In order; those that may be left out too. */
  readonly args?: Readonly<Record<string, Word>>;
  /** By their long names; null takes no value. */
  readonly options?: Readonly<Record<string, Word | null>>;
  /** What is given with all that is tried. */
  readonly with?: readonly string[];
  /** It runs until a signal: only what is wrong is tried. */
  readonly isOnlyRefused?: true;
}

const isStorable = (text: string, max: number) =>
  text !== "" && !text.includes("\0") && text.isWellFormed() && Array.from(text).length <= max;
const text = (max: number): Word => ({ sample: "some", takes: (value) => isStorable(value, max) });
/** What is searched for. */
const search = text(1000);
const anyText: Word = { sample: "some", takes: () => true };
const oneOf = (...choices: readonly string[]): Word => ({
  sample: choices[0] ?? "",
  takes: (value) => choices.includes(value),
});
const whole = (min: number, max: number, sample: string): Word => ({
  sample,
  takes: (value) => /^\d{1,9}$/.test(value) && Number(value) >= min && Number(value) <= max,
});
const jsonText = (kind: Kind, sample: string): Word => ({
  sample,
  takes: (value) => {
    try {
      return kind.takes(JSON.parse(value));
    } catch {
      return false;
    }
  },
});
const date: Word = { sample: "2030-01-31T12:00:00Z", takes: (value) => isoMoment(value) !== null };
const future: Word = { ...date, takes: (value) => date.takes(value) && value.startsWith("2030") };
const duration: Word = { sample: "1ms", takes: (value) => value === "1ms" };
/** The lab's own: any other is unknown. */
const seen = (max: number): Word => ({
  ...text(max),
  takes: (value) => isStorable(value, max) && seenOf(value) !== "",
});
const person: Word = {
  ...text(500),
  takes: (value) => seen(500).takes(value) && !reservedActors.includes(seenOf(value)),
};
export const made = (what: string): Word => ({ sample: `$${what}`, takes: (value) => value === `$${what}` });
const id = made("asking");
const file: Word = {
  sample: "/dev/null",
  takes: (value) => value === "/dev/null",
  skips: (value) => isStorable(value, 2000) || !value.isWellFormed(),
};
const nowhere: Word = { sample: "nowhere.ts", takes: () => false };
const input = jsonText(json, '{"n": 1}');
const metadata = jsonText(jsonObject, '{"n": 1}');
const limit = whole(1, 1000, "5");
const filter: Readonly<Record<string, Word | null>> = {
  "--flow": { ...text(100), takes: (value) => isStorable(value, 100) },
  "--status": oneOf("created", "running", "waiting", "parked", "completed", "failed", "cancelled"),
  "--version-of-flow": text(200),
  "--created-after": date,
  "--created-before": date,
  "--closed-after": date,
  "--closed-before": date,
  "--parent": made("asking"),
  "--id-prefix": { sample: "01a1", takes: (value) => /^[\da-f]{1,8}$/.test(value) },
  "--idempotency-key": text(10_000),
  "--error-like": text(1000),
  "--metadata": metadata,
  "--redriven": null,
  "--no-redriven": null,
};
const list: Readonly<Record<string, Word | null>> = {
  ...filter,
  "--order": oneOf("newest", "oldest", "lastClosed"),
  "--count": whole(1, 100_000, "10"),
  "--limit": limit,
  "--cursor": made("asking"),
};
const who = { "--reason": seen(2000), "--actor": person };
const chunk = { "--chunk": text(500), "--index": whole(0, 999_999_999, "0") };

export const commandRows: readonly CommandRow[] = [
  {
    name: "demo",
    args: { file: { sample: "nowhere.md", takes: () => true } },
    options: { "--keep": null },
    isOnlyRefused: true,
  },
  {
    name: "dev",
    args: { module: { sample: "nowhere.ts", takes: () => false } },
    options: { "--port": whole(0, 65_535, "0"), "--console-port": whole(0, 65_535, "0") },
    isOnlyRefused: true,
  },
  { name: "migrate" },
  {
    name: "worker",
    args: { module: { sample: "nowhere.ts", takes: () => false } },
    options: {
      "--concurrency": whole(1, 999_999_999, "1"),
      "--metrics-port": whole(0, 65_535, "0"),
      "--metrics-host": anyText,
    },
    isOnlyRefused: true,
  },
  {
    name: "mcp",
    options: {
      "--allow": {
        sample: "answer,retry",
        takes: (value) => value.split(",").every((one) => /^ *(answer|retry|skip|redrive|cancel) *$/.test(one)),
      },
    },
    isOnlyRefused: true,
  },
  {
    name: "console",
    options: { "--port": whole(0, 65_535, "0"), "--read-only": null, "--as": person },
    isOnlyRefused: true,
  },
  { name: "list", options: list },
  { name: "failures", options: { "--flow": text(100), "--last-after": date, "--limit": limit } },
  {
    name: "inbox",
    options: {
      "--for": search,
      "--overdue": null,
      "--snoozed": null,
      "--flow": search,
      "--type": search,
      "--metadata": metadata,
      "--limit": limit,
      "--cursor": { sample: "- 0 $asking q", takes: (value) => value === "- 0 $asking q" },
    },
  },
  { name: "show", args: { id }, options: { "--events": whole(0, 999_999_999, "3") } },
  { name: "explain", args: { id } },
  {
    name: "timeline",
    args: { id },
    options: { "--limit": limit, "--cursor": { sample: "0.0", takes: (value) => /^\d\.\d$/.test(value) } },
  },
  {
    name: "history",
    args: { id },
    options: { "--from": whole(0, 999_999_999, "1"), "--type": oneOf("chunk.completed") },
  },
  {
    name: "tail",
    args: { id: made("closed") },
    options: { "--from": { sample: "0", takes: (value) => /^\d$/.test(value) } },
  },
  {
    name: "start",
    args: { flow: oneOf("matrix.cli"), json: input },
    options: { "--options": jsonText(object(start), '{"autoClose": false}'), "--force": null },
  },
  { name: "emit", args: { id, event: text(500), json: input }, options: { "--idempotency-key": text(10_000) } },
  {
    name: "resume",
    args: { id, interrupt: text(1000), json: input },
    options: { "--request-id": text(10_000), "--early": null, "--actor": person },
    with: ["--early"],
  },
  {
    name: "withdraw",
    args: { id, interrupt: text(1000) },
    options: { "--reason": seen(10_000), "--actor": person },
  },
  { name: "claim", args: { id, interrupt: text(1000) }, options: { "--exclusive": null, "--actor": person } },
  { name: "release", args: { id, interrupt: text(1000) }, options: { "--actor": person } },
  {
    name: "delegate",
    args: { id, interrupt: text(1000) },
    options: { "--to": seen(100), "--reason": seen(2000), "--actor": person },
    with: ["--to=user:bo"],
  },
  {
    name: "snooze",
    args: { id, interrupt: text(1000) },
    options: { "--until": future, "--actor": person },
    with: ["--until=2030-01-31T12:00:00Z"],
  },
  { name: "answer", args: { token: anyText, json: input }, options: { "--actor": person } },
  {
    name: "intervene",
    args: { id, json: input },
    options: { "--target": text(500), "--author": person, "--note": text(10_000) },
  },
  { name: "seal", args: { id: made("spare") } },
  {
    name: "close",
    args: { id: made("spare") },
    options: { "--timeout": duration, "--reason": seen(10_000), "--cancel-interrupts": null, "--fail-parked": null },
    with: ["--timeout=1ms"],
  },
  { name: "cancel", args: { id: made("spare") }, options: { "--reason": seen(10_000) } },
  { name: "retry", args: { id }, options: { ...who, ...chunk, "--input": input }, with: ["--reason=r"] },
  {
    name: "skip",
    args: { id: made("operated") },
    options: { ...who, ...chunk, "--output": input },
    with: ["--reason=r"],
  },
  {
    name: "edit-state",
    args: { id },
    options: {
      ...who,
      "--set": jsonText(jsonObject, '{"n": 1}'),
      "--delete": text(2000),
      "--expected-seq": whole(1, 999_999_999, "1"),
    },
    with: ["--reason=r", "--delete=n"],
  },
  { name: "pause", args: { id }, options: { ...who, "--until": future }, with: ["--reason=r"] },
  { name: "unpause", args: { id }, options: who, with: ["--reason=r"] },
  {
    name: "bulk",
    args: { action: oneOf("cancel", "redrive", "retry", "skip", "pause", "unpause") },
    options: {
      ...filter,
      ...who,
      // Of the executions of the lab; what nobody knows is refused.
      "--flow": oneOf("matrix.cli"),
      // A cancel has none.
      "--options": { sample: "{}", takes: (value) => value === "{}" },
      "--rate": { sample: "50/1s", takes: (value) => value === "50/1s" },
      "--limit": whole(1, 1_000_000, "10"),
      "--dry-run": null,
      "--wait": null,
    },
    with: ["--reason=r", "--dry-run", "--id-prefix=0"],
  },
  {
    name: "bulk-report",
    args: { id: made("nobodys") },
    options: { "--limit": limit, "--cursor": oneOf("0", "7") },
    isOnlyRefused: true,
  },
  {
    name: "pause-flow",
    args: { flow: text(100) },
    options: { ...who, "--refuse": null },
    with: ["--reason=r"],
    isOnlyRefused: true,
  },
  { name: "run-schedule", args: { name: text(200) }, options: who, isOnlyRefused: true },
  { name: "unpause-flow", args: { flow: text(100) }, options: who, with: ["--reason=r"], isOnlyRefused: true },
  {
    name: "redrive",
    args: { id },
    options: {
      ...who,
      "--from-chunk": text(500),
      "--from-seq": whole(1, 999_999_999, "1"),
      "--input": input,
      "--output": input,
      "--state": jsonText(jsonObject, '{"n": 1}'),
    },
    with: ["--reason=r"],
    isOnlyRefused: true,
  },
  {
    name: "verify",
    args: { id },
    options: { "--anchors": { sample: "/dev/null", takes: (value) => value === "/dev/null" } },
  },
  { name: "anchor", options: { "--file": file } },
  { name: "rebuild", args: { id } },
  {
    name: "prune",
    options: {
      "--closed-before": { ...date, takes: (value) => date.takes(value) },
      "--id": made("closed"),
      "--actor": person,
      "--reason": seen(10_000),
      "--keep": oneOf("completed", "failed", "cancelled"),
      "--keep-flow": search,
      "--keep-metadata": metadata,
    },
  },
  { name: "doctor" },
  { name: "workers", options: { "--limit": limit } },
  { name: "schedules", options: { "--limit": limit } },
  {
    name: "fork",
    args: { id },
    options: {
      "--at": { sample: "2", takes: (value) => /^[12]$/.test(value) || value === "2026-01-01" },
      "--input": input,
      "--metadata": metadata,
      "--reason": seen(2000),
      "--actor": person,
    },
    with: ["--at=2"],
  },
  { name: "save", args: { id }, options: { "--file": file } },
  {
    name: "load",
    args: { file: { sample: "/dev/null", takes: () => false, skips: (value) => value === "-" }, module: nowhere },
    options: { "--check": null },
    isOnlyRefused: true,
  },
];
