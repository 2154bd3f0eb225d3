/** Planted defects: each takes one rule out of the product, and a run must then fail. */
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { sqlFiles } from "../../src/store/sql-files.ts";
import type { FaultName } from "./nemesis.ts";

export interface Mutant {
  /** What was taken out. */
  readonly defect: string;
  /** Text of the function files that is replaced in the run's database. */
  readonly sql?: readonly Patch[];
  /** Text of the library's source that is replaced in a copy, by file. */
  readonly source?: Readonly<Record<string, readonly Patch[]>>;
  /** Faults that matter most here. */
  readonly faults: Partial<Record<FaultName, number>>;
}

type Patch = readonly [from: string, to: string];

const root = resolve(import.meta.dirname, "../..");
const fence =
  "where h.id = any(p_ids) and h.id = x.id and h.epoch = x.epoch and h.lease_token = x.token and h.commit_no = x.commit_no - 1 and h.owner is not null";

export const mutants: Readonly<Record<string, Mutant>> = {
  "no-fence": {
    defect: "a commit is accepted whatever its epoch, token and owner",
    sql: [[fence, "where h.id = x.id and h.commit_no < x.commit_no"]],
    faults: { freeze: 4, muteHeartbeat: 6, kill: 1 },
  },
  "fence-without-lock": {
    defect: "the lease is read first and the row locked later (up to 300 ms later, so that a minute is enough)",
    sql: [
      ["begin\n  if p_skip_locked then", "  v_mine uuid[];\nbegin\n  if p_skip_locked then"],
      [
        "  v_at := flowledger.now();\n  with updated as (",
        `  v_mine := array(select h.id from flowledger.executions h
    join unnest(p_ids, p_epochs, p_tokens, p_commit_nos) as x(id, epoch, token, commit_no) on x.id = h.id
    where h.epoch = x.epoch and h.lease_token = x.token and h.commit_no = x.commit_no - 1 and h.owner is not null);
  perform pg_sleep(random() * 0.3);
  v_at := flowledger.now();
  with updated as (`,
      ],
      [fence, "where h.id = x.id and h.id = any(v_mine)"],
    ],
    faults: { muteHeartbeat: 10 },
  },
  "no-commit-number": {
    defect: "a commit that is sent again after its answer was lost does not find its own number",
    sql: [[" and h.commit_no = x.commit_no - 1", ""]],
    faults: { loseAnswer: 12 },
  },
  "release-without-seq": {
    defect: "an owner gives an execution back although something came in since it last looked",
    sql: [["x.release and h.seq = x.base as releases", "x.release as releases"]],
    faults: {},
  },
  "job-before-commit": {
    defect: "a job is finished before the work it stands for, and nothing looks for work that has none",
    sql: [
      [
        `    perform flowledger_jobs.force_unlock_workers(v_pools);
    if v_freed is not null then
      perform flowledger.add_jobs(v_freed);
    end if;`,
        `    perform flowledger_jobs.force_unlock_workers(v_pools);`,
      ],
      [
        `  if v_swept is not null then
    perform flowledger.add_jobs(v_swept);
  end if;`,
        "",
      ],
    ],
    source: {
      "worker/jobs.ts": [
        [
          "const outcomes = await Promise.allSettled(ids.data.map((id) => advance(id, flow, priority)));",
          "const outcomes: PromiseSettledResult<void>[] = []; void Promise.allSettled(ids.data.map((id) => advance(id, flow, priority)));",
        ],
      ],
      "worker/upkeep.ts": [["stealDue().catch(onTrouble);", ""]],
    },
    faults: { kill: 6 },
  },
  "notification-is-truth": {
    defect: "owners and readers look only when a notification arrives",
    source: {
      "worker/upkeep.ts": [["if (beats % (pollEveryMs / beatEveryMs) === 0)", "if (beats < 0)"]],
      "store/wakeups.ts": [
        ["for (const set of listeners.values()) for (const listener of set) listener(false);", ""],
        ["if (isUp) listeners.forEach((_, id) => deliver(id, false));", ""],
      ],
    },
    faults: { deafen: 10, terminateListener: 4 },
  },
  "heartbeat-ignores-loop": {
    defect: "the heartbeat goes on while the main loop stands still",
    source: { "worker/heartbeat-thread.ts": [["if (liveness.monotonic() - tickedAt < stuckMs)", "if (tickedAt > 0)"]] },
    faults: { block: 10 },
  },
  "wall-clock-in-sql": {
    defect: "timers go by the worker's wall clock",
    source: {
      "engine/clock.ts": [
        ["return at + Math.max(offsetAt(this.#nearest, at), offsetAt(this.#before, at));", "return Date.now();"],
      ],
    },
    faults: { kill: 3 },
  },
  "attempts-not-reset": {
    defect: "what is retried goes on counting its attempts",
    source: {
      "ledger/operators.ts": [
        ["  dispatch.failures = 0;\n  dispatch.lastError = null;", "  dispatch.lastError = null;"],
      ],
    },
    faults: {},
  },
  "actor-dropped": {
    defect: "a retry does not say who asked for it",
    sql: [["'chunk', d -> 'chunk', 'actor', options -> 'actor', 'reason'", "'chunk', d -> 'chunk', 'reason'"]],
    faults: {},
  },
  "skip-without-routing": {
    defect: "what is skipped ends, and nothing goes on from it",
    source: {
      "ledger/operators.ts": [
        [
          '  state.inbox.push({ seq, kind: "skip", dispatch: event.dispatch, paused, value: event.output, raw: false });',
          "  void seq;",
        ],
      ],
    },
    faults: {},
  },
  "reminder-twice": {
    defect: "a reminder that has come due is told twice",
    source: {
      "ledger/handling.ts": [
        [
          "      events.push(followUp(id, next));",
          '      events.push(followUp(id, next), ...("answer" in next || "assign" in next ? [] : [followUp(id, next)]));',
        ],
      ],
    },
    faults: {},
  },
};

/** The database's functions with the defect; null when it has none there. */
export function plantSql({ sql }: Mutant): string | null {
  if (!sql) return null;
  const text = sqlFiles()
    .functions.map((file) => file.text)
    .join("\n");
  return `set check_function_bodies = off;\n${patched(text, sql, "migrations/functions")}`;
}

/** A copy of the library's source, so that a run sees one version of it; with the defect when it has one there. */
export function plantSource(mutant: Mutant | null): string {
  const folder = mkdtempSync(join(tmpdir(), "flowledger-mutant-"));
  for (const name of ["node_modules", "migrations", "package.json"]) symlinkSync(join(root, name), join(folder, name));
  cpSync(join(root, "src"), join(folder, "src"), { recursive: true });
  for (const [file, patches] of Object.entries(mutant?.source ?? {})) {
    const path = join(folder, "src", file);
    writeFileSync(path, patched(readFileSync(path, "utf8"), patches, file));
  }
  return join(folder, "src");
}

function patched(text: string, patches: readonly Patch[], file: string): string {
  for (const [from, to] of patches) {
    if (text.split(from).length !== 2) throw new Error(`the mutant's text is not found once in ${file}: ${from}`);
    text = text.replace(from, () => to);
  }
  return text;
}
