/** The list of executions: a search that is the address, pages by cursor, views that are kept. */
import type { JSX } from "preact";
import { visible } from "../../base/visible.ts";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Count, FlowShown, Me, Page, Row, Status as StatusName } from "../api.ts";
import { ranks } from "./actions.tsx";
import { Bulk, bulkActions, whereOf } from "./bulk.tsx";
import { useLoad } from "./net.ts";
import { Views } from "./kept-views.tsx";
import { filtersIn, go, hrefOf, stay, usePlace } from "./place.ts";
import { Announce, Empty, Loading, Problem, Status, Time, lengthOf, useKeptFocus } from "./parts.tsx";

const statuses: readonly StatusName[] = ["created", "running", "waiting", "parked", "completed", "failed", "cancelled"];

const since: readonly (readonly [label: string, ms: number | null])[] = [
  ["any time", null],
  ["last hour", 3_600_000],
  ["last 24 hours", 86_400_000],
  ["last 7 days", 604_800_000],
];

export function Executions({ me }: { me: Me }) {
  const { query } = usePlace();
  const filters = filtersIn(query);
  const text = filters.toString();
  const list = useLoad<Page<Row>>(`executions?${text}`);
  const counted = new URLSearchParams(filters);
  for (const name of ["cursor", "order", "limit"]) counted.delete(name);
  const count = useLoad<Count>(`count?${counted}`, { isLive: false });
  const rows = list.value?.rows ?? [];
  const [isActing, setActing] = useState(false);
  const howMany = count.value ? `${count.value.count.toLocaleString()}${count.value.isMore ? "+" : ""}` : "";
  const kept = useKeptFocus<HTMLTableSectionElement>(rows.map(({ id }) => id).join());
  return (
    <>
      <header class="head">
        <h1>Executions</h1>
        <p class="quiet">{howMany && `${howMany} found`}</p>
      </header>
      <Search filters={filters} />
      <Views text={text}>
        {ranks[me.role] >= ranks.operator && counted.size > 0 && rows.length > 0 && (
          <button type="button" class="small" onClick={() => setActing(true)}>
            Act on all of them
          </button>
        )}
      </Views>
      {isActing && <Bulk actions={bulkActions} where={whereOf(counted)} onClose={() => setActing(false)} />}
      <Problem error={list.error} onRetry={list.reload} />
      <Announce text={list.value ? `${howMany || rows.length} executions found` : ""} />
      {list.isLoading && <Loading rows={8} />}
      {list.value && rows.length === 0 && (
        <Empty title={text === "" ? "No execution yet" : "Nothing fits these filters"}>
          {text === "" ? (
            <p>They appear here as soon as one is started.</p>
          ) : (
            <a class="button" href={hrefOf({})} onClick={stay}>
              Show all
            </a>
          )}
        </Empty>
      )}
      {rows.length > 0 && (
        <ExecutionTable
          rows={rows}
          body={{ id: "executions", ref: kept.ref, onFocusIn: kept.onFocusIn, onFocusOut: kept.onFocusOut }}
        />
      )}
      <nav class="pages" aria-label="Pages">
        {filters.has("cursor") && (
          <a class="button" href={hrefOf({ cursor: null }, query)} onClick={stay}>
            First page
          </a>
        )}
        {list.value?.nextCursor && (
          <a class="button" href={hrefOf({ cursor: list.value.nextCursor }, query)} onClick={stay}>
            Next page
          </a>
        )}
      </nav>
    </>
  );
}

function ExecutionTable({ rows, body }: { rows: readonly Row[]; body?: JSX.IntrinsicElements["tbody"] }) {
  return (
    <table class="rows">
      <thead>
        <tr>
          <th scope="col">Status</th>
          <th scope="col">Execution</th>
          <th scope="col">What</th>
          <th scope="col">Started</th>
          <th scope="col">Took</th>
        </tr>
      </thead>
      <tbody {...body}>
        {rows.map((row) => (
          <ExecutionRow key={row.id} row={row} />
        ))}
      </tbody>
    </table>
  );
}

