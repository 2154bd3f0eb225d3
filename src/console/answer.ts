/** The page behind a link of `pauseFor({ link: true })`: what is asked, and a form that works without JavaScript. */
import { createHash } from "node:crypto";
import { ContractError, FlowledgerError, PayloadError, UsageError } from "../base/errors.ts";
import { requireFunction, requireKnown, show } from "../base/option.ts";
import type { Json } from "../base/json.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { Orchestrator } from "../orchestrator.ts";
import { answerForm, answerOf, type Problems, type Typed } from "./answer-form.ts";
import { escaped } from "./html.ts";
import { issuesIn, Refused, requireFitting, text, textOf } from "./http.ts";
import type { Redact } from "./options.ts";
import { showingOf } from "./shown.ts";

/** Of `createAnswerPage()`. */
export interface AnswerPageOptions {
  /** Whose links these are. */
  orchestrator: Orchestrator;
  /** What leaves the server instead of a value of what is asked. @default the value */
  redact?: Redact;
  /** Who answers, as the ledger names them: the link is what lets them. @default "link" */
  actor?: (request: Request) => string | Promise<string>;
}

/** The pages behind links, as a handler of requests. */
export interface AnswerPage {
  /** For Hono, Next.js, Bun and Deno; for other servers see `toNodeHandler`. */
  readonly fetch: (request: Request) => Promise<Response>;
}

/**
 * The pages that links of `pauseFor({ link: true })` lead to: mount it where `publicUrl` of the orchestrator points. A GET shows what
 * is asked and answers nothing, as programs that scan mail follow links; the form's POST answers, once. Whoever has the link may.
 *
 * @throws {UsageError} an option that is unknown, or is invalid
 */
export function createAnswerPage(options: AnswerPageOptions): AnswerPage {
  const where = "createAnswerPage()";
  requireKnown(options, ["orchestrator", "redact", "actor"], where);
  const { orchestrator, redact, actor } = options;
  if (typeof Reflect.get(Object(orchestrator), "askedByToken") !== "function")
    throw new UsageError(`orchestrator of ${where} is ${show(orchestrator)}`, "pass what createOrchestrator() gave");
  if (redact !== undefined) requireFunction(redact, `redact of ${where}`);
  if (actor !== undefined) requireFunction(actor, `actor of ${where}`);
  const showing = showingOf(redact ?? null, previewBytes);
  const shownOf = ({ flow, title, type, chunk, payload, response, expiresAt }: InterruptRecord) => ({
    title: title === null ? `${flow} asks: ${type}` : showing.text(title, { flow, part: "question" }),
    about: `Asked by ${flow}, in ${chunk}.${expiresAt === null ? "" : ` It ends on ${expiresAt.toUTCString()}.`}`,
    payload: showing.show(payload, { flow, part: "question" }),
    response,
  });
  const answer = async (request: Request, token: string): Promise<Response> => {
    const asked = shownOf(await orchestrator.askedByToken(token));
    const typed = new URLSearchParams(await textOf(request));
    const { value, wrong } = answerOf(asked.response, typed);
    if (wrong.size > 0) return page(asked.title, question(asked, typed, wrong), 400);
    try {
      const given = actor === undefined ? {} : { actor: await actor(request) };
      await orchestrator.answerByToken(token, value, given);
      return page("Thank you", "<p>Your answer was taken.</p>");
    } catch (error) {
      if (!(error instanceof ContractError || error instanceof PayloadError)) throw error;
      return page(asked.title, question(asked, typed, problemsOf(error)), 400);
    }
  };
  return {
    async fetch(request) {
      try {
        const [, token] = /\/a\/([\w-]{1,200})\/?$/.exec(new URL(request.url).pathname) ?? [];
        if (token === undefined) return page("Not found", "<p>This link is not valid: use it as it was sent.</p>", 404);
        if (request.method === "POST") {
          requireFitting(request);
          requireForm(request);
          return await answer(request, token);
        }
        if (request.method !== "GET" && request.method !== "HEAD")
          return page("Not for this page", "<p>Open the link in a browser.</p>", 405, { allow: "GET, HEAD, POST" });
        const asked = shownOf(await orchestrator.askedByToken(token));
        return page(asked.title, question(asked, null, new Map()));
      } catch (error) {
        return refused(error);
      }
    },
  };
}

/** Longer questions are cut. */
const previewBytes = 65_536;

