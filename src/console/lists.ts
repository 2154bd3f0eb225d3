/** What goes across executions: lists, counts, the inbox, failures, flows, workers, schedules. */
import { readableTimesOf } from "../base/cron.ts";
import { release } from "../base/release.ts";
import { requireBoolean } from "../base/option.ts";
import { inboxOptions as inboxChecked } from "../execution/inbox.ts";
import { cursorBehind, parseCount, parseFailures, parseList } from "../execution/list.ts";
import type { KnownSchedule } from "../store/console.ts";
import type { Count, FailureShown, FlowShown, Me, Page, Question, Row, ScheduleShown, WorkerShown } from "./api.ts";
import { narrowed } from "./access.ts";
import { shared, type Asked } from "./desk.ts";
import { failureOptions, inboxOptions, listOptions, optionsOf } from "./filters.ts";
import { Refused } from "./http.ts";
import { questionOf, rowOf } from "./views.ts";

/** Rows of what has no pages. */
const most = 200;
/** So many of what failed last are looked at. */
const lastFailed = 5000;
/** Where counting ends. */
const countedTo = 1000;
/** Times of a schedule that are to come. */
const nextTimes = 5;

export function me({ desk, person }: Asked): Me {
  const { actor, role, groups, within } = person;
  const { pageSize, bulk } = desk.settings;
  return { actor, role, groups, isScoped: within !== null, pageSize, bulk, release };
}

export async function executions(asked: Asked): Promise<Page<Row>> {
  const { desk, person, query } = asked;
  const { limit = desk.settings.pageSize, ...options } = listOptions(query);
  const list = parseList({ ...options, limit });
  return shared(asked, `executions ${query.toString()}`, async () => {
    const filter = { ...list.filter, ...(person.within && { within: person.within }) };
    const headers = await (await desk.store()).reads.listHeaders({ ...list, filter });
    return {
      rows: headers.map((header) => rowOf(asked, header)),
      nextCursor: cursorBehind(list, headers),
    };
  });
}

export async function countExecutions(asked: Asked): Promise<Count> {
  const { desk, person, query } = asked;
  const { limit: _limit, cursor: _cursor, order: _order, ...options } = listOptions(query);
  const { filter, upTo } = parseCount({ ...options, upTo: countedTo });
  return shared(asked, `count ${query.toString()}`, async () => {
    const counted = await (
      await desk.store()
    ).reads.countExecutions({ ...filter, ...(person.within && { within: person.within }) }, upTo + 1);
    return { count: Math.min(counted, upTo), isMore: counted > upTo };
  });
}

export async function inbox(asked: Asked): Promise<Page<Question>> {
  const { desk, person, query } = asked;
  const { limit = desk.settings.pageSize, mine, metadata, ...options } = inboxOptions(query);
  const within = narrowed(person, metadata);
  if (within === "nothing") return { rows: [], nextCursor: null };
  const filter = {
    ...options,
    limit,
    ...(requireBoolean(mine ?? false, "filter mine") && { for: [person.actor, ...person.groups].slice(0, 100) }),
    ...(within && { metadata: within }),
  };
  inboxChecked(filter);
  return shared(asked, `inbox ${JSON.stringify(filter)}`, async () => {
    const { interrupts, nextCursor } = await desk.orchestrator.inbox(filter);
    return { rows: interrupts.map((record) => questionOf(asked, record)), nextCursor };
  });
}

export async function failures(asked: Asked): Promise<Page<FailureShown>> {
  const { desk, person, query } = asked;
  const filter = parseFailures({ limit: most, ...failureOptions(query) });
  return shared(asked, `failures ${query.toString()}`, async () => {
    const groups = await (
      await desk.store()
    ).reads.listFailures({ ...filter, newest: lastFailed, ...(person.within && { within: person.within }) });
    const rows = groups.map(({ firstAt, lastAt, error, lastMessage, ...group }) => {
      const of = { flow: group.flow, part: "error" } as const;
      return {
        ...group,
        error: desk.showing.text(error, of),
        lastMessage: lastMessage === null ? null : desk.showing.text(lastMessage, of),
        firstAt: firstAt.toISOString(),
        lastAt: lastAt.toISOString(),
      };
    });
    return { rows, nextCursor: null };
  });
}

export async function flows(asked: Asked): Promise<Page<FlowShown>> {
  const { desk, person, query } = asked;
  optionsOf(query, {});
  return shared(asked, "flows", async () => ({
    rows: await (await desk.store()).console.flows(person.within, most),
    nextCursor: null,
  }));
}

export async function workers(asked: Asked): Promise<Page<WorkerShown>> {
  requireUnscoped(asked, "workers");
  optionsOf(asked.query, {});
  return shared(asked, "workers", async () => {
    const found = await (await asked.desk.store()).console.workers(most);
    const rows = found.map(({ startedAt, heartbeatAt, ...worker }) => ({
      ...worker,
      startedAt: startedAt.toISOString(),
      heartbeatAt: heartbeatAt.toISOString(),
    }));
    return { rows, nextCursor: null };
  });
}

export async function schedules(asked: Asked): Promise<Page<ScheduleShown>> {
  requireUnscoped(asked, "schedules");
  optionsOf(asked.query, {});
  return shared(asked, "schedules", async () => {
    const found = await (await asked.desk.store()).console.schedules(most);
    return { rows: found.map(scheduleOf), nextCursor: null };
  });
}

/** They belong to all executions of a database, and name its hosts and times. */
function requireUnscoped({ person }: Asked, what: string): void {
  if (person.within !== null)
    throw new Refused(403, "SCOPED", `${what} belong to all executions, and you see some of them`);
}

function scheduleOf({ firedUntil, removedAt, now, ...schedule }: KnownSchedule): ScheduleShown {
  const times = readableTimesOf(schedule.cron, schedule.timeZone);
  const next: string[] = [];
  for (let at = times?.after(now); at && next.length < nextTimes; at = times?.after(at)) next.push(at.toISOString());
  return { ...schedule, next, firedUntil: firedUntil.toISOString(), removedAt: removedAt?.toISOString() ?? null };
}

/** Executions that it called. */
export async function children(asked: Asked & { readonly id: string }): Promise<Page<Row>> {
  const { desk, person, query, id } = asked;
  const { cursor } = optionsOf<{ cursor?: string }>(query, { cursor: "text" });
  const list = parseList({
    parent: id,
    limit: desk.settings.pageSize,
    order: "oldest",
    ...(cursor !== undefined && { cursor }),
  });
  const filter = { ...list.filter, ...(person.within && { within: person.within }) };
  return shared(asked, `children ${id} ${query.toString()}`, async () => {
    const headers = await (await desk.store()).reads.listHeaders({ ...list, filter });
    return {
      rows: headers.map((header) => rowOf(asked, header)),
      nextCursor: cursorBehind(list, headers),
    };
  });
}
