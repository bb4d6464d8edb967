import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import { join } from "node:path";
import { after, describe, type TestContext, test } from "node:test";
import type { ClientTls } from "../../src/api/listeners/client-tls.ts";
import type { ListenAddress } from "../../src/api/listeners/listeners.ts";
import { connect, type TlsOptions } from "../../src/client/raw.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { NO_TLS } from "../../src/rpc/tls/context.ts";
import { Authority, type Pair, writePair } from "../harness/certificates.ts";
import { type InProcess, startInProcess, tempDir } from "../harness/in-process.ts";
import { type Program, repositoryRoot, requireProgram, run } from "../harness/programs.ts";
import { freePorts } from "../harness/server.ts";
import { patience, waitFor } from "../harness/wait.ts";
import { bytes } from "../server/requests.ts";

const dir = tempDir();
after(() => dir.remove());
const ca = await Authority.create("ca");
const caFile = join(dir.path, "ca.crt");
writeFileSync(caFile, ca.pem);
const serverFiles = writePair(dir.path, "server", await ca.issue({ cn: "server" }));
const clientPair = await ca.issue({ cn: "client" });
const clientFiles = writePair(dir.path, "client", clientPair);

const secure: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0, url: "https://127.0.0.1:0" };
const plain: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0, url: "http://127.0.0.1:0" };

const clientTls: ClientTls = {
  ...NO_TLS,
  ...serverFiles,
  trustedCaFile: caFile,
  clientCertAuth: true,
  minVersion: "TLS1.2",
  autoTls: false,
  selfSignedCertValidityYears: 1,
};

interface Listening {
  readonly tls?: Partial<ClientTls>;
  readonly listenClient?: readonly ListenAddress[];
  readonly listenClientHttp?: readonly ListenAddress[];
  readonly listenMetrics?: readonly ListenAddress[];
  readonly hostWhitelist?: readonly string[];
}

async function start(t: TestContext, { tls = {}, listenClient = [secure], ...etcd }: Listening = {}) {
  const member = await startInProcess({ etcd: { clientTls: { ...clientTls, ...tls }, listenClient, ...etcd } });
  t.after(() => member.close());
  return member;
}

const credentials = ({ cert, key }: Pair): TlsOptions => ({
  ca: bytes(ca.pem),
  cert: bytes(cert),
  key: bytes(key),
});

async function put(t: TestContext, url: string, tls?: TlsOptions): Promise<void> {
  const client = connect(url, tls === undefined ? {} : { tls });
  t.after(() => client.close());
  await client.unary(KVService.Put, { key: bytes("k"), value: bytes("v") }, { timeoutMs: patience(3000) });
}

async function get(url: string, pair?: Pair, headers: Record<string, string> = {}): Promise<[number, string]> {
  const { get: request } = url.startsWith("https:") ? https : http;
  const call = request(url, { ca: ca.pem, ...pair, headers, servername: "localhost", agent: false });
  const [response] = (await once(call, "response")) as [http.IncomingMessage];
  let body = "";
  for await (const part of response.setEncoding("utf8")) body += part;
  return [response.statusCode!, body];
}

/** The error for a client without a certificate. */
const CERTIFICATE_REQUIRED = { code: "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED" };

const refusals = (member: InProcess) =>
  member.logger.lines.filter((line) => line.message === "rejected connection on client endpoint");

