/** What an execution did: a bar for each run of a chunk, step, wait, sleep and child, with its attempts. */
import { visible } from "../../base/visible.ts";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Overview, TimelinePage, TimelineShown } from "../api.ts";
import { CallError, read } from "./net.ts";
import { hrefOf, stay, usePlace } from "./place.ts";
import { Point } from "./point.tsx";
import { Empty, ErrorView, Loading, Problem, Shape, Status, Time, Windowed, lengthOf, toneOf } from "./parts.tsx";

const rowHeight = 34;

export function Timeline({ id, one }: { id: string; one: Overview }) {
  const seq = usePlace().query.get("seq");
  return (
    <>
      <Point one={one} />
      <Bars key={seq} id={id} one={one} seq={seq} />
    </>
  );
}

/** Of one point of the ledger; null is now. */
function Bars({ id, one, seq }: { id: string; one: Overview; seq: string | null }) {
  const { rows, next, error, isLoading, pages, behind, at, load, loadMore } = usePages(id, one.seq, seq);
  const [chosen, setChosen] = useState<string | null>(null);
  const from = new Date(one.startedAt ?? one.createdAt).getTime();
  const ends = rows.flatMap(({ endedAt, until }) =>
    [endedAt, until].flatMap((at) => (at === null ? [] : [new Date(at).getTime()])),
  );
  const last = at ?? one.closedAt;
  const now = last === null ? Date.now() : new Date(last).getTime();
  const begin = Math.min(
    from,
    ...rows.flatMap(({ queuedAt, startedAt }) =>
      [queuedAt, startedAt].flatMap((at) => (at === null ? [] : [new Date(at).getTime()])),
    ),
  );
  const end = Math.max(begin + 1, last === null ? now : Math.max(now, ...ends.filter((ended) => ended <= now)));
  const detail = rows.find(({ cursor }) => cursor === chosen) ?? null;
  return (
    <>
      <Problem error={error} onRetry={load} />
      {isLoading && <Loading rows={5} />}
      {!isLoading && error === null && rows.length === 0 && behind === null && <Empty title="Nothing has run yet" />}
      {behind && (
        <p class="quiet" role="status">
          As of event {behind.seq.toLocaleString()} of {behind.of.toLocaleString()}:{" "}
          {behind.isEnd ? "the rest is too long for a timeline, and stands in the ledger." : "the rest is being read."}
        </p>
      )}
      {rows.length > 0 && (
        <div class="timeline">
          <div class="axis" aria-hidden="true">
            <span />
            <span class="scale">
              <span>0</span>
              <span>{lengthOf((end - begin) / 2)}</span>
              <span>{lengthOf(end - begin)}</span>
            </span>
          </div>
          <Windowed
            rows={rows}
            height={rowHeight}
            label="Timeline"
            onEnd={next === null ? undefined : () => void loadMore()}
          >
            {(row) => (
              <Bar
                row={row}
                begin={begin}
                end={end}
                now={now}
                isChosen={row.cursor === chosen}
                onChoose={() => setChosen(row.cursor === chosen ? null : row.cursor)}
              />
            )}
          </Windowed>
          <p class="legend quiet">
            <span>
              <span class="bar-queued swatch" /> queued
            </span>
            {["running", "waiting", "parked", "completed", "failed", "cancelled"].map((tone) => (
              <span key={tone}>
                <span class={`bar tone-${tone} swatch`} /> {tone}
              </span>
            ))}
          </p>
        </div>
      )}
      {pages > refreshedPages && one.lifecycle !== "closed" && (
        <p>
          <button type="button" class="small" onClick={load}>
            Refresh
          </button>
        </p>
      )}
      {detail && <Detail row={detail} onClose={() => setChosen(null)} />}
    </>
  );
}

/** So many pages are read again when something happened; who has read more asks for it. */
const refreshedPages = 3;

/** Pages of rows, read again whenever the ledger has more. */
function usePages(id: string, version: number, seq: string | null) {
  const [state, setState] = useState<{
    readonly rows: readonly TimelineShown[];
    readonly next: string | null;
    readonly pages: number;
    readonly error: CallError | null;
    /** How far it has been read, while the rest is. */
    readonly behind: { readonly seq: number; readonly of: number; readonly isEnd?: boolean } | null;
    /** When the point of the past was that they show; null is now. */
    readonly at: string | null;
  }>({ rows: [], next: null, pages: 0, error: null, behind: null, at: null });
  const isAsking = useRef(false);
  const isMissed = useRef(false);
  const readPages = async (from: readonly TimelineShown[], cursor: string | null, count: number, before: number) => {
    if (isAsking.current) {
      isMissed.current = true;
      return;
    }
    isAsking.current = true;
    isMissed.current = false;
    try {
      let [rows, next] = [from, cursor];
      let found: TimelinePage | null = null;
      for (let page = 0; page < count && (page === 0 || next !== null); page++) {
        let after = Math.max(seq === null ? version : 0, found?.seq ?? 0);
        let last = -1;
        // A long ledger is read piece by piece: each answer is one piece further.
        for (;;) {
          const query = new URLSearchParams({
            ...(next !== null && { cursor: next }),
            ...(seq !== null && { seq }),
            after: String(after),
          });
          found = await read<TimelinePage>(`executions/${id}/timeline?${query.toString()}`);
          if (found.seq >= found.of || found.seq === last) break;
          [after, last] = [found.seq, found.seq];
          setState({
            rows: [...rows, ...found.rows],
            next: null,
            pages: before + 1,
            error: null,
            behind: found,
            at: found.at,
          });
        }
        rows = [...rows, ...found.rows];
        next = found.nextCursor;
      }
      // A ledger that is too long is not read to its end.
      const behind = found && found.seq < found.of ? { ...found, isEnd: true } : null;
      setState({ rows, next, pages: before + count, error: null, behind, at: found?.at ?? null });
    } catch (refused) {
      if (refused instanceof CallError)
        setState((known) => ({ ...known, error: refused, pages: Math.max(1, known.pages) }));
    }
    isAsking.current = false;
    // An event came while the pages were read.
    if (isMissed.current && before + count <= refreshedPages) await readPages([], null, before + count, 0);
  };
  useEffect(() => {
    if (state.pages <= refreshedPages) void readPages([], null, Math.max(1, state.pages), 0);
  }, [id, seq ?? version]);
  return {
    ...state,
    isLoading: state.pages === 0,
    load: () => void readPages([], null, Math.max(1, state.pages), 0),
    loadMore: () => readPages(state.rows, state.next, 1, state.pages),
  };
}

