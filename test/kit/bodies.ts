/** Chunk bodies at random, as data: one reading by `ctx`, one by plain async code, which says what should come out. */
import fc from "fast-check";
import { ExecutionFailedError } from "../../src/index.ts";
import type { Ctx, Json } from "../../src/index.ts";

/** One piece of a body. Each `at` is a place of its own, by which its effects are counted. */
export type Piece =
  | { readonly do: "step"; readonly at: number; readonly fails: number; readonly retries: number }
  | { readonly do: "sleep"; readonly ms: number }
  | { readonly do: "emit"; readonly at: number; readonly waits: boolean }
  | { readonly do: "call"; readonly at: number; readonly fails: boolean }
  | { readonly do: "set" | "append"; readonly key: string; readonly at: number }
  | { readonly do: "get"; readonly key: string }
  | { readonly do: "flush" }
  | { readonly do: "throw"; readonly at: number }
  /** The whole attempt fails, the first time. */
  | { readonly do: "fail"; readonly at: number }
  | { readonly do: "put" | "share"; readonly at: number }
  | { readonly do: "all" | "row"; readonly parts: readonly Piece[] }
  | { readonly do: "race"; readonly winner: Piece; readonly ms: number }
  | { readonly do: "try"; readonly body: Piece; readonly handler: Piece };

/** What a body needs of its world. */
export interface World {
  step(at: number, work: (key: string) => Json, retries: number): Promise<Json>;
  sleep(ms: number): Promise<void>;
  emit(at: number, waits: boolean): Promise<void>;
  call(at: number, fails: boolean): Promise<Json>;
  set(key: string, value: Json): Promise<void>;
  append(key: string, value: Json): Promise<void>;
  get(key: string): Json;
  flush(): Promise<void>;
  /** Into the stream, and into what all executions share. */
  put(at: number): Promise<void>;
  share(at: number): Promise<void>;
  fail(at: number): void;
}

/** What no body catches. */
export class AttemptFailed extends Error {}

/** What an outside system has seen: tries by place, and the keys it took each for. It survives the workers. */
export class Outside {
  readonly tries = new Map<string, number>();
  readonly #failed = new Set<number>();
  readonly #keys = new Map<string, Set<string>>();

  saw(what: string, key: string): number {
    const tries = (this.tries.get(what) ?? 0) + 1;
    this.tries.set(what, tries);
    this.#keys.set(what, (this.#keys.get(what) ?? new Set()).add(key));
    return tries;
  }

  failsFirst(at: number): boolean {
    const isFirst = !this.#failed.has(at);
    this.#failed.add(at);
    return isFirst;
  }

