import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { verifySnapshotFile } from "../../src/bolt/snapshot-file.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { requireProgram, requireStockEtcd, run, stockEtcd } from "../harness/programs.ts";
import { freePorts, type Server, startServer } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { type CtlOptions, ctl, ctlProcess } from "./helpers.ts";

const skip = requireStockEtcd();
let server: Server;
const dir = mkdtempSync(join(tmpdir(), "kvorum-ctl-"));

before(async () => {
  if (!skip) server = await startServer(stockEtcd());
});
after(async () => {
  await server?.close();
  rmSync(dir, { recursive: true, force: true });
});

/** Runs etcdctl against the server; its output is text. */
async function at(line: string | readonly string[], options: CtlOptions = {}) {
  const args = typeof line === "string" ? line.split(" ") : line;
  const { code, stdout, stderr } = await ctl(["--endpoints", server.endpoint, ...args], options);
  return { code, stdout: stdout.toString(), stderr };
}

/** A command that runs until it is interrupted, and its output so far. */
function background(line: string | readonly string[], options: CtlOptions = {}) {
  let printed = "";
  let interrupt = () => {};
  const result = at(line, {
    ...options,
    onOutput: (stdout) => (printed = stdout),
    interrupt: new Promise((resolve) => (interrupt = resolve)),
  });
  return { result, interrupt: () => interrupt(), printed: () => printed };
}

/** A command that runs until the end of the test. */
function forever(t: TestContext, line: string | readonly string[]) {
  const args = typeof line === "string" ? line.split(" ") : line;
  const child = ctlProcess(["--endpoints", server.endpoint, ...args]);
  t.after(() => child.kill());
  return child;
}

test("a watch tells when changes arrived, where people read it", { skip }, async (t) => {
  await at("put wt a");
  const { stdout } = await at("get wt -w json");
  const revision = JSON.parse(stdout).header.revision as number;
  const watch = forever(t, `watch wt --time --rev ${revision}`);
  await waitFor("the change", () => /^\d{4}-\d\d-\d\dT[\d:.]+Z\nPUT\nwt\na\n$/.test(watch.printed()));
  const refused = await at("watch wt --time -w json");
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /--time is for people/);
});

test("a watch prints history, then changes, as they happen", { skip }, async (t) => {
  await at("put w1 a");
  const { stdout } = await at("get w1 -w json");
  const revision = JSON.parse(stdout).header.revision as number;
  const watch = forever(t, `watch w --prefix --rev ${revision} --prev-kv`);
  await waitFor("the history", () => watch.printed() === "PUT\nw1\na\n");
  await at("put w1 b");
  await at("del w1");
  await waitFor("the changes", () => watch.printed() === "PUT\nw1\na\nPUT\nw1\na\nw1\nb\nDELETE\nw1\nb\nw1\n\n");
});

test("a watch resumes where it was when the server is back", { skip }, async (t) => {
  const watch = forever(t, "watch back");
  await at("get back");
  const next = async (value: string) => {
    await at(["put", "back", value]);
    return watch.printed().includes(value);
  };
  await waitFor("the watch is there", () => next("first"));
  await server.kill("SIGKILL");
  await server.start();
  await at("put back second");
  await at("put back third");
  await waitFor("what came after the restart", () => watch.printed().endsWith("PUT\nback\nsecond\nPUT\nback\nthird\n"));
});

test("a watch runs a program for each event, and ends when the program fails", { skip }, async () => {
  const { stdout } = await at("put run one -w json");
  const revision = JSON.parse(stdout).header.revision as number;
  const script =
    'echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"; test "$ETCD_WATCH_VALUE" = "\\"one\\""';
  await at("put run two");
  const result = await at(["watch", "run", "--rev", String(revision), "--", "sh", "-c", script]);
  assert.equal(result.code, 1);
  assert.match(result.stdout, /"PUT" "run" "one"\nPUT\nrun\ntwo\n"PUT" "run" "two"\n|PUT\nrun\none\n/);
  assert.match(result.stderr, /^command \["sh" "-c" ".*"\] error \(exit status 1\)\n$/s);
});

