/** What every argument and option of every function that a role, or the schema's owner, may call by SQL takes. */
import {
  anyText,
  boolean,
  duration,
  either,
  integer,
  json,
  jsonObject,
  list,
  moment,
  number,
  object,
  oneOf,
  optional,
  orNull,
  person,
  text,
  type Kind,
  path,
  seen,
} from "./kinds.ts";

export const nobody = "01a1fc32-0000-7000-8000-00000000dead";

/** An execution of the lab, made when it is asked for. */
export class Made {
  readonly what: "asking" | "spare" | "parent" | "frame" | "call" | "closed" | "correction";
  constructor(what: Made["what"]) {
    this.what = what;
  }
}

export interface SqlRow {
  /** With the names of its arguments: overloads have rows of their own. */
  readonly name: string;
  readonly args: Readonly<Record<string, Kind>>;
  /** What is right would change more than this database. */
  readonly isOnlyRefused?: true;
  /** Why nobody has to walk it. */
  readonly left?: string;
}

/** An id that there is; of a reader, one that there is not gives null. */
function anyOf(what: Made["what"]): Kind {
  return { sample: () => new Made(what), takes: () => true };
}
function of(what: Made["what"]): Kind {
  return { sample: () => new Made(what), takes: (value) => value instanceof Made };
}
/** Null and false mean the same. */
const flag = orNull(boolean);
const notify = { ...flag, sample: () => false };
const actor = orNull(person);
const event = text(500);
const payload = { ...orNull(json), sample: () => ({ n: 1 }) };
const idempotency_key = orNull(text(10_000));
/** An empty one is none. */
const emptyOr = (given: Kind): Kind => ({
  ...orNull(given),
  takes: (value) => value === null || value === "" || given.takes(value),
});
const maybe = (max: number): Kind => emptyOr(text(max));
const reason = orNull(seen(10_000));
const interrupt = text(1000);
const who = { actor: person, reason: seen(2000) };
const address = { chunk: optional(text(1_200_000)), index: optional(integer(0, 999_999_999)) };
const anyJson = optional({ ...json, takes: (value) => value === undefined || json.takes(value) });
/** A text of JSON has no dates. */
const momentText: Kind = { ...moment, sample: () => "2100-01-31T12:00:00Z" };
export const start = {
  id: optional({ sample: () => "01a1fc32-0000-7000-8000-00000000beef", takes: () => false }),
  idempotencyKey: optional(text(500)),
  metadata: optional(jsonObject),
  priority: optional(integer(-32_767, 32_767)),
  startAt: optional(momentText),
  delay: optional(duration),
  discardAfter: optional(either(duration, momentText)),
  autoClose: optional(boolean),
  autoCloseTimeout: optional(orNull(duration)),
  concurrency: optional(orNull(integer(1))),
  hidden: optional(boolean),
  interventionMode: optional(orNull(oneOf("planned", "auto"))),
  timeout: optional(orNull(duration)),
  limitKey: optional(text(200)),
  traceparent: optional(anyText),
  allowUnknown: { ...optional(boolean), sample: () => true },
};
const answer = {
  resumeRequestId: optional(orNull(text(10_000))),
  actor: optional(orNull(person)),
  onlyIfPending: optional(boolean),
  // What is malformed counts as none.
  traceparent: optional(orNull(anyText)),
};
const filled = (of: Kind): Kind => ({
  ...of,
  takes: (value) => of.takes(value) && Array.isArray(value) && value.length > 0,
});
const values: Kind = {
  ...jsonObject,
  takes: (value) => jsonObject.takes(value) && Object.keys(Object(value)).length > 0,
};
const edit = object({ set: optional(values), delete: optional(list(path)) });
const changes: Kind = {
  ...edit,
  sample: () => ({ set: { n: 1 } }),
  takes: (value) => edit.takes(value) && Object.keys(Object(value)).length > 0,
};
const intervention = {
  author: optional(emptyOr(person)),
  target: optional(maybe(500)),
  note: optional(maybe(10_000)),
  metadata: optional(orNull(jsonObject)),
  actor: optional(emptyOr(person)),
};

