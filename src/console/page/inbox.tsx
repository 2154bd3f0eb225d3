/** What waits for people, with the form that answers it. */
import { useState } from "preact/hooks";
import type { Json } from "../../base/json.ts";
import type { Me, Page, Question, Refusal } from "../api.ts";
import { SchemaForm } from "./form.tsx";
import { CallError, newName, send, useLoad } from "./net.ts";
import { filtersIn, hrefOf, stay, usePlace } from "./place.ts";
import { Announce, Empty, ExecutionLink, Loading, Payload, Problem, Time, useKeptFocus, visible } from "./parts.tsx";

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
            (rows.length === 0 ? "" : `${rows.length}${list.value.nextCursor ? "+" : ""} waiting, oldest first`)}
        </p>
      </header>
      {filters.size > 0 && (
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
            onDone={() => {
              setDone("Your answer was taken.");
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

export function QuestionCard({ question, me, onDone }: { question: Question; me: Me; onDone: () => void }) {
  const { executionId, id, flow, chunk, type, createdAt, expiresAt, payload, response } = question;
  const [requestId, setRequestId] = useState(newName);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<CallError | null>(null);
  const answer = async (value: Json) => {
    setBusy(true);
    setError(null);
    try {
      await send(`executions/${executionId}/answer`, { interrupt: id, value, requestId });
      onDone();
    } catch (refused) {
      if (!(refused instanceof CallError)) throw refused;
      setError(refused);
      // Another answer is another request; the same one may be sent again.
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
        <h2>
          {visible(flow)} asks: {visible(type)}
        </h2>
        <p class="quiet">
          <ExecutionLink id={executionId} /> · in {visible(chunk)} · since <Time at={createdAt} />
          {expiresAt !== null && (
            <>
              {" "}
              · expires <Time at={expiresAt} />
            </>
          )}
        </p>
      </header>
      {!("json" in payload && payload.json === null) && <Payload value={payload} label="what is asked" />}
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
