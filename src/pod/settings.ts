/**
 * What a pod is told: flags of `kvorum pod`, or a variable for each (`--data-dir` is `KVORUM_POD_DATA_DIR`). Who it is follows from
 * its host name, `SET-ORDINAL`, and the names of the others from that.
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import type { Flag, FlagSet } from "../base/flags.ts";
import { ParseError } from "../base/number-text.ts";
import type { Environment } from "../base/systemd.ts";
import { DeployError, type Program } from "../deploy/common/context.ts";

export interface PodSettings {
  /** `SET-ORDINAL`. */
  readonly name: string;
  readonly set: string;
  readonly ordinal: number;
  readonly namespace: string;
  readonly hostTemplate: string;
  readonly service: string;
  readonly domain: string;
  readonly listen: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly metricsPort: number;
  readonly statusPort: number;
  readonly dataDir: string;
  /** What the pod remembers beside the data. */
  readonly notesPath: string;
  readonly token: string;
  /** False where a cluster exists for certain, so that empty volumes of all pods are a loss. */
  readonly mayFound: boolean;
  /** What a new cluster begins with: flags of `kvorum restore`. */
  readonly restore: readonly string[] | undefined;
  /** The pod whose data is all that is left, by the word of a person. */
  readonly recoverFrom: string | undefined;
  readonly replicas: number | undefined;
  readonly replicasFile: string | undefined;
  readonly firstOrdinal: number;
  readonly api: "auto" | "on" | "off";
  readonly serviceAccountDir: string;
  readonly clientTls: PodTls | undefined;
  readonly peerTls: PodTls | undefined;
  readonly clientCertAuth: boolean;
  /** Shown to members by this program itself. */
  readonly ownPair: { readonly certFile: string; readonly keyFile: string } | undefined;
  readonly user: string | undefined;
  readonly passwordFile: string | undefined;
  readonly engine: Program;
  readonly engineArgs: readonly string[];
  /** `kvorum restore`. */
  readonly restorer: Program;
  readonly leaveTimeoutMs: number;
}

export interface PodTls {
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile: string | undefined;
}

const SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";
const ENV_PREFIX = "KVORUM_POD_";

const text = (name: string, value: string, usage: string): Flag => ({ name, kind: "string", value, usage });
const port = (name: string, value: number, usage: string): Flag => ({ name, kind: "uint", value, usage });

export const POD_FLAGS: readonly Flag[] = [
  text("name", "", "the pod, SET-ORDINAL; the host's name when absent"),
  text("namespace", "", "the pod's namespace; that of the service account when absent"),
  text("service", "", "the headless service; the set's name when absent"),
  text("cluster-domain", "", "the DNS domain of the Kubernetes cluster; as in /etc/resolv.conf when absent"),
  text("host-template", "{pod}.{service}.{namespace}.svc.{domain}", "how a pod is addressed, also with {ordinal}"),
  text("listen", "0.0.0.0", "the address to listen on"),
  port("client-port", 2379, "for clients"),
  port("peer-port", 2380, "for the other members"),
  port("metrics-port", 2381, "for metrics and health without TLS"),
  port("status-port", 2382, "where pods ask each other what they hold, with /livez and /readyz"),
  text("data-dir", "/var/lib/kvorum/data", "the member's data, a directory in the volume"),
  text("cluster-token", "kvorum", "the beginning of the token of a new cluster"),
  { name: "may-found", kind: "bool", value: true, usage: "found a cluster when the volumes of all pods are empty" },
  text("restore-from", "", "a snapshot that a new cluster begins with"),
  text("restore-store", "", "a store of kvorum backup that a new cluster begins with, as it is at its end"),
  text("restore-time", "", "… as it was at this time, as 2026-12-01T15:04:05Z"),
  text("restore-revision", "", "… as it was at this revision"),
  text("restore-identity", "", "the file with the keys that read it"),
  text("recover-from", "", "the pod whose data is all that is left, when the majority is lost for good"),
  port("replicas", 0, "how many pods there are to be, where nothing else tells"),
  text("replicas-file", "", "a file with the number of pods, read again each time"),
  port("first-ordinal", 0, "the ordinal of the first pod"),
  text("statefulset-api", "auto", "read the StatefulSet from Kubernetes: auto, on or off"),
  text("service-account-dir", SERVICE_ACCOUNT_DIR, "token and authority for the API of Kubernetes"),
  text("cert-file", "", "the certificate for clients"),
  text("key-file", "", "its key"),
  text("trusted-ca-file", "", "the authority of clients, and of the members as clients see them"),
  { name: "client-cert-auth", kind: "bool", value: false, usage: "ask clients for certificates" },
  text("peer-cert-file", "", "the certificate for the other members"),
  text("peer-key-file", "", "its key"),
  text("peer-trusted-ca-file", "", "the authority of the members"),
  text("client-cert-file", "", "what this program shows to members as their client; --cert-file when absent"),
  text("client-key-file", "", "its key"),
  text("user", "", "a user with the role root, where users are enabled"),
  text("password-file", "", "the file with its password"),
  text("engine", "", "another etcd to run, such as stock etcd"),
  { name: "leave-timeout", kind: "duration", value: 90_000, usage: "how long to try to leave when scaled down" },
];

