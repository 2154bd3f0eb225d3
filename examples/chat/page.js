// The page: the stock `useChat` of the AI SDK, with nothing of ours in it.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { createElement as h, useState } from "react";
import { createRoot } from "react-dom/client";

/** The chat's id stands in the address, so that a reload and another tab have the same. */
if (location.hash === "") location.hash = crypto.randomUUID();
const id = location.hash.slice(1);

const post = (path, body) =>
  fetch(`/chat/${id}/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

function Chat({ messages: before }) {
  const [text, setText] = useState("");
  const { messages, sendMessage, status, error } = useChat({
    id,
    messages: before,
    resume: true,
    transport: new DefaultChatTransport({ api: "/chat" }),
  });
  const send = (event) => {
    event.preventDefault();
    void sendMessage({ text });
    setText("");
  };
  return h(
    "div",
    null,
    h("p", { id: "status", role: "status" }, error ? `error: ${error.message}` : status),
    h("div", { id: "messages" }, ...messages.map((message) => h(Message, { key: message.id, message }))),
    h(
      "form",
      { onSubmit: send },
      h("input", {
        id: "text",
        "aria-label": "Message",
        value: text,
        onChange: (event) => setText(event.target.value),
      }),
      h("button", { id: "send" }, "Send"),
      // Closing the tab ends nothing; this does.
      h("button", { id: "stop", type: "button", onClick: () => void post("stop", {}) }, "Stop"),
    ),
  );
}

function Message({ message }) {
  return h("article", { className: message.role }, h("b", null, `${message.role}: `), ...message.parts.map(Part));
}

function Part(part, index) {
  if (part.type === "text") return h("span", { key: index, className: "words" }, part.text);
  if (!part.type.startsWith("tool-")) return null;
  const decide = (decision) => () => void post("answer", { approvalId: part.approval.id, decision });
  return h(
    "p",
    { key: index, className: "tool" },
    `${part.type.slice(5)} ${JSON.stringify(part.input)}: ${part.output ?? part.errorText ?? part.state} `,
    part.state === "approval-requested" && h("button", { className: "approve", onClick: decide("approve") }, "Approve"),
    part.state === "approval-requested" && h("button", { className: "reject", onClick: decide("reject") }, "Reject"),
  );
}

const { messages } = await (await fetch(`/chat/${id}`)).json();
createRoot(document.getElementById("root")).render(h(Chat, { messages }));
