import assert from "node:assert/strict";
import { createPublicKey, X509Certificate } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { createServer as createTlsServer } from "node:tls";
import "reflect-metadata";
import { Pkcs10CertificateRequest } from "@peculiar/x509";
import { RevocationList } from "../../../src/rpc/tls/revocation.ts";
import { Authority } from "../../harness/certificates.ts";
import { tempDir } from "../../harness/in-process.ts";
import { freePorts } from "../../harness/server.ts";
import { kvorum, type Ran, type Surroundings } from "../helpers.ts";

const DAY_MS = 24 * 3600 * 1000;
let root: ReturnType<typeof tempDir>;
before(() => (root = tempDir()));
after(() => root.remove());

let count = 0;
function newDir(): string {
  const dir = join(root.path, `${++count}`);
  mkdirSync(dir);
  return dir;
}

const TWO = ["--member", "m1=10.0.0.1", "--member", "m2=10.0.0.2,m2=two.example"];
const make = (at: Surroundings, ...more: string[]): Promise<Ran> => kvorum(at, "cert", "make", ...TWO, ...more);
const certificate = (dir: string, path: string) => new X509Certificate(readFileSync(join(dir, "pki", path)));
const actions = ({ out }: Ran) =>
  out
    .trim()
    .split("\n")
    .map((line) => line.split(/\s+/).slice(0, 2).join(" "));

test("certificates are made for each member and use, with keys that only their owner reads", async () => {
  const cwd = newDir();
  const ran = await make({ cwd }, "--client", "root,backup");
  assert.deepEqual([ran.code, ran.err], [0, ""]);
  const ca = certificate(cwd, "ca.crt");
  assert.ok(ca.ca);
  const leaves = ["m1/server", "m1/peer", "m2/server", "m2/peer"].map((name) => `members/${name}`);
  for (const leaf of [...leaves, "clients/root", "clients/backup"]) {
    const made = certificate(cwd, `${leaf}.crt`);
    assert.ok(made.checkIssued(ca) && made.verify(ca.publicKey), leaf);
    assert.equal(statSync(join(cwd, "pki", `${leaf}.key`)).mode & 0o777, 0o600);
  }
  assert.equal(statSync(join(cwd, "pki", "ca.key")).mode & 0o777, 0o600);
  const second = certificate(cwd, "members/m2/server.crt");
  for (const name of ["10.0.0.2", "127.0.0.1"]) assert.equal(second.checkIP(name), name);
  for (const name of ["two.example", "localhost"]) assert.equal(second.checkHost(name), name);
  assert.equal(second.checkIP("10.0.0.1"), undefined);
  assert.equal(certificate(cwd, "clients/backup.crt").subject, "CN=backup");
  assert.deepEqual(certificate(cwd, "clients/root.crt").keyUsage, ["1.3.6.1.5.5.7.3.2"]);
});

for (const algorithm of ["ecdsa-p256", "ecdsa-p384", "rsa-2048", "ed25519"]) {
  test(`keys of ${algorithm} serve in a handshake in which both sides show a certificate`, async (t) => {
    const cwd = newDir();
    const ran = await make({ cwd }, "--shared", "--algorithm", algorithm);
    assert.equal(ran.code, 0, ran.err);
    const url = await secureServer(t, join(cwd, "pki"), "members/etcd");
    const client = ["--cert", "pki/clients/root.crt", "--key", "pki/clients/root.key"];
    const checked = await kvorum({ cwd }, "cert", "check", "--endpoints", url, "--cacert", "pki/ca.crt", ...client);
    assert.match(checked.out, /the handshake succeeds\n/);
    assert.equal(checked.code, 0);
  });
}

async function secureServer(t: TestContext, pki: string, name: string): Promise<string> {
  const server = createSecureServer({
    cert: readFileSync(join(pki, `${name}.crt`)),
    key: readFileSync(join(pki, `${name}.key`)),
    ca: readFileSync(join(pki, "ca.crt")),
    requestCert: true,
    rejectUnauthorized: true,
  });
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return `https://127.0.0.1:${port}`;
}

