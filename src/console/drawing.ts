/** Where executions stand in their graphs, as far as their ledgers have been read. */
import type { ExecutionId } from "../ledger/event.ts";
import { drawOn, newPicture, type Picture } from "../ledger/picture.ts";
import type { Pictures } from "../store/pictures.ts";

/** Pictures that are kept, least recently looked at first to go. */
const kept = 16;

interface Drawn {
  readonly picture: Picture;
  readonly now: number;
}

/** Pictures of executions that somebody looks at. */
export class Drawing {
  readonly #drawn = new Map<string, Promise<Drawn>>();

  /** One page on, after whoever asked before. @param at the last event that counts; null is all there are */
  draw(pictures: Pictures, id: ExecutionId, at: number | null, until: number): Promise<Drawn> {
    const key = `${id} ${at}`;
    const before = this.#drawn.get(key) ?? Promise.resolve({ picture: newPicture(), now: 0 });
    const drawn = before.then(async ({ picture }) => {
      const page = await pictures.routed(id, picture.seq, until);
      for (const event of page.events) drawOn(picture, event);
      picture.seq = page.seq ?? picture.seq;
      return { picture, now: page.now };
    });
    // Taken out first: the one that was looked at last goes last.
    this.#drawn.delete(key);
    this.#drawn.set(key, drawn);
    drawn.catch(() => {
      if (this.#drawn.get(key) === drawn) this.#drawn.delete(key);
    });
    for (const [oldest] of this.#drawn) {
      if (this.#drawn.size <= kept) break;
      this.#drawn.delete(oldest);
    }
    return drawn;
  }
}
