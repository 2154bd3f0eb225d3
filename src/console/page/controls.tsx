/** What one value is entered with: choices, a text, a number, JSON. */
import { visible } from "../../base/visible.ts";
import { useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { Field } from "../fields.ts";

export function same(a: Json, b: Json): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

export function Choices({
  name,
  options,
  value,
  onChange,
  isOptional,
}: {
  name: string;
  options: readonly { readonly value: Json; readonly label: string }[];
  value: Json | undefined;
  onChange: (value: Json | undefined) => void;
  isOptional: boolean;
}) {
  return (
    <div class="choices">
      {options.map((option) => (
        <label key={option.label} class="option">
          <input
            type="radio"
            name={name}
            checked={value !== undefined && same(value, option.value)}
            onChange={() => onChange(option.value)}
          />
          {visible(option.label)}
        </label>
      ))}
      {isOptional && value !== undefined && (
        <button type="button" class="small" onClick={() => onChange(undefined)}>
          Clear
        </button>
      )}
    </div>
  );
}

interface About {
  readonly id: string;
  readonly "aria-invalid": boolean;
  readonly "aria-describedby": string | undefined;
}

export function Text({
  field,
  about,
  value,
  onChange,
}: {
  field: Extract<Field, { kind: "text" }>;
  about: About;
  value: Json | undefined;
  onChange: (value: Json | undefined) => void;
}) {
  // The typed text, which is no time until it is complete.
  const [local, setLocal] = useState<string | null>(null);
  const text = local ?? (typeof value === "string" ? value : "");
  const take = (typed: string) => {
    if (field.input === "datetime-local") {
      setLocal(typed);
      const at = new Date(typed);
      onChange(typed === "" ? undefined : Number.isNaN(at.getTime()) ? typed : at.toISOString());
    } else onChange(typed === "" ? undefined : typed);
  };
  const length = { minLength: field.min ?? undefined, maxLength: field.max ?? undefined };
  if (field.input === "area")
    return (
      <textarea {...about} {...length} rows={3} value={text} onInput={(event) => take(event.currentTarget.value)} />
    );
  const all = {
    ...about,
    ...length,
    value: text,
    onInput: (event: { currentTarget: { value: string } }) => take(event.currentTarget.value),
  };
  switch (field.input) {
    case "email":
      return <input {...all} type="email" />;
    case "url":
      return <input {...all} type="url" />;
    case "date":
      return <input {...all} type="date" />;
    case "time":
      return <input {...all} type="time" step={1} />;
    case "datetime-local":
      return <input {...all} type="datetime-local" step={1} />;
    case "text":
      return <input {...all} type="text" />;
  }
}

export function JsonBox({
  schema,
  about,
  value,
  onChange,
}: {
  schema: Json;
  about: About;
  value: Json | undefined;
  onChange: (value: Json | undefined) => void;
}) {
  const [text, setText] = useState(() => (value === undefined ? "" : JSON.stringify(value, null, 2)));
  const isWrong = text.trim() !== "" && parsed(text) === undefined;
  return (
    <>
      <textarea
        {...about}
        aria-invalid={about["aria-invalid"] || isWrong}
        data-json={isWrong ? "wrong" : "right"}
        class="mono"
        rows={4}
        spellcheck={false}
        placeholder="JSON"
        value={text}
        onInput={(event) => {
          const typed = event.currentTarget.value;
          setText(typed);
          onChange(typed.trim() === "" ? undefined : parsed(typed));
        }}
      />
      {isWrong && <p class="issue">This is no JSON yet.</p>}
      {schema !== null && (
        <details>
          <summary>What an answer must be</summary>
          <pre tabIndex={0}>{visible(JSON.stringify(schema, null, 2))}</pre>
        </details>
      )}
    </>
  );
}

function parsed(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}
