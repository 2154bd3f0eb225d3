/** Where the nodes of a graph stand: each block is a box of its own, with its bodies side by side in it. */
import type { GraphNode } from "../api.ts";

export interface PlacedNode {
  readonly node: GraphNode;
  readonly x: number;
  readonly y: number;
}

export interface Edge {
  readonly path: string;
  readonly label: string;
  readonly x: number;
  readonly y: number;
}

export interface Layout {
  readonly width: number;
  readonly height: number;
  /** In reading order. */
  readonly nodes: readonly PlacedNode[];
  readonly groups: readonly {
    readonly x: number;
    readonly y: number;
    readonly width: number;
    readonly height: number;
  }[];
  readonly edges: readonly Edge[];
}

export const box = { width: 176, height: 50 };
const gap = { x: 28, y: 40 };
const pad = 16;
/** Where the bodies of a block meet again. */
const dot = 12;

interface Point {
  readonly x: number;
  readonly y: number;
}

/** A piece that has its own corner at 0, 0. */
interface Piece {
  width: number;
  height: number;
  nodes: PlacedNode[];
  groups: { x: number; y: number; width: number; height: number }[];
  edges: Edge[];
  /** Where a value comes in and goes out, by node. */
  readonly tops: Map<string, Point>;
  readonly bottoms: Map<string, Point>;
}

export function layoutOf(roots: readonly string[], nodes: readonly GraphNode[]): Layout {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const walk: Walk = { known, taken: new Set() };
  const whole = emptyPiece();
  let x = pad;
  // The parts that a start and the events begin stand side by side; where one leads into another, it names it.
  for (const root of roots) {
    const piece = bodyOf([root], null, walk);
    if (piece.nodes.length === 0) continue;
    for (const [id, from] of moved(piece, x, pad).bottoms)
      for (const next of exitsOf(known.get(id) as GraphNode, walk)) {
        const to = whole.tops.get(next);
        if (to) whole.edges.push(edge(from, to));
      }
    put(whole, moved(piece, x, pad));
    x += piece.width + gap.x * 2;
    whole.height = Math.max(whole.height, piece.height);
  }
  return { ...whole, width: Math.max(x - gap.x * 2 + pad, 0), height: whole.height + 2 * pad };
}

function emptyPiece(): Piece {
  return { width: 0, height: 0, nodes: [], groups: [], edges: [], tops: new Map(), bottoms: new Map() };
}

interface Walk {
  readonly known: ReadonlyMap<string, GraphNode>;
  /** A node stands where it was met first. */
  readonly taken: Set<string>;
}

/** What leaves a node, or the block that it opens. */
function exitsOf(node: GraphNode, { known }: Walk): readonly string[] {
  return node.end === null ? node.next : (known.get(node.end)?.next ?? []);
}

/** The nodes from here to `end`, in rows: nobody stands above what leads to it, but for loops. */
function bodyOf(from: readonly string[], end: string | null, walk: Walk): Piece {
  const found: string[] = [];
  const isBack = new Set<string>();
  const under = new Set<string>();
  const visit = (id: string) => {
    const node = walk.known.get(id);
    if (!node || id === end || walk.taken.has(id)) return;
    walk.taken.add(id);
    if (node.end !== null) walk.taken.add(node.end);
    under.add(id);
    for (const next of exitsOf(node, walk)) {
      if (under.has(next)) isBack.add(`${id} ${next}`);
      visit(next);
    }
    under.delete(id);
    found.unshift(id);
  };
  for (const id of [...from].toReversed()) visit(id);
  const row = new Map(found.map((id) => [id, 0]));
  // `found` is in topological order.
  for (const id of found)
    for (const next of exitsOf(walk.known.get(id) as GraphNode, walk))
      if (row.has(next) && !isBack.has(`${id} ${next}`))
        row.set(next, Math.max(row.get(next) ?? 0, (row.get(id) ?? 0) + 1));
  const rows: { id: string; piece: Piece }[][] = [];
  for (const id of found) (rows[row.get(id) ?? 0] ??= []).push({ id, piece: pieceOf(id, walk) });
  const width = Math.max(0, ...rows.map((each) => widthOf(each.map(({ piece }) => piece))));
  const body: Piece = { ...emptyPiece(), width };
  for (const each of rows) {
    let x = (width - widthOf(each.map(({ piece }) => piece))) / 2;
    for (const { piece } of each) {
      put(body, moved(piece, x, body.height));
      x += piece.width + gap.x;
    }
    body.height += Math.max(...each.map(({ piece }) => piece.height)) + gap.y;
  }
  body.height = Math.max(0, body.height - gap.y);
  for (const id of found)
    for (const next of exitsOf(walk.known.get(id) as GraphNode, walk)) {
      const [a, b] = [body.bottoms.get(id), body.tops.get(next)];
      if (a && b) body.edges.push(isBack.has(`${id} ${next}`) ? backEdge(a, b) : edge(a, b));
    }
  return body;
}

function widthOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { width }) => sum + width, 0) + gap.x * Math.max(0, pieces.length - 1);
}

/** A node, or a block with all that is in it. */
function pieceOf(id: string, walk: Walk): Piece {
  const node = walk.known.get(id) as GraphNode;
  const { width, height } = box;
  const single: Piece = {
    width,
    height,
    nodes: [{ node, x: 0, y: 0 }],
    groups: [],
    edges: [],
    tops: new Map([[id, { x: width / 2, y: 0 }]]),
    bottoms: new Map([[id, { x: width / 2, y: height }]]),
  };
  const { end } = node;
  if (end === null) return single;
  const columns = node.entries.map(({ label, to }) => ({ label, to, body: bodyOf([to], end, walk) }));
  const inner = Math.max(width, widthOf(columns.map(({ body }) => ({ ...body, width: Math.max(body.width, 48) }))));
  const block: Piece = {
    width: inner + 2 * pad,
    height: 0,
    nodes: [],
    groups: [],
    edges: [],
    tops: new Map([[id, { x: inner / 2 + pad, y: pad }]]),
    bottoms: new Map(),
  };
  put(block, moved({ ...single, tops: new Map(), bottoms: new Map() }, pad + (inner - width) / 2, pad));
  const top = pad + height + gap.y;
  const tallest = Math.max(0, ...columns.map(({ body }) => body.height));
  const bottom = top + tallest + gap.y - dot;
  const meet = { x: inner / 2 + pad, y: bottom };
  const port = { x: inner / 2 + pad, y: pad + height };
  let x = pad + (inner - widthOf(columns.map(({ body }) => ({ ...body, width: Math.max(body.width, 48) })))) / 2;
  for (const { label, to, body } of columns) {
    const own = moved(body, x + (Math.max(body.width, 48) - body.width) / 2, top);
    put(block, own);
    const entry = own.tops.get(to) ?? block.tops.get(to);
    block.edges.push(edge(port, entry && to !== end ? entry : meet, label));
    x += Math.max(body.width, 48) + gap.x;
  }
  for (const [inside, at] of block.bottoms)
    if (exitsOf(walk.known.get(inside) as GraphNode, walk).includes(end)) block.edges.push(edge(at, meet));
  block.bottoms.clear();
  // From outside the block has one way in and one way out.
  for (const inside of block.tops.keys()) if (inside !== id) block.tops.delete(inside);
  block.height = bottom + pad;
  block.bottoms.set(id, { x: meet.x, y: meet.y });
  block.groups.unshift({ x: 0, y: 0, width: block.width, height: block.height });
  return block;
}

function moved(piece: Piece, dx: number, dy: number): Piece {
  const by = <T extends Point>(at: T): T => ({ ...at, x: at.x + dx, y: at.y + dy });
  return {
    width: piece.width,
    height: piece.height,
    nodes: piece.nodes.map(by),
    groups: piece.groups.map(by),
    edges: piece.edges.map(({ path, label, x, y }) => ({
      path: path.replace(/(-?[\d.]+) (-?[\d.]+)/g, (_, a: string, b: string) => at(Number(a) + dx, Number(b) + dy)),
      label,
      x: x + dx,
      y: y + dy,
    })),
    tops: new Map([...piece.tops].map(([id, point]) => [id, by(point)])),
    bottoms: new Map([...piece.bottoms].map(([id, point]) => [id, by(point)])),
  };
}

function put(into: Piece, { nodes, groups, edges, tops, bottoms }: Piece): void {
  into.nodes.push(...nodes);
  into.groups.push(...groups);
  into.edges.push(...edges);
  for (const [id, point] of tops) into.tops.set(id, point);
  for (const [id, point] of bottoms) into.bottoms.set(id, point);
}

function at(x: number, y: number): string {
  return `${Math.round(x * 10) / 10} ${Math.round(y * 10) / 10}`;
}

function edge(a: Point, b: Point, label = ""): Edge {
  const bend = Math.max(12, (b.y - a.y) / 2);
  const path = `M${at(a.x, a.y)}C${at(a.x, a.y + bend)},${at(b.x, b.y - bend)},${at(b.x, b.y)}`;
  return { path, label, x: b.x, y: b.y - 10 };
}

/** Back up, beside what it goes around. */
function backEdge(a: Point, b: Point): Edge {
  const side = Math.max(a.x, b.x) + box.width / 2 + gap.x;
  const path = `M${at(a.x, a.y)}C${at(side, a.y + gap.y)},${at(side, b.y - gap.y)},${at(b.x, b.y)}`;
  return { path, label: "", x: side, y: (a.y + b.y) / 2 };
}
