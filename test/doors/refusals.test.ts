/** No raw error of a driver, and no password, leaves an entry point: whatever is wrong with the database, and whenever. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import postgres from "postgres";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  awaitResult,
  cancelExecution,
  configure,
  defer,
  getExecution,
  getExecutionResult,
  listExecutionAttempts,
  listExecutions,
  reRunExecution,
  rescheduleExecution,
} from "../../src/defer.ts";
import { createOrchestrator, defineFlow, FlowledgerError } from "../../src/index.ts";
import type { Execution, Logger, Orchestrator } from "../../src/index.ts";
import { runCli } from "../support/cli.ts";
import { administer, emptyDatabase, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { askedOver, untilPending } from "../support/doors.ts";
import { refusal } from "../support/flows.ts";
import { refusing, startFake, startTls } from "../support/servers.ts";

const database = await testDatabase();
const server = new URL(database.url);
const flow = defineFlow("refused", {}, { maxDuration: "1h" });
flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
const deferred = defer((n: number) => n, { name: "refused.function" });
const someId = "01a1fc32-0000-7000-8000-00000000dead";

/** Nothing of these may be seen, wherever a password may come from. */
const secrets = ["s3cr3t", server.password];
const written: string[] = [];
const logger: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, fields) => void written.push(inspect([message, fields], { depth: 10 })),
  error: (message, fields) => void written.push(inspect([message, fields], { depth: 10 })),
};

beforeEach(() => {
  written.length = 0;
  for (const method of ["log", "warn", "error"] as const)
    vi.spyOn(console, method).mockImplementation(
      (...args: unknown[]) => void written.push(inspect(args, { depth: 10 })),
    );
});

afterEach(() => {
  vi.restoreAllMocks();
  const all = written.join("\n");
  if (secrets.some((secret) => all.includes(secret))) throw new Error(`a secret was written: ${all}`);
});

/** What an orchestrator can be asked. */
const calls: Record<string, (orchestrator: Orchestrator) => Promise<unknown>> = {
  migrate: (one) => one.migrate(),
  startWorker: (one) => one.startWorker(),
  start: (one) => one.flow(flow).start(1),
  startExecution: (one) => one.flow(flow).startExecution(1),
  createExecution: (one) => one.flow(flow).createExecution(),
  startMany: (one) => one.flow(flow).startMany([1, 2]),
  run: (one) => Promise.resolve(one.flow(flow).run(1)),
  "getRuntimeStream of a flow": (one) => one.flow(flow).getRuntimeStream(1).next(),
  getFlowData: (one) => one.flow(flow).getFlowData("k", { noWarning: true }),
  setFlowData: (one) => one.flow(flow).setFlowData("k", 1, { noWarning: true }),
  appendFlowData: (one) => one.flow(flow).appendFlowData("k", 1, { noWarning: true }),
  delFlowData: (one) => one.flow(flow).delFlowData("k", { noWarning: true }),
  getExecution: (one) => one.getExecution(someId),
  listExecutions: (one) => one.listExecutions(),
  listPendingInterrupts: (one) => one.listPendingInterrupts(),
  verify: (one) => one.verify(),
  rebuild: (one) => one.rebuild(),
  prune: (one) => one.prune({ closedBefore: new Date(0) }),
  "a deferred function": () => deferred(1),
  awaitResult: () => awaitResult(deferred)(1),
  "getExecution of defer": () => getExecution(someId),
  "getExecutionResult of defer": () => getExecutionResult(someId),
  "listExecutions of defer": () => listExecutions(),
  "listExecutionAttempts of defer": () => listExecutionAttempts(someId),
  "cancelExecution of defer": () => cancelExecution(someId),
  "rescheduleExecution of defer": () => rescheduleExecution(someId),
  "reRunExecution of defer": () => reRunExecution(someId),
};

