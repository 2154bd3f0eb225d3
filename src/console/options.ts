/** What `createConsole()` takes, checked. */
import { UsageError } from "../base/errors.ts";
import { requireFunction, requireInteger, requireKnown, requireRecord, requireText, show } from "../base/option.ts";
import type { Orchestrator } from "../orchestrator.ts";
import type { Access } from "./access.ts";

/** Where a value that is shown comes from. */
export interface RedactContext {
  /** Name of the flow. */
  readonly flow: string;
  readonly part:
    "input" | "output" | "state" | "metadata" | "event" | "stream" | "question" | "answer" | "error" | "sentence";
  /** Keys and indexes from the part to the value; [] is all of it. */
  readonly path: readonly (string | number)[];
}

/** Called for a value and then for each value in it, until it gives something else in its place. */
export type Redact = (value: unknown, context: RedactContext) => unknown;

/** Of `createConsole()`. */
export interface ConsoleOptions {
  /** Of the database that it shows. */
  orchestrator: Orchestrator;
  /**
   * Who sent a request, and what they may do: null is answered with 401, a `Response` (to a login, for instance) is sent as it is.
   * It is asked for every request but those of scripts and styles.
   */
  authorize: (request: Request) => Access | Response | null | Promise<Access | Response | null>;
  /** What leaves the server instead of a value: of payloads, state, metadata, errors. @default the value */
  redact?: Redact;
  /** How it looks. @default as it is */
  theme?: {
    /** Of links and buttons, like "#0a6": made darker or lighter until it can be read. */
    accent?: string;
    /** A style sheet of yours, loaded after the console's own: a path, or an https URL. */
    css?: string;
  };
  /** Where it leads to in pages of yours. @default nowhere */
  links?: {
    /** The page of a trace, by its id: an http or https URL. */
    trace?: (traceId: string) => string;
  };
  /** How much it shows and does at once. */
  limits?: {
    /** Longer payloads are shown in part, with a button for the rest: 1,000 to 1,048,576. @default 65,536 */
    previewBytes?: number;
    /** Executions of one bulk action: 1 to 1,000,000. @default 10,000 */
    bulk?: number;
    /** Rows of a page: 1 to 200. @default 50 */
    pageSize?: number;
  };
}

/** The same, with all defaults. */
export interface Settings {
  readonly orchestrator: Orchestrator;
  readonly authorize: ConsoleOptions["authorize"];
  readonly redact: Redact | null;
  readonly accent: string | null;
  readonly css: string | null;
  readonly trace: ((traceId: string) => string) | null;
  readonly previewBytes: number;
  readonly bulk: number;
  readonly pageSize: number;
}

const where = "createConsole()";

/** @throws {UsageError} naming the option that is invalid */
export function settingsOf(options: ConsoleOptions): Settings {
  requireKnown(options, ["orchestrator", "authorize", "redact", "theme", "links", "limits"], where);
  const { orchestrator, authorize, redact, theme = {}, links = {}, limits = {} } = options;
  if (typeof Reflect.get(Object(orchestrator), "getExecution") !== "function")
    throw new UsageError(`orchestrator of ${where} is ${show(orchestrator)}`, "pass what createOrchestrator() gave");
  if (authorize === undefined)
    throw new UsageError(
      `${where} has no authorize, and whoever reaches it would see and do everything`,
      "pass authorize: (request) => ({ actor, role }) or null; for this machine alone run `npx flowledger console`",
    );
  requireFunction(authorize, `authorize of ${where}`);
  if (redact !== undefined) requireFunction(redact, `redact of ${where}`);
  requireKnown(theme, ["accent", "css"], `theme of ${where}`);
  requireKnown(links, ["trace"], `links of ${where}`);
  requireKnown(limits, ["previewBytes", "bulk", "pageSize"], `limits of ${where}`);
  if (links.trace !== undefined) requireFunction(links.trace, `links.trace of ${where}`);
  const { previewBytes = 65_536, bulk = 10_000, pageSize = 50 } = requireRecord(limits, `limits of ${where}`);
  return {
    orchestrator,
    authorize,
    redact: redact ?? null,
    accent: theme.accent === undefined ? null : requireColour(theme.accent),
    css: theme.css === undefined ? null : requireSheet(theme.css),
    trace: links.trace ?? null,
    previewBytes: requireInteger(previewBytes, `limits.previewBytes of ${where}`, { min: 1000, max: 1_048_576 }),
    bulk: requireInteger(bulk, `limits.bulk of ${where}`, { min: 1, max: 1_000_000 }),
    pageSize: requireInteger(pageSize, `limits.pageSize of ${where}`, { min: 1, max: 200 }),
  };
}

function requireColour(accent: unknown): string {
  if (typeof accent === "string" && /^#(?:[\da-f]{3}|[\da-f]{6})$/i.test(accent)) return accent;
  throw new UsageError(
    `theme.accent of ${where} must be a colour, got ${show(accent)}`,
    'use one like "#0a6" or "#00aa66"',
  );
}

function requireSheet(css: unknown): string {
  const text = requireText(css, `theme.css of ${where}`, { max: 2000 });
  if (/^(?:\/(?!\/)|https:\/\/)[^\s"'<>;,]*$/.test(text)) return text;
  throw new UsageError(
    `theme.css of ${where} must be a path or an https URL, got ${show(css)}`,
    'use one like "/my.css"',
  );
}
