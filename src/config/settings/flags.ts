import { type FlagSection, type FlagSpec, type FlagStatus, HONOURED } from "./flag-spec.ts";
import { clusteringFlags, memberFlags } from "./flags-member.ts";
import {
  authFlags,
  featureFlags,
  loggingFlags,
  monitoringFlags,
  securityFlags,
  tracingFlags,
  unsafeFlags,
} from "./flags-other.ts";

/**
 * Every flag of `etcd --help` v3.7, in the order of the help: name, kind, default, text, and whether this build honours
 * it. The environment variable of a flag is `ETCD_` and its name in capitals with underscores.
 */
export const flagSpecs: readonly FlagSpec[] = [
  ...section("Member", memberFlags),
  ...section("Clustering", clusteringFlags),
  ...section("Security", securityFlags),
  ...section("Auth", authFlags),
  ...section("Profiling and Monitoring", monitoringFlags),
  ...section("Logging", loggingFlags),
  ...section("Distributed tracing", tracingFlags),
  ...section("Features", featureFlags),
  ...section("Unsafe feature", unsafeFlags),
];

export const flagSpecByName: ReadonlyMap<string, FlagSpec> = new Map(flagSpecs.map((spec) => [spec.name, spec]));

/** Per flag: honoured, without effect, or not built yet, with the reason. */
export const flagStatus: ReadonlyMap<string, FlagStatus> = new Map(
  flagSpecs.map((spec) => [spec.name, spec.status ?? HONOURED]),
);

export const environmentName = (flag: string): string => `ETCD_${flag.toUpperCase().replaceAll("-", "_")}`;

function section(name: FlagSection, specs: readonly Omit<FlagSpec, "section">[]): FlagSpec[] {
  return specs.map((spec) => ({ ...spec, section: name }));
}
