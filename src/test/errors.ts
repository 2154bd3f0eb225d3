/** What the test kit refuses or finds, beside the errors of the library. */
import { FlowledgerError } from "../base/errors.ts";

/** What a test waits for cannot come true any more, unless somebody does something or the clock is moved. */
export class UnreachableError extends FlowledgerError {
  /** @param reason what the execution waits for, as a sentence */
  constructor(id: string, condition: string, reason: string) {
    super("TEST_UNREACHABLE", `execution ${id} will not be ${condition}: ${reason}`, { executionId: id, condition });
  }
}

/** The clock cannot go on, because something at the present time does not come to its end. */
export class ClockStuckError extends FlowledgerError {
  constructor(waitedMs: number, reason: string) {
    super("TEST_CLOCK_STUCK", `the clock stands: after ${waitedMs} ms ${reason}`, { waitedMs });
  }
}

/** A crash at one boundary broke what a test promises. `cause` is what the check threw. */
export class CrashFoundError extends FlowledgerError {
  declare readonly details: { readonly boundary: string; readonly flow: string };

  constructor(flow: string, boundary: string, problem: string, cause?: unknown) {
    super(
      "TEST_CRASH_FOUND",
      `flow "${flow}" does not survive a crash ${boundary}: ${problem}`,
      { boundary, flow },
      cause,
    );
  }
}
