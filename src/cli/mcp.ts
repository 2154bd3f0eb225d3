/** `npx flowledger mcp`: the operators' server of the Model Context Protocol, on stdin and stdout. */
import type { Command } from "commander";
import { UsageError } from "../base/errors.ts";
import { open, untilSignal } from "./command.ts";

export function addMcpCommand(program: Command): void {
  program
    .command("mcp")
    .description(
      "serve list, explain, timeline, state and inbox to a client of the Model Context Protocol, on stdin and stdout",
    )
    .option("--allow <commands>", "also these, each with a reason: answer,retry,skip,redrive,cancel")
    .action(async ({ allow }: { allow?: string }, command: Command) => {
      const { createOperatorServer, commands, StdioServerTransport } = await load();
      const allowed = (allow === undefined ? [] : allow.split(",")).map((one) => {
        const known = commands.find((name) => name === one.trim());
        if (known) return known;
        throw new UsageError(`--allow has ${JSON.stringify(one)}`, `use some of ${commands.join(",")}`);
      });
      await using orchestrator = open(command);
      const server = createOperatorServer(orchestrator, { allow: allowed });
      const { promise: ended, resolve: end } = Promise.withResolvers<void>();
      server.onclose = end;
      // The transport does not notice that its client is gone.
      process.stdin.once("end", end).once("close", end);
      await server.connect(new StdioServerTransport());
      await untilSignal(async (signal) => {
        signal.addEventListener("abort", () => end());
        await ended;
      });
      await server.close();
    });
}

async function load() {
  try {
    const [{ StdioServerTransport }, operators] = await Promise.all([
      import("@modelcontextprotocol/sdk/server/stdio.js"),
      import("../mcp/operators.ts"),
    ]);
    return { StdioServerTransport, ...operators };
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND")
      throw new UsageError(
        "the command mcp needs the package @modelcontextprotocol/sdk",
        "npm install @modelcontextprotocol/sdk",
        {},
        error,
      );
    throw error;
  }
}
