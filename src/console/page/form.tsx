/** A form from a JSON Schema, with each refusal at its field. */
import { visible } from "../../base/visible.ts";
import type { ComponentChildren } from "preact";
import { useId, useRef, useState, useEffect } from "preact/hooks";
import type { Json, JsonObject } from "../../base/json.ts";
import type { Refusal } from "../api.ts";
import { emptyOf, fieldOf, wordsOf, type Field } from "../fields.ts";

type Path = readonly (string | number)[];
type Issues = ReadonlyMap<string, string>;

interface FieldProps {
  readonly field: Field;
  readonly value: Json | undefined;
  readonly onChange: (value: Json | undefined) => void;
  readonly issues: Issues;
  readonly path: Path;
  readonly label: string;
  readonly isRequired: boolean;
}

const keyOf = (path: Path) => path.join("\u0001");

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
    // To the first field that was refused, so that nobody has to look for it.
    form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
  }, [refusal]);
  const send = (given: Json | undefined) => {
    const unread = form.current?.querySelector<HTMLTextAreaElement>("textarea[data-json=wrong]");
    if (unread) {
      setProblem("One field is no JSON yet.");
      unread.focus();
      return;
    }
    setProblem(null);
    onSend(given ?? null);
  };
  const sole = soleBoolean(field);
  const unplaced = (refusal?.issues ?? [])
    .filter(({ path }) => path.length === 0 && field.kind !== "json")
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
          <div class="flex" role="group" aria-label={sole.title}>
            <button type="button" class="primary" disabled={isBusy} onClick={() => send(sole.valueOf(true, value))}>
              {visible(sole.yes)}
            </button>
            <button type="button" class="danger" disabled={isBusy} onClick={() => send(sole.valueOf(false, value))}>
              {visible(sole.no)}
            </button>
          </div>
          {[...issues.values()].slice(0, sole.others.length > 0 ? 0 : 3).map((message) => (
            <p key={message} class="issue" role="alert">
              {visible(message)}
            </p>
          ))}
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
    const { yes, no, title } = field;
    return { yes, no, title: title ?? "Answer", others: [], valueOf: (given: boolean): Json => given };
  }
  if (field.kind !== "object") return null;
  const booleans = field.fields.filter(({ field: inner, isRequired }) => inner.kind === "boolean" && isRequired);
  const [first] = booleans;
  const others = field.fields.filter((member) => member !== first);
  if (booleans.length !== 1 || !first || first.field.kind !== "boolean") return null;
  if (others.some(({ field: inner }) => !["text", "choice", "number"].includes(inner.kind)) || others.length > 3)
    return null;
  const title = first.field.title ?? wordsOf(first.name);
  const { yes, no } = first.field;
  const isNamed = yes !== "Yes" || no !== "No";
  return {
    yes: isNamed ? yes : `${title}: yes`,
    no: isNamed ? no : `${title}: no`,
    title,
    others,
    valueOf: (given: boolean, value: Json | undefined): Json => ({ ...objectOf(value), [first.name]: given }),
  };
}

function objectOf(value: Json | undefined): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
}