test("interactive watches are read from lines, and progress can be requested", { skip }, async (t) => {
  const session = forever(t, "watch -i");
  session.write('watch inter\nwatch "in\\x74er2" -- echo ran\n');
  await waitFor("both watches", async () => {
    await at("put inter v");
    await at("put inter2 v");
    return session.printed().includes("PUT\ninter\nv\n") && session.printed().includes("PUT\ninter2\nv\nran\n");
  });
  session.write("progress\n");
  await waitFor("the progress", () => /progress notify: \d+\n/.test(session.printed()));
  session.end();
  assert.equal(await session.code, 3);
  assert.equal(session.stderr(), "Error: error reading watch request line: EOF\n");
});

test("a lease is kept alive until it is revoked", { skip }, async () => {
  const { stdout } = await at("lease grant 2");
  const id = /lease ([0-9a-f]{16}) granted with TTL\(2s\)/.exec(stdout)![1]!;
  await at(`put leased v --lease ${id}`);
  assert.match(
    (await at(`lease timetolive ${id} --keys`)).stdout,
    /granted with TTL\(2s\), remaining\(\ds\), attached keys\(\[leased\]\)/,
  );
  const alive = background(`lease keep-alive ${id}`);
  await waitFor("two renewals", () => alive.printed().split("keepalived with TTL(2)\n").length > 2);
  assert.equal((await at(`lease keep-alive --once ${id}`)).code, 0);
  assert.equal((await at(`lease revoke ${id}`)).stdout, `lease ${id} revoked\n`);
  const { stdout: all, code } = await alive.result;
  assert.equal(code, 0);
  assert.ok(all.endsWith(`lease ${id} expired or revoked.\n`));
});

test("a lock of ours excludes stock etcdctl, and the other way round", {
  skip: skip || requireProgram("etcdctl"),
}, async () => {
  const ours = background("lock shared");
  await waitFor("our lock", () => /^shared\/[0-9a-f]{1,16}\n\n$/.test(ours.printed()));
  let theirsDone = false;
  const theirs = run("etcdctl", ["--endpoints", server.endpoint, "lock", "shared", "--", "sleep", "0.3"], {
    env: { ETCDCTL_API: "3" },
  }).finally(() => (theirsDone = true));
  await waitFor("their place in the queue", async () => {
    const { count } = await server.client.unary(KVService.Range, {
      key: Buffer.from("shared/"),
      rangeEnd: Buffer.from("shared0"),
    });
    return count === 2;
  });
  assert.equal(theirsDone, false);
  ours.interrupt();
  assert.equal((await ours.result).code, 0);
  await waitFor("their lock", async () => (await at("get shared/ --prefix")).stdout !== "");
  const second = await at(["lock", "shared", "--", "sh", "-c", 'echo "$ETCD_LOCK_KEY"; exit 7']);
  assert.equal(theirsDone, true);
  assert.equal((await theirs).code, 0);
  assert.equal(second.code, 7);
  assert.match(second.stdout, /^shared\/[0-9a-f]+\n$/);
});

test("an election has one leader at a time, and observers see each", { skip }, async () => {
  const listener = background("elect -l office");
  const first = background("elect office ann");
  await waitFor("the first leader", () => /^office\/[0-9a-f]{1,16}\nann\n$/.test(first.printed()));
  const second = background("elect office ben");
  await waitFor("the listener", () => /^office\/[0-9a-f]{1,16}\nann\n$/.test(listener.printed()));
  assert.equal(second.printed(), "");
  first.interrupt();
  assert.equal((await first.result).code, 0);
  await waitFor("the second leader", () => second.printed().endsWith("\nben\n"));
  await waitFor("the listener", () => listener.printed().endsWith("\nben\n"));
  second.interrupt();
  listener.interrupt();
  assert.equal((await second.result).code, 0);
  assert.equal((await listener.result).code, 0);
});

test("a snapshot is saved completely, and only then has its name", { skip }, async () => {
  const path = join(dir, "snapshot.db");
  const { code, stdout, stderr } = await at(["snapshot", "save", path]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, new RegExp(`^Snapshot saved at ${path}\n`));
  assert.ok(verifySnapshotFile(systemDisk, path) > 0);
  assert.deepEqual(systemDisk.readDir(dir), ["snapshot.db"]);
  const missing = await at(["snapshot", "save", join(dir, "no", "such")]);
  assert.equal(missing.code, 5);
  assert.match(missing.stderr, /no such file or directory/);
  const two = await ctl(["--endpoints", "a:1,b:2", "snapshot", "save", path]);
  assert.match(two.stderr, /snapshot must be requested to one selected node, not multiple \[a:1 b:2\]/);
});

