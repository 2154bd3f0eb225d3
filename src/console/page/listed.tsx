/** A screen that is one list. */
import type { ComponentChildren } from "preact";
import type { Page } from "../api.ts";
import type { Loaded } from "./net.ts";
import { Empty, Loading, Problem, useKeptFocus } from "./parts.tsx";

export function Frame<T>({
  title,
  about,
  list,
  empty,
  heads,
  children,
}: {
  title: string;
  about: string;
  list: Loaded<Page<T>>;
  empty: string;
  heads: readonly string[];
  children: (row: T) => ComponentChildren;
}) {
  const rows = list.value?.rows ?? [];
  const kept = useKeptFocus<HTMLTableSectionElement>(rows.length);
  return (
    <>
      <header class="head">
        <h1>{title}</h1>
        <p class="quiet">{about}</p>
      </header>
      <Problem error={list.error} onRetry={list.reload} />
      {list.isLoading && <Loading rows={4} />}
      {list.value && rows.length === 0 && <Empty title={empty} />}
      {rows.length > 0 && (
        <table class="rows">
          <thead>
            <tr>
              {heads.map((head) => (
                <th key={head} scope="col">
                  {head}
                </th>
              ))}
            </tr>
          </thead>
          <tbody ref={kept.ref} onFocusIn={kept.onFocusIn} onFocusOut={kept.onFocusOut}>
            {rows.map(children)}
          </tbody>
        </table>
      )}
    </>
  );
}

/** Counts end at a thousand. */
export function counted(count: number): string {
  return count > 1000 ? "1,000+" : count.toLocaleString();
}
