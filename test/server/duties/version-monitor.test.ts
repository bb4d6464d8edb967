import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { formatVersion } from "../../../src/base/semver.ts";
import { ETCD_VERSION } from "../../../src/base/versions.ts";
import { StorageVersion } from "../../../src/server/duties/storage-version.ts";
import { VersionMonitor } from "../../../src/server/duties/version-monitor.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { waitFor } from "../../harness/wait.ts";
import { startMembers, type TestMember } from "../peers.ts";

let members: TestMember[] = [];
let monitor: VersionMonitor | undefined;
afterEach(async () => {
  monitor?.stop();
  await Promise.all(members.map((member) => member.close()));
});

/** The first member is leader, at this version of etcd; the others' versions are given. */
async function lead(others: readonly string[]): Promise<{ leader: TestMember; clock: VirtualClock; leads: boolean[] }> {
  members = await startMembers([ETCD_VERSION, ...others]);
  const leader = members[0]!;
  const clock = new VirtualClock();
  const leads = [true];
  monitor = new VersionMonitor({
    clock,
    logger: leader.logger,
    cluster: leader.cluster,
    peerClient: leader.client,
    storageVersion: new StorageVersion({
      backend: () => leader.backend,
      logger: leader.logger,
      term: () => 1,
      logVersion: () => undefined,
    }),
    serverVersion: ETCD_VERSION,
    isLeader: () => leads[0]!,
    setDowngrade: (request) => leader.setDowngrade(request),
    setClusterVersion: (request) => leader.setVersion(request),
    downgradeCheckMs: 1000,
  });
  monitor.start();
  return { leader, clock, leads };
}

const messages = (member: TestMember): string[] => member.logger.lines.map(({ message }) => message);
const becomes = (member: TestMember, version: string): Promise<boolean> =>
  waitFor(`the cluster's version is ${version}`, () => member.cluster.version === version);
/** Waits until the running check of the members is over. */
const looked = (member: TestMember, text: string): Promise<boolean> =>
  waitFor(`"${text}" is logged`, () => messages(member).includes(text));

describe("the cluster's version", () => {
  test("is that of a single member, at once", async () => {
    const { leader } = await lead([]);
    monitor!.look();
    await becomes(leader, "3.7.0");
    assert.deepEqual(messages(leader), [
      "setting up initial cluster version using v3 API",
      "set initial cluster version",
      "enabled capabilities for version",
      "cluster version differs from storage version.",
      "updated storage version",
      "updated storage version",
      "cluster version is updated",
    ]);
  });

  test("is the lowest of its members' servers", async () => {
    const { leader } = await lead(["3.6.13", "3.5.30"]);
    monitor!.look();
    await becomes(leader, "3.5.0");
  });

  test("is 3.0.0 while a member is unknown, and rises when all are known", async () => {
    const { leader, clock } = await lead(["3.6.13", "3.7.0"]);
    members[1]!.silent = true;
    monitor!.look();
    await becomes(leader, "3.0.0");
    assert.ok(leader.logger.has("failed to get version"));
    members[1]!.silent = false;
    clock.advance(4000);
    await becomes(leader, "3.6.0");
  });

  test("is not decided from a version that cannot be read", async () => {
    const { leader } = await lead(["newest"]);
    monitor!.look();
    await becomes(leader, "3.0.0");
    assert.ok(leader.logger.has("failed to parse server version of remote member"));
  });

  test("does not decrease by itself, and rises only when the last member was replaced", async () => {
    const { leader, clock } = await lead(["3.6.13", "3.6.13"]);
    leader.cluster.agreed.set("3.7.0");
    monitor!.look();
    // The next leader decides for itself.
    await new Promise((resolve) => setImmediate(resolve));
    members[1]!.serverVersion = "newest";
    clock.advance(4000);
    await looked(leader, "failed to parse server version of remote member");
    assert.equal(leader.cluster.version, "3.7.0");
    leader.cluster.agreed.set("3.6.0");
    members[1]!.serverVersion = "3.7.0";
    clock.advance(4000);
    members[2]!.serverVersion = "3.7.1";
    clock.advance(4000);
    await becomes(leader, "3.7.0");
  });

  test("is left to the leader", async () => {
    const { leader, clock, leads } = await lead([]);
    leads[0] = false;
    monitor!.look();
    clock.advance(8000);
    leads[0] = true;
    assert.equal(leader.cluster.version, undefined);
    monitor!.look();
    await becomes(leader, "3.7.0");
  });

  test("is set in the log of others whose leader is a newer server", async () => {
    const { leader } = await lead(["3.8.0"]);
    monitor!.look();
    await becomes(leader, "3.7.0");
    assert.ok(leader.logger.has("leader found higher-versioned member"));
  });
});

