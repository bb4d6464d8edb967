import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import { ETCD_VERSION } from "../../base/versions.ts";
import type { AutoCompaction } from "../../config/auto-compaction.ts";
import type { Config } from "../../config/config.ts";
import { formatUrlsByMember, parseUrlsByMember, urlTexts } from "../../config/values/url.ts";
import { architecture, KVORUM_VERSION, operatingSystem } from "./version.ts";

/** etcd's long line at the start of a member: its whole configuration. */
export function logStart(config: Config, initialized: boolean, log: Logger): void {
  log.info("configuring peer listeners", { "listen-peer-urls": urlTexts(config.listenPeerUrls) });
  log.info("configuring client listeners", { "listen-client-urls": urlTexts(config.listenClientUrls) });
  const retention = retentionText(config.autoCompaction);
  log.info("starting an etcd server", {
    "etcd-version": ETCD_VERSION,
    "kvorum-version": KVORUM_VERSION,
    "node-version": process.version,
    os: operatingSystem(),
    arch: architecture(),
    "max-cpu-set": availableParallelism(),
    "max-cpu-available": cpus().length,
    "member-initialized": initialized,
    name: config.name,
    "data-dir": config.dataDir,
    "wal-dir": config.walDir,
    "wal-dir-dedicated": config.walDir,
    "member-dir": join(config.dataDir, "member"),
    "force-new-cluster": config.forceNewCluster,
    "heartbeat-interval": goDuration(config.tickMs),
    "election-timeout": goDuration(config.electionMs),
    "initial-election-tick-advance": config.initialElectionTickAdvance,
    "snapshot-count": config.snapshotCount,
    "max-wals": config.maxWalFiles,
    "max-snapshots": config.maxSnapFiles,
    "snapshot-catchup-entries": config.snapshotCatchUpEntries,
    "initial-advertise-peer-urls": urlTexts(config.advertisePeerUrls),
    "listen-peer-urls": urlTexts(config.listenPeerUrls),
    "advertise-client-urls": urlTexts(config.advertiseClientUrls),
    "listen-client-urls": urlTexts(config.listenClientUrls),
    "listen-metrics-urls": urlTexts(config.listenMetricsUrls),
    cors: [...config.cors].sort(),
    "host-whitelist": [...config.hostWhitelist].sort(),
    "initial-cluster": initialized ? "" : formatUrlsByMember(parseUrlsByMember(config.initialCluster)),
    "initial-cluster-state": config.initialClusterState,
    "initial-cluster-token": initialized ? "" : config.initialClusterToken,
    "quota-backend-bytes": config.quotaBackendBytes,
    "max-request-bytes": config.maxRequestBytes,
    "max-concurrent-streams": config.maxConcurrentStreams,
    "pre-vote": config.preVote,
    "feature-gates": config.features.toString(),
    "initial-corrupt-check": config.features.enabled("InitialCorruptCheck"),
    "corrupt-check-time-interval": goDuration(config.checks.corruptCheckMs),
    "compact-check-time-interval": goDuration(config.checks.compactHashCheckMs),
    "auto-compaction-mode": config.autoCompaction.mode,
    "auto-compaction-retention": retention,
    "auto-compaction-interval": retention,
    "downgrade-check-interval": goDuration(config.checks.downgradeCheckMs),
    "max-learners": config.maxLearners,
    "v2-deprecation": "write-only",
  });
}

/** Revisions too, because etcd prints its one field for both: as a duration of that many nanoseconds. */
const retentionText = (compaction: AutoCompaction): string =>
  goDuration(compaction.mode === "periodic" ? compaction.retentionMs : compaction.retentionRevisions / 1e6);