test("what is there and good is kept; what is near its end, names the wrong hosts or lost its key is renewed", async () => {
  const cwd = newDir();
  await make({ cwd });
  const before = readFileSync(join(cwd, "pki", "members/m1/server.crt"));
  assert.ok(actions(await make({ cwd })).every((action) => action.startsWith("kept ")));
  const moved = await kvorum({ cwd }, "cert", "make", "--member", "m1=10.0.0.1", "--member", "m2=10.0.0.9");
  assert.deepEqual(actions(moved).slice(3), [
    "renewed members/m2/server.crt",
    "renewed members/m2/peer.crt",
    "kept clients/root.crt",
  ]);
  assert.match(moved.out, /m2\/peer\.crt \(it was: not valid for 10\.0\.0\.9\)/);
  const fewer = await make({ cwd });
  assert.match(fewer.out, /renewed {3}members\/m2\/peer\.crt/);
  copyFileSync(join(cwd, "pki", "members/m2/peer.key"), join(cwd, "pki", "members/m1/peer.key"));
  const lost = await make({ cwd });
  assert.match(lost.out, /renewed {3}members\/m1\/peer\.crt \(it was: the key beside it is another one's\)/);
  assert.deepEqual(readFileSync(join(cwd, "pki", "members/m1/server.crt")), before);
  const late = await make({ cwd, laterMs: 340 * DAY_MS });
  assert.match(late.out, /renewed {3}members\/m1\/server\.crt \(it was: expires on \d{4}-\d\d-\d\d, in 2\d days\)/);
});

test("a certificate never outlasts its authority, and is not renewed over and over when that ends soon", async () => {
  const cwd = newDir();
  await make({ cwd }, "--ca-days", "20", "--days", "365");
  assert.equal(certificate(cwd, "members/m1/peer.crt").validTo, certificate(cwd, "ca.crt").validTo);
  assert.ok(actions(await make({ cwd })).every((action) => action.startsWith("kept ")));
  const late = await make({ cwd, laterMs: 21 * DAY_MS });
  assert.deepEqual([late.code, late.out], [3, ""]);
  assert.match(late.err, /ca\.crt: expired on .*: all certificates must be replaced\n$/);
});

test("an interrupted run is completed by the next: each file is there whole or not at all", async () => {
  const cwd = newDir();
  await make({ cwd });
  for (const path of ["members/m1/peer.crt", "members/m2/server.crt", "members/m2/server.key", "clients/root.key"])
    rmSync(join(cwd, "pki", path));
  writeFileSync(join(cwd, "pki", "members/m1/peer.crt.new"), "half of a certifi");
  const again = await make({ cwd });
  assert.deepEqual(actions(again), [
    "kept ca.crt",
    "kept members/m1/server.crt",
    "made members/m1/peer.crt",
    "made members/m2/server.crt",
    "kept members/m2/peer.crt",
    "made clients/root.crt",
  ]);
  assert.equal((await kvorum({ cwd }, "cert", "show", "pki")).code, 0);
});

test("an authority that is there signs, and one without its key is refused", async () => {
  const cwd = newDir();
  const given = newDir();
  await kvorum({ cwd: given }, "cert", "make", "--cluster", "given", "--algorithm", "rsa-2048");
  mkdirSync(join(cwd, "pki"));
  for (const name of ["ca.crt", "ca.key"]) copyFileSync(join(given, "pki", name), join(cwd, "pki", name));
  await make({ cwd });
  assert.equal(certificate(cwd, "members/m1/peer.crt").issuer, "CN=given CA");
  rmSync(join(cwd, "pki", "ca.key"));
  const refused = await make({ cwd });
  assert.equal(refused.code, 3);
  assert.match(refused.err, /ca\.crt is there without its key .*ca\.key: put the key there, or let its owner sign/);
});

test("requests go to an authority elsewhere, and what it signs comes to the right keys or changes nothing", async () => {
  const cwd = newDir();
  const asked = await make({ cwd }, "--csr");
  assert.ok(actions(asked).every((action) => action.startsWith("requested ") || action.startsWith("Let ")));
  const csr = new Pkcs10CertificateRequest(readFileSync(join(cwd, "pki/members/m1/server.csr"), "utf8"));
  assert.ok(await csr.verify());
  assert.equal(csr.subject, "CN=m1");
  const elsewhere = newDir();
  await kvorum({ cwd: elsewhere }, "cert", "make", "--client", "x");
  const authority = await import("../../../src/deploy/pki/authority.ts").then(({ Authority: Ours }) =>
    Ours.parse(
      readFileSync(join(elsewhere, "pki/ca.crt"), "utf8"),
      "ca.crt",
      readFileSync(join(elsewhere, "pki/ca.key"), "utf8"),
      "ca.key",
    ),
  );
  const { systemRandom } = await import("../../../src/base/random.ts");
  const sign = async (names: readonly string[], path: string) => {
    const now = { nowMs: Date.now(), random: systemRandom };
    const key = createPublicKey(readFileSync(join(cwd, "pki/members/m1/server.key"))).export({
      type: "spki",
      format: "der",
    });
    const request = { commonName: "m1", purpose: "server" as const, names, days: 100 };
    writeFileSync(join(cwd, path), await authority.issue(key, request, now));
  };
  const cacert = ["--cacert", join(elsewhere, "pki/ca.crt")];
  await sign(["10.0.0.77"], "wrong.crt");
  const wrong = await kvorum({ cwd }, "cert", "import", ...TWO, ...cacert, "wrong.crt");
  assert.equal(wrong.code, 3);
  assert.match(wrong.err, /wrong\.crt: not valid for 10\.0\.0\.1, 127\.0\.0\.1, localhost; nothing was changed/);
  await sign(["10.0.0.1", "127.0.0.1", "localhost"], "right.crt");
  const right = await kvorum({ cwd }, "cert", "import", ...TWO, ...cacert, "right.crt");
  assert.equal(right.out, "made      members/m1/server.crt\n", right.err);
  const foreign = await kvorum({ cwd }, "cert", "import", ...TWO, ...cacert, join(elsewhere, "pki/clients/x.crt"));
  assert.match(foreign.err, /x\.crt belongs to no key in /);
  const again = await make({ cwd }, "--csr");
  assert.match(again.out, /^kept {6}members\/m1\/server\.crt\nrequested members\/m1\/peer\.csr$/m);
});

test("show tells what is wrong with a file, by its exit code too", async () => {
  const cwd = newDir();
  await make({ cwd });
  const show = (laterMs: number, ...args: string[]) => kvorum({ cwd, laterMs }, "cert", "show", ...args);
  assert.equal((await show(0, "pki")).code, 0);
  const soon = await show(350 * DAY_MS, "pki/members/m1");
  assert.equal(soon.code, 1);
  assert.match(soon.out, /warning: pki\/members\/m1\/peer\.crt: expires on .*, in 1\d days/);
  const late = await show(400 * DAY_MS, "pki/clients/root.crt", "-w", "json");
  assert.equal(late.code, 2);
  const [card] = JSON.parse(late.out);
  assert.deepEqual([card.subject, card.uses, card.remarks[0].level], ["CN=root", ["client"], "problem"]);
  copyFileSync(join(cwd, "pki/clients/root.key"), join(cwd, "pki/members/m1/peer.key"));
  assert.match((await show(0, "pki")).out, /problem: pki\/members\/m1\/peer\.crt: the key beside it is another one's/);
  assert.match((await show(0, "pki/ca.key")).err, /ca\.key has no certificate in PEM/);
  assert.match((await show(0, "nowhere")).err, /nowhere: no such file or directory/);
});

test("a revoked certificate is on the list that servers read", async () => {
  const cwd = newDir();
  await make({ cwd });
  const revoke = (...paths: string[]) => kvorum({ cwd }, "cert", "revoke", ...paths);
  assert.equal((await revoke("pki/clients/root.crt")).code, 0);
  assert.equal((await revoke("pki/clients/root.crt", "pki/members/m1/peer.crt")).code, 0);
  const list = new RevocationList(join(cwd, "pki/ca.crl"), "--client-crl-file");
  const serials = ["clients/root.crt", "members/m1/peer.crt"].map((path) =>
    BigInt(`0x${certificate(cwd, path).serialNumber}`),
  );
  assert.deepEqual([...(await list.load())], serials);
  const other = await Authority.create("other");
  writeFileSync(join(cwd, "other.crt"), (await other.issue()).cert);
  assert.match((await revoke("other.crt")).err, /other\.crt was not signed by/);
  writeFileSync(join(cwd, "pki/revoked.json"), "[{]");
  assert.match((await revoke("pki/members/m2/peer.crt")).err, /revoked\.json cannot be read: restore it/);
});

test("check says in words why a handshake fails, and what to do", async (t) => {
  const cwd = newDir();
  await make({ cwd });
  const url = await secureServer(t, join(cwd, "pki"), "members/m1/server");
  const check = (endpoint: string, ...more: string[]) =>
    kvorum({ cwd }, "cert", "check", "--endpoints", endpoint, ...more);
  const ours = ["--cacert", "pki/ca.crt"];
  const root = ["--cert", "pki/clients/root.crt", "--key", "pki/clients/root.key"];
  const untrusted = await check(url, ...root);
  assert.equal(untrusted.code, 2);
  assert.match(
    untrusted.out,
    /certificate signed by unknown authority\n {2}what to do: give the authority .* --cacert: it was signed by "CN=etcd CA"/,
  );
  const without = await check(url, ...ours);
  assert.match(without.out, /what to do: the server wants a client certificate: give one with --cert and --key/);
  const foreign = newDir();
  await kvorum({ cwd: foreign }, "cert", "make");
  const stranger = ["--cert", join(foreign, "pki/clients/root.crt"), "--key", join(foreign, "pki/clients/root.key")];
  assert.match(
    (await check(url, ...ours, ...stranger)).out,
    /the server does not trust the authority of the certificate/,
  );
  const [port] = await freePorts(1);
  assert.match(
    (await check(`127.0.0.1:${port}`, ...ours)).out,
    /connection refused\n {2}what to do: nothing listens there/,
  );
  const serve = async (cert: string | Buffer, key: string | Buffer): Promise<string> => {
    const server = createTlsServer({ cert, key });
    t.after(() => server.close());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  const client = ["crt", "key"].map((end) => readFileSync(join(cwd, `pki/clients/root.${end}`)));
  const misused = await check(await serve(client[0]!, client[1]!), ...ours);
  assert.match(misused.out, /incompatible key usage\n(.*\n)? {2}what to do: give the server a certificate for servers/);
  const other = await Authority.create("other");
  writeFileSync(join(cwd, "other.crt"), other.pem);
  const elsewhere = await other.issue({ names: ["elsewhere.test"] });
  const misnamed = await check(await serve(elsewhere.cert, elsewhere.key), "--cacert", "other.crt");
  assert.match(misnamed.out, /what to do: make a certificate that names this address/);
  const expired = await other.issue({ expired: true });
  const over = await check(await serve(expired.cert, expired.key), "--cacert", "other.crt");
  assert.match(over.out, /what to do: compare the clocks of both hosts; when they agree, renew the certificate/);
  assert.match((await check(url, "--cert", "pki/clients/root.crt")).err, /give both --cert and --key, or none/);
  assert.match((await check(url, "--cacert", "none.crt")).err, /--cacert: .*none\.crt does not exist/);
});

test("a command line that cannot be meant is refused with what it should be", async () => {
  const cwd = newDir();
  const refusals: [string[], RegExp][] = [
    [["make", "--member", "m1"], /--member m1 is not NAME=ADDRESS, such as m1=10\.0\.0\.1/],
    [["make", "--member", "m1=https://10.0.0.1:2380"], /certificates name hosts, without scheme and port/],
    [["make", "--member", "../m1=10.0.0.1"], /member name "\.\.\/m1" may have letters/],
    [["make", "--client", "a/b"], /client name "a\/b" may have letters/],
    [["make", "--algorithm", "dsa"], /there is no key algorithm dsa; choose one of ecdsa-p256, /],
    [["make", "m1"], /cert make takes flags only, not m1/],
    [["import", "x.crt"], /kvorum cert import needs --cacert/],
    [["show"], /cert show needs a certificate or a directory/],
    [["show", "x", "-w", "xml"], /x: no such file|simple or json/],
    [["make", "--nonsense"], /unknown flag: --nonsense/],
  ];
  for (const [args, text] of refusals) {
    const { code, err } = await kvorum({ cwd }, "cert", ...args);
    assert.equal(code, 3, args.join(" "));
    assert.match(err, text);
  }
});
