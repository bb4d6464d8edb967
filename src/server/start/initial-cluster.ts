import { ETCD_VERSION } from "../../base/versions.ts";
import { RESOLVE_GIVE_UP_MS, urlDifference } from "../../config/machine/url-equality.ts";
import { formatUrlsByMember, parseUrls } from "../../config/values/url.ts";
import { byId, ClusterConfigError, describeCluster, initialMembers, memberByName } from "../../membership/initial.ts";
import { clusterId as clusterIdOf, formatId, type Member } from "../../membership/member.ts";
import type { PeerClient, RemoteCluster } from "../contract/network.ts";
import type { BootstrapOptions } from "../contract/options.ts";
import { isCompatibleWithCluster } from "./compatibility.ts";
import { adviceToBeginAnew } from "./lost-log.ts";

/** Source of the timeouts: etcd `server/config/config.go` and `server/etcdserver/cluster_util.go`. */
const ASK_BEFORE_FOUNDING_MS = 1000;
const ASK_BEFORE_JOINING_MS = 10_000;

/** What of a member's options decides how it begins. */
export type InitialClusterOptions = Pick<
  BootstrapOptions,
  | "name"
  | "dataDir"
  | "initialCluster"
  | "initialClusterToken"
  | "discover"
  | "maxLearners"
  | "electionTicks"
  | "tickMs"
  | "serverVersion"
  | "clock"
  | "logger"
>;

/** What a member without data determines before it writes anything. Members are ascending by id. */
export interface InitialCluster {
  readonly clusterId: bigint;
  readonly local: Member;
  /** The local member and those it communicates with from the start. */
  readonly members: readonly Member[];
  /** Members of the cluster it joins, as known to that cluster; empty for a new cluster. */
  readonly remotes: readonly Member[];
}

/**
 * The cluster that a new member forms with the others, by flags or by discovery. All of them compute the same ids.
 * Rejects with etcd's text when the cluster is already running and knows this member as started: it lost its data.
 */
export async function foundCluster(options: InitialClusterOptions, peerClient: PeerClient): Promise<InitialCluster> {
  const { name, logger, discover } = options;
  let members = initialMembers(options.initialCluster, options.initialClusterToken);
  const { id } = memberByName(members, name);
  const remote = await askCluster(othersUrls(members, name), peerClient, ASK_BEFORE_FOUNDING_MS);
  const known = remote?.members.find((member) => member.id === id);
  if (known !== undefined && known.clientUrls.length > 0) {
    throw new ClusterConfigError(
      `member ${formatId(id)} has already been bootstrapped: its cluster runs and knows it, but --data-dir=${options.dataDir} holds no data. ` +
        `If the data lies elsewhere, give that --data-dir. If it is lost, ${adviceToBeginAnew(id, options.dataDir)}`,
    );
  }
  if (discover !== undefined) {
    logger.info("Bootstrapping cluster using v3 discovery.");
    const found = await discover(id, formatUrlsByMember(options.initialCluster));
    members = initialMembers(found, options.initialClusterToken);
    if (memberByName(members, name).id !== id) {
      throw new ClusterConfigError(
        `another member is registered under the name "${name}" too: give each member its own --name, and take a new discovery token`,
      );
    }
  }
  return {
    clusterId: clusterIdOf(members.map((member) => member.id)),
    local: memberByName(members, name),
    members,
    remotes: [],
  };
}

/**
 * The running cluster that a new member joins. It was added before (`etcdctl member add`), with its peer URLs in
 * `--initial-cluster`. Rejects with etcd's text on a mismatch, or when no member can be asked.
 */
