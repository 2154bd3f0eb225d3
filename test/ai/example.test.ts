/** The chat of `examples/chat` without a key: its own model streams, refunds, and waits for a person. */
import { expect, test } from "vitest";
import { support } from "../../examples/chat/agent.ts";
import { modelOf } from "../../examples/chat/model.ts";
import { chatApp } from "../../examples/chat/server.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();

test("the example answers without a key, refunds little by itself and much when a person agrees", async () => {
  await using orchestrator = await serving(database, [support]);
  const app = await chatApp(orchestrator);
  const say = (id: string, text: string) =>
    app.request("/chat", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ id, messages: [{ id: text, role: "user", parts: [{ type: "text", text }] }] }),
    });

  expect(await (await app.request("/page.js")).text()).toContain("useChat");
  expect(await (await say("a", "refund 50")).text()).toContain("50 € for T-1");
  const large = say("b", "refund 500");
  const [newest] = await (async () => {
    for (;;) {
      const { executions } = await orchestrator.listExecutions({ flow: "support", metadata: { chat: "b" } });
      if (executions.length > 0) return executions;
    }
  })();
  const execution = await orchestrator.getExecution(newest?.id ?? "");
  const [pending] = await untilPending(execution, 1);
  await execution.continueWith(pending?.id ?? "", { decision: "approve" });

  const text = await (await large).text();
  expect(text).toContain('"type":"tool-approval-request"');
  expect(text).toContain("500 € for T-1");
  expect(text.trim().endsWith("data: [DONE]")).toBe(true);
  await expectGuarantees(database.sql, execution.id);
});

test("one variable names any provider that speaks OpenAI's protocol", () => {
  expect(modelOf("https://secret@api.example.com/v1#model-1")).toMatchObject({ modelId: "model-1" });
  expect(modelOf(undefined)).toMatchObject({ modelId: "script" });
});
