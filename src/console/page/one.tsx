/** One execution: why it is where it is, what it asks, and all that is known of it. */
import { visible } from "../../base/visible.ts";
import { Fragment } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Me, Overview, Shown } from "../api.ts";
import { ActionDialog, actionsOf, forkOf, ranks, type Action } from "./actions.tsx";
import { Graph } from "./graph.tsx";
import { Children } from "./executions.tsx";
import { QuestionCard } from "./inbox.tsx";
import { CallError, follow, useLoad, type ServerEvent } from "./net.ts";
import { go, hrefOf, stay, usePlace } from "./place.ts";
import {
  Announce,
  Copy,
  Empty,
  ErrorView,
  ExecutionLink,
  Loading,
  Problem,
  Sentence,
  Status,
  Time,
  lengthOf,
  bringIn,
} from "./parts.tsx";
import { Payload } from "./payload.tsx";
import { Timeline } from "./timeline.tsx";
import { Ledger } from "./ledger.tsx";
import { State } from "./state.tsx";

const tabs = ["timeline", "graph", "data", "state", "ledger", "stream", "children"] as const;
type Tab = (typeof tabs)[number];

export function One({ id, me }: { id: string; me: Me }) {
  const { query } = usePlace();
  const tab = tabs.find((name) => name === query.get("tab")) ?? "timeline";
  const [isOver, setOver] = useState(false);
  // A closed execution does not change, so it is not asked for again.
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
  const forkFrom = (seq: number) =>
    ranks[me.role] >= ranks.operator && (
      <button type="button" class="small" onClick={() => setAction(forkOf(one?.seq ?? seq, seq))}>
        Fork from here
      </button>
    );
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
            {tab === "state" && <State id={id} one={one} fork={forkFrom} />}
            {tab === "ledger" && <Ledger id={id} seq={one.seq} fork={forkFrom} />}
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
          <Fragment key={next}>
            <dt>Redriven as</dt>
            <dd>
              <ExecutionLink id={next} />
            </dd>
          </Fragment>
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

/** Timeline, graph and state show the same point of the past; other views have none. */
function keptAt(tab: Tab): Record<string, null> {
  if (tab === "state") return {};
  return tab === "graph" || tab === "timeline" ? { with: null } : { seq: null, with: null };
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

/** Of what a stream has put, so many are kept in the page. */
const keptItems = 500;

const connections = { away: "Connecting…", live: "Live", ended: "The stream has ended" };

function Stream({ id }: { id: string }) {
  const [items, setItems] = useState<
    readonly { readonly id: string; readonly kind: string | null; readonly item: Shown }[]
  >([]);
  const [how, setHow] = useState<keyof typeof connections>("away");
  const [error, setError] = useState<CallError | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    const hear = ({ event, id: cursor, data }: ServerEvent) => {
      if (event === "end" || event === "failed") return setHow("ended");
      const { kind, item } = JSON.parse(data) as { kind: string | null; item: Shown };
      setItems((before) => [...before.slice(1 - keptItems), { id: cursor ?? "", kind, item }]);
    };
    follow(`executions/${id}/stream`, stop.signal, hear, (isConnected) => {
      if (!stop.signal.aborted) setHow(isConnected ? "live" : "away");
    }).catch((refused: unknown) => {
      if (refused instanceof CallError) setError(refused);
    });
    return () => stop.abort();
  }, [id]);
  return (
    <>
      <p class="flex">
        {error === null && (
          <span class={`live ${how}`} role="status">
            {connections[how]}
          </span>
        )}
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