describe("a downgrade", () => {
  test("lowers the cluster version and each member's storage by one, and ends when all members are there", async () => {
    const { leader, clock } = await lead(["3.7.1", "3.7.1"]);
    leader.cluster.agreed.set("3.7.0");
    const storage = () => Buffer.from(leader.backend.get("meta", Buffer.from("storageVersion"))!).toString();
    assert.equal(storage(), "3.7.0");
    leader.cluster.agreed.setDowngrade({ enabled: true, targetVersion: "3.6.0" });
    clock.advance(4000);
    await becomes(leader, "3.6.0");
    assert.equal(storage(), "3.6.0");
    assert.ok(leader.logger.has("The server is ready to downgrade"));
    await monitor!.endDowngradeIfDone();
    assert.equal(leader.cluster.downgrade.enabled, true);
    assert.ok(leader.logger.has("remotes server has mismatching etcd version"));
  });

  test("that is complete is ended by the leader, even one of a server that came last", async () => {
    // The leader itself is of 3.7: only that can be a target that all members have reached.
    const { leader } = await lead(["3.7.1"]);
    leader.cluster.agreed.set("3.7.0");
    leader.cluster.agreed.setDowngrade({ enabled: true, targetVersion: "3.7.0" });
    await monitor!.endDowngradeIfDone();
    assert.deepEqual(leader.cluster.downgrade, { enabled: false, targetVersion: "" });
    assert.ok(leader.logger.has("the cluster has been downgraded"));
    assert.deepEqual(leader.recovered().downgrade, { enabled: false, targetVersion: "" });
  });

  test("to a version that a member's server cannot follow is refused and logged", async () => {
    const { leader, clock } = await lead(["3.6.13"]);
    leader.cluster.agreed.set("3.7.0");
    leader.cluster.agreed.setDowngrade({ enabled: true, targetVersion: "3.6.0" });
    clock.advance(4000);
    await looked(leader, "Cannot downgrade from minimal-server-version to downgrade-target");
    leader.cluster.agreed.setDowngrade({ enabled: true, targetVersion: "3.4.0" });
    clock.advance(4000);
    await looked(leader, "Cannot downgrade from cluster-version to downgrade-target");
    assert.equal(leader.cluster.version, "3.7.0");
  });
});

describe("a cluster's version in the store", () => {
  test("and a downgrade are found again after a restart, in etcd's encoding", async () => {
    const { leader } = await lead([]);
    leader.cluster.agreed.set("3.7.0");
    leader.cluster.agreed.setDowngrade({ enabled: true, targetVersion: "3.6.0" });
    const get = (key: string) => Buffer.from(leader.backend.get("cluster", Buffer.from(key))!).toString();
    assert.equal(get("clusterVersion"), "3.7.0");
    assert.equal(get("downgrade"), '{"target-version":"3.6.0","enabled":true}');
    const again = leader.recovered();
    assert.equal(again.version, "3.7.0");
    assert.deepEqual(again.downgrade, { enabled: true, targetVersion: "3.6.0" });
    assert.ok(leader.logger.has("cluster is downgrading to target version"));
    assert.ok(leader.logger.has("set cluster version from store"));
  });

  test("that is above the server's prevents the server from starting", async () => {
    const { leader } = await lead([]);
    leader.backend.put("cluster", Buffer.from("clusterVersion"), Buffer.from("3.8.0"));
    assert.throws(
      () => leader.recovered(),
      /invalid downgrade; server version is lower than determined cluster version.*3\.7\.0.*3\.8/,
    );
    assert.equal(formatVersion({ major: 3, minor: 8, patch: 0, preRelease: "" }), "3.8.0");
  });
});
