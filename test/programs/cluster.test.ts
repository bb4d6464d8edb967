import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { Authority, writePair } from "../harness/certificates.ts";
import { tempDir } from "../harness/in-process.ts";
import { repositoryRoot, run } from "../harness/programs.ts";
import { freePorts } from "../harness/server.ts";
import { MemberProcess } from "./member-process.ts";

// Three members started as in published guides, flag by flag: only addresses, ports and paths are changed.

const dir = tempDir();
after(() => dir.remove());
const ca = await Authority.create("kubernetes");
const caFile = join(dir.path, "ca.pem");
writeFileSync(caFile, ca.pem);
const { certFile, keyFile } = writePair(dir.path, "etcd", await ca.issue({ cn: "etcd" }));

interface Node {
  readonly name: string;
  readonly home: string;
  readonly peer: number;
  readonly client: number;
  /** A second client port on the same machine. */
  readonly local: number;
}

let tests = 0;

async function nodes(prefix: string): Promise<Node[]> {
  const ports = await freePorts(9);
  const home = join(dir.path, `cluster${tests++}`);
  return [0, 1, 2].map((i) => ({
    name: `${prefix}${i + 1}`,
    home: join(home, `${i}`),
    peer: ports[3 * i]!,
    client: ports[3 * i + 1]!,
    local: ports[3 * i + 2]!,
  }));
}

const words = (text: string): string[] => text.trim().split(/\s+/);
const memberList = (members: readonly Node[], scheme = "https"): string =>
  members.map(({ name, peer }) => `${name}=${scheme}://127.0.0.1:${peer}`).join(",");

async function serveAll(members: readonly MemberProcess[]): Promise<void> {
  for (const member of members) member.spawn();
  await Promise.all(members.map((member) => member.serves()));
}

async function etcdctl(...args: readonly string[]): Promise<string> {
  const program = { file: process.execPath, args: [join(repositoryRoot, "bin", "etcdctl")] };
  const { code, stdout, stderr } = await run(program, args, { env: { ETCDCTL_API: "3" } });
  assert.equal(code, 0, stderr);
  return stdout.toString() + stderr;
}

/** The guides' next steps: member list, endpoint status and health, as tables and lines. */
async function checkCluster(members: readonly Node[], tls: readonly string[]): Promise<void> {
  const endpoints = members.map(({ client }) => `https://127.0.0.1:${client}`);
  for (const endpoint of endpoints) {
    assert.match(
      await etcdctl(`--endpoints=${endpoint}`, ...tls, "endpoint", "health"),
      /is healthy: successfully committed proposal/,
    );
  }
  const list = (await etcdctl(`--endpoints=${endpoints.join(",")}`, ...tls, "member", "list")).trim().split("\n");
  assert.deepEqual(
    list.map((line) => line.split(", ").slice(1).join(" ")).sort(),
    members
      .map(({ name, peer, client }) => `started ${name} https://127.0.0.1:${peer} https://127.0.0.1:${client} false`)
      .sort(),
  );
  const status = await etcdctl("-w", "table", ...tls, `--endpoints=${endpoints[0]}`, "endpoint", "status", "--cluster");
  const rows = status.split("\n").filter((line) => line.includes("https://"));
  assert.equal(rows.length, 3);
  assert.equal(rows.filter((row) => /│ +true │ +false │|\| +true \| +false \|/.test(row)).length, 1, status);
}

const clientTls = [`--cacert=${caFile}`, `--cert=${certFile}`, `--key=${keyFile}`];

test("a unit file with TLS for clients and peers forms a cluster of three", async (t) => {
  const members = await nodes("k8s-0");
  const processes = members.map(({ name, home, peer, client, local }) => {
    mkdirSync(home, { recursive: true });
    return new MemberProcess(
      t,
      words(`
  --data-dir=${home}/data
  --wal-dir=${home}/wal
  --name=${name}
  --cert-file=${certFile}
  --key-file=${keyFile}
  --trusted-ca-file=${caFile}
  --peer-cert-file=${certFile}
  --peer-key-file=${keyFile}
  --peer-trusted-ca-file=${caFile}
  --peer-client-cert-auth
  --client-cert-auth
  --listen-peer-urls=https://127.0.0.1:${peer}
  --initial-advertise-peer-urls=https://127.0.0.1:${peer}
  --listen-client-urls=https://127.0.0.1:${client},http://127.0.0.1:${local}
  --advertise-client-urls=https://127.0.0.1:${client}
  --initial-cluster-token=etcd-cluster-0
  --initial-cluster=${memberList(members)}
  --initial-cluster-state=new
  --auto-compaction-mode=periodic
  --auto-compaction-retention=1
  --max-request-bytes=33554432
  --quota-backend-bytes=6442450944
  --heartbeat-interval=250
  --election-timeout=2000`),
    );
  });
  await serveAll(processes);
  await checkCluster(members, clientTls);
  // The plain address is for local clients.
  await etcdctl(`--endpoints=http://127.0.0.1:${members[0]!.local}`, "put", "where", "here");
  const there = await etcdctl(`--endpoints=https://127.0.0.1:${members[2]!.client}`, ...clientTls, "get", "where");
  assert.equal(there, "where\nhere\n");
});

