/** What every screen is made of: status, time, payload, problem, dialog. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ErrorShown } from "../api.ts";
import { visible } from "../../base/visible.ts";
import type { CallError } from "./net.ts";
import { hrefOf, stay } from "./place.ts";

const shapes: Readonly<Record<string, JSX.Element>> = {
  created: <circle cx="8" cy="8" r="5" class="hollow" />,
  running: <path d="M8 2a6 6 0 1 1-6 6h3a3 3 0 1 0 3-3z" />,
  waiting: <path d="M3 2h10v2.5L9.8 8 13 11.5V14H3v-2.5L6.2 8 3 4.5z" />,
  parked: <path d="M3 2h4v12H3zM9 2h4v12H9z" />,
  completed: <path d="M6.4 13.2 1.6 8.4l1.9-1.9 2.9 2.9 6.1-6.1 1.9 1.9z" />,
  failed: <path d="m8 6.1 4.1-4.1 1.9 1.9L9.9 8l4.1 4.1-1.9 1.9L8 9.9 3.9 14 2 12.1 6.1 8 2 3.9 3.9 2z" />,
  cancelled: <path d="M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M4 7h8v2H4z" fill-rule="evenodd" />,
};

/** What else a row of a timeline may be, as one of the statuses that people know. */
const kinds: Readonly<Record<string, string>> = {
  open: "running",
  pending: "waiting",
  paused: "waiting",
  resumed: "completed",
  skipped: "completed",
  expired: "cancelled",
  withdrawn: "cancelled",
  dropped: "cancelled",
  interrupted: "cancelled",
};

export function toneOf(status: string): string {
  return shapes[status] ? status : (kinds[status] ?? "created");
}

/** Of the status with that name, 16 by 16. */
export function Shape({ tone }: { tone: string }) {
  return shapes[tone] ?? null;
}

export function Status({ status }: { status: string }) {
  const tone = toneOf(status);
  return (
    <span class={`status tone-${tone}`}>
      <svg viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
        {shapes[tone]}
      </svg>
      {status}
    </span>
  );
}

const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function lengthOf(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = ms / 1000;
  const whole = Math.round(seconds);
  if (whole < 60) return `${seconds < 10 ? seconds.toFixed(1) : whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return both(minutes, "min", whole % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return both(hours, "h", minutes % 60, "min");
  return both(Math.floor(hours / 24), "d", hours % 24, "h");
}

function both(large: number, unit: string, small: number, part: string): string {
  return small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${part}`;
}

function ago(ms: number): string {
  if (Math.abs(ms) < 1500) return "just now";
  const exact = lengthOf(Math.abs(ms));
  const [first = "", unit = ""] = exact.split(" ");
  const length = unit === "h" && Number(first) < 5 ? exact : `${Math.round(Number(first))} ${unit}`;
  return ms > 0 ? `${length} ago` : `in ${length}`;
}

/** Local, and how long ago; the exact time is what a pointer or a screen reader finds. */
export function Time({ at, isFull = false }: { at: string | null; isFull?: boolean }) {
  if (at === null) return <span class="quiet">–</span>;
  const date = new Date(at);
  const relative = ago(Date.now() - date.getTime());
  return (
    <time dateTime={at} title={`${absolute.format(date)} (${at})`}>
      {isFull ? `${absolute.format(date)}, ${relative}` : relative}
    </time>
  );
}

const isoTimes = /(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?Z)/;

/** A sentence of the server, with its times as local ones. */
export function Sentence({ text }: { text: string }) {
  return (
    <p class="sentence">
      {visible(text)
        .split(isoTimes)
        .map((part, index) =>
          index % 2 === 0 ? (
            part
          ) : (
            <time key={index} dateTime={part} title={part}>
              {absolute.format(new Date(part))}
            </time>
          ),
        )}
    </p>
  );
}

export function ExecutionLink({ id, children }: { id: string; children?: ComponentChildren }) {
  return (
    <a class="id" href={hrefOf({ execution: id })} onClick={stay}>
      {children ?? id}
    </a>
  );
}

/** @param text or what makes it, when it is asked for */
export function Copy({ text, what, label = "Copy" }: { text: string | (() => string); what: string; label?: string }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(typeof text === "string" ? text : text()).catch(() => {});
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" class="small" onClick={() => void copy()}>
      {isCopied ? "Copied" : label}
      <span class="sr"> {what}</span>
    </button>
  );
}

