import { ConfChange, ConfChangeType } from "../proto/raftpb.ts";
import { decodeMember, encodeMember, type Member } from "./member.ts";

/**
 * Membership changes in etcd's log format: the kind of change for raft, and in the context the member concerned, as
 * JSON. Source: etcd `server/etcdserver/api/membership/cluster.go`.
 */

/** Why a committed change must not take effect: decided by its position in the log, so all members decide the same. */
export type ConfChangeObjection =
  | "removed"
  | "exists"
  | "not-found"
  | "url-exists"
  | "not-learner"
  | "too-many-learners"
  /** It does not name the member, or the change. */
  | "malformed";

/** The members that a change is checked against. */
export interface KnownMembers {
  members(): readonly Member[];
  member(id: bigint): Member | undefined;
  /** Was a member once and cannot become one again. */
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

/** Changes a member's peer URLs. */
export function updateOf(id: bigint, memberId: bigint, peerUrls: readonly string[]): ConfChange {
  const member = { id: memberId, peerUrls, isLearner: false, name: "", clientUrls: [] };
  return ConfChange.create({
    id,
    type: ConfChangeType.ConfChangeUpdateNode,
    nodeId: memberId,
    context: Buffer.from(encodeMember(member)),
  });
}

/** Promotes a learner to voter. */
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

/** The objection to the change once everything before it is applied; undefined when there is none. */
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

/** Undefined for invalid JSON. */
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
