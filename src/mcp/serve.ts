/** A server of the Model Context Protocol: its tools, each a name, a schema and one call, for clients of either revision. */
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import type { RequestHandlerExtra } from "@modelcontextprotocol/sdk/shared/protocol.js";
import {
  ErrorCode,
  McpError,
  SUPPORTED_PROTOCOL_VERSIONS,
  type CallToolResult,
  type Implementation,
  type Result,
  type ServerCapabilities,
  type ServerNotification,
  type ServerRequest,
  type Tool,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { FlowledgerError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { nearest } from "../base/option.ts";
import { release } from "../base/release.ts";

/** Who asks, and what they take. Up to 2025-11-25 a connection says it once; since 2026-07-28 each request says it. */
export interface Asked {
  readonly extra: RequestHandlerExtra<ServerRequest, ServerNotification>;
  /** What the client calls itself. */
  readonly client: string;
  /** Of the revision 2026-07-28. */
  readonly isModern: boolean;
  /** A task may be the answer in place of a result. Always false before 2026-07-28. */
  readonly takesTasks: boolean;
  /** The person behind it. */
  readonly canBeAsked: boolean;
}

/** @returns the result, without what every one of its revision has */
export type Method = (params: unknown, asked: Asked) => Promise<Result>;

/** What a server has beside its tools. */
export interface Extras {
  /** Of each revision what it declares. */
  readonly capabilities?: ServerCapabilities;
  readonly modernCapabilities?: ServerCapabilities;
  readonly methods?: Readonly<Record<string, Method>>;
}

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
  run(args: unknown, asked: Asked): Promise<CallToolResult>;
}

/** A tool whose arguments zod checks. */
export function toolOf<S extends z.ZodObject>(
  tool: Omit<ToolDefinition, "inputSchema" | "run">,
  schema: S,
  run: (args: z.output<S>, asked: Asked) => Promise<CallToolResult>,
): ToolDefinition {
  return {
    ...tool,
    inputSchema: objectSchema(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" })),
    run: (args, asked) => run(schema.parse(args), asked),
  };
}

/** What MCP takes as the input of a tool: always an object. */
export function objectSchema(schema: unknown): Tool["inputSchema"] {
  const { $schema: _, ...plain } = isObject(schema) ? schema : {};
  return { ...plain, type: "object" };
}

/** Revisions whose requests say each for itself who asks. The SDK knows those before it. */
const modern = ["2026-07-28"];
const revisionKey = "io.modelcontextprotocol/protocolVersion";
const capabilitiesKey = "io.modelcontextprotocol/clientCapabilities";
const clientKey = "io.modelcontextprotocol/clientInfo";
const serverKey = "io.modelcontextprotocol/serverInfo";
/** The extension by which a client takes tasks. */
export const tasksExtension = "io.modelcontextprotocol/tasks";

const Params = z.looseObject({
  _meta: z
    .looseObject({
      [revisionKey]: z.string().optional(),
      [capabilitiesKey]: z.looseObject({ extensions: z.record(z.string(), z.unknown()).optional() }).optional(),
      [clientKey]: z.looseObject({ name: z.string() }).optional(),
    })
    .optional(),
});
const Call = z.looseObject({ name: z.string(), arguments: z.record(z.string(), z.unknown()).default({}) });
/** Nobody but the client may keep it, and not at all. */
const uncached = { ttlMs: 0, cacheScope: "private" };

export function serverOf(
  name: string,
  instructions: string,
  tools: readonly ToolDefinition[],
  { capabilities, modernCapabilities, methods = {} }: Extras = {},
): Server {
  const info: Implementation = { name, version: release };
  const server = new Server(info, { instructions, capabilities: { tools: {}, ...capabilities } });
  const all: Readonly<Record<string, Method>> = {
    "server/discover": async () => ({
      supportedVersions: modern,
      capabilities: { tools: {}, ...modernCapabilities },
      instructions,
      ...uncached,
    }),
    "tools/list": async (_, { isModern }) => ({ tools: tools.map(listed), ...(isModern && uncached) }),
    "tools/call": async (params, asked) => {
      const call = parsed(Call, params);
      return callTool(tools, call.name, call.arguments, asked);
    },
    ...methods,
  };
  // The SDK's own handlers know one revision each, and would take the result of the other one for a mistake.
  server.fallbackRequestHandler = async ({ method, params }, extra) => {
    const asked = askedBy(server, params, extra);
    const run = Object.hasOwn(all, method) ? all[method] : undefined;
    if (!run) throw new McpError(ErrorCode.MethodNotFound, `there is no method ${method}`);
    const result = await run(params, asked);
    return asked.isModern || method === "server/discover"
      ? { resultType: "complete", ...result, _meta: { ...result._meta, [serverKey]: info } }
      : result;
  };
  return server;
}

function askedBy(server: Server, params: unknown, extra: Asked["extra"]): Asked {
  const { _meta: meta = {} } = parsed(Params, params ?? {});
  const { [revisionKey]: requested, [capabilitiesKey]: capabilities, [clientKey]: client } = meta;
  if (requested !== undefined && !modern.includes(requested) && !SUPPORTED_PROTOCOL_VERSIONS.includes(requested))
    throw new McpError(-32022, `revision ${requested} is not known here`, { supported: modern, requested });
  const isModern = requested === undefined ? capabilities !== undefined : modern.includes(requested);
  return {
    extra,
    client: client?.name ?? server.getClientVersion()?.name ?? "client",
    isModern,
    takesTasks: isModern && isObject(capabilities?.extensions?.[tasksExtension]),
    canBeAsked: server.getClientCapabilities()?.elicitation !== undefined,
  };
}

/** @throws {McpError} they are none */
export function parsed<T>(schema: z.ZodType<T>, params: unknown): T {
  const found = schema.safeParse(params);
  if (found.success) return found.data;
  throw new McpError(ErrorCode.InvalidParams, z.prettifyError(found.error));
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
  asked: Asked,
): Promise<CallToolResult> {
  const tool = tools.find((one) => one.name === name);
  const names = tools.map((one) => one.name);
  const meant = nearest(name, names);
  if (!tool)
    return failed(
      `there is no tool ${JSON.stringify(name)}: use one of ${names.join(", ")}${meant === undefined ? "" : ` (did you mean ${meant}?)`}`,
    );
  try {
    return await tool.run(args, asked);
  } catch (error) {
    return failed(refusalOf(error, name));
  }
}

/** Why a call was refused, for the client. @throws what is no refusal */
export function refusalOf(error: unknown, tool: string): string {
  if (error instanceof z.ZodError) return `arguments of ${tool}: ${z.prettifyError(error)}`;
  if (error instanceof FlowledgerError) return `${error.code}: ${error.message}`;
  throw error;
}

export function failed(text: string): CallToolResult {
  return { isError: true, content: [{ type: "text", text }] };
}
