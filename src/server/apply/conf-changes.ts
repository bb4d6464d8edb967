import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { type Codec, ProtobufError } from "../../base/protobuf.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { type ConfChangeObjection, isPromotion, objectionTo } from "../../membership/conf-change.ts";
import { formatId, type Member } from "../../membership/member.ts";
import { ConfChange, ConfChangeType, ConfChangeV2, type ConfState, type Entry, EntryType } from "../../proto/raftpb.ts";
import { ConfChangeError } from "../../raft/confchange/changer.ts";
import type { RawNode } from "../../raft/rawnode.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import type { Network } from "../contract/network.ts";

/** Result of a proposed change: the members after it, or why it was refused. */
export type ConfChangeOutcome = readonly Member[] | EtcdError;

interface Waiting {
  readonly change: ConfChange;
  readonly sinceMs: number;
  readonly done: (outcome: ConfChangeOutcome) => void;
}

/** Changes that may wait for their result. */
const WAITING_MAX = 1000;
const RETRY_MS = 500;

/**
 * Membership changes: proposed under an id; when committed, checked again, applied to raft, the membership and the
 * network, and answered. Source: etcd `server/etcdserver/server.go`, `configure` and `applyConfChange`.
 */
export class ConfChanges {
  readonly #node: RawNode;
  readonly #cluster: Cluster;
  readonly #network: Network;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #maxLearners: number;
  readonly #onRemoved: () => void;
  /** By id, in order of arrival. */
  readonly #waiting = new Map<bigint, Waiting>();
  /** Id of the change proposed to raft, and when. */
  #proposed: bigint | undefined;
  #proposedMs = 0;

  constructor(options: {
    node: RawNode;
    cluster: Cluster;
    network: Network;
    logger: Logger;
    clock: Clock;
    maxLearners: number;
    /** The local member is no longer in the cluster. */
    onRemoved: () => void;
  }) {
    this.#node = options.node;
    this.#cluster = options.cluster;
    this.#network = options.network;
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#maxLearners = options.maxLearners;
    this.#onRemoved = options.onRemoved;
  }

