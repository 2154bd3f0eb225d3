/** A form from a JSON Schema, with each refusal at its field. */
import { visible } from "../../base/visible.ts";
import { useRef, useState, useEffect } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { Refusal } from "../api.ts";
import { emptyOf, fieldOf, wordsOf, type Field } from "../fields.ts";
import { type Issues, keyOf, objectOf, FieldView } from "./field.tsx";

export function SchemaForm({
  schema,
  label,
  isBusy,
  refusal,
  onSend,
}: {
  schema: Json;
  label: string;
  isBusy: boolean;
  refusal: Refusal | null;
  onSend: (value: Json) => void;
}) {
  const [field] = useState(() => fieldOf(schema));
  const [value, setValue] = useState<Json | undefined>(() => emptyOf(field));
  const [problem, setProblem] = useState<string | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const issues: Issues = new Map((refusal?.issues ?? []).map(({ path, message }) => [keyOf(path), message]));
  useEffect(() => {
    // The focus goes to the first refused field.
    form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
  }, [refusal]);
  const send = (given: Json | undefined) => {
    const unread = form.current?.querySelector<HTMLTextAreaElement>("textarea[data-json=wrong]");
    if (unread) {
      setProblem("One field is not valid JSON yet.");
      unread.focus();
      return;
    }
    setProblem(null);
    onSend(given ?? null);
  };
  const sole = soleBoolean(field);
  const unplaced = (refusal?.issues ?? [])
    .filter(({ path }) => (path.length === 0 || path[0] === sole?.name) && ["object", "boolean"].includes(field.kind))
    .map(({ message }) => message);
  return (
    <form
      ref={form}
      class="answer"
      aria-label={label}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!sole) send(value);
      }}
    >
      {sole ? (
        <>
          {sole.others.length > 0 && (
            <FieldView
              field={{ kind: "object", fields: sole.others, title: null, description: null }}
              value={value}
              onChange={setValue}
              issues={issues}
              path={[]}
              label=""
              isRequired
            />
          )}
          {sole.description !== null && <p class="quiet">{visible(sole.description)}</p>}
          <div class="flex" role="group" aria-label={sole.title}>
            <button type="button" class="primary" disabled={isBusy} onClick={() => send(sole.valueOf(true, value))}>
              {visible(sole.yes)}
            </button>
            <button type="button" class="danger" disabled={isBusy} onClick={() => send(sole.valueOf(false, value))}>
              {visible(sole.no)}
            </button>
          </div>
        </>
      ) : (
        <>
          <FieldView
            field={field}
            value={value}
            onChange={setValue}
            issues={issues}
            path={[]}
            label="Answer"
            isRequired
          />
          <button class="primary" disabled={isBusy}>
            {isBusy ? "Sending…" : "Answer"}
          </button>
        </>
      )}
      {unplaced.map((message) => (
        <p key={message} class="issue" role="alert">
          {visible(message)}
        </p>
      ))}
      {problem !== null && (
        <p class="issue" role="alert">
          {problem}
        </p>
      )}
    </form>
  );
}

/** A question of yes or no, alone or with a few words beside it: its buttons are those of the form. */
function soleBoolean(field: Field) {
  if (field.kind === "boolean") {
    const { yes, no, title, description } = field;
    return {
      yes,
      no,
      title: title ?? "Answer",
      description,
      name: null,
      others: [],
      valueOf: (given: boolean): Json => given,
    };
  }
  if (field.kind !== "object") return null;
  const booleans = field.fields.filter(({ field: inner, isRequired }) => inner.kind === "boolean" && isRequired);
  const [first] = booleans;
  const others = field.fields.filter((member) => member !== first);
  if (booleans.length !== 1 || !first || first.field.kind !== "boolean") return null;
  if (others.some(({ field: inner }) => !["text", "choice", "number"].includes(inner.kind)) || others.length > 3)
    return null;
  const title = first.field.title ?? wordsOf(first.name);
  const { yes, no, description } = first.field;
  const isNamed = yes !== "Yes" || no !== "No";
  return {
    yes: isNamed ? yes : `${title}: yes`,
    no: isNamed ? no : `${title}: no`,
    title,
    description,
    name: first.name,
    others,
    valueOf: (given: boolean, value: Json | undefined): Json => ({ ...objectOf(value), [first.name]: given }),
  };
}
