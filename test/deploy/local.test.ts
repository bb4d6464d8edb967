// Slow: real members are started as processes.
import assert from "node:assert/strict";
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { connect } from "../../src/client/raw.ts";
import { Cluster } from "../../src/deploy/cluster/access.ts";
import { usersToDo } from "../../src/deploy/cluster/users.ts";
import { parseInventory } from "../../src/deploy/inventory/inventory.ts";
import { readUsers } from "../../src/deploy/inventory/users.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { tempDir } from "../harness/in-process.ts";
import { findProgram, repositoryRoot, requireStockEtcd, run, stockEtcd } from "../harness/programs.ts";
import { freePorts } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { kvorum, type Ran } from "./helpers.ts";

let root: ReturnType<typeof tempDir>;
let env: Record<string, string>;
before(() => {
  root = tempDir();
  env = { KVORUM_HOME: join(root.path, "home") };
});
after(async () => {
  for (const { cluster } of JSON.parse((await deploy("ps", "-w", "json")).out)) await deploy("down", cluster);
  root.remove();
});

const deploy = (...args: string[]): Promise<Ran> => kvorum({ cwd: root.path, env }, ...args);

interface Up {
  readonly members: { readonly name: string; readonly endpoint: string; readonly pid: number }[];
  readonly directory: string;
  readonly environment: Record<string, string>;
}

async function up(...args: string[]): Promise<Up> {
  const ran = await deploy("up", ...args, "-w", "json");
  assert.equal(ran.code, 0, ran.err);
  return JSON.parse(ran.out);
}

const states = async (name: string): Promise<string[]> =>
  JSON.parse((await deploy("ps", name, "-w", "json")).out).map(({ state }: { state: string }) => state);

/** `base` and the next four ports are free. */
async function basePort(): Promise<string> {
  return waitFor("six consecutive free ports", async () => {
    const [base] = await freePorts(1);
    const servers = await Promise.all(Array.from({ length: 6 }, (_, i) => listenOn(base! + i)));
    for (const server of servers) server?.close();
    return servers.every(Boolean) && `${base}`;
  });
}

function listenOn(port: number): Promise<ReturnType<typeof createServer> | undefined> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

test("a cluster with TLS comes up with one command, keeps its data when it is stopped, and is deleted when asked to", async () => {
  const port = await basePort();
  const first = await deploy("up", "--port", port);
  assert.equal(first.code, 0, first.err);
  assert.match(first.err, /cluster local is healthy \(\d+\.\d s\)\. To stop it: kvorum down\n$/);
  // What a shell evaluates reaches the cluster.
  const script = `${first.out}"${process.execPath}" "${join(repositoryRoot, "bin", "etcdctl")}" put a b`;
  const put = await run("sh", ["-c", script]);
  assert.equal(put.stdout.toString(), "OK\n", put.stderr);
  // A client without a certificate is refused.
  const anonymous = connect(`https://127.0.0.1:${port}`, {
    tls: { ca: readFileSync(join(env["KVORUM_HOME"]!, "local", "pki", "ca.crt")) },
  });
  await assert.rejects(
    anonymous.unary(KVService.Range, { key: Buffer.from("a") }, { timeoutMs: 20_000 }),
    /UNAVAILABLE/i,
  );
  anonymous.close();

  const pids = (await up()).members.map(({ pid }) => pid);
  assert.equal(new Set(pids).size, 3);
  process.kill(pids[1]!, "SIGKILL");
  await waitFor("the member is gone", async () => (await states("local"))[1] === "stopped");
  const again = await up();
  assert.deepEqual([again.members[0]!.pid, again.members[2]!.pid], [pids[0], pids[2]]);
  assert.notEqual(again.members[1]!.pid, pids[1]);

  const down = await deploy("down");
  assert.match(down.err, /^stopped m1, m2, m3\nits data stays in .*local; kvorum up starts it again\n$/);
  assert.deepEqual(await states("local"), ["stopped", "stopped", "stopped"]);
  assert.match((await deploy("down")).err, /^local did not run\n/);
  const { environment, directory } = await up();
  const { ETCDCTL_CACERT: ca, ETCDCTL_CERT: cert, ETCDCTL_KEY: key, ETCDCTL_ENDPOINTS: endpoints } = environment;
  const client = connect(endpoints!.split(",")[2]!, {
    tls: { ca: readFileSync(ca!), cert: readFileSync(cert!), key: readFileSync(key!) },
  });
  const { kvs } = await client.unary(KVService.Range, { key: Buffer.from("a") }, { timeoutMs: 20_000 });
  client.close();
  assert.equal(Buffer.from(kvs[0]!.value).toString(), "b");
  assert.equal(statSync(key!).mode & 0o777, 0o600);
  const deleted = await deploy("down", "--delete-data");
  assert.match(deleted.err, /deleted /);
  assert.ok(!existsSync(directory));
  assert.equal((await deploy("down")).code, 3);
});

test("a command that was killed half way is repeated, and the cluster is whole", async () => {
  const port = await basePort();
  const command = [join(repositoryRoot, "bin", "kvorum"), "up", "killed", "--members", "1", "--port", port];
  const state = join(env["KVORUM_HOME"]!, "killed", "cluster.json");
  // Killed as soon as the decision is on disk: before, during or after the start of the member.
  const script = `"$0" "$@" & pid=$!; while [ ! -e '${state}' ]; do :; done; kill -9 $pid; wait $pid`;
  await run("sh", ["-c", script, process.execPath, ...command], { env });
  const whole = await up("killed");
  assert.deepEqual(
    whole.members.map(({ endpoint }) => endpoint),
    [`https://127.0.0.1:${port}`],
  );
  assert.deepEqual(await states("killed"), ["healthy"]);
  await deploy("down", "killed", "--delete-data");
});

