import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { verifyBootstrap } from "../../../src/config/checks/bootstrap.ts";
import { type ConfigOverrides, newConfig } from "../../../src/config/load/new-config.ts";
import { defaultInterface } from "../../../src/config/machine/default-host.ts";

const verify = (overrides: ConfigOverrides, hosts: Readonly<Record<string, string>> = {}) =>
  verifyBootstrap(newConfig(overrides), {
    clock: systemClock,
    log: nullLogger,
    resolve: async (host) => hosts[host] ?? Promise.reject(new Error(`no such host ${host}`)),
  });

// Compared with what etcd v3.7.1 logs as "discovery failed".
const REFUSED: readonly (readonly [config: ConfigOverrides, complaint: string])[] = [
  [
    {
      initialClusterState: "existing",
      discovery: { ...newConfig({}).discovery, endpoints: ["http://127.0.0.1:1"] },
    },
    "discovery URL should not be set when joining existing initial cluster",
  ],
  [{ initialCluster: "" }, `couldn't find local name "default" in the initial cluster configuration`],
  [
    { name: "z-b-data-1", initialCluster: "NODE1=https://192.168.6.204:2380" },
    `couldn't find local name "z-b-data-1" in the initial cluster configuration`,
  ],
  [
    { initialCluster: "a=http://a" },
    `error setting up initial cluster: URL address does not have the form "host:port": http://a`,
  ],
  [{ initialCluster: "default" }, "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "],
  [
    { initialCluster: "default=http://127.0.0.1:3333" },
    '--initial-cluster has default=http://127.0.0.1:3333 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: "http://localhost:2380" != "http://127.0.0.1:3333")',
  ],
  [
    { initialCluster: "default=http://localhost:2380,default=http://127.0.0.1:3333" },
    '--initial-cluster has default=http://127.0.0.1:3333 but missing from --initial-advertise-peer-urls=http://localhost:2380 (len(["http://localhost:2380"]) != len(["http://127.0.0.1:3333" "http://localhost:2380"]))',
  ],
  [
    { initialCluster: "default=http://localhost:2380,b=http://localhost:2380" },
    "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
  ],
  [
    {
      advertisePeerUrls: "http://localhost:2380,http://127.0.0.1:3333",
      initialCluster: "default=http://localhost:2380",
    },
    "--initial-advertise-peer-urls has http://127.0.0.1:3333 but missing from --initial-cluster=default=http://127.0.0.1:3333,default=http://localhost:2380",
  ],
];

for (const [config, message] of REFUSED) {
  test(`a member does not form a cluster with ${JSON.stringify(config)}`, async () => {
    await assert.rejects(verify(config), { name: "ConfigError", kind: "start", message });
  });
}

test("a name and its address are the same place", async () => {
  const config = { advertisePeerUrls: "http://one.example:2380", initialCluster: "default=http://10.0.0.1:2380" };
  await verify(config, { "one.example": "10.0.0.1" });
  await assert.rejects(verify(config, { "one.example": "10.0.0.2" }), /resolved urls/);
});

test("two spellings of an IPv6 address are the same place", async () => {
  await verify({ advertisePeerUrls: "http://[0:0::1]:2380", initialCluster: "default=http://[::1]:2380" });
});

test("a joining member need not be listed under the addresses that it advertises", async () => {
  await verify({ initialClusterState: "existing", initialCluster: "default=http://10.0.0.9:2380" });
});

test("the default route's interface is found in the kernel's table", () => {
  const table =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
    "eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
    "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
  assert.equal(defaultInterface(table), "eth0");
  assert.throws(() => defaultInterface("Iface\n"), { message: "could not find default route" });
});
