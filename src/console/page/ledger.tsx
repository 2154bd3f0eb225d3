/** The ledger of an execution, by kinds of events. */
import type { ComponentChildren } from "preact";
import { visible } from "../../base/visible.ts";
import { useEffect, useRef, useState } from "preact/hooks";
import type { EventShown, Page } from "../api.ts";
import { read, useLoad } from "./net.ts";
import { hrefOf, stay } from "./place.ts";
import { Empty, Loading, Problem, Time, Windowed } from "./parts.tsx";
import { Payload } from "./payload.tsx";

const groups: readonly (readonly [label: string, types: readonly string[]])[] = [
  ["all", []],
  [
    "chunks",
    ["chunk.completed", "chunk.failed", "chunk.interrupted", "chunk.parked", "chunk.retried", "chunk.skipped"],
  ],
  ["state", ["state.set", "state.appended", "state.deleted", "state.edited"]],
  [
    "people",
    [
      "interrupt.raised",
      "interrupt.resumed",
      "interrupt.expired",
      "interrupt.cancelled",
      "intervention.recorded",
      "execution.paused",
      "execution.unpaused",
      "cancel.requested",
      "chunk.retried",
      "chunk.skipped",
      "state.edited",
    ],
  ],
  [
    "execution",
    [
      "execution.created",
      "execution.started",
      "execution.claimed",
      "execution.blocked",
      "execution.sealed",
      "execution.failed",
      "execution.closed",
    ],
  ],
];

/** So many fill a window. */
const enoughRows = 40;

export function Ledger({
  id,
  seq: version,
  fork,
}: {
  id: string;
  seq: number;
  fork: (seq: number) => ComponentChildren;
}) {
  const [group, setGroup] = useState("all");
  const types = groups.find(([label]) => label === group)?.[1] ?? [];
  const filter = types.map((type) => `type=${type}`).join("&");
  const path = `executions/${id}/ledger`;
  const first = useLoad<Page<EventShown>>(`${path}?${filter}`, { isLive: false, version });
  const [older, setOlder] = useState<{ key: string; rows: readonly EventShown[]; next: string | null } | null>(null);
  const [chosen, setChosen] = useState<number | null>(null);
  const isAsking = useRef(false);
  const key = `${id} ${group}`;
  const begun = older?.key === key ? older : null;
  const newest = first.value?.rows ?? [];
  // New events come on top of the read ones, each once.
  const rows = begun ? [...newest.filter(({ seq }) => seq > (begun.rows[0]?.seq ?? 0)), ...begun.rows] : newest;
  const next = begun ? begun.next : (first.value?.nextCursor ?? null);
  const loadOlder = async () => {
    if (next === null || isAsking.current) return;
    isAsking.current = true;
    try {
      // With a filter a page covers a piece of the ledger, which may have few matching events or none.
      let [found, from]: [EventShown[], string | null] = [[], next];
      while (from !== null && found.length < enoughRows) {
        const page: Page<EventShown> = await read(`${path}?before=${from}${filter && `&${filter}`}`);
        found = [...found, ...page.rows];
        from = page.nextCursor;
      }
      setOlder({ key, rows: [...rows, ...found], next: from });
    } catch {
      // The next scroll asks again.
    }
    isAsking.current = false;
  };
  useEffect(() => {
    if (rows.length < enoughRows) void loadOlder();
  }, [next, rows.length]);
  const detail = rows.find(({ seq }) => seq === chosen) ?? null;
  return (
    <>
      <div class="flex chips" role="group" aria-label="Kinds of events">
        {groups.map(([label]) => (
          <button key={label} type="button" class="chip" aria-pressed={label === group} onClick={() => setGroup(label)}>
            {label}
          </button>
        ))}
      </div>
      <Problem error={first.error} onRetry={first.reload} />
      {first.isLoading && <Loading rows={6} />}
      {first.value && rows.length === 0 && next === null && <Empty title="No such event" />}
      {detail && (
        <section class="card detail" aria-label={`Event ${detail.seq}`}>
          <header class="flex">
            <h2>
              {detail.seq} {detail.type}
            </h2>
            <a class="button" href={hrefOf({ execution: id, tab: "state", seq: String(detail.seq) })} onClick={stay}>
              State after it
            </a>
            {fork(detail.seq)}
            <button type="button" class="small" onClick={() => setChosen(null)}>
              Close
            </button>
          </header>
          <p class="quiet">
            <Time at={detail.at} isFull />
            {detail.actor !== null && ` · by ${visible(detail.actor)}`}
          </p>
          {detail.payload ? (
            <Payload value={detail.payload} label={`payload of event ${detail.seq}`} />
          ) : (
            <p class="quiet">No payload.</p>
          )}
        </section>
      )}
      {rows.length > 0 && (
        <Windowed rows={rows} height={34} label="Ledger, newest first" onEnd={() => void loadOlder()}>
          {(event) => (
            <button
              type="button"
              class="event-row"
              aria-expanded={event.seq === chosen}
              onClick={() => setChosen(event.seq === chosen ? null : event.seq)}
            >
              <span class="seq">{event.seq}</span>
              <span class="type">{event.type}</span>
              <span class="name">{visible(event.chunk ?? "")}</span>
              <span class="by quiet">{event.actor === null ? "" : visible(event.actor)}</span>
              <Time at={event.at} />
            </button>
          )}
        </Windowed>
      )}
    </>
  );
}
