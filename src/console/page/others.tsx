/** Failures, flows, workers and schedules. */
import { visible } from "../../base/visible.ts";
import { useEffect, useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { BulkShown, FailureShown, FlowShown, Me, Page, ScheduleShown, WorkerShown } from "../api.ts";
import { ActionDialog, ranks, type Action } from "./actions.tsx";
import { CallError, send, useLoad, type Loaded } from "./net.ts";
import { FlowGraph } from "./graph.tsx";
import { hrefOf, stay, usePlace } from "./place.ts";
import { Announce, Empty, ExecutionLink, Loading, Problem, Status, Time, lengthOf, useKeptFocus } from "./parts.tsx";
import type { ComponentChildren } from "preact";

function Frame<T>({
  title,
  about,
  list,
  empty,
  heads,
  children,
}: {
  title: string;
  about: string;
  list: Loaded<Page<T>>;
  empty: string;
  heads: readonly string[];
  children: (row: T) => ComponentChildren;
}) {
  const rows = list.value?.rows ?? [];
  const kept = useKeptFocus<HTMLTableSectionElement>(rows.length);
  return (
    <>
      <header class="head">
        <h1>{title}</h1>
        <p class="quiet">{about}</p>
      </header>
      <Problem error={list.error} onRetry={list.reload} />
      {list.isLoading && <Loading rows={4} />}
      {list.value && rows.length === 0 && <Empty title={empty} />}
      {rows.length > 0 && (
        <table class="rows">
          <thead>
            <tr>
              {heads.map((head) => (
                <th key={head} scope="col">
                  {head}
                </th>
              ))}
            </tr>
          </thead>
          <tbody ref={kept.ref} onFocusIn={kept.onFocusIn} onFocusOut={kept.onFocusOut}>
            {rows.map(children)}
          </tbody>
        </table>
      )}
    </>
  );
}

export function Failures({ me }: { me: Me }) {
  const list = useLoad<Page<FailureShown>>("failures");
  const [group, setGroup] = useState<Readonly<Record<string, Json>> | null>(null);
  const [done, setDone] = useState("");
  return (
    <>
      <Announce text={done} />
      {group && <Bulk action="redrive" where={group} onClose={() => setGroup(null)} onDone={setDone} />}
      <Frame
        title="Failures"
        about="By flow, chunk and error; digits and ids make no other one."
        list={list}
        empty="Nothing has failed"
        heads={["How many", "Error", "Flow", "Last"]}
      >
        {({ flow, chunk, error, executions, lastAt, lastId, firstAt }) => (
          <tr key={`${flow} ${chunk} ${error}`}>
            <td class="count">{executions.toLocaleString()}</td>
            <td class="what">
              <a
                class="main tone-failed"
                data-stop
                href={hrefOf({ flow, status: "failed", errorLike: error.replaceAll("#", "%").slice(0, 900) })}
                onClick={stay}
              >
                {visible(error)}
              </a>
              <span class="line quiet">
                since <Time at={firstAt} />
              </span>
            </td>
            <td>
              {visible(flow)}
              {chunk !== null && <span class="line quiet">in {visible(chunk)}</span>}
            </td>
            <td>
              <Time at={lastAt} />
              <span class="line">
                <ExecutionLink id={lastId}>the last one</ExecutionLink>
              </span>
              {ranks[me.role] >= ranks.operator && (
                <button
                  type="button"
                  class="line"
                  aria-label={`Redrive what failed in ${flow} with ${error}`}
                  onClick={() =>
                    setGroup({ flow, status: "failed", errorLike: error.replaceAll("#", "%").slice(0, 900) })
                  }
                >
                  Redrive
                </button>
              )}
            </td>
          </tr>
        )}
      </Frame>
    </>
  );
}

const redriving: Action = {
  name: "redrive",
  label: "Redrive",
  about: "Each goes on as a new execution where it failed, with its past; what was redriven before is left out.",
  inputs: [],
};

/** The same for many: how many there are is said before. */
function Bulk({
  action,
  where,
  onClose,
  onDone,
}: {
  action: "redrive";
  where: Readonly<Record<string, Json>>;
  onClose: () => void;
  onDone: (said: string) => void;
}) {
  const [preview, setPreview] = useState<BulkShown | null>(null);
  const [error, setError] = useState<CallError | null>(null);
  useEffect(() => {
    send<BulkShown>("bulk", { action, where, dryRun: true, reason: "to see how many" }).then(
      setPreview,
      (refused: unknown) => {
        if (!(refused instanceof CallError)) throw refused;
        setError(refused);
      },
    );
  }, []);
  return (
    <ActionDialog action={redriving} path="bulk" extra={{ action, where }} onClose={onClose} onDone={onDone}>
      <Problem error={error} />
      <p role="status">
        {preview === null
          ? "Counting…"
          : preview.isMore
            ? `More than ${preview.matched.toLocaleString()} match: too many for one go.`
            : `${preview.matched.toLocaleString()} match.`}
      </p>
    </ActionDialog>
  );
}

function counted(count: number): string {
  return count > 1000 ? "1,000+" : count.toLocaleString();
}

const pausing: Action = {
  name: "pause-flow",
  label: "Pause",
  about:
    "No chunk of any of its executions starts any more. What runs reaches its end; events and answers are kept; timeouts go on counting.",
  isDangerous: true,
  inputs: [
    {
      name: "intake",
      label: "Starts meanwhile",
      kind: "choice",
      options: ["hold", "refuse"],
      value: "hold",
      help: "hold: they wait. refuse: whoever starts one is told.",
    },
  ],
};
const goingOn: Action = { name: "unpause-flow", label: "Go on", about: "All that waited goes on.", inputs: [] };

export function Flows({ me }: { me: Me }) {
  const { query } = usePlace();
  const graph = query.get("graph");
  return graph === null ? <AllFlows me={me} /> : <FlowGraph flow={graph} version={query.get("version")} />;
}

function AllFlows({ me }: { me: Me }) {
  const list = useLoad<Page<FlowShown>>("flows");
  const [asked, setAsked] = useState<{ action: Action; flow: string } | null>(null);
  const [done, setDone] = useState("");
  const maySwitch = ranks[me.role] >= ranks.operator && !me.isScoped;
  return (
    <>
      <Announce text={done} />
      {asked && (
        <ActionDialog
          action={{ ...asked.action, label: `${asked.action.label} ${asked.flow}` }}
          path={asked.action.name}
          extra={{ flow: asked.flow }}
          onClose={() => setAsked(null)}
          onDone={(said) => {
            setDone(said);
            list.reload();
          }}
        />
      )}
      <Frame
        title="Flows"
        about="What is open, under which version, and what holds it."
        list={list}
        empty="No flow has been served here"
        heads={["Flow", "Open", "Versions in flight", "Limits", "Workers"]}
      >
        {({ flow, open, failed, versions, limits, queued, workers, paused }) => (
          <tr key={flow}>
            <td>
              <a class="main" data-stop href={hrefOf({ flow })} onClick={stay}>
                {visible(flow)}
              </a>
              {paused !== null && (
                <span class="line tone-parked">
                  paused by {visible(paused.actor)} <Time at={paused.at} />: {visible(paused.reason)}
                  {paused.intake === "refuse" && " (starts are refused)"}
                </span>
              )}
              <a
                class="line"
                href={hrefOf({ screen: "flows", graph: flow })}
                onClick={stay}
                aria-label={`Graph of ${flow}`}
              >
                Graph
              </a>
              {maySwitch && (
                <button
                  type="button"
                  class="line"
                  aria-label={`${paused === null ? "Pause" : "Let go on"} flow ${flow}`}
                  onClick={() => setAsked({ flow, action: paused === null ? pausing : goingOn })}
                >
                  {paused === null ? "Pause" : "Go on"}
                </button>
              )}
            </td>
            <td>
              {Object.entries(open)
                .filter(([, count]) => count > 0)
                .map(([status, count]) => (
                  <a key={status} class="pair" href={hrefOf({ flow, status })} onClick={stay}>
                    <Status status={status} /> {counted(count)}
                  </a>
                ))}
              {failed > 0 && (
                <a class="pair" href={hrefOf({ flow, status: "failed" })} onClick={stay}>
                  <Status status="failed" /> {counted(failed)}
                </a>
              )}
              {failed === 0 && Object.values(open).every((count) => count === 0) && <span class="quiet">nothing</span>}
            </td>
            <td>
              {versions.length === 0 && <span class="quiet">none</span>}
              {versions.map(({ fingerprint, executions }) => (
                <span key={fingerprint} class="line">
                  <a
                    class="mono"
                    href={hrefOf({ flow, ...(fingerprint !== null && { version: fingerprint }) })}
                    onClick={stay}
                  >
                    {fingerprint?.slice(0, 12) ?? "not claimed yet"} × {counted(executions)}
                  </a>
                  {fingerprint !== null && (
                    <>
                      {" "}
                      <a
                        href={hrefOf({ screen: "flows", graph: flow, version: fingerprint })}
                        onClick={stay}
                        aria-label={`graph of version ${fingerprint.slice(0, 12)} of ${flow}`}
                      >
                        graph
                      </a>
                    </>
                  )}
                </span>
              ))}
            </td>
            <td>
              {limits === null ? <span class="quiet">none</span> : <Limits limits={limits} />}
              {queued > 0 && <span class="line tone-waiting">{counted(queued)} queued</span>}
            </td>
            <td>{workers === 0 ? <span class="tone-failed">nobody serves it</span> : workers}</td>
          </tr>
        )}
      </Frame>
    </>
  );
}

function Limits({ limits }: { limits: NonNullable<FlowShown["limits"]> }) {
  const { concurrency, rate, rateMs, keyConcurrency, keyRate, keyRateMs } = limits;
  const said = [
    concurrency !== null && concurrency !== undefined && `${concurrency} at once`,
    rate !== null && rate !== undefined && `${rate} per ${lengthOf(rateMs ?? 0)}`,
    keyConcurrency !== null && keyConcurrency !== undefined && `${keyConcurrency} at once per key`,
    keyRate !== null && keyRate !== undefined && `${keyRate} per ${lengthOf(keyRateMs ?? 0)} per key`,
  ].filter((one) => typeof one === "string");
  return (
    <>
      {said.map((one) => (
        <span key={one} class="line">
          {one}
        </span>
      ))}
    </>
  );
}

const silentMs = 15_000;

export function Workers() {
  const list = useLoad<Page<WorkerShown>>("workers");
  return (
    <Frame
      title="Workers"
      about="The processes that serve flows now."
      list={list}
      empty="No worker is running"
      heads={["Worker", "Process", "Serves", "Since", "Silent for"]}
    >
      {({ id, host, pid, role, flows, startedAt, silentMs: silent }) => (
        <tr key={id}>
          <td class="id">{id}</td>
          <td>
            {visible(host)}, pid {pid}
            <span class="line quiet">as {visible(role)}</span>
          </td>
          <td class="what">
            {flows.slice(0, 12).map((flow) => (
              <a key={flow} class="tag" href={hrefOf({ flow })} onClick={stay}>
                {visible(flow)}
              </a>
            ))}
            {flows.length > 12 && <span class="quiet">and {flows.length - 12} more</span>}
          </td>
          <td>
            <Time at={startedAt} />
          </td>
          <td>{silent > silentMs ? <span class="tone-failed">{lengthOf(silent)}</span> : lengthOf(silent)}</td>
        </tr>
      )}
    </Frame>
  );
}

const runningNow: Action = {
  name: "run-schedule",
  label: "Run now",
  about: "One execution of it starts at once, beside its times: those stay as they are.",
  isNew: true,
  inputs: [],
};

export function Schedules({ me }: { me: Me }) {
  const list = useLoad<Page<ScheduleShown>>("schedules");
  const [asked, setAsked] = useState<string | null>(null);
  const [done, setDone] = useState("");
  const mayRun = ranks[me.role] >= ranks.operator;
  return (
    <>
      <Announce text={done} />
      {asked !== null && (
        <ActionDialog
          action={{ ...runningNow, label: `Run ${asked} now` }}
          path={runningNow.name}
          extra={{ name: asked }}
          onClose={() => setAsked(null)}
          onDone={setDone}
        />
      )}
      <Frame
        title="Schedules"
        about="What starts by the clock."
        list={list}
        empty="There is no schedule"
        heads={["Schedule", "When", "Next five times", "Last"]}
      >
        {({ name, flow, cron, timeZone, next, firedUntil, lastId, waiting, removedAt }) => (
          <tr key={name}>
            <td>
              <strong>{visible(name)}</strong>
              <a class="line" href={hrefOf({ flow })} onClick={stay}>
                {visible(flow)}
              </a>
              {mayRun && removedAt === null && (
                <button
                  type="button"
                  class="line"
                  data-stop
                  aria-label={`Run now: ${name}`}
                  onClick={() => setAsked(name)}
                >
                  Run now
                </button>
              )}
            </td>
            <td>
              <span class="mono">{visible(cron)}</span>
              <span class="line quiet">{visible(timeZone)}</span>
            </td>
            <td>
              {removedAt !== null ? (
                <span class="tone-failed">
                  no worker has it, since <Time at={removedAt} />
                </span>
              ) : (
                next.map((at) => (
                  <span key={at} class="line">
                    <Time at={at} isFull />
                  </span>
                ))
              )}
            </td>
            <td>
              {lastId === null ? (
                <span class="quiet">has not fired</span>
              ) : (
                <ExecutionLink id={lastId}>the last execution</ExecutionLink>
              )}
              <span class="line quiet">
                looked at <Time at={firedUntil} />
              </span>
              {waiting > 0 && <span class="line tone-waiting">{waiting} times wait</span>}
            </td>
          </tr>
        )}
      </Frame>
    </>
  );
}

/** What each person sees: workers and schedules belong to all executions. */
export function screensOf({ isScoped }: Me): readonly (readonly [name: string, label: string])[] {
  const all = [
    ["executions", "Executions"],
    ["inbox", "Inbox"],
    ["failures", "Failures"],
    ["flows", "Flows"],
    ["operations", "Operations"],
  ] as const;
  return isScoped ? all : [...all, ["workers", "Workers"], ["schedules", "Schedules"]];
}
