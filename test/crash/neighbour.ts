/**
 * An application with jobs of its own: a worker of graphile-worker, of the version that NEIGHBOUR names, in the schema that is its
 * default. Each job is a row of the application's table. What it logs above information is a line.
 */
import type * as Graphile from "graphile-worker";
import postgres from "postgres";

const { run, Logger }: typeof Graphile = await import(process.env["NEIGHBOUR"] ?? "");
const connectionString = process.env["CRASH_URL"] ?? "";
const sql = postgres(connectionString, { max: 1 });
const runner = await run({
  connectionString,
  concurrency: 5,
  taskList: {
    async count(payload) {
      await sql`insert into public.counted (n) select n from jsonb_to_record(${sql.json(payload as { n: number })}) as r(n int)`;
    },
  },
  parsedCronItems: [],
  logger: new Logger(() => (level, message) => {
    if (level === "warning" || level === "error")
      process.stdout.write(`log ${level} ${message.replaceAll("\n", " ")}\n`);
  }),
});
process.stdout.write("ready\n");
await runner.promise;
process.stdout.write("stopped\n");
await sql.end();
