/** The groups of the store on a client of the test's own. */
import type postgres from "postgres";
import { auditOf } from "../../src/store/audit.ts";
import { childrenOf } from "../../src/store/children.ts";
import { claimsOf } from "../../src/store/claims.ts";
import { commandSendersOf } from "../../src/store/command-senders.ts";
import { defaultNames } from "../../src/store/names.ts";
import { readsOf } from "../../src/store/reads.ts";
import { timedOf } from "../../src/store/timed.ts";
import { schedulesOf } from "../../src/store/schedules.ts";
import { startsOf } from "../../src/store/starts.ts";
import { streamsOf } from "../../src/store/streams.ts";
import { workersOf } from "../../src/store/workers.ts";

export function storeOn(sql: postgres.Sql | postgres.TransactionSql) {
  const database = {
    sql: sql as postgres.Sql,
    names: defaultNames,
    target: { place: "the test's", user: "the test's", schema: defaultNames.schema },
  };
  return {
    audit: auditOf(database),
    children: childrenOf(database),
    claims: claimsOf(database),
    commands: commandSendersOf(database).commands,
    reads: readsOf(database),
    schedules: schedulesOf(database),
    timed: timedOf(database),
    starts: startsOf(database),
    streams: streamsOf(database),
    workers: workersOf(database),
  };
}
