import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Code } from "../../../src/base/grpc-codes.ts";
import { KVService } from "../../../src/proto/etcdserverpb.ts";
import { ConfChange, type Entry, EntryType } from "../../../src/proto/raftpb.ts";
import { RaftLoop } from "../../../src/server/replication/raft-loop.ts";
import { type Bootstrapped, bootstrap } from "../../../src/server/start/bootstrap.ts";
import { serverOptions, startInProcess, tempDir } from "../../harness/in-process.ts";
import { noPeers } from "../../harness/no-peers.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { waitFor } from "../../harness/wait.ts";
import { HeldDisk } from "../held-disk.ts";
import { bytes } from "../requests.ts";

/** The commit index follows the entries, but nothing waits for its sync: it can be determined again. */
const COMMIT_INDEX = "write";

const isLong = (entries: readonly Entry[]): boolean => entries.some(({ data }) => String(Buffer.from(data)) === "long");

describe("the raft loop", () => {
  let dir: ReturnType<typeof tempDir>;
  let disk: HeldDisk;
  let clock: VirtualClock;
  let parts: Bootstrapped;
  let loop: RaftLoop;
  let proposals: string[];
  let applied: string[];
  let failures: unknown[];
  let blocked: boolean;
  /** Ends the application of an entry marked as long. */
  let finish: () => void;

  beforeEach(async () => {
    dir = tempDir();
    disk = new HeldDisk();
    clock = new VirtualClock();
    parts = await bootstrap(serverOptions(join(dir.path, "data"), { disk, unsafeNoFsync: false }), noPeers);
    proposals = [];
    applied = [];
    failures = [];
    blocked = false;
    loop = new RaftLoop({
      node: parts.node,
      storage: parts.storage,
      wal: parts.wal,
      clock,
      hooks: {
        apply,
        propose() {
          if (proposals.length === 0 || !parts.node.isLeader) return;
          parts.node.proposeBatch(proposals.map(bytes));
          proposals = [];
        },
        askReads() {},
        saveSnapshot() {},
        readState() {},
        stateChanged() {},
        installSnapshot() {},
        send: (messages) => assert.deepEqual(messages, []),
        blocked: () => blocked,
        fail: (error) => failures.push(error),
        observeSync() {},
        observeWrite() {},
        refused: (message, problem) => assert.fail(`refused ${message.type}: ${problem}`),
      },
    });
    loop.run();
    parts.node.campaign();
    loop.run();
    await waitFor("it leads", () => parts.node.isLeader);
    applied = [];
    disk.events.length = 0;
  });

  afterEach(async () => {
    disk.holding = false;
    await loop.stop();
    try {
      parts.wal.close();
    } catch {
      // A log that failed in its test cannot be synced again.
    }
    await parts.backend.close();
    parts.unlock();
    dir.remove();
  });

  function apply(entries: readonly Entry[], done: () => void): boolean {
    if (isLong(entries)) {
      finish = () => {
        applied.push("long");
        done();
      };
      return false;
    }
    for (const { type, data } of entries) {
      if (type === EntryType.EntryConfChange) parts.node.applyConfChange(ConfChange.decode(data));
      else applied.push(Buffer.from(data).toString());
    }
    disk.events.push(`applied ${entries.length}`);
    return true;
  }

  test("writes, syncs and only then applies a small batch, all in one turn", () => {
    proposals = ["a"];
    loop.run();
    assert.deepEqual(applied, ["a"]);
    assert.deepEqual(disk.events, ["write", "synced", COMMIT_INDEX, "applied 1"]);
  });

  test("stops before it acknowledges unsynced entries", () => {
    const { node } = parts;
    const ready = node.ready.bind(node);
    node.ready = () => ({ ...ready(), mustSync: false });
    proposals = ["a"];
    loop.run();
    const rule = "only what is durable is acknowledged";
    assert.deepEqual(
      failures.map((error) => (error as Error).message.slice(0, rule.length)),
      [rule],
    );
    assert.deepEqual(applied, []);
  });

  test("does not sync synchronously while the disk is slow", async () => {
    const put = async (value: string): Promise<string | undefined> => {
      disk.events.length = 0;
      proposals = [value];
      loop.run();
      const [, how] = disk.events;
      await waitFor("applied", () => applied.includes(value));
      return how;
    };
    assert.equal(await put("quick"), "synced");
    disk.onBlockingSync = () => clock.advance(30);
    assert.equal(await put("slow"), "synced");
    for (let i = 0; i < 20; i++) assert.equal(await put(`beside others ${i}`), "sync begins");
    disk.onBlockingSync = () => {};
    assert.equal(await put("quick again"), "synced");
  });

  test("applies nothing of a larger batch while its sync is in progress", async () => {
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    assert.equal(disk.heldCount, 1);
    for (let i = 0; i < 3; i++) {
      loop.run();
      loop.schedule();
      clock.settle();
      await turn();
    }
    assert.deepEqual(applied, []);
    disk.release();
    assert.deepEqual(applied, ["a", "b", "c"]);
    assert.deepEqual(disk.events, ["write", "sync begins", "synced", COMMIT_INDEX, "applied 3"]);
  });

  test("logs, commits and ticks while an entry takes many turns, and applies nothing after it", async () => {
    const before = parts.node.committed;
    proposals = ["long"];
    loop.run();
    for (const [i, names] of [["a", "b"], ["c"]].entries()) {
      proposals = names;
      loop.run();
      await waitFor("it is committed", () => parts.node.committed === before + 3 + i);
    }
    loop.advanceTicks(100);
    assert.equal(parts.node.isLeader, true);
    assert.deepEqual(applied, []);
    finish();
    assert.deepEqual(applied, ["long", "a", "b", "c"]);
  });

  test("stops without waiting for an entry that takes many turns", async () => {
    proposals = ["long"];
    loop.run();
    await loop.stop();
    finish();
    assert.deepEqual(failures, []);
  });

  test("collects what arrives during a sync into one batch, with one sync for all of it", () => {
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    for (let i = 0; i < 100; i++) {
      proposals.push(`p${i}`);
      loop.schedule();
    }
    clock.settle();
    assert.equal(disk.heldCount, 1);
    disk.release();
    assert.equal(disk.heldCount, 1, "the next batch is on its way");
    assert.deepEqual(applied, ["a", "b", "c"]);
    disk.release();
    assert.equal(applied.length, 103);
    assert.equal(disk.events.filter((event) => event === "sync begins").length, 2);
    assert.equal(disk.heldCount, 0);
  });

  test("does not apply an entry whose sync failed, and stops", () => {
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    disk.syncError = new Error("EIO: the disk is broken");
    disk.release();
    assert.deepEqual(applied, []);
    assert.match(`${failures}`, /the disk is broken/);
    proposals = ["d"];
    loop.run();
    assert.deepEqual(applied, []);
    assert.equal(failures.length, 1);
  });

  test("reports a blocking sync that fails in the same way", () => {
    disk.syncError = new Error("EIO: the disk is broken");
    proposals = ["a"];
    loop.run();
    assert.deepEqual(applied, []);
    assert.equal(failures.length, 1);
  });

  test("stops only when the sync in progress is over", async () => {
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    let stopped = false;
    const stopping = loop.stop().then(() => {
      stopped = true;
    });
    await turn();
    assert.equal(stopped, false);
    disk.release();
    await stopping;
    assert.equal(disk.heldCount, 0);
  });

  test("accepts nothing while its owner is blocked", () => {
    blocked = true;
    proposals = ["a"];
    loop.run();
    assert.deepEqual(disk.events, []);
    blocked = false;
    loop.run();
    assert.deepEqual(applied, ["a"]);
  });
});