test("a mirror copies existing keys and follows changes", { skip }, async (t) => {
  const target = await startServer(stockEtcd());
  t.after(() => target.close());
  for (let i = 0; i < 5; i++) await at(`put m/${i} v${i}`);
  forever(t, `make-mirror --prefix m/ --dest-prefix copy/ ${target.endpoint}`);
  const copy = async () => (await ctl(["--endpoints", target.endpoint, "get", "--prefix", ""])).stdout.toString();
  await waitFor("the copy", async () => (await copy()).includes("copy/4\nv4\n"));
  await at("put m/5 v5");
  await at("del m/0");
  await at("put elsewhere x");
  await waitFor("the changes", async () => {
    return (await copy()) === [1, 2, 3, 4, 5].map((i) => `copy/${i}\nv${i}\n`).join("");
  });
});

test("a mirror from a revision on puts keys where a full copy would", { skip }, async (t) => {
  const revision = async () => JSON.parse((await at("get x -w json")).stdout).header.revision as number;
  await at("put rev/old before");
  await at("put rev/gone before");
  const from = (await revision()) + 1;
  await at("put rev/a 1");
  await at("del rev/gone");
  await at("put rev/a 2");
  await at("put other/a 3");
  for (const [flags, prefix] of [
    ["", "rev/"],
    ["--dest-prefix to/", "to/"],
    ["--no-dest-prefix", ""],
  ] as const) {
    const target = await startServer(stockEtcd());
    t.after(() => target.close());
    const there = async () => (await ctl(["--endpoints", target.endpoint, "get", "--prefix", ""])).stdout.toString();
    const put = ["--endpoints", target.endpoint, "put", "a", "own"];
    await ctl(put);
    await ctl(["--endpoints", target.endpoint, "put", `${prefix}gone`, "stale"]);
    const mirror = forever(
      t,
      `make-mirror --prefix rev/ --rev ${from} ${flags} ${target.endpoint}`.replace(/ +/g, " "),
    );
    const own = prefix === "" ? "" : "a\nown\n";
    await waitFor(`the changes ${flags}`, async () => (await there()) === `${own}${prefix}a\n2\n`);
    await at("put rev/later 1");
    await waitFor(`later ones ${flags}`, async () => (await there()) === `${own}${prefix}a\n2\n${prefix}later\n1\n`);
    await at("del rev/later");
    await waitFor(`deletions ${flags}`, async () => (await there()) === `${own}${prefix}a\n2\n`);
    await mirror.kill();
  }
  await at(`compaction ${await revision()}`);
  const compacted = await at(`make-mirror --prefix rev/ --rev ${from} ${server.endpoint}`);
  assert.deepEqual(
    [compacted.code, compacted.stderr],
    [1, "Error: etcdserver: mvcc: required revision has been compacted\n"],
  );
});

test("an endpoint that is down is skipped", { skip }, async () => {
  const [port] = await freePorts(1);
  await at("put over v");
  const { code, stdout } = await ctl(["--endpoints", `127.0.0.1:${port},${server.endpoint}`, "get", "over"]);
  assert.equal(code, 0);
  assert.equal(stdout.toString(), "over\nv\n");
});

test("endpoints of all members are used with --cluster", { skip }, async () => {
  const { code, stdout } = await at("endpoint health --cluster");
  assert.equal(code, 0);
  assert.match(
    stdout,
    new RegExp(`^http://${server.endpoint} is healthy: successfully committed proposal: took = [\\d.]+m?s\n$`),
  );
});

test("a request above the limit is not sent", { skip }, async () => {
  const { code, stderr } = await at("put big", { input: Buffer.alloc(2 ** 21) });
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^Error: rpc error: code = ResourceExhausted desc = trying to send message larger than max \(\d+ vs. 2097152\)\n$/,
  );
  const limited = await at("put big --max-request-bytes 20", { input: "a value of more than that" });
  assert.match(limited.stderr, /larger than max/);
});

test("a command prints only as fast as its output is read", { skip }, async () => {
  for (let i = 0; i < 5; i++) await at(`put slow/${i}`, { input: Buffer.alloc(100_000, "v") });
  let printed = 0;
  let allowed = 100_000;
  let release = () => {};
  const result = at("get --prefix slow/", {
    onOutput: (stdout) => (printed = stdout.length),
    drained: () => (printed <= allowed ? Promise.resolve() : new Promise((resolve) => (release = resolve))),
  });
  await waitFor("the first value", () => printed > allowed);
  assert.ok(printed < 300_000);
  allowed = Number.POSITIVE_INFINITY;
  release();
  assert.equal((await result).stdout.length, 5 * 100_001 + 5 * "slow/0\n".length);
});

