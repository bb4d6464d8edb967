import assert from "node:assert/strict";
import { test } from "node:test";
import { newConfig } from "../../src/config/load/new-config.ts";
import { load, loadConfigOf } from "./harness.ts";

test("without arguments a member gets etcd's defaults, with zeros resolved", async () => {
  const config = await loadConfigOf([]);
  assert.deepEqual(
    {
      name: config.name,
      dataDir: config.dataDir,
      initialCluster: config.initialCluster,
      tickMs: config.tickMs,
      electionMs: config.electionMs,
      snapshotCount: config.snapshotCount,
      snapshotCatchUpEntries: config.snapshotCatchUpEntries,
      quotaBackendBytes: config.quotaBackendBytes,
      backendBatchIntervalMs: config.backendBatchIntervalMs,
      backendBatchLimit: config.backendBatchLimit,
      compactionBatchLimit: config.compactionBatchLimit,
      compactionSleepIntervalMs: config.compactionSleepIntervalMs,
      autoCompaction: config.autoCompaction,
      maxTxnOps: config.maxTxnOps,
      maxRequestBytes: config.maxRequestBytes,
      maxConcurrentStreams: config.maxConcurrentStreams,
      keepalive: config.keepalive,
      watchProgressNotifyIntervalMs: config.watchProgressNotifyIntervalMs,
      cors: config.cors,
      auth: config.auth,
    },
    {
      name: "default",
      dataDir: "default.etcd",
      initialCluster: "default=http://localhost:2380",
      tickMs: 100,
      electionMs: 1000,
      snapshotCount: 10000,
      snapshotCatchUpEntries: 5000,
      quotaBackendBytes: 2147483648,
      backendBatchIntervalMs: 100,
      backendBatchLimit: 10000,
      compactionBatchLimit: 1000,
      compactionSleepIntervalMs: 10,
      autoCompaction: { mode: "periodic", retentionMs: 0 },
      maxTxnOps: 128,
      maxRequestBytes: 1572864,
      maxConcurrentStreams: 4294967295,
      keepalive: { minTimeMs: 5000, intervalMs: 7200000, timeoutMs: 20000 },
      watchProgressNotifyIntervalMs: 600000,
      cors: ["*"],
      auth: { token: "simple", bcryptCost: 10, tokenTtlMs: 300000 },
    },
  );
});

test("the retention of automatic compaction is hours, a duration, or revisions", async () => {
  const of = async (...argv: string[]) => (await loadConfigOf(argv)).autoCompaction;
  assert.deepEqual(await of("--auto-compaction-retention=1"), { mode: "periodic", retentionMs: 3600000 });
  assert.deepEqual(await of("--auto-compaction-retention=10m"), { mode: "periodic", retentionMs: 600000 });
  assert.deepEqual(await of("--auto-compaction-retention=1h30m0.5s"), { mode: "periodic", retentionMs: 5400500 });
  assert.deepEqual(await of("--auto-compaction-mode=revision", "--auto-compaction-retention=1000"), {
    mode: "revision",
    retentionRevisions: 1000,
  });
});

test("a name alone makes a cluster of that name, in a directory of that name", async () => {
  const config = await loadConfigOf(["--name=abc"]);
  assert.equal(config.initialCluster, "abc=http://localhost:2380");
  assert.equal(config.dataDir, "abc.etcd");
});

test("a member on all addresses advertises the machine's own", async () => {
  const argv = ["--name=a", "--listen-client-urls=http://0.0.0.0:3379", "--listen-peer-urls=http://0.0.0.0:3380"];
  const { config, entries } = await load(
    [...argv, "--advertise-client-urls=http://localhost:2379"],
    {},
    { defaultHost: () => "10.1.2.3" },
  );
  assert.equal(config?.advertiseClientUrls[0]?.text, "http://10.1.2.3:3379");
  assert.equal(config?.advertisePeerUrls[0]?.text, "http://10.1.2.3:3380");
  assert.equal(config?.initialCluster, "a=http://10.1.2.3:3380");
  assert.ok(entries.some((entry) => entry.msg === "detected default host for advertise"));
});

test("a configuration is deeply frozen", async () => {
  const config = await loadConfigOf([]);
  assert.throws(() => Object.assign(config, { name: "x" }), TypeError);
  assert.throws(() => Object.assign(config.clientTls, { certFile: "x" }), TypeError);
  assert.throws(() => (config.listenClientUrls as unknown[]).push(1), TypeError);
});

test("newConfig takes fields, URLs as texts, and makes a cluster of one", () => {
  const config = newConfig({
    name: "a",
    dataDir: "/tmp/x",
    listenClientUrls: "http://127.0.0.1:0",
    advertisePeerUrls: "http://127.0.0.1:1",
  });
  assert.equal(config.listenClientUrls[0]?.port, "0");
  assert.equal(config.initialCluster, "a=http://127.0.0.1:1");
  assert.ok(Object.isFrozen(config));
});

test("newConfig refuses invalid times and URLs", () => {
  assert.throws(() => newConfig({ electionMs: 100 }), { name: "ConfigError" });
  assert.throws(() => newConfig({ listenClientUrls: "nonsense" }), { name: "ConfigError" });
});

test("a named gate overrides AllAlpha, in any order", async () => {
  for (const gates of [
    "AllAlpha=true,LeaseCheckpoint=false,LeaseCheckpointPersist=false",
    "LeaseCheckpoint=false,LeaseCheckpointPersist=false,AllAlpha=true",
  ]) {
    const { features } = await loadConfigOf([`--feature-gates=${gates}`]);
    assert.equal(features.enabled("LeaseCheckpoint"), false);
    assert.equal(features.enabled("CompactHashCheck"), true);
    assert.equal(features.enabled("FastLeaseKeepAlive"), true);
  }
});

test("raft timeouts below etcd's minimum are raised", async () => {
  const { config, entries } = await load(["--raft-read-timeout=1s"]);
  assert.equal(config?.raftReadTimeoutMs, 5000);
  assert.ok(entries.some((entry) => entry.msg === "raft-read-timeout increased to minimum value: 5s"));
});
