/** A form in plain HTML from an answer's JSON Schema, and the answer that a browser sends back from it. */
import type { Json, JsonObject } from "../base/json.ts";
import { visible } from "../base/visible.ts";
import { fieldOf, wordsOf, type Field, type Named } from "./fields.ts";
import { asTyped, escaped } from "./html.ts";

/** What was typed, by the names of the fields. */
export type Typed = Pick<URLSearchParams, "get" | "getAll" | "has">;

/** What is wrong, by the path in the answer: keys and indexes with "/" between. */
export type Problems = ReadonlyMap<string, string>;

/** Larger ones are a list. */
const radios = 5;

export function answerForm(schema: Json, typed: Typed | null, problems: Problems): string {
  const field = fieldOf(schema);
  const buttons = buttonsOf(field);
  const rest = buttons === null ? field : without(field, buttons.path);
  const inner =
    rest === null ? "" : shown({ field: rest, path: [], at: [], label: "Answer", isRequired: true }, typed, problems);
  return [
    `<form method="post" accept-charset="utf-8">`,
    summary(problems),
    inner,
    buttons === null
      ? `<p class="send"><button>Send the answer</button></p>`
      : `${about(buttons)}${said(problems, buttons.path)}<p class="send">${choice(buttons.path, "true", buttons.yes)}${choice(buttons.path, "false", buttons.no)}</p>`,
    "</form>",
  ].join("\n");
}

/** Undefined where nothing was said. `wrong` is what is no JSON. */
export function answerOf(schema: Json, typed: Typed): { value: Json | undefined; wrong: Problems } {
  const wrong = new Map<string, string>();
  const value = read(fieldOf(schema), [], true, typed, wrong);
  return { value, wrong };
}

/** All of them, above: some have no field of their own. */
function summary(problems: Problems): string {
  if (problems.size === 0) return "";
  const items = [...problems].map(([at, text]) => `<li>${at === "" ? "" : `${escaped(at)}: `}${escaped(text)}</li>`);
  return `<div class="issue" role="alert">Some of it was refused:<ul>${items.join("")}</ul></div>`;
}

interface Place {
  readonly field: Field;
  /** Of its control: a variant's fields have a place of their own. */
  readonly path: readonly string[];
  /** In the answer. */
  readonly at: readonly string[];
  readonly label: string;
  readonly isRequired: boolean;
}

/** The one yes or no that has to be said: two buttons that send the form. */
function buttonsOf(field: Field): ({ path: readonly string[]; yes: string; no: string } & Named) | null {
  if (field.kind === "boolean") return { ...field, path: [] };
  if (field.kind !== "object") return null;
  const asked = field.fields.filter(({ field: inner, isRequired }) => inner.kind === "boolean" && isRequired);
  const [only] = asked;
  if (asked.length !== 1 || only?.field.kind !== "boolean") return null;
  return { ...only.field, path: [only.name] };
}

function about({ title, description }: Named): string {
  const words = title === null ? "" : `<strong>${escaped(title)}</strong>`;
  const help = description === null ? "" : `<small class="help">${escaped(description)}</small>`;
  return words + help === "" ? "" : `<p>${words}${help}</p>`;
}

function without(field: Field, [name]: readonly string[]): Field | null {
  if (field.kind !== "object") return null;
  return { ...field, fields: field.fields.filter((member) => member.name !== name) };
}

function choice(path: readonly string[], value: string, label: string): string {
  return `<button name="${escaped(nameOf(path))}" value="${value}">${escaped(label)}</button>`;
}

