/** `flowledger/ai`: agents as flows, model calls that outlive their process, and chats that a page resumes. Needs `ai` 7. */
import "./base/node.ts";
export { agentFlow, type AgentFlow } from "./ai/agent.ts";
export { idempotencyKeyOf, type DurableToolOptions } from "./ai/tools.ts";
export type { AgentContract, AgentItem, Message, Usage } from "./ai/contract.ts";
export type {
  AgentSettings,
  ApprovalOptions,
  BudgetOptions,
  Decision,
  ToolApproval,
  ToolOptions,
} from "./ai/settings.ts";
export type { PreparedStep, PrepareStep, StepToPrepare } from "./ai/prepare.ts";
export {
  durableCalls,
  durableTools,
  type Durable,
  type DurableCallsOptions,
  type DurableStream,
  type DurableToolsOptions,
} from "./ai/durable.ts";
export { toUIMessageChunks, toUIMessageStreamResponse, type UIMessageStreamOptions } from "./ai/ui.ts";
export { chatRoutes, type ChatAccess, type ChatRequest, type ChatRoutes, type ChatRoutesOptions } from "./ai/chat.ts";