/** What a handle can be asked, apart from what waits for as long as it takes. */
const handleCalls: Record<string, (execution: Execution) => Promise<unknown>> = {
  emit: (one) => one.emit("Any", 1),
  seal: (one) => one.seal(),
  close: (one) => one.close(),
  cancel: (one) => one.cancel(),
  continueWith: (one) => one.continueWith("q", 1),
  withdraw: (one) => one.withdraw("q"),
  intervene: (one) => one.intervene({}),
  markInterventionConsumed: (one) => one.markInterventionConsumed(someId, { consumer: "c", status: "applied" }),
  getPendingInterrupts: (one) => one.getPendingInterrupts(),
  getSubFlowFrames: (one) => one.getSubFlowFrames(),
  emitToSubFlow: (one) => one.emitToSubFlow(someId, "Any", 1),
  cancelSubFlow: (one) => one.cancelSubFlow(someId),
  history: (one) => one.history(),
  stateAt: (one) => one.stateAt(1),
  fork: (one) => one.fork({ at: 1 }),
  save: (one) => one.save(),
  getRuntimeStream: (one) => one.getRuntimeStream().next(),
  streamItems: (one) => one.streamItems().next(),
  getState: (one) => one.result.getState(),
  getMeta: (one) => one.result.getMeta(),
  getInterventions: (one) => one.result.getInterventions(),
  getFinalResult: (one) => one.result.getFinalResult({ timeout: "1h" }),
  getLatestIntervention: (one) => one.result.getLatestIntervention(null),
};

interface Refused {
  readonly code: string;
  /** What it says of the trouble and of the remedy. */
  readonly words: RegExp;
  /** The library looked itself: there need be no error below its own. */
  readonly isOwn?: boolean;
}

/** What is wrong with an error that should be the library's own; nothing where it is as it should be. */
function flaws(error: unknown, { code, words, isOwn = false }: Refused): string[] {
  const shown = inspect(error, { depth: 20, showHidden: true, getters: true });
  if (!(error instanceof FlowledgerError)) return [`a raw error: ${shown}`];
  const found: string[] = [];
  if (error.code !== code || !words.test(error.message)) found.push(`another error: ${error.code} ${error.message}`);
  if (!isOwn && !(error.cause instanceof Error)) found.push(`its cause: ${inspect(error.cause)}`);
  if (secrets.some((secret) => shown.includes(secret) || JSON.stringify(error).includes(secret)))
    found.push(`a secret: ${shown}`);
  return found;
}

type Calls = readonly (readonly [name: string, call: () => Promise<unknown>])[];

/** All calls at once, and what is wrong with their refusals. */
async function flawsOf(asked: Calls, refused: Refused): Promise<string[]> {
  const errors = await Promise.all(asked.map(([, call]) => refusal(call())));
  return errors.flatMap((error, index) => flaws(error, refused).map((flaw) => `${asked[index]?.[0]}: ${flaw}`));
}

/** A database that cannot be used, from beginning to end. */
interface Trouble extends Refused {
  readonly name: string;
  /** Gives where to connect to, and puts things right when it is asked for more. */
  make(): AsyncGenerator<string, void, undefined>;
  /** What works all the same. */
  readonly works?: readonly string[];
}

const local = (port: number, query = "") => `postgres://ann:s3cr3t@127.0.0.1:${port}/db${query}`;

async function* fake(serve: Parameters<typeof startFake>[0], query = "") {
  await using one = await startFake(serve);
  yield local(one.port, query);
  // Nobody hammers at a server that says no.
  expect(one.count).toBeLessThan(100);
}

/** A role of its own, which the statements prepare. */
async function* role(...statements: ((name: string) => string)[]) {
  const name = `refused_${Math.random().toString(36).slice(2, 10)}`;
  const url = new URL(database.url);
  Object.assign(url, { username: name, password: "s3cr3t" });
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`create role ${name} login password 's3cr3t'`);
    for (const statement of statements) await admin.unsafe(statement(name));
  });
  yield url.href;
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`drop owned by ${name}; drop role ${name}`);
  });
}

function changed(change: (url: URL) => void): string {
  const url = new URL(database.url);
  change(url);
  return url.href;
}