test("all of a large value goes through a pipe", { skip }, async () => {
  const value = "v".repeat(1_000_000);
  await at("put large", { input: value });
  const child = ctlProcess(["--endpoints", server.endpoint, "get", "large"]);
  assert.equal(await child.code, 0);
  assert.equal(child.printed(), `large\n${value}\n`);
});

test("variables replace flags that are not given", { skip }, async () => {
  await at("put env v");
  const env = { ETCDCTL_ENDPOINTS: server.endpoint, ETCDCTL_WRITE_OUT: "fields", ETCDCTL_API: "3" };
  const fromEnv = await ctl(["get", "env"], { env });
  assert.match(fromEnv.stdout.toString(), /"Key" : "env"/);
  assert.equal(fromEnv.stderr, "");
  const conflict = await ctl(["get", "env", "-w", "json"], { env });
  assert.equal(conflict.code, 1);
  assert.match(conflict.stderr, /"level":"fatal".*shadowed by corresponding command-line flag.*"ETCDCTL_WRITE_OUT"/);
  const unknown = await ctl(["get", "env"], { env: { ...env, ETCDCTL_NONSENSE: "1" } });
  assert.equal(unknown.code, 0);
  assert.match(unknown.stderr, /"unrecognized environment variable".*"ETCDCTL_NONSENSE=1"/);
});

test("a variable that selects version 2 of the API is reported as ignored", { skip }, async () => {
  await at("put api v");
  const { code, stdout, stderr } = await at("get api", { env: { ETCDCTL_API: "2" } });
  assert.deepEqual([code, stdout], [0, "api\nv\n"]);
  assert.match(stderr, /^\{"level":"warn".*"unrecognized environment variable".*"ETCDCTL_API=2"\}\n$/);
});

test("passwords and tokens are never shown", { skip }, async () => {
  const env = { ETCDCTL_PASWORD: "secret1", ETCDCTL_AUTH_TOKEN: "secret2", ETCDCTL_USR: "visible" };
  const flags = ["--debug", "--user", "root:secret3", "get", "a"];
  const both = await at(flags, { env });
  assert.match(both.stderr, /^ETCDCTL_USER=root$/m);
  assert.match(both.stderr, /"ETCDCTL_PASWORD="/);
  const apart = await at(["--debug", "--user", "root", "--password", "secret4", "get", "a"]);
  const token = await at(["--debug", "--auth-jwt-token", "secret5", "get", "a"]);
  const fromEnv = await at("--debug get a", { env: { ETCDCTL_USER: "root:secret6" } });
  const mistyped = await at(["--debug", "--pasword=secret7", "get", "a"]);
  for (const { stdout, stderr } of [both, apart, token, fromEnv, mistyped]) {
    assert.doesNotMatch(stdout + stderr, /secret/);
  }
});

test("a password is the first line of standard input, which may stay open", { skip }, async (t) => {
  for (const args of ["user add piped --interactive=false", "user passwd piped --interactive=false"]) {
    const child = forever(t, args);
    child.write("pass\n");
    assert.equal(await child.code, 0, child.stderr());
  }
});

test("a discovery without results names what was looked up", async () => {
  const { code, stderr } = await ctl(["--discovery-srv", "none.invalid", "--discovery-srv-name", "x", "get", "a"]);
  assert.equal(code, 1);
  const ssl = "lookup _etcd-client-ssl-x\\._tcp\\.none\\.invalid: [^_]+";
  const plain = "lookup _etcd-client-x\\._tcp\\.none\\.invalid: .+";
  assert.match(stderr, new RegExp(`^Error: dns lookup errors: ${ssl} and ${plain}\n$`));
});

test("an interrupted wait for a lock or an election says so and leaves the queue", { skip }, async (t) => {
  for (const [held, waiting] of [
    ["lock taken", "lock taken"],
    ["elect seat ann", "elect seat ben"],
  ] as const) {
    const holder = background(held);
    await waitFor("the holder", () => holder.printed() !== "");
    const prefix = held.split(" ")[1]!;
    const queue = async () => (await at(`get --prefix --keys-only ${prefix}/`)).stdout.match(/^\S+$/gm)?.length ?? 0;
    const child = forever(t, waiting);
    await waitFor("the place in the queue", async () => (await queue()) === 2);
    child.signal("SIGTERM");
    assert.equal(await child.code, 1);
    assert.equal(child.stderr(), "Error: context canceled\n");
    assert.equal(child.printed(), "");
    assert.equal(await queue(), 1);
    holder.interrupt();
    assert.equal((await holder.result).code, 0);
  }
});

