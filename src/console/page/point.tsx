/** The point of the past that a view shows: it is in the address, so graph and state go together. */
import type { Overview } from "../api.ts";
import { go, hrefOf, usePlace } from "./place.ts";
import type { ComponentChildren } from "preact";

export function Point({ one, children }: { one: Overview; children?: ComponentChildren }) {
  const { query } = usePlace();
  const seq = query.get("seq");
  const at = seq === null ? one.seq : Number(seq);
  const to = (next: string | null) => go(hrefOf({ seq: next }, query), { isReplaced: true });
  return (
    <div class="flex slider">
      <label for="point">After event</label>
      <input
        id="point"
        type="range"
        min={1}
        max={one.seq}
        value={at}
        aria-valuetext={seq === null ? "now" : `event ${at} of ${one.seq}`}
        onChange={(event) => to(event.currentTarget.value === String(one.seq) ? null : event.currentTarget.value)}
      />
      <span>{seq === null ? `now (${one.seq})` : `${at} of ${one.seq}`}</span>
      {seq !== null && (
        <button type="button" class="small" onClick={() => to(null)}>
          Now
        </button>
      )}
      {children}
    </div>
  );
}