interface Asked {
  readonly title: string;
  readonly about: string;
  readonly payload: { readonly json: Json } | { readonly preview: string };
  readonly response: Json;
}

function question({ about, payload, response }: Asked, typed: Typed | null, problems: Problems): string {
  const asked = "preview" in payload ? `${payload.preview} …` : payload.json === null ? null : inWords(payload.json);
  return `<p class="about">${escaped(about)}</p>
${asked === null ? "" : `<pre>${escaped(asked)}</pre>`}
${answerForm(response, typed, problems)}`;
}

function inWords(payload: Json): string {
  return typeof payload === "string" ? payload : JSON.stringify(payload, null, 2);
}

/** What has no field of its own stands above all. */
function problemsOf({ details }: FlowledgerError): Problems {
  return new Map(issuesIn(details).map(({ path, message }) => [path.join("/"), message]));
}

/** @throws {Refused} only a form of a page is an answer: nobody's program sends one by a link */
function requireForm(request: Request): void {
  const [type = ""] = (request.headers.get("content-type") ?? "").split(";");
  if (type.trim().toLowerCase() !== "application/x-www-form-urlencoded")
    throw new Refused(415, "TYPE_WRONG", "send the form of this page");
}

const words: Readonly<Record<string, readonly [status: number, title: string, text: string]>> = {
  TOKEN_UNKNOWN: [404, "Not found", "This link is not valid: use it as it was sent."],
  TOKEN_CLOSED: [410, "Not asked any more", "It was answered in another way, has expired, or was taken back."],
  INTERRUPT_CLAIMED: [409, "Somebody else has it", "Somebody has taken this question on for themselves alone."],
  EXECUTION_CLOSED: [410, "Not asked any more", "What asked has ended."],
  EXECUTION_SEALED: [410, "Not asked any more", "What asked takes no more answers."],
};

function refused(error: unknown): Response {
  if (error instanceof Refused) return page("Not possible", `<p>${escaped(error.message)}</p>`, error.status);
  const code = error instanceof FlowledgerError ? error.code : "";
  if (error instanceof FlowledgerError && code === "TOKEN_USED")
    return page(
      "Answered already",
      `<p>This link answered on ${escaped(String(error.details["usedAt"] ?? ""))}.</p>`,
      410,
    );
  const [status, title, said] = words[code] ?? [503, "Not now", "It cannot be answered at the moment: try again."];
  if (words[code] === undefined)
    process.emitWarning(
      `an answer page could not answer: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      {
        type: "FlowledgerWarning",
        code: "CONSOLE_FAILED",
      },
    );
  return page(title, `<p>${said}</p>`, status);
}

const style = `:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{margin:0 auto;max-width:40rem;padding:24px 16px 64px}h1{font-size:1.5rem;line-height:1.2}.about,small{color:GrayText}pre{background:color-mix(in srgb,CanvasText 7%,Canvas);border-radius:6px;overflow-wrap:anywhere;padding:12px;white-space:pre-wrap}label>span,legend{font-weight:600}label>span,.help,.issue{display:block}fieldset{border:1px solid color-mix(in srgb,CanvasText 25%,Canvas);border-radius:6px;margin:16px 0;padding:8px 12px}.choice{display:block;min-height:44px;padding-top:10px;box-sizing:border-box}input:not([type=radio]):not([type=checkbox]),textarea,select{box-sizing:border-box;font:inherit;min-height:44px;padding:8px;width:100%}.mono{font-family:ui-monospace,monospace}.issue{color:#b3261e}@media (prefers-color-scheme:dark){.issue{color:#ffb4ab}}.send{display:flex;flex-wrap:wrap;gap:12px}button{border:1px solid;border-radius:6px;cursor:pointer;font:inherit;font-weight:600;min-height:44px;padding:8px 20px}:focus-visible{outline:3px solid Highlight;outline-offset:2px}`;
const policy = `default-src 'none'; style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'`;

function page(title: string, body: string, status = 200, headers: Readonly<Record<string, string>> = {}): Response {
  return text(
    `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>${escaped(title)}</title><style>${style}</style></head>
<body><main><h1>${escaped(title)}</h1>
${body}</main></body></html>`,
    "text/html",
    {
      "content-security-policy": policy,
      "x-content-type-options": "nosniff",
      "x-frame-options": "DENY",
      "referrer-policy": "no-referrer",
      ...headers,
    },
    status,
  );
}
