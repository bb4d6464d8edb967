import { goDuration } from "../../base/duration.ts";
import { KvorumError, messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId } from "../../membership/member.ts";
import type { KvHash } from "../../mvcc/store/hash.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import type { PeerAddress, PeerClient, PeerHash } from "../contract/network.ts";

export interface CorruptionCheckerOptions {
  readonly logger: Logger;
  readonly cluster: Pick<Cluster, "id" | "localId" | "members">;
  readonly store: Pick<MvccStore, "hashKv" | "compactionHashes">;
  readonly peerClient: Pick<PeerClient, "hashKv">;
  /** Resolves when the state is as new as the leader's was at the call. */
  readonly readIndex: () => Promise<EtcdError | null>;
  /** Raises CORRUPT for a member; 0n when the member is unknown. */
  readonly raiseAlarm: (memberId: bigint) => void;
  readonly requestTimeoutMs: number;
}

/** A member's data differs from the others'. The message is etcd's. */
class CorruptionError extends KvorumError {
  override name = "CorruptionError";
  readonly code = "ERR_CORRUPTION";
}

type PeerAnswer =
  | { readonly peer: PeerAddress; readonly hash: PeerHash }
  | { readonly peer: PeerAddress; readonly hash: undefined; readonly error: unknown };

/**
 * Finds members whose data differs, by comparing hashes of the keys and values at the same revision. Hashes of a
 * revision at which no key is left are not compared: by etcd's definition a member that has compacted there has another
 * hash than those that have not yet. etcd compares them, and raises false CORRUPT alarms. Source: etcd
 * `server/etcdserver/corrupt.go`.
 */
export class CorruptionChecker {
  readonly #options: CorruptionCheckerOptions;
  readonly #logger: Logger;
  readonly #localId: string;
  /** All members had the same hash of this compaction. */
  #checkedRevision = 0;

  constructor(options: CorruptionCheckerOptions) {
    this.#options = options;
    this.#logger = options.logger;
    this.#localId = formatId(options.cluster.localId);
  }

