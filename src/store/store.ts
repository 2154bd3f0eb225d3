/** The database, as the other rooms see it: statements in groups by subject. No other room knows SQL. */
import { withTimeout } from "../base/async.ts";
import { append, appendAndClaim } from "./append.ts";
import type { Append, AppendResult } from "./append.ts";
import { auditOf } from "./audit.ts";
import type { Audit } from "./audit.ts";
import { childrenOf } from "./children.ts";
import type { Children } from "./children.ts";
import { claimsOf } from "./claims.ts";
import type { Claim, ClaimOptions, Claims, SlotRequest } from "./claims.ts";
import type { ExecutionId, WorkerId } from "../ledger/event.ts";
import { acquainted, openDatabase, pgConfig, refusing, threadOptions } from "./client.ts";
import type { ConnectionOption } from "./client.ts";
import { collectionsOf } from "./collections.ts";
import type { Collections } from "./collections.ts";
import type { CallerTransaction } from "./caller-transaction.ts";
import { commandSendersOf, commandsInOf, type CommandSenders } from "./command-senders.ts";
import type { CommandsIn } from "./commands.ts";
import { bulksOf, type Bulks } from "./bulks.ts";
import { operationsOf, type Operations } from "./operations.ts";
import { timedOf, type Timed } from "./timed.ts";
import { picturesOf, type Pictures } from "./pictures.ts";
import { statesOf, type States } from "./states.ts";
import { consoleReadsOf } from "./console.ts";
import type { ConsoleReads } from "./console.ts";
import { operatorsOf, type Operators } from "./operators.ts";
import { flowDataOf } from "./flow-data.ts";
import type { FlowDataStore } from "./flow-data.ts";
import { functionsOf } from "./functions.ts";
import type { Functions } from "./functions.ts";
import { looksOf } from "./looks.ts";
import type { Looks } from "./looks.ts";
import { gaugesOf } from "./gauges.ts";
import type { Gauges } from "./gauges.ts";
import { migrate, requireMigrated } from "./migrate.ts";
import { schemaNames } from "./names.ts";
import type { SchemaNames } from "./names.ts";
import { readsOf } from "./reads.ts";
import type { Reads } from "./reads.ts";
import { noAnswer, refusalOf } from "./refusals.ts";
import { schedulesOf } from "./schedules.ts";
import type { Schedules } from "./schedules.ts";
import { problem } from "./socket.ts";
import { startsOf } from "./starts.ts";
import type { Starts } from "./starts.ts";
import { streamsOf } from "./streams.ts";
import type { StreamStore } from "./streams.ts";
import { transactionsOf } from "./transactions.ts";
import type { Transactions } from "./transactions.ts";
import { openWakeups } from "./wakeups.ts";
import type { Wakeups } from "./wakeups.ts";
import { workersOf } from "./workers.ts";
import type { Workers } from "./workers.ts";

export interface Store extends CommandSenders {
  readonly names: SchemaNames;
  /** host:port/database */
  readonly place: string;
  readonly starts: Starts;
  readonly claims: Claims;
  readonly commits: Commits;
  readonly transactions: Transactions;
  /** Commands in a transaction of the caller's own. */
  readonly commandsIn: (tx: CallerTransaction) => Promise<CommandsIn>;
  readonly operators: Operators;
  readonly bulks: Bulks;
  readonly operations: Operations;
  readonly pictures: Pictures;
  readonly states: States;
  readonly timed: Timed;
  readonly children: Children;
  readonly reads: Reads;
  readonly looks: Looks;
  readonly console: ConsoleReads;
  readonly streams: StreamStore;
  readonly collections: Collections;
  readonly flowData: FlowDataStore;
  readonly schedules: Schedules;
  readonly workers: Workers;
  readonly functions: Functions;
  readonly gauges: Gauges;
  readonly audit: Audit;
  readonly wakeups: Wakeups;
  /** What other drivers and threads need to connect to the same database. */
  readonly links: Links;
  /** The library's own error for what another driver, or a thread, raised here. */
  explain(error: unknown): unknown;
  /** Brings the database to this release. */
  migrate(): Promise<void>;
  /** @throws {NotMigratedError | MigrationError} unless this release can work with the database */
  requireMigrated(): Promise<void>;
  /** Statements that were sent and have not been answered. */
  readonly underWay: number;
  /** Something is under way, or somebody waits to be called. */
  readonly isInUse: boolean;
  close(): Promise<void>;
}