const troubles: Trouble[] = [
  {
    name: "a port that nobody listens on",
    code: "CONNECTION_FAILED",
    words: /127\.0\.0\.1:9\/db: no server listens there \(ECONNREFUSED\): start Postgres, or correct host and port/,
    async *make() {
      yield local(9);
    },
  },
  {
    name: "a host that nobody knows",
    code: "CONNECTION_FAILED",
    words:
      /nowhere\.invalid:5432\/db: the host('s name could not be looked up| is not known) .*: .*correct host and port/,
    async *make() {
      yield "postgres://ann:s3cr3t@nowhere.invalid/db";
    },
  },
  {
    name: "a server that closes at once",
    code: "CONNECTION_FAILED",
    words: /closed the connection before it had answered.*: .*correct host and port/,
    make: () => fake((client) => client.end()),
  },
  {
    name: "a server that resets at once",
    code: "CONNECTION_FAILED",
    words: /the connection was lost \(ECONNRESET\): /,
    make: () => fake((client) => client.resetAndDestroy()),
  },
  {
    name: "a server that speaks HTTP",
    code: "CONNECTION_FAILED",
    words: /what answers there is not Postgres.*: .*correct host and port/,
    make: () => fake((client) => client.once("data", () => client.end("HTTP/1.1 400 Bad Request\r\n\r\n"))),
  },
  {
    name: "a server that greets first",
    code: "CONNECTION_FAILED",
    words: /what answers there is not Postgres.*: .*correct host and port/,
    make: () => fake((client) => client.write("220 mail.example ESMTP\r\n")),
  },
  {
    name: "a server that says nothing",
    code: "CONNECTION_FAILED",
    words: /the server does not answer \(CONNECT_TIMEOUT\): /,
    make: () => fake(() => {}, "?connect_timeout=1"),
  },
  {
    name: "a server that says nothing to a request for TLS",
    code: "CONNECTION_FAILED",
    words: /the server does not answer \(CONNECT_TIMEOUT\): /,
    make: () => fake(() => {}, "?sslmode=require&connect_timeout=1"),
  },
  {
    name: "a server without TLS, where it is required",
    code: "CONNECTION_FAILED",
    words: /TLS failed: it offers none \(NO_TLS\): switch it on in the server, or choose sslmode=prefer/,
    async *make() {
      yield changed((url) => url.searchParams.set("sslmode", "require"));
    },
  },
  {
    name: "a server that requires TLS",
    code: "CONNECTION_FAILED",
    words:
      /user ann was refused \(no pg_hba\.conf entry.*no encryption\): add sslmode=require to the connection string/,
    make: () =>
      fake(refusing("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "ann", database "db", no encryption')),
  },
  {
    name: "a certificate that nobody signed",
    code: "CONNECTION_FAILED",
    words: /TLS failed: its certificate is signed by itself \(DEPTH_ZERO_SELF_SIGNED_CERT\): give its authority/,
    async *make() {
      await using tls = await startTls({ host: server.hostname, port: Number(server.port) });
      if (!tls) return;
      yield changed((url) => {
        Object.assign(url, { hostname: "localhost", port: String(tls.port) });
        url.searchParams.set("sslmode", "verify-full");
      });
    },
  },
  {
    name: "a server that starts up",
    code: "CONNECTION_FAILED",
    words: /the database system is starting up \(57P03\): try again/,
    make: () => fake(refusing("57P03", "the database system is starting up")),
  },
  {
    name: "a database that does not exist",
    code: "CONNECTION_FAILED",
    words: /\/no_such: the database does not exist: create it, or correct the name/,
    async *make() {
      yield changed((url) => (url.pathname = "/no_such"));
    },
  },
  {
    name: "a wrong password",
    code: "CONNECTION_FAILED",
    words: /user \S+ was refused: check user and password/,
    async *make() {
      yield changed((url) => (url.password = "s3cr3t"));
    },
  },
  {
    name: "no password",
    code: "CONNECTION_FAILED",
    words: /user \S+ was refused: check user and password/,
    async *make() {
      yield changed((url) => (url.password = ""));
    },
  },
  {
    name: "a start-up parameter that Postgres does not know",
    code: "DATABASE_REFUSED",
    words:
      /unrecognized configuration parameter "flow_binding" \(SQLSTATE 42704\): take it out of the connection string/,
    async *make() {
      yield changed((url) => url.searchParams.set("flow_binding", "require"));
    },
  },
  {
    name: "a role that may not log in",
    code: "CONNECTION_FAILED",
    words: /was refused \(role "\S+" is not permitted to log in\): check the user/,
    make: () => role((name) => `alter role ${name} nologin`),
  },
  {
    name: "a role that has no connection left",
    code: "CONNECTION_FAILED",
    words: /it has no connection left: close some, raise max_connections/,
    make: () => role((name) => `alter role ${name} connection limit 0`),
  },
  {
    name: "a role that may not connect",
    code: "PERMISSION_DENIED",
    words: /role "\S+" may not do that .*permission denied for database \S+: grant it the right/,
    async *make() {
      const { name } = database;
      const owner = decodeURIComponent(server.username);
      await administer(database.adminUrl, (admin) => admin.unsafe(`revoke connect on database ${name} from public`));
      yield* role(() => `grant connect on database ${name} to ${owner}`);
      await administer(database.adminUrl, (admin) => admin.unsafe(`grant connect on database ${name} to public`));
    },
  },
  {
    name: "a role without rights",
    code: "PERMISSION_DENIED",
    words: /role "\S+" may not do that .*permission denied for .*: grant it the right, or connect as a role that/,
    make: () => role(),
    // Without a right to make schemas it is refused too, for what stands there already.
    works: ["migrate"],
  },
  {
    name: "a database that is not migrated",
    code: "NOT_MIGRATED",
    words: /schema "flowledger" does not exist, or is older than this library: .*run npx flowledger migrate/,
    isOwn: true,
    async *make() {
      await using empty = await emptyDatabase();
      yield empty.url;
    },
    works: ["migrate"],
  },
];

test.each(troubles)("$name is said in so many words by every call", async (trouble) => {
  for await (const connection of trouble.make()) {
    await using orchestrator = createOrchestrator({ connection, flows: [flow], functions: [deferred], logger });
    configure(orchestrator);
    const asked = Object.entries(calls).filter(([name]) => !trouble.works?.includes(name));

    expect(
      await flawsOf(
        asked.map(([name, call]) => [name, () => call(orchestrator)]),
        trouble,
      ),
    ).toEqual([]);
  }
});

test.each(troubles)("$name is said in one line by the command line", async (trouble) => {
  for await (const connection of trouble.make()) {
    const { code, stdout, stderr } = await runCli(connection, "list", "--verbose");

    expect(code).toBe(1);
    const [first = "", ...stack] = stderr.split("\n");
    expect(first).toMatch(/^error: /);
    expect(first).toMatch(trouble.words);
    expect(stack.join("\n")).toMatch(/Error: /);
    for (const secret of secrets) expect(`${stdout}${stderr}`).not.toContain(secret);
  }
});

const commands: readonly (readonly string[])[] = [
  ["migrate"],
  ["console"],
  ["list"],
  ["show", someId],
  ["tail", someId],
  ["start", "refused", "1"],
  ["emit", someId, "Any"],
  ["resume", someId, "q"],
  ["withdraw", someId, "q"],
  ["intervene", someId, "{}"],
  ["seal", someId],
  ["retry", someId, "--reason", "mended"],
  ["skip", someId, "--reason", "by hand"],
  ["edit-state", someId, "--delete", "draft", "--reason", "typo"],
  ["pause", someId, "--reason", "maintenance"],
  ["unpause", someId, "--reason", "done"],
  ["close", someId],
  ["cancel", someId],
  ["verify"],
  ["rebuild"],
  ["prune", "--closed-before", "2020-01-01"],
  ["doctor"],
];

test("every command says in one line that there is no server, and ends with 1", async () => {
  for (let at = 0; at < commands.length; at += 4) {
    const some = commands.slice(at, at + 4);
    const results = await Promise.all(some.map((command) => runCli(local(9), ...command)));
    results.forEach(({ code, stdout, stderr }, index) => {
      const line = some[index]?.[0] === "doctor" ? stdout : stderr;
      expect(code).toBe(1);
      expect(line).toMatch(/^(error: |fail {2}connection {2}).*no server listens there \(ECONNREFUSED\).*\n$/);
      expect(line).not.toContain("s3cr3t");
    });
  }
});

test.each([
  "postgres://ann:s3cr3t@[/db",
  "postgres://ann:s3cr3t@host:notaport/db",
  "postgres://ann:s3/cr3t@host/db",
  "postgres://ann:%zzs3cr3t@host/db",
  "host=db user=ann password=s3cr3t",
  "ann:s3cr3t",
])("connection string %j, which cannot be read, is not shown with its password", async (connection) => {
  let error: unknown;
  try {
    await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });
    error = await refusal(orchestrator.listExecutions());
  } catch (thrown) {
    error = thrown;
  }

  expect(error).toBeInstanceOf(FlowledgerError);
  for (const secret of ["s3cr3t", "cr3t"])
    expect(inspect(error, { depth: 20, showHidden: true })).not.toContain(secret);
  const { stderr, code } = await runCli(connection, "list", "--verbose");
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: /);
  expect(stderr).not.toContain("cr3t");
});

