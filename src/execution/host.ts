/** What handles need of the process they live in. */
import type { NewId } from "../engine/ids.ts";
import type { Store } from "../store/store.ts";
import type { Timers } from "../base/timers.ts";
import type { Outcomes } from "./outcomes.ts";
import type { Streams } from "./stream.ts";

export interface ExecutionHost {
  readonly store: Store;
  readonly outcomes: Outcomes;
  readonly streams: Streams;
  readonly timers: Timers;
  readonly newId: NewId;
  /** The active span, where somebody traces. */
  activeTrace(): string | null;
}
