// Slow: members start and stop again and again on real directories.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { formatId } from "../../../src/membership/member.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { ConfChange } from "../../../src/proto/raftpb.ts";
import type { BootstrapOptions } from "../../../src/server/contract/options.ts";
import { type Bootstrapped, bootstrap } from "../../../src/server/start/bootstrap.ts";
import { MemoryLogger, serverOptions, startInProcess, tempDir } from "../../harness/in-process.ts";
import { noPeers } from "../../harness/no-peers.ts";

const THREE = new Map([
  ["a", ["http://127.0.0.1:1"]],
  ["b", ["http://127.0.0.1:2"]],
  ["c", ["http://127.0.0.1:3"]],
]);

describe("a member's start", () => {
  let dir: ReturnType<typeof tempDir>;
  let dataDir: string;
  let dbPath: string;

  beforeEach(() => {
    dir = tempDir();
    dataDir = join(dir.path, "data");
    dbPath = join(dataDir, "member", "snap", "db");
  });
  afterEach(() => dir.remove());

  /** The state found at a start; the member itself does not run. */
  async function found<T>(changes: Partial<BootstrapOptions>, look: (parts: Bootstrapped) => T): Promise<T> {
    const parts = await bootstrap(serverOptions(dataDir, changes), noPeers);
    try {
      return look(parts);
    } finally {
      parts.wal.close();
      await parts.backend.close();
      parts.unlock();
    }
  }

  async function openBackend(): Promise<BoltBackend> {
    return new BoltBackend({
      path: dbPath,
      clock: systemClock,
      logger: nullLogger,
      batchIntervalMs: 10,
      batchLimit: 1000,
      onFailure: assert.fail,
    });
  }

  test("initial members write the others into their log, in the order of their ids", async () => {
    const ids = await found({ name: "b", initialCluster: THREE }, ({ node, members, confState }) => {
      const { entries } = node.ready();
      const changes = entries.map((entry) => ConfChange.decode(entry.data));
      assert.deepEqual(
        changes.map((change) => change.nodeId),
        members.map((member) => member.id),
      );
      assert.deepEqual(
        confState.voters,
        changes.map((change) => change.nodeId),
      );
      const context = JSON.parse(Buffer.from(changes[0]!.context).toString()) as Record<string, unknown>;
      assert.deepEqual(Object.keys(context), ["id", "peerURLs", "name"]);
      return members.map((member) => member.id);
    });
    assert.deepEqual(
      ids,
      [...ids].sort((x, y) => (x < y ? -1 : 1)),
    );
  });

  test("a member with data keeps its identity, whatever the flags of a new cluster say", async () => {
    const first = await startInProcess({ dataDir });
    const { memberId, cluster } = first.etcd.server;
    await first.close();
    const other = { name: "c", initialCluster: THREE, initialClusterToken: "other", newCluster: false };
    await found(other, (parts) => {
      assert.equal(parts.memberId, memberId);
      assert.equal(parts.clusterId, cluster.id);
      assert.deepEqual(
        parts.members.map(({ id, name }) => [id, name]),
        [[memberId, "default"]],
      );
    });
  });

  test("a removed member does not start again, and says how to bring the machine back", async () => {
    const first = await startInProcess({ dataDir });
    const { memberId } = first.etcd.server;
    await first.close();
    const backend = await openBackend();
    backend.put("members_removed", Buffer.from(formatId(memberId)), Buffer.from("removed"));
    await backend.commit();
    await backend.close();
    await assert.rejects(
      found({}, () => assert.fail()),
      {
        name: "DataDirError",
        message: new RegExp(`^the member ${formatId(memberId)} has been permanently removed .*etcdctl member add`),
      },
    );
  });

  test("more learners than allowed end the start", async () => {
    const first = await startInProcess({ dataDir });
    await first.close();
    const backend = await openBackend();
    backend.put(
      "members",
      Buffer.from("7"),
      Buffer.from('{"id":7,"peerURLs":["http://127.0.0.1:7"],"isLearner":true}'),
    );
    await backend.commit();
    await backend.close();
    await assert.rejects(
      found({ maxLearners: 0 }, () => assert.fail()),
      /too many learner members in cluster/,
    );
    await found({ maxLearners: 1 }, ({ members }) => assert.equal(members.length, 2));
  });

  test("the database is rewritten at the start when that frees enough", async () => {
    const first = await startInProcess({ dataDir });
    const { backend } = first.etcd.server.replication;
    const value = Buffer.alloc(100_000, 1);
    for (let i = 0; i < 50; i++) backend.put("auth", Buffer.from(`filler${i}`), value);
    await backend.commit();
    for (let i = 0; i < 50; i++) backend.delete("auth", Buffer.from(`filler${i}`));
    await backend.commit();
    await first.close();
    const before = statSync(dbPath).size;
    assert.ok(before > 5_000_000);

    const logger = new MemoryLogger();
    await found({ bootstrapDefragThresholdBytes: 100_000_000, logger }, () => {});
    assert.ok(logger.has("Skipping defragmentation"));
    assert.equal(statSync(dbPath).size, before);
    await found({ bootstrapDefragThresholdBytes: 1_000_000 }, () => {});
    assert.ok(statSync(dbPath).size < 1_000_000);
  });
});