// ── while it is in use ──────────────────────────────────────────────────────────────────────────────────────

interface InUse extends AsyncDisposable {
  readonly own: TestDatabase;
  readonly orchestrator: Orchestrator;
  readonly execution: Execution;
}

/** An execution that waits for an answer, and an orchestrator that has read it. */
async function inUse(
  connection: (own: TestDatabase) => Parameters<typeof createOrchestrator>[0] = () => ({}),
): Promise<InUse> {
  const own = await testDatabase();
  const orchestrator = createOrchestrator({
    connection: own.url,
    flows: [flow],
    functions: [deferred],
    logger,
    ...connection(own),
  });
  configure(orchestrator);
  await using worker = createOrchestrator({ connection: own.url, flows: [flow] });
  await worker.startWorker({ drainTimeout: "1s" });
  const { id } = await worker.flow(flow).startExecution(1);
  const execution = await orchestrator.getExecution(id);
  await untilPending(execution);
  return {
    own,
    orchestrator,
    execution,
    async [Symbol.asyncDispose]() {
      await orchestrator.close();
      await own.drop();
    },
  };
}

/** Without what does not end by itself, or asks nothing of the database. */
const { migrate: _, startWorker: __, ...askingCalls } = calls;

function everyCall({ orchestrator, execution }: InUse): Calls {
  return [
    ...Object.entries(askingCalls).map(([name, call]) => [name, () => call(orchestrator)] as const),
    ...Object.entries(handleCalls).map(([name, call]) => [`execution.${name}`, () => call(execution)] as const),
  ];
}

