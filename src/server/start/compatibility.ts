import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { formatId, type Member } from "../../membership/member.ts";
import type { PeerClient } from "../contract/network.ts";

/** Oldest cluster version that a member may join. Source: etcd `api/version/version.go`. */
const CLUSTER_VERSION_MIN = [3, 0] as const;

type Version = readonly [major: number, minor: number];

/**
 * Whether this version may join the running cluster of these members: at least one reports its cluster version, and no
 * cluster version is out of range. During a downgrade, only a member of the version below may join.
 *
 * Whether a downgrade is in progress is only known with a quorum, and a cluster that grows from one to two by this very
 * member has none until it is there: after `downgradeMs` the answer counts as no, as in etcd after seven seconds.
 */
export async function isCompatibleWithCluster(options: {
  readonly members: readonly Member[];
  readonly localId: bigint;
  readonly peerClient: PeerClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly downgradeMs: number;
  readonly serverVersion: string;
}): Promise<boolean> {
  const { members, localId, peerClient, clock, logger } = options;
  const others = members.filter(({ id }) => id !== localId).map(({ id, peerUrls }) => ({ id, urls: peerUrls }));
  let [least, most]: [Version, Version] = [CLUSTER_VERSION_MIN, parse(options.serverVersion)!];
  const [versions, downgrades] = await Promise.all([
    Promise.allSettled(others.map((other) => peerClient.versions(other))),
    within(clock, options.downgradeMs, isDowngrading()),
  ]);
  if (downgrades) {
    most = [most[0], most[1] + 1];
    least = most;
  }
  let known = false;
  for (const [i, outcome] of versions.entries()) {
    const id = formatId(others[i]!.id);
    if (outcome.status === "rejected") {
      logger.warn("failed to get version", { "remote-member-id": id, error: outcome.reason });
      continue;
    }
    const { cluster } = outcome.value;
    const fields = { "remote-member-id": id, "remote-member-cluster-version": cluster };
    const version = parse(cluster);
    if (version === undefined) {
      logger.warn("failed to parse cluster version of remote member", fields);
      continue;
    }
    if (isLess(version, least)) {
      const limit = { "minimum-cluster-version-supported": print(least) };
      logger.warn("cluster version of remote member is not compatible; too low", { ...fields, ...limit });
      return false;
    }
    if (isLess(most, version)) {
      const limit = { "maximum-cluster-version-supported": print(most) };
      logger.warn("cluster version of remote member is not compatible; too high", { ...fields, ...limit });
      return false;
    }
    known = true;
  }
  return known;

  async function isDowngrading(): Promise<boolean> {
    for (const other of others) {
      try {
        return await peerClient.downgradeEnabled(other);
      } catch (error) {
        logger.warn("failed to get downgrade enabled status", { "remote-member-id": formatId(other.id), error });
      }
    }
    return false;
  }
}

/** The answer, or false when there is none in time. */
function within(clock: Clock, ms: number, answer: Promise<boolean>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = clock.after(ms, () => resolve(false));
    const done = (value: boolean): void => {
      timer.cancel();
      resolve(value);
    };
    answer.then(done, () => done(false));
  });
}

function parse(text: string): Version | undefined {
  const match = /^(\d+)\.(\d+)\.\d+/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

const isLess = (a: Version, b: Version): boolean => a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
const print = ([major, minor]: Version): string => `${major}.${minor}.0`;