test("an EnvironmentFile whose values the flags repeat forms one", async (t) => {
  const members = await nodes("etcd-");
  const processes = members.map(({ name, home, peer, client, local }) => {
    const env = {
      ETCD_NAME: name,
      ETCD_DATA_DIR: `${home}/default.etcd`,
      ETCD_LISTEN_PEER_URLS: `https://127.0.0.1:${peer}`,
      ETCD_LISTEN_CLIENT_URLS: `https://127.0.0.1:${client}`,
      ETCD_INITIAL_ADVERTISE_PEER_URLS: `https://127.0.0.1:${peer}`,
      ETCD_ADVERTISE_CLIENT_URLS: `https://127.0.0.1:${client}`,
    };
    mkdirSync(home, { recursive: true });
    return new MemberProcess(
      t,
      words(`
--name ${env.ETCD_NAME}
--cert-file=${certFile}
--key-file=${keyFile}
--trusted-ca-file=${caFile}
--peer-cert-file=${certFile}
--peer-key-file=${keyFile}
--peer-trusted-ca-file=${caFile}
--data-dir=${env.ETCD_DATA_DIR}
--initial-advertise-peer-urls ${env.ETCD_INITIAL_ADVERTISE_PEER_URLS}
--listen-peer-urls ${env.ETCD_LISTEN_PEER_URLS}
--listen-client-urls ${env.ETCD_LISTEN_CLIENT_URLS},http://127.0.0.1:${local}
--advertise-client-urls ${env.ETCD_ADVERTISE_CLIENT_URLS}
--initial-cluster-token etcd-cluster
--initial-cluster ${memberList(members)}
--initial-cluster-state new`),
      env,
    );
  });
  await serveAll(processes);
  await checkCluster(members, clientTls);
});

/** A certificate for each purpose, as cfssl and kubeadm create them. */
async function pairs(t: TestContext): Promise<(name: string) => { certFile: string; keyFile: string }> {
  const own = tempDir();
  t.after(() => own.remove());
  const made = new Map<string, { certFile: string; keyFile: string }>();
  for (const name of ["server", "peer", "client"]) {
    made.set(name, writePair(own.path, name, await ca.issue({ cn: name, names: ["127.0.0.1", "localhost"] })));
  }
  return (name) => made.get(name)!;
}

test("a conf.yml forms one, and restarts its member with 'existing' in it", async (t) => {
  const members = await nodes("z-b-data-");
  const pair = await pairs(t);
  const write = ({ name, home, peer, client, local }: Node, state: string): void => {
    mkdirSync(home, { recursive: true });
    writeFileSync(
      join(home, "conf.yml"),
      `# This is the configuration file for the etcd server.

# Human-readable name for this member.
name: ${name}

# Path to the data directory.
data-dir: ${home}/data

# Path to the dedicated wal directory.
wal-dir:

# Number of committed transactions to trigger a snapshot to disk.
snapshot-count: 10000

# Time (in milliseconds) of a heartbeat interval.
heartbeat-interval: 100

# Time (in milliseconds) for an election to timeout.
election-timeout: 1000

# Raise alarms when backend size exceeds the given quota. 0 means use the
# default quota.
quota-backend-bytes: 0

# List of comma separated URLs to listen on for peer traffic.
listen-peer-urls: https://127.0.0.1:${peer}

# List of comma separated URLs to listen on for client traffic.
listen-client-urls: https://127.0.0.1:${client},https://127.0.0.1:${local}

max-snapshots: 5
max-wals: 5
cors:

# List of this member's peer URLs to advertise to the rest of the cluster.
initial-advertise-peer-urls: https://127.0.0.1:${peer}

# List of this member's client URLs to advertise to the public.
advertise-client-urls: https://127.0.0.1:${client}

# Initial cluster configuration for bootstrapping.
initial-cluster: ${memberList(members)}
initial-cluster-token: 'etcd-cluster'

# Initial cluster state ('new' or 'existing').
initial-cluster-state: '${state}'

# Reject reconfiguration requests that would cause quorum loss.
strict-reconfig-check: false

client-transport-security:
  cert-file: ${pair("server").certFile}
  key-file: ${pair("server").keyFile}
  client-cert-auth: true
  trusted-ca-file: ${caFile}
  auto-tls: false

peer-transport-security:
  cert-file: ${pair("peer").certFile}
  key-file: ${pair("peer").keyFile}
  client-cert-auth: true
  trusted-ca-file: ${caFile}
  auto-tls: false

self-signed-cert-validity: 1
log-level: info
logger: zap

# Specify 'stdout' or 'stderr' to skip journald logging even when running under systemd.
log-outputs: [stderr]

# Force to create a new one member cluster.
force-new-cluster: false

auto-compaction-mode: periodic
auto-compaction-retention: "1"
`,
    );
  };
  for (const member of members) write(member, "new");
  const processes = members.map(({ home }) => new MemberProcess(t, [`--config-file=${home}/conf.yml`]));
  await serveAll(processes);
  const client = pair("client");
  await checkCluster(members, [`--cacert=${caFile}`, `--cert=${client.certFile}`, `--key=${client.keyFile}`]);

  const [first] = processes;
  await first!.kill("SIGTERM");
  write(members[0]!, "existing");
  first!.spawn();
  await first!.serves();
  await checkCluster(members, [`--cacert=${caFile}`, `--cert=${client.certFile}`, `--key=${client.keyFile}`]);
});

