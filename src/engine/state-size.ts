/** How large the state has become: a state that Postgres cannot hold in one value could be neither read nor closed. */
import { StateLimitError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";

/** Characters of JSON, of which each is up to three bytes; a `jsonb` holds 256 MiB. */
export const maxStateSize = 67_108_864;

export class StateSize {
  readonly #where: { readonly executionId: string };
  /** At most so much it is; null before the first write of this owner. */
  #bound: number | null = null;

  constructor(where: { readonly executionId: string }) {
    this.#where = where;
  }

  /** @param values reads the state as it is. @throws {StateLimitError} nothing is written */
  grow(key: string, value: Json, values: () => JsonObject): void {
    const more = key.length + JSON.stringify(value).length + 4;
    if (this.#bound === null || this.#bound + more > maxStateSize) this.#bound = JSON.stringify(values()).length;
    if (this.#bound + more > maxStateSize)
      throw new StateLimitError(this.#where.executionId, key, this.#bound + more, maxStateSize);
    this.#bound += more;
  }
}
