/** Failures, flows, workers and schedules. */
import type { FailureShown, FlowShown, Me, Page, ScheduleShown, WorkerShown } from "../api.ts";
import { useLoad, type Loaded } from "./net.ts";
import { hrefOf, stay } from "./place.ts";
import { Empty, ExecutionLink, Loading, Problem, Status, Time, lengthOf, useKeptFocus, visible } from "./parts.tsx";
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

export function Failures() {
  const list = useLoad<Page<FailureShown>>("failures");
  return (
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
          </td>
        </tr>
      )}
    </Frame>
  );
}

function counted(count: number): string {
  return count > 1000 ? "1,000+" : count.toLocaleString();
}

export function Flows() {
  const list = useLoad<Page<FlowShown>>("flows");
  return (
    <Frame
      title="Flows"
      about="What is open, under which version, and what holds it."
      list={list}
      empty="No flow has been served here"
      heads={["Flow", "Open", "Versions in flight", "Limits", "Workers"]}
    >
      {({ flow, open, failed, versions, limits, queued, workers }) => (
        <tr key={flow}>
          <td>
            <a class="main" data-stop href={hrefOf({ flow })} onClick={stay}>
              {visible(flow)}
            </a>
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
              <a
                key={fingerprint}
                class="line mono"
                href={hrefOf({ flow, ...(fingerprint !== null && { version: fingerprint }) })}
                onClick={stay}
              >
                {fingerprint?.slice(0, 12) ?? "not claimed yet"} × {counted(executions)}
              </a>
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

export function Schedules() {
  const list = useLoad<Page<ScheduleShown>>("schedules");
  return (
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
  );
}

/** What each person sees: workers and schedules belong to all executions. */
export function screensOf({ isScoped }: Me): readonly (readonly [name: string, label: string])[] {
  const all = [
    ["executions", "Executions"],
    ["inbox", "Inbox"],
    ["failures", "Failures"],
    ["flows", "Flows"],
  ] as const;
  return isScoped ? all : [...all, ["workers", "Workers"], ["schedules", "Schedules"]];
}
