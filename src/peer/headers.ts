/**
 * The headers that members send with each request, and the compatibility check on them. Source: etcd's rafthttp/util.go
 * and http.go.
 */

import { ETCD_VERSION } from "../base/versions.ts";
import { formatId } from "../membership/member.ts";
import type { LocalMember } from "../server/contract/network.ts";

/** The oldest cluster version that a member of this version can be in. */
const MIN_CLUSTER_VERSION = "3.0.0";
/** Assumed when the header is absent: etcd 2.0. */
const UNSAID_VERSION = "2.0.0";

export const INCOMPATIBLE_VERSION = "incompatible version";
export const CLUSTER_ID_MISMATCH = "cluster ID mismatch";

/** Headers of every request to a peer. */
export function localHeaders(local: LocalMember): Record<string, string> {
  return {
    "X-Server-From": formatId(local.id),
    "X-Server-Version": ETCD_VERSION,
    "X-Min-Cluster-Version": MIN_CLUSTER_VERSION,
    "X-Etcd-Cluster-ID": formatId(local.clusterId),
    "X-PeerURLs": local.urls.join(","),
  };
}

/** Headers by lower-case name; repeated ones joined. */
export type HeaderReader = (name: string) => string | undefined;

/** Why another member's request is refused; undefined when it is accepted. */
export interface Incompatibility {
  readonly problem: typeof INCOMPATIBLE_VERSION | typeof CLUSTER_ID_MISMATCH;
  /** For the log. */
  readonly message: string;
  readonly fields: Readonly<Record<string, string>>;
}

export function incompatibility(header: HeaderReader, local: LocalMember): Incompatibility | undefined {
  const name = header("x-server-from") ?? "";
  const version = header("x-server-version") || UNSAID_VERSION;
  const minimum = header("x-min-cluster-version") || UNSAID_VERSION;
  const fields = {
    "local-member-id": formatId(local.id),
    "local-member-cluster-id": formatId(local.clusterId),
    "local-member-server-version": ETCD_VERSION,
    "local-member-server-minimum-cluster-version": MIN_CLUSTER_VERSION,
    "remote-peer-server-name": name,
    "remote-peer-server-version": version,
    "remote-peer-server-minimum-cluster-version": minimum,
  };
  const tooLow = whoIsTooLow(version, minimum);
  if (tooLow !== undefined) {
    const error = `${tooLow} version is too low: remote[${name}]=${version}, local=${ETCD_VERSION}`;
    const message = "failed version compatibility check";
    return { problem: INCOMPATIBLE_VERSION, message, fields: { ...fields, error } };
  }
  const clusterId = header("x-etcd-cluster-id") ?? "";
  if (clusterId === formatId(local.clusterId)) return undefined;
  const message = "request cluster ID mismatch";
  return { problem: CLUSTER_ID_MISMATCH, message, fields: { ...fields, "remote-peer-cluster-id": clusterId } };
}

function whoIsTooLow(version: string, minimum: string): "remote" | "local" | undefined {
  if (!(minorOf(version) >= minorOf(MIN_CLUSTER_VERSION))) return "remote";
  return minorOf(minimum) <= minorOf(ETCD_VERSION) ? undefined : "local";
}

/** The first version with the streams used here. */
const STREAMS_SINCE = "2.1.0";

/** Whether a member with this X-Server-Version serves streams. */
export const hasStreams = (version: string | undefined): boolean =>
  minorOf(version || UNSAID_VERSION) >= minorOf(STREAMS_SINCE);

const MAJOR_WEIGHT = 1_000_000;

/** A number that orders versions by major and minor; NaN for an invalid version. */
function minorOf(version: string): number {
  const match = /^(\d{1,5})\.(\d{1,5})\.\d+(?:[-+].*)?$/.exec(version);
  return match === null ? Number.NaN : Number(match[1]) * MAJOR_WEIGHT + Number(match[2]);
}

/** An id from a header or path; undefined when invalid. */
export function parseId(text: string): bigint | undefined {
  return /^[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text}`) : undefined;
}
