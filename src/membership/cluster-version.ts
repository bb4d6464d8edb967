import type { Logger } from "../base/log.ts";
import { compareVersions, shortVersion } from "../base/semver.ts";
import { Subscribers } from "../base/subscribers.ts";
import type { Backend } from "../mvcc/backend/backend.ts";
import { formatId } from "./member.ts";
import { isValidClusterVersionChange, mustNotBeTooOld, mustParseVersion } from "./version-rules.ts";

/** A downgrade in progress; `targetVersion` is like "3.6.0", and empty without one. */
export interface DowngradeInfo {
  readonly enabled: boolean;
  readonly targetVersion: string;
}

export interface ClusterVersionOptions {
  readonly clusterId: bigint;
  readonly localId: bigint;
  readonly backend: Backend;
  readonly logger: Logger;
  /** Version of this server, like "3.7.1". */
  readonly serverVersion: string;
}

/**
 * The cluster version and the downgrade in progress, stored in the bucket `cluster` exactly as etcd stores them. Only
 * the apply loop changes them. Source: etcd `server/etcdserver/api/membership/cluster.go`, `api/capability.go`.
 */
export class ClusterVersion {
  readonly #logger: Logger;
  readonly #ids: { readonly "cluster-id": string; readonly "local-member-id": string };
  readonly #serverVersion: string;
  #backend: Backend;
  #version: string | undefined;
  #downgrade: DowngradeInfo = NO_DOWNGRADE;
  /** Former cluster versions, while this process ran. */
  readonly former = new Set<string>();
  /** The version whose capabilities are enabled. */
  #capable: string | undefined;
  /** The version was set, changed or not. */
  readonly changed = new Subscribers();

  /** Reads the state from the backend. Throws `ServerTooOldError` when this server may not be in this cluster. */
  constructor(options: ClusterVersionOptions) {
    this.#logger = options.logger;
    this.#ids = { "cluster-id": formatId(options.clusterId), "local-member-id": formatId(options.localId) };
    this.#serverVersion = options.serverVersion;
    this.#backend = options.backend;
    this.recover(options.backend);
  }

  /** "3.7.0"; undefined until the first leader has set it. */
  get version(): string | undefined {
    return this.#version;
  }

  get downgrade(): DowngradeInfo {
    return this.#downgrade;
  }

  /** Reads everything again: at start, and after a snapshot replaced the state. */
  recover(backend: Backend): void {
    this.#backend = backend;
    this.#version = textOf(backend.get("cluster", keys.version));
    this.#downgrade = decodeDowngrade(textOf(backend.get("cluster", keys.downgrade)));
    if (this.#downgrade.enabled) {
      this.#logger.info("cluster is downgrading to target version", {
        "target-cluster-version": this.#downgrade.targetVersion,
        "current-server-version": this.#serverVersion,
      });
    }
    mustNotBeTooOld(this.#serverVersion, this.#version);
    if (this.#version === undefined) return;
    this.#enableCapabilities(this.#version);
    this.#logger.info("set cluster version from store", { "cluster-version": shortVersion(this.#version) });
  }

  /** Applies the leader's decision. True for a lower version. */
  set(version: string): boolean {
    const before = this.#version;
    const change =
      before === undefined
        ? { "cluster-version": shortVersion(version) }
        : { from: shortVersion(before), to: shortVersion(version) };
    this.#logger.info(before === undefined ? "set initial cluster version" : "updated cluster version", {
      ...this.#ids,
      ...change,
    });
    this.#version = version;
    if (before !== undefined) this.former.add(before);
    this.former.delete(version);
    mustNotBeTooOld(this.#serverVersion, version);
    this.#backend.put("cluster", keys.version, Buffer.from(version));
    this.#enableCapabilities(version);
    this.changed.tell();
    return before !== undefined && compareVersions(mustParseVersion(version), mustParseVersion(before)) < 0;
  }

  setDowngrade(info: DowngradeInfo): void {
    this.#downgrade = info.enabled ? info : NO_DOWNGRADE;
    const { targetVersion, enabled } = this.#downgrade;
    const json = JSON.stringify({ "target-version": targetVersion, enabled });
    this.#backend.put("cluster", keys.downgrade, Buffer.from(json));
  }

  #enableCapabilities(version: string): void {
    const before = this.#capable;
    if (before !== undefined && !isValidClusterVersionChange(mustParseVersion(before), mustParseVersion(version)))
      return;
    this.#capable = version;
    this.#logger.info("enabled capabilities for version", { "cluster-version": shortVersion(version) });
  }
}

const NO_DOWNGRADE: DowngradeInfo = { enabled: false, targetVersion: "" };

const keys = { version: Buffer.from("clusterVersion"), downgrade: Buffer.from("downgrade") } as const;

const textOf = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");

function decodeDowngrade(json: string | undefined): DowngradeInfo {
  if (json === undefined) return NO_DOWNGRADE;
  const fields = JSON.parse(json) as { "target-version"?: unknown; enabled?: unknown };
  const targetVersion = fields["target-version"];
  return { enabled: fields.enabled === true, targetVersion: typeof targetVersion === "string" ? targetVersion : "" };
}