describe("a member that uses TLS with its clients", () => {
  test("serves gRPC and HTTP on one port to clients with a certificate, and no others", async (t) => {
    const member = await start(t);
    assert.match(member.url, /^https:\/\/127\.0\.0\.1:\d+$/);
    await put(t, member.url, credentials(clientPair));
    assert.deepEqual(await get(`${member.url}/health`, clientPair), [200, '{"health":"true","reason":""}']);
    await assert.rejects(put(t, member.url, { ca: bytes(ca.pem) }), /UNAVAILABLE|Unavailable|DeadlineExceeded/);
    await assert.rejects(get(`${member.url}/health`), CERTIFICATE_REQUIRED);
    await assert.rejects(get(`${member.url.replace("https:", "http:")}/health`), { code: "ECONNRESET" });
    const reasons = (): Set<unknown> => new Set(refusals(member).map(({ fields }) => fields["error"]));
    await waitFor("the refusals are logged", () => reasons().size >= 2);
    assert.equal(refusals(member).length, reasons().size, "each reason is said once");
    assert.ok(
      member.logger.lines.some(
        ({ message, fields }) => message === "serving client traffic securely" && fields["address"] === member.url,
      ),
    );
  });

  test("serves large values both ways", async (t) => {
    const member = await start(t);
    const client = connect(member.url, { tls: credentials(clientPair) });
    t.after(() => client.close());
    const value = Buffer.alloc(1_000_000, "x");
    await Promise.all(
      Array.from({ length: 8 }, (_, i) => client.unary(KVService.Put, { key: bytes(`large${i}`), value })),
    );
    const { kvs } = await client.unary(KVService.Range, { key: bytes("large"), rangeEnd: bytes("largf") });
    assert.equal(kvs.length, 8);
    assert.ok(kvs.every((kv) => Buffer.compare(kv.value, value) === 0));
  });

  test("listens plainly and with TLS side by side, and logs what plain addresses ignore", async (t) => {
    const member = await start(t, { listenClient: [secure, plain] });
    const [first, second] = member.etcd.clientAddresses;
    await put(t, first!, credentials(clientPair));
    await put(t, second!);
    const warnings = member.logger.lines.filter(({ message }) => message.startsWith("scheme is http or unix"));
    assert.deepEqual(
      warnings.map(({ message, fields }) => [message, fields["client-url"]]),
      [
        ["scheme is http or unix while key and cert files are present; ignoring key and cert files", plain.url],
        [
          "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL",
          plain.url,
        ],
      ],
    );
  });

  test("serves plainly though its certificate is missing, where it would never be presented", async (t) => {
    const missing = { certFile: "/nowhere/cert.pem", keyFile: "/nowhere/key.pem" };
    const member = await start(t, { listenClient: [plain], tls: missing });
    await put(t, member.url);
    const { fields } = member.logger.lines.find(({ message }) => message.startsWith("the certificate cannot be used"))!;
    assert.match(String((fields["error"] as Error).message), /\/nowhere\/cert\.pem/);
    await assert.rejects(start(t, { listenClient: [secure], tls: missing }), /\/nowhere\/cert\.pem/);
  });

  test("serves both on one port when both are configured for it", async (t) => {
    const [port] = await freePorts(1);
    const at = (scheme: string) => ({ ...plain, port: port!, url: `${scheme}://127.0.0.1:${port}` }) as ListenAddress;
    const member = await start(t, { listenClient: [at("http"), at("https")] });
    assert.deepEqual(member.etcd.clientAddresses, [`http://127.0.0.1:${port}`, `https://127.0.0.1:${port}`]);
    await put(t, `http://127.0.0.1:${port}`);
    await put(t, `https://127.0.0.1:${port}`, credentials(clientPair));
    assert.equal((await get(`http://127.0.0.1:${port}/health`))[0], 200);
    assert.equal((await get(`https://127.0.0.1:${port}/health`, clientPair))[0], 200);
    await assert.rejects(get(`https://127.0.0.1:${port}/health`), CERTIFICATE_REQUIRED);
  });

  test("keeps clients that connect before it is ready, plain or with TLS", async (t) => {
    const [port] = await freePorts(1);
    const at = (scheme: string) => ({ ...plain, port: port!, url: `${scheme}://127.0.0.1:${port}` }) as ListenAddress;
    /** Sends requests as soon as the port is bound, which is before the member starts. */
    const ask = async (url: string): Promise<[number, string]> => {
      for (;;) {
        try {
          return await get(`${url}/version`, clientPair);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED") throw error;
        }
      }
    };
    const answers = ["http", "https"].map((scheme) => ask(`${scheme}://127.0.0.1:${port}`));
    await start(t, { listenClient: [at("http"), at("https")] });
    assert.deepEqual(
      (await Promise.all(answers)).map(([status]) => status),
      [200, 200],
    );
  });

  test("serves TLS on a unix socket", async (t) => {
    const path = join(dir.path, "client.sock");
    const member = await start(t, { listenClient: [{ kind: "unix", path, url: `unixs://${path}` }] });
    const call = https.get({ socketPath: path, path: "/health", ca: ca.pem, ...clientPair, servername: "localhost" });
    const [response] = (await once(call, "response")) as [http.IncomingMessage];
    assert.equal(response.statusCode, 200);
    response.resume();
    assert.equal(member.url, `unixs://${path}`);
  });

  test("serves HTTP and metrics on separate addresses", async (t) => {
    const member = await start(t, { listenClientHttp: [secure], listenMetrics: [secure] });
    const [httpUrl] = member.etcd.clientHttpAddresses;
    const [metricsUrl] = member.etcd.metricsAddresses;
    assert.equal((await get(`${httpUrl}/version`, clientPair))[0], 200);
    assert.match((await get(`${metricsUrl}/metrics`, clientPair))[1], /etcd_server_has_leader 1/);
    await put(t, member.url, credentials(clientPair));
    // Only here, as in etcd, a certificate must name the client's address.
    const elsewhere = await ca.issue({ names: ["10.0.0.1"] });
    assert.equal((await get(`${httpUrl}/version`, elsewhere))[0], 200);
    await assert.rejects(get(`${metricsUrl}/metrics`, elsewhere), { code: "ECONNRESET" });
    await waitFor("the refusal is logged", () => refusals(member).length === 1);
  });

  test("requires no host name of clients that use TLS", async (t) => {
    const member = await start(t, { listenClient: [secure, plain], hostWhitelist: ["a.example"] });
    const [first, second] = member.etcd.clientAddresses;
    const headers = { host: "evil.example" };
    assert.equal((await get(`${second}/health`, undefined, headers))[0], 421);
    assert.equal((await get(`${first}/health`, clientPair, headers))[0], 200);
  });

  test("picks up a replaced certificate, while earlier connections continue", async (t) => {
    const files = writePair(dir.path, "replaced", await ca.issue());
    const member = await start(t, { tls: files });
    const client = connect(member.url, { tls: credentials(clientPair) });
    t.after(() => client.close());
    await client.unary(KVService.Put, { key: bytes("before") });
    const other = await Authority.create("other");
    writePair(dir.path, "replaced", await other.issue());
    await assert.rejects(put(t, member.url, credentials(clientPair)), /unable to verify the first certificate/);
    await put(t, member.url, { ...credentials(clientPair), ca: bytes(other.pem) });
    assert.equal((await client.unary(KVService.Range, { key: bytes("before") })).count, 1);
  });

  test("reports an unusable revocation list at the start", async (t) => {
    const member = await start(t, { tls: { crlFile: join(dir.path, "absent.crl") } });
    assert.ok(
      member.logger.has("the list of revoked certificates cannot be used: clients that show a certificate are refused"),
    );
    await assert.rejects(get(`${member.url}/health`, clientPair), { code: "ECONNRESET" });
  });
});

