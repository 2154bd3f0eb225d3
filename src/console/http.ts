/** What every answer has, what a request must have, and how a refusal looks. */
import { FlowledgerError, type ContractIssue, type ErrorDetails } from "../base/errors.ts";
import type { Refusal } from "./api.ts";

/** A refusal of the console itself. */
export class Refused extends Error {
  readonly status: number;
  readonly code: string;
  /** Of a wrong method: those that are right. */
  readonly allow: string | null;

  constructor(status: number, code: string, message: string, allow: string | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.allow = allow;
  }
}

/** Bytes of a request: a payload of the largest kind, and what is around it. */
const maxBodyBytes = 1_048_576 + 16_384;

const statuses: Readonly<Record<string, number>> = {
  EXECUTION_NOT_FOUND: 404,
  INTERRUPT_NOT_PENDING: 409,
  RESUME_CONFLICT: 409,
  CONFLICT: 409,
  EXECUTION_SEALED: 409,
  EXECUTION_CLOSED: 409,
  CHUNKS_PARKED: 409,
  INTERRUPTS_PENDING: 409,
  SELF_RESUME_LIMIT: 409,
  INTERVENTION_DISABLED: 409,
  INTERRUPT_CLAIMED: 409,
  FLOW_PAUSED: 409,
  LOCKED: 409,
  USAGE_INVALID: 400,
  CONTRACT_VIOLATED: 400,
  PAYLOAD_UNSTORABLE: 400,
  DEFINITION_INVALID: 400,
  PERMISSION_DENIED: 403,
  SEARCH_TIMEOUT: 503,
};

/** @param css where a style sheet of the application's own is */
export function securityHeaders(css: string | null): Readonly<Record<string, string>> {
  const styles = css !== null && css.startsWith("https:") ? `'self' ${new URL(css).origin}` : "'self'";
  return {
    "content-security-policy":
      `default-src 'none'; script-src 'self'; style-src ${styles}; img-src 'self'; connect-src 'self'; ` +
      "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
  };
}

export function json(value: unknown, status = 200): Response {
  return new Response(JSON.stringify(value), {
    status,
    headers: { "content-type": "application/json; charset=utf-8", "cache-control": "no-store" },
  });
}

export function text(
  body: string,
  type: string,
  headers: Readonly<Record<string, string>> = {},
  status = 200,
): Response {
  return new Response(body, {
    status,
    headers: { "content-type": `${type}; charset=utf-8`, "cache-control": "no-store", ...headers },
  });
}

/** Undefined where it is the database's trouble, and its message for nobody outside. */
export function statusOf({ code }: FlowledgerError): number | undefined {
  return statuses[code];
}

/** The answer to what was refused; what is not ours may tell a stranger about the inside. */
export function refusalOf(error: unknown, more: Pick<Refusal, "by" | "at"> = {}): Response {
  if (error instanceof Refused) {
    const answer = json({ code: error.code, message: error.message } satisfies Refusal, error.status);
    if (error.allow !== null) answer.headers.set("allow", error.allow);
    return answer;
  }
  if (!(error instanceof FlowledgerError)) return failed(error);
  const { code, message, details } = error;
  const status = statusOf(error);
  // The message may name the database's host.
  if (status === undefined)
    return json({ code, message: "the database does not answer as it should: try again in a moment" }, 503);
  const issues = issuesIn(details);
  return json({ code, message, ...(issues.length > 0 && { issues }), ...more } satisfies Refusal, status);
}

/** The first of each field: a check by a JSON Schema says some things twice. What cannot be stored is at one place. */
export function issuesIn({ issues, path, problem }: ErrorDetails): ContractIssue[] {
  if (Array.isArray(path) && typeof problem === "string")
    return [{ path: path as ContractIssue["path"], message: problem, code: "unstorable" }];
  const first = new Map<string, ContractIssue>();
  for (const issue of Array.isArray(issues) ? (issues as readonly ContractIssue[]) : []) {
    const place = JSON.stringify(issue.path);
    if (!first.has(place)) first.set(place, issue);
  }
  return [...first.values()];
}

function failed(error: unknown): Response {
  process.emitWarning(
    `the console could not answer: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    {
      type: "FlowledgerWarning",
      code: "CONSOLE_FAILED",
    },
  );
  return json({ code: "INTERNAL", message: "internal error: the server's log says more" } satisfies Refusal, 500);
}

/**
 * A page of another origin cannot write on a person's behalf.
 *
 * @throws {Refused}
 */
export function requireOwnOrigin(request: Request): void {
  const site = request.headers.get("sec-fetch-site");
  const origin = request.headers.get("origin");
  const host = request.headers.get("host") ?? new URL(request.url).host;
  // Browsers send no Sec-Fetch-Site to a page without TLS.
  const isOwn = site === null ? origin !== null && URL.parse(origin)?.host === host : site === "same-origin";
  if (!isOwn)
    throw new Refused(
      403,
      "ORIGIN_WRONG",
      "this was not sent by the console's own page: open the console, and do it there (behind a proxy without TLS: have it keep the Host header)",
    );
  const [type = ""] = (request.headers.get("content-type") ?? "").split(";");
  if (type.trim().toLowerCase() !== "application/json")
    throw new Refused(403, "TYPE_WRONG", `content-type is "${type.slice(0, 80)}": send application/json`);
}

/** @throws {Refused} it says itself that it is too large */
export function requireFitting(request: Request): void {
  if (Number(request.headers.get("content-length") ?? 0) > maxBodyBytes) throw tooLarge();
}

/** @throws {Refused} it is too large */
export async function textOf(request: Request): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of request.body ?? []) {
    bytes += part.length;
    if (bytes > maxBodyBytes) throw tooLarge();
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** @throws {Refused} it is too large, or no JSON */
export async function bodyOf(request: Request): Promise<unknown> {
  const sent = await textOf(request);
  try {
    return JSON.parse(sent);
  } catch {
    throw new Refused(400, "BODY_NO_JSON", "the request is not JSON: send an object");
  }
}

function tooLarge(): Refused {
  return new Refused(413, "BODY_TOO_LARGE", `a request has at most ${maxBodyBytes} bytes: send less`);
}