test("a database that is dropped while it is used is said to be gone by every call", async () => {
  await using used = await inUse();
  await used.own.drop();

  // Connections that were open hear that they were ended; all others that the database does not exist.
  const first = await flawsOf(everyCall(used), { code: "CONNECTION_FAILED", words: /: .+: .+/ });
  const then = await flawsOf(everyCall(used), {
    code: "CONNECTION_FAILED",
    words: /does not exist: create it, or correct the name/,
  });

  expect([...first, ...then]).toEqual([]);
});

test("a worker whose database is dropped says so in its log, and stops in time", async () => {
  await using used = await inUse();
  const { own, orchestrator } = used;
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });

  await own.drop();
  while (!written.some((line) => line.includes("does not exist"))) await delay(20);
  const stoppedAt = performance.now();
  await orchestrator.close();

  expect(performance.now() - stoppedAt).toBeLessThan(8000);
});

test("rights that are taken away while they are used are named by every call", async () => {
  await using used = await inUse();
  const { own } = used;
  const owner = decodeURIComponent(new URL(own.url).username);
  await administer(own.adminUrl, async (admin) => {
    await admin.unsafe(`alter schema flowledger owner to current_user; revoke all on schema flowledger from ${owner}`);
  });

  expect(
    await flawsOf(everyCall(used), {
      code: "PERMISSION_DENIED",
      words: /role "\S+" may not do that .*permission denied for schema flowledger\): grant it the right/,
    }),
  ).toEqual([]);
});

