/** A console for an application to mount: who asks, which route, and the headers of every answer. */
import { isResponse } from "../base/option.ts";
import { Lookout } from "../execution/look.ts";
import { internals } from "../orchestrator.ts";
import { may, personOf, type Person } from "./access.ts";
import { Stale } from "./actions.ts";
import { Known, requireVisible, type Asked, type Desk } from "./desk.ts";
import { Refused, json, refusalOf, requireFitting, requireOwnOrigin, securityHeaders } from "./http.ts";
import { settingsOf, type ConsoleOptions } from "./options.ts";
import { asset, document, notSignedIn } from "./page.ts";
import { Folds } from "./folds.ts";
import { Poll } from "./poll.ts";
import { routeOf } from "./routes.ts";
import { showingOf } from "./shown.ts";

/** The console, as a handler of requests. */
export interface Console {
  /**
   * Answers a request, under any path: `app.mount("/admin/flows", console.fetch)` of Hono, a catch-all route of Next.js,
   * `Bun.serve`, `Deno.serve`; `toNodeHandler(console)` for Express, NestJS and Fastify.
   */
  readonly fetch: (request: Request) => Promise<Response>;
}

/** Before what is asked of the server, as its own paths may be in any path of the application's. */
const marks = ["/-/"];

/** @throws {UsageError} an option is unknown, missing, or is invalid: without `authorize` nobody is let in */
export function createConsole(options: ConsoleOptions): Console {
  return consoleWith(options, marks);
}

/** @param calls what may stand before a call; the page itself uses the first of `marks` */
export function consoleWith(options: ConsoleOptions, calls: readonly string[]): Console {
  const settings = settingsOf(options);
  const { orchestrator } = settings;
  const store = () => orchestrator[internals].store();
  let lookout: Promise<Lookout> | undefined;
  const desk: Desk = {
    settings,
    orchestrator,
    showing: showingOf(settings.redact, settings.previewBytes),
    poll: new Poll(),
    known: new Known(),
    pictures: new Folds(16),
    timelines: new Folds(8),
    pasts: new Folds(4),
    store,
    lookout() {
      lookout ??= store().then((opened) => new Lookout(opened));
      lookout.catch(() => (lookout = undefined));
      return lookout;
    },
  };
  const headers = Object.entries(securityHeaders(settings.css));
  return {
    async fetch(request) {
      const answer = await answerTo(desk, request, calls).catch((error: unknown) =>
        error instanceof Stale ? error.answer : refusalOf(error),
      );
      // A response of the application's `authorize` is sent as it is.
      if (own.has(answer)) return answer;
      for (const [name, value] of headers) answer.headers.set(name, value);
      return answer;
    },
  };
}

/** Answers of the application, not of ours. */
const own = new WeakSet<Response>();

async function answerTo(desk: Desk, request: Request, calls: readonly string[]): Promise<Response> {
  const { pathname, searchParams: query } = new URL(request.url);
  const path = callIn(pathname, calls);
  const name = query.get("asset");
  if (path === null && name !== null && isRead(request)) {
    const found = await asset(name, desk.settings);
    if (found) return found;
    throw new Refused(404, "NOT_FOUND", `there is no asset "${name.slice(0, 80)}": load the page again`);
  }
  const person = await authorized(desk, request);
  if (isResponse(person)) return person;
  if (path === null) {
    if (isRead(request)) return person === null ? notSignedIn() : document(desk.settings);
    throw new Refused(405, "METHOD_WRONG", `${request.method} is not for a page: use GET`, "GET, HEAD");
  }
  if (person === null) throw new Refused(401, "NOT_SIGNED_IN", "sign in, and load the page again");
  return routed({ desk, person, request, query, isRefresh: request.headers.get("x-refresh") === "1" }, path);
}

/** What is called, wherever the console is mounted; null is the page. */
function callIn(pathname: string, calls: readonly string[]): string | null {
  const ends = calls
    .map((mark) => pathname.lastIndexOf(mark) + mark.length)
    .filter((end, index) => end >= (calls[index]?.length ?? 0));
  return ends.length === 0 ? null : pathname.slice(Math.max(...ends));
}

async function authorized(desk: Desk, request: Request): Promise<Person | Response | null> {
  const given = await desk.settings.authorize(request);
  if (isResponse(given)) {
    own.add(given);
    return given;
  }
  return given === null || given === undefined ? null : personOf(given);
}

async function routed(asked: Asked, path: string): Promise<Response> {
  const { request, person } = asked;
  const found = routeOf(request.method === "HEAD" ? "GET" : request.method, path);
  if (found === "path") throw new Refused(404, "NOT_FOUND", "there is nothing of that name");
  if (found === "method") {
    const allow = typeof routeOf("GET", path) === "object" ? "GET, HEAD" : "POST";
    throw new Refused(405, "METHOD_WRONG", `${request.method} is not for that: use ${allow}`, allow);
  }
  const { route, id } = found;
  if (!isRead(request)) {
    requireFitting(request);
    requireOwnOrigin(request);
  }
  if (!may(person, route.role))
    throw new Refused(403, "ROLE_TOO_LOW", `${person.actor} is ${person.role} here, and this needs ${route.role}`);
  const answer =
    "one" in route ? await route.one({ ...asked, id: await requireVisible(asked, id) }) : await route.all(asked);
  const response = isResponse(answer) ? answer : json(answer);
  if (request.method !== "HEAD") return response;
  // Nobody reads it: what it would read on for is let go.
  await response.body?.cancel();
  return new Response(null, response);
}

function isRead({ method }: Request): boolean {
  return method === "GET" || method === "HEAD";
}
