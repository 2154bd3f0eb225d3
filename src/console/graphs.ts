/** The graph of a flow, and where an execution stands in it: each look reads one page of its ledger, and goes on from the look before. */
import { UsageError } from "../base/errors.ts";
import { requireInteger, requireText } from "../base/option.ts";
import { Refused } from "./http.ts";
import { Blueprint, caseLabel, entriesOf } from "../flow/blueprint.ts";
import type { Node } from "../flow/graph.ts";
import { drawOn, newPicture, statesOf } from "../ledger/picture.ts";
import type { GraphNode, GraphShown, PictureShown } from "./api.ts";
import { shared, type Asked, type AskedOfOne } from "./desk.ts";
import { optionsOf } from "./filters.ts";

/** Of the version that an execution runs, or ran, under; of one that nobody has taken yet, the one that came last. */
export async function ofOne(asked: AskedOfOne): Promise<PictureShown> {
  const { desk, id, query } = asked;
  // `after` is the event that the page has: the same answer is not given again.
  const given = optionsOf<{ seq?: number; after?: number }>(query, { seq: "count", after: "count" });
  const at = given.seq === undefined ? null : requireInteger(given.seq, "seq", { min: 1 });
  if (given.after !== undefined) requireInteger(given.after, "after", { min: 0 });
  return shared(asked, `graph ${id} ${query.toString()}`, async () => {
    const store = await desk.store();
    const header = (await store.reads.headers([id])).get(id);
    const of = header?.seq ?? 0;
    if (at !== null && at > of)
      throw new UsageError(`seq ${at} is beyond the ledger, which has ${of} events`, "use one that it has");
    const until = at ?? of;
    let now = 0;
    const [picture, definition] = await Promise.all([
      desk.pictures.goOn(`${id} ${at}`, newPicture, async (drawn) => {
        const page = await store.pictures.routed(id, drawn.seq, until);
        for (const event of page.events) drawOn(drawn, event);
        drawn.seq = page.seq ?? drawn.seq;
        now = page.now;
      }),
      store.pictures.definition(header?.flow ?? "", header?.fingerprint ?? null),
    ]);
    const graph = definition && shownOf(asked, definition.fingerprint, definition.blueprint);
    const states = Object.fromEntries(statesOf(picture, now));
    return { graph, states, seq: Math.min(picture.seq, until), of: until };
  });
}

/** @throws {Refused} no worker has told what it looks like, or they see no execution of it */
export async function ofFlow(asked: Asked): Promise<PictureShown> {
  const { desk, person, query } = asked;
  const given = optionsOf<{ flow?: string; version?: string }>(query, { flow: "text", version: "text" });
  const flow = requireText(given.flow, "flow", { max: 100 });
  const version = given.version === undefined ? null : requireText(given.version, "version", { max: 200 });
  return shared(asked, `graph of ${query.toString()}`, async () => {
    const store = await desk.store();
    const [definition, theirs] = await Promise.all([
      store.pictures.definition(flow, version),
      // A person sees the flows of the executions that they see.
      person.within === null ? 1 : store.reads.countExecutions({ flow: [flow], within: person.within }, 1),
    ]);
    if (!definition || theirs === 0) throw new Refused(404, "NOT_FOUND", "there is no graph of that flow here");
    return { graph: shownOf(asked, definition.fingerprint, definition.blueprint), states: {}, seq: 0, of: 0 };
  });
}

/** What an older or a newer release wrote may be something else. */
function shownOf({ desk }: Asked, fingerprint: string, json: unknown): GraphShown | null {
  const read = Blueprint.safeParse(json);
  if (!read.success) return null;
  const { name: flow, roots, nodes } = read.data;
  const starts = nodes.filter(({ kind }) => kind === "when").map(({ id }) => id);
  return {
    flow,
    fingerprint,
    roots: [...roots, ...starts],
    nodes: nodes.map((node) => nodeOf(node, (text) => desk.showing.text(text, { flow, part: "sentence" }))),
  };
}

function nodeOf(node: Node, show: (text: string) => string): GraphNode {
  return {
    id: node.id,
    kind: node.kind,
    label: show(labelOf(node)),
    next: node.next,
    entries: entriesOf(node).map(({ label, to }) => ({ label: show(label), to })),
    end: "end" in node ? node.end : null,
  };
}

function labelOf(node: Node): string {
  switch (node.kind) {
    case "chunk":
      return node.chunk;
    case "match":
      return node.cases.length === 1 && node.cases[0]
        ? `${caseLabel(node.cases[0])}?`
        : node.mode === "all"
          ? "every case that fits"
          : "first case that fits";
    case "batch":
    case "forEach":
      return node.concurrency === null ? node.kind : `${node.kind}, ${node.concurrency} at once`;
    case "when":
      return "state" in node.trigger ? `state ${node.trigger.state}` : node.trigger.events.join(` ${node.mode} `);
    case "subFlow":
      return node.flow;
    case "interventionPoint":
      return node.name;
    case "finalResult":
      return "result";
    default:
      return "";
  }
}
