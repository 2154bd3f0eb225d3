/** What waits for people, with the form that answers it. */
import { visible } from "../../base/visible.ts";
import { useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { Me, Page, Question, Refusal } from "../api.ts";
import { ActionDialog, ranks, type Action } from "./actions.tsx";
import { SchemaForm } from "./form.tsx";
import { CallError, newName, send, useLoad } from "./net.ts";
import { filtersIn, hrefOf, stay, usePlace } from "./place.ts";
import { Announce, Empty, ExecutionLink, Loading, Problem, Time, useKeptFocus } from "./parts.tsx";
import { Payload } from "./payload.tsx";

export function Inbox({ me }: { me: Me }) {
  const { query } = usePlace();
  const filters = filtersIn(query);
  const list = useLoad<Page<Question>>(`inbox?${filters}`);
  const rows = list.value?.rows ?? [];
  const [done, setDone] = useState("");
  const kept = useKeptFocus<HTMLDivElement>(rows.length);
  return (
    <>
      <header class="head">
        <h1>Inbox</h1>
        <p class="quiet">
          {list.value &&
            (rows.length === 0 ? "" : `${rows.length}${list.value.nextCursor ? "+" : ""} waiting, overdue first`)}
        </p>
      </header>
      <nav class="flex" aria-label="Whose">
        {views.map(([label, change]) => (
          <a
            key={label}
            class="button"
            href={hrefOf({ screen: "inbox", ...change })}
            onClick={stay}
            aria-current={isSame(filters, change) ? "page" : undefined}
          >
            {label}
          </a>
        ))}
      </nav>
      {filters.size > 0 && !views.some(([, change]) => isSame(filters, change)) && (
        <p class="flex">
          <span class="quiet">
            Filtered by {visible([...filters].map(([name, value]) => `${name}: ${value}`).join(", "))}
          </span>
          <a class="button" href={hrefOf({ screen: "inbox" })} onClick={stay}>
            Show all
          </a>
        </p>
      )}
      <Announce text={done} />
      <Problem error={list.error} onRetry={list.reload} />
      {list.isLoading && <Loading rows={3} />}
      {list.value && rows.length === 0 && (
        <Empty title="Nothing waits for an answer">
          <p>What a flow asks people appears here.</p>
        </Empty>
      )}
      <div ref={kept.ref} onFocusIn={kept.onFocusIn} onFocusOut={kept.onFocusOut}>
        {rows.map((question) => (
          <QuestionCard
            key={`${question.executionId} ${question.id} ${question.createdAt}`}
            question={question}
            me={me}
            onDone={(said) => {
              setDone(said);
              list.reload();
            }}
          />
        ))}
      </div>
      {list.value?.nextCursor && (
        <nav class="pages" aria-label="Pages">
          <a class="button" href={hrefOf({ screen: "inbox", cursor: list.value.nextCursor }, filters)} onClick={stay}>
            Next page
          </a>
        </nav>
      )}
    </>
  );
}

const views: readonly (readonly [label: string, change: Readonly<Record<string, string>>])[] = [
  ["All", {}],
  ["Mine and my groups'", { mine: "true" }],
  ["Overdue", { overdue: "true" }],
  ["Put off too", { snoozed: "true" }],
];

function isSame(filters: URLSearchParams, change: Readonly<Record<string, string>>): boolean {
  const names = Object.keys(change);
  return filters.size === names.length && names.every((name) => filters.get(name) === change[name]);
}

const delegating: Action = {
  name: "delegate",
  label: "Delegate",
  about: "It asks them from now on, in the place of all others.",
  needsNoReason: true,
  inputs: [
    {
      name: "to",
      label: "To whom",
      kind: "text",
      isRequired: true,
      help: "As the flows name people and groups, such as user:bo.",
    },
    { name: "reason", label: "Why", kind: "text" },
  ],
};
const puttingOff: Action = {
  name: "snooze",
  label: "Put off",
  about: "The inbox hides it from everybody until then. Its due date and its reminders stay.",
  needsNoReason: true,
  inputs: [{ name: "until", label: "Until", kind: "moment", isRequired: true }],
};

/** Who has it, and whom else it may go to. */
function Handling({ question, me, onDone }: { question: Question; me: Me; onDone: (said: string) => void }) {
  const { executionId, id, claimedBy, claimedAt, isExclusive } = question;
  const [action, setAction] = useState<Action | null>(null);
  const [error, setError] = useState<CallError | null>(null);
  const act = async (name: string, said: string) => {
    setError(null);
    try {
      await send(`executions/${executionId}/${name}`, { interrupt: id });
      onDone(said);
    } catch (refused) {
      if (!(refused instanceof CallError)) throw refused;
      setError(refused);
    }
  };
  return (
    <>
      <div class="flex" role="group" aria-label={`Who has ${id} of ${executionId}`}>
        {claimedBy !== null && (
          <span>
            {claimedBy === me.actor ? "You have it" : `${visible(claimedBy)} has it`}
            {isExclusive && ", alone"}, since <Time at={claimedAt} />
          </span>
        )}
        {claimedBy === null && (
          <button type="button" onClick={() => void act("claim", "You have it.")}>
            Claim
          </button>
        )}
        {claimedBy === me.actor && (
          <button type="button" onClick={() => void act("release", "It is free again.")}>
            Release
          </button>
        )}
        {[delegating, puttingOff].map((one) => (
          <button key={one.name} type="button" onClick={() => setAction(one)}>
            {one.label}
          </button>
        ))}
      </div>
      <Problem error={error} />
      {action && (
        <ActionDialog
          action={action}
          path={`executions/${executionId}/${action.name}`}
          extra={{ interrupt: id }}
          onClose={() => setAction(null)}
          onDone={onDone}
        />
      )}
    </>
  );
}

export function QuestionCard({ question, me, onDone }: { question: Question; me: Me; onDone: (said: string) => void }) {
  const { executionId, id, flow, chunk, type, createdAt, expiresAt, payload, response } = question;
  const { title, assignees, dueAt, snoozedUntil } = question;
  const [requestId, setRequestId] = useState(newName);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<CallError | null>(null);
  const answer = async (value: Json) => {
    setBusy(true);
    setError(null);
    try {
      await send(`executions/${executionId}/answer`, { interrupt: id, value, requestId });
      onDone("Your answer was taken.");
    } catch (refused) {
      if (!(refused instanceof CallError)) throw refused;
      setError(refused);
      // Another answer is another request. After lost answers the same request is sent again.
      if (refused.status !== 0) setRequestId(newName());
    }
    setBusy(false);
  };
  const refusal: Refusal | null = error?.refusal ?? null;
  const isAtField = (refusal?.issues ?? []).some(({ path }) => path.length > 0);
  return (
    <article
      class="card question"
      data-stop
      tabIndex={-1}
      aria-label={`${flow} asks: ${type}, ${id} of ${executionId}`}
    >
      <header>
        <h2>{title === null ? `${visible(flow)} asks: ${visible(type)}` : visible(title)}</h2>
        <p class="quiet">
          <ExecutionLink id={executionId} /> · in {visible(chunk)} · since <Time at={createdAt} />
          {expiresAt !== null && (
            <>
              {" "}
              · expires <Time at={expiresAt} />
            </>
          )}
          {dueAt !== null && (
            <>
              {" "}
              · <span class={new Date(dueAt).getTime() < Date.now() ? "tone-failed" : ""}>due</span> <Time at={dueAt} />
            </>
          )}
          {assignees !== null && ` · asks ${visible(assignees.join(", "))}`}
          {snoozedUntil !== null && (
            <>
              {" "}
              · put off until <Time at={snoozedUntil} />
            </>
          )}
        </p>
      </header>
      {!("json" in payload && payload.json === null) && <Payload value={payload} label="what is asked" />}
      {ranks[me.role] >= ranks.responder && <Handling question={question} me={me} onDone={onDone} />}
      {me.role === "viewer" ? (
        <p class="quiet">You may look, and not answer.</p>
      ) : (
        <SchemaForm
          schema={response}
          label={`Answer to ${id} of ${executionId}`}
          isBusy={isBusy}
          refusal={refusal}
          onSend={(value) => void answer(value)}
        />
      )}
      {isAtField ? (
        <p class="issue" role="alert">
          Some of it was refused: see the fields.
        </p>
      ) : (
        <Problem error={error} />
      )}
    </article>
  );
}
