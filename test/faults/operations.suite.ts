// What `kvorum cluster` does to a cluster that runs, on hosts with systemd, with the packaged programs and with stock etcd,
// under steady writes. Not part of `npm test`: `npm run deployments` runs it, after `npm run build` and `npm run package`.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { repositoryRoot } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";
import { Deployment } from "./deployment.ts";
import type { SteadyResult } from "./steady-writes.ts";

const packages = process.env["KVORUM_PACKAGES"] ?? join(repositoryRoot, "packages");
const OURS = join(packages, "kvorum-0.1.0-linux-{arch}.tar.gz");
const STOCK = process.env["KVORUM_STOCK_ETCD"] ?? "/usr/bin/etcd";
const OLDER = process.env["KVORUM_STOCK_ETCD_OLDER"];
/** Two of etcd's election time-outs, as they are set here. */
const GAP_MS_MAX = 2_000;
const TIMEOUT = { timeout: 900_000 };

let deployment: Deployment | undefined;
afterEach(async () => {
  await deployment?.close();
  deployment = undefined;
});

async function founded(hosts: number, members: number, copy: string): Promise<Deployment> {
  deployment = await Deployment.boot(hosts);
  deployment.inventory(`copy: ${copy}\n`, deployment.machines.all.slice(0, members));
  const startMs = performance.now();
  const applied = await deployment.cluster("apply");
  assert.equal(applied.code, 0, applied.err + applied.out);
  console.log(`# ${members} hosts from nothing: ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  return deployment;
}

/** No acknowledged write is lost, and none takes longer than two election time-outs. */
async function underWrites(
  what: string,
  on: Deployment,
  work: () => Promise<void>,
  gapMsMax = GAP_MS_MAX,
): Promise<SteadyResult> {
  const end = await on.writes(`${what.replaceAll(" ", "-")}/`);
  const startMs = performance.now();
  let result: SteadyResult;
  try {
    await work();
  } finally {
    result = await end();
    const { acknowledged, failed, gapMs, failures } = result;
    console.log(
      `# ${what}: ${((performance.now() - startMs) / 1000).toFixed(1)} s, ${acknowledged} writes, ${failed} failed, longest gap ${gapMs.toFixed(0)} ms ${failures.join("; ")}`,
    );
  }
  assert.deepEqual(result.missing, []);
  assert.ok(result.gapMs < gapMsMax, `${what}: no write for ${result.gapMs} ms`);
  return result;
}

async function does(on: Deployment, ...args: string[]): Promise<string> {
  const ran = await on.cluster(...args);
  assert.equal(ran.code, 0, `${args.join(" ")}: ${ran.err}${ran.out}`);
  return ran.out;
}

const versionsOf = (table: string): string[] =>
  [...table.matchAll(/│ +(3\.\d+\.\d+) │/g)].map(([, version]) => version!);