/** Holds all tables, so that every statement waits. */
async function locked(own: TestDatabase): Promise<AsyncDisposable> {
  const holder = postgres(own.adminUrl, { max: 1, onnotice: () => {} });
  const tables = await holder<{ name: string }[]>`
    select c.oid::regclass::text as name from pg_class c where c.relnamespace = 'flowledger'::regnamespace and c.relkind = 'r'`;
  const { promise: over, resolve: release } = Promise.withResolvers<void>();
  const { promise: held, resolve: hold } = Promise.withResolvers<void>();
  const ended = holder.begin(async (tx) => {
    await tx.unsafe(`lock table ${tables.map(({ name }) => name).join(", ")} in access exclusive mode`);
    hold();
    await over;
  });
  await held;
  return {
    async [Symbol.asyncDispose]() {
      release();
      await ended;
      await holder.end();
    },
  };
}

test.each([
  ["statement_timeout", "57014", /statement timeout \(SQLSTATE 57014\): try again, or raise statement_timeout/],
  ["lock_timeout", "55P03", /lock timeout \(SQLSTATE 55P03\): try again, or raise lock_timeout/],
])("a %s of the caller's own is named by every call that runs into it", async (name, _sqlstate, words) => {
  const withLimit = (own: TestDatabase) => ({
    connection: changedOf(own.url, (url) => url.searchParams.set(name, "100")),
  });
  await using used = await inUse(withLimit);
  await using _lock = await locked(used.own);

  expect(await flawsOf(everyCall(used), { code: "DATABASE_REFUSED", words })).toEqual([]);
});

function changedOf(of: string, change: (url: URL) => void): string {
  const url = new URL(of);
  change(url);
  return url.href;
}

test("connections that are killed under a statement are said to be lost by every call", async () => {
  await using used = await inUse();
  const { own } = used;
  await using _lock = await locked(own);
  const killing = setInterval(() => {
    void administer(
      own.adminUrl,
      (admin) => admin`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = ${own.name} and application_name = 'flowledger' and wait_event_type = 'Lock'`,
    ).catch(() => {});
  }, 200);
  try {
    const lost = { code: "CONNECTION_FAILED", words: /the connection was lost|\(57P01\)/ };
    expect(await flawsOf(everyCall(used), lost)).toEqual([]);
  } finally {
    clearInterval(killing);
  }
});

// ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────

test.each([1, 2, 3])("a worker that gets only %i connections says so, and leaves nothing behind", async (limit) => {
  for await (const connection of role(
    (name) => `alter role ${name} connection limit ${limit}`,
    (name) => `grant ${decodeURIComponent(server.username)} to ${name}`,
    (name) => `alter role ${name} in database ${database.name} set role = ${decodeURIComponent(server.username)}`,
  )) {
    await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });

    const start = () => orchestrator.startWorker({ drainTimeout: "100ms" });
    const refused = { code: "CONNECTION_FAILED", words: /it has no connection left: close some/ };
    const found = await flawsOf([["startWorker", start]], refused);
    await orchestrator.close();

    expect(found).toEqual([]);
    expect(await database.sql`select from flowledger.workers`).toHaveLength(0);
  }
});

test("a password that is a function is asked for each connection, also by the worker's thread and its jobs", async () => {
  let asked = 0;
  const { hostname: host, port, username, password, pathname } = server;
  const give = async () => {
    asked += 1;
    return decodeURIComponent(password);
  };
  const connection = { host, port: Number(port), username, database: pathname.slice(1), password: give };
  await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });

  await orchestrator.startWorker({ drainTimeout: "100ms" });
  const execution = await orchestrator.flow(flow).startExecution(1);

  expect(await untilPending(execution)).toHaveLength(1);
  expect(asked).toBeGreaterThanOrEqual(4);
  await execution.cancel();
});

