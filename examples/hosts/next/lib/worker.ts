import { orchestrator } from "./order";
import { sql } from "./shop";

export async function serve() {
  await sql`
    create table if not exists purchases (execution_id uuid primary key, amount int not null check (amount <= 1000))`;
  await orchestrator.migrate();
  await orchestrator.startWorker();
  // `next start` waits for nobody at a signal. With NEXT_MANUAL_SIG_HANDLE it leaves the end to us: chunks reach a commit point.
  for (const signal of ["SIGTERM", "SIGINT"])
    process.once(signal, async () => {
      await orchestrator.close();
      process.exit(0);
    });
}
