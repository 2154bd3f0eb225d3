/** Failures, workers and schedules. */
import { visible } from "../../base/visible.ts";
import { useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { FailureShown, Me, Page, ScheduleShown, WorkerShown } from "../api.ts";
import { ActionDialog, ranks, type Action } from "./actions.tsx";
import { Bulk, redriving } from "./bulk.tsx";
import { useLoad } from "./net.ts";
import { Frame } from "./listed.tsx";
import { hrefOf, stay } from "./place.ts";
import { Announce, ExecutionLink, Time, lengthOf } from "./parts.tsx";

export function Failures({ me }: { me: Me }) {
  const list = useLoad<Page<FailureShown>>("failures");
  const [group, setGroup] = useState<Readonly<Record<string, Json>> | null>(null);
  return (
    <>
      {group && <Bulk actions={[redriving]} where={group} onClose={() => setGroup(null)} />}
      <Frame
        title="Failures"
        about="Of the last 5,000 executions that failed, by flow, chunk and error; digits and ids make no other one."
        list={list}
        empty="Nothing has failed"
        heads={["How many", "Error", "Flow", "Last"]}
      >
        {({ flow, chunk, error, executions, lastAt, lastId, firstAt }) => (
          <tr key={`${flow} ${chunk} ${error}`}>
            <td class="count" data-head="How many">
              {executions.toLocaleString()}
            </td>
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

const silentMs = 15_000;

export function Workers() {
  const list = useLoad<Page<WorkerShown>>("workers");
  return (
    <Frame
      title="Workers"
      about="The processes that serve flows now."
      list={list}
      empty="No worker is running"
      heads={["Worker", "Process", "Slots", "Serves", "Since", "Silent for"]}
    >
      {({ id, host, pid, role, flows, versions, slots, startedAt, silentMs: silent }) => (
        <tr key={id}>
          <td class="id">{id}</td>
          <td>
            {visible(host)}, pid {pid}
            <span class="line quiet">as {visible(role)}</span>
          </td>
          <td data-head="Slots">{slots ?? <span class="quiet">not known</span>}</td>
          <td class="what">
            {flows.slice(0, 12).map((flow) => (
              <a key={flow} class="tag" href={hrefOf({ flow })} onClick={stay}>
                {visible(flow)}
                <span class="quiet"> {versions[flow]?.slice(0, 12)}</span>
              </a>
            ))}
            {flows.length > 12 && <span class="quiet">and {flows.length - 12} more</span>}
          </td>
          <td data-head="Since">
            <Time at={startedAt} />
          </td>
          <td data-head="Silent for">
            {silent > silentMs ? <span class="tone-failed">{lengthOf(silent)}</span> : lengthOf(silent)}
          </td>
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
