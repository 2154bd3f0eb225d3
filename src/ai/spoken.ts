/**
 * What a model says piece by piece, on its way to the page past the SDK: that takes about fifty times as long for a piece
 * (`npm run bench -- chats`), and gets those of one part as one.
 */
import type { LanguageModel, LanguageModelMiddleware, UIMessageChunk } from "ai";
import { Deltas, isDelta, type Delta } from "./deltas.ts";
import { ai } from "./sdk.ts";

type Streamed = Awaited<ReturnType<NonNullable<LanguageModelMiddleware["wrapStream"]>>>;
/** A part of what a provider streams. */
export type Part = Streamed["stream"] extends ReadableStream<infer P> ? P : never;
type Piece = Extract<Part, { type: "text-delta" | "reasoning-delta" | "tool-input-delta" }>;

/** One model call. */
export class Spoken {
  readonly #deltas: Deltas;
  /** Of each kind, the parts that have begun at the model, by its last id: that may come again, and the SDK makes another one of it. */
  readonly #begun = new Map<string, string[]>();
  /** Of each kind, the parts that have begun on the page, by their ids there, in the same order. */
  readonly #told = new Map<string, string[]>();
  /** Pieces of parts that the page does not have yet. */
  #early: { readonly kind: string; readonly nth: number; readonly piece: Piece }[] = [];
  /** Two speak: the model and the SDK. */
  #last: Promise<void> = Promise.resolve();
  #isOver = false;

  /** As of `Deltas`. */
  constructor(put: (chunk: UIMessageChunk) => Promise<void>, arrived: () => Promise<void>) {
    this.#deltas = new Deltas(put, arrived);
  }

  /** The model for the SDK; what it says piece by piece is told at once. */
  of(model: LanguageModel): LanguageModel {
    const known =
      typeof model === "string" ? (globalThis.AI_SDK_DEFAULT_PROVIDER ?? ai.gateway).languageModel(model) : model;
    // The SDK refuses a model of another specification itself.
    if (!["v2", "v3", "v4"].includes(known.specificationVersion)) return model;
    const wrapStream: LanguageModelMiddleware["wrapStream"] = async ({ doStream }) => {
      const { stream, ...more } = await doStream();
      return { ...more, stream: ReadableStream.from(this.#listen(stream)) };
    };
    return ai.wrapLanguageModel({ model: known, middleware: { specificationVersion: "v4", wrapStream } });
  }

  /** What the SDK makes of the rest, in its order. */
  async tell(chunk: UIMessageChunk): Promise<void> {
    if (isDelta(chunk)) return;
    await this.#inTurn(async () => {
      await this.#deltas.put(chunk);
      const begun = begunBy(chunk);
      if (!begun) return;
      const { kind, id } = begun;
      const nth = push(this.#told, begun);
      const now = this.#early.filter((one) => one.kind === kind && one.nth === nth);
      this.#early = this.#early.filter((one) => !now.includes(one));
      for (const { piece } of now) await this.#deltas.put(deltaOf(piece, id));
    });
  }

  /** Everything that was told is in the stream. */
  async end(): Promise<void> {
    await this.#inTurn(() => this.#deltas.flush());
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#isOver = true;
    this.#deltas.stop();
  }

  async *#listen(stream: AsyncIterable<Part>): AsyncGenerator<Part> {
    let held: Piece | null = null;
    const once = idsOnce();
    for await (const given of stream) {
      if (this.#isOver) return;
      const part = once(given);
      if (!isPiece(part)) {
        if (held) yield held;
        held = null;
        const begun = begunBy(part);
        if (begun) push(this.#begun, begun);
        yield part;
        continue;
      }
      await this.#say(part);
      const both: Piece | null = held && joinPieces(held, part);
      if (held && !both) yield held;
      held = both ?? part;
    }
    if (held) yield held;
  }

  #say(piece: Piece): Promise<void> {
    return this.#inTurn(async () => {
      const kind = kindOf(piece);
      const nth = this.#begun.get(kind)?.lastIndexOf(piece.id) ?? -1;
      const id = this.#told.get(kind)?.[nth];
      if (id === undefined) this.#early.push({ kind, nth, piece });
      else await this.#deltas.put(deltaOf(piece, id));
    });
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#last.then(() => (this.#isOver ? undefined : work()));
    this.#last = done.catch(() => {});
    return done;
  }
}

type Called = { readonly type: string; readonly id?: string; readonly toolCallId?: string };

/**
 * Parts of one answer, with an id for each call: some providers give the same to several, and then a page shows one of them, and a model
 * cannot tell their results apart.
 */
export function idsOnce(): <P extends Part | Called>(part: P) => P {
  const used = new Set<string>();
  /** By the provider's id, that of the call it is about now. */
  const now = new Map<string, { readonly id: string; isWhole: boolean }>();
  const begun = (given: string) => {
    const known = now.get(given);
    if (known && !known.isWhole) return known;
    let id = given;
    for (let count = 2; used.has(id); count++) id = `${given}-${count}`;
    used.add(id);
    const call = { id, isWhole: false };
    now.set(given, call);
    return call;
  };
  return (part) => {
    if (part.type.startsWith("tool-input-") && "id" in part && part.id !== undefined)
      return { ...part, id: begun(part.id).id };
    if (!("toolCallId" in part) || part.toolCallId === undefined) return part;
    if (part.type !== "tool-call") return { ...part, toolCallId: now.get(part.toolCallId)?.id ?? part.toolCallId };
    const call = begun(part.toolCallId);
    call.isWhole = true;
    return { ...part, toolCallId: call.id };
  };
}

/** A piece as a page shows it. */
export function deltaOf(piece: Piece, id = piece.id): Delta {
  if (piece.type === "tool-input-delta") return { type: piece.type, toolCallId: id, inputTextDelta: piece.delta };
  return { ...piece, id };
}

export function isPiece(part: Part): part is Piece {
  return part.type === "text-delta" || part.type === "reasoning-delta" || part.type === "tool-input-delta";
}

/** The two as one, where they are pieces of one part; null where they are not. */
export function joinPieces(first: Piece, next: Piece): Piece | null {
  const isOne =
    first.type === next.type &&
    first.id === next.id &&
    first.providerMetadata === undefined &&
    next.providerMetadata === undefined;
  return isOne ? { ...first, delta: first.delta + next.delta } : null;
}

function kindOf({ type }: { readonly type: string }): string {
  return type.replace(/-(start|delta)$/, "");
}

interface Begun {
  readonly kind: string;
  readonly id: string;
}

/** The part that begins with it. */
function begunBy(chunk: Part | UIMessageChunk): Begun | null {
  if (chunk.type === "text-start" || chunk.type === "reasoning-start") return { kind: kindOf(chunk), id: chunk.id };
  if (chunk.type === "tool-input-start")
    return { kind: kindOf(chunk), id: "toolCallId" in chunk ? chunk.toolCallId : chunk.id };
  return null;
}

/** @returns its place among those of its kind */
function push(parts: Map<string, string[]>, { kind, id }: Begun): number {
  const known = parts.get(kind) ?? [];
  parts.set(kind, known);
  return known.push(id) - 1;
}
