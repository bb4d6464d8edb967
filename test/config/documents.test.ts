import assert from "node:assert/strict";
import { test } from "node:test";
import { parseUrlsByMember } from "../../src/config/values/url.ts";
import { load, loadFile } from "./harness.ts";

// How published guides start etcd: unit files of 3.3 and 3.5, an EnvironmentFile repeated by flags, a StatefulSet.

const UNIT_3_3 = `--data-dir=/data/k8s/etcd/data --wal-dir=/data/k8s/etcd/wal --name=one
  --cert-file=/etc/etcd/cert/etcd.pem --key-file=/etc/etcd/cert/etcd-key.pem --trusted-ca-file=/etc/kubernetes/cert/ca.pem
  --peer-cert-file=/etc/etcd/cert/etcd.pem --peer-key-file=/etc/etcd/cert/etcd-key.pem
  --peer-trusted-ca-file=/etc/kubernetes/cert/ca.pem --peer-client-cert-auth --client-cert-auth
  --listen-peer-urls=https://10.0.0.1:2380 --initial-advertise-peer-urls=https://10.0.0.1:2380
  --listen-client-urls=https://10.0.0.1:2379,http://127.0.0.1:2379 --advertise-client-urls=https://10.0.0.1:2379
  --initial-cluster-token=etcd-cluster-0 --initial-cluster-state=new
  --initial-cluster=one=https://10.0.0.1:2380,two=https://10.0.0.2:2380,three=https://10.0.0.3:2380
  --auto-compaction-mode=periodic --auto-compaction-retention=1 --max-request-bytes=33554432
  --quota-backend-bytes=6442450944 --heartbeat-interval=250 --election-timeout=2000`.split(/\s+/);

test("a unit file for a cluster with TLS gives the member that it describes", async () => {
  const { config, error } = await load(UNIT_3_3);
  assert.equal(error, undefined);
  assert.equal(config?.quotaBackendBytes, 6442450944);
  assert.equal(config?.peerTls.clientCertAuth, true);
  assert.equal(config?.peerTls.trustedCaFile, "/etc/kubernetes/cert/ca.pem");
  assert.equal(parseUrlsByMember(config!.initialCluster).size, 3);
});

test("the same for one member, with TLS for its clients, gives the member that it describes", async () => {
  const argv = UNIT_3_3.filter((flag) => !/^--peer-/.test(flag)).map((flag) =>
    (/listen-client|advertise-client/.test(flag) ? flag : flag.replaceAll("https:", "http:")).replace(
      /,(two|three)=[^,]*/g,
      "",
    ),
  );
  const { config, error } = await load(argv);
  assert.equal(error, undefined);
  assert.equal(config?.clientTls.trustedCaFile, "/etc/kubernetes/cert/ca.pem");
  assert.equal(config?.clientTls.clientCertAuth, true);
  assert.deepEqual(
    config?.listenClientUrls.map(({ text }) => text),
    ["http://127.0.0.1:2379", "https://10.0.0.1:2379"],
  );
  assert.equal(config?.tickMs, 250);
  assert.equal(config?.electionMs, 2000);
  assert.deepEqual(config?.autoCompaction, { mode: "periodic", retentionMs: 3600000 });
});

test("an EnvironmentFile whose values the flags repeat works, as it did in etcd 3.3", async () => {
  const env = {
    ETCD_NAME: "etcd-1",
    ETCD_DATA_DIR: "/var/lib/etcd/default.etcd",
    ETCD_LISTEN_PEER_URLS: "http://192.168.31.37:2380",
    ETCD_LISTEN_CLIENT_URLS: "http://192.168.31.37:2379",
    ETCD_INITIAL_ADVERTISE_PEER_URLS: "http://192.168.31.37:2380",
    ETCD_ADVERTISE_CLIENT_URLS: "http://192.168.31.37:2379",
  };
  const argv = [
    ["--name", env.ETCD_NAME],
    [`--data-dir=${env.ETCD_DATA_DIR}`],
    ["--initial-advertise-peer-urls", env.ETCD_INITIAL_ADVERTISE_PEER_URLS],
    ["--listen-peer-urls", env.ETCD_LISTEN_PEER_URLS],
    ["--listen-client-urls", `${env.ETCD_LISTEN_CLIENT_URLS},http://127.0.0.1:2379`],
    ["--advertise-client-urls", env.ETCD_ADVERTISE_CLIENT_URLS],
    ["--initial-cluster", "etcd-1=http://192.168.31.37:2380"],
  ].flat();
  const { config, entries } = await load(argv, env);
  assert.equal(config?.listenClientUrls.length, 2);
  assert.deepEqual(
    entries.filter((entry) => entry.msg.includes("shadowed")).map((entry) => entry.fields["environment-variable"]),
    Object.keys(env),
  );
});

test("etcd's sample configuration file is accepted unchanged", async (t) => {
  const { config, error, entries } = await loadFile(
    t,
    `name: 'default'
data-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379
max-snapshots: 5
cors:
discovery:
discovery-fallback: 'proxy'
discovery-srv:
initial-cluster: default=http://localhost:2380
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  client-cert-auth: false
  auto-tls: false
peer-transport-security:
  cert-file:
  allowed-cn:
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [/dev/null]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "1"
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
`,
  );
  assert.equal(error, undefined);
  assert.equal(config?.strictReconfigCheck, false);
  assert.equal(config?.log.level, "debug");
  assert.ok(entries.some((entry) => entry.msg.startsWith("--enable-pprof has no effect")));
});

test("in a pod, listening on all addresses with a DNS name to advertise is a member", async () => {
  const name = "infra-etcd-cluster-0";
  const host = `${name}.infra-etcd-cluster.default`;
  const { config } = await load(
    `--name ${name} --initial-advertise-peer-urls http://${host}:2380 --listen-peer-urls http://0.0.0.0:2380
     --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://${host}:2379
     --initial-cluster-token etcd-cluster-1 --data-dir /var/run/etcd/default.etcd
     --initial-cluster ${name}=http://${host}:2380 --initial-cluster-state new`.split(/\s+/),
    { INFRA_ETCD_CLUSTER_PORT: "tcp://10.0.0.1:2379" },
  );
  assert.equal(config?.advertisePeerUrls[0]?.text, `http://${host}:2380`);
});
