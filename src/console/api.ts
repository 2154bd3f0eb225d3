/** What the server sends and the page shows: types alone, so that both sides of the wire compile against one. Times are ISO text. */
import type { Json } from "../base/json.ts";
import type { Role } from "./access.ts";

/** A value, or its beginning as text, with the path that has the whole of it. */
export type Shown =
  { readonly json: Json } | { readonly preview: string; readonly bytes: number; readonly load: string | null };

export interface Me {
  readonly actor: string;
  readonly role: Role;
  readonly groups: readonly string[];
  /** Only some executions exist for them, and no workers and schedules. */
  readonly isScoped: boolean;
  readonly pageSize: number;
  /** Executions of one bulk action, at most. */
  readonly bulk: number;
  readonly release: string;
}

export interface ErrorShown {
  readonly name: string | null;
  readonly message: string | null;
  readonly chunk?: string | null;
  readonly attempt?: number | null;
  readonly stack?: string | null;
  readonly code?: string | null;
}

export type Status = "created" | "running" | "waiting" | "parked" | "completed" | "failed" | "cancelled";

export interface Row {
  readonly id: string;
  readonly flow: string;
  readonly status: Status;
  readonly lifecycle: "open" | "sealed" | "closed";
  readonly metadata: Shown;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly closedAt: string | null;
  readonly error: ErrorShown | null;
  readonly pending: number;
  readonly parked: number;
}

export interface Page<T> {
  readonly rows: readonly T[];
  readonly nextCursor: string | null;
}

export interface Count {
  readonly count: number;
  readonly isMore: boolean;
}

/** What waits for a person. */
export interface Question {
  readonly executionId: string;
  readonly id: string;
  readonly flow: string;
  readonly chunk: string;
  readonly type: string;
  readonly createdAt: string;
  readonly expiresAt: string | null;
  readonly title: string | null;
  /** Whom it asks; null is nobody in particular. */
  readonly assignees: readonly string[] | null;
  readonly dueAt: string | null;
  readonly claimedBy: string | null;
  readonly claimedAt: string | null;
  readonly isExclusive: boolean;
  readonly snoozedUntil: string | null;
  readonly payload: Shown;
  /** JSON Schema of an answer; null is any JSON. */
  readonly response: Json;
}

export interface Overview {
  readonly id: string;
  readonly flow: string;
  readonly status: Status;
  readonly lifecycle: "open" | "sealed" | "closed";
  readonly fingerprint: string | null;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly sealedAt: string | null;
  readonly closedAt: string | null;
  readonly closeReason: string | null;
  /** Events of its ledger. */
  readonly seq: number;
  readonly parentId: string | null;
  readonly forkedFrom: string | null;
  readonly redrivenBy: readonly string[];
  readonly metadata: Shown;
  readonly sentence: string;
  /** As `explain()` tells them apart. */
  readonly kind: string;
  readonly isPaused: boolean;
  /** Kinds of what it waits for. */
  readonly waits: readonly string[];
  readonly error: ErrorShown | null;
  readonly input: Shown | null;
  readonly output: Shown | null;
  readonly questions: readonly Question[];
  readonly parked: readonly { readonly chunk: string; readonly index: number | null; readonly executionId: string }[];
  readonly traceUrl: string | null;
  readonly takesInterventions: boolean;
}

export interface AttemptShown {
  readonly attempt: number | null;
  readonly status: string;
  readonly queuedAt: string | null;
  readonly startedAt: string | null;
  readonly endedAt: string;
  readonly error: ErrorShown | null;
}

export interface TimelineShown {
  readonly cursor: string;
  readonly kind: "chunk" | "step" | "sleep" | "wait" | "child" | "items";
  readonly name: string;
  readonly status: string;
  readonly queuedAt: string | null;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly until: string | null;
  readonly attempts: readonly AttemptShown[];
  /** Of a child that this person may see. */
  readonly executionId: string | null;
  readonly actor: string | null;
  readonly error: ErrorShown | null;
  readonly size: number | null;
}

export interface TimelinePage extends Page<TimelineShown> {
  /** As of which event. */
  readonly seq: number;
  /** Events of the ledger; where `seq` is less, the rest is being read. */
  readonly of: number;
  /** When the point of the past was that was asked for; null is now. */
  readonly at: string | null;
}

