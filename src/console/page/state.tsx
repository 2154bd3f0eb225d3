/** The state of an execution at a point of its ledger, and what differs from another point. */
import type { ComponentChildren } from "preact";
import { visible } from "../../base/visible.ts";
import type { Overview, Shown, StateShown } from "../api.ts";
import { diffOf } from "./diff.ts";
import { useCaughtUp } from "./net.ts";
import { go, hrefOf, usePlace } from "./place.ts";
import { Empty, Loading, Problem } from "./parts.tsx";
import { Payload, Tree } from "./payload.tsx";
import { Point } from "./point.tsx";

export function State({ id, one, fork }: { id: string; one: Overview; fork: (seq: number) => ComponentChildren }) {
  const { query } = usePlace();
  const seq = query.get("seq");
  const other = query.get("with");
  const now = useCaughtUp<StateShown>(`executions/${id}/state`, seq, one.seq);
  const before = useCaughtUp<StateShown>(other === null ? null : `executions/${id}/state`, other, one.seq);
  const to = (change: Record<string, string | null>) => go(hrefOf(change, query), { isReplaced: true });
  const at = seq === null ? one.seq : Number(seq);
  const behind = [now.value, before.value].find((value) => value && value.seq < value.of);
  return (
    <>
      <Point one={one}>
        {other === null ? (
          <button type="button" class="small" onClick={() => to({ with: String(Math.max(1, at - 1)) })}>
            Compare
          </button>
        ) : (
          <label class="flex">
            <span>with the state after</span>
            <input
              type="number"
              min={1}
              max={one.seq}
              value={other}
              onChange={(event) => to({ with: event.currentTarget.value })}
            />
            <button type="button" class="small" onClick={() => to({ with: null })}>
              No comparison
            </button>
          </label>
        )}
        {seq !== null && fork(at)}
      </Point>
      <Problem error={now.error ?? before.error} onRetry={now.reload} />
      {now.isLoading && <Loading rows={4} />}
      {now.value && now.value.problem !== null && <p class="problem">{visible(now.value.problem)}</p>}
      {behind && (
        <p class="quiet" role="status">
          As of event {behind.seq.toLocaleString()} of {behind.of.toLocaleString()}: the rest is being read.
        </p>
      )}
      {now.value && other !== null && before.value && !behind && (
        <Diff from={before.value.state} to={now.value.state} />
      )}
      {now.value && other === null && <Payload value={now.value.state} label="state" />}
    </>
  );
}

function Diff({ from, to }: { from: Shown; to: Shown }) {
  if (!("json" in from) || !("json" in to)) return <p class="quiet">These states are too large to be compared here.</p>;
  const changes = diffOf(from.json, to.json);
  if (changes.length === 0) return <Empty title="Nothing differs between the two" />;
  return (
    <table class="rows diff">
      <thead>
        <tr>
          <th scope="col">Path</th>
          <th scope="col">Before</th>
          <th scope="col">After</th>
        </tr>
      </thead>
      <tbody>
        {changes.map(({ path, before, after }) => (
          <tr key={path}>
            <td class="mono">{visible(path)}</td>
            <td>
              {before === undefined ? (
                <span class="quiet">not there</span>
              ) : (
                <Tree value={before} label={`${path} before`} />
              )}
            </td>
            <td>
              {after === undefined ? <span class="quiet">gone</span> : <Tree value={after} label={`${path} after`} />}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
