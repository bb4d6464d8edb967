import { KvorumError } from "../base/errors.ts";
import { formatId, type Member, memberId } from "./member.ts";

/** These members cannot form a cluster. The message is etcd's. */
export class ClusterConfigError extends KvorumError {
  override name = "ClusterConfigError";
  readonly code = "ERR_CLUSTER_CONFIG";
}

/**
 * The initial members, from the flags that all of them share: ascending by id, so that each writes the same first
 * entries into its log. Throws `ClusterConfigError` for two members with the same URLs.
 */
export function initialMembers(urlsByName: ReadonlyMap<string, readonly string[]>, token: string): Member[] {
  const members = new Map<bigint, Member>();
  for (const [name, peerUrls] of urlsByName) {
    const id = memberId(peerUrls, token);
    const member = { id, peerUrls: [...peerUrls], isLearner: false, name, clientUrls: [] };
    if (members.has(id)) throw new ClusterConfigError(`member exists with identical ID ${describeMember(member)}`);
    if (id === 0n) throw new ClusterConfigError("cannot use 0 as member id");
    members.set(id, member);
  }
  return byId([...members.values()]);
}

export function byId(members: readonly Member[]): Member[] {
  return [...members].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}

/** Throws `ClusterConfigError` when no member has this name. */
export function memberByName(members: readonly Member[], name: string): Member {
  const found = members.find((member) => member.name === name);
  if (found === undefined) {
    throw new ClusterConfigError(`couldn't find local name "${name}" in the initial cluster configuration`);
  }
  return found;
}

/** A cluster as etcd prints it in error messages. */
export function describeCluster(clusterId: bigint, members: readonly Member[]): string {
  return `{ClusterID:${formatId(clusterId)} Members:[${members.map(describeMember).join(" ")}] RemovedMemberIDs:[]}`;
}

function describeMember(member: Member): string {
  const raft = `{PeerURLs:[${member.peerUrls.join(" ")}] IsLearner:${member.isLearner}}`;
  return `&{ID:${formatId(member.id)} RaftAttributes:${raft} Attributes:{Name:${member.name} ClientURLs:[${member.clientUrls.join(" ")}]}}`;
}
