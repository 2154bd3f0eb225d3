/** The session that speaks for a worker: it registers it, and says that it lives. Loaded by a thread, so it needs little. */
import { openClient } from "./driver.ts";
import type { DriverOptions } from "./driver.ts";
import { templateWithNames } from "./names.ts";
import type { SchemaNames } from "./names.ts";
import { list } from "./columns.ts";
import type { RegisteredSchedule } from "./schedules.ts";

export interface Registration {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  readonly flows: readonly string[];
  /** The version of each. */
  readonly fingerprints: readonly string[];
  /** How many executions it advances at once. */
  readonly slots: number;
  /** Its schedules by name. */
  readonly schedules: Readonly<Record<string, RegisteredSchedule>>;
  /** graphile-worker's name for whoever locks our jobs. */
  readonly pool: string | null;
}

export interface WorkerSession {
  register(worker: Registration): Promise<void>;
  /** False when the others have given the worker up. */
  beat(id: string): Promise<boolean>;
  leave(id: string): Promise<void>;
  end(seconds: number): Promise<void>;
}

export function openSession(connection: DriverOptions, names: SchemaNames, answerWithinSeconds: number): WorkerSession {
  const { sql: client } = openClient(
    {
      ...connection,
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
      connect_timeout: answerWithinSeconds,
      prepare: false,
    },
    { fixed: {} },
  );
  const sql = <T extends readonly object[]>(strings: TemplateStringsArray, ...values: (string | number | null)[]) =>
    client<T>(templateWithNames(strings, names), ...values);
  return {
    async register({ id, host, pid, flows, fingerprints, slots, schedules, pool }) {
      await sql`
        select flowledger.register_worker(${id}::uuid, ${host}, ${pid}::int, ${list(flows)}::text::text[],
          ${list(fingerprints)}::text::text[], ${JSON.stringify(schedules)}::text::jsonb, ${pool}, ${slots}::int)`;
    },
    async beat(id) {
      const [row] = await sql<[{ known: boolean }]>`select flowledger.heartbeat(${id}::uuid) as known`;
      return row.known;
    },
    async leave(id) {
      await sql`select flowledger.leave_worker(${id}::uuid)`;
    },
    end: (seconds) => client.end({ timeout: seconds }),
  };
}
