/** One execution: why it is where it is, what it asks, and all that is known of it. */
import { visible } from "../../base/visible.ts";
import { useEffect, useRef, useState } from "preact/hooks";
import type { EventShown, Me, Overview, Page, Shown, StateShown } from "../api.ts";
import { ActionDialog, actionsOf, type Action } from "./actions.tsx";
import { diffOf } from "./diff.ts";
import { Graph } from "./graph.tsx";
import { Children } from "./executions.tsx";
import { QuestionCard } from "./inbox.tsx";
import { CallError, follow, read, useCaughtUp, useLoad } from "./net.ts";
import { go, hrefOf, stay, usePlace } from "./place.ts";
import {
  Announce,
  Copy,
  Empty,
  ErrorView,
  ExecutionLink,
  Loading,
  Payload,
  Problem,
  Sentence,
  Status,
  Time,
  Tree,
  Windowed,
  lengthOf,
  bringIn,
} from "./parts.tsx";
import { Point } from "./point.tsx";
import { Timeline } from "./timeline.tsx";

const tabs = ["timeline", "graph", "data", "state", "ledger", "stream", "children"] as const;
type Tab = (typeof tabs)[number];

export function One({ id, me }: { id: string; me: Me }) {
  const { query } = usePlace();
  const tab = tabs.find((name) => name === query.get("tab")) ?? "timeline";
  const [isOver, setOver] = useState(false);
  // What has closed stays as it is.
  const loaded = useLoad<Overview>(`executions/${encodeURIComponent(id)}`, { isLive: !isOver });
  const [action, setAction] = useState<Action | null>(null);
  const [said, setSaid] = useState("");
  const one = loaded.value;
  const { reload } = loaded;
  const isClosed = one?.lifecycle === "closed";
  if (isClosed !== isOver) setOver(isClosed);
  useEffect(() => {
    if (isClosed || one === null) return;
    const stop = new AbortController();
    follow(`executions/${id}/watch`, stop.signal, () => {
      if (document.visibilityState === "visible") reload();
    }).catch(() => {});
    return () => stop.abort();
  }, [id, isClosed, one === null, reload]);
  const isGone = loaded.error?.status === 404;
  return (
    <>
      <p>
        <a href={hrefOf({})} onClick={stay}>
          ← All executions
        </a>
      </p>
      {isGone ? (
        <Empty title="There is no such execution">
          <p>It may have been pruned, or the address is not whole.</p>
        </Empty>
      ) : (
        <Problem error={loaded.error} onRetry={loaded.reload} />
      )}
      {one === null && <h1 class="sr">Execution {id}</h1>}
      {loaded.isLoading && <Loading rows={6} />}
      <Announce text={said} />
      {one && (
        <>
          <Head one={one} />
          <div class="flex actions" role="group" aria-label="Actions">
            {actionsOf(me, one).map((each) => (
              <button
                key={each.name}
                type="button"
                class={each.isDangerous ? "danger quiet-danger" : ""}
                onClick={() => setAction(each)}
              >
                {each.label}
              </button>
            ))}
          </div>
          {one.error && <ErrorView error={one.error} />}
          {one.questions.map((question) => (
            <QuestionCard
              key={`${question.id} ${question.createdAt}`}
              question={question}
              me={me}
              onDone={(text) => {
                setSaid(text);
                loaded.reload();
              }}
            />
          ))}
          <Tabs tab={tab} query={query} />
          <div role="tabpanel" id="panel" aria-labelledby={`tab-${tab}`} class="panel" tabIndex={-1}>
            {tab === "timeline" && <Timeline id={id} one={one} />}
            {tab === "graph" && <Graph id={id} one={one} />}
            {tab === "data" && <Data one={one} />}
            {tab === "state" && <State id={id} one={one} />}
            {tab === "ledger" && <Ledger id={id} seq={one.seq} />}
            {tab === "stream" && <Stream id={id} key={id} />}
            {tab === "children" && <Children id={id} />}
          </div>
          {action && (
            <ActionDialog
              action={action}
              path={`executions/${id}/${action.name}`}
              onClose={() => setAction(null)}
              onDone={(text) => {
                setSaid(text);
                loaded.reload();
              }}
            />
          )}
        </>
      )}
    </>
  );
}

