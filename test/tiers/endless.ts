/** For `tiers.test.ts`: a tier whose first job, and what that job started, never end by themselves; both connect to a port while they live. */
import { runTier } from "./runner.ts";

const port = Number(process.env["ENDLESS_PORT"]);
const connect = `require("node:net").connect(${port}).on("close", () => process.exit()).on("error", () => process.exit());`;
const stubborn = `process.on("SIGTERM", () => {}); ${connect}`;
const spawning = `require("node:child_process").spawn(process.execPath, ["-e", ${JSON.stringify(stubborn)}]); ${connect}`;

console.log("ready");
await runTier("endless", [
  { name: "first", run: ["-e", spawning] },
  { name: "second", run: ["-e", ""] },
]);
