import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Code } from "../../../src/base/grpc-codes.ts";
import { KVService, LeaseService, MaintenanceService } from "../../../src/proto/etcdserverpb.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";
import { waitFor } from "../../harness/wait.ts";
import { bytes } from "../../server/requests.ts";

/**
 * The metrics used by etcd's own dashboard and alerts (contrib/mixin), for a cluster of one: those of peers come with
 * peers.
 */
const OF_DASHBOARDS = [
  "etcd_disk_backend_commit_duration_seconds_bucket",
  "etcd_disk_wal_fsync_duration_seconds_bucket",
  "etcd_mvcc_db_total_size_in_bytes",
  "etcd_mvcc_db_total_size_in_use_in_bytes",
  "etcd_network_client_grpc_received_bytes_total",
  "etcd_network_client_grpc_sent_bytes_total",
  "etcd_server_has_leader",
  "etcd_server_leader_changes_seen_total",
  "etcd_server_proposals_applied_total",
  "etcd_server_proposals_committed_total",
  "etcd_server_proposals_failed_total",
  "etcd_server_proposals_pending",
  "etcd_server_quota_backend_bytes",
  "grpc_server_handled_total",
  "grpc_server_handling_seconds_bucket",
  "grpc_server_started_total",
  "process_resident_memory_bytes",
];

describe("the metrics page", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess({ etcd: { extensiveMetrics: true } });
  });
  after(() => server.close());

  const page = async (): Promise<string> => (await fetch(`${server.url}/metrics`)).text();
  const sampleOf = (text: string, sample: string): number => {
    const line = text.split("\n").find((each) => each.startsWith(`${sample} `));
    assert.ok(line !== undefined, `no sample ${sample}`);
    return Number(line.slice(sample.length + 1));
  };

  test("has every metric of etcd's dashboards and alerts", async () => {
    await server.client.unary(KVService.Put, { key: bytes("a") });
    const text = await page();
    for (const name of OF_DASHBOARDS) assert.match(text, new RegExp(`^${name}[{ ]`, "m"), name);
  });

  test("reports how long turns of the event loop take", async () => {
    const text = await page();
    assert.ok(sampleOf(text, "kvorum_loop_turn_seconds_count") > 0);
    assert.ok(sampleOf(text, "kvorum_loop_longest_turn_seconds") >= 0);
    const turns: unknown = await (await fetch(`${server.url}/debug/turns`)).json();
    assert.ok(Array.isArray(turns));
  });

  test("times hashes and backups", async () => {
    await server.client.unary(MaintenanceService.Hash, {});
    await server.client.unary(MaintenanceService.HashKV, {});
    const backup = server.client.stream(MaintenanceService.Snapshot);
    await backup.send({});
    let parts = 0;
    for await (const _ of backup) parts++;
    assert.ok(parts > 1);
    for (const name of ["mvcc_hash", "mvcc_hash_rev", "disk_backend_snapshot"]) {
      const sample = `etcd_${name}_duration_seconds_count`;
      await waitFor(sample, async () => sampleOf(await page(), sample) === 1);
    }
  });

  test("counts bytes written to the log, and rows deleted by a compaction", async () => {
    const written = sampleOf(await page(), "etcd_disk_wal_write_bytes_total");
    const value = Buffer.alloc(10_000);
    await server.client.unary(KVService.Put, { key: bytes("compacted"), value });
    await server.client.unary(KVService.Put, { key: bytes("compacted"), value });
    const { header } = await server.client.unary(KVService.DeleteRange, { key: bytes("compacted") });
    const grown = sampleOf(await page(), "etcd_disk_wal_write_bytes_total") - written;
    assert.ok(grown > 2 * value.length && grown < 3 * value.length, `${grown} bytes`);

    const deleted = "etcd_debugging_mvcc_db_compaction_keys_total";
    const before = sampleOf(await page(), deleted);
    await server.client.unary(KVService.Compact, { revision: header!.revision, physical: true });
    const text = await page();
    assert.equal(sampleOf(text, deleted), before + 2, "both values, not the deletion at that revision");
    assert.equal(sampleOf(text, "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count"), 1);
    const ageSeconds = Date.now() / 1000 - sampleOf(text, "etcd_debugging_mvcc_db_compaction_last");
    assert.ok(ageSeconds >= 0 && ageSeconds < 60, `${ageSeconds} s ago`);
  });

  test("is well-formed: each family is described once, and its samples follow", async () => {
    const text = await page();
    assert.ok(text.endsWith("\n"));
    const described = new Set<string>();
    let family = "";
    for (const line of text.trimEnd().split("\n")) {
      const type = /^# TYPE (\S+) (counter|gauge|histogram|summary)$/.exec(line);
      if (type !== null) {
        family = type[1]!;
        assert.ok(!described.has(family), `${family} twice`);
        described.add(family);
      } else if (!line.startsWith("# HELP ")) {
        const sample = /^([a-z_]+)(?:\{(?:[A-Za-z_]+="(?:[^"\\\n]|\\.)*",?)*\})? (?:[-+\d.e]+|\+Inf|NaN)$/.exec(line);
        assert.ok(sample !== null, line);
        assert.ok([family, `${family}_bucket`, `${family}_sum`, `${family}_count`].includes(sample[1]!), line);
      }
    }
  });

  test("counts the member's work", async () => {
    const before = await page();
    await server.client.unary(KVService.Put, { key: bytes("a"), value: bytes("x") });
    await server.client.unary(KVService.Range, { key: bytes("a") });
    await server.client.unary(KVService.DeleteRange, { key: bytes("a") });
    await server.client.unary(LeaseService.LeaseGrant, { ttl: 100 });
    await assert.rejects(server.client.unary(KVService.Put, {}), { code: Code.INVALID_ARGUMENT });
    const after = await page();
    const grew = (sample: string): number => sampleOf(after, sample) - sampleOf(before, sample);
    assert.equal(grew("etcd_mvcc_put_total"), 1);
    assert.equal(grew("etcd_mvcc_range_total"), 1);
    assert.equal(grew("etcd_mvcc_delete_total"), 1);
    assert.equal(grew("etcd_debugging_lease_granted_total"), 1);
    const put = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"';
    assert.equal(grew(`grpc_server_started_total{${put}}`), 2);
    assert.equal(grew(`grpc_server_handled_total{grpc_code="OK",${put}}`), 1);
    assert.equal(grew(`grpc_server_handled_total{grpc_code="InvalidArgument",${put}}`), 1);
    assert.equal(grew(`grpc_server_handling_seconds_count{${put}}`), 2);
    assert.equal(grew("etcd_server_proposals_committed_total"), 3);
    assert.equal(sampleOf(after, "etcd_server_has_leader"), 1);
    assert.equal(sampleOf(after, 'etcd_cluster_version{cluster_version="3.7"}'), 1);
  });

  test("/debug/vars shows raft's state as JSON", async () => {
    const vars = (await (await fetch(`${server.url}/debug/vars`)).json()) as Record<string, Record<string, unknown>>;
    const { id, lead, raftState, progress, vote, leadtransferee } = vars["raft.status"]!;
    assert.deepEqual([raftState, lead, vote, leadtransferee], ["StateLeader", id, id, "0"]);
    assert.equal((progress as Record<string, Record<string, unknown>>)[String(id)]!["state"], "StateReplicate");
  });
});
