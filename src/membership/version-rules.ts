import { KvorumError } from "../base/errors.ts";
import {
  compareVersions,
  formatVersion,
  minorVersion,
  parseVersion,
  shortVersion,
  type Version,
} from "../base/semver.ts";

/** The compatible versions of servers and clusters. Source: etcd `server/etcdserver/version/downgrade.go`. */

/** The lowest possible cluster version: used while not all members are known. */
export const MIN_CLUSTER_VERSION = "3.0.0";

/** The server is older than the cluster version: it must not serve. The message is etcd's. */
export class ServerTooOldError extends KvorumError {
  override name = "ServerTooOldError";
  readonly code = "ERR_SERVER_TOO_OLD";
}

/** The only version that a cluster of version `from` can be downgraded to. */
export function allowedDowngradeVersion(from: Version): Version {
  return minorVersion({ major: from.major, minor: from.minor - 1 });
}

export function isValidDowngrade(from: Version, to: Version): boolean {
  return compareVersions(to, allowedDowngradeVersion(from)) === 0;
}

/** One minor version down, or any number up, within the same major version. */
export function isValidClusterVersionChange(from: Version, to: Version): boolean {
  const before = minorVersion(from);
  const after = minorVersion(to);
  return isValidDowngrade(before, after) || (before.major === after.major && compareVersions(before, after) < 0);
}

/** Throws `ServerTooOldError` when the cluster version is above the server's. */
export function mustNotBeTooOld(serverVersion: string, clusterVersion: string | undefined): void {
  if (clusterVersion === undefined) return;
  const server = minorVersion(mustParseVersion(serverVersion));
  if (compareVersions(server, mustParseVersion(clusterVersion)) >= 0) return;
  throw new ServerTooOldError(
    `invalid downgrade; server version is lower than determined cluster version: this server is of version ` +
      `${formatVersion(server)}, the cluster of ${shortVersion(clusterVersion)}. Start a server of the cluster's version on ` +
      "this data directory, or downgrade the cluster first (etcdctl downgrade enable)",
  );
}

/** For versions that were checked before they were stored. Throws on anything else. */
export function mustParseVersion(text: string): Version {
  const version = parseVersion(text);
  if (version === undefined) throw new Error(`"${text}" is no version: it should be like 3.7.0`);
  return version;
}