  /** Called before the member serves. Rejects with `CorruptionError` when its data differs from its peers'. */
  async checkInitially(): Promise<void> {
    const { store, requestTimeoutMs } = this.#options;
    const id = this.#localId;
    this.#logger.info("starting initial corruption check", {
      "local-member-id": id,
      timeout: goDuration(requestTimeoutMs),
    });
    const { hash, compactRevision, hashRevision, hasKeys } = await store.hashKv(0).catch((error: unknown) => {
      throw new CorruptionError(`${id} failed to fetch hash (${messageOf(error)})`);
    });
    const local = {
      "local-member-id": id,
      "local-member-revision": hashRevision,
      "local-member-compact-revision": compactRevision,
      "local-member-hash": hash,
    };
    let mismatches = 0;
    for (const answer of await this.#askPeers(hashRevision)) {
      const fields = {
        ...local,
        "remote-peer-id": formatId(answer.peer.id),
        "remote-peer-endpoints": answer.peer.urls,
      };
      if (answer.hash === undefined) {
        const problem = initialProblem(answer.error);
        if (problem !== undefined) this.#logger.warn(problem, { ...fields, error: `${answer.error}` });
        continue;
      }
      if (answer.hash.hash === hash) continue;
      const isSame = answer.hash.compactRevision === compactRevision;
      if (isSame && !hasKeys) continue;
      if (isSame) mismatches++;
      const what = isSame ? "hash" : "compact revision";
      this.#logger.warn(`found different ${what} values from remote peer`, {
        ...fields,
        "remote-peer-revision": answer.hash.revision,
        "remote-peer-compact-revision": answer.hash.compactRevision,
        "remote-peer-hash": answer.hash.hash,
      });
    }
    if (mismatches > 0) throw new CorruptionError(`${id} found data inconsistency with peers`);
    this.#logger.info("initial corruption checking passed; no corruption", { "local-member-id": id });
  }

  /** Called periodically on the leader. Rejects when the check was not possible. */
  async checkPeriodically(): Promise<void> {
    const { store, readIndex, cluster } = this.#options;
    const before = await store.hashKv(0);
    const answers = await this.#askPeers(before.hashRevision);
    const error = await readIndex();
    if (error !== null) throw error;
    const after = await store.hashKv(0);
    let alarmed = false;
    const guilty = (id: bigint): void => {
      if (!alarmed) this.#options.raiseAlarm(id);
      alarmed = true;
    };
    const isSameState = after.hashRevision === before.hashRevision && after.compactRevision === before.compactRevision;
    if (isSameState && before.hasKeys && after.hash !== before.hash) {
      this.#logger.warn("found hash mismatch", {
        "revision-1": before.hashRevision,
        "compact-revision-1": before.compactRevision,
        "hash-1": before.hash,
        "revision-2": after.hashRevision,
        "compact-revision-2": after.compactRevision,
        "hash-2": after.hash,
      });
      guilty(cluster.localId);
    }
    let checked = 0;
    for (const { peer, hash } of answers) {
      if (hash === undefined) continue;
      checked++;
      const follower = { "follower-peer-id": formatId(peer.id) };
      if (hash.revision > after.currentRevision) {
        this.#logger.warn("revision from follower must be less than or equal to leader's", {
          "leader-revision": after.currentRevision,
          "follower-revision": hash.revision,
          ...follower,
        });
        guilty(peer.id);
      }
      if (hash.compactRevision > after.compactRevision) {
        this.#logger.warn("compact revision from follower must be less than or equal to leader's", {
          "leader-compact-revision": after.compactRevision,
          "follower-compact-revision": hash.compactRevision,
          ...follower,
        });
        guilty(peer.id);
      }
      if (hash.compactRevision === before.compactRevision && before.hasKeys && hash.hash !== before.hash) {
        this.#logger.warn("same compact revision then hashes must match", {
          "leader-compact-revision": after.compactRevision,
          "leader-hash": before.hash,
          "follower-compact-revision": hash.compactRevision,
          "follower-hash": hash.hash,
          ...follower,
        });
        guilty(peer.id);
      }
    }
    this.#logger.info("finished peer corruption check", { "number-of-peers-checked": checked });
  }

  /**
   * On the leader: compares the members' compaction hashes, the latest compaction first, until one is found that all
   * members have.
   */
  async checkCompactionHashes(): Promise<void> {
    this.#logger.info("starting compact hash check", {
      "local-member-id": this.#localId,
      timeout: goDuration(this.#options.requestTimeoutMs),
    });
    const hashes = this.#options.store
      .compactionHashes()
      .filter(({ revision, hasKeys }) => hasKeys && revision > this.#checkedRevision)
      .reverse();
    let looked = 0;
    for (const hash of hashes) {
      looked++;
      const answers = await this.#askPeers(hash.revision);
      if (answers.length > 0 && this.#compare(hash, answers)) break;
    }
    this.#logger.info("finished compaction hash check", { "number-of-hashes-checked": looked });
  }

  /** False when some members could not be compared: an older compaction may allow it. */
  #compare(leaderHash: KvHash, answers: readonly PeerAnswer[]): boolean {
    const { localId } = this.#options.cluster;
    const membersByHash = new Map<number, bigint[]>([[leaderHash.hash, [localId]]]);
    let checked = 0;
    for (const { peer, hash } of answers) {
      if (hash === undefined || hash.compactRevision !== leaderHash.compactRevision) {
        this.#logger.warn("Skipped peer's hash", {
          "number-of-peers": answers.length,
          "leader-id": this.#localId,
          "peer-id": formatId(peer.id),
          reason:
            hash === undefined
              ? "no response"
              : `the peer's CompactRevision ${hash.compactRevision} doesn't match leader's CompactRevision ${leaderHash.compactRevision}`,
        });
        continue;
      }
      checked++;
      const members = membersByHash.get(hash.hash);
      if (members === undefined) membersByHash.set(hash.hash, [peer.id]);
      else members.push(peer.id);
    }
    if (membersByHash.size === 1) return this.#areConsistent(leaderHash, checked, answers.length);
    this.#blame(leaderHash, membersByHash, answers.length + 1);
    return true;
  }

  #areConsistent(hash: KvHash, checked: number, peers: number): boolean {
    const fields = { revision: hash.revision, compactRevision: hash.compactRevision };
    if (checked === peers) {
      this.#logger.info("successfully checked hash on whole cluster", {
        "number-of-peers-checked": checked,
        ...fields,
      });
      this.#checkedRevision = Math.max(this.#checkedRevision, hash.revision);
      return true;
    }
    this.#logger.warn("skipped revision in compaction hash check; was not able to check all peers", {
      "number-of-peers-checked": checked,
      "number-of-peers": peers,
      ...fields,
    });
    return false;
  }

  /**
   * Members that differ from a majority are corrupt; without a majority this is unknown, and the alarm names no member.
   */
  #blame(leaderHash: KvHash, membersByHash: Map<number, bigint[]>, memberCount: number): void {
    const leader = {
      "leader-id": this.#localId,
      "leader-revision": leaderHash.revision,
      "leader-compact-revision": leaderHash.compactRevision,
      "leader-hash": leaderHash.hash,
    };
    const quorum = Math.floor(memberCount / 2) + 1;
    const majority = [...membersByHash].find(([, members]) => members.length >= quorum);
    if (majority === undefined) {
      this.#logger.error(
        "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0",
        leader,
      );
      this.#options.raiseAlarm(0n);
    } else membersByHash.delete(majority[0]);
    for (const [hash, members] of membersByHash) {
      if (majority !== undefined) for (const id of members) this.#options.raiseAlarm(id);
      this.#logger.error("Detected compaction hash mismatch", {
        ...leader,
        "peer-hash": hash,
        "peer-ids": members.map(formatId).join(","),
        "quorum-exist": majority !== undefined,
      });
    }
  }

  /** All other members' hashes, ascending by member. */
  #askPeers(revision: number): Promise<PeerAnswer[]> {
    const { cluster, peerClient } = this.#options;
    const ask = async (peer: PeerAddress): Promise<PeerAnswer> => {
      try {
        return { peer, hash: await peerClient.hashKv(peer, revision, cluster.id) };
      } catch (error) {
        return { peer, hash: undefined, error };
      }
    };
    const others = cluster.members().filter(({ id, peerUrls }) => id !== cluster.localId && peerUrls.length > 0);
    return Promise.all(others.map(({ id, peerUrls }) => ask({ id, urls: peerUrls })));
  }
}

/** Undefined for a peer that did not answer. */
function initialProblem(error: unknown): string | undefined {
  if (error === errors.futureRevision) return "cannot fetch hash from slow remote peer";
  if (error === errors.compacted) return "cannot fetch hash from remote peer; local member is behind";
  if (error === errors.clusterIdMismatch) return "cluster ID mismatch";
  return undefined;
}
