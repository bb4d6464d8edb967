/** etcdctl's behaviour when an endpoint does not answer, or cannot serve the request. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Authority, writePair } from "../harness/certificates.ts";
import { withCluster } from "../harness/cluster.ts";
import { requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { freePorts, type Server, startServer } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { type CtlOptions, ctl, ctlProcess } from "./helpers.ts";

const skip = requireStockEtcd();
const dir = mkdtempSync(join(tmpdir(), "kvorum-ctl-connection-"));
const file = (name: string) => join(dir, name);
let plain: Server;
let secure: Server;

before(async () => {
  const [ours, others] = await Promise.all([Authority.create("ours"), Authority.create("others")]);
  writeFileSync(file("ca.crt"), ours.pem);
  writeFileSync(file("other-ca.crt"), others.pem);
  writeFileSync(file("nothing"), "no PEM at all\n");
  writePair(dir, "server", await ours.issue());
  const pair = await ours.issue({ usages: ["client"] });
  writePair(dir, "client", pair);
  if (skip) return;
  const args = ["--cert-file", file("server.crt"), "--key-file", file("server.key"), "--client-cert-auth"];
  const client = { ca: Buffer.from(ours.pem), cert: Buffer.from(pair.cert), key: Buffer.from(pair.key) };
  const peers = ["--peer-cert-file", file("server.crt"), "--peer-key-file", file("server.key")];
  const tls = { args: [...args, "--trusted-ca-file", file("ca.crt"), ...peers], client };
  [plain, secure] = await Promise.all([startServer(stockEtcd()), startServer(stockEtcd(), { tls })]);
});
after(async () => {
  await Promise.all([plain?.close(), secure?.close()]);
  rmSync(dir, { recursive: true });
});

async function run(args: readonly string[], options: CtlOptions = {}) {
  const { code, stdout, stderr } = await ctl(args, options);
  return { code, stdout: stdout.toString(), stderr };
}

/** Limits that no test reaches: a test that ends earlier did not wait for them. */
const NEVER = ["--command-timeout", "1h", "--dial-timeout", "1h"];

/** Commands of every kind: unary, streams, per-member calls, sessions. */
const COMMANDS = [
  "get a",
  "put a b",
  "del a",
  "get --stream a",
  "watch a",
  "lease grant 10",
  "lease keep-alive 1",
  "lease keep-alive --once 1",
  "lock a",
  "elect a b",
  "elect -l a",
  "member list",
  "endpoint health",
  "endpoint status",
  "endpoint hashkv",
  "endpoint status --cluster",
  "defrag",
  "alarm list",
  "compaction 1",
  "move-leader 1",
  "user list",
  "role get r",
  "auth status",
  "check perf",
  "downgrade validate 3.6",
  "make-mirror 127.0.0.1:1",
].map((line) => line.split(" "));

test("an error that waiting cannot fix is reported at once, by every command", { skip }, async () => {
  const missing =
    /remote error: tls: (?:certificate required|bad certificate) \(give a client certificate with --cert and --key\)/;
  const snapshot = ["snapshot", "save", file("snapshot.db")];
  for (const command of [...COMMANDS, snapshot]) {
    const { code, stderr } = await run([...NEVER, "--endpoints", secure.url, "--cacert", file("ca.crt"), ...command]);
    assert.match(stderr, missing, command.join(" "));
    assert.notEqual(code, 0, command.join(" "));
  }
});

