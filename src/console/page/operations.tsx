/** Bulks, in progress and finished: what, who, why and how far. */
import { visible } from "../../base/visible.ts";
import { useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { Me, OperationFailureShown, OperationShown, Page } from "../api.ts";
import { ActionDialog, ranks, type Action } from "./actions.tsx";
import { useLoad } from "./net.ts";
import { hrefOf, stay, usePlace } from "./place.ts";
import { Announce, Empty, ExecutionLink, Loading, Problem, Status, Time, useKeptFocus } from "./parts.tsx";

const cancelling: Action = {
  name: "cancel-operation",
  label: "Cancel",
  about: "What is still to come is left as it is. What has been done stays done.",
  isDangerous: true,
  inputs: [],
};

export function Operations({ me }: { me: Me }) {
  const { query } = usePlace();
  const cursor = query.get("cursor");
  const list = useLoad<Page<OperationShown>>(`operations${cursor === null ? "" : `?cursor=${cursor}`}`);
  const [asked, setAsked] = useState<OperationShown | null>(null);
  const [opened, setOpened] = useState<string | null>(null);
  const [done, setDone] = useState("");
  const rows = list.value?.rows ?? [];
  const kept = useKeptFocus<HTMLTableSectionElement>(rows.length);
  const mayCancel = ranks[me.role] >= ranks.operator;
  return (
    <>
      <Announce text={done} />
      {asked && (
        <ActionDialog
          action={{ ...cancelling, label: `Cancel ${asked.action} of ${asked.matched.toLocaleString()}` }}
          path={cancelling.name}
          extra={{ id: asked.id }}
          onClose={() => setAsked(null)}
          onDone={(said) => {
            setDone(said);
            list.reload();
          }}
        />
      )}
      <header class="head">
        <h1>Operations</h1>
        <p class="quiet">The same command for many executions, in progress and finished.</p>
      </header>
      <Problem error={list.error} onRetry={list.reload} />
      {list.isLoading && <Loading rows={4} />}
      {list.value && rows.length === 0 && (
        <Empty title={cursor === null ? "Nothing was done in bulk" : "There are no older ones"} />
      )}
      {rows.length > 0 && (
        <table class="rows">
          <thead>
            <tr>
              <th scope="col">What</th>
              <th scope="col">How far</th>
              <th scope="col">Who and why</th>
              <th scope="col">When</th>
            </tr>
          </thead>
          <tbody ref={kept.ref} onFocusIn={kept.onFocusIn} onFocusOut={kept.onFocusOut}>
            {rows.map((row) => (
              <tr key={row.id}>
                <td class="what">
                  <strong>{row.action}</strong> <Status status={row.status} />
                  <Which operation={row} />
                </td>
                <td>
                  <Progress operation={row} />
                  {row.failed > 0 && (
                    <button
                      type="button"
                      class="small line"
                      aria-expanded={opened === row.id}
                      onClick={() => setOpened(opened === row.id ? null : row.id)}
                    >
                      {opened === row.id ? "Hide what failed" : "What failed"}
                    </button>
                  )}
                  {opened === row.id && <Refusals id={row.id} failed={row.failed} />}
                </td>
                <td>
                  {visible(row.actor)}
                  <span class="line quiet">{visible(row.reason)}</span>
                </td>
                <td>
                  <Time at={row.at} />
                  {row.closedAt !== null && (
                    <span class="line quiet">
                      ended <Time at={row.closedAt} />
                    </span>
                  )}
                  {mayCancel && isOpen(row) && (
                    <button
                      type="button"
                      class="line"
                      data-stop
                      aria-label={`Cancel ${row.action} by ${row.actor}`}
                      onClick={() => setAsked(row)}
                    >
                      Cancel
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {(cursor !== null || (list.value?.nextCursor ?? null) !== null) && (
        <p class="flex">
          {cursor !== null && (
            <a class="button" href={hrefOf({ screen: "operations" })} onClick={stay}>
              Newest
            </a>
          )}
          {list.value && list.value.nextCursor !== null && (
            <a class="button" href={hrefOf({ screen: "operations", cursor: list.value.nextCursor })} onClick={stay}>
              Older
            </a>
          )}
        </p>
      )}
    </>
  );
}

function isOpen({ status }: OperationShown): boolean {
  return !["completed", "failed", "cancelled"].includes(status);
}

/** Its filter as a link to the executions that fit it now. */
function Which({ operation }: { operation: OperationShown }) {
  const { filter } = operation;
  if (!("json" in filter) || typeof filter.json !== "object" || filter.json === null) return null;
  const entries = Object.entries(filter.json as Readonly<Record<string, Json>>);
  const said = (value: Json) =>
    typeof value === "string" ? value : Array.isArray(value) ? value.join(", ") : JSON.stringify(value);
  const asked = Object.fromEntries(
    entries.map(([name, value]) => [name, Array.isArray(value) ? value.map(String) : said(value)]),
  );
  return (
    <a class="line" href={hrefOf(asked)} onClick={stay}>
      {entries.map(([name, value]) => `${name} ${visible(said(value))}`).join(", ")}
    </a>
  );
}

function Progress({ operation }: { operation: OperationShown }) {
  const { matched, done, skipped, failed, action } = operation;
  const through = done + skipped + failed;
  const said = [
    `${done.toLocaleString()} of ${matched.toLocaleString()} done`,
    skipped > 0 && `${skipped.toLocaleString()} skipped`,
    failed > 0 && `${failed.toLocaleString()} failed`,
    through < matched && `${(matched - through).toLocaleString()} ${isOpen(operation) ? "to come" : "left out"}`,
  ].filter((one) => typeof one === "string");
  return (
    <>
      <progress max={Math.max(1, matched)} value={matched === 0 ? 1 : through} aria-label={`How far ${action} is`} />
      <span class="line">{said.join(", ")}</span>
    </>
  );
}

function Refusals({ id, failed }: { id: string; failed: number }) {
  const loaded = useLoad<Page<OperationFailureShown>>(`operation-failures?id=${id}`, {
    isLive: false,
    version: failed,
  });
  return (
    <>
      <Problem error={loaded.error} onRetry={loaded.reload} />
      {loaded.isLoading && <Loading rows={2} />}
      <ul class="plain">
        {loaded.value?.rows.map(({ executionId, message }) => (
          <li key={executionId}>
            <ExecutionLink id={executionId} />
            <span class="line quiet">{visible(message)}</span>
          </li>
        ))}
      </ul>
      {loaded.value && loaded.value.nextCursor !== null && (
        <p class="quiet">The first {loaded.value.rows.length.toLocaleString()}.</p>
      )}
    </>
  );
}
