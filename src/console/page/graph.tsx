/** The graph of a flow, with where an execution stands in it: a picture, and the same as a list. */
import { visible } from "../../base/visible.ts";
import { useMemo, useState } from "preact/hooks";
import type { GraphNode, GraphShown, NodeShown, Overview, PictureShown } from "../api.ts";
import { box, layoutOf } from "./layout.ts";
import { useCaughtUp, useLoad } from "./net.ts";
import { hrefOf, stay, usePlace } from "./place.ts";
import { Empty, Loading, Problem, Shape, Status, Windowed, toneOf } from "./parts.tsx";
import { Point } from "./point.tsx";

/** More nodes are a list without a picture. */
const mostDrawn = 150;

type States = Readonly<Record<string, NodeShown>>;

/** Of one execution, live or as it was after an event. */
export function Graph({ id, one }: { id: string; one: Overview }) {
  const { query } = usePlace();
  const seq = query.get("seq");
  const { value, error, isLoading, reload } = useCaughtUp<PictureShown>(`executions/${id}/graph`, seq, one.seq);
  return (
    <>
      <Point one={one} />
      <Problem error={error} onRetry={reload} />
      {isLoading && <Loading rows={4} />}
      {value && value.seq < value.of && (
        <p class="quiet" role="status">
          As of event {value.seq.toLocaleString()} of {value.of.toLocaleString()}: the rest is being read.
        </p>
      )}
      {value && value.graph === null && (
        <Empty title="Nobody knows its graph yet">
          <p>A worker that serves the flow tells what it looks like.</p>
        </Empty>
      )}
      {value?.graph && <Drawn graph={value.graph} states={value.states} />}
    </>
  );
}

/** Of a flow, as workers last told it, or of one of its versions. */
export function FlowGraph({ flow, version }: { flow: string; version: string | null }) {
  const asked = new URLSearchParams({ flow, ...(version !== null && { version }) });
  const loaded = useLoad<PictureShown>(`graph?${asked.toString()}`, { isLive: false });
  return (
    <>
      <p>
        <a href={hrefOf({ screen: "flows" })} onClick={stay}>
          ← All flows
        </a>
      </p>
      <header class="head">
        <h1>Graph of {visible(flow)}</h1>
        {loaded.value?.graph && (
          <p class="quiet">
            Version <span class="mono">{loaded.value.graph.fingerprint.slice(0, 12)}</span>
          </p>
        )}
      </header>
      <Problem error={loaded.error} onRetry={loaded.reload} />
      {loaded.isLoading && <Loading rows={4} />}
      {loaded.value && loaded.value.graph === null && <Empty title="This version cannot be drawn by this release" />}
      {loaded.value?.graph && <Drawn graph={loaded.value.graph} states={null} />}
    </>
  );
}