const words: Readonly<Record<TimelineShown["kind"], string>> = {
  chunk: "chunk",
  step: "step",
  sleep: "sleep",
  wait: "asks",
  child: "calls",
  items: "items",
};

function Bar({
  row,
  begin,
  end,
  now,
  isChosen,
  onChoose,
}: {
  row: TimelineShown;
  begin: number;
  end: number;
  now: number;
  isChosen: boolean;
  onChoose: () => void;
}) {
  const at = (text: string | null) => (text === null ? null : new Date(text).getTime());
  const last = at(row.endedAt) ?? now;
  const started = at(row.startedAt);
  const first = started ?? at(row.queuedAt) ?? last;
  const x = (ms: number) => Math.min(100, Math.max(0, ((ms - begin) / (end - begin)) * 100));
  const part = (from: number, to: number, name: string, key: string) => (
    <rect
      key={key}
      x={`${x(from)}%`}
      width={`${Math.max(0.4, x(to) - x(from))}%`}
      y="25%"
      height="50%"
      rx="2"
      class={name}
    />
  );
  const tone =
    row.kind === "wait" || row.kind === "sleep" ? (row.endedAt === null ? "waiting" : "slept") : toneOf(row.status);
  const attempts = row.attempts.filter(({ startedAt }) => startedAt !== null);
  const queued = at(row.queuedAt);
  const took = lengthOf(last - first);
  return (
    <button type="button" class="bar-row" aria-expanded={isChosen} onClick={onChoose}>
      <span class="bar-label">
        <svg viewBox="0 0 16 16" width="12" height="12" class={`mark tone-${toneOf(row.status)}`} aria-hidden="true">
          <Shape tone={toneOf(row.status)} />
        </svg>
        <span class="kind">{words[row.kind]}</span> <span class="name">{visible(row.name)}</span>
        <span class="sr">
          , {row.status}, {took}
        </span>
      </span>
      <svg class="track" aria-hidden="true" width="100%" height="100%">
        {queued !== null && queued < (started ?? last) && part(queued, started ?? last, "bar-queued", "queued")}
        {attempts.length > 1
          ? attempts.map((attempt, index) =>
              part(
                at(attempt.startedAt) ?? first,
                at(attempt.endedAt) ?? last,
                `bar tone-${toneOf(attempt.status)}`,
                String(index),
              ),
            )
          : (started !== null || queued === null || row.endedAt !== null) &&
            part(first, last, `bar tone-${tone}`, "whole")}
        {attempts.length > 1 &&
          row.endedAt === null &&
          part(at(attempts.at(-1)?.endedAt ?? null) ?? first, now, "bar tone-running", "now")}
      </svg>
      <span class="took">{row.endedAt === null && row.startedAt === null ? row.status : took}</span>
    </button>
  );
}

function Detail({ row, onClose }: { row: TimelineShown; onClose: () => void }) {
  return (
    <section class="card detail" aria-label={`${words[row.kind]} ${row.name}`}>
      <header class="flex">
        <h2>
          {words[row.kind]} {visible(row.name)}
        </h2>
        <Status status={row.status} />
        <button type="button" class="small" onClick={onClose}>
          Close
        </button>
      </header>
      <dl class="facts">
        <dt>Queued</dt>
        <dd>
          <Time at={row.queuedAt} isFull />
        </dd>
        <dt>Started</dt>
        <dd>
          <Time at={row.startedAt} isFull />
        </dd>
        <dt>Ended</dt>
        <dd>
          <Time at={row.endedAt} isFull />
        </dd>
        {row.until !== null && (
          <>
            <dt>Until</dt>
            <dd>
              <Time at={row.until} isFull />
            </dd>
          </>
        )}
        {row.actor !== null && (
          <>
            <dt>Answered by</dt>
            <dd>{visible(row.actor)}</dd>
          </>
        )}
        {row.size !== null && (
          <>
            <dt>Items</dt>
            <dd>{row.size}</dd>
          </>
        )}
      </dl>
      {row.executionId !== null && (
        <a class="button" href={hrefOf({ execution: row.executionId })} onClick={stay}>
          Open the execution
        </a>
      )}
      {row.error && <ErrorView error={row.error} />}
      {row.attempts.length > 0 && (
        <ol class="attempts">
          {row.attempts.map((attempt, index) => (
            <li key={index}>
              <Status status={attempt.status} /> {attempt.attempt !== null && `attempt ${attempt.attempt}, `}
              <Time at={attempt.startedAt} isFull />
              {attempt.error && <ErrorView error={attempt.error} />}
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
