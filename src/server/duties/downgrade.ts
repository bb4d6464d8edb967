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
  /** Resolves to null when the state is as new as the leader's was at the call, or to the error. */
  readonly readIndex: () => Promise<EtcdError | null>;
  /** Proposes it; resolves when it is applied. */
  readonly setDowngrade: (request: DowngradeInfoSetRequest) => Promise<Empty | EtcdError>;
}

/**
 * Downgrades of the cluster, by one minor version. During a downgrade the cluster version is the target's, so that
 * servers of that version can replace the members one by one; `VersionMonitor` ends it. Each method resolves to the
 * cluster version ("3.7"), or to the error. Source: etcd `server/etcdserver/version/version.go`.
 */
export class Downgrades {
  readonly #options: DowngradesOptions;

  constructor(options: DowngradesOptions) {
    this.#options = options;
  }

  /** Checks whether the cluster can be downgraded to `target` ("3.6" or "3.6.0"). */
  async validate(target: string): Promise<string | EtcdError> {
    const version = parseTarget(target);
    if (version === undefined) return errors.wrongDowngradeVersionFormat;
    const shown = this.#clusterVersion();
    if (shown instanceof EtcdError) return shown;
    return (await this.#objectionTo(version)) ?? shown;
  }

  async enable(target: string): Promise<string | EtcdError> {
    const error = await this.#begin(target);
    if (error === null) return this.#clusterVersion();
    this.#options.logger.warn("reject downgrade request", { error: error.message });
    return error;
  }

  /** As in etcd, it succeeds even when there is nothing to cancel. */
  async cancel(): Promise<string | EtcdError> {
    const error = await this.#end();
    if (error !== null) this.#options.logger.warn("failed to cancel downgrade", { error: error.message });
    return this.#clusterVersion();
  }

  async #begin(target: string): Promise<EtcdError | null> {
    const version = parseTarget(target);
    if (version === undefined) return errors.wrongDowngradeVersionFormat;
    const objection = await this.#objectionTo(version);
    if (objection !== null) return objection;
    return this.#set(DowngradeInfoSetRequest.create({ enabled: true, ver: formatVersion(version) }));
  }

  async #end(): Promise<EtcdError | null> {
    const { cluster, readIndex } = this.#options;
    const error = await readIndex();
    if (error !== null) return error;
    if (!cluster.downgrade.enabled) return errors.noInflightDowngrade;
    return this.#set(DowngradeInfoSetRequest.create({ enabled: false }));
  }

  async #objectionTo(target: Version): Promise<EtcdError | null> {
    const { cluster, readIndex } = this.#options;
    const error = await readIndex();
    if (error !== null) return error;
    if (cluster.version === undefined) return errors.clusterVersionUnavailable;
    const allowed = allowedDowngradeVersion(mustParseVersion(cluster.version));
    if (compareVersions(target, allowed) !== 0) return errors.invalidDowngradeTargetVersion;
    return cluster.downgrade.enabled ? errors.downgradeInProcess : null;
  }

  async #set(request: DowngradeInfoSetRequest): Promise<EtcdError | null> {
    const outcome = await this.#options.setDowngrade(request);
    return outcome instanceof EtcdError ? outcome : null;
  }

  #clusterVersion(): string | EtcdError {
    const { version } = this.#options.cluster;
    return version === undefined ? errors.clusterVersionUnavailable : shortVersion(version);
  }
}

function parseTarget(text: string): Version | undefined {
  const version = parseVersion(text) ?? parseVersion(`${text}.0`);
  return version === undefined ? undefined : minorVersion(version);
}
