import { inBackground } from "../../base/background.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import {
  compareVersions,
  formatVersion,
  minorVersion,
  parseVersion,
  shortVersion,
  type Version,
} from "../../base/semver.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId } from "../../membership/member.ts";
import {
  isValidClusterVersionChange,
  isValidDowngrade,
  MIN_CLUSTER_VERSION,
  mustParseVersion,
} from "../../membership/version-rules.ts";
import { ClusterVersionSetRequest, DowngradeInfoSetRequest } from "../../proto/membershippb.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { PeerClient } from "../contract/network.ts";
import type { Empty } from "../log/operations.ts";
import { askMemberVersions, type MemberVersions } from "./member-versions.ts";
import type { StorageVersion } from "./storage-version.ts";

export interface VersionMonitorOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly cluster: Pick<Cluster, "localId" | "members" | "version" | "downgrade" | "agreed">;
  readonly peerClient: Pick<PeerClient, "versions">;
  readonly storageVersion: StorageVersion;
  readonly serverVersion: string;
  readonly isLeader: () => boolean;
  /** Proposes it; resolves when it is applied. */
  readonly setDowngrade: (request: DowngradeInfoSetRequest) => Promise<Empty | EtcdError>;
  /** Proposes the version, if `isWanted` is still true once everything needed is known. */
  readonly setClusterVersion: (
    request: ClusterVersionSetRequest,
    payload: Uint8Array,
    isWanted: () => boolean,
  ) => Promise<Empty | EtcdError>;
  /** Interval of checks of a downgrade in progress; 0 for never. */
  readonly downgradeCheckMs: number;
}

/** Interval of version checks. Source: etcd `server/etcdserver/server.go`, monitorVersionInterval. */
const INTERVAL_MS = 4000;

/**
 * Keeps the versions consistent. On the leader: the cluster version follows the lowest server version of all members,
 * or the target of a downgrade, which ends when all members have reached it. On every member: the storage version
 * follows the cluster version. Source: etcd `server/etcdserver/version/monitor.go`.
 */
export class VersionMonitor {
  readonly #options: VersionMonitorOptions;
  readonly #logger: Logger;
  readonly #timers: Timer[] = [];
  /** A check is running; another one may be due after it. */
  #looking = false;
  #again = false;
  #stopped = false;
  #unsubscribe: () => void = () => {};

  constructor(options: VersionMonitorOptions) {
    this.#options = options;
    this.#logger = options.logger;
  }