test("static pods as kubeadm writes them form one", async (t) => {
  const members = await nodes("infra");
  const pair = await pairs(t);
  const processes = members.map(({ name, home, peer, client, local }) => {
    mkdirSync(home, { recursive: true });
    return new MemberProcess(
      t,
      words(`
    --advertise-client-urls=https://127.0.0.1:${client}
    --cert-file=${pair("server").certFile}
    --client-cert-auth=true
    --data-dir=${home}/etcd
    --experimental-initial-corrupt-check=true
    --experimental-watch-progress-notify-interval=5s
    --initial-advertise-peer-urls=https://127.0.0.1:${peer}
    --initial-cluster=${memberList(members)}
    --initial-cluster-state=new
    --key-file=${pair("server").keyFile}
    --listen-client-urls=https://127.0.0.1:${client}
    --listen-metrics-urls=http://127.0.0.1:${local}
    --listen-peer-urls=https://127.0.0.1:${peer}
    --name=${name}
    --peer-cert-file=${pair("peer").certFile}
    --peer-client-cert-auth=true
    --peer-key-file=${pair("peer").keyFile}
    --peer-trusted-ca-file=${caFile}
    --snapshot-count=10000
    --trusted-ca-file=${caFile}`),
    );
  });
  await serveAll(processes);
  // The guide checks with a peer's certificate.
  const peer = pair("peer");
  await checkCluster(members, [`--cacert=${caFile}`, `--cert=${peer.certFile}`, `--key=${peer.keyFile}`]);
  const health = await fetch(`http://127.0.0.1:${members[1]!.local}/health?serializable=true`);
  assert.equal(health.status, 200);
});

test("a member that waits for the others answers on its metrics address: a probe must not have it restarted", async (t) => {
  const members = await nodes("p");
  const [own] = members;
  const member = new MemberProcess(
    t,
    words(`--name ${own!.name} --data-dir ${own!.home} --initial-cluster ${memberList(members, "http")}
      --listen-peer-urls http://127.0.0.1:${own!.peer} --initial-advertise-peer-urls http://127.0.0.1:${own!.peer}
      --listen-client-urls http://127.0.0.1:${own!.client} --advertise-client-urls http://127.0.0.1:${own!.client}
      --listen-metrics-urls http://127.0.0.1:${own!.local}`),
  );
  mkdirSync(own!.home, { recursive: true });
  member.spawn();
  await member.logged("serving metrics");
  const page = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${own!.local}${path}`);
  assert.equal((await page("/livez")).status, 200);
  const health = await page("/health");
  assert.equal(health.status, 503);
  assert.deepEqual(await health.json(), { health: "false", reason: "RAFT NO LEADER" });
  assert.match(await (await page("/metrics")).text(), /^etcd_server_has_leader 0$/m);
  assert.ok(!member.entries().some(({ msg }) => msg === "ready to serve client requests"));
});

test("a member without the others says which ones it waits for, and where", async (t) => {
  const members = await nodes("n");
  const [own, ...others] = members;
  const member = new MemberProcess(
    t,
    words(`--name ${own!.name} --data-dir ${own!.home} --initial-cluster ${memberList(members, "http")}
      --listen-peer-urls http://127.0.0.1:${own!.peer} --initial-advertise-peer-urls http://127.0.0.1:${own!.peer}
      --listen-client-urls http://127.0.0.1:${own!.client} --advertise-client-urls http://127.0.0.1:${own!.client}`),
  );
  mkdirSync(own!.home, { recursive: true });
  member.spawn();
  const entry = await member.logged("still starting: too few of the other members are reachable to elect a leader");
  assert.deepEqual(
    [...(entry["unreachable-members"] as string[])].sort(),
    others.map(({ name, peer }) => `${name} at http://127.0.0.1:${peer}`),
  );
  assert.match(String(entry["check"]), /--listen-peer-urls.* --initial-cluster-token/);
});
