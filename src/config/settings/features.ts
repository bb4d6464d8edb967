import { setting } from "./definition.ts";
import { bool, duration, int, uint, uint64 } from "./kinds.ts";

/** Settings for individual features. */
export const featureSettings = {
  "corrupt-check-time": setting(duration, {
    field: "checks.corruptCheckMs",
    default: "0s",
    help: "Time between two comparisons of the members' data; 0 never.",
  }),
  "compact-hash-check-time": setting(duration, {
    field: "checks.compactHashCheckMs",
    default: "1m",
    bounds: { above: 0 },
    help: "Time between two comparisons of the hashes of compactions.",
  }),
  "compaction-batch-limit": setting(int, {
    field: "compactionBatchLimit",
    default: "0",
    zeroMeans: 1000,
    help: "Most revisions that compaction deletes in one batch. 0 means 1000.",
  }),
  "peer-skip-client-san-verification": setting(bool, {
    field: "peerTls.skipClientSanVerify",
    file: "peer-transport-security.skip-client-san-verification",
    default: "false",
    help: "Do not check the names in the client certificates of members.",
  }),
  "watch-progress-notify-interval": setting(duration, {
    field: "watchProgressNotifyIntervalMs",
    default: "0s",
    zeroMeans: 600_000,
    help: "Time between two progress notifications of a watch that asked for them. 0 means 10m; at least 100ms.",
  }),
  "warning-apply-duration": setting(duration, {
    field: "warningApplyDurationMs",
    default: "100ms",
    help: "An entry that takes longer to apply is logged.",
  }),
  "bootstrap-defrag-threshold-megabytes": setting(uint, {
    field: "bootstrapDefragThresholdBytes",
    default: "0",
    times: 1024 * 1024,
    help: "Defragment at the start when that frees at least so many megabytes; 0 never.",
  }),
  "max-learners": setting(int, {
    field: "maxLearners",
    default: "1",
    help: "Most learners in the cluster.",
  }),
  "compaction-sleep-interval": setting(duration, {
    field: "compactionSleepIntervalMs",
    default: "0s",
    zeroMeans: 10,
    help: "Pause between two batches of compaction. 0 means 10ms.",
  }),
  "downgrade-check-time": setting(duration, {
    field: "checks.downgradeCheckMs",
    default: "5s",
    help: "Time between two looks at a running downgrade.",
  }),
  "snapshot-catchup-entries": setting(uint64, {
    field: "snapshotCatchUpEntries",
    default: "5000",
    help: "Entries of the raft log left for slow followers when it is compacted.",
  }),
};
