import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createSecureServer, createServer, type Http2Server } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, type TestContext, test } from "node:test";
import { createServer as createTlsServer } from "node:tls";
import { systemClock } from "../../src/base/clock.ts";
import { findTrouble } from "../../src/client/probe.ts";
import type { TlsOptions } from "../../src/client/raw.ts";
import { Authority, type IssueOptions } from "../harness/certificates.ts";
import { freePorts } from "../harness/server.ts";

const PATIENCE_MS = 10_000;
let ours: Authority;
let others: Authority;
before(async () => {
  [ours, others] = await Promise.all([Authority.create("ours"), Authority.create("others")]);
});

const trouble = (endpoint: string, tls?: TlsOptions) => findTrouble(endpoint, tls, PATIENCE_MS, systemClock);
const pem = (text: string) => Buffer.from(text);
const trusting = (authority: Authority): TlsOptions => ({ ca: pem(authority.pem) });

async function listen(t: TestContext, server: Server | Http2Server): Promise<string> {
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function secureServer(t: TestContext, issue: IssueOptions = {}, asksFor?: Authority): Promise<string> {
  const { cert, key } = await ours.issue(issue);
  const asking = asksFor ? { requestCert: true, rejectUnauthorized: true, ca: asksFor.pem } : {};
  return listen(t, createSecureServer({ cert, key, ...asking }));
}

test("an endpoint that answers as expected has no trouble", async (t) => {
  assert.equal(await trouble(await listen(t, createServer())), undefined);
  assert.equal(await trouble(await secureServer(t), trusting(ours)), undefined);
  const { cert, key } = await ours.issue();
  const client = { ...trusting(ours), cert: pem(cert), key: pem(key) };
  assert.equal(await trouble(await secureServer(t, {}, ours), client), undefined);
  assert.equal(await trouble(await secureServer(t, { expired: true }), { insecureSkipVerify: true }), undefined);
});

test("no listener is a trouble that may pass", async (t) => {
  const [port] = await freePorts(1);
  const refused = `dial tcp 127.0.0.1:${port}: connect: connection refused`;
  assert.deepEqual(await trouble(`127.0.0.1:${port}`), { text: refused, lasting: false });
  assert.deepEqual(await trouble(`https://127.0.0.1:${port}`, {}), { text: refused, lasting: false });
  const directory = mkdtempSync(join(tmpdir(), "kvorum-probe-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const socket = await trouble(`unix://${directory}/s`);
  assert.deepEqual(socket, { text: `dial unix ${directory}/s: connect: no such file or directory`, lasting: false });
  const name = await trouble("no-such-host.invalid:1");
  assert.match(name!.text, /^dial tcp: lookup no-such-host\.invalid: /);
  assert.equal(name!.lasting, false);
});

test("TLS on one side only is detected from both sides", async (t) => {
  const plain = await listen(t, createServer());
  assert.equal((await trouble(plain, trusting(ours)))?.kind, "speaks-plain");
  const secure = await secureServer(t);
  assert.equal((await trouble(secure))?.kind, "speaks-tls");
  const asking = await secureServer(t, {}, ours);
  assert.equal((await trouble(asking))?.kind, "speaks-tls");
});

test("an untrusted server certificate is reported with the reason", async (t) => {
  const failed = async (tls: TlsOptions, issue: IssueOptions = {}) => {
    const found = await trouble(await secureServer(t, issue), tls);
    assert.equal(found?.lasting, true);
    const [, text] = /^tls: failed to verify certificate: x509: (.*)$/.exec(found.text) ?? [];
    return text;
  };
  assert.equal(await failed(trusting(others)), "certificate signed by unknown authority");
  assert.equal(await failed({}), "certificate signed by unknown authority");
  const elsewhere = { names: ["elsewhere.test", "10.0.0.1"] };
  assert.equal(await failed(trusting(ours), elsewhere), "certificate is valid for 10.0.0.1, not 127.0.0.1");
  const named = { ...trusting(ours), serverName: "here.test" };
  assert.equal(await failed(named, elsewhere), "certificate is valid for elsewhere.test, not here.test");
  const dns = "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs";
  assert.equal(await failed(trusting(ours), { names: ["elsewhere.test"] }), dns);
  const legacy = "certificate relies on legacy Common Name field, use SANs instead";
  assert.equal(await failed(trusting(ours), { cn: "127.0.0.1", names: [] }), legacy);
  const expired = await failed(trusting(ours), { expired: true });
  assert.match(expired!, /^certificate has expired or is not yet valid: current time [\dTZ:-]+ is after [\dTZ:-]+$/);
});

test("a missing or refused client certificate is reported", async (t) => {
  const asking = await secureServer(t, {}, ours);
  const missing = await trouble(asking, trusting(ours));
  assert.deepEqual(missing, {
    text: "remote error: tls: certificate required",
    lasting: true,
    kind: "client-certificate",
  });
  const { cert, key } = await others.issue();
  const stranger = { ...trusting(ours), cert: pem(cert), key: pem(key) };
  const refused = await trouble(asking, stranger);
  assert.equal(refused?.lasting, false);
  assert.equal(refused?.kind, "closed-on-certificate");
  const pair = await ours.issue();
  const closing = createTlsServer({ cert: pair.cert, key: pair.key, ALPNProtocols: ["h2"] }, (socket) =>
    socket.destroy(),
  );
  assert.equal((await trouble(await listen(t, closing), trusting(ours)))?.kind, "closed-without-certificate");
});

test("a server that speaks another protocol is reported", async (t) => {
  const http1 = createTcpServer((socket) => socket.on("error", () => {}).end("HTTP/1.1 503 Unavailable\r\n\r\n"));
  const found = await trouble(await listen(t, http1));
  assert.deepEqual(found, { text: "the server speaks HTTP/1 where gRPC needs HTTP/2", lasting: false });
  const silent = createTcpServer((socket) => socket.on("error", () => {}).end());
  const nothing = await trouble(await listen(t, silent));
  assert.deepEqual(nothing, { text: "error reading server preface: EOF", lasting: false });
});

test("a silent server is reported after the timeout", async (t) => {
  const sockets: { destroy(): void }[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const endpoint = await listen(
    t,
    createTcpServer((socket) => void sockets.push(socket)),
  );
  const found = await findTrouble(endpoint, undefined, 100, systemClock);
  assert.deepEqual(found, { text: "error reading server preface: i/o timeout", lasting: false });
});