test("a function for the password that fails is said to, and ends no process", async () => {
  const { hostname: host, port, username, pathname } = server;
  const password = () => Promise.reject(new Error("the vault is shut"));
  const connection = { host, port: Number(port), username, database: pathname.slice(1), password };
  await using orchestrator = createOrchestrator({ connection, flows: [flow], functions: [deferred], logger });
  configure(orchestrator);

  expect(
    await flawsOf(
      Object.entries(calls).map(([name, call]) => [name, () => call(orchestrator)]),
      {
        code: "CONNECTION_FAILED",
        words: /the function given as password failed \(the vault is shut\): correct it/,
      },
    ),
  ).toEqual([]);
});

test("connection options that cannot travel to a worker's thread are refused by name", async () => {
  const tls = await startTls({ host: server.hostname, port: Number(server.port) });
  if (!tls) return;
  await using _ = tls;
  const { username, password, pathname } = server;
  const ssl = { rejectUnauthorized: false, checkServerIdentity: () => undefined };
  const connection = { host: "localhost", port: tls.port, username, password, database: pathname.slice(1), ssl };
  await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });

  expect((await orchestrator.flow(flow).createExecution()).flow).toBe("refused");
  expect(
    await flawsOf([["startWorker", () => orchestrator.startWorker()]], {
      code: "USAGE_INVALID",
      words: /connection of a worker must be data, apart from the password.*: leave functions out of ssl/,
    }),
  ).toEqual([]);
});

test.each(["require", "prefer"])("over TLS, with sslmode=%s, everything works", async (mode) => {
  await using tls = await startTls({ host: server.hostname, port: Number(server.port) });
  if (!tls) return;
  const connection = changed((url) => {
    Object.assign(url, { hostname: "localhost", port: String(tls.port) });
    url.searchParams.set("sslmode", mode);
  });

  expect(await askedOver(connection, flow, logger)).toEqual(["q"]);
});

const pendingBy = (connection: string) => askedOver(connection, flow, logger);

test.each(["prefer", "allow", "disable"])("sslmode=%s works with a server that has no TLS", async (mode) => {
  expect(await pendingBy(changed((url) => url.searchParams.set("sslmode", mode)))).toEqual(["q"]);
});

test("sslmode=verify-ca asks the authority of sslrootcert, and not for the name", async () => {
  await using tls = await startTls({ host: server.hostname, port: Number(server.port) });
  if (!tls) return;
  const folder = await mkdtemp(join(tmpdir(), "flowledger-ca-"));
  const file = join(folder, "ca.pem");
  await writeFile(file, tls.certificate);
  const over = (mode: string, authority?: string) =>
    changed((url) => {
      // The certificate is for "localhost".
      Object.assign(url, { hostname: "127.0.0.1", port: String(tls.port) });
      url.searchParams.set("sslmode", mode);
      if (authority) url.searchParams.set("sslrootcert", authority);
    });

  expect(await pendingBy(over("verify-ca", file))).toEqual(["q"]);
  for (const refused of [over("verify-ca"), over("verify-full", file)])
    await expect(pendingBy(refused)).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      message: expect.stringContaining("TLS failed") as unknown,
    });
  await rm(folder, { recursive: true });
});

test("PGSSLMODE counts where the connection says nothing, for every connection alike", async () => {
  vi.stubEnv("PGSSLMODE", "require");
  try {
    expect(await pendingBy(changed((url) => url.searchParams.set("sslmode", "disable")))).toEqual(["q"]);
    await expect(pendingBy(server.href)).rejects.toMatchObject({
      message: expect.stringContaining("NO_TLS") as unknown,
    });
  } finally {
    vi.unstubAllEnvs();
  }
});

test("no part of a password is shown that was not encoded", () => {
  for (const secret of [
    "s3cret/9",
    "s3cret?9",
    "s3cret#9",
    "p@s3cret/9",
    "p@s3cret?9",
    "p@s3cret#9",
    "p@s3cret:1/9",
    "s3cret%9",
  ]) {
    const error: unknown = (() => {
      try {
        return createOrchestrator({ connection: `postgres://app:${secret}@127.0.0.1:1/orders` });
      } catch (thrown) {
        return thrown;
      }
    })();

    expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
    expect(inspect(error, { depth: 10 })).not.toContain("s3cret");
  }
});
