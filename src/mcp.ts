/** `flowledger/mcp`: flows as tools of the Model Context Protocol. Needs `@modelcontextprotocol/sdk`. */
export { createMcpServer, type McpFlow, type McpServerOptions } from "./mcp/flows.ts";
