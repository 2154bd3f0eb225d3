/** What Postgres, the drivers and the network raise, as the library's own errors: the one place that knows their codes. */
import { z } from "zod";
import {
  ChunksParkedError,
  ClaimedError,
  ConflictError,
  ConnectionError,
  ContractError,
  DatabaseError,
  ExecutionClosedError,
  ExecutionNotFoundError,
  ExecutionSealedError,
  FlowledgerError,
  FlowPausedError,
  InterruptNotPendingError,
  InterventionDisabledError,
  LockedError,
  MigrationError,
  NotMigratedError,
  PayloadError,
  PendingInterruptsError,
  PermissionError,
  ResumeConflictError,
  TokenClosedError,
  TokenUnknownError,
  TokenUsedError,
  UsageError,
} from "../base/errors.ts";
import { socketCodes } from "./socket.ts";

/** What a statement was about, for the words of its refusal. */
export interface Subject {
  readonly id?: string;
  /** What was asked, or asked about. */
  readonly what?: string;
  /** The same where an execution refuses it. @default what */
  readonly refused?: string;
}

/** Where a client is connected to, and as whom. */
export interface Target {
  /** host:port/database */
  readonly place: string;
  readonly user: string;
  readonly schema: string;
  /** What in the connection string asks for a verified certificate, where it is not `sslmode`. */
  readonly verifiesFor?: string;
}

/** Our own: a statement went out, and nothing came back in time. */
export const noAnswer = "NO_ANSWER";

/** The SQLSTATE, or the code of a driver, the network or TLS: of the error, or of what it was made of. */
export function codeOf(error: unknown): string | undefined {
  if (error instanceof FlowledgerError) return codeOf(error.cause);
  if (typeof error !== "object" || error === null) return undefined;
  if ("code" in error && typeof error.code === "string") return error.code;
  // Happy-eyeballs failures come as a bundle.
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  // pg reports a lost connection without a code.
  if (error instanceof Error && /^Connection terminated|connection error and is not queryable$/.test(error.message))
    return socketCodes.closed;
  return undefined;
}

/** Is it the connection that failed, and not the statement? Such work may be sent again once the database is back. */
export function isConnectionLoss(error: unknown): boolean {
  const code = codeOf(error);
  if (code === undefined) return false;
  // 08 connection, 57P admin shutdown and starting up, 53 out of resources, 25P03 and 25P04 ended by a limit of its own.
  return (
    /^(08|57P|53|25P0[34])/.test(code) ||
    code in network ||
    [readOnly, noAnswer, socketCodes.noPassword, socketCodes.wrongSession].includes(code)
  );
}

/** Was it lost after it stood? A limit of the server's own may have ended it, and its last word may not have come through. */
export function isCutOff(error: unknown): boolean {
  return ["25P04", "ECONNRESET", "EPIPE", socketCodes.closed].includes(codeOf(error) ?? "");
}

/** May the same statement succeed if it is sent again: lock and statement timeouts, deadlocks, serialization failures. */
export function isTransient(error: unknown): boolean {
  return isConnectionLoss(error) || isLocked(error) || ["40001", "40P01", "57014"].includes(codeOf(error) ?? "");
}

/** Did Postgres itself say that the statement failed, or was it never sent? Then nothing of it is there. */
export function isRefusal(error: unknown): boolean {
  const code = codeOf(error);
  // An error of ours without a cause is a refusal by one of our functions.
  return code === undefined ? error instanceof FlowledgerError : /^(?!08|57P)[0-9F][0-9A-Z]{4}$/.test(code);
}

/** Did it wait for somebody else's transaction for as long as it may? */
export function isLocked(error: unknown): boolean {
  return [lockedCode, "55P03"].includes(codeOf(error) ?? "");
}

/** Our own: like lock_not_available, and the detail has the pid of the session that has the lock. */
const lockedCode = "FL011";

/** Our own: its flow is paused, so a start claims nothing. */
export function isClaimRefused(error: unknown): boolean {
  return codeOf(error) === "FL015";
}

/** The connection was ended by us: it does not come back. */
export function isEnded(error: unknown): boolean {
  return codeOf(error) === "CONNECTION_ENDED";
}

/** The role has no right to it. */
export const mayNot = "42501";

/** A standby, or a database that was set to take no writes for now. */
const readOnly = "25006";

