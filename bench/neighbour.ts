/** The application of `neighbours.ts`: ten workers of graphile-worker that have nothing to do. It says what CPU it took when asked. */
import { Logger, run } from "graphile-worker";

await run({
  connectionString: process.argv[2] ?? "",
  concurrency: 10,
  taskList: { nothing: () => {} },
  parsedCronItems: [],
  logger: new Logger(() => () => {}),
});
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send?.((user + system) / 1000);
});
process.on("disconnect", () => process.exit());
process.send?.("ready");