test("our engine: from nothing, restart, set, defrag, move-leader, certificates and authority", TIMEOUT, async () => {
  const on = await founded(3, 3, OURS);
  await underWrites("restart", on, async () => {
    await does(on, "restart");
    await does(on, "set", "election-timeout=1100", "heartbeat-interval=110");
    assert.match(on.inventoryText, /^# Kept by every operation\.\n[\s\S]*election-timeout: 1100/);
    await does(on, "move-leader");
    await does(on, "defrag", "--free-percent", "0");
  });
  await underWrites("rotate certificates", on, async () => void (await does(on, "rotate-certs")));
  await underWrites("rotate the authority", on, async () => void (await does(on, "rotate-ca")));
  assert.equal(await does(on, "plan"), "nothing differs\n");
  assert.ok(readdirSync(on.path("pki", "retired")).length === 2);
});

test("3 to 5 to 3, and a member moves to another host", TIMEOUT, async () => {
  const on = await founded(6, 3, OURS);
  const [, , , m4, m5, m6] = on.machines.all;
  await underWrites("scale up", on, async () => {
    await does(on, "scale", "--add", `m4=${m4!.address}`, "--add", `m5=${m5!.address}`);
  });
  assert.equal(versionsOf(await does(on, "status")).length, 5);
  await underWrites("scale down", on, async () => void (await does(on, "scale", "--remove", "m1", "--remove", "m2")));
  assert.equal(versionsOf(await does(on, "status")).length, 3);
  await underWrites("move a member", on, async () => void (await does(on, "replace", "m3", "--address", m6!.address)));
  assert.equal(await does(on, "plan"), "nothing differs\n");
});

/** Kills the tool in each step, at a moment that chance decides, and repeats the command, until it comes to its end. */
async function killedEverywhere(on: Deployment, ...args: string[]): Promise<void> {
  let kills = 0;
  for (let from = 1; ; ) {
    const taken = (out: string) =>
      [...out.matchAll(/^\[(\d+)\/\d+\] (?!.*done already)/gm)]
        .map(([, step]) => Number(step))
        .find((step) => step >= from);
    const { killed, out } = await on.killed((text) => taken(text) !== undefined, randomInt(0, 500), ...args);
    if (!killed) {
      const [, last, all] = [...out.matchAll(/^\[(\d+)\/(\d+)\]/gm)].at(-1) ?? [];
      assert.ok(last !== undefined && last === all, `${args.join(" ")}: ${out}`);
      console.log(`# ${args[0]}: killed ${kills} times in ${all} steps, and finished`);
      break;
    }
    kills++;
    from = taken(out)! + 1;
  }
  assert.ok(kills > 0, "it was killed");
}

test(
  "the tool is killed in every step of scale, replace, restart, certificates and authority, and finishes",
  TIMEOUT,
  async () => {
    const on = await founded(5, 3, OURS);
    const [, , , m4, m5] = on.machines.all;
    await underWrites("killed", on, async () => {
      await killedEverywhere(on, "scale", "--add", `m4=${m4!.address}`);
      await killedEverywhere(on, "scale", "--remove", "m4");
      await killedEverywhere(on, "replace", "m2", "--address", m5!.address);
      await killedEverywhere(on, "replace", "m3");
      await killedEverywhere(on, "set", "max-request-bytes=2000000");
      await killedEverywhere(on, "rotate-certs");
    });
    await underWrites("killed with another authority", on, () => killedEverywhere(on, "rotate-ca"));
    assert.equal(await does(on, "plan"), "nothing differs\n");
    // The log has every step that was taken.
    const log = readFileSync(on.path("cluster.log"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      [...new Set(log.map(({ operation }) => operation))],
      ["scale", "replace", "set", "rotate-certs", "rotate-ca"],
    );
  },
);

test("stock etcd, our engine and back, with the same data", TIMEOUT, async () => {
  const on = await founded(3, 3, STOCK);
  await underWrites("to our engine", on, async () => void (await does(on, "switch-engine", OURS)));
  const programs = await on.inside(0, "sh", "-c", "ps -o args= -u kvorum-test | head -1");
  assert.match(programs, /lib\/node .*etcd/);
  await underWrites("back to stock", on, () => killedEverywhere(on, "switch-engine", STOCK));
  assert.equal(await does(on, "plan"), "nothing differs\n");
});

test("upgrade and downgrade by one minor version, with stock etcd", {
  ...TIMEOUT,
  skip: OLDER === undefined,
}, async () => {
  const on = await founded(3, 3, OLDER!);
  const refused = await on.cluster("downgrade", STOCK);
  assert.match(refused.err, /members run 3\.6\.\d+, which is older than 3\.7\.\d+: that is an upgrade/);
  await underWrites("upgrade", on, () => killedEverywhere(on, "upgrade", STOCK));
  assert.deepEqual(
    versionsOf(await does(on, "status")).map((version) => version.slice(0, 4)),
    ["3.7.", "3.7.", "3.7."],
  );
  await underWrites("downgrade", on, () => killedEverywhere(on, "downgrade", OLDER!));
  assert.deepEqual(
    versionsOf(await does(on, "status")).map((version) => version.slice(0, 4)),
    ["3.6.", "3.6.", "3.6."],
  );
});

test("a damaged member is repaired, and a lost host replaced", TIMEOUT, async () => {
  const on = await founded(4, 3, OURS);
  await underWrites("damage", on, async () => {
    assert.match((await on.cluster("repair", "m2")).err, /m2 is healthy: there is nothing to repair/);
    const service = "kvorum-etcd.service";
    const db = "/var/lib/kvorum-test/member/snap/db";
    await on.inside(1, "systemctl", "stop", service);
    await on.inside(
      1,
      "sh",
      "-c",
      `dd if=/dev/urandom of=${db} bs=4096 count=64 conv=notrunc 2>/dev/null; systemctl start --no-block ${service}`,
    );
    assert.match((await on.cluster("restart", "m1")).err, /m2 is not healthy, and this would take another member away/);
    assert.match((await on.cluster("scale", "--remove", "m1")).err, /m2 is not healthy/);
    await does(on, "repair", "m2");
  });
  // Without its leader, which may be on that host, a cluster elects first.
  const lost = async () => {
    await on.machines.all[2]!.cutPower();
    assert.match(
      (await on.cluster("replace", "m3")).err,
      /the host of m3, .*, cannot be reached: give the new one with --address/,
    );
    await does(on, "replace", "m3", "--address", on.machines.all[3]!.address);
  };
  await underWrites("loss of a host", on, lost, 3 * GAP_MS_MAX);
  assert.equal(await does(on, "plan"), "nothing differs\n");
});

test(
  "two of three hosts are destroyed, and the cluster comes back with the loss that was announced",
  TIMEOUT,
  async () => {
    const on = await founded(4, 3, OURS);
    assert.match((await on.cluster("recover", "--confirm", "hosts")).err, /the cluster has its majority/);
    const end = await on.writes("lost/");
    await waitFor("writes", async () => revisionOf(await does(on, "status", "-w", "json")) > 200, 60_000);
    await Promise.all([on.machines.all[1]!.cutPower(), on.machines.all[2]!.cutPower()]);
    const dry = await on.cluster("recover", "--dry-run");
    assert.match(dry.out, /\[\d+\/\d+\] m1: start it as a cluster of its own, with its data\n/);
    const unconfirmed = await on.cluster("recover");
    assert.match(unconfirmed.err, /nothing was done: confirm it with --confirm hosts/);
    const [, announced] = /with everything up to revision (\d+)/.exec(unconfirmed.err) ?? [];
    await killedEverywhere(on, "recover", "--confirm", "hosts");
    const { acknowledged, missing } = await end();
    console.log(`# recovered up to revision ${announced}; ${acknowledged} were acknowledged, ${missing.length} lost`);
    // The first write has revision 2, and no others are written: what is lost is what came after the announced revision.
    for (const key of missing) assert.ok(Number(key.slice("lost/".length)) + 2 > Number(announced), `${key} was lost`);
    await does(on, "scale", "--add", `m4=${on.machines.all[3]!.address}`);
    assert.equal(versionsOf((await on.cluster("status")).out).length, 2);
    assert.match(await on.inside(0, "ls", "/var/lib/kvorum-test"), /aside-\d+/);
  },
);

const revisionOf = (json: string): number =>
  Math.max(...JSON.parse(json).map(({ revision }: { revision: number }) => revision));

/** What the documents' own commands print, with our programs in the places that the documents name. */
test("the documents 000, 001 and 002: the same in one command, with the outputs that they print", TIMEOUT, async () => {
  deployment = await Deployment.boot(3);
  const on = deployment;
  const machines = on.machines.all;
  const endpoints = machines.map(({ address }) => `https://${address}:2379`);
  const members = (names: string) =>
    machines.map(({ address }, i) => `  - { name: ${names}${i + 1}, address: ${address} }\n`).join("");
  const health = /^https:\/\/\S+ is healthy: successfully committed proposal: took = [\d.]+ms$/gm;
  const apply = async (text: string) => {
    writeFileSync(on.path("cluster.yml"), text);
    const startMs = performance.now();
    await does(on, "apply");
    console.log(`# apply: ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  };
  const ctl = async (bin: string, pki: string, ...args: string[]): Promise<string> => {
    const flags = ["--cacert", "/etc/etcd/pki/ca.crt", "--cert", `${pki}.crt`, "--key", `${pki}.key`];
    const script = `exec ${bin}/etcdctl ${[...flags, "--endpoints", endpoints.join(","), ...args].join(" ")} 2>&1`;
    return on.inside(0, "sh", "-c", script);
  };

  await apply(`cluster: etcd-cluster-0
members:
${members("m7-autocv-gpu0")}copy: ${OURS}
program: /opt/k8s/bin/etcd
style: flags
directories: { data: /data/k8s/etcd/data, wal: /data/k8s/etcd/wal }
tuning:
  auto-compaction-mode: periodic
  auto-compaction-retention: "1"
  max-request-bytes: 33554432
  quota-backend-bytes: 6442450944
  heartbeat-interval: 250
  election-timeout: 2000
certificates: { algorithm: rsa-2048, shared: true }
`);
  assert.match(await on.inside(1, "systemctl", "status", "etcd"), /Active: active \(running\)/);
  assert.equal((await ctl("/opt/k8s/bin", "/etc/etcd/pki/etcd", "endpoint", "health")).match(health)?.length, 3);
  const table = await ctl("/opt/k8s/bin", "/etc/etcd/pki/etcd", "-w", "table", "endpoint", "status");
  assert.match(table, /ENDPOINT.*ID.*VERSION.*DB SIZE.*IS LEADER.*RAFT TERM.*RAFT INDEX/);
  assert.deepEqual(
    [...table.matchAll(/[|│] +(true|false) [|│] +false [|│] +\d+ [|│]/g)].map(([, isLeader]) => isLeader).sort(),
    ["false", "false", "true"],
  );
  await does(on, "destroy", "--delete-data", "--confirm", "etcd-cluster-0");
  assert.equal(
    await on.inside(2, "sh", "-c", "ls /data/k8s/etcd/data /data/k8s/etcd/wal | grep -v : | grep . || true"),
    "",
  );

  await apply(`cluster: etcd-cluster
members:
${members("etcd-")}copy: ${OURS}
style: environment
directories: { data: /var/lib/etcd/default.etcd }
`);
  assert.match(await on.inside(0, "cat", "/etc/etcd/etcd.conf"), /^ETCD_NAME="etcd-1"$/m);
  assert.equal((await ctl("/usr/local/bin", "/etc/etcd/pki/server", "endpoint", "health")).match(health)?.length, 3);
  await does(on, "destroy", "--delete-data", "--confirm", "etcd-cluster");

  await apply(`cluster: etcd-cluster
members:
${members("z-b-data-")}copy: ${OURS}
style: conf
`);
  assert.match(await on.inside(0, "sh", "-c", "ps -u etcd -o args="), /--config-file=\/etc\/etcd\/conf\.yml/);
  const list = await ctl("/usr/local/bin", "/etc/etcd/pki/server", "member", "list");
  const line = /^[0-9a-f]{1,16}, started, z-b-data-[123], https:\/\/[\d.]+:2380, https:\/\/[\d.]+:2379, false$/gm;
  assert.equal(list.match(line)?.length, 3);
  const healthTable = await ctl("/usr/local/bin", "/etc/etcd/pki/server", "-w", "table", "endpoint", "health");
  assert.match(healthTable, /ENDPOINT.*HEALTH.*TOOK.*ERROR/);
  // The document changes this by hand, when the cluster is there.
  assert.match(await on.inside(0, "cat", "/etc/etcd/conf.yml"), /^initial-cluster-state: existing$/m);
});