test("each cause has its text", { skip }, async () => {
  const get = (...flags: string[]) => run([...NEVER, ...flags, "get", "a"]);
  const cert = ["--cert", file("client.crt"), "--key", file("client.key")];
  const address = secure.endpoint;
  for (const [flags, problem] of [
    [["--endpoints", secure.url, ...cert], /signed by unknown authority \(name the authority .* with --cacert\)/],
    [["--endpoints", secure.url, ...cert, "--cacert", file("other-ca.crt")], /signed by unknown authority/],
    [["--endpoints", address], new RegExp(`speaks TLS, .*\\(the endpoint is https://${address}\\)`)],
    [["--endpoints", `http://${address}`], new RegExp(`\\(the endpoint is https://${address}\\)`)],
    [["--endpoints", `https://${plain.endpoint}`], new RegExp(`\\(the endpoint is http://${plain.endpoint}\\)`)],
    [["--endpoints", plain.endpoint, "--cacert", file("ca.crt")], /speaks no TLS/],
    [["--endpoints", "http:"], /address http:: missing port in address/],
    [["--endpoints", ","], /missing address/],
    [["--endpoints", `http:,${secure.url}`, ...cert], /address http:: missing port in address; .*unknown authority/],
  ] as const) {
    const { code, stderr } = await get(...flags);
    assert.equal(code, 1, flags.join(" "));
    assert.match(stderr, /^Error: [^\n]*\n$/);
    assert.match(stderr, problem, flags.join(" "));
  }
  await run(["--endpoints", plain.endpoint, "put", "mirrored", "v"]);
  const mirror = await run([...NEVER, "--endpoints", plain.endpoint, "make-mirror", secure.url]);
  assert.match(mirror.stderr, /--dest-cacert/);
});

test("an unusable endpoint does not prevent another one from answering", { skip }, async () => {
  const [port] = await freePorts(1);
  const endpoints = `http:,127.0.0.1:${port},http://${secure.endpoint},${plain.endpoint}`;
  assert.equal((await run(["--endpoints", endpoints, "put", "several", "v"])).stdout, "OK\n");
});

test("a restarting server is waited for, and the user is told why", { skip }, async (t) => {
  const server = await startServer(stockEtcd());
  t.after(() => server.close());
  await server.kill("SIGKILL");
  const child = ctlProcess(["--endpoints", server.endpoint, "--command-timeout", "1m", "put", "late", "v"]);
  t.after(() => child.kill());
  await waitFor("the notice", () => child.stderr().endsWith("\n"));
  const notice = JSON.parse(child.stderr());
  assert.equal(notice.level, "warn");
  assert.equal(notice.error, `dial tcp ${server.endpoint}: connect: connection refused`);
  await server.start();
  assert.equal(await child.code, 0);
  assert.equal(child.printed(), "OK\n");
});

test("the time limit ends the wait, with the cause", async () => {
  const [port] = await freePorts(1);
  const endpoint = `127.0.0.1:${port}`;
  const cause = `context deadline exceeded: dial tcp ${endpoint}: connect: connection refused`;
  const short = (...args: string[]) => run(["--command-timeout", "300ms", "--endpoints", endpoint, ...args]);
  assert.deepEqual(await short("get", "a"), { code: 1, stdout: "", stderr: `Error: ${cause}\n` });
  const grant = await short("lease", "grant", "1");
  assert.deepEqual([grant.code, grant.stderr], [1, `Error: failed to grant lease (${cause})\n`]);
  const user = await short("--user", "root:pw", "get", "a");
  assert.deepEqual([user.code, user.stderr], [2, `Error: ${cause}\n`]);
  const login = await run([
    ...NEVER,
    "--dial-timeout",
    "300ms",
    "--endpoints",
    endpoint,
    "--user",
    "root:pw",
    "get",
    "a",
  ]);
  assert.deepEqual([login.code, login.stderr], [2, `Error: ${cause}\n`]);
  const health = await short("endpoint", "health");
  const unhealthy = `${endpoint} is unhealthy: failed to commit proposal: ${cause}\nError: unhealthy cluster\n`;
  assert.deepEqual([health.code, health.stderr], [1, unhealthy]);
  const status = await short("endpoint", "status", "-w", "json");
  assert.equal(status.stdout, "null\n");
  assert.equal(status.stderr, `Failed to get the status of endpoint ${endpoint} (${cause})\n`);
});

