import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { ETCD_VERSION } from "../../../src/base/versions.ts";
import { CorruptionChecker } from "../../../src/server/duties/corruption.ts";
import { startMembers, type TestMember } from "../peers.ts";

let members: TestMember[] = [];
afterEach(() => Promise.all(members.map((member) => member.close())));

/** Members with ten keys, identical except for one value of the named ones; the first member checks. */
async function cluster(
  count: number,
  wrongValues: Readonly<Record<number, string>> = {},
): Promise<{ checker: CorruptionChecker; alarms: bigint[] }> {
  members = await startMembers(Array<string>(count).fill(ETCD_VERSION));
  for (const [at, member] of members.entries()) {
    for (let i = 0; i < 10; i++) member.put(`key${i}`, (i === 3 && wrongValues[at]) || `value${i}`);
  }
  const { logger, cluster, store, client } = members[0]!;
  const alarms: bigint[] = [];
  const checker = new CorruptionChecker({
    logger,
    cluster,
    store,
    peerClient: client,
    readIndex: () => Promise.resolve(null),
    raiseAlarm: (id) => alarms.push(id),
    requestTimeoutMs: 7000,
  });
  return { checker, alarms };
}

const logged = (member: TestMember, message: string) =>
  member.logger.lines.filter((line) => line.message === message).map(({ fields }) => fields);
const compactAll = (revision: number) => Promise.all(members.map(({ store }) => store.compact(revision)));

describe("the check before a member serves", () => {
  test("passes when all data is the same", async () => {
    const { checker } = await cluster(3);
    await checker.checkInitially();
    assert.ok(members[0]!.logger.has("initial corruption checking passed; no corruption"));
  });

  test("fails when a peer has other data at the same revision", async () => {
    const { checker } = await cluster(3, { 2: "wrong!" });
    await assert.rejects(checker.checkInitially(), /^CorruptionError: a1 found data inconsistency with peers$/);
    assert.equal(logged(members[0]!, "found different hash values from remote peer")[0]!["remote-peer-id"], "a3");
  });

  test("skips peers that are behind, have compacted, or do not answer", async () => {
    const { checker } = await cluster(4);
    members[0]!.put("more", "more");
    members[3]!.silent = true;
    for (let i = 0; i < 5; i++) members[2]!.put("even more", `${i}`);
    await members[2]!.store.compact(14);
    await checker.checkInitially();
    assert.equal(logged(members[0]!, "cannot fetch hash from slow remote peer").length, 1);
    assert.equal(logged(members[0]!, "cannot fetch hash from remote peer; local member is behind").length, 1);
    assert.equal(logged(members[0]!, "failed hash kv request").length, 3);
  });
});

describe("the periodic check", () => {
  test("reports how many members it has compared", async () => {
    const { checker, alarms } = await cluster(3);
    members[2]!.silent = true;
    await checker.checkPeriodically();
    assert.deepEqual(alarms, []);
    assert.equal(logged(members[0]!, "finished peer corruption check")[0]!["number-of-peers-checked"], 1);
  });

  test("raises the alarm for a follower with other data", async () => {
    const { checker, alarms } = await cluster(3, { 1: "wrong!" });
    await checker.checkPeriodically();
    assert.deepEqual(alarms, [0xa2n]);
    assert.ok(members[0]!.logger.has("same compact revision then hashes must match"));
  });

  test("raises none where no key is left and a member has compacted, which changes its hash", async () => {
    const { checker, alarms } = await cluster(3);
    await compactAll(8);
    for (const { store } of members) {
      const txn = store.begin();
      txn.deleteRange(Buffer.from("k"), Buffer.from("l"));
      txn.end();
    }
    const revision = members[0]!.store.currentRevision;
    await members[1]!.store.compact(revision);
    const [here, there] = [await members[0]!.store.hashKv(revision), await members[1]!.store.hashKv(revision)];
    assert.deepEqual([here.compactRevision, here.hasKeys], [there.compactRevision, there.hasKeys]);
    assert.notEqual(here.hash, there.hash, "as by etcd's rule");
    await checker.checkPeriodically();
    await members[0]!.store.compact(revision);
    await checker.checkCompactionHashes();
    assert.deepEqual(alarms, []);
  });

  test("raises the alarm for a follower that is ahead of its leader", async () => {
    const { checker, alarms } = await cluster(3);
    members[2]!.put("ahead", "of the leader");
    await checker.checkPeriodically();
    assert.deepEqual(alarms, [0xa3n]);
    assert.ok(members[0]!.logger.has("revision from follower must be less than or equal to leader's"));
  });

  test("raises one alarm for a follower that compacted more than its leader", async () => {
    const { checker, alarms } = await cluster(2);
    await members[1]!.store.compact(10);
    await checker.checkPeriodically();
    assert.deepEqual(alarms, [0xa2n]);
    assert.ok(members[0]!.logger.has("compact revision from follower must be less than or equal to leader's"));
  });
});

describe("the check of compactions", () => {
  test("finds that all members agree, once for each compaction", async () => {
    const { checker, alarms } = await cluster(3);
    await compactAll(6);
    await compactAll(8);
    await checker.checkCompactionHashes();
    const done = logged(members[0]!, "successfully checked hash on whole cluster");
    assert.deepEqual(
      done.map((fields) => fields["revision"]),
      [8],
    );
    await checker.checkCompactionHashes();
    assert.equal(logged(members[0]!, "successfully checked hash on whole cluster").length, 1);
    assert.deepEqual(alarms, []);
  });

  test("raises the alarm for members that differ from the majority, the leader among them", async () => {
    const { checker, alarms } = await cluster(3, { 0: "wrong!" });
    await compactAll(8);
    await checker.checkCompactionHashes();
    assert.deepEqual(alarms, [0xa1n]);
    const [found] = logged(members[0]!, "Detected compaction hash mismatch");
    assert.equal(found!["peer-ids"], "a1");
    assert.equal(found!["quorum-exist"], true);
  });

  test("raises an alarm without a member when no hash has a majority", async () => {
    const { checker, alarms } = await cluster(3, { 0: "other1", 1: "other2" });
    await compactAll(8);
    await checker.checkCompactionHashes();
    assert.deepEqual(alarms, [0n]);
    assert.equal(logged(members[0]!, "Detected compaction hash mismatch").length, 3);
  });

  test("continues with an older compaction while a member has not done the last one", async () => {
    const { checker, alarms } = await cluster(3);
    await compactAll(4);
    for (const { store } of members.slice(0, 2)) await store.compact(6);
    await members[0]!.store.compact(9);
    await checker.checkCompactionHashes();
    assert.deepEqual(alarms, []);
    assert.equal(logged(members[0]!, "successfully checked hash on whole cluster")[0]!["revision"], 6);
    assert.equal(
      logged(members[0]!, "skipped revision in compaction hash check; was not able to check all peers").length,
      1,
    );
  });
});
