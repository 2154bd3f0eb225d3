/** A value of any size, as a tree that is opened piece by piece. */
import { useState } from "preact/hooks";
import type { Shown } from "../api.ts";
import { visible } from "../../base/visible.ts";
import { CallError, read } from "./net.ts";
import { Copy, Problem } from "./parts.tsx";

/** A value of any size: its beginning, and the rest when it is asked for. */
export function Payload({ value, label }: { value: Shown; label: string }) {
  const [whole, setWhole] = useState<{ of: Shown; json: unknown } | null>(null);
  const [error, setError] = useState<CallError | null>(null);
  const [isLoading, setLoading] = useState(false);
  if ("json" in value) return <Tree value={value.json} label={label} />;
  if (whole?.of === value) return <Tree value={whole.json} label={label} />;
  const load = async () => {
    setLoading(true);
    try {
      setWhole({ of: value, json: await read<unknown>(value.load ?? "") });
    } catch (refused) {
      if (refused instanceof CallError) setError(refused);
    }
    setLoading(false);
  };
  return (
    <div>
      {value.preview !== "" && <pre tabIndex={0}>{visible(value.preview.slice(0, 2000))}…</pre>}
      <p class="flex">
        <span class="quiet">{sizeOf(value.bytes)}</span>
        {value.load !== null && (
          <button type="button" onClick={() => void load()} disabled={isLoading}>
            {isLoading ? "Loading…" : "Load all"}
          </button>
        )}
      </p>
      <Problem error={error} />
    </div>
  );
}

export function sizeOf(bytes: number): string {
  return bytes < 1024
    ? `${bytes} bytes`
    : bytes < 1_048_576
      ? `${(bytes / 1024).toFixed(0)} kB`
      : `${(bytes / 1_048_576).toFixed(1)} MB`;
}

export function Tree({ value, label }: { value: unknown; label: string }) {
  const text = () => JSON.stringify(value, null, 2);
  return (
    <div class="tree" role="group" aria-label={label}>
      <div class="tools">
        <Copy text={text} label="Copy JSON" what={`of ${label}`} />
      </div>
      <Node value={value} name={null} depth={0} isOpen />
    </div>
  );
}

/** Entries that are shown at once; the rest when asked for. */
const pageOf = 100;
const longText = 400;

interface NodeProps {
  readonly value: unknown;
  readonly name: string | null;
  readonly depth: number;
  readonly isOpen?: boolean;
}

/** What is closed is not in the page: two hundred levels cost what one opens. */
function Node({ value, name, depth, isOpen: isOpenAtFirst = false }: NodeProps) {
  const [isOpen, setOpen] = useState(isOpenAtFirst || depth < 2);
  const [shown, setShown] = useState(pageOf);
  const key = name === null ? null : <span class="key">{visible(name)}: </span>;
  if (typeof value !== "object" || value === null)
    return (
      <div class="leaf">
        {key}
        <Leaf value={value} />
      </div>
    );
  const entries = Array.isArray(value)
    ? value.map((item, index) => [String(index), item] as const)
    : Object.entries(value);
  const what = Array.isArray(value) ? `[ ${entries.length} ]` : `{ ${entries.length} }`;
  if (entries.length === 0)
    return (
      <div class="leaf">
        {key}
        <span class="quiet">{Array.isArray(value) ? "[ ]" : "{ }"}</span>
      </div>
    );
  return (
    <div class="branch">
      <button type="button" class="fold" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <span class="mark" aria-hidden="true">
          {isOpen ? "▾" : "▸"}
        </span>
        {key ?? <span class="sr">value </span>}
        <span class="quiet">{what}</span>
      </button>
      {isOpen && (
        <div class={depth < 12 ? "inner" : "inner flat"}>
          {entries.slice(0, shown).map(([inner, item]) => (
            <Node key={inner} value={item} name={inner} depth={depth + 1} />
          ))}
          {entries.length > shown && (
            <button type="button" class="small" onClick={() => setShown(shown + pageOf * 5)}>
              {entries.length - shown} more
            </button>
          )}
        </div>
      )}
    </div>
  );
}

function Leaf({ value }: { value: unknown }) {
  const [isWhole, setWhole] = useState(false);
  if (typeof value !== "string")
    return <span class={`value-${value === null ? "null" : typeof value}`}>{String(value)}</span>;
  const isLong = value.length > longText;
  return (
    <span class="value-string">
      "{visible(isLong && !isWhole ? value.slice(0, longText) : value)}
      {isLong && !isWhole ? "…" : '"'}
      {isLong && (
        <button type="button" class="small" onClick={() => setWhole(!isWhole)}>
          {isWhole ? "less" : `all ${value.length} characters`}
        </button>
      )}
    </span>
  );
}
