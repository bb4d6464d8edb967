import { ConfChange, ConfChangeType } from "../proto/raftpb.ts";
import { decodeMember, encodeMember, type Member } from "./member.ts";

/**
 * Changes of the membership as they stand in the log, in etcd's form: what kind of change raft is to make, and in the
 * context the member that it is about, as JSON.
 * Source: etcd `server/etcdserver/api/membership/cluster.go`.
 */

/** Why a committed change must not take effect: its place in the log decides, so all members find the same. */
export type ConfChangeObjection =
  | "removed"
  | "exists"
  | "not-found"
  | "url-exists"
  | "not-learner"
  | "too-many-learners"
  /** It does not say who the member is, or what is to become of it. */
  | "malformed";

/** What a change is held against. */
export interface KnownMembers {
  members(): readonly Member[];
  member(id: bigint): Member | undefined;
  /** It was a member once, and cannot become one again. */
  isRemoved(id: bigint): boolean;
}

export function additionOf(id: bigint, member: Member): ConfChange {
  return ConfChange.create({
    id,
    type: member.isLearner ? ConfChangeType.ConfChangeAddLearnerNode : ConfChangeType.ConfChangeAddNode,
    nodeId: member.id,
    context: Buffer.from(encodeMember(member)),
  });
}

export function removalOf(id: bigint, memberId: bigint): ConfChange {
  return ConfChange.create({ id, type: ConfChangeType.ConfChangeRemoveNode, nodeId: memberId });
}

/** A change of its peer URLs. */
export function updateOf(id: bigint, memberId: bigint, peerUrls: readonly string[]): ConfChange {
  const member = { id: memberId, peerUrls, isLearner: false, name: "", clientUrls: [] };
  return ConfChange.create({
    id,
    type: ConfChangeType.ConfChangeUpdateNode,
    nodeId: memberId,
    context: Buffer.from(encodeMember(member)),
  });
}

/** A learner becomes a voter. */
export function promotionOf(id: bigint, memberId: bigint): ConfChange {
  return ConfChange.create({
    id,
    type: ConfChangeType.ConfChangeAddNode,
    nodeId: memberId,
    context: Buffer.from(`{"id":${memberId},"peerURLs":null,"isPromote":true}`),
  });
}

export function isPromotion(change: ConfChange): boolean {
  if (change.type !== ConfChangeType.ConfChangeAddNode && change.type !== ConfChangeType.ConfChangeAddLearnerNode) {
    return false;
  }
  return (contextOf(change) as { isPromote?: unknown } | null | undefined)?.isPromote === true;
}

/** What speaks against the change, now that everything before it is applied; undefined when nothing does. */
export function objectionTo(
  change: ConfChange,
  cluster: KnownMembers,
  maxLearners: number,
): ConfChangeObjection | undefined {
  const { nodeId: id, type } = change;
  if (cluster.isRemoved(id)) return "removed";
  const known = cluster.member(id);
  switch (type) {
    case ConfChangeType.ConfChangeAddNode:
    case ConfChangeType.ConfChangeAddLearnerNode: {
      if (isPromotion(change)) {
        if (known === undefined) return "not-found";
        return known.isLearner ? undefined : "not-learner";
      }
      if (known !== undefined) return "exists";
      const member = memberIn(change);
      if (member === undefined) return "malformed";
      if (hasUrlInUse(member, cluster)) return "url-exists";
      if (!member.isLearner || type !== ConfChangeType.ConfChangeAddLearnerNode) return undefined;
      const learners = cluster.members().filter((other) => other.isLearner).length;
      return learners + 1 > maxLearners ? "too-many-learners" : undefined;
    }
    case ConfChangeType.ConfChangeRemoveNode:
      return known === undefined ? "not-found" : undefined;
    case ConfChangeType.ConfChangeUpdateNode: {
      if (known === undefined) return "not-found";
      const member = memberIn(change);
      if (member === undefined) return "malformed";
      return hasUrlInUse(member, cluster) ? "url-exists" : undefined;
    }
    default:
      return "malformed";
  }
}

/** Undefined for what is no JSON. */
function contextOf({ context }: ConfChange): unknown {
  try {
    return JSON.parse(Buffer.from(context).toString("utf8"));
  } catch {
    return undefined;
  }
}

function memberIn(change: ConfChange): Member | undefined {
  try {
    return decodeMember(change.nodeId, Buffer.from(change.context).toString("utf8"));
  } catch {
    return undefined;
  }
}

function hasUrlInUse(member: Member, cluster: KnownMembers): boolean {
  const others = cluster.members().filter((other) => other.id !== member.id);
  return others.some((other) => other.peerUrls.some((url) => member.peerUrls.includes(url)));
}