function Head({ one }: { one: Overview }) {
  const {
    id,
    flow,
    status,
    sentence,
    createdAt,
    startedAt,
    closedAt,
    parentId,
    forkedFrom,
    redrivenBy,
    traceUrl,
    fingerprint,
  } = one;
  const from = new Date(startedAt ?? createdAt).getTime();
  const took = (closedAt === null ? Date.now() : new Date(closedAt).getTime()) - from;
  return (
    <header class="one">
      <div class="flex">
        <h1>
          <a href={hrefOf({ flow })} onClick={stay}>
            {visible(flow)}
          </a>
        </h1>
        <Status status={status} />
      </div>
      <p class="flex">
        <span class="id">{id}</span>
        <Copy text={id} what="the id" />
      </p>
      <Sentence text={sentence} />
      <dl class="facts">
        <dt>{startedAt === null ? "Created" : "Started"}</dt>
        <dd>
          <Time at={startedAt ?? createdAt} isFull />
        </dd>
        <dt>{closedAt === null ? "Age" : "Took"}</dt>
        <dd>{lengthOf(took)}</dd>
        {closedAt !== null && (
          <>
            <dt>Closed</dt>
            <dd>
              <Time at={closedAt} isFull />
              {one.closeReason !== null && `, ${visible(one.closeReason)}`}
            </dd>
          </>
        )}
        {parentId !== null && (
          <>
            <dt>Called by</dt>
            <dd>
              <ExecutionLink id={parentId} />
            </dd>
          </>
        )}
        {forkedFrom !== null && (
          <>
            <dt>Copied from</dt>
            <dd>
              <ExecutionLink id={forkedFrom} />
            </dd>
          </>
        )}
        {redrivenBy.map((next) => (
          <>
            <dt>Redriven as</dt>
            <dd>
              <ExecutionLink id={next} />
            </dd>
          </>
        ))}
        {fingerprint !== null && (
          <>
            <dt>Version</dt>
            <dd class="mono">{fingerprint.slice(0, 12)}</dd>
          </>
        )}
        {traceUrl !== null && (
          <>
            <dt>Trace</dt>
            <dd>
              <a href={traceUrl} rel="noreferrer noopener" target="_blank">
                open the trace
              </a>
            </dd>
          </>
        )}
      </dl>
    </header>
  );
}

/** Graph and state show the same point of the past; other views have none. */
function keptAt(tab: Tab): Record<string, null> {
  if (tab === "state") return {};
  return tab === "graph" ? { with: null } : { seq: null, with: null };
}

function Tabs({ tab, query }: { tab: Tab; query: URLSearchParams }) {
  const list = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length] ?? "timeline";
    go(hrefOf({ tab: next, ...keptAt(next) }, query), { isReplaced: true });
    list.current?.querySelector<HTMLElement>(`#tab-${next}`)?.focus();
  };
  useEffect(() => bringIn(list.current, "[aria-selected=true]"), [tab]);
  return (
    <div class="tabs" role="tablist" aria-label="Views of the execution" ref={list} onKeyDown={move}>
      {tabs.map((name) => (
        <button
          key={name}
          type="button"
          role="tab"
          id={`tab-${name}`}
          aria-selected={name === tab}
          aria-controls="panel"
          tabIndex={name === tab ? 0 : -1}
          onClick={() => go(hrefOf({ tab: name, ...keptAt(name) }, query), { isReplaced: true })}
        >
          {name.charAt(0).toUpperCase() + name.slice(1)}
        </button>
      ))}
    </div>
  );
}

function Data({ one }: { one: Overview }) {
  return (
    <div class="columns">
      <section>
        <h2>Input</h2>
        {one.input ? <Payload value={one.input} label="input" /> : <p class="quiet">It has not been started.</p>}
      </section>
      <section>
        <h2>Output</h2>
        {one.output ? <Payload value={one.output} label="output" /> : <p class="quiet">It has not closed.</p>}
      </section>
      <section>
        <h2>Metadata</h2>
        <Payload value={one.metadata} label="metadata" />
      </section>
    </div>
  );
}

function State({ id, one }: { id: string; one: Overview }) {
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

function Ledger({ id, seq: version }: { id: string; seq: number }) {
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
  // What is new comes on top; what was read stays below, each once.
  const rows = begun ? [...newest.filter(({ seq }) => seq > (begun.rows[0]?.seq ?? 0)), ...begun.rows] : newest;
  const next = begun ? begun.next : (first.value?.nextCursor ?? null);
  const loadOlder = async () => {
    if (next === null || isAsking.current) return;
    isAsking.current = true;
    try {
      // A look for some kinds goes through a piece of the ledger, in which there may be few of them, or none.
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

/** Of what a stream has put, so many are kept in the page. */
const keptItems = 500;

function Stream({ id }: { id: string }) {
  const [items, setItems] = useState<
    readonly { readonly id: string; readonly kind: string | null; readonly item: Shown }[]
  >([]);
  const [how, setHow] = useState<"live" | "ended">("live");
  const [error, setError] = useState<CallError | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    follow(`executions/${id}/stream`, stop.signal, ({ event, id: cursor, data }) => {
      if (event === "end" || event === "failed") return setHow("ended");
      const { kind, item } = JSON.parse(data) as { kind: string | null; item: Shown };
      setItems((before) => [...before.slice(1 - keptItems), { id: cursor ?? "", kind, item }]);
    }).catch((refused: unknown) => {
      if (refused instanceof CallError) setError(refused);
    });
    return () => stop.abort();
  }, [id]);
  return (
    <>
      <p class="flex">
        <span class={`live ${how}`}>{how === "live" ? "Live" : "The stream has ended"}</span>
        <span class="quiet">
          {items.length === 0
            ? "nothing yet"
            : `${items.length}${items.length === keptItems ? " (the last)" : ""} items`}
        </span>
      </p>
      <Problem error={error} />
      <div class="stream" role="log" aria-label="Stream" tabIndex={0}>
        <ol>
          {items.map(({ id: cursor, kind, item }) => (
            <li key={cursor}>
              <span class="quiet">{kind ?? ""}</span>
              {"json" in item && typeof item.json !== "object" ? (
                <span>{visible(String(item.json))}</span>
              ) : (
                <Payload value={item} label={`item ${cursor}`} />
              )}
            </li>
          ))}
        </ol>
      </div>
    </>
  );
}
