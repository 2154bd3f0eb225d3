/** Where the page is: all of it is the query of the address, so that a link, a reload and the way back show the same. */
import { useEffect, useState } from "preact/hooks";

export const screens = ["executions", "inbox", "failures", "flows", "operations", "workers", "schedules"] as const;
export type Screen = (typeof screens)[number];

/** Names in the query that say where, and not what is looked for. */
const own = ["screen", "execution", "tab", "seq", "with", "graph", "chrome", "theme"];

export interface Place {
  readonly screen: Screen;
  readonly execution: string | null;
  readonly tab: string;
  readonly query: URLSearchParams;
}

const listeners = new Set<() => void>();

export function placeOf(query: URLSearchParams): Place {
  const screen = screens.find((name) => name === query.get("screen")) ?? "executions";
  return { screen, execution: query.get("execution"), tab: query.get("tab") ?? "timeline", query };
}

export function usePlace(): Place {
  const [search, setSearch] = useState(location.search);
  useEffect(() => {
    const hear = () => setSearch(location.search);
    listeners.add(hear);
    addEventListener("popstate", hear);
    return () => {
      listeners.delete(hear);
      removeEventListener("popstate", hear);
    };
  }, []);
  return placeOf(new URLSearchParams(search));
}

export type Change = Readonly<Record<string, string | readonly string[] | null | undefined>>;

/** The address with other values; what an iframe was opened with stays. */
export function hrefOf(change: Change, from: URLSearchParams | null = null): string {
  const query = new URLSearchParams(from ?? undefined);
  for (const name of ["chrome", "theme"]) {
    const kept = new URLSearchParams(location.search).get(name);
    if (kept !== null) query.set(name, kept);
  }
  for (const [name, value] of Object.entries(change)) {
    query.delete(name);
    for (const one of value === null || value === undefined ? [] : Array.isArray(value) ? value : [value])
      query.append(name, String(one));
  }
  const text = query.toString();
  return text === "" ? location.pathname : `?${text}`;
}

export function go(href: string, { isReplaced = false }: { isReplaced?: boolean } = {}): void {
  if (isReplaced) history.replaceState(null, "", href);
  else {
    history.pushState(null, "", href);
    scrollTo(0, 0);
  }
  for (const hear of listeners) hear();
}

/** What is looked for, without where. */
export function filtersIn(query: URLSearchParams): URLSearchParams {
  const filters = new URLSearchParams(query);
  for (const name of own) filters.delete(name);
  return filters;
}

/** For links of this page: a plain click stays in it. */
export function stay(event: MouseEvent): void {
  const link = event.currentTarget;
  if (
    !(link instanceof HTMLAnchorElement) ||
    event.button !== 0 ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey
  )
    return;
  event.preventDefault();
  go(link.getAttribute("href") ?? "");
}
