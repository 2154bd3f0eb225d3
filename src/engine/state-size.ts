/** How large the state, and what is said of interventions, has become: a state that Postgres cannot hold in one value could be neither read nor closed. */
import { StateLimitError, UsageError } from "../base/errors.ts";
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

/** Bytes of JSON; `check_interventions` of SQL holds the same. */
const maxInterventions = 16_777_216;

/** What chunks say of interventions is in the close snapshot too. */
export class InterventionsSize {
  readonly #where: { readonly executionId: string };
  #bound: number | null = null;

  constructor(where: { readonly executionId: string }) {
    this.#where = where;
  }

  /** @param all what there is already, with what is on its way. @throws {UsageError} nothing is written */
  grow(more: Json, all: () => unknown): void {
    const bytes = Buffer.byteLength(JSON.stringify(more));
    if (this.#bound === null || this.#bound + bytes > maxInterventions)
      this.#bound = Buffer.byteLength(JSON.stringify(all()));
    if (this.#bound + bytes > maxInterventions)
      throw new UsageError(
        `execution ${this.#where.executionId} has interventions of ${this.#bound} bytes, and accepts no more`,
        "it takes 16 MiB of them: keep large data elsewhere, and mark with a reference to it",
      );
    this.#bound += bytes;
  }
}
