/** What the files of `src` import and name, read from their text: no parser, so that the rules stand here whole. */
import { dirname, join } from "node:path/posix";

/** Text by path, e.g. "src/flow/graph.ts". */
export type Sources = ReadonlyMap<string, string>;

/** The order of the rooms: each imports from itself and from those before it. */
export const rooms = ["base", "flow", "ledger", "store", "telemetry", "engine", "worker", "execution", "test"];
/** Folders of entry points: what belongs to one file at the root of `src`, and imports from everywhere. */
export const entryFolders = ["ai", "cli", "console", "defer", "embedded", "mcp", "orchestrator"];

const imports = /\b(?:from|import|require|import\.meta\.resolve)\s*\(?\s*(["'`])([^"'`\n]+)\1/g;
/** A thread is started by its URL; data files have one as well. */
const urls = /\bnew\s+URL\s*\(\s*(["'`])(\.[^"'`\n]+)\1/g;

interface Reference {
  readonly path: string;
  readonly isUrl: boolean;
}

function referencesOf(text: string): Reference[] {
  const code = withoutComments(text);
  const found = (pattern: RegExp, isUrl: boolean) =>
    [...code.matchAll(pattern)].map(([, , path = ""]) => ({ path, isUrl }));
  return [...found(imports, false), ...found(urls, true)];
}

/** Packages that a file imports, types included. */
export function packagesOf(text: string): string[] {
  return referencesOf(text).flatMap(({ path, isUrl }) => (isUrl || path.startsWith(".") ? [] : [path]));
}

/** Files of ours that a file imports. */
function targetsOf(file: string, text: string): (Reference & { readonly target: string })[] {
  return referencesOf(text)
    .filter(({ path }) => path.startsWith("."))
    .map((reference) => ({ ...reference, target: join(dirname(file), reference.path).replace(/\.js$/, ".ts") }));
}

/** Imports that point right, that leave `src`, or that lead from a room to a file at the root. */
export function wrongImports(sources: Sources): string[] {
  return [...sources].flatMap(([file, text]) =>
    targetsOf(file, text)
      .filter(({ target, isUrl }) => {
        if (!target.startsWith("src/")) return !isUrl;
        const from = roomOf(file);
        if (from === null) return false;
        const to = roomOf(target);
        return to === null || rooms.indexOf(to) > rooms.indexOf(from);
      })
      .map(({ target }) => `${file} imports ${target}`),
  );
}

/** The room of a file; null at the root of `src`, and in a folder that belongs there. */
function roomOf(file: string): string | null {
  const [, room = "", ...rest] = file.split("/");
  return rest.length > 0 && !entryFolders.includes(room) ? room : null;
}

/** Files that import each other in a circle, types included: each circle once. */
export function circles(sources: Sources): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const walk = (file: string, path: readonly string[]): void => {
    const begin = path.indexOf(file);
    if (begin >= 0) found.push([...path.slice(begin), file].join(" → "));
    if (begin >= 0 || done.has(file)) return;
    for (const { target } of targetsOf(file, sources.get(file) ?? ""))
      if (target !== file && sources.has(target)) walk(target, [...path, file]);
    done.add(file);
  };
  for (const file of sources.keys()) walk(file, []);
  return found;
}

const clock =
  /\bDate\s*\.\s*now\b|\bnew\s+Date\b(?!\s*\(\s*[^\s)])|(?<![\w.]|new\s)Date\s*\(|\bperformance\b(?!\s*:)|\b(?:set|clear)(?:Timeout|Interval)\b|\bAbortSignal\s*\.\s*timeout\b|\bhrtime\b|\buptime\b|\bnode:(?:timers|perf_hooks)\b|\bTemporal\b|\bNodeJS\.Time/;

/** Lines that read a clock or set a timer. */
export function clocks(sources: Sources): string[] {
  return [...sources].flatMap(([file, text]) =>
    withoutComments(text)
      .split("\n")
      .flatMap((line, index) => (clock.test(line) ? [`${file}:${index + 1} ${line.trim()}`] : [])),
  );
}

const sqlText =
  /\bsql\s*(?:<[^`]*>)?\s*`|\.unsafe\s*\(|["'`]\s*(?:select\s|insert\s+into\s|update\s+[\w."]+\s+set\s|delete\s+from\s|truncate\s|with\s+[\w, ]+\s+as\s*\(|(?:create|alter|drop)\s+(?:or\s+replace\s+)?(?:table|schema|database|role|index|view|function|trigger|policy|extension|type)\b|(?:grant|revoke)\s+[\w, ]+\s+on\s|(?:un)?listen\s+[\w"$]+["'`;]|notify\s+[\w"$]+["'`;,]|set\s+(?:local|session|search_path|role)\b|begin["'`]|commit["'`]|rollback["'`])/gi;

/** Where SQL stands: statements in texts and templates, by file and line. */
export function statements(sources: Sources): string[] {
  return [...sources].flatMap(([file, text]) => {
    const code = withoutComments(text);
    return [...code.matchAll(sqlText)].map(({ 0: found, index }) => {
      const line = code.slice(0, index).split("\n").length;
      return `${file}:${line} ${found.trim()}`;
    });
  });
}

/** Lines stay where they are. A `//` counts only where nothing but space stands before it: else it may be part of a URL. */
function withoutComments(text: string): string {
  return text
    .replaceAll(/\/\*[\s\S]*?\*\//g, (comment) => comment.replaceAll(/[^\n]/g, " "))
    .replaceAll(/^\s*\/\/.*$/gm, "");
}
