/** Where an execution stands in its graph: what ran at each node, what is there now, and items as counts. Folded by pages, so that a long ledger is read in pieces. */
import { z } from "zod";

const id = z.int().nonnegative();

/** Of an event, only what says where things are. */
export const RoutedEvent = z.object({
  type: z.string(),
  /** Milliseconds since 1970. */
  at: z.number(),
  dispatch: id.nullish(),
  /** An interrupt's, where it is about one. */
  interrupt: z.string().nullish(),
  /** It is tried again. */
  retries: z.boolean().nullish(),
  /** A pause after whose answer the same chunk runs again. */
  repeats: z.boolean().nullish(),
  /** A sleep's end. */
  until: z.number().nullish(),
  /** Items that were started, or have ended. */
  items: id.nullish(),
  /** What nodes are called from here on, where that differs. */
  nodes: z.record(z.string(), z.string()).nullish(),
  moves: z
    .array(
      z.object({
        move: z.string(),
        id: id.optional(),
        node: z.string().optional(),
        size: id.optional(),
        entries: z.array(z.object({ node: z.string() })).optional(),
        frame: id.optional(),
        at: z.tuple([id, id]).optional(),
      }),
    )
    .nullish(),
});
export type RoutedEvent = z.infer<typeof RoutedEvent>;

interface Open {
  node: string;
  /** The collection that it is an item of. */
  readonly frame: number | null;
  stand: "running" | "waiting" | "parked";
  /** It waits until then, and runs afterwards. */
  until: number | null;
}

interface Ended {
  completed: number;
  failed: number;
  cancelled: number;
}

interface Items {
  size: number;
  completed: number;
  failed: number;
}

/** What is folded; `seq` is the last event that was looked at. */
export interface Picture {
  seq: number;
  readonly open: Map<number, Open>;
  /** Questions that wait: at which node, and whether that one runs again. */
  readonly asked: Map<string, { node: string; readonly repeats: boolean }>;
  readonly frames: Map<number, string>;
  readonly ended: Map<string, Ended>;
  readonly items: Map<string, Items>;
  hasResult: boolean;
}

/** What stands at one node. */
export interface NodeState extends Ended {
  /** The most urgent of it. */
  readonly status: "running" | "waiting" | "parked" | "completed" | "failed" | "cancelled";
  readonly running: number;
  readonly waiting: number;
  readonly parked: number;
  /** Of a `forEach` or `batch`: over all of its rounds. */
  readonly items: Items | null;
}

export function newPicture(): Picture {
  return {
    seq: 0,
    open: new Map(),
    asked: new Map(),
    frames: new Map(),
    ended: new Map(),
    items: new Map(),
    hasResult: false,
  };
}

/** The picture after one more event; it is changed. */
export function drawOn(picture: Picture, event: RoutedEvent): void {
  const { type, dispatch, interrupt, moves, nodes } = event;
  const at = dispatch === null || dispatch === undefined ? undefined : picture.open.get(dispatch);
  switch (type) {
    case "chunk.completed":
    case "value.routed":
    case "inbox.routed":
      if (at) end(picture, dispatch, at, "completed");
      break;
    case "chunk.failed":
      if (at && event.retries) stand(at, "waiting");
      else if (at) end(picture, dispatch, at, "failed");
      break;
    case "chunk.parked":
      if (at) stand(at, "parked");
      break;
    case "sleep.started":
      if (at) stand(at, "waiting", event.until ?? null);
      break;
    case "chunk.retried":
    case "chunk.interrupted":
    case "step.completed":
    case "step.failed":
    case "child.started":
    case "child.closed":
      if (at) stand(at, "running");
      break;
    case "items.started":
    case "items.closed":
      if (at && type === "items.started") itemsAt(picture, at.node).size += event.items ?? 0;
      else if (at) itemsAt(picture, at.node).completed += event.items ?? 0;
      break;
    case "interrupt.raised":
      if (at && dispatch !== null && dispatch !== undefined) picture.open.delete(dispatch);
      if (at && interrupt) picture.asked.set(interrupt, { node: at.node, repeats: event.repeats ?? false });
      break;
    case "interrupt.resumed":
    case "interrupt.expired":
    case "interrupt.cancelled":
    case "chunk.skipped":
      if (interrupt) answer(picture, interrupt, type);
      break;
    case "execution.claimed":
      if (nodes) rename(picture, nodes);
      break;
    case "cleanup.planned":
    case "execution.closed":
      for (const [dropped, one] of picture.open) end(picture, dropped, one, "cancelled");
      for (const { node } of picture.asked.values()) endedAt(picture, node).cancelled += 1;
      picture.asked.clear();
      break;
  }
  for (const move of moves ?? []) follow(picture, move);
}

