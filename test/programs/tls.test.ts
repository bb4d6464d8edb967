import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { connect } from "../../src/client/raw.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { Authority, writePair } from "../harness/certificates.ts";
import { tempDir } from "../harness/in-process.ts";
import { ourEtcd, run } from "../harness/programs.ts";
import { patience, waitFor } from "../harness/wait.ts";
import { bytes } from "../server/requests.ts";

// The three ways in which published guides give a member its certificates: flags, an EnvironmentFile, a file.

const dir = tempDir();
after(() => dir.remove());
const ca = await Authority.create("kubernetes");
const caFile = join(dir.path, "ca.pem");
writeFileSync(caFile, ca.pem);
const pair = await ca.issue({ cn: "etcd" });
const { certFile, keyFile } = writePair(dir.path, "etcd", pair);
const LISTEN = "https://127.0.0.1:0,http://127.0.0.1:0";
const ADVERTISE = "https://127.0.0.1:1";

let members = 0;
const newDataDir = () => join(dir.path, `data${members++}`);

interface Entry {
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** Starts the program and returns its secure and its plain address. */
async function start(t: TestContext, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { file, args: first } = ourEtcd();
  // A configuration file excludes flags; otherwise the peer port does not matter to the test.
  const child = spawn(file, [...first, ...args], {
    env: { ETCD_LISTEN_PEER_URLS: "http://127.0.0.1:0", ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let log = "";
  child.stderr.on("data", (chunk) => {
    log += chunk;
  });
  const entries = (): Entry[] =>
    log
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  await waitFor("the member serves", () => entries().some(({ msg }) => msg === "successfully notified init daemon"));
  const address = (msg: string) => String(entries().find((entry) => entry.msg.startsWith(msg))?.["address"]);
  return {
    secure: address("serving client traffic securely"),
    plain: address("serving client traffic insecurely"),
    entries,
  };
}

async function serves(t: TestContext, { secure, plain }: { secure: string; plain: string }): Promise<void> {
  const key = bytes("k");
  const safe = connect(secure, { tls: { ca: bytes(ca.pem), cert: bytes(pair.cert), key: bytes(pair.key) } });
  const local = connect(plain);
  const stranger = connect(secure, { tls: { ca: bytes(ca.pem) } });
  t.after(() => [safe, local, stranger].map((client) => client.close()));
  await safe.unary(KVService.Put, { key, value: bytes("v") }, { timeoutMs: patience(5000) });
  assert.equal((await local.unary(KVService.Range, { key }, { timeoutMs: patience(5000) })).count, 1);
  await assert.rejects(stranger.unary(KVService.Range, { key }, { timeoutMs: 2000 }), /certificate required/);
}

test("a unit file's flags", async (t) => {
  const member = await start(
    t,
    [
      `--name=one --data-dir=${newDataDir()} --cert-file=${certFile} --key-file=${keyFile} --trusted-ca-file=${caFile}`,
      `--client-cert-auth --listen-client-urls=${LISTEN} --advertise-client-urls=${ADVERTISE}`,
    ].flatMap((line) => line.split(" ")),
  );
  assert.match(member.secure, /^https:/);
  await serves(t, member);
  assert.ok(member.entries().some(({ msg }) => msg === "starting with client TLS"));
});

test("an EnvironmentFile; a CA alone is enough to require certificates", async (t) => {
  const member = await start(t, [], {
    ETCD_NAME: "one",
    ETCD_DATA_DIR: newDataDir(),
    ETCD_CERT_FILE: certFile,
    ETCD_KEY_FILE: keyFile,
    ETCD_TRUSTED_CA_FILE: caFile,
    ETCD_LISTEN_CLIENT_URLS: LISTEN,
    ETCD_ADVERTISE_CLIENT_URLS: ADVERTISE,
  });
  await serves(t, member);
});

test("a configuration file, with the common names that only it can require", async (t) => {
  const file = (allowed: string) => {
    const path = join(dir.path, `${allowed}.yml`);
    const lines = [
      "name: one",
      `data-dir: ${newDataDir()}`,
      "listen-peer-urls: http://127.0.0.1:0",
      `listen-client-urls: ${LISTEN}`,
      `advertise-client-urls: ${ADVERTISE}`,
      "client-transport-security:",
      `  cert-file: ${certFile}`,
      `  key-file: ${keyFile}`,
      "  client-cert-auth: true",
      `  trusted-ca-file: ${caFile}`,
      `  allowed-cn: [${allowed}]`,
      "tls-min-version: TLS1.3",
    ];
    writeFileSync(path, `${lines.join("\n")}\n`);
    return `--config-file=${path}`;
  };
  await serves(t, await start(t, [file("etcd")]));
  await assert.rejects(
    serves(t, await start(t, [file("root")])),
    /ECONNRESET|EPIPE|socket hang up|socket disconnected|Connection dropped|Failed to connect/,
  );
});

test("unusable certificates end the start with the advice, before anything is written", async () => {
  const dataDir = newDataDir();
  const flags = [`--data-dir=${dataDir}`, `--listen-client-urls=${LISTEN}`, `--advertise-client-urls=${ADVERTISE}`];
  const reason = async (...tls: string[]) => {
    const { code, stderr } = await run(ourEtcd(), [...flags, ...tls]);
    assert.equal(code, 1);
    const { msg, error } = JSON.parse(stderr.trim().split("\n").at(-1)!);
    assert.ok(["discovery failed", "failed to verify flags"].includes(msg), msg);
    return error as string;
  };
  assert.equal(
    await reason(),
    "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:0 with HTTPS scheme",
  );
  assert.equal(
    await reason("--cert-file=/no/such.pem", `--key-file=${keyFile}`),
    "open /no/such.pem: no such file or directory: give --cert-file a file that this user may read",
  );
  assert.equal(
    await reason(`--cert-file=${certFile}`),
    `KeyFile and CertFile must both be present[key: , cert: ${certFile}]`,
  );
  assert.match(await reason(`--cert-file=${certFile}`, `--key-file=${certFile}`), /holds no private key/);
  await assert.rejects(
    import("node:fs/promises").then(({ stat }) => stat(dataDir)),
    /ENOENT/,
  );
});
