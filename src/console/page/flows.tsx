/** Flows: what runs of each, its limits, its pause switch and its graph. */
import { useState } from "preact/hooks";
import { visible } from "../../base/visible.ts";
import type { FlowShown, Me, Page } from "../api.ts";
import { ActionDialog, ranks, type Action } from "./actions.tsx";
import { FlowGraph } from "./graph.tsx";
import { useLoad } from "./net.ts";
import { Frame, counted } from "./listed.tsx";
import { Announce, Status, Time, lengthOf } from "./parts.tsx";
import { hrefOf, stay, usePlace } from "./place.ts";

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
      help: "hold: starts wait. refuse: starts are rejected.",
    },
  ],
};
const goingOn: Action = {
  name: "unpause-flow",
  label: "Go on",
  about: "Everything that waited continues.",
  inputs: [],
};

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
              <span class="flex">
                <a href={hrefOf({ screen: "flows", graph: flow })} onClick={stay} aria-label={`Graph of ${flow}`}>
                  Graph
                </a>
                {maySwitch && (
                  <button
                    type="button"
                    aria-label={`${paused === null ? "Pause" : "Let go on"} flow ${flow}`}
                    onClick={() => setAsked({ flow, action: paused === null ? pausing : goingOn })}
                  >
                    {paused === null ? "Pause" : "Go on"}
                  </button>
                )}
              </span>
            </td>
            <td data-head="Open">
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
            <td data-head="Versions">
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
            <td data-head="Limits">
              {limits === null ? <span class="quiet">none</span> : <Limits limits={limits} />}
              {queued > 0 && <span class="line tone-waiting">{counted(queued)} queued</span>}
            </td>
            <td data-head="Workers">{workers === 0 ? <span class="tone-failed">nobody serves it</span> : workers}</td>
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
