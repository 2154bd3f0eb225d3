/** The page of the console. */
import { visible } from "../../base/visible.ts";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Me } from "../api.ts";
import { Executions } from "./executions.tsx";
import { Inbox } from "./inbox.tsx";
import { useLoad } from "./net.ts";
import { Operations } from "./operations.tsx";
import { One } from "./one.tsx";
import { Flows } from "./flows.tsx";
import { Failures, Schedules, Workers, screensOf } from "./others.tsx";
import { hrefOf, stay, usePlace } from "./place.ts";
import { Loading, Problem, bringIn } from "./parts.tsx";

function App() {
  const place = usePlace();
  const me = useLoad<Me>("me", { isLive: false });
  const main = useRef<HTMLElement>(null);
  const where = place.execution ?? place.screen;
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${place.execution ? `Execution ${place.execution.slice(0, 8)}` : place.screen} · flowledger`;
    // After a change of screen the keyboard begins at its top; the first load leaves the focus alone.
    if (!isFirst.current) main.current?.focus({ preventScroll: true });
    isFirst.current = false;
  }, [where]);
  const screens = useRef<HTMLElement>(null);
  useEffect(() => bringIn(screens.current, "[aria-current]"), [where, me.value]);
  const isBare = place.query.get("chrome") === "0";
  const person = me.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        To the content
      </a>
      {!isBare && (
        <header class="top">
          <a class="brand" href={hrefOf({})} onClick={stay}>
            flowledger
          </a>
          <nav aria-label="Screens" ref={screens}>
            {person &&
              screensOf(person).map(([name, label]) => (
                <a
                  key={name}
                  href={hrefOf(name === "executions" ? {} : { screen: name })}
                  onClick={stay}
                  aria-current={place.execution === null && place.screen === name ? "page" : undefined}
                >
                  {label}
                </a>
              ))}
          </nav>
          {person && (
            <p class="me">
              <span>{visible(person.actor)}</span> <span class="role">{person.role}</span>
            </p>
          )}
        </header>
      )}
      <main id="main" ref={main} tabIndex={-1}>
        <Problem error={me.error} onRetry={me.reload} />
        {me.isLoading && <Loading />}
        {person && <Screen me={person} />}
      </main>
    </>
  );
}

function Screen({ me }: { me: Me }) {
  const { execution, screen } = usePlace();
  if (execution !== null) return <One key={execution} id={execution} me={me} />;
  switch (screen) {
    case "executions":
      return <Executions me={me} />;
    case "inbox":
      return <Inbox me={me} />;
    case "failures":
      return <Failures me={me} />;
    case "flows":
      return <Flows me={me} />;
    case "operations":
      return <Operations me={me} />;
    case "workers":
      return <Workers />;
    case "schedules":
      return <Schedules me={me} />;
  }
}

const theme = new URLSearchParams(location.search).get("theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset["theme"] = theme;
const app = document.getElementById("app");
if (app) render(<App />, app);
