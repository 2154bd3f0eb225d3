/** Calls of the server, by paths below the page's own. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Refusal } from "../api.ts";

/** What was refused, or that nobody answered. */
export class CallError extends Error {
  readonly refusal: Refusal;
  readonly status: number;

  constructor(status: number, refusal: Refusal) {
    super(refusal.message);
    this.status = status;
    this.refusal = refusal;
  }
}

/** The token is never left in the address. */
function takeToken(): string | null {
  const [, given] = /^#([\w-]{20,})$/.exec(location.hash) ?? [];
  if (given !== undefined) {
    sessionStorage.setItem("flowledger token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("flowledger token");
}
const token = takeToken();

function addressOf(path: string): string {
  return `${location.pathname.replace(/\/$/, "")}/-/${path}`;
}

function headersOf(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { ...(token !== null && { authorization: `Bearer ${token}` }), ...more };
}

async function call(path: string, init: RequestInit): Promise<Response> {
  // A login may be on another origin, where a page must not follow.
  const response = await fetch(addressOf(path), { ...init, redirect: "manual" }).catch((error: unknown) => {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new CallError(0, { code: "INTERNAL", message: "The server does not answer. The page tries again." });
  });
  if (response.ok) return response;
  const refusal = (await response.json().catch(() => null)) as Refusal | null;
  const status = response.type === "opaqueredirect" ? 401 : response.status;
  const isSignedOut = status === 401;
  throw new CallError(
    status,
    refusal ?? {
      code: isSignedOut ? "NOT_SIGNED_IN" : "INTERNAL",
      message: isSignedOut ? "You are signed out: load the page again." : `The server answered ${status}.`,
    },
  );
}

export async function read<T>(path: string, options: { isRefresh?: boolean; signal?: AbortSignal } = {}): Promise<T> {
  const { isRefresh = false, signal } = options;
  const response = await call(path, {
    headers: headersOf(isRefresh ? { "x-refresh": "1" } : {}),
    ...(signal && { signal }),
  });
  return (await response.json()) as T;
}

export async function send<T = object>(path: string, body: object): Promise<T> {
  const response = await call(path, {
    method: "POST",
    headers: headersOf({ "content-type": "application/json" }),
    body: JSON.stringify(body),
  });
  return (await response.json()) as T;
}

export interface ServerEvent {
  readonly event: string;
  readonly id: string | null;
  readonly data: string;
}

/** Server-sent events, which come back by themselves with the last id. An EventSource could not send the token. */
export async function follow(
  path: string,
  signal: AbortSignal,
  hear: (event: ServerEvent) => void,
  tell: (isConnected: boolean) => void = () => {},
): Promise<void> {
  let last: string | null = null;
  let waitMs = 500;
  while (!signal.aborted) {
    try {
      const response = await call(path, { headers: headersOf(last === null ? {} : { "last-event-id": last }), signal });
      tell(true);
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = (await reader?.read()) ?? { value: undefined, done: true };
        if (done) break;
        waitMs = 500;
        const messages = (rest + value).split("\n\n");
        rest = messages.pop() ?? "";
        for (const message of messages) {
          const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(message)?.[1] ?? null;
          const data = field("data");
          if (data === null) continue;
          last = field("id") ?? last;
          const event = field("event") ?? "message";
          hear({ event, id: field("id"), data });
          if (event === "end" || event === "failed") return;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof CallError && error.status >= 400 && error.status < 500) throw error;
    }
    tell(false);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    waitMs = Math.min(waitMs * 2, 10_000);
  }
}

export interface Loaded<T> {
  readonly value: T | null;
  readonly error: CallError | null;
  readonly isLoading: boolean;
  readonly reload: () => void;
}

const refreshMs = 2000;

/**
 * What a path has, and what it has later: a tab that is seen asks again every two seconds, one that is hidden does not.
 *
 * @param path null asks nothing
 * @param options.isLive whether it asks by itself; else when `version` is another one
 */
export function useLoad<T>(
  path: string | null,
  { isLive = true, version = 0 }: { isLive?: boolean; version?: number } = {},
): Loaded<T> {
  const [state, setState] = useState<{ path: string | null; value: T | null; error: CallError | null }>({
    path: null,
    value: null,
    error: null,
  });
  const asked = useRef(0);
  const load = useCallback(
    async (isRefresh: boolean, signal?: AbortSignal) => {
      if (path === null) return;
      asked.current += 1;
      const mine = asked.current;
      try {
        const value = await read<T>(path, { isRefresh, ...(signal && { signal }) });
        if (mine === asked.current) setState({ path, value, error: null });
      } catch (error) {
        if (!(error instanceof CallError) || mine !== asked.current) return;
        // The value before stays, with the error beside it.
        setState((before) => ({ path, value: before.path === path ? before.value : null, error }));
      }
    },
    [path],
  );
  useEffect(() => {
    const stop = new AbortController();
    void load(false, stop.signal);
    if (!isLive) return () => stop.abort();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void load(true, stop.signal);
    }, refreshMs);
    const seen = () => {
      if (document.visibilityState === "visible") void load(true, stop.signal);
    };
    document.addEventListener("visibilitychange", seen);
    return () => {
      stop.abort();
      clearInterval(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [load, isLive, version]);
  const isMine = state.path === path;
  return {
    value: isMine ? state.value : null,
    error: isMine ? state.error : null,
    isLoading: path !== null && (!isMine || (state.value === null && state.error === null)),
    reload: useCallback(() => void load(false), [load]),
  };
}

/**
 * What is read page by page of a ledger, each look one further.
 *
 * @param path null asks nothing
 * @param seq the point of the past that is asked for; null is now
 * @param version events that there are: more of them are read, too
 */
export function useCaughtUp<T extends { readonly seq: number; readonly of: number }>(
  path: string | null,
  seq: string | null,
  version: number,
): Loaded<T> {
  const [state, setState] = useState<{ of: string; value: T | null; error: CallError | null }>({
    of: "",
    value: null,
    error: null,
  });
  const [round, setRound] = useState(0);
  const of = `${path} ${seq ?? "now"}`;
  useEffect(() => {
    const stop = new AbortController();
    const go = async () => {
      // `after` keeps a shared answer away that is older than what this page has.
      let after = seq === null ? version : 0;
      let last = -1;
      for (;;) {
        const asked = new URLSearchParams({ ...(seq !== null && { seq }), after: String(after) });
        const value = await read<T>(`${path}?${asked.toString()}`, { signal: stop.signal });
        setState({ of, value, error: null });
        if (value.seq >= value.of || value.seq === last) return;
        [after, last] = [value.seq, value.seq];
      }
    };
    if (path !== null)
      go().catch((error: unknown) => {
        if (error instanceof CallError) setState((before) => ({ ...before, of, error }));
      });
    return () => stop.abort();
  }, [of, seq === null ? version : 0, round]);
  const isMine = state.of === of;
  return {
    value: isMine ? state.value : null,
    error: isMine ? state.error : null,
    isLoading: path !== null && (!isMine || (state.value === null && state.error === null)),
    reload: () => setRound(round + 1),
  };
}

/** A name that nobody else gives; `crypto.randomUUID` is not there on pages that came without TLS. */
export function newName(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
