/** What handles need of the process they live in. */
import type { CommandsIn } from "../store/commands.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { NewId } from "../engine/ids.ts";
import type { Store } from "../store/store.ts";
import type { Timers } from "../base/timers.ts";
import type { KnownSchemas } from "./schemas.ts";
import type { Outcomes } from "./outcomes.ts";
import type { Streams } from "./stream.ts";

export interface ExecutionHost {
  readonly store: Store;
  readonly outcomes: Outcomes;
  readonly streams: Streams;
  readonly timers: Timers;
  readonly newId: NewId;
  readonly schemas: KnownSchemas;
  /** Sends a command to an execution, and tells its owner and all who wait. What it wakes a worker of this process claims, if it has room. */
  send<T>(id: ExecutionId, flow: string, send: (commands: CommandsIn) => Promise<T>): Promise<T>;
  /** The active span, where somebody traces. */
  activeTrace(): string | null;
}