function Drawn({ graph, states }: { graph: GraphShown; states: States | null }) {
  const [chosen, setChosen] = useState<string | null>(null);
  const { roots, nodes, fingerprint } = graph;
  const layout = useMemo(() => (nodes.length > mostDrawn ? null : layoutOf(roots, nodes)), [fingerprint, nodes.length]);
  const listed = layout ? layout.nodes.map(({ node }) => node) : nodes.filter(({ kind }) => !kind.startsWith("end"));
  const choose = (id: string) => setChosen(id === chosen ? null : id);
  return (
    <>
      {layout && (
        <div class="graph" role="region" aria-label="Picture of the graph" tabIndex={0}>
          <svg
            viewBox={`0 0 ${layout.width} ${layout.height}`}
            width={layout.width}
            height={layout.height}
            aria-hidden="true"
          >
            <defs>
              <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
                <path d="M0 0 8 4 0 8z" class="arrow" />
              </marker>
            </defs>
            {layout.groups.map(({ x, y, width, height }, index) => (
              <rect key={index} x={x} y={y} width={width} height={height} rx="8" class="group" />
            ))}
            {layout.edges.map(({ path, label, x, y }, index) => (
              <g key={index}>
                <path d={path} class="edge" marker-end="url(#arrow)" />
                {label !== "" && (
                  <text x={x} y={y} class="edge-label">
                    {short(label, 20)}
                  </text>
                )}
              </g>
            ))}
            {layout.nodes.map(({ node, x, y }) => (
              <Box
                key={node.id}
                node={node}
                x={x}
                y={y}
                state={states?.[node.id] ?? null}
                isChosen={node.id === chosen}
                onChoose={() => choose(node.id)}
              />
            ))}
          </svg>
        </div>
      )}
      {layout === null && (
        <p class="quiet">It has {nodes.length.toLocaleString()} nodes, too many for a picture: they are listed.</p>
      )}
      {layout === null ? (
        <Windowed rows={listed} height={34} label="Nodes">
          {(node) => (
            <p class="event-row node-row">
              <span>{words[node.kind] ?? node.kind}</span> <span>{visible(node.label)}</span>{" "}
              {states && <StateOf state={states[node.id] ?? null} />}
            </p>
          )}
        </Windowed>
      ) : (
        <table class="rows nodes">
          <caption class="sr">The nodes of the graph{states && ", and what stands at each"}</caption>
          <thead>
            <tr>
              <th scope="col">Node</th>
              <th scope="col">Kind</th>
              {states && <th scope="col">State</th>}
              {states && <th scope="col">How often</th>}
              <th scope="col">Goes on at</th>
            </tr>
          </thead>
          <tbody>
            {listed.map((node) => (
              <tr key={node.id} class={node.id === chosen ? "chosen" : ""}>
                <td>
                  <button type="button" class="link" aria-pressed={node.id === chosen} onClick={() => choose(node.id)}>
                    {visible(node.label)}
                  </button>
                </td>
                <td>{words[node.kind] ?? node.kind}</td>
                {states && (
                  <td>
                    <StateOf state={states[node.id] ?? null} />
                  </td>
                )}
                {states && <td data-head="How often">{countsOf(states[node.id] ?? null)}</td>}
                <td class="quiet" data-head="Goes on at">
                  {goesOn(node, nodes)}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </>
  );
}

const words: Readonly<Record<string, string>> = {
  chunk: "chunk",
  match: "choice",
  batch: "branches",
  forEach: "each item",
  when: "hears",
  subFlow: "sub-flow",
  interventionPoint: "corrections",
  finalResult: "result",
};

function StateOf({ state }: { state: NodeShown | null }) {
  return state === null ? <span class="quiet">not yet</span> : <Status status={state.status} />;
}

const counted = ["running", "waiting", "parked", "completed", "failed", "cancelled"] as const;

function countsOf(state: NodeShown | null): string {
  if (state === null) return "–";
  if (state.items) return itemsOf(state.items);
  return counted
    .filter((name) => state[name] > 0)
    .map((name) => `${state[name].toLocaleString()} ${name}`)
    .join(", ");
}

function itemsOf({ size, completed, failed }: NonNullable<NodeShown["items"]>): string {
  const done = `${completed.toLocaleString()} / ${size.toLocaleString()}`;
  return failed > 0 ? `${done}, ${failed.toLocaleString()} failed` : done;
}

function goesOn(node: GraphNode, nodes: readonly GraphNode[]): string {
  const byId = new Map(nodes.map((other) => [other.id, other]));
  const nameOf = (id: string): string[] => {
    const other = byId.get(id);
    if (!other) return [];
    return other.kind.startsWith("end") ? [] : [visible(other.label)];
  };
  const inside = node.entries.flatMap(({ label, to }) => nameOf(to).map((name) => `${visible(label)}: ${name}`));
  const after = (node.end === null ? node.next : (byId.get(node.end)?.next ?? [])).flatMap(nameOf);
  return [...inside, ...after.map((name) => (inside.length > 0 ? `then ${name}` : name))].join(", ") || "–";
}

function short(text: string, length: number): string {
  const shown = visible(text);
  return shown.length > length ? `${shown.slice(0, length - 1)}…` : shown;
}

function Box({
  node,
  x,
  y,
  state,
  isChosen,
  onChoose,
}: {
  node: GraphNode;
  x: number;
  y: number;
  state: NodeShown | null;
  isChosen: boolean;
  onChoose: () => void;
}) {
  const tone = state === null ? "none" : toneOf(state.status);
  const times = state && !state.items && state.status !== "running" ? state[state.status as "completed"] : 0;
  const said = state?.items
    ? itemsOf(state.items)
    : state
      ? `${state.status}${times > 1 ? ` × ${times.toLocaleString()}` : ""}`
      : (words[node.kind] ?? node.kind);
  const isRound = node.kind === "when" || node.kind === "finalResult";
  return (
    <g transform={`translate(${x} ${y})`} class={`node tone-${tone} ${isChosen ? "chosen" : ""}`} onClick={onChoose}>
      <title>{`${visible(node.label)}: ${said}`}</title>
      <rect width={box.width} height={box.height} rx={isRound ? box.height / 2 : 6} />
      <text x={state === null ? 14 : 34} y="21" class="label">
        {short(node.label, state === null ? 22 : 19)}
      </text>
      <text x={state === null ? 14 : 34} y="38" class="said">
        {said}
      </text>
      {state !== null && (
        <g transform="translate(12 17)" class="shape">
          <Shape tone={tone} />
        </g>
      )}
    </g>
  );
}
