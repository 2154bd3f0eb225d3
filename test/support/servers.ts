/** Servers that are not the Postgres somebody meant: they refuse, hang up, speak something else, or speak TLS. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TLSSocket } from "node:tls";

export interface FakeServer extends AsyncDisposable {
  readonly port: number;
  /** Connections so far. */
  readonly count: number;
}

/** Does with each connection what it is told. */
export async function startFake(serve: (client: Socket) => void): Promise<FakeServer> {
  const clients = new Set<Socket>();
  let count = 0;
  const server = createServer((client) => {
    count += 1;
    clients.add(client);
    client.on("error", () => {}).on("close", () => clients.delete(client));
    serve(client);
  });
  await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
  return {
    port: (server.address() as AddressInfo).port,
    get count() {
      return count;
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

/** Answers a start-up message with an error of Postgres' own. */
export function refusing(sqlstate: string, message: string): (client: Socket) => void {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${sqlstate}\0M${message}\0\0`);
  const head = Buffer.alloc(5, "E");
  head.writeUInt32BE(fields.length + 4, 1);
  return (client) => client.once("data", () => client.end(Buffer.concat([head, fields])));
}

/** Encrypts what goes to a Postgres that cannot, with a certificate that nobody signed. Null where there is no openssl. */
export async function startTls(to: {
  host: string;
  port: number;
}): Promise<(FakeServer & { readonly certificate: Buffer }) | null> {
  const folder = mkdtempSync(join(tmpdir(), "flowledger-tls-"));
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(" ");
  const made = spawnSync("openssl", [...request, "-keyout", key, "-out", cert]);
  const pem = made.status === 0 ? { key: readFileSync(key), cert: readFileSync(cert) } : null;
  rmSync(folder, { recursive: true });
  if (!pem) return null;
  const server = await startFake((client) => {
    client.once("data", () => {
      client.write("S");
      const encrypted = new TLSSocket(client, { ...pem, isServer: true });
      const upstream = connect(to.port, to.host);
      encrypted.on("error", () => {}).on("close", () => upstream.destroy());
      upstream.on("error", () => {}).on("close", () => client.destroy());
      encrypted.pipe(upstream).pipe(encrypted);
    });
  });
  return Object.assign(server, { certificate: pem.cert });
}
