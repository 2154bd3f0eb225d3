/** What operators do to many executions at once: how many there are is said before, and Operations shows how far it is. */
import { useEffect, useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { BulkShown } from "../api.ts";
import { ActionDialog, type Action } from "./actions.tsx";
import { CallError, send } from "./net.ts";
import { go, hrefOf } from "./place.ts";
import { Problem } from "./parts.tsx";

export const redriving: Action = {
  name: "redrive",
  label: "Redrive",
  about:
    "Each continues as a new execution from where it failed, with its past; executions already redriven are left out.",
  inputs: [],
};

/** What can be done to whatever is found. */
export const bulkActions: readonly Action[] = [
  {
    name: "retry",
    label: "Retry",
    about: "What is parked runs again under the same id, its attempts counted from 1.",
    inputs: [],
  },
  redriving,
  {
    name: "pause",
    label: "Pause",
    about: "No chunk of those that are open starts any more, until somebody lets them go on.",
    isDangerous: true,
    inputs: [],
  },
  { name: "unpause", label: "Go on", about: "Those that were paused continue.", inputs: [] },
  {
    name: "cancel",
    label: "Cancel",
    about: "Those that are open end as cancelled. That cannot be taken back; a redrive makes a new one of each.",
    isDangerous: true,
    inputs: [],
  },
];

/** The filters of a list as those of a bulk. */
export function whereOf(filters: URLSearchParams): Record<string, Json> {
  const where: Record<string, Json> = {};
  for (const name of new Set(filters.keys())) {
    const text = filters.get(name) ?? "";
    if (name === "flow" || name === "status") where[name] = filters.getAll(name);
    else where[name] = name === "metadata" || name === "redriven" ? (JSON.parse(text) as Json) : text;
  }
  return where;
}

/** @param actions of more than one, the person chooses */
export function Bulk({
  actions,
  where,
  onClose,
}: {
  actions: readonly Action[];
  where: Readonly<Record<string, Json>>;
  onClose: () => void;
}) {
  const [name, setName] = useState(actions[0]?.name);
  const action = actions.find((one) => one.name === name) ?? redriving;
  const [preview, setPreview] = useState<BulkShown | null>(null);
  const [error, setError] = useState<CallError | null>(null);
  useEffect(() => {
    let isOver = false;
    setPreview(null);
    setError(null);
    send<BulkShown>("bulk", { action: name, where, dryRun: true, reason: "to see how many" }).then(
      (found) => {
        if (!isOver) setPreview(found);
      },
      (refused: unknown) => {
        if (!(refused instanceof CallError)) throw refused;
        if (!isOver) setError(refused);
      },
    );
    return () => {
      isOver = true;
    };
  }, [name]);
  return (
    <ActionDialog
      action={action}
      path="bulk"
      extra={{ action: action.name, where }}
      onClose={onClose}
      onDone={() => go(hrefOf({ screen: "operations" }))}
    >
      {actions.length > 1 && (
        <div class="field">
          <label for="bulk-action">What</label>
          <select id="bulk-action" value={name} onChange={(event) => setName(event.currentTarget.value)}>
            {actions.map((one) => (
              <option key={one.name} value={one.name}>
                {one.label}
              </option>
            ))}
          </select>
        </div>
      )}
      <Problem error={error} />
      {error === null && <p role="status">{preview === null ? "Counting…" : said(preview)}</p>}
      {preview !== null && preview.samples.length > 0 && (
        <details>
          <summary>{preview.samples.length === 1 ? "Which" : `The first ${preview.samples.length}`}</summary>
          <ul class="plain">
            {preview.samples.map((id) => (
              <li key={id} class="id">
                {id}
              </li>
            ))}
          </ul>
        </details>
      )}
    </ActionDialog>
  );
}

function said({ matched, isMore }: BulkShown): string {
  const count = matched.toLocaleString();
  return isMore ? `More than ${count} match: too many for one go.` : `${count} ${matched === 1 ? "matches" : "match"}.`;
}
