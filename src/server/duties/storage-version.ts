import { KvorumError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { compareVersions, formatVersion, minorVersion, parseVersion, type Version } from "../../base/semver.ts";
import { mustParseVersion } from "../../membership/version-rules.ts";
import { metaKeys } from "../../mvcc/backend/backend.ts";

/** The stored state cannot be migrated to a version; nothing was changed. The message is etcd's. */
class StorageVersionError extends KvorumError {
  override name = "StorageVersionError";
  readonly code = "ERR_STORAGE_VERSION";
}

/** Where the stored state records its version: a backend, or a file about to be rewritten. */
export interface MetaFields {
  get(bucket: "meta", key: Uint8Array): Uint8Array | undefined;
  put(bucket: "meta", key: Uint8Array, value: Uint8Array): void;
  delete(bucket: "meta", key: Uint8Array): void;
}

export interface StorageVersionOptions {
  /** The current backend: a received snapshot brings another. */
  readonly backend: () => MetaFields;
  readonly logger: Logger;
  /** Term of the last entry in the backend; 0 for none. Written since 3.5. */
  readonly term: () => number;
  /** The lowest etcd version that can read the log after the last snapshot; undefined when any can. */
  readonly logVersion: () => Version | undefined;
}

/**
 * The etcd version that can read the stored state. It follows the cluster version, up and down, so that after a
 * downgrade a server of the version below can take over the data directory. The only field added in 3.6 is this version
 * itself, and 3.7 added none. Source: etcd `server/storage/schema/`.
 */
export class StorageVersion {
  readonly #logger: Logger;
  readonly #term: () => number;
  readonly #logVersion: () => Version | undefined;
  readonly #backend: () => MetaFields;

  constructor(options: StorageVersionOptions) {
    this.#backend = options.backend;
    this.#logger = options.logger;
    this.#term = options.term;
    this.#logVersion = options.logVersion;
  }

  /** The recorded version: none before 3.6. */
  get stored(): Version | undefined {
    const bytes = this.#backend().get("meta", metaKeys.storageVersion);
    return bytes === undefined ? undefined : parseVersion(Buffer.from(bytes).toString("latin1"));
  }

  /** The same, or 3.5 for a state without a version that was written by 3.5 or later. */
  get detected(): Version | undefined {
    const stored = this.stored;
    if (stored !== undefined) return stored;
    return this.#term() === 0 ? undefined : V3_5;
  }

  /** Throws `StorageVersionError` when a server of `serverVersion` cannot read the state. */
  check(serverVersion: string): void {
    const current = this.detected;
    if (current !== undefined) stepsBetween(current, mustParseVersion(serverVersion));
    else {
      this.#logger.warn(
        "Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.",
      );
    }
  }

  /** Migrates the state to another version, one minor version at a time. Throws `StorageVersionError`. */
  migrate(target: Version): void {
    const current = this.detected;
    if (current === undefined) {
      throw new StorageVersionError("cannot detect storage schema version: missing term information");
    }
    const steps = stepsBetween(current, target, "cannot create migration plan: ");
    const logVersion = this.#logVersion();
    if (compareVersions(target, current) < 0 && logVersion !== undefined && compareVersions(target, logVersion) < 0) {
      throw new StorageVersionError(
        `cannot downgrade storage, WAL contains newer entries, as the target version (${formatVersion(target)}) is lower ` +
          `than the version (${formatVersion(logVersion)}) detected from WAL logs`,
      );
    }
    for (const step of steps) this.#write(step);
  }

  #write(version: Version): void {
    const text = formatVersion(version);
    if (compareVersions(version, V3_6) < 0) this.#backend().delete("meta", metaKeys.storageVersion);
    else this.#backend().put("meta", metaKeys.storageVersion, Buffer.from(text));
    this.#logger.info("updated storage version", { "new-storage-version": text });
  }
}

const V3_5 = minorVersion({ major: 3, minor: 5 });
const V3_6 = minorVersion({ major: 3, minor: 6 });
/** Versions whose changes of the stored state are known. */
const KNOWN_MINORS: ReadonlySet<number> = new Set([6, 7]);

/** The versions on the way, including the last. Throws when one of them is unknown. */
function stepsBetween(from: Version, to: Version, prefix = ""): Version[] {
  if (from.major !== to.major) {
    throw new StorageVersionError(`${prefix}changing major storage version is not supported`);
  }
  const steps: Version[] = [];
  for (let minor = from.minor; minor !== to.minor; ) {
    const up = minor < to.minor;
    const changed = up ? minor + 1 : minor;
    if (!KNOWN_MINORS.has(changed)) {
      const unknown = formatVersion(minorVersion({ major: from.major, minor: changed }));
      throw new StorageVersionError(`${prefix}version "${unknown}" is not supported`);
    }
    minor += up ? 1 : -1;
    steps.push(minorVersion({ major: from.major, minor }));
  }
  return steps;
}
