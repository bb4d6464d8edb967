/** The rows that the simple and the table format share. */
import { humanBytes } from "../../base/table.ts";
import type { MemberListResponse } from "../../proto/etcdserverpb.ts";
import type { EndpointHashKv, EndpointHealth, EndpointStatus } from "./shown.ts";

export const MEMBER_HEADINGS = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];

export function memberRows({ members }: MemberListResponse): string[][] {
  return members.map((member) => [
    member.id.toString(16),
    member.name === "" ? "unstarted" : "started",
    member.name,
    member.peerUrls.join(","),
    member.clientUrls.join(","),
    String(member.isLearner),
  ]);
}

export const HEALTH_HEADINGS = ["endpoint", "health", "took", "error"];

export function healthRows(list: readonly EndpointHealth[]): string[][] {
  return list.map(({ endpoint, health, took, error }) => [endpoint, String(health), took, error]);
}

export const STATUS_HEADINGS = [
  "endpoint",
  "ID",
  "version",
  "storage version",
  "db size",
  "in use",
  "percentage not in use",
  "quota",
  "is leader",
  "is learner",
  "raft term",
  "raft index",
  "raft applied index",
  "errors",
  "downgrade target version",
  "downgrade enabled",
];

export function statusRows(list: readonly EndpointStatus[]): string[][] {
  return list.map(({ endpoint, response }) => [
    endpoint,
    (response.header?.memberId ?? 0n).toString(16),
    response.version,
    response.storageVersion,
    humanBytes(response.dbSize),
    humanBytes(response.dbSizeInUse),
    `${response.dbSize === 0 ? 0 : 100 - Math.trunc((response.dbSizeInUse * 100) / response.dbSize)}%`,
    humanBytes(response.dbSizeQuota),
    String(response.leader === (response.header?.memberId ?? 0n)),
    String(response.isLearner),
    String(response.raftTerm),
    String(response.raftIndex),
    String(response.raftAppliedIndex),
    response.errors.join(", "),
    response.downgradeInfo?.targetVersion ?? "",
    String(response.downgradeInfo?.enabled ?? false),
  ]);
}

export const HASH_HEADINGS = ["endpoint", "hash", "hash_revision"];

export function hashRows(list: readonly EndpointHashKv[]): string[][] {
  return list.map(({ endpoint, response }) => [endpoint, String(response.hash), String(response.hashRevision)]);
}