function ExecutionRow({ row }: { row: Row }) {
  const { id, flow, status, createdAt, startedAt, closedAt, error, pending, parked, metadata } = row;
  const from = new Date(startedAt ?? createdAt).getTime();
  const took = (closedAt === null ? Date.now() : new Date(closedAt).getTime()) - from;
  const tags =
    "json" in metadata && typeof metadata.json === "object" && metadata.json !== null
      ? Object.entries(metadata.json)
      : [];
  return (
    <tr
      class="row"
      onClick={(event) => {
        // The whole row is for pointers; the keyboard has the link.
        if (event.target instanceof Element && !event.target.closest("a") && getSelection()?.isCollapsed !== false)
          go(hrefOf({ execution: id }));
      }}
    >
      <td>
        <Status status={status} />
      </td>
      <td>
        <a class="main" data-stop href={hrefOf({ execution: id })} onClick={stay}>
          {visible(flow)}
        </a>
        <span class="id quiet">{id}</span>
      </td>
      <td class="what">
        {error && (
          <span class="tone-failed line">
            {visible(error.name ?? "")}: {visible((error.message ?? "").slice(0, 200))}
          </span>
        )}
        {parked > 0 && (
          <span class="tone-parked line">
            {parked === 1 ? "a chunk waits for an operator" : `${parked} chunks wait for an operator`}
          </span>
        )}
        {pending > 0 && (
          <span class="tone-waiting line">
            {pending === 1 ? "waits for an answer" : `waits for ${pending} answers`}
          </span>
        )}
        {tags.slice(0, 4).map(([key, value]) => (
          <span key={key} class="tag">
            {visible(key)}: {visible(String(typeof value === "object" ? JSON.stringify(value) : value).slice(0, 60))}
          </span>
        ))}
      </td>
      <td data-head={startedAt === null ? "Created" : "Started"}>
        <Time at={startedAt ?? createdAt} />
      </td>
      <td data-head="Took">
        {startedAt === null && closedAt === null ? <span class="quiet">not started</span> : lengthOf(took)}
      </td>
    </tr>
  );
}

/** What may be written in the search: the filters of `listExecutions()`, and metadata as `meta.key:value`. */
const words: Readonly<Record<string, string>> = {
  flow: "flow",
  status: "status",
  version: "version",
  parent: "parent",
  id: "idPrefix",
  key: "idempotencyKey",
  error: "errorLike",
  before: "createdBefore",
  after: "createdAfter",
  "closed-before": "closedBefore",
  "closed-after": "closedAfter",
};

function textOf(filters: URLSearchParams): string {
  const names = new Map(Object.entries(words).map(([word, name]) => [name, word]));
  const parts: string[] = [];
  for (const [name, value] of filters) {
    if (["cursor", "limit", "order", "status", "createdAfter"].includes(name)) continue;
    if (name === "metadata") {
      try {
        for (const [key, inner] of Object.entries(JSON.parse(value) as object))
          parts.push(`meta.${key}:${quoted(typeof inner === "string" ? inner : JSON.stringify(inner))}`);
      } catch {
        parts.push(`metadata:${value}`);
      }
    } else parts.push(`${names.get(name) ?? name}:${quoted(value)}`);
  }
  return parts.join(" ");
}

function quoted(value: string): string {
  return /\s/.test(value) ? `"${value}"` : value;
}

function filtersOf(text: string, before: URLSearchParams): URLSearchParams {
  const filters = new URLSearchParams();
  for (const name of ["status", "createdAfter", "order"])
    for (const value of before.getAll(name)) filters.append(name, value);
  const metadata: Record<string, unknown> = {};
  for (const [, key, inQuotes, plain] of text.matchAll(/(?:([\w.-]+):)?(?:"([^"]*)"|(\S+))/g)) {
    const value = inQuotes ?? plain ?? "";
    if (key === undefined)
      filters.append(/^[\da-f]{4,8}(?:-[\da-f-]*)?$/i.test(value) ? "idPrefix" : "errorLike", value);
    else if (key.startsWith("meta."))
      metadata[key.slice(5)] = /^(?:true|false|null|-?\d+(?:\.\d+)?)$/.test(value)
        ? (JSON.parse(value) as unknown)
        : value;
    else filters.append(words[key] ?? key, value);
  }
  if (Object.keys(metadata).length > 0) filters.set("metadata", JSON.stringify(metadata));
  return filters;
}