const network: Readonly<Record<string, string>> = {
  [socketCodes.closed]: "the connection was lost",
  CONNECTION_DESTROYED: "the connection was lost",
  [socketCodes.ended]: "this orchestrator was closed",
  [socketCodes.closedEarly]: "what listens there closed the connection before it had answered",
  [socketCodes.timeout]: "the server does not answer",
  [socketCodes.notPostgres]: "what answers there is not Postgres",
  ECONNREFUSED: "no server listens there",
  ECONNRESET: "the connection was lost",
  ENOENT: "there is no such socket",
  EPIPE: "the connection was lost",
  ETIMEDOUT: "the server does not answer",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  EAI_AGAIN: "the host's name could not be looked up",
  ENOTFOUND: "the host is not known",
};

const tls: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is signed by itself",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is signed by an authority that is not known here",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is signed by an authority that is not known here",
  UNABLE_TO_GET_ISSUER_CERT: "its certificate is signed by an authority that is not known here",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate is signed by an authority that is not known here",
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not valid yet",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another host",
  [socketCodes.noTls]: "it offers none",
};

/** What to do about what Postgres refuses now and may take later. */
const remedies: Readonly<Record<string, string>> = {
  "25P02": "roll the transaction back, and begin another",
  "25P03": "run the transaction again, or raise idle_in_transaction_session_timeout",
  "25P04": "run the transaction again, or raise transaction_timeout",
  "40001": "run the transaction again",
  "40P01": "run the transaction again",
  "42704": "take it out of the connection string, if it came from there",
  "55P03": "try again, or raise lock_timeout",
  "57014": "try again, or raise statement_timeout",
};

const Raised = z.object({ message: z.string(), detail: z.string().optional(), hint: z.string().optional() });

/** What `refuse_interrupt` says in its detail. */
const End = z.object({
  status: z.string().optional(),
  by: z.string().optional(),
  at: z.string().optional(),
  reason: z.string().optional(),
  pending: z.array(z.string()),
});

/** What `refuse_claim` says. */
const Claim = z.object({ by: z.string(), at: z.string() });

/** When a link was used. */
const Use = z.object({ at: z.string() });

const Place = z.object({ where: z.string(), path: z.array(z.union([z.string(), z.number()])), problem: z.string() });

const Parked = z.array(z.object({ chunk: z.string(), index: z.int().nullable(), executionId: z.string() }));

const FlowPause = z.object({ flow: z.string(), since: z.string(), actor: z.string(), reason: z.string() });

const Since = z.array(
  z.object({ seq: z.int(), type: z.string(), chunk: z.string().optional(), actor: z.string().optional() }),
);

/** What `refuse_by_contract` says. */
const Violation = z.object({
  where: z.string(),
  issues: z.array(z.object({ path: z.array(z.string()), message: z.string(), code: z.literal("custom") })),
});

/** What a contract or `check_json` refused says so in its detail. */
function valueRefusal(detail: string | undefined, hint: string | undefined, cause: unknown): FlowledgerError | null {
  if (!detail?.startsWith("{")) return null;
  const told: unknown = JSON.parse(detail);
  const violation = Violation.safeParse(told);
  if (violation.success) return new ContractError(violation.data.where, violation.data.issues);
  const { where, path, problem } = Place.parse(told);
  return new PayloadError(where, path, problem, hint ?? "change the value", cause);
}