describe("a member with a self-signed certificate", () => {
  test("keeps it in its data directory and requires none of its clients", async (t) => {
    const member = await start(t, { tls: { certFile: "", keyFile: "", trustedCaFile: "", autoTls: true } });
    const own = readFileSync(join(member.dataDir, "fixtures", "client", "cert.pem"));
    await put(t, member.url, { ca: own });
    assert.ok(member.logger.has("automatically generate certificates"));
  });

  test("does not create one when one is configured", async (t) => {
    const member = await start(t, { tls: { autoTls: true } });
    assert.ok(member.logger.has("ignoring client auto TLS since certs given"));
    await put(t, member.url, credentials(clientPair));
  });
});

test("an address with TLS and no certificate is refused, before anything is bound", async () => {
  const none = { ...clientTls, certFile: "", keyFile: "" };
  await assert.rejects(
    startInProcess({ etcd: { clientTls: none, listenClient: [secure] } }),
    /^Error: TLS key\/cert \(--cert-file, --key-file\) must be provided for client url https:\/\/127.0.0.1:0 with HTTPS scheme$/,
  );
  await assert.rejects(
    startInProcess({ etcd: { listenMetrics: [secure] } }),
    /^Error: client TLS key\/cert \(--cert-file, --key-file\) must be provided for metrics secure url$/,
  );
});

for (const [name, program, skip] of [
  ["stock etcdctl", { file: "etcdctl", args: [] }, requireProgram("etcdctl")],
  ["etcdctl", { file: process.execPath, args: [join(repositoryRoot, "bin", "etcdctl")] }, false],
] as const) {
  test(`${name} works over TLS as the documents use it`, { skip }, async (t) => {
    const member = await start(t, { listenClient: [secure, plain] });
    const [url, plainUrl] = member.etcd.clientAddresses;
    const files = ["--cacert", caFile, "--cert", clientFiles.certFile, "--key", clientFiles.keyFile];
    const ctl = async (...args: string[]) => {
      const result = await run(program as Program, args, { env: { ETCDCTL_API: "3" } });
      return { code: result.code, stdout: result.stdout.toString(), stderr: result.stderr };
    };
    const at = (...args: string[]) => ctl("--endpoints", url!, ...files, ...args);
    assert.deepEqual(await at("put", "a", "b"), { code: 0, stdout: "OK\n", stderr: "" });
    assert.equal((await at("get", "a")).stdout, "a\nb\n");
    assert.equal((await ctl("--endpoints", plainUrl!, "get", "a")).stdout, "a\nb\n");
    const health = await at("endpoint", "health");
    assert.match(health.stdout + health.stderr, /is healthy: successfully committed proposal: took = /);
    const status = await at("endpoint", "status", "-w", "table");
    assert.match(status.stdout, new RegExp(`[|│] ${url} [|│]`));
    assert.match(status.stdout, /3\.7\.1/);
    const watched = at("watch", "w", "--", "false");
    await waitFor("the watch's event", async () => {
      await at("put", "w", "1");
      return (await Promise.race([watched, undefined])) !== undefined;
    });
    assert.match((await watched).stdout, /^PUT\nw\n1\n/);
    const stranger = await ctl(
      "--endpoints",
      url!,
      "--cacert",
      caFile,
      "--dial-timeout=1s",
      "--command-timeout=1s",
      "get",
      "a",
    );
    assert.notEqual(stranger.code, 0);
    assert.equal(stranger.stdout, "");
    await waitFor("the refusal is logged", () =>
      refusals(member).some(({ fields }) => fields["error"] === "tls: client didn't provide a certificate"),
    );
  });
}
