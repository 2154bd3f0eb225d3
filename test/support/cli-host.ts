/** Runs commands of `npx flowledger`, one after the other: what each of them would load again is loaded once. */
import { setImmediate as turn } from "node:timers/promises";
import { main } from "../../src/cli/main.ts";
import { cliPath, type CliCall, type CliResult } from "./cli-call.ts";

/** How long a command that has said all may keep the process. */
const leavesWithinMs = 10_000;

async function run({ args, env, cwd }: CliCall): Promise<CliResult> {
  const before = { env: { ...process.env }, cwd: process.cwd(), alive: alive() };
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    process[name].write = (text: string | Uint8Array) => {
      said[name] += text.toString();
      return true;
    };
  process.argv = [process.execPath, cliPath, ...args];
  process.exitCode = 0;
  setEnv(env);
  process.chdir(cwd);
  try {
    await main();
    // A process of its own would live on as long as anything is left behind.
    const begun = performance.now();
    while (alive() !== before.alive) {
      if (performance.now() - begun > leavesWithinMs) throw new Error(`it does not end: ${alive()} is left`);
      await turn();
    }
    return { code: process.exitCode, ...said };
  } finally {
    process.stdout.removeAllListeners("error");
    process.exitCode = 0;
    setEnv(before.env);
    process.chdir(before.cwd);
  }
}

function alive(): string {
  return process.getActiveResourcesInfo().toSorted().join(", ");
}

function setEnv(env: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(process.env)) if (env[name] === undefined) delete process.env[name];
  Object.assign(process.env, env);
}

process.on("message", (call: CliCall) => {
  run(call).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