/** The library's own error for what a statement raised. What is ours already, or has no code at all, passes unchanged. */
export function refusalOf(error: unknown, target: Target, subject: Subject = {}): unknown {
  if (error instanceof FlowledgerError) return error;
  const code = codeOf(error) ?? "";
  const { message, detail, hint } = Raised.safeParse(error).data ?? {
    message: String(error),
    detail: undefined,
    hint: undefined,
  };
  const { id = "", what = "commands", refused = what } = subject;
  switch (code) {
    case "FL001":
      return new ExecutionNotFoundError(id || (detail ?? ""));
    case "FL002":
      return new ExecutionSealedError(id, refused);
    case "FL003":
      return new ExecutionClosedError(id, refused);
    case "FL004":
      return new PendingInterruptsError(id, z.array(z.string()).parse(JSON.parse(detail ?? "[]")));
    case "FL005":
      return new InterruptNotPendingError(id, what, End.parse(JSON.parse(detail ?? "{}")));
    case "FL006":
      return new ResumeConflictError(id, what, detail ?? "");
    case "FL007":
      return new InterventionDisabledError(id, what);
    case "FL008":
      return valueRefusal(detail, hint, error) ?? new UsageError(message, hint ?? "see the documentation", {}, error);
    case "FL009":
      return new MigrationError(message, hint ?? "see the documentation", {}, error);
    case "FL012":
      return new ChunksParkedError(id, Parked.parse(JSON.parse(detail ?? "[]")));
    case "FL013":
      return new ConflictError(
        id,
        Number(/event (\d+)$/.exec(message)?.[1] ?? 0),
        Since.parse(JSON.parse(detail ?? "[]")),
      );
    case "FL014":
      return new FlowPausedError(FlowPause.parse(JSON.parse(detail ?? "{}")));
    case "FL015":
      return new UsageError(message, hint ?? "see the documentation", {}, error);
    case "FL016": {
      const { by, at } = Claim.parse(JSON.parse(detail ?? "{}"));
      return new ClaimedError(id, what, by, at);
    }
    case "FL017":
      return new TokenUnknownError();
    case "FL018":
      return new TokenUsedError(Use.parse(JSON.parse(detail ?? "{}")).at);
    case "FL019":
      return new TokenClosedError();
    case lockedCode:
      return new LockedError(message.split(" is held ")[0] ?? message, Number(detail) || null, error);
    case "28P01":
      return connection(`user ${target.user} was refused`, "check user and password in the connection string");
    case "28000":
      return connection(
        `user ${target.user} was refused (${message})`,
        /no encryption|SSL off/.test(message)
          ? "add sslmode=require to the connection string"
          : /encryption|SSL/.test(message)
            ? "choose another sslmode, or let pg_hba.conf of the server admit it"
            : "check the user in the connection string, and its rights to connect",
      );
    case "3D000":
      return connection("the database does not exist", "create it, or correct the name in the connection string");
    case mayNot:
      return new PermissionError(target.user, target.place, message, error);
    case "42P01":
    case "3F000":
    case "42883":
    case "42703":
      if (message.includes(target.schema)) return new NotMigratedError(target.schema, error);
      break;
    case readOnly:
      return connection(
        "it takes no writes, as a standby or by default_transaction_read_only",
        "connect to the primary, or switch that setting off",
      );
    case "53300":
      return connection("it has no connection left", "close some, raise max_connections, or lower max of the pool");
    case "22021":
    case "22P05":
    case "22P02":
    case "54000":
    case "54001":
    case "22003":
    case "22008":
      return new PayloadError(refused, [], `Postgres refuses it (${message})`, "change the value", error);
  }
  if (code in tls || code.startsWith("ERR_SSL") || code.startsWith("ERR_TLS"))
    return connection(
      `TLS failed: ${tls[code] ?? message} (${code})`,
      target.verifiesFor !== undefined
        ? `${target.verifiesFor} in the connection string asks for a verified certificate: give the server one, or take that out`
        : code === socketCodes.noTls
          ? "switch it on in the server, or choose sslmode=prefer"
          : "give its authority as connection: { ssl: { ca } } or NODE_EXTRA_CA_CERTS, or choose another sslmode",
    );
  if (code === socketCodes.noPassword)
    return connection(`the function given as password failed (${message})`, "correct it, or what it asks");
  if (code === socketCodes.wrongSession)
    return connection(message, "correct the hosts or target_session_attrs, or wait until one has");
  if (code === "CONNECTION_ENDED") return connection("this orchestrator was closed", "go on with another one");
  if (code in network)
    return connection(
      `${network[code]} (${code})`,
      "start Postgres, or correct host and port in the connection string",
    );
  if (code === noAnswer || isConnectionLoss(error))
    return connection(`${message} (${code})`, "try again; with an idempotencyKey nothing happens twice");
  if (/^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code))
    return new DatabaseError(target.place, message, code, remedies[code] ?? "look into its log", error);
  // Of Node or a driver: nothing else that comes here has a code.
  return code === "" ? error : connection(`${message} (${code})`, "check the connection string, and what it leads to");

  function connection(problem: string, remedy: string): ConnectionError {
    return new ConnectionError(target.place, problem, remedy, error);
  }
}
