import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type ConfigOverrides, newConfig } from "../../../src/config/load/new-config.ts";
import { findClusterBySrv, type SrvCluster } from "../../../src/config/machine/srv.ts";
import { load, recordingLog } from "../harness.ts";
import { type Records, resolverOf } from "./dns-server.ts";

const HOSTS = { "one.test": "10.0.0.1", "two.test": "10.0.0.2", "three.test": "10.0.0.3" };
const SERVERS = [
  { port: 2380, name: "one.test" },
  { port: 2380, name: "two.test" },
  { port: 2380, name: "three.test" },
];

async function find(
  t: TestContext,
  records: Records,
  overrides: ConfigOverrides = {},
  srv = {},
): Promise<SrvCluster & { log: ReturnType<typeof recordingLog> }> {
  const config = newConfig({ name: "b", advertisePeerUrls: "http://two.test:2380", ...overrides });
  const discovery = { ...config.discovery, srv: "example.test", ...srv };
  const log = recordingLog();
  const found = await findClusterBySrv({ ...config, discovery }, await resolverOf(t, records), log.log);
  return { ...found, log };
}

test("SRV records name the members: this one by its address, the others by number", async (t) => {
  const { initialCluster, peerServerName, log } = await find(t, {
    srv: { "_etcd-server._tcp.example.test": SERVERS },
    a: HOSTS,
  });
  assert.equal(initialCluster, "0=http://one.test:2380,b=http://two.test:2380,1=http://three.test:2380");
  assert.equal(peerServerName, "");
  assert.deepEqual(
    log.entries.filter((entry) => entry.msg === "got bootstrap from DNS for etcd-server").map((e) => e.fields["node"]),
    initialCluster.split(","),
  );
});

test("a member that advertises an address finds itself by it", async (t) => {
  const records = { srv: { "_etcd-server._tcp.example.test": SERVERS }, a: HOSTS };
  const { initialCluster } = await find(t, records, { name: "c", advertisePeerUrls: "http://10.0.0.3:2380" });
  assert.equal(initialCluster, "0=http://one.test:2380,1=http://two.test:2380,c=http://three.test:2380");
});

test("members of the secure service use https and must name the domain unless a CA is given", async (t) => {
  const records = { srv: { "_etcd-server-ssl._tcp.example.test": SERVERS.slice(1) }, a: HOSTS };
  const secure = { advertisePeerUrls: "https://two.test:2380" };
  const { initialCluster, peerServerName } = await find(t, records, secure);
  assert.equal(initialCluster, "b=https://two.test:2380,0=https://three.test:2380");
  assert.equal(peerServerName, "example.test");
  const { peerTls } = newConfig();
  const withAuthorities = { ...secure, peerTls: { ...peerTls, trustedCaFile: "ca.pem" } };
  assert.equal((await find(t, records, withAuthorities)).peerServerName, "");
});

test("--discovery-srv-name distinguishes the clusters of one domain", async (t) => {
  const records = {
    srv: { "_etcd-server-prod._tcp.example.test": SERVERS.slice(1), "_etcd-server._tcp.example.test": SERVERS },
    a: HOSTS,
  };
  const { initialCluster } = await find(t, records, {}, { srvName: "prod" });
  assert.equal(initialCluster, "b=http://two.test:2380,0=http://three.test:2380");
});

test("a host that cannot be resolved is skipped, the rest is the cluster", async (t) => {
  const { "one.test": _, ...hosts } = HOSTS;
  const { initialCluster } = await find(t, { srv: { "_etcd-server._tcp.example.test": SERVERS }, a: hosts });
  assert.equal(initialCluster, "b=http://two.test:2380,0=http://three.test:2380");
});

test("without records the start fails with the names that were queried", async (t) => {
  await assert.rejects(find(t, { a: HOSTS }), {
    name: "ConfigError",
    kind: "start",
    message:
      "error setting up initial cluster: " +
      "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.example.test: no such host\n" +
      "error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.example.test: no such host",
  });
});

test("a member whose own record is missing is refused", async (t) => {
  const records = { srv: { "_etcd-server._tcp.example.test": [SERVERS[0]!] }, a: HOSTS };
  await assert.rejects(find(t, records), {
    message: `error setting up initial cluster: cannot find local etcd member "b" in SRV records`,
  });
});

test("a record of the wrong service is refused: the member advertises http", async (t) => {
  const records = { srv: { "_etcd-server-ssl._tcp.example.test": [SERVERS[1]!] }, a: HOSTS };
  await assert.rejects(find(t, records), {
    message: new RegExp(
      "error querying DNS SRV records for _etcd-server-ssl bootstrap at https://two.test:2380 from DNS for " +
        "etcd-server-ssl has scheme mismatch with expected peer http://two.test:2380\n",
    ),
  });
});

test("--discovery-srv replaces --initial-cluster, only for a member without data", async (t) => {
  const srvResolver = await resolverOf(t, { srv: { "_etcd-server._tcp.example.test": SERVERS }, a: HOSTS });
  const argv = ["--name=b", "--discovery-srv=example.test", "--initial-advertise-peer-urls=http://two.test:2380"];
  const { config, error } = await load(argv, {}, { srvResolver });
  assert.equal(error, undefined);
  assert.equal(config?.initialCluster, "0=http://one.test:2380,b=http://two.test:2380,1=http://three.test:2380");
  const again = await load(argv, {}, { srvResolver, initialized: true });
  assert.equal(again.config?.initialCluster, "");
  const both = await load([...argv, "--initial-cluster=b=http://two.test:2380"], {}, { srvResolver });
  assert.match(both.error?.message ?? "", /^multiple discovery or bootstrap flags are set/);
});