test("a lock held for a program is kept until the program ends, whatever signals come", { skip }, async (t) => {
  const child = forever(t, [
    "lock",
    "job",
    "--",
    "sh",
    "-c",
    "trap '' TERM; echo started; read line < /dev/null; sleep 1; echo over",
  ]);
  await waitFor("the program", () => child.printed() === "started\n");
  child.signal("SIGTERM");
  child.signal("SIGTERM");
  assert.equal(await child.code, 0);
  assert.equal(child.printed(), "started\nover\n");
  assert.equal((await at("get --prefix job/")).stdout, "");
});

test("a missing password is asked for", { skip }, async () => {
  const wrong = await at("user add asker", { passwords: ["one", "two"] });
  assert.deepEqual([wrong.code, wrong.stderr], [128, "Error: given passwords are different\n"]);
  const right = await at("user add asker", { passwords: ["one", "one"] });
  assert.equal(right.code, 0);
  assert.match(right.stdout, /Password of asker: Type password of asker again for confirmation: User asker created\n$/);
});

test("TLS uses the given certificates, and an untrusted server is refused", {
  skip: skip || requireProgram("openssl"),
}, async (t) => {
  const { ca, cert, key } = await certificates(dir);
  const [client, peer] = await freePorts(2);
  const url = `https://127.0.0.1:${client}`;
  const { spawn } = await import("node:child_process");
  const flags = ["--data-dir", join(dir, "tls"), "--listen-client-urls", url, "--advertise-client-urls", url];
  const peerUrl = `http://127.0.0.1:${peer}`;
  const peers = ["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl];
  const tls = ["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"];
  const cluster = ["--initial-cluster", `default=${peerUrl}`];
  const child = spawn(stockEtcd().file, [...flags, ...peers, ...cluster, ...tls], { stdio: "ignore" });
  t.after(() => new Promise((resolve) => child.once("exit", resolve).kill("SIGKILL") || resolve(undefined)));
  const secure = (...more: string[]) => ctl(["--endpoints", url, "--command-timeout", "1s", ...more]);
  const files = ["--cacert", ca, "--cert", cert, "--key", key];
  await waitFor("the server", async () => (await secure(...files, "put", "a", "b")).code === 0, 20_000);
  assert.equal((await secure(...files, "get", "a")).stdout.toString(), "a\nb\n");
  assert.equal((await secure("--insecure-skip-tls-verify", ...files.slice(2), "get", "a")).code, 0);
  assert.equal((await secure(...files.slice(2), "get", "a")).code, 1);
  assert.equal((await secure(...files.slice(0, 2), "get", "a")).code, 1);
  const alone = await secure("--cert", cert, "get", "a");
  assert.deepEqual(
    [alone.code, alone.stderr],
    [128, `Error: KeyFile and CertFile must both be present[key: , cert: ${cert}]\n`],
  );
  const missing = await secure("--cacert", "/no/such", "get", "a");
  assert.deepEqual([missing.code, missing.stderr], [128, "Error: open /no/such: no such file or directory\n"]);
});

async function certificates(into: string) {
  const path = (name: string) => join(into, name);
  const openssl = async (...args: string[]) => {
    const { code, stderr } = await run("openssl", args);
    assert.equal(code, 0, stderr);
  };
  const pair = (name: string) => [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-keyout",
    path(`${name}.key`),
  ];
  await openssl("req", "-x509", ...pair("ca"), "-out", path("ca.crt"), "-subj", "/CN=ca", "-days", "2");
  const san = "subjectAltName=IP:127.0.0.1,DNS:localhost";
  await openssl(
    "req",
    "-x509",
    ...pair("node"),
    "-out",
    path("node.crt"),
    "-subj",
    "/CN=node",
    "-days",
    "2",
    "-addext",
    san,
    "-CA",
    path("ca.crt"),
    "-CAkey",
    path("ca.key"),
  );
  assert.ok(readFileSync(path("node.crt")).length > 0);
  return { ca: path("ca.crt"), cert: path("node.crt"), key: path("node.key") };
}
