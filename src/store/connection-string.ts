/**
 * Connection strings as servers, poolers and hosts hand them out, read as libpq reads them: what neither the driver nor Postgres
 * knows is left out where it means nothing here, put into options where it does, and refused by name where it cannot be kept.
 */
import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { ConnectionError } from "../base/errors.ts";
import { anyName } from "./socket.ts";

/** What the driver is told; the rest are start-up parameters. */
export interface ParsedUrl {
  readonly host?: string[];
  readonly port?: number[];
  /** Of a Unix socket. */
  readonly path?: string;
  readonly database?: string;
  readonly username?: string;
  readonly password?: string;
  readonly ssl?: "require" | "prefer" | "verify-ca" | "verify-full" | boolean | ConnectionOptions;
  readonly sslnegotiation?: string;
  readonly target_session_attrs?: string;
  readonly connect_timeout?: number;
  readonly idle_timeout?: number;
  readonly max_lifetime?: number;
  readonly max?: number;
  readonly prepare?: boolean;
  /** Why the server's certificate is verified, where no `sslmode` says so. */
  readonly verifiesFor?: string;
  readonly connection: Readonly<Record<string, string>>;
}

const shape =
  /^postgres(?:ql)?:\/\/(?:(?<login>[^/?#]*)@)?(?<hosts>[^@/?#]*)(?:\/(?<database>[^/?#@]*))?(?:\?(?<query>[^#@]*))?$/i;

/** @throws {ConnectionError} that names the parameter, and never the password */
export function parseConnectionString(text: string): ParsedUrl {
  if (text.trim() === "")
    throw new ConnectionError(null, "the connection string is empty", "give one, or set DATABASE_URL");
  if (/^prisma(\+postgres)?:/i.test(text))
    throw new ConnectionError(
      null,
      "the connection string leads to Prisma's proxy, which does not speak Postgres",
      "use the direct URL of the database, which begins with postgres://",
    );
  const { login, hosts = "", database = "", query = "" } = shape.exec(text.trim())?.groups ?? unreadable();
  const pairs = query === "" ? [] : query.split("&").map(pairOf);
  const { places, settings, ...options } = parametersOf(new Map(pairs));
  const [username, password] = login === undefined ? [] : loginOf(login);
  const user = places.username ?? username;
  const secret = places.password ?? password;
  const named = places.database ?? decoded(database);
  return {
    ...whereOf(places.host ?? decoded(hosts), places.port),
    ...(named !== "" && { database: named }),
    ...(user !== undefined && { username: user }),
    ...(secret !== undefined && { password: secret }),
    ...options,
    connection: settings,
  };
}

/** A host that is a folder is that of a Unix socket; IPv6 addresses stand in brackets, or alone. */
export function whereOf(hosts: string, portText?: string): Pick<ParsedUrl, "host" | "port" | "path"> {
  const ports = (portText ?? "").split(",");
  if (hosts.startsWith("/")) {
    const port = portOf(ports[0] ?? "") ?? 5432;
    return { host: [hosts], port: [port], path: `${hosts}/.s.PGSQL.${port}` };
  }
  if (hosts === "") return ports[0] ? { port: [portOf(ports[0]) ?? 5432] } : {};
  const host: string[] = [];
  const port: number[] = [];
  for (const [index, one] of hosts.split(",").entries()) {
    const { name = one, own = "" } =
      /^\[(?<name>[^\]]+)\](?::(?<own>.*))?$/.exec(one)?.groups ??
      (isIPv6(one) ? undefined : /^(?<name>[^:]*):(?<own>[^:]*)$/.exec(one)?.groups) ??
      {};
    if (name === "" || /[:[\]]/.test(isIPv6(name) ? "" : name)) unreadable();
    host.push(name);
    port.push(portOf(own) ?? portOf(ports[index] ?? ports[0] ?? "") ?? 5432);
  }
  return { host, port };
}

function portOf(text: string): number | undefined {
  if (text === "") return undefined;
  const port = Number(text);
  return /^\d+$/.test(text) && port > 0 && port < 65536 ? port : unreadable();
}

function loginOf(login: string): [string | undefined, string | undefined] {
  const colon = login.indexOf(":");
  const [user, password] = colon < 0 ? [login, ""] : [login.slice(0, colon), login.slice(colon + 1)];
  return [decoded(user) || undefined, decoded(password) || undefined];
}

function pairOf(pair: string): [string, string] {
  const [name = "", ...value] = pair.split("=");
  // Anything else is a piece of a password with a question mark in it.
  return /^\w[\w.]*$/.test(name) ? [name, decoded(value.join("=").replaceAll("+", "%20"))] : unreadable();
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return unreadable();
  }
}

// ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────

/** Of Prisma, Supabase, Vercel, JDBC, pg and libpq: nothing here depends on them. */
const meaningless = new Set([
  "schema",
  "pool_timeout",
  "pool_mode",
  "pool_size",
  "socket_timeout",
  "supa",
  "workaround",
  "uselibpqcompat",
  "fallback_application_name",
  "client_encoding",
  "keepalives",
  "keepalives_idle",
  "keepalives_interval",
  "keepalives_count",
  "tcp_user_timeout",
  "gssencmode",
  "gssdelegation",
  "krbsrvname",
  "load_balance_hosts",
  "sslcompression",
  "sslsni",
  "sslidentity",
]);
/** Whoever gives these relies on them, and no driver for Node has them. */
const unknownHere = new Set([
  "service",
  "servicefile",
  "passfile",
  "requirepeer",
  "require_auth",
  "sslcrl",
  "sslcrldir",
]);
const numbers = ["connect_timeout", "idle_timeout", "max_lifetime"] as const;

function parametersOf(given: Map<string, string>) {
  const take = (...names: readonly string[]): string | undefined => {
    const found = names.map((name) => given.get(name)).find((value) => value !== undefined);
    for (const name of names) given.delete(name);
    return found;
  };
  for (const name of given.keys())
    if (unknownHere.has(name)) refuse(name, "is not known to this library", "take it out of the connection string");
  for (const name of meaningless) given.delete(name);

  const options: { -readonly [K in keyof ParsedUrl]?: ParsedUrl[K] } = {};
  const [pooled, cache] = [take("pgbouncer"), take("statement_cache_size")];
  if (isOn(pooled) || cache === "0") options.prepare = false;
  for (const name of numbers) {
    const text = take(name);
    if (text !== undefined) options[name] = wholeOf(name, text);
  }
  const max = take("connection_limit", "max");
  if (max !== undefined) options.max = wholeOf("connection_limit", max);
  const session = take("target_session_attrs");
  if (session !== undefined && session !== "any") options.target_session_attrs = session;
  const negotiation = take("sslnegotiation");
  if (negotiation !== undefined && negotiation !== "postgres") options.sslnegotiation = negotiation;
  if (given.get("channel_binding") === "require") options.verifiesFor = "channel_binding=require";
  const ssl = tlsOf(take);
  if (ssl !== undefined) options.ssl = ssl;

  const places = {
    host: take("host", "hostaddr"),
    port: take("port"),
    database: take("dbname", "database"),
    username: take("user", "username"),
    password: take("password"),
  };
  return { ...options, places, settings: Object.fromEntries(given) };
}

type Take = (...names: readonly string[]) => string | undefined;

/** As libpq: `allow` and `prefer` take what the server offers; `require` verifies where there is something to verify by. */
const modes: Readonly<Record<string, "require" | "prefer" | "verify-ca" | "verify-full" | false>> = {
  disable: false,
  allow: "prefer",
  prefer: "prefer",
  require: "require",
  "no-verify": "require",
  "verify-ca": "verify-ca",
  "verify-full": "verify-full",
};

function tlsOf(take: Take): ParsedUrl["ssl"] {
  const mode = take("sslmode");
  const binding = take("channel_binding");
  const accept = take("sslaccept");
  const [flag, required] = [take("ssl"), take("requiressl")];
  const root = take("sslrootcert");
  const files = { ca: root === "system" ? undefined : root, cert: take("sslcert"), key: take("sslkey") };
  const passphrase = take("sslpassword");
  const least = take("ssl_min_protocol_version");

  let ssl: "require" | "prefer" | "verify-ca" | "verify-full" | boolean | undefined;
  if (mode !== undefined) ssl = modes[mode] ?? choose("sslmode", mode, Object.keys(modes));
  else if (flag !== undefined)
    ssl = modes[flag] ?? (isOn(flag) || (isOff(flag) ? false : choose("ssl", flag, ["true", "false"])));
  else if (isOn(required)) ssl = "require";
  if (accept === "strict") ssl = "verify-full";
  // Not in any driver for Node: that the server is who it says is then to be known by its certificate.
  if (binding === "require") {
    if (ssl === false)
      refuse("channel_binding", "is require, and TLS is off", "take it out, or choose sslmode=verify-full");
    ssl = "verify-full";
  } else if (binding !== undefined && binding !== "prefer" && binding !== "disable")
    choose("channel_binding", binding, ["disable", "prefer", "require"]);
  if (root === "system") ssl = "verify-full";

  const hasFiles = Object.values(files).some((file) => file !== undefined);
  if (ssl === false || (!hasFiles && least === undefined)) return ssl;
  const options: ConnectionOptions = {
    rejectUnauthorized: ssl === true || ssl === "verify-ca" || ssl === "verify-full" || files.ca !== undefined,
    // An authority that is named is checked, and the host's name is not.
    ...(ssl !== true && ssl !== "verify-full" && (files.ca !== undefined || ssl === "verify-ca") && anyName),
  };
  for (const [option, file] of Object.entries(files))
    if (file !== undefined)
      Object.assign(options, { [option]: contents(`ssl${option === "ca" ? "rootcert" : option}`, file) });
  if (passphrase !== undefined) options.passphrase = passphrase;
  if (least === "TLSv1.2" || least === "TLSv1.3") options.minVersion = least;
  return options;
}

function contents(name: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    return refuse(name, `names ${file}, which cannot be read (${code})`, "correct its path", error);
  }
}

function wholeOf(name: string, text: string): number {
  return /^\d+$/.test(text)
    ? Number(text)
    : refuse(name, `must be a whole number, got ${JSON.stringify(text)}`, "correct it");
}

function isOn(text: string | undefined): boolean {
  return text !== undefined && /^(true|1|on|yes)$/i.test(text);
}

function isOff(text: string): boolean {
  return /^(false|0|off|no)$/i.test(text);
}

function choose(name: string, value: string, known: readonly string[]): never {
  return refuse(name, `is ${JSON.stringify(value)}`, `choose one of ${known.join(", ")}`);
}

function refuse(name: string, problem: string, remedy: string, cause?: unknown): never {
  throw new ConnectionError(null, `${name} in the connection string ${problem}`, remedy, cause);
}

/** Nothing of the text: it may have a password in it. */
function unreadable(): never {
  throw new ConnectionError(
    null,
    "the connection string cannot be read",
    "use postgres://user:password@host:port/database, with %2F for / and %40 for @ in user and password",
  );
}