test("a member that cannot start is reported with its own last words, and started when the cause is gone", async () => {
  const port = await basePort();
  await up("broken", "--members", "1", "--tls=false", "--port", port);
  await deploy("down", "broken");
  const taken = (await listenOn(Number(port)))!;
  const failed = await deploy("up", "broken");
  assert.equal(failed.code, 3);
  assert.match(failed.err, /Error: m1 has ended\. It said last:\n.*address already in use/);
  await new Promise((resolve) => taken.close(resolve));
  assert.equal((await up("broken")).members.length, 1);
  await deploy("down", "broken", "--delete-data");
});

test("stock etcd runs the members when asked to", { skip: requireStockEtcd() }, async () => {
  const path = findProgram(stockEtcd().file)!;
  const { members } = await up("stock", "--engine", `stock=${path}`, "--members", "1", "--port", await basePort());
  assert.ok(members[0]!.pid > 0);
  const wrong = await deploy("up", "stock", "--engine", "kvorum");
  assert.match(wrong.err, /cluster stock runs .*: leave the flag out, use another name, or delete it first/);
  await deploy("down", "stock", "--delete-data");
});

test("what cannot be meant is refused with what it should be, and leaves nothing behind", async () => {
  const home = join(env["KVORUM_HOME"]!, "x");
  const refusals: [string[], RegExp][] = [
    [["up", "x", "--members", "0"], /--members is 1 to 9, not 0/],
    [["up", "x", "--engine", "other"], /--engine is kvorum or stock=PATH, not other/],
    [["up", "x", "--engine", "stock=/no/etcd"], /there is no program \/no\/etcd/],
    [["up", "x", "--engine", "stock=/bin/sh"], /\/bin\/sh is not an etcd of version 3/],
    [["up", "x", "--port", "65535"], /--port 65535 is too high/],
    [["up", "../x"], /the name of a cluster has letters, digits/],
    [["up", "x", "y"], /up takes one name of a cluster, not x y/],
    [["up", "x", "-w", "table"], /it prints simple or json, not table/],
    [["down", "x"], /there is no local cluster x in .*; there is none/],
    [["ps", "x"], /there is no local cluster x in /],
  ];
  for (const [args, text] of refusals) {
    const { code, err } = await deploy(...args);
    assert.equal(code, 3, args.join(" "));
    assert.match(err, text);
  }
  assert.ok(!existsSync(home));
  const taken = (await listenOn(0))!;
  const address = taken.address();
  const port = typeof address === "object" ? address?.port : 0;
  assert.match((await deploy("up", "x", "--port", `${port}`)).err, new RegExp(`port ${port} or ${port! + 1} is taken`));
  taken.close();
  await deploy("up", "x", "--members", "1", "--tls=false", "--port", await basePort());
  assert.match((await deploy("up", "x", "--members", "3")).err, /cluster x has 1 members: leave the flag out/);
  assert.match((await deploy("up", "x", "--tls")).err, /cluster x was made without TLS/);
  const whole = readFileSync(join(home, "cluster.json"));
  writeFileSync(join(home, "cluster.json"), "{}");
  assert.match((await deploy("up", "x")).err, /cluster\.json is damaged: move .* away to begin again/);
  const others = await deploy("ps");
  assert.deepEqual([others.code, others.out], [3, ""]);
  assert.match(others.err, /cluster\.json is damaged/);
  writeFileSync(join(home, "cluster.json"), whole);
  await deploy("down", "x", "--delete-data");
});

test("users and roles become what the inventory's file says, and stay so", async () => {
  const { members, directory } = await up("users", "--members", "1");
  const port = new URL(members[0]!.endpoint).port;
  const inventory = parseInventory(
    `cluster: users
members: [{ name: m1, address: 127.0.0.1 }]
ports: { client: ${port} }
authentication: users.yml
certificates: { directory: ${join(directory, "pki")} }
`,
    join(root.path, "users-cluster.yml"),
  );
  const file = inventory.usersFile!;
  const write = (text: string) => writeFileSync(file, text, { mode: 0o600 });
  const cluster = new Cluster({ clock: systemClock }, inventory);
  const carriedOut = async (): Promise<string[]> => {
    const deeds = await usersToDo(cluster, readUsers(file));
    for (const { run } of deeds) await run();
    return deeds.map(({ text }) => text);
  };
  write('root: {}\napp: { password: "secret", read: [/config/, /app/], write: [/app/] }\n');
  const first = await carriedOut();
  assert.equal(first[0], "add the role root");
  assert.ok(first.includes('let app read and write what begins with "/app/"'));
  assert.ok(first.includes("add the user root, known by certificate"));
  assert.equal(first.at(-1), "enable authentication");
  assert.deepEqual(await carriedOut(), []);
  write('root: {}\napp: { password: "secret", read: [/app/] }\n');
  assert.deepEqual(await carriedOut(), [
    'let app read what begins with "/app/"',
    'let app no longer use what begins with "/config/"',
  ]);
  assert.deepEqual(await carriedOut(), []);
  write("app: {}\n");
  assert.throws(() => readUsers(file), /has no user root, .*: add "root: {}"/);
  write("root: { passwort: x }\n");
  assert.throws(() => readUsers(file), /user root: there is no field passwort; there are password, read, write/);
  chmodSync(file, 0o644);
  assert.throws(() => readUsers(file), /others may read .*users\.yml, which has passwords: chmod 600/);
});
