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
import { allowedDowngradeVersion, mustParseVersion } from "../../membership/version-rules.ts";
import { DowngradeInfoSetRequest } from "../../proto/membershippb.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { Empty } from "../log/operations.ts";

export interface DowngradesOptions {
  readonly logger: Logger;
  readonly cluster: Pick<Cluster, "version" | "downgrade">;
  /** Resolves when the state is as new as the leader's was at the call. Rejects with an EtcdError. */
  readonly readIndex: () => Promise<void>;
  /** Proposes it; resolves when it is applied. */
  readonly setDowngrade: (request: DowngradeInfoSetRequest) => Promise<Empty | EtcdError>;
}

/**
 * Downgrades of the cluster, by one minor version. During a downgrade the cluster version is the target's, so that
 * servers of that version can replace the members one by one; `VersionMonitor` ends it. Each method resolves to the
 * cluster version ("3.7") and rejects with an EtcdError. Source: etcd `server/etcdserver/version/version.go`.
 */
export class Downgrades {
  readonly #options: DowngradesOptions;

  constructor(options: DowngradesOptions) {
    this.#options = options;
  }

  /** Checks whether the cluster can be downgraded to `target` ("3.6" or "3.6.0"). */
  async validate(target: string): Promise<string> {
    const version = targetVersion(target);
    const shown = this.#clusterVersion();
    await this.#check(version);
    return shown;
  }

  async enable(target: string): Promise<string> {
    try {
      const version = targetVersion(target);
      await this.#check(version);
      await this.#set(DowngradeInfoSetRequest.create({ enabled: true, ver: formatVersion(version) }));
    } catch (error) {
      this.#options.logger.warn("reject downgrade request", { error: `${error}` });
      throw error;
    }
    return this.#clusterVersion();
  }

  /** As in etcd, it succeeds even when there is nothing to cancel. */
  async cancel(): Promise<string> {
    const { cluster, logger, readIndex } = this.#options;
    try {
      await readIndex();
      if (!cluster.downgrade.enabled) throw errors.noInflightDowngrade;
      await this.#set(DowngradeInfoSetRequest.create({ enabled: false }));
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
      logger.warn("failed to cancel downgrade", { error: error.message });
    }
    return this.#clusterVersion();
  }

  async #check(target: Version): Promise<void> {
    const { cluster, readIndex } = this.#options;
    await readIndex();
    if (cluster.version === undefined) throw errors.clusterVersionUnavailable;
    const allowed = allowedDowngradeVersion(mustParseVersion(cluster.version));
    if (compareVersions(target, allowed) !== 0) throw errors.invalidDowngradeTargetVersion;
    if (cluster.downgrade.enabled) throw errors.downgradeInProcess;
  }

  async #set(request: DowngradeInfoSetRequest): Promise<void> {
    const outcome = await this.#options.setDowngrade(request);
    if (outcome instanceof EtcdError) throw outcome;
  }

  #clusterVersion(): string {
    const { version } = this.#options.cluster;
    if (version === undefined) throw errors.clusterVersionUnavailable;
    return shortVersion(version);
  }
}

function targetVersion(text: string): Version {
  const version = parseVersion(text) ?? parseVersion(`${text}.0`);
  if (version === undefined) throw errors.wrongDowngradeVersionFormat;
  return minorVersion(version);
}
