/** Tools of a Model Context Protocol server: each is a name, a schema, and one call. */
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  ListToolsRequestSchema,
  type CallToolResult,
  type ServerCapabilities,
  type Tool,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { FlowledgerError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { nearest } from "../base/option.ts";
import { release } from "../base/release.ts";

export interface ToolDefinition {
  readonly name: string;
  readonly description: string;
  /** As JSON Schema. */
  readonly inputSchema: Tool["inputSchema"];
  /** Changes nothing. */
  readonly isReadOnly: boolean;
  readonly isDestructive?: boolean;
  readonly execution?: Tool["execution"];
  /** What it throws is told to the client. */
  run(args: unknown, signal: AbortSignal): Promise<CallToolResult>;
}

/** A tool whose arguments zod checks. */
export function toolOf<S extends z.ZodObject>(
  tool: Omit<ToolDefinition, "inputSchema" | "run">,
  schema: S,
  run: (args: z.output<S>, signal: AbortSignal) => Promise<CallToolResult>,
): ToolDefinition {
  return {
    ...tool,
    inputSchema: objectSchema(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" })),
    run: (args, signal) => run(schema.parse(args), signal),
  };
}

/** What MCP takes as the input of a tool: always an object. */
export function objectSchema(schema: unknown): Tool["inputSchema"] {
  const { $schema: _, ...plain } = isObject(schema) ? schema : {};
  return { ...plain, type: "object" };
}

export function serverOf(
  name: string,
  instructions: string,
  tools: readonly ToolDefinition[],
  capabilities: ServerCapabilities = {},
): Server {
  const server = new Server({ name, version: release }, { instructions, capabilities: { tools: {}, ...capabilities } });
  server.setRequestHandler(ListToolsRequestSchema, async () => ({ tools: tools.map(listed) }));
  server.setRequestHandler(CallToolRequestSchema, ({ params }, { signal }) =>
    callTool(tools, params.name, params.arguments ?? {}, signal),
  );
  return server;
}

function listed({
  name,
  description,
  inputSchema,
  isReadOnly,
  isDestructive = false,
  execution,
}: ToolDefinition): Tool {
  const annotations = { readOnlyHint: isReadOnly, destructiveHint: isDestructive, openWorldHint: false };
  return { name, description, inputSchema, annotations, ...(execution && { execution }) };
}

export async function callTool(
  tools: readonly ToolDefinition[],
  name: string,
  args: unknown,
  signal: AbortSignal,
): Promise<CallToolResult> {
  const tool = tools.find((one) => one.name === name);
  const names = tools.map((one) => one.name);
  const meant = nearest(name, names);
  if (!tool)
    return failed(
      `there is no tool ${JSON.stringify(name)}: use one of ${names.join(", ")}${meant === undefined ? "" : ` (did you mean ${meant}?)`}`,
    );
  try {
    return await tool.run(args, signal);
  } catch (error) {
    if (error instanceof z.ZodError) return failed(`arguments of ${name}: ${z.prettifyError(error)}`);
    if (error instanceof FlowledgerError) return failed(`${error.code}: ${error.message}`);
    throw error;
  }
}

export function failed(text: string): CallToolResult {
  return { isError: true, content: [{ type: "text", text }] };
}