export async function joinCluster(options: InitialClusterOptions, peerClient: PeerClient): Promise<InitialCluster> {
  const { name, logger } = options;
  const given = initialMembers(options.initialCluster, options.initialClusterToken);
  const urls = othersUrls(given, name);
  const failures: string[] = [];
  const remote = await askCluster(urls, peerClient, ASK_BEFORE_JOINING_MS, (url, error) => {
    failures.push(`${url}: ${error.message}`);
    logger.warn("failed to get cluster response", { address: `${url}/members`, error });
  });
  if (remote === undefined) {
    throw new ClusterConfigError(
      `cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs (${failures.join("; ") || "--initial-cluster names no other member"}). ` +
        "Check that one of these members runs, and that this machine reaches its peer port",
    );
  }
  if (remote.members.length === 0) {
    throw new ClusterConfigError(
      "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given URLs",
    );
  }
  const members = await assignIds(given, remote, options);
  const local = memberByName(members, name);
  checkNotStartedBefore(local.id, remote.members, options.dataDir);
  const { clock, electionTicks, tickMs } = options;
  const downgradeMs = 2 * electionTicks * tickMs;
  const { serverVersion = ETCD_VERSION } = options;
  const joining = { members, localId: local.id, peerClient, clock, logger, downgradeMs, serverVersion };
  if (!(await isCompatibleWithCluster(joining))) {
    throw new ClusterConfigError("incompatible with current running cluster");
  }
  checkLearnerCount(remote.members, options.maxLearners);
  return { clusterId: remote.clusterId, local, members, remotes: byId(remote.members) };
}

/**
 * A member publishes its client URLs when it starts, so a member with known client URLs has acknowledged entries, which
 * the others rely on. Without them it must not return under its old id.
 */
function checkNotStartedBefore(id: bigint, members: readonly Member[], dataDir: string): void {
  const known = members.find((member) => member.id === id);
  if (known === undefined || known.clientUrls.length === 0) return;
  throw new ClusterConfigError(
    `member ${formatId(id)} (${known.name}) has run in this cluster before, but --data-dir=${dataDir} holds no data of it. ` +
      `If the data lies elsewhere, give that --data-dir. If it is lost, ${adviceToBeginAnew(id, dataDir)}`,
  );
}

/** Throws when a cluster has more learners than this member allows. */
export function checkLearnerCount(members: readonly Member[], maxLearners: number): void {
  const learners = members.filter((member) => member.isLearner).length;
  if (learners > maxLearners) {
    throw new ClusterConfigError(
      `membership: too many learner members in cluster: it has ${learners}, and --max-learners is ${maxLearners}`,
    );
  }
}

/** The first answer from the URLs, in order. */
async function askCluster(
  urls: readonly string[],
  peerClient: PeerClient,
  timeoutMs: number,
  onFailure?: (url: string, error: Error) => void,
): Promise<RemoteCluster | undefined> {
  for (const url of urls) {
    try {
      return await peerClient.members(url, timeoutMs);
    } catch (error) {
      onFailure?.(url, error as Error);
    }
  }
  return undefined;
}

/** The others' peer URLs, sorted. */
function othersUrls(members: readonly Member[], name: string): string[] {
  return members.flatMap((member) => (member.name === name ? [] : member.peerUrls)).sort();
}

/** The flag's members with the ids assigned by the running cluster, matched by URLs. */
async function assignIds(
  given: readonly Member[],
  remote: RemoteCluster,
  options: InitialClusterOptions,
): Promise<readonly Member[]> {
  const fail = (why: string): never => {
    throw new ClusterConfigError(
      `error validating peerURLs ${describeCluster(remote.clusterId, remote.members)}: ${why}`,
    );
  };
  if (given.length !== remote.members.length) {
    fail(
      `member count is unequal (--initial-cluster has ${given.length}, the cluster ${remote.members.length}: add this member ` +
        "with 'etcdctl member add' first, and use the --initial-cluster that it prints)",
    );
  }
  const world = { clock: options.clock, log: options.logger };
  const deadlineMs = options.clock.nowMs() + RESOLVE_GIVE_UP_MS;
  const members: Member[] = [];
  for (const { id, peerUrls } of byId(remote.members)) {
    const urls = parseUrls(peerUrls.join(","));
    let difference: string | undefined = "";
    for (const member of given) {
      difference = await urlDifference(urls, parseUrls(member.peerUrls.join(",")), world, deadlineMs);
      if (difference !== undefined) continue;
      members.push({ ...member, id });
      break;
    }
    if (difference !== undefined) {
      fail(
        `PeerURLs: no match found for existing member (${formatId(id)}, [${peerUrls.join(" ")}]), last resolver error (${difference})`,
      );
    }
  }
  return byId(members);
}
