/**
 * Connection strings as servers, poolers and hosts hand them out, read as libpq reads them: what neither the driver nor Postgres
 * knows is left out where it means nothing here, put into options where it does, and refused by name where it cannot be kept.
 */
import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { ConnectionError } from "../base/errors.ts";
import type { DriverOptions } from "./driver.ts";
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
  const [username, password] = login === undefined ? [] : loginOf(login);
  const parts = { host: decoded(hosts), user: username, password, dbname: decoded(database) };
  const said = [...pairs, ...Object.entries(parts).filter(([, value]) => value)].map(([name]) => name);
  const given = pairs.map(([name, value]) => [name, { value, from: `${name} in the connection string` }] as const);
  const { places, settings, ...options } = parametersOf(new Map([...variablesBeside(said), ...given]));
  const user = places.username ?? username;
  const secret = places.password ?? password;
  const named = places.database ?? parts.dbname;
  return {
    ...whereOf(places.host ?? parts.host, places.port),
    ...(named !== "" && { database: named }),
    ...(user !== undefined && { username: user }),
    ...(secret !== undefined && { password: secret }),
    ...options,
    connection: settings,
  };
}

/** Options of the driver, with what the environment says where they say nothing. @throws {ConnectionError} */
export function besideVariables(option: DriverOptions): object {
  const own = Object.fromEntries(Object.entries(option).filter(([, value]) => value !== undefined));
  const { ssl, connection } = option;
  const given = variablesBeside(Object.keys({ ...own, ...connection }));
  // Variables may name its certificates.
  if (typeof ssl === "string") given.set("sslmode", { value: ssl, from: "ssl of the connection" });
  const { places, settings, ...options } = parametersOf(given);
  const { host = places.host, port = places.port } = option;
  return {
    ...options,
    ...own,
    ...(typeof ssl === "string" && { ssl: options.ssl }),
    // The driver cuts a host at its first colon.
    ...(host !== undefined && whereOf(String(host), port === undefined ? undefined : String(port))),
    connection: { ...settings, ...connection },
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
const sessions = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];

/** libpq's variables, by the parameters that they stand for. A later one outweighs those before it. */
const variables = {
  PGHOSTADDR: "host",
  PGHOST: "host",
  PGPORT: "port",
  PGDATABASE: "dbname",
  PGUSER: "user",
  PGPASSWORD: "password",
  PGPASSFILE: "passfile",
  PGSERVICE: "service",
  PGAPPNAME: "application_name",
  PGOPTIONS: "options",
  PGCONNECT_TIMEOUT: "connect_timeout",
  PGTARGETSESSIONATTRS: "target_session_attrs",
  PGCHANNELBINDING: "channel_binding",
  PGREQUIREAUTH: "require_auth",
  PGREQUIREPEER: "requirepeer",
  PGREQUIRESSL: "requiressl",
  PGSSLMODE: "sslmode",
  PGSSLNEGOTIATION: "sslnegotiation",
  PGSSLROOTCERT: "sslrootcert",
  PGSSLCERT: "sslcert",
  PGSSLKEY: "sslkey",
  PGSSLCRL: "sslcrl",
  PGSSLCRLDIR: "sslcrldir",
  PGSSLMINPROTOCOLVERSION: "ssl_min_protocol_version",
};
/** Who says one of these says what the other means. */
const outweighs: Readonly<Record<string, readonly string[]>> = {
  hostaddr: ["host"],
  hostname: ["host"],
  path: ["host"],
  database: ["dbname"],
  db: ["dbname"],
  username: ["user"],
  pass: ["password"],
  host: ["service"],
  password: ["passfile"],
  ssl: ["sslmode"],
  sslmode: ["requiressl"],
};

/** A value, and what whoever gave it calls it. */
interface Given {
  readonly value: string;
  readonly from: string;
}

/** A key may have any name. */
function ownOf<T>(of: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(of, name) ? of[name] : undefined;
}

/** What the environment says of a connection that says these things itself. */
function variablesBeside(names: readonly string[]): Map<string, Given> {
  const found = new Map<string, Given>();
  for (const [from, name] of Object.entries(variables)) {
    const value = process.env[from];
    if (value) found.set(name, { value, from });
  }
  const drop = (name: string, isOwn: boolean): void => {
    if (isOwn) found.delete(name);
    for (const other of ownOf(outweighs, name) ?? []) drop(other, true);
  };
  for (const name of names) drop(name, true);
  for (const name of found.keys()) drop(name, false);
  return found;
}

function parametersOf(given: Map<string, Given>) {
  const take = (...names: readonly string[]): Given | undefined => {
    const found = names.map((name) => given.get(name)).find((value) => value !== undefined);
    for (const name of names) given.delete(name);
    return found;
  };
  for (const [name, { from }] of given)
    if (unknownHere.has(name))
      refuse(
        from,
        "is not known to this library",
        from in variables ? "unset it, and say in the connection what it stands for" : "take it out",
      );
  for (const name of meaningless) given.delete(name);

  const options: { -readonly [K in keyof ParsedUrl]?: ParsedUrl[K] } = {};
  const [pooled, cache] = [take("pgbouncer"), take("statement_cache_size")];
  if (isOn(pooled) || cache?.value === "0") options.prepare = false;
  for (const name of numbers) {
    const number = take(name);
    if (number) options[name] = wholeOf(number);
  }
  const max = take("connection_limit", "max");
  if (max) options.max = wholeOf(max);
  const session = take("target_session_attrs");
  if (session && !sessions.includes(session.value)) choose(session, sessions);
  if (session && session.value !== "any") options.target_session_attrs = session.value;
  const negotiation = take("sslnegotiation");
  if (negotiation && !["postgres", "direct"].includes(negotiation.value)) choose(negotiation, ["postgres", "direct"]);
  if (negotiation?.value === "direct") options.sslnegotiation = negotiation.value;
  if (given.get("channel_binding")?.value === "require") options.verifiesFor = "channel_binding=require";
  const ssl = tlsOf(take);
  if (ssl !== undefined) options.ssl = ssl;

  const places = {
    host: take("host", "hostaddr")?.value,
    port: take("port")?.value,
    database: take("dbname", "database")?.value,
    username: take("user", "username")?.value,
    password: take("password")?.value,
  };
  const settings = Object.fromEntries(Array.from(given, ([name, { value }]) => [name, value]));
  return { ...options, places, settings };
}

type Take = (...names: readonly string[]) => Given | undefined;

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
  const files = { ca: root?.value === "system" ? undefined : root, cert: take("sslcert"), key: take("sslkey") };
  const passphrase = take("sslpassword");
  const least = take("ssl_min_protocol_version");

  let ssl: "require" | "prefer" | "verify-ca" | "verify-full" | boolean | undefined;
  if (mode) ssl = ownOf(modes, mode.value) ?? choose(mode, Object.keys(modes));
  else if (flag)
    ssl = ownOf(modes, flag.value) ?? (isOn(flag) || (isOff(flag) ? false : choose(flag, ["true", "false"])));
  else if (isOn(required)) ssl = "require";
  if (accept?.value === "strict") ssl = "verify-full";
  // Not in any driver for Node: that the server is who it says is then to be known by its certificate.
  if (binding?.value === "require") {
    if (ssl === false) refuse(binding.from, "is require, and TLS is off", "take it out, or choose sslmode=verify-full");
    ssl = "verify-full";
  } else if (binding && binding.value !== "prefer" && binding.value !== "disable")
    choose(binding, ["disable", "prefer", "require"]);
  if (root?.value === "system") ssl = "verify-full";

  const details = [...Object.values(files), least].filter((one) => one !== undefined);
  // TLS is off where nobody asks for it. A variable that says how, and not whether, does not.
  if (ssl === false || details.every(({ from }) => ssl === undefined && from in variables)) return ssl;
  const options: ConnectionOptions = {
    rejectUnauthorized: ssl === true || ssl === "verify-ca" || ssl === "verify-full" || files.ca !== undefined,
    // An authority that is named is checked, and the host's name is not.
    ...(ssl !== true && ssl !== "verify-full" && (files.ca !== undefined || ssl === "verify-ca") && anyName),
    ...(ssl === "prefer" && { isOptional: true }),
  };
  for (const [option, file] of Object.entries(files)) if (file) Object.assign(options, { [option]: contents(file) });
  if (passphrase) options.passphrase = passphrase.value;
  if (least?.value === "TLSv1.2" || least?.value === "TLSv1.3") options.minVersion = least.value;
  return options;
}

function contents({ value: file, from }: Given): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    return refuse(from, `names ${file}, which cannot be read (${code})`, "correct its path", error);
  }
}

function wholeOf({ value, from }: Given): number {
  return /^\d+$/.test(value)
    ? Number(value)
    : refuse(from, `must be a whole number, got ${JSON.stringify(value)}`, "correct it");
}

function isOn(given: Given | undefined): boolean {
  return given !== undefined && /^(true|1|on|yes)$/i.test(given.value);
}

function isOff({ value }: Given): boolean {
  return /^(false|0|off|no)$/i.test(value);
}

function choose({ value, from }: Given, known: readonly string[]): never {
  return refuse(from, `is ${JSON.stringify(value)}`, `choose one of ${known.join(", ")}`);
}

function refuse(from: string, problem: string, remedy: string, cause?: unknown): never {
  throw new ConnectionError(null, `${from} ${problem}`, remedy, cause);
}

/** Nothing of the text: it may have a password in it. */
function unreadable(): never {
  throw new ConnectionError(
    null,
    "the connection string cannot be read",
    "use postgres://user:password@host:port/database, with %2F for / and %40 for @ in user and password",
  );
}
