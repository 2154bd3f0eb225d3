/** Calls of a console without a server: what a browser would send, from its own page. */

interface FetchHandler {
  readonly fetch: (request: Request) => Promise<Response>;
}

export type ConsoleClient = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Readonly<Record<string, string>>,
) => Promise<Response>;

/** @param prefix where it is mounted */
export function consoleClient(console: FetchHandler, prefix = "/admin/flows"): ConsoleClient {
  return (method, path, body, headers = {}) =>
    console.fetch(
      new Request(`http://app.example${prefix}/-/${path}`, {
        method,
        headers: {
          ...(method === "POST" && { "content-type": "application/json", "sec-fetch-site": "same-origin" }),
          ...headers,
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }),
    );
}
