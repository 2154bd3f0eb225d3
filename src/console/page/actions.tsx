/** What operators do to an execution: each says what will happen, and asks why. */
import { visible } from "../../base/visible.ts";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { Me, Overview } from "../api.ts";
import { CallError, send } from "./net.ts";
import { go, hrefOf } from "./place.ts";
import { Dialog, Problem } from "./parts.tsx";

interface Input {
  readonly name: string;
  readonly label: string;
  readonly kind: "text" | "json" | "number" | "moment" | "choice";
  readonly options?: readonly string[];
  readonly help?: string;
  readonly isRequired?: boolean;
  readonly value?: string;
}

export interface Action {
  readonly name: string;
  readonly label: string;
  /** What will happen. */
  readonly about: string;
  readonly isDangerous?: boolean;
  readonly inputs: readonly Input[];
  /** It is its own reason. */
  readonly needsNoReason?: boolean;
  /** Where it leads, when it makes an execution. */
  readonly isNew?: boolean;
}

export const ranks = { viewer: 0, responder: 1, operator: 2, admin: 3 } as const;

/** What this person can do with an execution as it is now. */
export function actionsOf(
  me: Me,
  { lifecycle, status, isPaused, parked, seq, parentId, waits, takesInterventions }: Overview,
): Action[] {
  if (ranks[me.role] < ranks.operator) return [];
  const isClosed = lifecycle === "closed";
  const chunks = [...new Set(parked.map(({ chunk }) => chunk))];
  const where: Input[] =
    chunks.length > 1
      ? [
          {
            name: "chunk",
            label: "Which chunk",
            kind: "choice",
            options: ["", ...chunks],
            help: "Without one: all that is parked.",
          },
        ]
      : [];
  const canSkip = parked.length > 0 || waits.includes("retry") || waits.includes("answer");
  const actions: (Action | false)[] = [
    !isClosed &&
      parked.length > 0 && {
        name: "retry",
        label: "Retry",
        about:
          "What is parked runs again under the same id, its attempts counted from 1. What its steps have recorded is not run again.",
        inputs: [
          ...where,
          { name: "input", label: "Another input (JSON)", kind: "json", help: "Empty: the input it had." },
        ],
      },
    !isClosed &&
      canSkip && {
        name: "skip",
        label: "Skip",
        about: "The chunk counts as having returned the output below, and the flow continues after it.",
        inputs: [
          ...(where.length > 0
            ? where
            : [
                {
                  name: "chunk",
                  label: "Chunk",
                  kind: "text",
                  help: "Empty: the only one that can be skipped.",
                } as const,
              ]),
          { name: "output", label: "Output (JSON)", kind: "json", help: "Empty: null." },
        ],
      },
    !isClosed &&
      !isPaused && {
        name: "pause",
        label: "Pause",
        about:
          "No chunk starts any more. What runs reaches its end; events and answers are kept; timeouts go on counting.",
        inputs: [{ name: "until", label: "Until", kind: "moment", help: "Empty: until somebody continues it." }],
      },
    !isClosed &&
      isPaused && { name: "unpause", label: "Go on", about: "It continues where it was paused.", inputs: [] },
    !isClosed &&
      takesInterventions && {
        name: "intervene",
        label: "Intervene",
        about:
          "A correction is recorded, which the flow's next intervention point, or its next chunk, takes up. Nothing pauses.",
        inputs: [
          { name: "payload", label: "Correction (JSON)", kind: "json", isRequired: true },
          {
            name: "target",
            label: "Meant for",
            kind: "text",
            help: "A chunk or an intervention point. Empty: the next one.",
          },
        ],
      },
    !isClosed &&
      ranks[me.role] >= ranks.admin && {
        name: "edit-state",
        label: "Edit state",
        about:
          "The application state is changed. Nothing hears of it; chunks read it from their next read on. It is refused when the execution has gone on meanwhile.",
        isDangerous: true,
        inputs: [
          { name: "set", label: "Set (JSON object, by path)", kind: "json", help: 'Like {"order.total": 42}.' },
          { name: "delete", label: "Delete (JSON list of paths)", kind: "json", help: 'Like ["draft"].' },
          {
            name: "expectedSeq",
            label: "As of event",
            kind: "number",
            value: String(seq),
            help: "Empty: whatever came.",
          },
        ],
      },
    !(isClosed && status === "completed") &&
      isClosed &&
      parentId === null && {
        name: "redrive",
        label: "Redrive",
        about:
          "A new execution continues where this one failed or was cancelled; this one stays as it is. Recorded work is not run again.",
        isNew: true,
        inputs: [
          { name: "chunk", label: "From the chunk", kind: "text", help: "Empty: from the failure." },
          { name: "input", label: "Another input (JSON)", kind: "json", help: "Empty: the input it had." },
        ],
      },
    forkOf(seq, isClosed ? Math.max(1, seq - 1) : seq),
    !isClosed && {
      name: "cancel",
      label: "Cancel",
      about:
        "It ends as cancelled: what runs is stopped, and what waits is dropped. That cannot be taken back; a redrive makes a new one.",
      isDangerous: true,
      inputs: [],
    },
  ];
  return actions.filter((action) => action !== false);
}

