/** One field of a form, as its JSON Schema has it, with what was refused in it. */
import { visible } from "../../base/visible.ts";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import type { Json, JsonObject } from "../../base/json.ts";
import { emptyOf, wordsOf, type Field } from "../fields.ts";
import { same, Choices, Text, JsonBox } from "./controls.tsx";

type Path = readonly (string | number)[];
export type Issues = ReadonlyMap<string, string>;

interface FieldProps {
  readonly field: Field;
  readonly value: Json | undefined;
  readonly onChange: (value: Json | undefined) => void;
  readonly issues: Issues;
  readonly path: Path;
  readonly label: string;
  readonly isRequired: boolean;
}

export const keyOf = (path: Path) => path.join("\u0001");

export function objectOf(value: Json | undefined): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
}

export function FieldView(props: FieldProps) {
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
          {field.bounds !== "" && <span class="quiet">{field.bounds}</span>}
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
