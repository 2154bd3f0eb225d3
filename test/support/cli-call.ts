/** What the tests of the command line and the process that runs commands for them say to each other. */
import { resolve } from "node:path";

export const cliPath: string = resolve(import.meta.dirname, "../../src/cli.ts");

export interface CliCall {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
}

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}