/** A copy of its past. @param at the event after which it goes on, as the dialog proposes it */
export function forkOf(seq: number, at: number): Action {
  return {
    name: "fork",
    label: "Fork",
    about: "A new execution with the past of this one up to an event; it continues at once. This one does not change.",
    isNew: true,
    inputs: [
      { name: "at", label: "After event", kind: "number", isRequired: true, value: String(at), help: `1 to ${seq}` },
    ],
  };
}

export function ActionDialog({
  action,
  path,
  extra = {},
  children,
  onClose,
  onDone,
}: {
  action: Action;
  /** Where it is sent. */
  path: string;
  /** What is sent beside what is typed. */
  extra?: Readonly<Record<string, Json>>;
  children?: ComponentChildren;
  onClose: () => void;
  onDone: (said: string) => void;
}) {
  const [values, setValues] = useState<Readonly<Record<string, string>>>(() =>
    Object.fromEntries(action.inputs.map(({ name, value = "" }) => [name, value])),
  );
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [error, setError] = useState<CallError | null>(null);
  const [isBusy, setBusy] = useState(false);
  const act = async () => {
    setProblem(null);
    setError(null);
    const body = bodyOf(action, values, reason);
    if (typeof body === "string") return setProblem(body);
    setBusy(true);
    try {
      const { id: made } = await send<{ id?: string }>(path, { ...extra, ...body });
      onDone(`${action.label}: done.`);
      onClose();
      if (action.isNew && made !== undefined) go(hrefOf({ execution: made }));
    } catch (refused) {
      if (!(refused instanceof CallError)) throw refused;
      setError(refused);
    }
    setBusy(false);
  };
  return (
    <Dialog title={action.label} onClose={onClose}>
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void act();
        }}
      >
        <p>{action.about}</p>
        {children}
        {action.inputs.map((input) => (
          <ActionInput
            key={input.name}
            input={input}
            value={values[input.name] ?? ""}
            onChange={(value) => setValues({ ...values, [input.name]: value })}
          />
        ))}
        {!action.needsNoReason && (
          <div class="field">
            <label for="reason">Reason</label>
            <textarea
              id="reason"
              rows={2}
              maxLength={2000}
              required
              aria-describedby="reason-help"
              value={reason}
              onInput={(event) => setReason(event.currentTarget.value)}
            />
            <p id="reason-help" class="quiet">
              Kept with your name.
            </p>
          </div>
        )}
        {problem !== null && (
          <p class="issue" role="alert">
            {problem}
          </p>
        )}
        <Problem error={error} />
        <div class="flex end">
          <button type="button" onClick={onClose}>
            Back
          </button>
          <button class={action.isDangerous ? "danger" : "primary"} disabled={isBusy}>
            {isBusy ? "Doing it…" : action.label}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function ActionInput({ input, value, onChange }: { input: Input; value: string; onChange: (value: string) => void }) {
  const id = `action-${input.name}`;
  const about = { id, "aria-describedby": input.help === undefined ? undefined : `${id}-help` };
  const take = (event: { currentTarget: { value: string } }) => onChange(event.currentTarget.value);
  return (
    <div class="field">
      <label for={id}>{input.label}</label>
      {input.kind === "json" ? (
        <textarea {...about} class="mono" rows={3} spellcheck={false} value={value} onInput={take} />
      ) : input.kind === "choice" ? (
        <select {...about} value={value} onChange={take}>
          {input.options?.map((option) => (
            <option key={option} value={option}>
              {option === "" ? "All" : visible(option)}
            </option>
          ))}
        </select>
      ) : input.kind === "number" ? (
        <input {...about} type="number" value={value} onInput={take} />
      ) : input.kind === "moment" ? (
        <input {...about} type="datetime-local" value={value} onInput={take} />
      ) : (
        <input {...about} type="text" value={value} onInput={take} />
      )}
      {input.help !== undefined && (
        <p id={`${id}-help`} class="quiet">
          {input.help}
        </p>
      )}
    </div>
  );
}

/** What is sent, or what is wrong. */
function bodyOf(
  action: Action,
  values: Readonly<Record<string, string>>,
  reason: string,
): Record<string, Json> | string {
  const body: Record<string, Json> = {};
  for (const { name, label, kind, isRequired = false } of action.inputs) {
    const text = (values[name] ?? "").trim();
    if (text === "") {
      if (isRequired) return `${label} is empty.`;
      continue;
    }
    if (kind === "json") {
      try {
        body[name] = JSON.parse(text) as Json;
      } catch {
        return `${label} is not valid JSON.`;
      }
    } else if (kind === "number") body[name] = Number(text);
    else if (kind === "moment") body[name] = new Date(text).toISOString();
    else body[name] = text;
  }
  if (action.needsNoReason) return body;
  if (reason.trim() === "") return "Say why: the reason is empty.";
  // The API takes the beginning of a redrive as an object.
  if (action.name === "redrive" && body["chunk"] !== undefined) {
    body["from"] = { chunk: body["chunk"] };
    delete body["chunk"];
  }
  return { ...body, reason };
}