  /** Queues a change to propose; its outcome is known once it is applied here. The caller runs the loop. */
  propose(change: ConfChange, done: (outcome: ConfChangeOutcome) => void): void {
    if (this.#waiting.size >= WAITING_MAX) done(errors.tooManyRequests);
    else this.#waiting.set(change.id, { change, sinceMs: this.#clock.nowMs(), done });
  }

  /**
   * Proposes the oldest change to raft: one at a time, because a leader silently drops a second while any change is
   * unapplied. So it is proposed again after a while; if both get into the log, the objection to the second is ignored.
   */
  handIn(): void {
    const next = this.#waiting.values().next();
    if (next.done) return;
    const { change } = next.value;
    const nowMs = this.#clock.nowMs();
    if (change.id === this.#proposed && nowMs - this.#proposedMs < RETRY_MS) return;
    if (this.#node.proposeConfChange(change) !== undefined) return;
    this.#proposed = change.id;
    this.#proposedMs = nowMs;
  }

  /** A new leader does not know what was proposed to the previous one. */
  leaderChanged(): void {
    this.#proposed = undefined;
  }

  /** Fails changes waiting since before `beforeMs`. They may still be applied. */
  expire(beforeMs: number, errorOf: (sinceMs: number) => EtcdError): void {
    for (const [id, { sinceMs }] of this.#waiting) {
      if (sinceMs < beforeMs) this.#finish(id, errorOf(sinceMs));
    }
  }

  /** Applies a committed change. Returns the new configuration; undefined when nothing changed. */
  apply(entry: Entry): ConfState | undefined {
    if (entry.type === EntryType.EntryConfChangeV2) return this.#applyV2(decodeOr(ConfChangeV2, entry.data));
    const change = decodeOr(ConfChange, entry.data);
    if (change === undefined) return this.#passOver();
    const objection = objectionTo(change, this.#cluster, this.#maxLearners);
    if (objection !== undefined) {
      this.#logger.error("Validation on configuration change failed", {
        "raft-conf-change": nameOf(change.type),
        "raft-conf-change-node-id": formatId(change.nodeId),
        error: objectionErrors[objection].message,
      });
      this.#putInForce({ ...change, nodeId: 0n });
      this.#finish(change.id, objectionErrors[objection]);
      return undefined;
    }
    const state = this.#putInForce(change);
    if (state === undefined) {
      this.#finish(change.id, errors.malformedConfChange);
      return this.#passOver();
    }
    this.#applyToMembership(change);
    this.#finish(change.id, this.#cluster.members());
    return state;
  }

  #applyToMembership(change: ConfChange): void {
    const { nodeId: id, type } = change;
    const isLocal = id === this.#cluster.localId;
    this.#cluster.applyConfChange(change);
    switch (type) {
      case ConfChangeType.ConfChangeRemoveNode:
        if (isLocal) this.#onRemoved();
        else this.#network.removePeer(id);
        return;
      case ConfChangeType.ConfChangeUpdateNode:
        if (!isLocal) this.#network.updatePeer({ id, urls: this.#cluster.member(id)!.peerUrls });
        return;
      default:
        if (!isLocal && !isPromotion(change)) this.#network.addPeer({ id, urls: this.#cluster.member(id)!.peerUrls });
    }
  }

  /**
   * A version-2 change. Raft itself writes the empty one, which leaves a joint configuration. Members are only
   * described by version-1 changes: a version-2 change that adds a member without description, which etcd never makes,
   * is skipped.
   */
  #applyV2(change: ConfChangeV2 | undefined): ConfState | undefined {
    if (change === undefined || !this.#fits(change)) return this.#passOver();
    const state = this.#putInForce(change);
    if (state === undefined) return this.#passOver();
    for (const { type, nodeId } of change.changes) {
      if (type !== ConfChangeType.ConfChangeRemoveNode || this.#cluster.member(nodeId) === undefined) continue;
      this.#applyToMembership(ConfChange.create({ type, nodeId }));
    }
    return state;
  }

  #fits({ changes }: ConfChangeV2): boolean {
    return changes.every(({ type, nodeId }) => {
      const isAddition = type === ConfChangeType.ConfChangeAddNode || type === ConfChangeType.ConfChangeAddLearnerNode;
      return KNOWN_TYPES.has(type) && (!isAddition || this.#cluster.member(nodeId) !== undefined);
    });
  }

  /** Every member meets the change at the same position with the same state: nothing changes. */
  #passOver(): undefined {
    this.#logger.error("a configuration change in the log cannot be applied; passing over it");
    this.#putInForce(ConfChange.create({ nodeId: 0n }));
    return undefined;
  }

  /** Undefined, with nothing changed, when raft finds that it does not fit: for example, it removes the last voter. */
  #putInForce(change: ConfChange | ConfChangeV2): ConfState | undefined {
    try {
      return this.#node.applyConfChange(change);
    } catch (error) {
      if (error instanceof ConfChangeError) return undefined;
      throw error;
    }
  }

  #finish(id: bigint, outcome: ConfChangeOutcome): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    waiting.done(outcome);
  }
}

const KNOWN_TYPES: ReadonlySet<ConfChangeType> = new Set(Object.values(ConfChangeType));

function decodeOr<T>(codec: Codec<T>, data: Uint8Array): T | undefined {
  try {
    return codec.decode(data);
  } catch (error) {
    if (error instanceof ProtobufError) return undefined;
    throw error;
  }
}

/** The type of a change in etcd's logs. */
export function nameOf(type: ConfChangeType): string {
  return Object.entries(ConfChangeType).find(([, value]) => value === type)?.[0] ?? `${type}`;
}

const objectionErrors: Readonly<Record<ConfChangeObjection, EtcdError>> = {
  removed: errors.memberNotFound,
  exists: errors.memberExists,
  "not-found": errors.memberNotFound,
  "url-exists": errors.peerUrlExists,
  "not-learner": errors.memberNotLearner,
  "too-many-learners": errors.tooManyLearners,
  malformed: errors.malformedConfChange,
};