function follow(picture: Picture, move: NonNullable<RoutedEvent["moves"]>[number]): void {
  const { move: kind, id: made, node, size = 0, entries = [], frame, at } = move;
  if (kind === "run" && made !== undefined && node !== undefined)
    picture.open.set(made, { node, frame: at?.[0] ?? null, stand: "running", until: null });
  else if (kind === "open" && made !== undefined && node !== undefined) {
    picture.frames.set(made, node);
    itemsAt(picture, node).size += size;
    for (let item = 0; item < size; item++)
      for (const [place, entry] of entries.entries())
        picture.open.set(made + 1 + item * entries.length + place, {
          node: entry.node,
          frame: made,
          stand: "running",
          until: null,
        });
  } else if (kind === "collect" && frame !== undefined) {
    const of = picture.frames.get(frame);
    if (of !== undefined) itemsAt(picture, of).completed += 1;
  } else if (kind === "finalResult") picture.hasResult = true;
}

function stand(one: Open, as: Open["stand"], until: number | null = null): void {
  one.stand = as;
  one.until = until;
}

function end(picture: Picture, dispatch: number | null | undefined, one: Open, how: keyof Ended): void {
  if (dispatch !== null && dispatch !== undefined) picture.open.delete(dispatch);
  endedAt(picture, one.node)[how] += 1;
  const collection = one.frame === null ? undefined : picture.frames.get(one.frame);
  if (how === "failed" && collection !== undefined) itemsAt(picture, collection).failed += 1;
}

function answer(picture: Picture, interrupt: string, type: string): void {
  const asked = picture.asked.get(interrupt);
  picture.asked.delete(interrupt);
  if (!asked) return;
  if (type === "interrupt.cancelled" || type === "interrupt.expired") endedAt(picture, asked.node).cancelled += 1;
  // What runs again ends by itself.
  else if (!asked.repeats || type === "chunk.skipped") endedAt(picture, asked.node).completed += 1;
}

/** Another version of the flow goes on with it. */
function rename(picture: Picture, nodes: Readonly<Record<string, string>>): void {
  const to = (node: string) => (Object.hasOwn(nodes, node) ? (nodes[node] ?? node) : node);
  for (const one of picture.open.values()) one.node = to(one.node);
  for (const one of picture.asked.values()) one.node = to(one.node);
  for (const [frame, node] of picture.frames) picture.frames.set(frame, to(node));
  renameKeys(picture.ended, to);
  renameKeys(picture.items, to);
}

function renameKeys<T>(counts: Map<string, T>, to: (node: string) => string): void {
  const before = [...counts];
  counts.clear();
  for (const [node, count] of before) counts.set(to(node), count);
}

function endedAt({ ended }: Picture, node: string): Ended {
  const known = ended.get(node) ?? { completed: 0, failed: 0, cancelled: 0 };
  ended.set(node, known);
  return known;
}

function itemsAt({ items }: Picture, node: string): Items {
  const known = items.get(node) ?? { size: 0, completed: 0, failed: 0 };
  items.set(node, known);
  return known;
}

/** @param now milliseconds since 1970: a sleep that is over is none */
export function statesOf(picture: Picture, now: number): Map<string, NodeState> {
  const stands = new Map<string, { running: number; waiting: number; parked: number }>();
  const standsAt = (node: string) => {
    const known = stands.get(node) ?? { running: 0, waiting: 0, parked: 0 };
    stands.set(node, known);
    return known;
  };
  for (const { node, stand: as, until } of picture.open.values())
    standsAt(node)[as === "waiting" && until !== null && until <= now ? "running" : as] += 1;
  for (const { node } of picture.asked.values()) standsAt(node).waiting += 1;
  const states = new Map<string, NodeState>();
  for (const node of new Set([...stands.keys(), ...picture.ended.keys(), ...picture.items.keys()])) {
    const ended = picture.ended.get(node) ?? { completed: 0, failed: 0, cancelled: 0 };
    const here = stands.get(node) ?? { running: 0, waiting: 0, parked: 0 };
    const items = picture.items.get(node) ?? null;
    states.set(node, { ...ended, ...here, items, status: statusOf({ ...ended, ...here }, items) });
  }
  return states;
}

function statusOf(
  counts: Ended & { running: number; waiting: number; parked: number },
  items: Items | null,
): NodeState["status"] {
  for (const urgent of ["parked", "failed", "waiting", "running"] as const) if (counts[urgent] > 0) return urgent;
  if (items && items.failed > 0) return "failed";
  if (items && items.completed < items.size) return counts.cancelled > 0 ? "cancelled" : "running";
  if (items) return "completed";
  return counts.completed > 0 ? "completed" : "cancelled";
}