export interface EventShown {
  readonly seq: number;
  readonly at: string;
  readonly type: string;
  readonly chunk: string | null;
  readonly actor: string | null;
  readonly payload: Shown | null;
}

export interface StateShown {
  readonly state: Shown;
  /** As of which event. */
  readonly seq: number;
  /** Up to which it was asked for; where `seq` is less, the rest is being read. */
  readonly of: number;
  readonly problem: string | null;
}

/** A place in the graph of a flow. */
export interface GraphNode {
  readonly id: string;
  readonly kind: string;
  readonly label: string;
  readonly next: readonly string[];
  /** How a value gets from a block's first node into its bodies. */
  readonly entries: readonly { readonly label: string; readonly to: string }[];
  /** Where a block's bodies meet again. */
  readonly end: string | null;
}

export interface GraphShown {
  readonly flow: string;
  readonly fingerprint: string;
  readonly roots: readonly string[];
  readonly nodes: readonly GraphNode[];
}

export interface NodeShown {
  readonly status: string;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly running: number;
  readonly waiting: number;
  readonly parked: number;
  readonly items: { readonly size: number; readonly completed: number; readonly failed: number } | null;
}

export interface PictureShown {
  /** Null where no worker has told what the flow looks like. */
  readonly graph: GraphShown | null;
  readonly states: Readonly<Record<string, NodeShown>>;
  /** As of which event. */
  readonly seq: number;
  /** Up to which it was asked for; where `seq` is less, the rest is being read. */
  readonly of: number;
}

export interface FailureShown {
  readonly flow: string;
  readonly chunk: string | null;
  readonly error: string;
  readonly executions: number;
  readonly firstAt: string;
  readonly lastAt: string;
  readonly lastId: string;
  readonly lastMessage: string | null;
}

export interface FlowShown {
  readonly flow: string;
  readonly open: Readonly<Record<string, number>>;
  readonly failed: number;
  readonly versions: readonly { readonly fingerprint: string | null; readonly executions: number }[];
  readonly limits: Readonly<Record<string, number | null>> | null;
  readonly queued: number;
  readonly workers: number;
  /** Nothing new of it starts. */
  readonly paused: {
    readonly intake: "hold" | "refuse";
    readonly actor: string;
    readonly reason: string;
    readonly at: string;
  } | null;
}

/** What a bulk would do. */
export interface BulkShown {
  readonly matched: number;
  readonly isMore: boolean;
  /** Ids of the first. */
  readonly samples: readonly string[];
}

export interface BulkBegun {
  readonly id: string;
}

/** What somebody does, or did, to many executions. */
export interface OperationShown {
  readonly id: string;
  readonly action: string;
  /** Which executions it is about. */
  readonly filter: Shown;
  readonly actor: string;
  readonly reason: string;
  readonly at: string;
  readonly status: Status;
  readonly closedAt: string | null;
  readonly matched: number;
  readonly done: number;
  readonly skipped: number;
  readonly failed: number;
}

export interface OperationFailureShown {
  readonly executionId: string;
  readonly at: string;
  readonly code: string;
  readonly message: string;
}

export interface WorkerShown {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  readonly role: string;
  readonly flows: readonly string[];
  /** Of each flow the fingerprint that it runs. */
  readonly versions: Readonly<Record<string, string>>;
  /** How many executions it advances at once; null for a worker of an older release. */
  readonly slots: number | null;
  readonly startedAt: string;
  readonly heartbeatAt: string;
  readonly silentMs: number;
}

export interface ScheduleShown {
  readonly name: string;
  readonly flow: string;
  readonly cron: string;
  readonly timeZone: string;
  readonly next: readonly string[];
  readonly firedUntil: string;
  readonly lastId: string | null;
  readonly waiting: number;
  readonly removedAt: string | null;
}

/** What was refused, with what the person can do something about. */
export interface Refusal {
  readonly code: string;
  readonly message: string;
  /** At which part of what was sent. */
  readonly issues?: readonly { readonly path: readonly (string | number)[]; readonly message: string }[];
  /** Who was first, and when. */
  readonly by?: string | null;
  readonly at?: string | null;
}