  start(): void {
    const { clock, cluster, downgradeCheckMs } = this.#options;
    this.#unsubscribe = cluster.agreed.changed.add(() => this.updateStorageVersion());
    this.#timers.push(
      clock.every(INTERVAL_MS, () => {
        this.updateStorageVersion();
        this.look();
      }),
    );
    if (downgradeCheckMs > 0) {
      this.#timers.push(
        clock.every(downgradeCheckMs, () =>
          inBackground(this.endDowngradeIfDone(), "look after the downgrade", this.#logger),
        ),
      );
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#unsubscribe();
    for (const timer of this.#timers) timer.cancel();
  }

  /** Checks the members' versions now; called when this member has become leader, and by the timer. */
  look(): void {
    if (this.#looking) {
      this.#again = true;
      return;
    }
    if (this.#stopped || !this.#options.isLeader()) return;
    this.#looking = true;
    const done = this.#updateClusterVersion().finally(() => {
      this.#looking = false;
      if (!this.#again) return;
      this.#again = false;
      this.look();
    });
    inBackground(done, "look at the members' versions", this.#logger);
  }

  /** Migrates the stored state to the cluster version. */
  updateStorageVersion(): void {
    const { cluster, storageVersion, serverVersion } = this.#options;
    if (cluster.version === undefined || cluster.version === MIN_CLUSTER_VERSION) return;
    const target = minorVersion(mustParseVersion(cluster.version));
    const current = storageVersion.detected;
    if (current !== undefined && compareVersions(minorVersion(current), target) === 0) return;
    if (current !== undefined) {
      this.#logger.info("cluster version differs from storage version.", {
        "cluster-version": cluster.version,
        "storage-version": formatVersion(current),
      });
    }
    try {
      storageVersion.migrate(target);
    } catch (error) {
      this.#logger.error("failed to update storage version", {
        "cluster-version": cluster.version,
        error: messageOf(error),
      });
      return;
    }
    if (cluster.downgrade.enabled) {
      this.#logger.info("The server is ready to downgrade", {
        "target-version": cluster.downgrade.targetVersion,
        "server-version": serverVersion,
      });
    }
  }

  /** On the leader: ends the downgrade when all members run its target version. */
  async endDowngradeIfDone(): Promise<void> {
    const { cluster, isLeader, setDowngrade } = this.#options;
    const { enabled, targetVersion } = cluster.downgrade;
    if (!enabled || !isLeader()) return;
    if (!this.#allRun(mustParseVersion(targetVersion), await this.#askVersions())) return;
    if (this.#stopped || !isLeader()) return;
    this.#logger.info("the cluster has been downgraded", { "cluster-version": targetVersion });
    const outcome = await setDowngrade(DowngradeInfoSetRequest.create({ enabled: false }));
    if (outcome instanceof EtcdError) this.#logger.warn("failed to cancel downgrade", { error: outcome.message });
  }

  #askVersions(): Promise<MemberVersions> {
    return askMemberVersions(this.#options);
  }

  async #updateClusterVersion(): Promise<void> {
    const lowest = this.#lowestServerVersion(await this.#askVersions());
    if (this.#stopped || !this.#options.isLeader()) return;
    const next = this.#decide(lowest);
    if (next !== undefined) await this.#setClusterVersion(formatVersion(minorVersion(next)));
  }

  /** The new cluster version; undefined for no change. */
  #decide(lowest: Version | undefined): Version | undefined {
    const { version: text, downgrade } = this.#options.cluster;
    if (text === undefined) return lowest ?? mustParseVersion(MIN_CLUSTER_VERSION);
    if (lowest === undefined) return undefined;
    const version = mustParseVersion(text);
    if (!downgrade.enabled) {
      const isChange = compareVersions(version, lowest) < 0 && isValidClusterVersionChange(version, lowest);
      return isChange ? lowest : undefined;
    }
    const target = mustParseVersion(downgrade.targetVersion);
    if (compareVersions(target, version) === 0) return undefined;
    const isFromCluster = !isValidDowngrade(version, target);
    if (!isFromCluster && isValidDowngrade(lowest, target)) return target;
    const what = isFromCluster ? "cluster-version" : "minimal-server-version";
    const from = isFromCluster ? version : lowest;
    this.#logger.error(`Cannot downgrade from ${what} to downgrade-target`, {
      "downgrade-target": downgrade.targetVersion,
      [what]: formatVersion(from),
    });
    this.#logger.error("Failed to monitor cluster version", { error: "invalid downgrade target" });
    return undefined;
  }

  /** Undefined while one of them is unknown. */
  #lowestServerVersion(versions: MemberVersions): Version | undefined {
    const local = mustParseVersion(this.#options.serverVersion);
    let lowest: Version | undefined;
    for (const [id, answer] of versions) {
      if (answer === undefined) return undefined;
      const version = this.#parseServerVersion(id, answer.server);
      if (version === undefined) return undefined;
      if (compareVersions(local, version) < 0) {
        this.#logger.warn("leader found higher-versioned member", {
          "local-member-version": formatVersion(local),
          "remote-member-id": formatId(id),
          "remote-member-version": answer.server,
        });
      }
      if (lowest === undefined || compareVersions(version, lowest) < 0) lowest = version;
    }
    return lowest;
  }

  #allRun(target: Version, versions: MemberVersions): boolean {
    for (const [id, answer] of versions) {
      if (answer === undefined) return false;
      const version = this.#parseServerVersion(id, answer.server);
      if (version === undefined) return false;
      if (compareVersions(minorVersion(version), minorVersion(target)) === 0) continue;
      this.#logger.warn("remotes server has mismatching etcd version", {
        "remote-member-id": formatId(id),
        "current-server-version": formatVersion(minorVersion(version)),
        "target-version": formatVersion(minorVersion(target)),
      });
      return false;
    }
    return true;
  }

  #parseServerVersion(id: bigint, text: string): Version | undefined {
    const version = parseVersion(text);
    if (version === undefined) {
      this.#logger.warn("failed to parse server version of remote member", {
        "remote-member-id": formatId(id),
        "remote-member-version": text,
        error: `${text} is not in dotted-tri format`,
      });
    }
    return version;
  }

  async #setClusterVersion(version: string): Promise<void> {
    const { cluster, isLeader, setClusterVersion } = this.#options;
    const former = cluster.version;
    if (former === undefined) {
      this.#logger.info("setting up initial cluster version using v3 API", {
        "cluster-version": shortVersion(version),
      });
    } else {
      this.#logger.info("updating cluster version using v3 API", {
        from: shortVersion(former),
        to: shortVersion(version),
      });
    }
    const request = ClusterVersionSetRequest.create({ ver: version });
    // Two successive leaders may decide: a decision made before the other's version arrived must not undo it.
    const isWanted = (): boolean => isLeader() && cluster.version === former;
    const outcome = await setClusterVersion(request, ClusterVersionSetRequest.encode(request), isWanted);
    if (!(outcome instanceof EtcdError)) {
      this.#logger.info("cluster version is updated", { "cluster-version": shortVersion(version) });
    } else if (outcome === errors.stopped) {
      this.#logger.warn("aborting cluster version update; server is stopped", { error: outcome.message });
    } else this.#logger.warn("failed to update cluster version", { error: outcome.message });
  }
}
