/** `flowledger/mcp`: flows as tools of the Model Context Protocol. Needs `@modelcontextprotocol/sdk`. */
import "./base/node.ts";
export { createMcpServer, type McpFlow, type McpServerOptions } from "./mcp/flows.ts";