  /** How often each has happened for who takes a key once. */
  get effects(): Record<string, number> {
    const counted = [...this.#keys].map(([what, keys]) => [what, keys.size] as const);
    return Object.fromEntries(counted.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }
}

export async function run(piece: Piece, world: World, outside: Outside): Promise<Json> {
  switch (piece.do) {
    case "step":
      return world.step(
        piece.at,
        (key) => {
          if (outside.saw(`step ${piece.at}`, key) <= piece.fails) throw new Error(`step ${piece.at}`);
          return piece.at;
        },
        piece.retries,
      );
    case "sleep":
      await world.sleep(piece.ms);
      return "slept";
    case "emit":
      await world.emit(piece.at, piece.waits);
      return "emitted";
    case "call":
      return world.call(piece.at, piece.fails);
    case "set":
      await world.set(piece.key, piece.at);
      return null;
    case "append":
      await world.append(piece.key, piece.at);
      return null;
    case "get":
      return world.get(piece.key);
    case "flush":
      await world.flush();
      return null;
    case "put":
    case "share":
      await world[piece.do](piece.at);
      return null;
    case "fail":
      world.fail(piece.at);
      return null;
    case "throw":
      throw new Error(`thrown ${piece.at}`);
    case "all":
      // What one branch throws leaves the others alone: nothing is dropped that plain code would have done.
      return Promise.all(
        piece.parts.map((part) =>
          run(part, world, outside).catch((error: unknown) => {
            if (error instanceof AttemptFailed) throw error;
            return messageOf(error);
          }),
        ),
      );
    case "row": {
      const values: Json[] = [];
      for (const part of piece.parts) values.push(await run(part, world, outside));
      return values;
    }
    case "race":
      return Promise.race([run(piece.winner, world, outside), world.sleep(piece.ms).then(() => "late")]);
    case "try":
      try {
        return await run(piece.body, world, outside);
      } catch (error) {
        if (error instanceof AttemptFailed) throw error;
        return [messageOf(error), await run(piece.handler, world, outside)];
      }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** In a chunk. @param child doubles its input, or fails */
export function worldOf(ctx: Ctx, child: { readonly name: string }, outside: Outside): World {
  return {
    step: (at, work, retries) =>
      ctx.step(`s${at}`, (_signal, key) => work(key), {
        retry: { maxAttempts: retries + 1, initialInterval: "1m", jitter: false },
      }),
    sleep: (ms) => ctx.sleep(ms),
    emit: (at, waits) => ctx.emit("Said", at, { wait: waits }),
    call: (at, fails) =>
      ctx.call<Json, Json>(child, [ctx.execution.id, fails ? -at : at]).catch((error: unknown) => {
        throw error instanceof ExecutionFailedError ? new Error("child failed") : error;
      }),
    set: (key, value) => ctx.setState(key, value),
    append: (key, value) => ctx.appendState(key, value),
    get: (key) => ctx.getState(key),
    flush: () => ctx.flush(),
    put: (at) => ctx.putIntoStream(at),
    share: (at) => ctx.setFlowData(`shared ${at}`, at, { noWarning: true }),
    fail: (at) => {
      if (outside.failsFirst(at)) throw new AttemptFailed(`attempt failed at ${at}`);
    },
  };
}

/** Plain async code. Time passes by itself, what is due first. */
export function plainWorld(outside: Outside, values: Record<string, Json>): World {
  const { pass } = new Time();
  return {
    async step(at, work, retries) {
      for (let left = retries; ; left--)
        try {
          return work(`${at}`);
        } catch (error) {
          if (left === 0) throw error;
          await pass(minute);
        }
    },
    sleep: pass,
    async emit(at) {
      outside.saw(`event ${at}`, "");
    },
    async call(at, fails) {
      outside.saw(`child ${at}`, "");
      if (fails) throw new Error("child failed");
      return at * 2;
    },
    async set(key, value) {
      values[key] = value;
    },
    async append(key, value) {
      const old = values[key];
      values[key] = Array.isArray(old) ? [...old, value] : old === undefined ? [value] : [old, value];
    },
    get: (key) => structuredClone(values[key] ?? null),
    async flush() {},
    async put() {},
    async share() {},
    fail() {},
  };
}

class Time {
  #now = 0;
  readonly #waiting: { readonly at: number; readonly wake: () => void }[] = [];

  readonly pass = (ms: number): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ at: this.#now + ms, wake: resolve });
    if (this.#waiting.length === 1) setImmediate(() => this.#tick());
    return promise;
  };

  #tick(): void {
    const [next] = this.#waiting.toSorted((a, b) => a.at - b.at);
    if (!next) return;
    this.#waiting.splice(this.#waiting.indexOf(next), 1);
    this.#now = next.at;
    next.wake();
    if (this.#waiting.length > 0) setImmediate(() => this.#tick());
  }
}

const minute = 60_000;
/** A long one is parked, and a short one is not. */
const lengths = fc.constantFrom(1, 1000, 10 * minute, 60 * minute, 7 * 24 * 60 * minute);
/** Each branch of an `all` writes keys of its own: whose write is later, nobody says. */
function pieces(scope: string, depth: number): fc.Arbitrary<Piece> {
  const at = fc.constant(0);
  const key = fc.constantFrom(`${scope}a`, `${scope}b`);
  const simple: fc.Arbitrary<Piece>[] = [
    // It fails for good, or less often than it is tried: a crash may add a try.
    fc
      .tuple(at, fc.constantFrom(0, 0, 0, 1, 2, Number.MAX_SAFE_INTEGER), fc.nat(2))
      .map(([place, fails, more]): Piece => ({
        do: "step",
        at: place,
        fails,
        retries: fails > 2 ? more : Math.max(fails, more),
      })),
    fc.record({ do: fc.constant("sleep" as const), ms: lengths }),
    fc.record({ do: fc.constant("emit" as const), at, waits: fc.boolean() }),
    fc.record({ do: fc.constant("call" as const), at, fails: fc.constantFrom(false, false, true) }),
    fc.record({ do: fc.constantFrom("set" as const, "append" as const), key, at }),
    fc.constant({ do: "flush" as const }),
    fc.record({ do: fc.constantFrom("put" as const, "share" as const), at }),
    fc.record({ do: fc.constant("fail" as const), at }),
    fc.record({ do: fc.constant("get" as const), key }),
  ];
  if (depth === 0) return fc.oneof(...simple);
  const inner = (more: string) => pieces(`${scope}${more}`, depth - 1);
  return fc.oneof(
    { weight: 5, arbitrary: fc.oneof(...simple) },
    {
      weight: 3,
      arbitrary: fc
        .tuple(inner("0"), inner("1"), fc.option(inner("2"), { nil: null }))
        .map((parts): Piece => ({ do: "all", parts: parts.filter((part) => part !== null) })),
    },
    {
      weight: 3,
      arbitrary: fc.array(inner(""), { minLength: 1, maxLength: 4 }).map((parts): Piece => ({ do: "row", parts })),
    },
    // The other side of it is years: what wins is never in doubt.
    {
      weight: 2,
      arbitrary: inner("").map((winner): Piece => ({ do: "race", winner, ms: 30 * 365 * 24 * 60 * minute })),
    },
    {
      weight: 2,
      arbitrary: fc
        .tuple(fc.oneof(inner(""), fc.record({ do: fc.constant("throw" as const), at })), inner(""))
        .map(([body, handler]): Piece => ({ do: "try", body, handler })),
    },
  );
}

export const bodies: fc.Arbitrary<Piece> = fc
  .array(pieces("", 3), { minLength: 1, maxLength: 5 })
  .map((parts) => numbered({ do: "try", body: { do: "row", parts }, handler: { do: "get", key: "a" } }));

/** Places are numbered at the end, so that a body that was made smaller has no two of one number. */
function numbered(body: Piece): Piece {
  let last = 0;
  const visit = (piece: Piece): Piece => {
    switch (piece.do) {
      case "all":
      case "row":
        return { ...piece, parts: piece.parts.map(visit) };
      case "race":
        return { ...piece, winner: visit(piece.winner) };
      case "try":
        return { ...piece, body: visit(piece.body), handler: visit(piece.handler) };
      default:
        return "at" in piece ? { ...piece, at: ++last } : piece;
    }
  };
  return visit(body);
}
