/** The moves of a routing decision, as events carry them: where a value goes from where it is. */
import { z } from "zod";
import { JsonValue } from "../base/json-value.ts";

/** Of a dispatch, a frame or a group within its execution; also a count, or a place in a list. */
export const LocalId = z.int().nonnegative();

/** Which item of which collection a value belongs to. */
const Position = z.tuple([LocalId, LocalId]);
export type Position = z.infer<typeof Position>;

/** Where a move takes its value from; without one it is the value of the event that carries the move. */
const Source = z.union([
  z.strictObject({ frame: LocalId }),
  z.strictObject({ join: z.string() }),
  /** `{ event, value }`, what an "or" hears. */
  z.strictObject({ event: z.string() }),
]);
export type Source = z.infer<typeof Source>;

/** Where a value travels: the collection item it counts for, the scope its joins pair in, the waiting emit it follows from. */
const travel = {
  at: Position.optional(),
  scope: z.string().optional(),
  group: LocalId.optional(),
  from: Source.optional(),
};

const Entry = z.strictObject({ node: z.string(), chunk: z.string().optional() });

/**
 * One step of a routing decision. `evolve` replays moves without the graph, so the past can be folded after the flow
 * has changed.
 */
export const Move = z.discriminatedUnion("move", [
  /**
   * Plans a dispatch of a chunk; without a chunk, of the node itself: its conditions want asking, or its child starting.
   * `begins` marks the first dispatch of a collection item; `resume` names the interrupt whose answer it gets.
   */
  z.strictObject({
    move: z.literal("run"),
    id: LocalId,
    node: z.string(),
    chunk: z.string().optional(),
    begins: z.boolean().optional(),
    resume: z.string().optional(),
    ...travel,
  }),
  /** Opens a collection of `size` results; every entry is planned for every item, ids counting up from `id + 1`. */
  z.strictObject({
    move: z.literal("open"),
    id: LocalId,
    node: z.string(),
    size: LocalId,
    entries: z.array(Entry).optional(),
    keys: z.array(z.string()).optional(),
    ...travel,
  }),
  z.strictObject({ move: z.literal("collect"), frame: LocalId, index: LocalId, from: Source.optional() }),
  z.strictObject({ move: z.literal("closeFrame"), frame: LocalId }),
  /** A value waits in line for its partners; `dequeue` takes the first of each event. */
  z.strictObject({ move: z.literal("queue"), join: z.string(), event: z.string() }),
  z.strictObject({ move: z.literal("dequeue"), join: z.string() }),
  /** Of older ledgers, in which a later value took the place of an earlier one. */
  z.strictObject({ move: z.literal("arm"), join: z.string(), event: z.string() }),
  z.strictObject({ move: z.literal("disarm"), join: z.string() }),
  /** What reached `end()`: the value itself, so that the result is read where it is. Pre-releases wrote where it came `from`. */
  z.strictObject({ move: z.literal("finalResult"), value: JsonValue.optional(), from: Source.optional() }),
]);
export type Move = z.infer<typeof Move>;