function FieldView(props: FieldProps) {
  const { field, value, onChange, issues, path, label, isRequired } = props;
  const id = useId();
  const issue = issueOf(field, path, issues);
  const title = field.title ?? label;
  const about = {
    id,
    "aria-invalid": issue !== null,
    "aria-describedby":
      [field.description !== null && `${id}-about`, issue !== null && `${id}-issue`].filter(Boolean).join(" ") ||
      undefined,
  };
  const around = (control: ComponentChildren, { isGroup = false } = {}) => (
    <div class="field">
      {!isGroup && (
        <label for={id}>
          {visible(title)}
          {!isRequired && <span class="quiet"> (optional)</span>}
        </label>
      )}
      {field.description !== null && (
        <p id={`${id}-about`} class="quiet">
          {visible(field.description)}
        </p>
      )}
      {control}
      {issue !== null && (
        <p id={`${id}-issue`} class="issue">
          {visible(issue)}
        </p>
      )}
    </div>
  );
  const grouped = (control: ComponentChildren) =>
    around(
      <fieldset
        tabIndex={issue === null ? undefined : -1}
        aria-invalid={issue !== null}
        aria-describedby={about["aria-describedby"]}
      >
        {title !== "" && (
          <legend>
            {visible(title)}
            {!isRequired && <span class="quiet"> (optional)</span>}
          </legend>
        )}
        {control}
      </fieldset>,
      { isGroup: true },
    );
  switch (field.kind) {
    case "constant":
      return null;
    case "boolean":
      return grouped(
        <Choices
          name={id}
          options={[
            { value: true, label: field.yes },
            { value: false, label: field.no },
          ]}
          value={value}
          onChange={onChange}
          isOptional={!isRequired}
        />,
      );
    case "choice":
      if (field.options.length <= 5)
        return grouped(
          <Choices name={id} options={field.options} value={value} onChange={onChange} isOptional={!isRequired} />,
        );
      return around(
        <select
          {...about}
          value={value === undefined ? "" : String(field.options.findIndex((option) => same(option.value, value)))}
          onChange={(event) => {
            const at = event.currentTarget.value;
            onChange(at === "" ? undefined : field.options[Number(at)]?.value);
          }}
        >
          <option value="">{isRequired ? "Choose…" : "None"}</option>
          {field.options.map((option, index) => (
            <option key={option.label} value={String(index)}>
              {visible(option.label)}
            </option>
          ))}
        </select>,
      );
    case "text":
      return around(<Text field={field} about={about} value={value} onChange={onChange} />);
    case "number":
      return around(
        <>
          <input
            {...about}
            type="number"
            step={field.isWhole ? 1 : "any"}
            min={field.min ?? undefined}
            max={field.max ?? undefined}
            value={typeof value === "number" ? value : typeof value === "string" ? value : ""}
            onInput={(event) => {
              const { value: text, valueAsNumber: number } = event.currentTarget;
              onChange(text === "" ? undefined : Number.isFinite(number) ? number : text);
            }}
          />
          {(field.min !== null || field.max !== null) && (
            <span class="quiet">
              {field.min !== null && field.max !== null
                ? `${field.min} to ${field.max}`
                : field.min !== null
                  ? `at least ${field.min}`
                  : `at most ${field.max}`}
            </span>
          )}
        </>,
      );
    case "several": {
      const chosen = Array.isArray(value) ? value : [];
      return grouped(
        field.options.map((option) => {
          const isChosen = chosen.some((one) => same(one, option.value));
          return (
            <label key={option.label} class="option">
              <input
                type="checkbox"
                checked={isChosen}
                onChange={() =>
                  onChange(isChosen ? chosen.filter((one) => !same(one, option.value)) : [...chosen, option.value])
                }
              />
              {visible(option.label)}
            </label>
          );
        }),
      );
    }
    case "list": {
      const items = Array.isArray(value) ? value : [];
      return grouped(
        <>
          {items.map((item, index) => (
            <div key={index} class="item">
              <FieldView
                field={field.item}
                value={item}
                onChange={(next) => onChange(items.map((one, at) => (at === index ? (next ?? null) : one)))}
                issues={issues}
                path={[...path, index]}
                label={`${title || "Item"} ${index + 1}`}
                isRequired
              />
              <button type="button" class="small" onClick={() => onChange(items.filter((_, at) => at !== index))}>
                Remove {index + 1}
              </button>
            </div>
          ))}
          {(field.max === null || items.length < field.max) && (
            <button
              type="button"
              class="small"
              onClick={() => onChange([...items, emptyOf(field.item) ?? startOf(field.item)])}
            >
              Add
            </button>
          )}
        </>,
      );
    }
    case "object": {
      const members = objectOf(value);
      const inner = field.fields.map(({ name, field: one, isRequired: isNeeded }) => (
        <FieldView
          key={name}
          field={one}
          value={Object.hasOwn(members, name) ? members[name] : undefined}
          onChange={(next) => {
            const { [name]: _before, ...rest } = members;
            onChange(next === undefined ? rest : { ...rest, [name]: next });
          }}
          issues={issues}
          path={[...path, name]}
          label={wordsOf(name)}
          isRequired={isNeeded}
        />
      ));
      return path.length === 0 ? <>{inner}</> : grouped(inner);
    }
    case "variants": {
      const members = objectOf(value);
      const chosen = field.variants.find(
        (variant) => same(variant.value, members[field.key] ?? null) && Object.hasOwn(members, field.key),
      );
      return grouped(
        <>
          <Choices
            name={id}
            options={field.variants}
            value={chosen?.value}
            onChange={(next) => {
              const variant = field.variants.find((one) => next !== undefined && same(one.value, next));
              onChange(variant ? emptyOf(variant.field) : undefined);
            }}
            isOptional={!isRequired}
          />
          {chosen && (
            <FieldView
              key={chosen.label}
              field={chosen.field}
              value={value}
              onChange={onChange}
              issues={issues}
              path={path}
              label=""
              isRequired
            />
          )}
        </>,
      );
    }
    case "nullable":
      return (
        <div class="field">
          <label class="option">
            <input
              type="checkbox"
              checked={value === null}
              onChange={(event) => onChange(event.currentTarget.checked ? null : undefined)}
            />
            {visible(title)}: none
          </label>
          {value !== null && (
            <FieldView
              field={titledAs(field.field, field)}
              value={value}
              onChange={onChange}
              issues={issues}
              path={path}
              label={label}
              isRequired={isRequired}
            />
          )}
        </div>
      );
    case "json":
      return around(<JsonBox schema={field.schema} about={about} value={value} onChange={onChange} />);
  }
}

/** What is wrong here; of a field that has no fields of its own also what is wrong in it. */
function issueOf(field: Field, path: Path, issues: Issues): string | null {
  const key = keyOf(path);
  const here = issues.get(key);
  if (here !== undefined) return here;
  if (field.kind === "variants") return issues.get(keyOf([...path, field.key])) ?? null;
  if (["object", "list", "nullable"].includes(field.kind)) return null;
  for (const [place, message] of issues)
    if (key === "" || place.startsWith(`${key}\u0001`)) {
      const [...rest] = place.slice(key === "" ? 0 : key.length + 1).split("\u0001");
      return `at ${rest.join(".")}: ${message}`;
    }
  return null;
}

function titledAs(field: Field, { title, description }: Field): Field {
  return { ...field, title: title ?? field.title, description: description ?? field.description };
}

/** What a new item of a list has, so that it stays where it is: its kind's nothing. */
function startOf(field: Field): Json {
  return field.kind === "text" ? "" : null;
}

function same(a: Json, b: Json): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function Choices({
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

function Text({
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
  // What is typed, which is no moment before it is whole.
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