test("a client's put is answered only when the log is synced", async () => {
  const disk = new HeldDisk();
  const member = await startInProcess({ server: { disk, unsafeNoFsync: false } });
  disk.holding = true;
  const answers: number[] = [];
  const puts = Array.from({ length: 8 }, (_, i) =>
    member.client.unary(KVService.Put, { key: bytes(`k${i}`) }).then(() => answers.push(i)),
  );
  await waitFor("a sync is held", () => disk.heldCount > 0);
  const answeredAtHold = answers.length;
  for (let i = 0; i < 20; i++) await turn();
  assert.equal(answers.length, answeredAtHold);
  const { count } = await member.client.unary(KVService.Range, {
    key: bytes("k"),
    rangeEnd: bytes("l"),
    serializable: true,
  });
  assert.ok(count <= answeredAtHold, "nor does anyone read it");
  disk.holding = false;
  while (disk.heldCount > 0) disk.release();
  await Promise.all(puts);
  await member.close();
  assert.deepEqual(member.failures, []);
});

test("a member whose log cannot be synced reports it and answers nothing more", async () => {
  const disk = new HeldDisk();
  const member = await startInProcess({ server: { disk, unsafeNoFsync: false } });
  disk.syncError = new Error("EIO: i/o error");
  const put = member.client.unary(KVService.Put, { key: bytes("lost") }, { timeoutMs: 300 });
  await assert.rejects(put, { code: Code.DEADLINE_EXCEEDED });
  await waitFor("the report", () => member.failures.length > 0);
  assert.equal(member.failures.length, 1);
  assert.match(`${member.failures[0]}`, /EIO/);
  await member.etcd.close(0).catch(() => {});
  member.client.close();
});
