/** Places where a crash test may end, freeze or slow this process. Nothing happens unless FLOWLEDGER_FAILPOINT is set. */

export type FailpointName =
  | "before-claim"
  | "after-claim"
  | "before-commit"
  /** The statement has been sent and not been answered. */
  | "in-commit"
  | "after-commit"
  | "before-job-done";

interface Failpoint {
  readonly name: string;
  readonly action: string;
  /** Which hit acts, from 1. */
  hitsLeft: number;
}

/** `name:action[:hit]`, with the actions kill (SIGKILL), stop (SIGSTOP) and exit. */
const armed = parse(process.env["FLOWLEDGER_FAILPOINT"]);

export const isFailpointArmed = armed !== null;

/** A no-op when nothing is armed: one comparison. */
export function failpoint(name: FailpointName): void {
  if (armed !== null) hit(armed, name);
}

function parse(text: string | undefined): Failpoint | null {
  if (!text) return null;
  const [name = "", action = "kill", count = "1"] = text.split(":");
  return { name, action, hitsLeft: Number(count) };
}

function hit(point: Failpoint, name: FailpointName): void {
  if (point.name !== name || --point.hitsLeft !== 0) return;
  if (point.action === "exit") process.exit(1);
  process.kill(process.pid, point.action === "stop" ? "SIGSTOP" : "SIGKILL");
}
