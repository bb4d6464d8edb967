/** A member's settings from an inventory, and the three ways to write them that etcd reads. */
import { stringify } from "yaml";
import type { Settings } from "../common/settings.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";

/** Where a member's process finds its certificates. */
export interface CertificatePaths {
  readonly ca: string;
  readonly server: { readonly cert: string; readonly key: string };
  readonly peer: { readonly cert: string; readonly key: string };
}

export interface Place {
  /** What the member listens on. */
  readonly listen: readonly string[];
  /** How others reach a member. */
  readonly hostOf: (member: Member) => string;
  readonly certificates: CertificatePaths;
  readonly dataDir: string;
  readonly walDir: string | undefined;
  /** The cluster is founded by this start, which is what the files for a first start say. */
  readonly isFounding?: boolean;
  /** `initial-cluster`, where it is not the inventory's. */
  readonly joining?: string;
  readonly isAlone?: boolean;
}

export function memberSettings(inventory: Inventory, member: Member, place: Place): Settings {
  const { clientPort, peerPort, members } = inventory;
  const { ca, server, peer } = place.certificates;
  const urlOf = (host: string, port: number) => `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  const peerUrl = (each: Member) => urlOf(place.hostOf(each), peerPort);
  return new Map([
    ["name", member.name],
    ["data-dir", place.dataDir],
    ...(place.walDir === undefined ? [] : ([["wal-dir", place.walDir]] as const)),
    ["listen-peer-urls", urlOf(place.listen[0]!, peerPort)],
    ["initial-advertise-peer-urls", peerUrl(member)],
    ["listen-client-urls", place.listen.map((host) => urlOf(host, clientPort)).join(",")],
    ["advertise-client-urls", urlOf(place.hostOf(member), clientPort)],
    ["initial-cluster-token", inventory.token],
    ["initial-cluster", place.joining ?? members.map((each) => `${each.name}=${peerUrl(each)}`).join(",")],
    ["initial-cluster-state", place.isFounding === true ? "new" : "existing"],
    ...(place.isAlone === true ? ([["force-new-cluster", "true"]] as const) : []),
    ["cert-file", server.cert],
    ["key-file", server.key],
    ["trusted-ca-file", ca],
    ["client-cert-auth", "true"],
    ["peer-cert-file", peer.cert],
    ["peer-key-file", peer.key],
    ["peer-trusted-ca-file", ca],
    ["peer-client-cert-auth", "true"],
    ...inventory.tuning,
  ]);
}

/** `ETCD_NAME="m1"`, one a line. Source: etcd's flags package: the name in capitals, hyphens become underscores. */
export const asEnvironment = (settings: Settings): string =>
  [...settings].map(([name, value]) => `ETCD_${name.toUpperCase().replaceAll("-", "_")}="${value}"\n`).join("");

const SECTIONS: readonly (readonly [RegExp, string])[] = [
  [/^peer-(cert-file|key-file|trusted-ca-file)$/, "peer-transport-security"],
  [/^peer-(client-cert-auth)$/, "peer-transport-security"],
  [/^(cert-file|key-file|trusted-ca-file|client-cert-auth)$/, "client-transport-security"],
];
const NUMBERS = new Set([
  "heartbeat-interval",
  "election-timeout",
  "quota-backend-bytes",
  "max-request-bytes",
  "snapshot-count",
]);

/** etcd's `conf.yml`, with the TLS settings in their sections. */
export function asConfFile(settings: Settings): string {
  const file: Record<string, unknown> = {};
  const sections: Record<string, Record<string, unknown>> = {};
  for (const [name, value] of settings) {
    const typed = value === "true" ? true : NUMBERS.has(name) ? Number(value) : value;
    const [pattern, section] = SECTIONS.find(([each]) => each.test(name)) ?? [];
    if (pattern === undefined || section === undefined) file[name] = typed;
    else (sections[section] ??= {})[pattern.exec(name)![1]!] = typed;
  }
  return stringify({ ...file, ...sections }, { lineWidth: 0 });
}