function Search({ filters }: { filters: URLSearchParams }) {
  const written = textOf(filters);
  const [text, setText] = useState(written);
  useEffect(() => setText(written), [written]);
  const flows = useLoad<Page<FlowShown>>("flows", { isLive: false });
  const chosen = new Set(filters.getAll("status"));
  const look = (next: URLSearchParams) => {
    next.delete("cursor");
    const change: Record<string, string[]> = {};
    for (const name of new Set(next.keys())) change[name] = next.getAll(name);
    go(hrefOf(change));
  };
  const toggle = (status: string) => {
    const next = new URLSearchParams(filters);
    next.delete("status");
    for (const one of statuses) if (chosen.has(one) !== (one === status)) next.append("status", one);
    look(next);
  };
  const range = useMemo(() => {
    const after = filters.get("createdAfter");
    if (after === null) return "any time";
    const ms = Date.now() - new Date(after).getTime();
    return since.find(([, length]) => length !== null && Math.abs(length - ms) < 120_000 + length / 10)?.[0] ?? "other";
  }, [filters.get("createdAfter")]);
  return (
    <form
      class="search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        look(filtersOf(text, filters));
      }}
    >
      <div class="flex grow">
        <label class="sr" for="search">
          Search executions
        </label>
        <input
          id="search"
          type="search"
          value={text}
          list="search-words"
          placeholder="flow:refund meta.tenant:acme error:declined id:01a1"
          aria-describedby="search-help"
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <datalist id="search-words">
          {flows.value?.rows.map(({ flow }) => (
            <option key={flow} value={`flow:${quoted(flow)}`} />
          ))}
        </datalist>
        <button class="primary">Search</button>
      </div>
      <p id="search-help" class="sr">
        Words like flow:name, id:, error:, version:, parent:, key:, after:, before: and meta.key:value. Other words are
        looked for in errors.
      </p>
      <div class="flex chips" role="group" aria-label="Status">
        {statuses.map((status) => (
          <button
            key={status}
            type="button"
            class="chip"
            aria-pressed={chosen.has(status)}
            onClick={() => toggle(status)}
          >
            <Status status={status} />
          </button>
        ))}
        <label class="flex">
          <span class="quiet">Created</span>
          <select
            value={range}
            onChange={(event) => {
              const next = new URLSearchParams(filters);
              const ms = since.find(([label]) => label === event.currentTarget.value)?.[1] ?? null;
              if (ms === null) next.delete("createdAfter");
              else next.set("createdAfter", new Date(Date.now() - ms).toISOString());
              look(next);
            }}
          >
            {since.map(([label]) => (
              <option key={label}>{label}</option>
            ))}
            {range === "other" && <option>other</option>}
          </select>
        </label>
      </div>
    </form>
  );
}

/** Executions that another one called. */
export function Children({ id }: { id: string }) {
  const list = useLoad<Page<Row>>(`executions/${id}/children`);
  const rows = list.value?.rows ?? [];
  return (
    <>
      <Problem error={list.error} onRetry={list.reload} />
      {list.isLoading && <Loading rows={3} />}
      {list.value && rows.length === 0 && <Empty title="It called no other execution" />}
      {rows.length > 0 && <ExecutionTable rows={rows} />}
      {list.value?.nextCursor && (
        <p class="flex">
          <span class="quiet">The first {rows.length}.</span>
          <a class="button" href={hrefOf({ parent: id })} onClick={stay}>
            All of them
          </a>
        </p>
      )}
    </>
  );
}
