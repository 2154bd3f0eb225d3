/**
 * A development server evaluates an application's modules again after an edit, in the same process: that makes another
 * orchestrator, and nobody closes the one before it. So they know of each other: the newest goes on with the worker, and the
 * others let go of their connections.
 */
import { systemTimers as liveness } from "../base/timers.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Store } from "../store/store.ts";
import type { LocalWorker, WorkerHost, WorkerSettings } from "./host.ts";

/** What an orchestrator has. */
export interface MemberHost {
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  readonly workers: ReadonlySet<LocalWorker>;
  readonly log: Logger;
  isClosed(): boolean;
  store(): Store | undefined;
  /** From here on its next use opens new connections. */
  letGo(): void;
  /** Starts a worker as that one was, with what is defined here in the place of what has the same name. */
  serve(serving: Serving): Promise<unknown>;
}

export interface Member extends MemberHost {
  /** Database and schema. */
  readonly place: string;
}

/** A worker, and what another one needs to be like it. */
export interface Serving {
  /** Whose it is: which one it was started by, before any edit. */
  readonly origin: Member;
  readonly by: Member;
  readonly worker: LocalWorker;
  /** What users gave it. */
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  readonly host: Pick<WorkerHost, "resources" | "schedules">;
  readonly settings: WorkerSettings;
}

interface Registry {
  /** The last one of each place. */
  readonly newest: Map<string, Member>;
  /** Those that have connections. */
  readonly open: Map<Member, { isIdle: boolean }>;
  readonly serving: Set<Serving>;
}

/** How often it is looked who needs no connections any more: twice in a row, as work consists of many statements. */
const lookEveryMs = 500;
/** Each evaluation of the application may bring a copy of this module. */
const key = Symbol.for("flowledger.reload");

/** @returns whether this process is a server that evaluates modules again */
export function isReloading(): boolean {
  // Written as literals, because bundlers replace them by their values.
  return process.env["NODE_ENV"] === "development" && process.env["NEXT_RUNTIME"] === "nodejs";
}

function registry(): Registry {
  const known: unknown = Reflect.get(globalThis, key);
  if (isRegistry(known)) return known;
  const made: Registry = { newest: new Map(), open: new Map(), serving: new Set() };
  Reflect.set(globalThis, key, made);
  liveness.every(lookEveryMs, () => rest(made)).unref();
  return made;
}

function isRegistry(value: unknown): value is Registry {
  return typeof value === "object" && value !== null && "serving" in value;
}

/** It has opened connections. The first time it goes on with the worker that serves a flow of the same name. */
export function opened(known: Member | undefined, place: string, host: MemberHost): Member {
  const { newest, open, serving } = registry();
  const member = known ?? { ...host, place };
  open.set(member, { isIdle: false });
  if (!known) {
    newest.set(place, member);
    for (const one of serving) if (isDefinedAnew(one, member)) void handOver(one, member);
  }
  return member;
}

/** It has started a worker, which another one may have to go on with at once. */
export function started(one: Serving): void {
  const { newest, serving } = registry();
  serving.add(one);
  const last = newest.get(one.by.place);
  if (one.origin.isClosed() || one.by.isClosed()) void handOver(one, one.origin);
  else if (last && isDefinedAnew(one, last)) void handOver(one, last);
}

/** It is being closed: so is a worker that it started, whoever has it now; another's goes back. */
export async function closing(member: Member): Promise<void> {
  const { newest, open, serving } = registry();
  open.delete(member);
  if (newest.get(member.place) === member) newest.delete(member.place);
  const its = [...serving].filter(({ origin, by }) => origin === member || by === member);
  await Promise.all(its.map((one) => handOver(one, one.origin)));
}

/** What that one serves beside what is defined here. */
export function carriedOver({ flows, host }: Serving, own: ReadonlyMap<string, FlowDefinition>) {
  const left = new Map([...flows].filter(([name]) => !own.has(name)));
  return {
    flows: left,
    resources: host.resources,
    schedules: host.schedules.filter(({ flow }) => left.has(flow)),
  };
}

function isDefinedAnew({ by, flows, worker }: Serving, member: Member): boolean {
  const isServing = by !== member && by.place === member.place && worker.vitals.state === "serving";
  return isServing && !member.isClosed() && [...member.flows.keys()].some((name) => flows.has(name));
}

/** @returns when the worker has drained */
function handOver(one: Serving, to: Member): Promise<void> {
  registry().serving.delete(one);
  // From here on the old worker claims nothing, so that what starts now runs the new code.
  const isServing = one.worker.vitals.state === "serving";
  const drained = one.worker.stop();
  if (isServing && !to.isClosed()) void goOn(to, one);
  return drained;
}

async function goOn(member: Member, one: Serving): Promise<void> {
  try {
    // Waits until the orchestrator is constructed: its constructor may have called this.
    await Promise.resolve();
    await member.serve(one);
  } catch (error) {
    if (member.isClosed()) return one.origin.isClosed() ? undefined : goOn(one.origin, one);
    member.log.error("the worker does not go on with the new code: start the server again", {
      event: "reload_failed",
      error: String(error),
    });
  }
}

function isStopped({ vitals }: LocalWorker): boolean {
  return vitals.state === "stopped";
}

/** All but the newest of a place let go, once they are idle. */
function rest({ newest, open }: Registry): void {
  const kept = new Set(newest.values());
  for (const [member, was] of open) {
    const store = member.store();
    const isIdle = !kept.has(member) && store?.isInUse !== true && [...member.workers].every(isStopped);
    if (isIdle && was.isIdle) {
      open.delete(member);
      member.letGo();
      void store?.close();
    }
    was.isIdle = isIdle;
  }
}