test("files that are not certificates or keys are reported by what they are, whatever the command", async () => {
  const [ca, cert, key] = [file("ca.crt"), file("client.crt"), file("client.key")];
  const nothing = file("nothing");
  const pairs: readonly (readonly [string, string, string, RegExp])[] = [
    [cert, file("server.key"), ca, /^Error: tls: private key does not match public key \(/],
    [nothing, key, ca, /^Error: tls: failed to find any PEM data in certificate input \(/],
    [cert, nothing, ca, /^Error: tls: failed to find any PEM data in key input \(/],
    [key, cert, ca, /did find a private key; PEM inputs may have been switched \(/],
    [cert, ca, ca, /^Error: tls: found a certificate rather than a key in the PEM for the private key \(/],
    [cert, key, nothing, /^Error: tls: failed to find any certificate in PEM form in /],
    [cert, key, dir, /^Error: read .*: is a directory\n/],
    [file("missing"), key, ca, /^Error: open .*missing: no such file or directory\n/],
  ];
  const mirror = ["make-mirror", "127.0.0.1:1"];
  for (const [certFile, keyFile, caFile, problem] of pairs) {
    for (const command of COMMANDS) {
      const flags = ["--cert", certFile, "--key", keyFile, "--cacert", caFile];
      const { code, stderr } = await run([...NEVER, ...flags, ...command]);
      assert.match(stderr, problem);
      assert.equal(stderr.split("\n").length, 2, stderr);
      assert.equal(code, 128);
    }
    const destination = ["--dest-cert", certFile, "--dest-key", keyFile, "--dest-cacert", caFile];
    const { code, stderr } = await run([...mirror, ...destination]);
    assert.match(stderr, problem);
    assert.equal(code, 128);
  }
});

test("a learner among the endpoints is skipped, by every command", async () => {
  await withCluster({ members: ["ours"] }, async (cluster) => {
    const voter = cluster.all[0]!;
    const learner = await cluster.add("ours", { learner: true });
    const at = (line: string, options: CtlOptions = {}) =>
      run(["--endpoints", `${learner.endpoint},${voter.endpoint}`, ...line.split(" ")], options);
    await waitFor("the learner", async () => (await run(["--endpoints", learner.endpoint, "get", "a"])).code === 1);
    for (let i = 0; i < 5; i++) {
      for (const line of [
        "put a b",
        "get a",
        "get --stream a",
        "lease list",
        "member list",
        "user list",
        "auth status",
        "alarm list",
        "lock l -- true",
      ]) {
        const { code, stderr } = await at(line);
        assert.deepEqual([code, stderr], [0, ""], line);
      }
    }
    let elected = () => {};
    const interrupt = new Promise<void>((resolve) => (elected = resolve));
    const candidate = at("elect office ann", { onOutput: () => elected(), interrupt });
    assert.deepEqual([(await candidate).code, (await candidate).stderr], [0, ""]);
    const lease = /lease (\w+) granted/.exec((await at("lease grant 60")).stdout)![1]!;
    assert.equal((await at(`lease keep-alive --once ${lease}`)).code, 0);
    let events = "";
    const watch = at("watch w -- sh -c false", { onOutput: (stdout) => (events = stdout) });
    await waitFor("an event", async () => (await at("put w v")).code === 0 && events !== "");
    assert.match((await watch).stdout, /^PUT\nw\nv\n/);
    const alone = await run(["--endpoints", learner.endpoint, "put", "a", "b"]);
    assert.deepEqual([alone.code, alone.stderr], [1, "Error: etcdserver: rpc not supported for learner\n"]);
    assert.equal((await run(["--endpoints", learner.endpoint, "get", "a", "--consistency=s"])).stdout, "a\nb\n");
  });
});

test("a response above --max-recv-bytes is refused", { skip }, async () => {
  await run(["--endpoints", plain.endpoint, "put", "large", "v".repeat(1000)]);
  const get = (bytes: number) =>
    run(["--endpoints", plain.endpoint, "--max-recv-bytes", String(bytes), "get", "large"]);
  assert.equal((await get(10_000)).code, 0);
  const { code, stderr } = await get(1000);
  assert.equal(code, 1);
  const problem =
    /^Error: rpc error: code = ResourceExhausted desc = grpc: received message larger than max \(\d+ vs\. 1000\)\n$/;
  assert.match(stderr, problem);
  const limits = ["--max-recv-bytes", "10", "--max-request-bytes", "11"];
  const both = await run(["--endpoints", plain.endpoint, ...limits, "get", "large"]);
  const order = "gRPC message recv limit (10 bytes) must be greater than send limit (11 bytes)";
  assert.deepEqual([both.code, both.stderr], [2, `Error: ${order}\n`]);
});
