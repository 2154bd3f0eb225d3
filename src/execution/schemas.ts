/** What questions ask for, as the database has said: an answer to the next one alike is checked before it is sent. */
import { isObject, type Json } from "../base/json.ts";

export interface KnownSchema {
  readonly schema: Json;
  /** By it the database tells that the interrupt asks for no other. */
  readonly hash: string;
}

/** Most flows ask the same under the same id. */
const most = 200;

export class KnownSchemas {
  readonly #known = new Map<string, KnownSchema>();

  get(flow: string, interrupt: string): KnownSchema | null {
    return this.#known.get(key(flow, interrupt)) ?? null;
  }

  keep(flow: string, interrupt: string, known: KnownSchema): void {
    this.#known.delete(key(flow, interrupt));
    this.#known.set(key(flow, interrupt), known);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= most) return;
      this.#known.delete(oldest);
    }
  }
}

function key(flow: string, interrupt: string): string {
  return `${flow} ${interrupt}`;
}

/** What the database says instead of accepting an answer that was not checked by what the interrupt asks for; null for any other answer. */
export function parseUnchecked(answer: Json): KnownSchema | null {
  if (!isObject(answer)) return null;
  const { check = null, hash } = answer;
  return check !== null && typeof hash === "string" ? { schema: check, hash } : null;
}
