/**
 * Where local clusters are: one directory each below the home of all, with what was decided when it was made
 * (`cluster.json`), its certificates and its members. A lock makes commands on one cluster take turns.
 */
import { readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { codeOf } from "../../base/errors.ts";
import { systemText } from "../../base/system-error.ts";
import { type Context, DeployError } from "../common/context.ts";
import { readText, writeWhole } from "../common/files.ts";
import { lockBeside } from "../common/lock.ts";

export interface LocalMember {
  readonly name: string;
  readonly clientPort: number;
  readonly peerPort: number;
}

export interface LocalCluster {
  readonly name: string;
  readonly token: string;
  readonly members: readonly LocalMember[];
  /** "kvorum", or the path of a stock etcd. */
  readonly engine: string;
  readonly isSecure: boolean;
}

export const OUR_ENGINE = "kvorum";

export const homeOf = ({ env, cwd }: Pick<Context, "env" | "cwd">): string =>
  env["KVORUM_HOME"]
    ? resolve(cwd, env["KVORUM_HOME"])
    : join(env["XDG_STATE_HOME"] || join(env["HOME"] || homedir(), ".local", "state"), "kvorum");

export const clusterDir = (home: string, name: string): string => join(home, name);
export const pkiDir = (dir: string): string => join(dir, "pki");
export const memberDir = (dir: string, member: string): string => join(dir, "members", member);
export const logPath = (dir: string, member: string): string => join(memberDir(dir, member), "log");
const statePath = (dir: string): string => join(dir, "cluster.json");

export const clientUrl = ({ isSecure }: LocalCluster, { clientPort }: LocalMember): string =>
  `${isSecure ? "https" : "http"}://127.0.0.1:${clientPort}`;

export function checkClusterName(name: string): string {
  if (/^[A-Za-z0-9][\w.-]{0,62}$/.test(name)) return name;
  throw new DeployError(`the name of a cluster has letters, digits and . _ - only, not ${JSON.stringify(name)}`);
}

export function writeCluster(dir: string, cluster: LocalCluster): void {
  writeWhole(statePath(dir), `${JSON.stringify(cluster, null, 2)}\n`);
}

/** Undefined when there is none. Throws DeployError when its file is damaged. */
export function readCluster(dir: string): LocalCluster | undefined {
  const text = readText(statePath(dir));
  if (text === undefined) return undefined;
  try {
    const cluster: LocalCluster = JSON.parse(text);
    const isComplete = cluster.members.every((member) => member.name && member.clientPort && member.peerPort);
    if (isComplete && cluster.name && cluster.token && cluster.engine) return cluster;
  } catch {
    // Told below.
  }
  throw new DeployError(`${statePath(dir)} is damaged: move ${dir} away to begin again`);
}

/** Names of the clusters, sorted. */
export function clusterNames(home: string): string[] {
  try {
    return readdirSync(home)
      .filter((name) => readText(statePath(clusterDir(home, name))) !== undefined)
      .sort();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw new DeployError(systemText(error));
  }
}

/** Runs `work` while no other command works on the cluster. */
export async function withLock<T>(dir: string, work: () => Promise<T>): Promise<T> {
  const lock = lockBeside(dir);
  try {
    return await work();
  } finally {
    lock.release();
  }
}
