import type { Logger } from "../base/log.ts";
import type { Config } from "./config.ts";
import { ConfigError } from "./errors.ts";
import { flagSpecs } from "./flags.ts";
import type { Settings } from "./settings.ts";
import { isTls, parseUrlsByMember } from "./url.ts";

/**
 * Refuses what is valid for etcd and does not exist here yet, by name, after everything else was checked; and says so
 * when something is set that has no effect. A member must never run with less than it was asked for, silently.
 */
export function refuseUnbuilt(settings: Settings, log: Logger): void {
  for (const spec of flagSpecs) {
    const { status } = spec;
    if (status === undefined || status.state === "honoured" || !settings.isChanged(spec)) continue;
    if (status.state === "not built") refuse(`--${spec.name}`, status.reason);
    else log.warn(`--${spec.name} has no effect: ${status.reason}`);
  }
  refuseTlsUrls(settings);
  if (settings.text("auth-token").split(",")[0] === "jwt") refuse("--auth-token=jwt", "signed tokens");
  if (settings.bool("socket-reuse-port") && !canReusePort(process.versions.node)) {
    refuse("--socket-reuse-port", `sharing a port with Node ${process.versions.node}`, "Node 22.12 or later has it");
  }
}

/** What a new member may not ask for yet; a member with data ignores these flags, as in etcd. */
export function refuseUnbuiltBootstrap(config: Config): void {
  const members = parseUrlsByMember(config.initialCluster).size;
  if (members > 1) refuse(`--initial-cluster with ${members} members`, "a cluster of more than one member");
  if (config.initialClusterState === "existing") refuse("--initial-cluster-state=existing", "joining a cluster");
}

function refuse(flag: string, what: string, hint = "see docs/differences.md"): never {
  throw new ConfigError(
    "unbuilt",
    `${flag} is not supported by this version of kvorum: ${what} is not built yet, ${hint}`,
  );
}

const LISTENING = ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls"];

function refuseTlsUrls(settings: Settings): void {
  for (const flag of LISTENING) {
    const url = settings.urls(flag).find(isTls);
    if (url !== undefined) refuse(`--${flag}=${url.text}`, "TLS");
  }
}

function canReusePort(version: string): boolean {
  const [major, minor] = version.split(".").map(Number) as [number, number];
  return major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12);
}