const commands: readonly SqlRow[] = [
  {
    name: "start",
    args: {
      flow: {
        ...text(100),
        sample: () => "matrix.sql",
        takes: (value) => ["matrix.sql", "constructor", "text", "1", "timer"].includes(String(value)),
      },
      input: payload,
      options: object(start),
    },
  },
  {
    name: "start_execution",
    args: { id: of("spare"), input: payload, notify, raw: flag, limit_key: orNull(text(200)) },
  },
  {
    name: "emit",
    args: { id: of("asking"), event, payload, idempotency_key, actor, notify, raw: flag },
  },
  {
    name: "emit",
    args: {
      id: of("asking"),
      event,
      payload,
      idempotency_key,
      actor,
      notify,
      raw: flag,
      traceparent: orNull(anyText),
    },
  },
  ...[
    {},
    { raw: flag },
    { raw: flag, only_if_pending: flag },
    { raw: flag, only_if_pending: flag, traceparent: orNull(anyText) },
    { raw: flag, only_if_pending: flag, traceparent: orNull(anyText), checked: orNull(anyText) },
  ].map((more): SqlRow => ({
    name: "continue_with",
    args: { id: of("asking"), interrupt, payload, resume_request_id: orNull(text(10_000)), actor, notify, ...more },
  })),
  { name: "continue_with", args: { id: of("asking"), interrupt, payload, options: object(answer) } },
  {
    name: "withdraw",
    args: {
      id: of("asking"),
      interrupt: { ...interrupt, sample: () => "q" },
      reason: orNull(seen(10_000)),
      actor,
      notify,
    },
  },
  ...[
    { name: "claim", options: { exclusive: optional(boolean) } },
    { name: "release", options: {} },
    { name: "delegate", options: { to: seen(100), reason: optional(seen(2000)) } },
    { name: "snooze", options: { until: momentText } },
  ].map(({ name, options }): SqlRow => ({
    name: `${name}_interrupt`,
    args: { id: of("asking"), interrupt, options: object({ ...options, actor: person }), notify },
  })),
  { name: "intervene", args: { id: of("asking"), payload, options: object(intervention), notify } },
  {
    name: "mark_intervention_consumed",
    args: {
      id: of("asking"),
      intervention: of("correction"),
      consumer: text(500),
      status: oneOf("applied", "ignored"),
      note: maybe(10_000),
      metadata: orNull(jsonObject),
      notify,
    },
  },
  { name: "seal", args: { id: of("spare"), actor, notify } },
  ...[{}, { parked: oneOf("reject", "fail") }].map((more): SqlRow => ({
    name: "close",
    args: { id: of("spare"), reason, pending: oneOf("reject", "cancel"), actor, notify, ...more },
  })),
  { name: "cancel", args: { id: of("spare"), reason, actor, notify } },
  { name: "cancel_function", args: { id: anyOf("call"), force: flag, notify } },
  {
    name: "reschedule_function",
    args: {
      p_id: anyOf("call"),
      p_at: orNull({ ...moment, sample: () => new Date("2100-01-01T00:00:00Z") }),
      p_delay_ms: orNull(number(0, 3_155_760_000_000)),
    },
  },
  ...[{}, { traceparent: orNull(anyText) }].map((more): SqlRow => ({
    name: "emit_to_sub_flow",
    args: { id: of("parent"), frame: of("frame"), event, payload, idempotency_key, actor, notify, raw: flag, ...more },
  })),
  { name: "cancel_sub_flow", args: { id: of("parent"), frame: of("frame"), reason, actor, notify } },
  { name: "retry", args: { id: of("asking"), options: object({ ...who, ...address, input: anyJson }), notify } },
  {
    name: "skip",
    args: { id: of("asking"), options: object({ ...who, ...address, output: anyJson }), notify, raw: flag },
  },
  {
    name: "edit_state",
    args: {
      id: of("asking"),
      changes,
      options: object({ ...who, expectedSeq: optional(integer(1)) }),
      notify,
      raw: flag,
    },
  },
  {
    name: "pause",
    args: { id: of("asking"), options: object({ ...who, until: optional(orNull(momentText)) }), notify },
  },
  { name: "unpause", args: { id: of("asking"), options: object(who), notify } },
  {
    name: "pause_flow",
    // What is paused here starts nothing any more.
    isOnlyRefused: true,
    args: { flow: text(100), options: object({ ...who, intake: optional(orNull(oneOf("hold", "refuse"))) }) },
  },
  {
    name: "bulk",
    // What is right would be done to the lab.
    isOnlyRefused: true,
    args: {
      options: object({
        ...who,
        id: optional(oneOf(nobody)),
        action: oneOf("redrive", "retry", "skip", "cancel", "pause", "unpause"),
        where: object({
          flow: optional(either(text(100), list(text(100)))),
          status: optional(oneOf("created", "running", "waiting", "parked", "completed", "failed", "cancelled")),
          version: optional(text(200)),
          createdAfter: optional(momentText),
          createdBefore: optional(momentText),
          closedAfter: optional(momentText),
          closedBefore: optional(momentText),
          parent: optional(oneOf(nobody)),
          idPrefix: optional(oneOf("01a1", "1")),
          idempotencyKey: optional(text(10_000)),
          errorLike: optional(text(1000)),
          metadata: optional(values),
          redriven: optional(boolean),
        }),
        options: optional(jsonObject),
        rate: optional(object({ limit: integer(1, 1_000_000), per: duration })),
        limit: optional(integer(1, 1_000_000)),
        dryRun: optional(boolean),
      }),
    },
  },
  {
    name: "run_schedule",
    isOnlyRefused: true,
    args: {
      name: text(200),
      options: object({ actor: who.actor, reason: optional(seen(2000)), id: optional(oneOf(nobody)) }),
    },
  },
  { name: "unpause_flow", isOnlyRefused: true, args: { flow: text(100), options: object(who) } },
  {
    name: "redrive",
    isOnlyRefused: true,
    args: {
      id: of("asking"),
      options: object({
        ...who,
        from: optional(either(oneOf("failure"), integer(1), object({ chunk: text(500) }))),
        input: anyJson,
        output: anyJson,
        state: optional(values),
      }),
    },
  },
];

