/** The console's one page. Whatever comes from an execution is shown as text, with hidden characters escaped. */

const style = `
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #222; }
main { display: grid; grid-template-columns: minmax(20rem, 1fr) minmax(0, 2fr); gap: 2rem; overflow-wrap: anywhere; }
@media (max-width: 800px) { body { margin: 0.8rem; } main { grid-template-columns: minmax(0, 1fr); gap: 0.5rem; } }
h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
button { font: inherit; } .row { display: block; width: 100%; text-align: left; border: 0; background: none; padding: 0.2rem; cursor: pointer; }
.row:hover, .row:focus { background: #eef; } .quiet { color: #666; } .error { color: #a00; }
pre { background: #f6f6f6; padding: 0.5rem; overflow: auto; max-height: 20rem; margin: 0; white-space: pre-wrap; }
#problem:not(:empty) { border-left: 3px solid #a00; padding-left: 0.5rem; white-space: pre-wrap; }
textarea { width: 100%; font: 13px monospace; box-sizing: border-box; }
`;

const script = `
const byId = (id) => document.getElementById(id);
// The token is never left in the address; which execution is looked at is, for a reload, a bookmark and the way back.
const place = () => /^#execution=([0-9a-fA-F-]{36})$/.exec(location.hash)?.[1] ?? null;
const token = (place() ? "" : location.hash.slice(1)) || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", token);
if (!place()) history.replaceState(null, "", "/");
let watched = null;

// Characters that change what others look like are shown as what they are.
const shown = (text) => String(text).replace(/[\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2069\\ufeff]/g,
  (hidden) => "\\\\u" + hidden.charCodeAt(0).toString(16).padStart(4, "0"));
const pretty = (value) => shown(JSON.stringify(value, null, 2));

function element(name, text, attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  made.textContent = shown(text);
  return made;
}

async function call(path, body, signal) {
  const response = await fetch("/api" + path, {
    method: body ? "POST" : "GET", signal, headers: { authorization: "Bearer " + token },
    ...(body && { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error((await response.json()).message);
  return response;
}
const read = async (path, body) => (await call(path, body)).json();

async function attempt(work) {
  byId("error").textContent = "";
  try { await work(); } catch (error) {
    if (error.name !== "AbortError") byId("error").textContent = shown(error.message);
  }
}

async function list() {
  const [{ executions }, { interrupts }] = await Promise.all([read("/executions"), read("/interrupts")]);
  rows(byId("executions"), executions.map(({ id, flow, status }) => ({ key: id, id, text: flow + " · " + status + " · " + id })));
  rows(byId("pending"), interrupts.map(({ executionId, id, flow, type }) =>
    ({ key: executionId + " " + id, id: executionId, text: flow + " asks: " + type })));
}

// Rows that stay keep their element, and with it the keyboard focus; one that goes gives it to the row in its place.
function rows(list, wanted) {
  const standing = new Map([...list.children].map((row) => [row.dataset.key, row]));
  const focused = [...list.children].indexOf(document.activeElement);
  const focusedKey = document.activeElement?.dataset.key;
  const made = wanted.map(({ key, id, text }) => {
    const row = standing.get(key) ?? element("button", "", { className: "row", onclick: () => attempt(() => open(id)) });
    row.dataset.key = key;
    if (row.textContent !== shown(text)) row.textContent = shown(text);
    return row;
  });
  const kept = new Set(made);
  for (const row of [...list.children]) if (!kept.has(row)) row.remove();
  made.forEach((row, index) => { if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null); });
  if (focused < 0 || list.contains(document.activeElement)) return;
  (standing.get(focusedKey) ?? made[Math.min(focused, made.length - 1)] ?? byId("refresh")).focus({ preventScroll: true });
}

function open(id) {
  if (place() !== id) history.pushState(null, "", "/#execution=" + id);
  return watch(id);
}

async function watch(id) {
  watched?.abort();
  const stop = watched = new AbortController();
  byId("one").hidden = false;
  byId("problem").textContent = "";
  byId("stream").replaceChildren();
  let waitMs = 1000;
  byId("answers").replaceChildren();
  const look = async () => {
    const { meta, state, stateSeq, problem, interrupts, events } = await read("/executions/" + id);
    if (stop.signal.aborted) return true;
    const isBehind = stateSeq < meta.stateVersion && state !== null;
    waitMs = isBehind ? 50 : 1000;
    byId("problem").textContent = shown(problem?.message ?? meta.blocked ?? "");
    byId("behind").textContent = isBehind ? "as of event " + stateSeq + " of " + meta.stateVersion : "";
    byId("title").textContent = shown(meta.flowName + " · " + meta.status + " · " + id);
    byId("state").textContent = pretty(state);
    byId("ledger").textContent = events.toReversed().map((event) => shown(lineOf(event))).join("\\n");
    const known = new Set([...byId("answers").children].map((form) => form.dataset.key));
    for (const asked of interrupts) if (!known.has(asked.id + asked.createdAt)) byId("answers").append(answerTo(id, asked));
    for (const form of byId("answers").children)
      if (!interrupts.some((asked) => asked.id + asked.createdAt === form.dataset.key)) form.remove();
    return meta.lifecycleState === "closed";
  };
  byId("cancel").onclick = () => attempt(() => read("/executions/" + id + "/cancel", { reason: "cancelled in the console" }).then(look));
  byId("intervene").onclick = () => attempt(() => read("/executions/" + id + "/intervene", { payload: JSON.parse(byId("correction").value) }).then(look));
  void attempt(() => follow(id, stop.signal));
  while (!(await look())) await new Promise((resolve) => setTimeout(resolve, waitMs));
}

function lineOf({ seq, at, type, chunk, payload }) {
  const error = payload?.error;
  return [seq, new Date(at).toISOString(), type, chunk ?? "", error ? error.name + ": " + error.message : ""].join("  ").trimEnd();
}

function answerTo(id, asked) {
  const form = element("div", "");
  form.dataset.key = asked.id + asked.createdAt;
  const answer = element("textarea", '{ "approved": true }', { rows: 2, ariaLabel: "answer as JSON" });
  const requestId = crypto.randomUUID();
  const send = element("button", "Answer", {
    onclick: () => attempt(async () => {
      await read("/executions/" + id + "/resume", { interrupt: asked.id, value: JSON.parse(answer.value), requestId });
      form.remove();
    }),
  });
  form.append(element("h2", asked.chunk + " asks: " + asked.type), element("pre", pretty(asked.payload)), answer, send);
  return form;
}

// An EventSource cannot send the token, so the stream is read by fetch.
async function follow(id, signal) {
  const body = (await call("/executions/" + id + "/stream", undefined, signal)).body.pipeThrough(new TextDecoderStream());
  let rest = "";
  for await (const text of body) {
    const messages = (rest + text).split("\\n\\n");
    rest = messages.pop();
    for (const message of messages) {
      const data = /^data: (.*)$/m.exec(message)?.[1];
      if (data && !message.startsWith("event: end")) byId("stream").prepend(element("pre", data));
    }
  }
}

byId("refresh").onclick = () => attempt(list);
addEventListener("popstate", () => {
  const id = place();
  if (id) return attempt(() => watch(id));
  watched?.abort();
  byId("one").hidden = true;
});
await attempt(list);
if (place()) void attempt(() => watch(place()));
setInterval(() => document.hidden || attempt(list), 5000);
`;

export function page(nonce: string): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>flowledger console</title>
<style nonce="${nonce}">${style}</style></head>
<body>
<h1>flowledger console</h1>
<p id="error" class="error" role="alert"></p>
<main>
<section><h2>Waiting for an answer</h2><div id="pending"></div>
<h2>Executions <button id="refresh">Refresh</button></h2><div id="executions"></div></section>
<section id="one" hidden><h1 id="title"></h1>
<p id="problem" class="error" role="status"></p>
<div id="answers"></div>
<h2>State <span id="behind" class="quiet"></span></h2><pre id="state"></pre>
<h2>Stream</h2><div id="stream"></div>
<h2>Ledger</h2><pre id="ledger"></pre>
<h2>Intervene</h2><textarea id="correction" rows="2" aria-label="correction as JSON">{ "text": "" }</textarea>
<button id="intervene">Intervene</button> <button id="cancel">Cancel the execution</button></section>
</main>
<script type="module" nonce="${nonce}">${script}</script>
</body></html>`;
}
