import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { chmodSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import * as net from "node:net";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import * as tls from "node:tls";
import { systemClock } from "../../src/base/clock.ts";
import { TlsAcceptor } from "../../src/rpc/tls/acceptor.ts";
import { isAllowed, type NameLookup, namesOf, sanProblem } from "../../src/rpc/tls/certificate-names.ts";
import { NO_TLS, TlsContext, type TlsOptions } from "../../src/rpc/tls/context.ts";
import { selfSignedCertificate } from "../../src/rpc/tls/self-signed.ts";
import { Authority, type Pair, writePair } from "../harness/certificates.ts";
import { MemoryLogger, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";

const REFUSED = "rejected connection on client endpoint";
const ca = await Authority.create("ca");
const server = await ca.issue({ cn: "server" });
const client = await ca.issue({ cn: "client", names: [] });

interface Setup {
  readonly port: number;
  readonly logger: MemoryLogger;
  readonly directory: string;
  readonly options: TlsOptions;
}

const NONE: TlsOptions = { ...NO_TLS, minVersion: "TLS1.2" };

function directoryOf(t: TestContext): string {
  const directory = tempDir();
  t.after(() => directory.remove());
  return directory.path;
}

/** A listener that greets accepted clients. `trusted`: it requires certificates. */
async function listen(
  t: TestContext,
  changes: Partial<TlsOptions> & { readonly trusted?: string; readonly checkSan?: boolean; lookup?: NameLookup } = {},
): Promise<Setup> {
  const { trusted, checkSan = false, lookup, ...rest } = changes;
  const directory = directoryOf(t);
  const files = writePair(directory, "server", server);
  const trustedCaFile = trusted === undefined ? "" : join(directory, "ca.crt");
  if (trusted !== undefined) writeFileSync(trustedCaFile, trusted);
  const options = { ...NONE, ...files, trustedCaFile, ...rest };
  const logger = new MemoryLogger();
  const acceptor = new TlsAcceptor({
    context: new TlsContext(options, systemClock, logger),
    protocols: ["h2", "http/1.1"],
    checkSan,
    refusal: REFUSED,
    clock: systemClock,
    logger,
    lookup,
    onSocket: (socket) => {
      socket.on("error", () => {});
      socket.end(`hello ${socket.getPeerX509Certificate()?.subject ?? "stranger"}`);
    },
  });
  const listener = net.createServer((socket) => acceptor.accept(socket));
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  t.after(() => {
    listener.close();
    acceptor.close();
  });
  return { port: (listener.address() as net.AddressInfo).port, logger, directory, options };
}

interface Greeting {
  readonly text: string;
  readonly protocol: string;
  readonly cipher: string;
  readonly alpn: string | false | null;
  readonly serverSerial: string;
  /** An earlier session was resumed. */
  readonly reused: boolean;
}

/** The listener's greeting to a client; rejects when the client is refused. */
async function greet(port: number, options: tls.ConnectionOptions & { readonly pair?: Pair } = {}): Promise<Greeting> {
  const { pair, ...rest } = options;
  const socket = tls.connect({ host: "127.0.0.1", port, ca: ca.pem, ...pair, ...rest });
  let text = "";
  let seen = { protocol: "", cipher: "", alpn: null as string | false | null, serverSerial: "", reused: false };
  socket.on("secureConnect", () => {
    seen = {
      protocol: socket.getProtocol() ?? "",
      cipher: socket.getCipher().name,
      alpn: socket.alpnProtocol,
      serverSerial: socket.getPeerX509Certificate()?.serialNumber ?? "",
      reused: socket.isSessionReused(),
    };
  });
  socket.setEncoding("utf8").on("data", (part) => {
    text += part;
  });
  await once(socket, "close");
  if (text === "") throw new Error("not let in");
  return { text, ...seen };
}

/** The TLS alert, the end of the socket, or silence until then: which one comes first depends on timing. */
const NOT_LET_IN =
  /not let in|alert certificate required|alert handshake failure|alert protocol version|ECONNRESET|EPIPE/;

/** The first bytes of a TLS client. */
async function firstBytes(): Promise<Buffer> {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as net.AddressInfo;
  const accepted = once(listener, "connection") as Promise<[net.Socket]>;
  const socket = tls.connect({ host: "127.0.0.1", port }).on("error", () => {});
  const [[bytes]] = [(await once((await accepted)[0], "data")) as [Buffer]];
  socket.destroy();
  listener.close();
  return bytes;
}

const refusals = (logger: MemoryLogger) => logger.lines.filter((line) => line.message === REFUSED);

async function refusal(setup: Setup, options: Parameters<typeof greet>[1] = {}): Promise<Record<string, unknown>> {
  await assert.rejects(greet(setup.port, options), NOT_LET_IN);
  await waitFor("the refusal is logged", () => refusals(setup.logger).length > 0);
  const { level, fields } = refusals(setup.logger).at(-1)!;
  assert.equal(level, "warn");
  const { "remote-addr": remote, ...others } = fields;
  assert.match(String(remote), /^127\.0\.0\.1:\d+$/);
  return others;
}

describe("a listener with TLS", () => {
  test("accepts any client when no CA is given", async (t) => {
    const { port } = await listen(t);
    assert.equal((await greet(port)).text, "hello stranger");
  });

  test("speaks h2 and http/1.1, at the client's choice, and does not require ALPN", async (t) => {
    const { port } = await listen(t);
    assert.equal((await greet(port, { ALPNProtocols: ["http/1.1", "h2"] })).alpn, "h2");
    assert.equal((await greet(port, { ALPNProtocols: ["http/1.1"] })).alpn, "http/1.1");
    assert.equal((await greet(port)).alpn, false);
  });

  test("accepts clients with a certificate of the CA, and logs those without one", async (t) => {
    const setup = await listen(t, { trusted: ca.pem });
    assert.equal((await greet(setup.port, { pair: client })).text, "hello CN=client");
    assert.deepEqual(await refusal(setup), { "server-name": "", error: "tls: client didn't provide a certificate" });
  });

  test("trusts an intermediate CA given without its root, as Go does", async (t) => {
    const middle = await ca.intermediate("middle");
    const pair = await middle.issue({ cn: "below", names: [] });
    const setup = await listen(t, { trusted: middle.pem });
    assert.equal((await greet(setup.port, { pair })).text, "hello CN=below");
    await refusal(setup, { pair: client });
  });

  test("refuses certificates of unknown CAs, expired ones, and those of servers", async (t) => {
    const setup = await listen(t, { trusted: ca.pem });
    const stranger = await (await Authority.create("stranger")).issue();
    const failed = "tls: failed to verify certificate: x509: certificate";
    assert.deepEqual(await refusal(setup, { pair: stranger, servername: "localhost" }), {
      "server-name": "localhost",
      error: `${failed} signed by unknown authority`,
    });
    const errors: unknown[] = [];
    for (const options of [{ expired: true }, { usages: ["server"] as const }]) {
      const before = refusals(setup.logger).length;
      await assert.rejects(greet(setup.port, { pair: await ca.issue(options) }), NOT_LET_IN);
      await waitFor("logged", () => refusals(setup.logger).length > before);
      errors.push(refusals(setup.logger).at(-1)!.fields["error"]);
    }
    assert.deepEqual(errors, [
      `${failed} has expired or is not yet valid`,
      `${failed} specifies an incompatible key usage`,
    ]);
  });

  test("logs input that is not TLS", async (t) => {
    const setup = await listen(t);
    const before = refusals(setup.logger).length;
    const plain = net.connect(setup.port, "127.0.0.1").on("error", () => {});
    plain.end("GET / HTTP/1.1\r\n\r\n");
    await waitFor("logged", () => refusals(setup.logger).length > before);
    assert.equal(
      refusals(setup.logger).at(-1)!.fields["error"],
      "tls: first record does not look like a TLS handshake",
    );
  });

  test("uses only the configured versions and suites", async (t) => {
    const only12 = await listen(t, {
      maxVersion: "TLS1.2",
      cipherSuites: ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
    });
    const { protocol, cipher } = await greet(only12.port);
    assert.equal(protocol, "TLSv1.2");
    assert.match(cipher, /CHACHA20-POLY1305|AES256-GCM/);
    const error = (await refusal(only12, { ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256" }))["error"];
    assert.equal(error, "tls: no cipher suite supported by both client and server");
    const only13 = await listen(t, { minVersion: "TLS1.3" });
    assert.equal((await greet(only13.port)).protocol, "TLSv1.3");
    const old = (await refusal(only13, { maxVersion: "TLSv1.2" }))["error"];
    assert.equal(old, "tls: client offered only unsupported versions");
    const both = await listen(t, { cipherSuites: ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] });
    assert.equal((await greet(both.port)).protocol, "TLSv1.3");
  });

  test("checks resumed sessions like any other", async (t) => {
    const crlFile = join(directoryOf(t), "revoked.crl");
    writeFileSync(crlFile, await ca.revoke("0abc"));
    for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
      const setup = await listen(t, { trusted: ca.pem, crlFile });
      let session: Buffer | undefined;
      const socket = tls.connect({ host: "127.0.0.1", port: setup.port, ca: ca.pem, ...client, maxVersion: version });
      socket.on("session", (given) => {
        session = given;
      });
      socket.resume();
      await once(socket, "close");
      assert.ok(session);
      const resumed = await greet(setup.port, { pair: client, session, maxVersion: version });
      assert.deepEqual([resumed.text, resumed.reused], ["hello CN=client", true]);
      writeFileSync(crlFile, await ca.revoke(new X509Certificate(client.cert).serialNumber));
      assert.match(String((await refusal(setup, { session, maxVersion: version }))["error"]), /revoked$/);
      writeFileSync(crlFile, await ca.revoke("0abcd0"));
    }
  });

  test("is not harmed by connections that are cut in the middle of a handshake", async (t) => {
    const setup = await listen(t, { trusted: ca.pem });
    const hello = await firstBytes();
    for (const reset of [true, false]) {
      for (let length = 0; length <= hello.length; length += 16) {
        const socket = net.connect(setup.port, "127.0.0.1").on("error", () => {});
        await once(socket, "connect");
        socket.write(hello.subarray(0, length));
        if (reset) socket.resetAndDestroy();
        else socket.destroy();
      }
    }
    assert.equal((await greet(setup.port, { pair: client })).text, "hello CN=client");
    assert.deepEqual(refusals(setup.logger), [], "an end of file is for the debug log");
  });

  test("drops the oldest of very many handshakes that do not go on, serves an honest client, and says so once", async (t) => {
    const { port, logger } = await listen(t);
    const hello = await firstBytes();
    const sockets = Array.from({ length: 300 }, () => net.connect(port, "127.0.0.1").on("error", () => {}));
    t.after(() => {
      for (const socket of sockets) socket.destroy();
    });
    let gone = 0;
    for (const socket of sockets) {
      socket.on("close", () => gone++);
      socket.resume();
      socket.on("connect", () => socket.write(hello));
    }
    await waitFor("the oldest are dropped", () => gone >= 300 - 256);
    assert.equal((await greet(port)).text, "hello stranger");
    assert.equal(logger.lines.filter(({ message }) => message.startsWith("dropped the oldest")).length, 1);
  });

  test("accepts only the allowed common names and host names", async (t) => {
    const byName = await listen(t, { trusted: ca.pem, allowedCns: ["ops", "client"] });
    assert.equal((await greet(byName.port, { pair: client })).text, "hello CN=client");
    assert.deepEqual(
      await refusal(byName, { pair: await ca.issue({ cn: "other", names: ["10.0.0.9", "a.example"] }) }),
      {
        "server-name": "",
        "ip-addresses": ["10.0.0.9"],
        "dns-names": ["a.example"],
        error: "client certificate authentication failed",
      },
    );
    const byHost = await listen(t, { trusted: ca.pem, allowedHostnames: ["b.example", "10.0.0.1"] });
    for (const names of [["*.example"], ["B.EXAMPLE"], ["10.0.0.1"]]) {
      assert.match((await greet(byHost.port, { pair: await ca.issue({ names }) })).text, /^hello/);
    }
    await refusal(byHost, { pair: await ca.issue({ cn: "b.example", names: ["c.example"] }) });
  });

  test("refuses the serial numbers of the revocation list, which may be DER or PEM and may be replaced", async (t) => {
    const crlFile = join(directoryOf(t), "revoked.crl");
    writeFileSync(crlFile, await ca.revoke("0abc"));
    const setup = await listen(t, { trusted: ca.pem, crlFile });
    const revoked = await ca.issue({ serial: "0abc", names: [] });
    assert.equal((await greet(setup.port, { pair: client })).text, "hello CN=client");
    assert.equal((await refusal(setup, { pair: revoked }))["error"], "transport: certificate serial 0abc revoked");
    const serial = new X509Certificate(client.cert).serialNumber;
    const der = await ca.revoke(serial);
    writeFileSync(
      crlFile,
      `-----BEGIN X509 CRL-----\n${der.toString("base64").replace(/.{64}/g, "$&\n")}\n-----END X509 CRL-----\n`,
    );
    assert.match((await greet(setup.port, { pair: revoked })).text, /^hello/);
    assert.match(String((await refusal(setup, { pair: client }))["error"]), /revoked$/);
    writeFileSync(crlFile, "nonsense, and then some");
    const before = refusals(setup.logger).length;
    await assert.rejects(greet(setup.port, { pair: revoked }), NOT_LET_IN);
    await waitFor("logged", () => refusals(setup.logger).length > before);
    assert.match(String(refusals(setup.logger).at(-1)!.fields["error"]), /^x509: malformed crl: .*--client-crl-file/);
  });

  test("compares a certificate's names with the client's address, where configured", async (t) => {
    const lookup: NameLookup = {
      reverse: async () => ["here.example."],
      forward: async (name) => (name === "local.example" ? ["127.0.0.1"] : ["10.1.1.1"]),
    };
    const setup = await listen(t, { trusted: ca.pem, checkSan: true, lookup });
    for (const names of [[], ["127.0.0.1"], ["10.0.0.1", "here.example"], ["*.example"], ["local.example"]]) {
      assert.match((await greet(setup.port, { pair: await ca.issue({ names }) })).text, /^hello/, names.join());
    }
    assert.deepEqual(await refusal(setup, { pair: await ca.issue({ names: ["10.0.0.1", "10.0.0.2"] }) }), {
      "server-name": "",
      "ip-addresses": ["10.0.0.1", "10.0.0.2"],
      "dns-names": [],
      error: "x509: certificate is valid for 10.0.0.1, 10.0.0.2, not 127.0.0.1",
    });
    const before = refusals(setup.logger).length;
    await assert.rejects(greet(setup.port, { pair: await ca.issue({ names: ["far.example", "x.test"] }) }), NOT_LET_IN);
    await waitFor("logged", () => refusals(setup.logger).length > before);
    assert.equal(
      refusals(setup.logger).at(-1)!.fields["error"],
      'tls: "127.0.0.1" does not match any of DNSNames ["far.example" "x.test"]',
    );
  });
});

describe("certificates replaced on disk", () => {
  test("are used from the next connection on; earlier sessions do not resume the old ones", async (t) => {
    const setup = await listen(t, { trusted: ca.pem });
    const first = await greet(setup.port, { pair: client });
    const next = await ca.issue({ cn: "next" });
    writeFileSync(setup.options.certFile, next.cert);
    writeFileSync(setup.options.keyFile, next.key);
    const second = await greet(setup.port, { pair: client });
    assert.notEqual(second.serverSerial, first.serverSerial);
    assert.equal(second.serverSerial, new X509Certificate(next.cert).serialNumber);
    assert.ok(setup.logger.has("reloaded certificate files"));
  });

  test("are picked up from a directory swapped by a link, as secrets are mounted", async (t) => {
    const setup = await listen(t);
    const first = await greet(setup.port);
    const pair = await ca.issue({ cn: "swapped" });
    writeFileSync(`${setup.options.certFile}.new`, pair.cert);
    writeFileSync(`${setup.options.keyFile}.new`, pair.key);
    renameSync(`${setup.options.keyFile}.new`, setup.options.keyFile);
    renameSync(`${setup.options.certFile}.new`, setup.options.certFile);
    assert.notEqual((await greet(setup.port)).serverSerial, first.serverSerial);
  });

  test("that do not match leave the former pair in use, and the log says so once", async (t) => {
    const setup = await listen(t);
    const { serverSerial } = await greet(setup.port);
    writeFileSync(setup.options.certFile, (await ca.issue()).cert);
    for (let i = 0; i < 2; i++) assert.equal((await greet(setup.port)).serverSerial, serverSerial);
    const told = setup.logger.lines.filter((line) => line.message === "failed to create peer certificate");
    assert.equal(told.length, 1);
    assert.match(String(told[0]!.fields["error"]), /^tls: private key does not match public key: .* stays in use$/);
    rmSync(setup.options.certFile);
    assert.equal((await greet(setup.port)).serverSerial, serverSerial);
    assert.ok(setup.logger.has("failed to find peer cert files"));
  });

  test("include the CAs", async (t) => {
    const setup = await listen(t, { trusted: ca.pem });
    const other = await Authority.create("other");
    const pair = await other.issue({ cn: "theirs", names: [] });
    await refusal(setup, { pair });
    writeFileSync(setup.options.trustedCaFile, ca.pem + other.pem);
    assert.equal((await greet(setup.port, { pair })).text, "hello CN=theirs");
    assert.equal((await greet(setup.port, { pair: client })).text, "hello CN=client");
  });
});

describe("unusable files are reported with the advice", () => {
  const problem = (options: Partial<TlsOptions>): string => {
    try {
      new TlsContext({ ...NONE, ...options }, systemClock, new MemoryLogger());
    } catch (error) {
      return (error as Error).message;
    }
    return "";
  };

  test("missing, unreadable, no certificate, no key, another's key, a passphrase", async (t) => {
    const directory = directoryOf(t);
    const { certFile, keyFile } = writePair(directory, "good", server);
    const other = writePair(directory, "other", client);
    const absent = join(directory, "absent");
    const text = join(directory, "text");
    writeFileSync(text, "nothing\n");
    const broken = join(directory, "broken");
    writeFileSync(broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert.equal(problem({ certFile, keyFile }), "");
    assert.equal(problem({ certFile }), `KeyFile and CertFile must both be present[key: , cert: ${certFile}]`);
    assert.equal(
      problem({ certFile: absent, keyFile }),
      `open ${absent}: no such file or directory: give --cert-file a file that this user may read`,
    );
    assert.match(problem({ certFile, keyFile: directory }), /^read .*: is a directory: give --key-file/);
    assert.match(
      problem({ certFile: text, keyFile }),
      /^tls: failed to find any PEM data in certificate input: .*text/,
    );
    assert.match(problem({ certFile: broken, keyFile }), /^x509: malformed certificate in .*broken .*--cert-file/);
    assert.match(problem({ certFile, keyFile: text }), /^tls: failed to find any PEM data in key input: .*text/);
    assert.equal(
      problem({ certFile, keyFile: other.keyFile }),
      `tls: private key does not match public key: --key-file ${other.keyFile} is not the key of --cert-file ${certFile}; give the two that were made together`,
    );
    const locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    writeFileSync(text, locked);
    assert.match(problem({ certFile, keyFile: text }), /is encrypted; give --key-file the key without a passphrase/);
    assert.match(
      problem({ certFile, keyFile, trustedCaFile: absent, flagPrefix: "peer-" }),
      /no such file or directory: give --peer-trusted-ca-file/,
    );
    if (process.getuid?.() !== 0) {
      chmodSync(keyFile, 0);
      assert.match(problem({ certFile, keyFile }), /permission denied: give --key-file/);
    }
  });

  test("options that exclude each other", async (t) => {
    const files = writePair(directoryOf(t), "good", server);
    assert.equal(
      problem({ ...files, allowedCns: ["a"], allowedHostnames: ["b", "c"] }),
      'AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a"], hostnames=["b" "c"])',
    );
    assert.equal(
      problem({ ...files, clientCertFile: files.certFile }),
      `ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: ${files.certFile}]`,
    );
  });
});

describe("names in certificates", () => {
  test("are read whatever they contain", async () => {
    const { cert } = await ca.issue({ cn: "a, b", names: ["::1", "2001:db8::5", "x.example", "127.0.0.1"] });
    assert.deepEqual(namesOf(new X509Certificate(cert)), {
      commonName: "a, b",
      dnsNames: ["x.example"],
      ipAddresses: ["::1", "2001:db8::5", "127.0.0.1"],
    });
    const evil = new X509Certificate((await ca.issue({ names: ['x, IP Address:127.0.0.1, "', "y"] })).cert);
    assert.deepEqual(namesOf(evil).ipAddresses, []);
    assert.deepEqual(namesOf(evil).dnsNames, ['x, IP Address:127.0.0.1, "', "y"]);
  });

  test("a wildcard stands for one label, and the common name for no host", async () => {
    const certificate = new X509Certificate((await ca.issue({ cn: "cn.example", names: ["*.example"] })).cert);
    assert.equal(isAllowed(certificate, [], ["a.example"]), true);
    for (const host of ["a.b.example", "example", "", "10.0.0.1"]) {
      assert.equal(isAllowed(certificate, [], [host]), false, host);
    }
  });

  test("an IPv6 client is found however its address is written", async () => {
    const lookup: NameLookup = { reverse: async () => [], forward: async () => [] };
    const certificate = new X509Certificate((await ca.issue({ names: ["2001:db8::5", "10.0.0.1"] })).cert);
    assert.equal(await sanProblem(certificate, "2001:0db8:0:0:0:0:0:5", lookup), undefined);
    assert.equal(await sanProblem(certificate, "::ffff:10.0.0.1", lookup), undefined);
    assert.match((await sanProblem(certificate, "::1", lookup)) ?? "", /, not ::1$/);
  });
});

test("a host name that does not resolve counts against its certificate", async (t) => {
  const setup = await listen(t, { trusted: ca.pem, checkSan: true });
  const { error } = await refusal(setup, { pair: await ca.issue({ names: ["nowhere.invalid"] }) });
  assert.match(
    String(error),
    /^tls: "127\.0\.0\.1" does not match any of DNSNames \["nowhere\.invalid"\] \(lookup nowhere\.invalid: /,
  );
});

test("an expired certificate is used, and the log says so", async (t) => {
  const logger = new MemoryLogger();
  const files = writePair(directoryOf(t), "old", await ca.issue({ expired: true }));
  new TlsContext({ ...NONE, ...files }, systemClock, logger);
  assert.ok(logger.has("the certificate has expired; clients that verify it will not connect until it is replaced"));
});

test("a certificate created at the start is kept, and valid for the hosts listened on", async (t) => {
  const directory = join(directoryOf(t), "fixtures", "client");
  const logger = new MemoryLogger();
  const make = () =>
    selfSignedCertificate({
      directory,
      hosts: ["127.0.0.1", "localhost"],
      validityYears: 2,
      clock: systemClock,
      logger,
    });
  const { certFile, keyFile } = await make();
  assert.deepEqual([certFile, keyFile], [join(directory, "cert.pem"), join(directory, "key.pem")]);
  assert.equal(statSync(keyFile).mode & 0o777, 0o600);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  const text = readFileSync(certFile, "utf8");
  const certificate = new X509Certificate(text);
  assert.equal(certificate.subject, "O=etcd");
  assert.equal(certificate.publicKey.asymmetricKeyDetails?.namedCurve, "secp521r1");
  assert.deepEqual(namesOf(certificate), { commonName: "", dnsNames: ["localhost"], ipAddresses: ["127.0.0.1"] });
  const years = (Date.parse(certificate.validTo) - Date.parse(certificate.validFrom)) / (365 * 24 * 3_600_000);
  assert.equal(Math.round(years), 2);
  assert.match(readFileSync(keyFile, "utf8"), /^-----BEGIN EC PRIVATE KEY-----/);
  assert.ok(logger.has("automatically generate certificates"));
  await make();
  assert.equal(readFileSync(certFile, "utf8"), text);
  new TlsContext({ ...NONE, certFile, keyFile }, systemClock, logger);
});