const readers: readonly SqlRow[] = [
  {
    name: "inbox",
    args: {
      options: object({
        for: optional(filled(list(text(1000)))),
        overdue: optional(boolean),
        snoozed: optional(boolean),
        flow: optional(text(1000)),
        type: optional(text(1000)),
        metadata: optional(jsonObject),
        cursor: optional({ sample: () => `- 0 ${nobody} q`, takes: (value) => value === `- 0 ${nobody} q` }),
        limit: optional(integer(1, 1000)),
      }),
    },
  },
  { name: "asked_by_token", args: { token: anyText }, left: "what is no token leads nowhere, as one that nobody gave" },
  {
    name: "answer_by_token",
    args: {
      token: anyText,
      payload,
      options: object({ actor: optional(orNull(person)), traceparent: optional(orNull(anyText)) }),
    },
    left: "what is no token leads nowhere, as one that nobody gave",
  },
  { name: "state_at", args: { id: of("asking"), seq: orNull(integer(1, 1)) } },
  { name: "close_snapshot", args: { id: anyOf("asking") } },
  { name: "meta", args: { id: anyOf("asking") } },
  { name: "explain", args: { id: of("asking") } },
  { name: "bulk_report", args: { id: anyOf("asking") } },
  {
    name: "bulk_failures",
    args: { id: anyOf("asking"), after: integer(0, 2_147_483_647), max: integer(1, 1000) },
  },
  { name: "redriven_by", args: { id: anyOf("asking") } },
  { name: "seen", args: { p_ids: orNull(list(anyOf("asking"))) } },
  {
    name: "timeline",
    args: {
      id: of("asking"),
      after: orNull({ sample: () => "0.0", takes: (value) => value === "0.0" }),
      max: integer(1, 1000),
    },
  },
];

const inner = "what views and commands are made of; it takes whatever they hand it";
const library = "what the library's own functions are made of";
const owners: readonly SqlRow[] = [
  {
    name: "grant_roles",
    isOnlyRefused: true,
    args: { prefix: orNull({ ...text(50), takes: (value) => /^[a-z_][a-z0-9_]{0,49}$/.test(String(value)) }) },
  },
  {
    name: "grant_client",
    isOnlyRefused: true,
    args: {
      role: { ...text(63), takes: (value) => /^[a-z_][a-z0-9_]{0,62}$/.test(String(value)) },
      flows: orNull(list(text(100))),
      where: orNull(values),
      options: object({ actor: optional(orNull(person)), reason: optional(orNull(seen(10_000))) }),
    },
  },
  { name: "make_role", args: { p_role: text(63) }, left: "what grant_roles() and grant_client() are made of" },
  { name: "apply_grants", args: {}, left: "takes nothing" },
  { name: "accept_identity", args: {}, left: "takes nothing" },
  { name: "anchor", args: {}, left: "takes nothing" },
  { name: "rebuild", args: { p_ids: list(text()), p_snapshots: json, p_kept: json }, left: library },
  { name: "remove_executions", args: { p_ids: list(text()) }, left: "refused where no row of `prunes` lets it" },
  {
    name: "prune",
    args: {
      p_ids: {
        ...list(of("closed")),
        takes: (value) => Array.isArray(value) && value.length > 0 && value.every((one) => one instanceof Made),
      },
      p_actor: person,
      p_reason: seen(10_000),
    },
  },
  {
    name: "prune",
    args: {
      p_closed_before: {
        ...moment,
        sample: () => new Date(0),
        takes: (value) => value !== null && !String(value).endsWith("infinity"),
      },
      p_keep: object({
        status: optional(list(oneOf("completed", "failed", "cancelled"))),
        flow: optional(list(text(1_200_000))),
        metadata: optional(jsonObject),
      }),
      p_after: {
        sample: () => "00000000-0000-0000-0000-000000000000",
        takes: (value) => value !== null,
      },
      p_limit: integer(1, 2_147_483_647),
    },
  },
];

/** By name alone. */
export const leftOut: Readonly<Record<string, string>> = Object.fromEntries(
  [
    "events",
    "to_ms",
    "parked_below",
    "planned_of",
    "sub_flows_of",
    "open_dispatches",
    "standing",
    "projected_owner",
    "visible_in",
    "alike_error",
    "differences",
    "broken_chains",
    "broken_anchors",
    "now",
    "iso",
    "ms",
    "status_of",
    "lifecycle_of",
    "interrupt_of",
    "asked_of",
    "handling_of",
    "next_follow_up",
    "intervention_of",
    "wall_clock",
    "is_item",
    "parked_of",
    "pause_of",
    "flow_pause_of",
    "is_ending",
    "deadline_of",
    "has_other_version",
    "tried_versions",
    "channel",
    "pending_on",
    "interrupt_record",
    "early_record",
    "error_pieces",
    "pattern_pieces",
    "pieces_of",
    "projected_record",
    "is_projected_id",
    "from_ms",
  ].map((name) => [name, inner]),
);

export const sqlRows: readonly SqlRow[] = [...commands, ...readers, ...owners];
