/** What a worker says of itself, for metrics and health. */
export interface Vitals {
  readonly state: "serving" | "draining" | "stopped";
  /** Executions that it may advance at once, and how many more it has room for. */
  readonly slots: number;
  readonly freeSlots: number;
  /** Executions that it owns, those that wait for children too. */
  readonly owned: number;
  /** Since its last sign of life reached the database, in milliseconds. */
  readonly silentMs: number;
  /** The others count on it: it is registered, and was not given up. */
  readonly isHeld: boolean;
  /** Its jobs are fetched, and it was not told to stop. */
  readonly takesClaims: boolean;
}