function shown(place: Place, typed: Typed | null, problems: Problems): string {
  const { field, path, at: within, isRequired } = place;
  const raw = nameOf(path);
  const name = escaped(raw);
  const label = escaped(field.title ?? place.label) + (isRequired ? "" : " <small>(may be left out)</small>");
  const help = field.description === null ? "" : `<small class="help">${escaped(field.description)}</small>`;
  const issue = said(problems, within);
  const value = typed?.get(raw) ?? "";
  const one = (control: string) => `<p><label><span>${label}</span>${help}${control}</label>${issue}</p>`;
  const group = (inner: string) => `<fieldset><legend>${label}</legend>${help}${inner}${issue}</fieldset>`;
  const needed = isRequired ? " required" : "";
  switch (field.kind) {
    case "constant":
      return "";
    case "boolean":
      return group(
        [
          ["true", field.yes],
          ["false", field.no],
        ]
          .map(([of = "", words = ""]) => radio(name, of, words, value === of, needed))
          .join(""),
      );
    case "choice":
      return field.options.length <= radios
        ? group(
            field.options
              .map(({ label: words }, at) => radio(name, `${at}`, words, value === `${at}`, needed))
              .join(""),
          )
        : one(
            `<select name="${name}"${needed}><option value=""></option>${field.options
              .map(
                ({ label: words }, at) =>
                  `<option value="${at}"${value === `${at}` ? " selected" : ""}>${escaped(words)}</option>`,
              )
              .join("")}</select>`,
          );
    case "several": {
      const chosen = typed?.getAll(raw) ?? [];
      return group(
        field.options
          .map(({ label: words }, at) => {
            const isOn = chosen.includes(`${at}`) ? " checked" : "";
            return `<label class="choice"><input type="checkbox" name="${name}" value="${at}"${isOn}> ${escaped(words)}</label>`;
          })
          .join(""),
      );
    }
    case "text": {
      const most = field.max === null ? "" : ` maxlength="${field.max}"`;
      if (field.input === "area")
        return one(`<textarea name="${name}" rows="4"${most}${needed}>${lines(value)}</textarea>`);
      const isMoment = field.input === "datetime-local";
      const zone = isMoment ? ` <small>UTC</small>` : "";
      return one(`<input type="${field.input}" name="${name}" value="${asTyped(value)}"${most}${needed}>${zone}`);
    }
    case "number": {
      const bounds = [
        field.min === null ? "" : ` min="${field.min}"`,
        field.max === null ? "" : ` max="${field.max}"`,
        ` step="${field.isWhole ? 1 : "any"}"`,
      ].join("");
      const words = field.bounds === "" ? "" : ` <small>${field.bounds}</small>`;
      return one(`<input type="number" name="${name}" value="${asTyped(value)}"${bounds}${needed}>${words}`);
    }
    case "object": {
      const inner = field.fields
        .map((member) =>
          shown(
            { ...member, path: [...path, member.name], at: [...within, member.name], label: wordsOf(member.name) },
            typed,
            problems,
          ),
        )
        .join("");
      return path.length === 0 ? inner : group(inner);
    }
    case "variants": {
      const chosen = value;
      return group(
        field.variants
          .map(({ label: words, field: variant }, at) => {
            const inner = shown(
              { field: variant, path: [...path, `${at}`], at: within, label: words, isRequired: false },
              typed,
              problems,
            );
            return radio(name, `${at}`, words, chosen === `${at}`, needed) + inner.replaceAll(" required", "");
          })
          .join(""),
      );
    }
    case "nullable": {
      const isNone = typed?.has(`${raw}?`) ? " checked" : "";
      const inner = shown({ ...place, field: named(field.field, field), isRequired: false }, typed, problems);
      return `${inner}<label class="choice"><input type="checkbox" name="${name}?" value="none"${isNone}> ${label}: none</label>`;
    }
    case "list":
    case "json":
      return one(
        `<textarea name="${name}" rows="5" spellcheck="false" class="mono"${needed}>${lines(value)}</textarea><small>JSON</small>`,
      );
  }
}

/** A reader of HTML leaves out a line end that is the first character. */
function lines(value: string): string {
  return asTyped(`${/^\r?\n/.test(value) ? "\n" : ""}${value.replaceAll("\r\n", "\n")}`);
}

function named(inner: Field, { title, description }: Field): Field {
  return { ...inner, title: inner.title ?? title, description: inner.description ?? description };
}

function radio(name: string, value: string, label: string, isOn: boolean, needed: string): string {
  return `<label class="choice"><input type="radio" name="${name}" value="${value}"${isOn ? " checked" : ""}${needed}> ${escaped(label)}</label>`;
}

function said(problems: Problems, path: readonly string[]): string {
  const text = path.length === 0 ? undefined : problems.get(path.join("/"));
  return text === undefined ? "" : `<strong class="issue">${escaped(text)}</strong>`;
}

function read(
  field: Field,
  path: readonly string[],
  isRequired: boolean,
  typed: Typed,
  wrong: Map<string, string>,
): Json | undefined {
  const name = nameOf(path);
  const text = typed.get(name) ?? "";
  switch (field.kind) {
    case "constant":
      return field.value;
    case "boolean":
      return text === "" ? undefined : text === "true";
    case "choice":
      return field.options[indexOf(text)]?.value;
    case "several":
      return typed.getAll(name).flatMap((at) => field.options[indexOf(at)]?.value ?? []);
    case "text":
      if (text === "" && (!isRequired || field.input !== "area")) return isRequired ? "" : undefined;
      // A form is sent with two characters for each line end, and a browser counts one.
      return field.input === "datetime-local" ? momentOf(text) : text.replaceAll("\r\n", "\n");
    case "number":
      return text.trim() === "" || !Number.isFinite(Number(text))
        ? text.trim() === ""
          ? undefined
          : text
        : Number(text);
    case "object": {
      const value: JsonObject = {};
      for (const { name: key, field: inner, isRequired: isNeeded } of field.fields) {
        const part = read(inner, [...path, key], isNeeded, typed, wrong);
        // An assignment to `__proto__` would set the prototype.
        if (part !== undefined && key !== "__proto__") value[key] = part;
      }
      return Object.keys(value).length === 0 && !isRequired ? undefined : value;
    }
    case "variants": {
      const at = indexOf(text);
      const variant = field.variants[at];
      return variant && read(variant.field, [...path, `${at}`], true, typed, wrong);
    }
    case "nullable":
      return typed.has(`${name}?`) ? null : read(field.field, path, false, typed, wrong);
    case "list":
    case "json":
      if (text.trim() === "") return undefined;
      try {
        return JSON.parse(text) as Json;
      } catch {
        wrong.set(path.join("/"), "this is not valid JSON");
        return undefined;
      }
  }
}

function indexOf(text: string): number {
  return /^\d{1,6}$/.test(text) ? Number(text) : -1;
}

/** A form has no seconds where they are none, and no zone: the page says that it is UTC. */
function momentOf(text: string): string {
  const [, day, minute, second = ":00"] = /^(\d{4,6}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d(?:\.\d+)?)?$/.exec(text) ?? [];
  return day === undefined ? text : `${day}T${minute}${second}Z`;
}

/** Of its control; it is the same in the page and in what comes back. */
function nameOf(path: readonly string[]): string {
  return visible(["answer", ...path.map((part) => part.replaceAll("~", "~0").replaceAll("/", "~1"))].join("/"));
}