/** Sets what was not given on the command line from the environment. Throws DeployError. */
export function fromEnvironment(flags: FlagSet, env: Environment): void {
  for (const { name } of POD_FLAGS) {
    const variable = ENV_PREFIX + name.replaceAll("-", "_").toUpperCase();
    const value = env[variable];
    if (value === undefined || value === "" || flags.changed(name)) continue;
    try {
      flags.assign(name, value);
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      throw new DeployError(`${variable}=${value}: ${error.message}`);
    }
  }
}

/** Throws DeployError. */
export function podSettings(flags: FlagSet, self: Program, engineArgs: readonly string[]): PodSettings {
  const given = (name: string) => flags.string(name) || undefined;
  const name = given("name") ?? hostname();
  const [, set, number] = /^(.+)-(\d+)$/.exec(name) ?? [];
  if (set === undefined)
    throw new DeployError(`the host's name ${name} is no pod's of a StatefulSet (SET-ORDINAL): give --name`);
  const serviceAccountDir = flags.string("service-account-dir");
  const dataDir = flags.string("data-dir");
  const clientTls = pairOf(flags, "");
  const own = pairOf(flags, "client-", "cert-file", "key-file") ?? clientTls;
  return {
    name,
    set,
    ordinal: Number(number),
    namespace: given("namespace") ?? fileText(join(serviceAccountDir, "namespace")) ?? "default",
    hostTemplate: flags.string("host-template"),
    service: given("service") ?? set,
    domain: given("cluster-domain") ?? clusterDomain(fileText("/etc/resolv.conf") ?? ""),
    listen: flags.string("listen"),
    clientPort: flags.number("client-port"),
    peerPort: flags.number("peer-port"),
    metricsPort: flags.number("metrics-port"),
    statusPort: flags.number("status-port"),
    dataDir,
    notesPath: join(dirname(dataDir), "kvorum-pod.json"),
    token: flags.string("cluster-token"),
    mayFound: flags.bool("may-found"),
    restore: restoreFlags(flags),
    recoverFrom: given("recover-from"),
    replicas: flags.number("replicas") || undefined,
    replicasFile: given("replicas-file"),
    firstOrdinal: flags.number("first-ordinal"),
    api: apiUse(flags.string("statefulset-api")),
    serviceAccountDir,
    clientTls,
    peerTls: pairOf(flags, "peer-"),
    clientCertAuth: flags.bool("client-cert-auth"),
    ownPair: own,
    user: given("user"),
    passwordFile: given("password-file"),
    engine: engineOf(given("engine"), self),
    engineArgs,
    restorer: { file: self.file, args: [...self.args, "restore"] },
    leaveTimeoutMs: flags.number("leave-timeout"),
  };
}

/** Throws DeployError when only one of the two files is named. */
function pairOf(flags: FlagSet, prefix: string, cert = "cert-file", key = "key-file"): PodTls | undefined {
  const [certFile, keyFile] = [flags.string(`${prefix}${cert}`), flags.string(`${prefix}${key}`)];
  if ((certFile === "") !== (keyFile === ""))
    throw new DeployError(`--${prefix}${cert} and --${prefix}${key} belong together: give both`);
  if (certFile === "") return undefined;
  const ca = prefix === "client-" ? "" : flags.string(`${prefix}trusted-ca-file`);
  return { certFile, keyFile, caFile: ca || undefined };
}

/** Throws DeployError when they do not go together. */
function restoreFlags(flags: FlagSet): readonly string[] | undefined {
  const [file, store] = [flags.string("restore-from"), flags.string("restore-store")];
  const more = ["time", "revision", "identity"].flatMap((name) => {
    const value = flags.string(`restore-${name}`);
    return value === "" ? [] : [`--${name}=${value}`];
  });
  if (file !== "" && store !== "")
    throw new DeployError("--restore-from and --restore-store are two backups: give one");
  if (store !== "") return [`--store=${store}`, ...more];
  if (more.length > 0)
    throw new DeployError("--restore-time, --restore-revision and --restore-identity need --restore-store");
  return file === "" ? undefined : [`--snapshot=${file}`];
}

function apiUse(value: string): "auto" | "on" | "off" {
  if (value === "auto" || value === "on" || value === "off") return value;
  throw new DeployError(`--statefulset-api is auto, on or off, not ${value}`);
}

const engineOf = (path: string | undefined, self: Program): Program =>
  path === undefined ? { file: self.file, args: [...self.args, "server"] } : { file: path, args: [] };

function fileText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}

/** Kubernetes gives pods a search list with `svc.DOMAIN`. */
function clusterDomain(resolvConf: string): string {
  const [, domain] = /^search\s.*?\bsvc\.([^\s]+)/m.exec(resolvConf) ?? [];
  return domain ?? "cluster.local";
}