export interface Commits {
  /** One statement for all items. @param skipLocked leaves rows that somebody else has locked for the next batch @default false */
  append(items: readonly Append[], skipLocked?: boolean): Promise<AppendResult[]>;
  /** The same, and slots that are left with it are handed over. @param left what leaves them; of each request `id` is null */
  appendAndClaim(
    items: readonly Append[],
    worker: WorkerId,
    left: readonly SlotRequest[],
    options: ClaimOptions,
  ): Promise<{ readonly results: AppendResult[]; readonly claimed: Map<ExecutionId, Claim> }>;
}

export interface Links {
  /** For graphile-worker's own driver. */
  pg(): ReturnType<typeof pgConfig>;
  /** For a client in a thread. */
  thread(name: string): ReturnType<typeof threadOptions>;
  /** Whether statements may be prepared. */
  readonly isPreparing: boolean;
}

export interface StoreOptions {
  /** The schema that it was migrated into. @default "flowledger" */
  readonly schema?: string;
  /** As `openWakeups` has it. @default true */
  readonly hasShortcuts?: boolean;
  /** Whether it goes by the clock of a test database, and by no other. @default false */
  readonly hasTestClock?: boolean;
}

/** What takes longer is on a dead connection, or leads nowhere. */
const firstAnswerWithinMs = 5000;

/** The same for a statement of any kind, apart from those that may work for minutes. */
const answerWithinMs = 30_000;

/** Connects with the first statement. */
export function openStore(
  option: ConnectionOption,
  { schema = "flowledger", hasShortcuts = true, hasTestClock = false }: StoreOptions = {},
): Store {
  const names = schemaNames(schema);
  const database = openDatabase(option, { names });
  const wakeups = openWakeups(database, hasShortcuts);
  const transactions = transactionsOf(database);
  const guard = <G extends object>(group: G): G => refusing(group, database.target, answerWithinMs);
  /** What works for minutes, and what has limits of its own where it is asked. */
  const patient = <G extends object>(group: G): G => refusing(group, database.target, null);
  return {
    names,
    place: database.target.place,
    starts: guard(startsOf(database)),
    claims: patient(claimsOf(database)),
    commits: patient({
      append: (items, skipLocked) => append(database.sql, items, skipLocked),
      appendAndClaim: (...asked) => appendAndClaim(database.sql, ...asked),
    } satisfies Commits),
    transactions,
    ...commandSendersOf(database, answerWithinMs),
    commandsIn: commandsInOf(database),
    operators: guard(operatorsOf(database)),
    bulks: patient(bulksOf(database)),
    operations: guard(operationsOf(database)),
    pictures: guard(picturesOf(database)),
    states: guard(statesOf(database)),
    timed: guard(timedOf(database)),
    children: guard(childrenOf(database)),
    reads: guard(readsOf(database)),
    looks: guard(looksOf(database)),
    console: guard(consoleReadsOf(database)),
    streams: guard(streamsOf(database)),
    collections: guard(collectionsOf(database)),
    flowData: guard(flowDataOf(database)),
    schedules: guard(schedulesOf(database)),
    workers: guard(workersOf(database)),
    functions: guard(functionsOf(database)),
    gauges: guard(gaugesOf(database)),
    audit: patient(auditOf(database)),
    wakeups,
    links: {
      pg: () => pgConfig(database),
      thread: (name) => threadOptions(database, name),
      get isPreparing() {
        return database.sql.options.prepare;
      },
    },
    explain: (error) => refusalOf(error, database.target),
    migrate: () => migrate(option, names, hasTestClock),
    async requireMigrated() {
      try {
        const migrated = acquainted(database, () => requireMigrated(database, hasTestClock));
        await withTimeout(migrated, firstAnswerWithinMs, () => {
          throw problem(noAnswer, `no answer for ${firstAnswerWithinMs} ms`);
        });
      } catch (error) {
        throw refusalOf(error, database.target);
      }
    },
    get underWay() {
      return database.underWay;
    },
    get isInUse() {
      return database.underWay > 0 || wakeups.isAwaited;
    },
    async close() {
      await wakeups.close();
      await transactions.close();
      // The driver takes a connection that was lost in the middle of a query for a busy one (3.4.9), and would wait for it.
      await database.end({ timeout: 1 });
      wakeups.callAll();
    },
  };
}