export function Problem({ error, onRetry }: { error: CallError | null; onRetry?: (() => void) | undefined }) {
  if (error === null) return null;
  const { by, at, message } = error.refusal;
  return (
    <div class="problem" role="alert">
      <p>{visible(message)}</p>
      {at !== undefined && at !== null && (
        <p>
          Before you: {by === null || by === undefined ? "the execution itself" : visible(by)}, <Time at={at} isFull />.
        </p>
      )}
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Loading({ rows = 5 }: { rows?: number }) {
  return (
    <div class="loading" role="status">
      <span class="sr">Loading</span>
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} class="bone" />
      ))}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="title">{title}</p>
      {children}
    </div>
  );
}

/** For those who hear the page. */
export function Announce({ text }: { text: string }) {
  return (
    <p class="sr" role="status" aria-live="polite">
      {text}
    </p>
  );
}

export function ErrorView({ error }: { error: ErrorShown }) {
  const { name, message, chunk, attempt, stack } = error;
  return (
    <section class="failure" aria-label="Error">
      <p class="mono">
        <strong>{visible(name ?? "Error")}</strong>: {visible(message ?? "")}
      </p>
      {chunk !== null && chunk !== undefined && (
        <p class="quiet">
          in {visible(chunk)}
          {attempt !== null && attempt !== undefined ? `, attempt ${attempt}` : ""}
        </p>
      )}
      {stack !== null && stack !== undefined && (
        <details>
          <summary>Stack</summary>
          <pre tabIndex={0}>{visible(stack)}</pre>
        </details>
      )}
    </section>
  );
}

/** Scrolls a list that is wider than a phone so that where one is is seen. */
export function bringIn(list: Element | null, at: string): void {
  const current = list?.querySelector(at);
  if (!list || !current) return;
  const [outer, inner] = [list.getBoundingClientRect(), current.getBoundingClientRect()];
  list.scrollLeft += inner.left - outer.left - (outer.width - inner.width) / 2;
}

/** The browser's own dialog keeps the keyboard in it, and gives it back at its end. */
export function Dialog({
  title,
  onClose,
  children,
}: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="dialog-title">
      <h2 id="dialog-title">{title}</h2>
      {children}
    </dialog>
  );
}

/** A list whose rows come and go: where the row with the keyboard goes, the one in its place gets it. */
export function useKeptFocus<E extends HTMLElement>(count: unknown) {
  const list = useRef<E>(null);
  const held = useRef<number | null>(null);
  useEffect(() => {
    const at = held.current;
    const within = list.current;
    if (at === null || !within || document.activeElement !== document.body) return;
    const stops = within.querySelectorAll<HTMLElement>("[data-stop]");
    stops[Math.min(at, stops.length - 1)]?.focus({ preventScroll: true });
  }, [count]);
  const onFocusIn = (event: FocusEvent) => {
    const stop = event.target instanceof Element ? event.target.closest("[data-stop]") : null;
    const stops = [...(list.current?.querySelectorAll("[data-stop]") ?? [])];
    held.current = stop ? stops.indexOf(stop) : null;
  };
  const onFocusOut = (event: FocusEvent) => {
    // When a focused row is removed, no other element gets the focus.
    if (event.relatedTarget !== null) held.current = null;
  };
  return { ref: list, onFocusIn, onFocusOut };
}

/** Only the rows in sight are in the page. */
export function Windowed<T>({
  rows,
  height,
  label,
  children,
  onEnd,
}: {
  rows: readonly T[];
  height: number;
  label: string;
  children: (row: T, index: number) => ComponentChildren;
  onEnd?: (() => void) | undefined;
}) {
  const [top, setTop] = useState(0);
  const [seen, setSeen] = useState(600);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => setSeen(box.current?.clientHeight ?? 600), [rows.length]);
  const first = Math.max(0, Math.floor(top / height) - 10);
  const last = Math.min(rows.length, Math.ceil((top + seen) / height) + 10);
  useEffect(() => {
    if (last >= rows.length) onEnd?.();
  }, [last, rows.length]);
  return (
    <div
      class="window"
      ref={box}
      tabIndex={0}
      role="list"
      aria-label={label}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
    >
      <div class="pad" ref={(pad) => pad?.style.setProperty("height", `${first * height}px`)} role="presentation" />
      {rows.slice(first, last).map((row, index) => (
        <div key={first + index} role="listitem" aria-setsize={rows.length} aria-posinset={first + index + 1}>
          {children(row, first + index)}
        </div>
      ))}
      <div
        class="pad"
        ref={(pad) => pad?.style.setProperty("height", `${(rows.length - last) * height}px`)}
        role="presentation"
      />
    </div>
  );
}
