/** Searches that are kept in this browser, each a link. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { visible } from "../../base/visible.ts";
import { hrefOf, stay } from "./place.ts";

interface View {
  readonly name: string;
  readonly text: string;
}

const viewsName = "flowledger views";

function readViews(): View[] {
  try {
    const given = JSON.parse(localStorage.getItem(viewsName) ?? "[]") as View[];
    return given.filter(({ name, text }) => typeof name === "string" && typeof text === "string");
  } catch {
    return [];
  }
}

export function Views({ text, children }: { text: string; children: ComponentChildren }) {
  const [views, setViews] = useState(readViews);
  const [name, setName] = useState<string | null>(null);
  const keep = (next: View[]) => {
    setViews(next);
    try {
      localStorage.setItem(viewsName, JSON.stringify(next));
    } catch {
      // This browser stores nothing, so the view is kept until the page is left.
    }
  };
  const known = views.find((view) => view.text === text);
  return (
    <div class="flex views">
      {views.map((view) => (
        <a
          key={view.name}
          class="chip"
          href={view.text === "" ? hrefOf({}) : `?${view.text}`}
          onClick={stay}
          aria-current={view.text === text}
        >
          {visible(view.name)}
        </a>
      ))}
      {known && (
        <button type="button" class="small" onClick={() => keep(views.filter((view) => view !== known))}>
          Forget "{visible(known.name)}"
        </button>
      )}
      {!known && text !== "" && name === null && (
        <button type="button" class="small" onClick={() => setName("")}>
          Keep this view
        </button>
      )}
      {name !== null && (
        <form
          class="flex"
          onSubmit={(event) => {
            event.preventDefault();
            if (name.trim() !== "")
              keep([...views.filter((view) => view.name !== name.trim()), { name: name.trim(), text }]);
            setName(null);
          }}
        >
          <label class="flex">
            <span class="quiet">Name</span>
            <input
              value={name}
              maxLength={60}
              ref={(input) => input?.focus()}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          </label>
          <button class="small">Keep</button>
        </form>
      )}
      {children}
    </div>
  );
}
