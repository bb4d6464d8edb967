/**
 * Checks the cluster version and the downgrade in progress: both are equal on all members that have applied the same
 * entries; the version decreases only by a downgrade, and is never above that of a member's server.
 */
import { compareVersions, minorVersion } from "../../src/base/semver.ts";
import { mustParseVersion } from "../../src/membership/version-rules.ts";
import type { Running, SimMachine } from "./machine.ts";

export class Versions {
  readonly #found: (message: string) => void;
  /** By applied index, as of the first member. */
  readonly #known = new Map<number, string>();
  /** Of all downgrades so far. */
  readonly #targets = new Set<string>();
  readonly #seen = new WeakMap<Running, { readonly applied: number; readonly version: string | undefined }>();

  constructor(found: (message: string) => void) {
    this.#found = found;
  }

  /** Observes a member from start to end: a step may apply several changes. */
  observe({ name }: SimMachine, { server: { cluster } }: Running): void {
    const { agreed } = cluster;
    const set = agreed.set.bind(agreed);
    const setDowngrade = agreed.setDowngrade.bind(agreed);
    agreed.setDowngrade = (info) => {
      if (info.enabled) this.#targets.add(info.targetVersion);
      setDowngrade(info);
    };
    agreed.set = (version) => {
      const before = agreed.version;
      const goesBack = set(version);
      // A leader may have proposed it before the end of the downgrade got into the log.
      if (goesBack && !this.#targets.has(version))
        this.#found(`${name} went from cluster version ${before} back to ${version} without a downgrade`);
      return goesBack;
    };
  }

  step(machines: readonly SimMachine[]): void {
    for (const { name, running } of machines) {
      if (running === undefined) continue;
      const { replication, cluster, serverVersion } = running.server;
      const { appliedIndex: applied } = replication;
      const before = this.#seen.get(running);
      const { version, downgrade } = cluster;
      if (before?.applied === applied && before.version === version) continue;
      this.#seen.set(running, { applied, version });
      const state = `version ${version ?? "unknown"}${downgrade.enabled ? `, going down to ${downgrade.targetVersion}` : ""}`;
      const known = this.#known.get(applied);
      if (known === undefined) this.#known.set(applied, state);
      else if (known !== state) this.#found(`${name} has ${state} at index ${applied}, where another had ${known}`);
      if (version === undefined) continue;
      const now = mustParseVersion(version);
      if (compareVersions(now, minorVersion(mustParseVersion(serverVersion))) > 0)
        this.#found(`${name} runs ${serverVersion} in a cluster of version ${version}`);
    }
  }

  /** What is wrong with the versions of a cluster at rest; undefined when nothing is. */
  unsettled(machines: readonly SimMachine[]): string | undefined {
    for (const { name, running } of machines) {
      if (running === undefined) return `${name} does not run`;
      const { cluster, storageVersion } = running.server;
      if (cluster.downgrade.enabled) return `${name} still goes down to ${cluster.downgrade.targetVersion}`;
      const lowest = machines
        .map((machine) => minorVersion(mustParseVersion(machine.running?.server.serverVersion ?? "0.0.0")))
        .reduce((a, b) => (compareVersions(a, b) < 0 ? a : b));
      const expected = `${lowest.major}.${lowest.minor}.0`;
      if (cluster.version !== expected) return `${name} has cluster version ${cluster.version} instead of ${expected}`;
      if (storageVersion !== expected) return `${name} has storage version ${storageVersion} instead of ${expected}`;
    }
    return undefined;
  }
}
