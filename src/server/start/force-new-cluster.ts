import type { Logger } from "../../base/log.ts";
import { additionOf, promotionOf, removalOf } from "../../membership/conf-change.ts";
import { formatId } from "../../membership/member.ts";
import {
  ConfChange,
  ConfChangeType,
  type ConfState,
  type Entry,
  EntryType,
  type HardState,
} from "../../proto/raftpb.ts";

/** The log after the snapshot. */
export interface ForcedLog {
  readonly hardState: HardState;
  readonly entries: readonly Entry[];
}

/**
 * The log with which the local member becomes a cluster of its own: without uncommitted entries, and with committed
 * changes at its end that remove all other members. A learner is promoted first, and a member missing from the log is
 * added first: raft never has no voters. `added` are the entries that the log on disk does not have yet. Source: etcd
 * `server/etcdserver/bootstrap.go` and `server/storage/util.go`; there a learner stays one, and fails.
 */
export function forceNewCluster(options: {
  readonly log: ForcedLog;
  /** Raft's configuration before the first of these entries. */
  readonly confState: ConfState;
  /** Index up to which the backend has applied entries: those were committed, whatever the hard state says. */
  readonly consistentIndex: number;
  readonly localId: bigint;
  /** For a member missing from the log. */
  readonly peerUrls: readonly string[];
  readonly logger: Logger;
}): ForcedLog & { readonly added: readonly Entry[] } {
  const { log, localId, logger } = options;
  const commit = Math.max(log.hardState.commit, options.consistentIndex);
  const kept = log.entries.filter((entry) => entry.index <= commit);
  if (kept.length < log.entries.length) {
    logger.info("discarding uncommitted WAL entries", {
      "entry-index": log.entries[kept.length]!.index,
      "commit-index-from-wal": commit,
      "number-of-discarded-entries": log.entries.length - kept.length,
    });
  }
  const isLearner = configurationAfter(options.confState, kept);
  const changes: ConfChange[] = [];
  if (!isLearner.has(localId)) {
    const member = { id: localId, peerUrls: options.peerUrls, isLearner: false, name: "", clientUrls: [] };
    changes.push(additionOf(0n, member));
  } else if (isLearner.get(localId)) changes.push(promotionOf(0n, localId));
  const others = [...isLearner.keys()].filter((id) => id !== localId).sort((a, b) => (a < b ? -1 : 1));
  changes.push(...others.map((id) => removalOf(0n, id)));
  const { term } = log.hardState;
  const added = changes.map((change, i) => ({
    type: EntryType.EntryConfChange,
    term,
    index: commit + 1 + i,
    data: ConfChange.encode(change),
  }));
  logger.info("removing the other members from the configuration", { "removed-members": others.map(formatId) });
  return { hardState: { ...log.hardState, commit: commit + added.length }, entries: [...kept, ...added], added };
}

/** Members after these entries, and whether each is a learner. */
function configurationAfter(confState: ConfState, entries: readonly Entry[]): Map<bigint, boolean> {
  const isLearner = new Map<bigint, boolean>();
  for (const id of confState.voters) isLearner.set(id, false);
  for (const id of confState.learners) isLearner.set(id, true);
  for (const entry of entries) {
    if (entry.type !== EntryType.EntryConfChange) continue;
    const { type, nodeId } = ConfChange.decode(entry.data);
    if (type === ConfChangeType.ConfChangeAddNode) isLearner.set(nodeId, false);
    else if (type === ConfChangeType.ConfChangeAddLearnerNode) isLearner.set(nodeId, true);
    else if (type === ConfChangeType.ConfChangeRemoveNode) isLearner.delete(nodeId);
  }
  return isLearner;
}
