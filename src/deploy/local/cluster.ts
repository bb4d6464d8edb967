/**
 * A cluster on this machine: made, started, looked at and stopped. Every step looks first at what is there, so a command
 * that was interrupted is simply repeated.
 */
import { rmSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { messageOf } from "../../base/errors.ts";
import type { TlsOptions } from "../../client/raw.ts";
import { type Context, DeployError, type Program } from "../common/context.ts";
import { readRequired } from "../common/files.ts";
import type { Look } from "../common/look.ts";
import { asFlags } from "../common/settings.ts";
import { authorityPair, clientPair, peerPair, serverPair } from "../pki/layout.ts";
import { makeSet } from "../pki/set.ts";
import { clientUrl, type LocalCluster, type LocalMember, OUR_ENGINE, pkiDir } from "./home.ts";
import { dataDir, lastWords, pause, recordedPid, runningPid, startMember, stopMember } from "./process.ts";

/** The user of the client certificate. */
const CLIENT = "root";
const NAMES = ["127.0.0.1", "localhost", "::1"];
const HEALTHY_MS = 60_000;
const RECORDED_MS = 10_000;
const ATTEMPT_MS = 1_000;
const RETRY_MS = 25;
const GRACE_MS = 15_000;

export async function makeCertificates(context: Context, dir: string, cluster: LocalCluster): Promise<void> {
  if (!cluster.isSecure) return;
  const now = { nowMs: context.clock.wallMs(), random: context.random };
  await makeSet(
    {
      dir: pkiDir(dir),
      members: new Map(cluster.members.map(({ name }) => [name, NAMES])),
      clients: [CLIENT],
      isShared: false,
      algorithm: "ecdsa-p256",
      days: 365,
      authorityDays: 3650,
      renewDays: 30,
      clusterName: cluster.name,
      signsElsewhere: false,
    },
    now,
  );
}

/** Starts the members that do not run, and resolves with their names. */
export async function startMembers(context: Context, dir: string, cluster: LocalCluster): Promise<string[]> {
  const missing = cluster.members.filter(({ name }) => runningPid(dir, name) === undefined);
  for (const member of missing)
    startMember(dir, member.name, programOf(context, cluster), flagsOf(dir, cluster, member));
  await Promise.all(missing.map(({ name }) => recordedPid(dir, name, RECORDED_MS, context.clock)));
  return missing.map(({ name }) => name);
}

function programOf({ self }: Context, { engine }: LocalCluster): Program {
  return engine === OUR_ENGINE ? { file: self.file, args: [...self.args, "server"] } : { file: engine, args: [] };
}

function flagsOf(dir: string, cluster: LocalCluster, member: LocalMember): string[] {
  const { members, isSecure, token } = cluster;
  const scheme = isSecure ? "https" : "http";
  const peerUrl = ({ peerPort }: LocalMember) => `${scheme}://127.0.0.1:${peerPort}`;
  const settings = new Map([
    ["name", member.name],
    ["data-dir", dataDir(dir, member.name)],
    ["listen-client-urls", clientUrl(cluster, member)],
    ["advertise-client-urls", clientUrl(cluster, member)],
    ["listen-peer-urls", peerUrl(member)],
    ["initial-advertise-peer-urls", peerUrl(member)],
    ["initial-cluster", members.map((each) => `${each.name}=${peerUrl(each)}`).join(",")],
    ["initial-cluster-token", token],
    ["initial-cluster-state", "new"],
    ["logger", "zap"],
    ["log-outputs", "stderr"],
  ]);
  if (isSecure) {
    const pki = pkiDir(dir);
    const ca = authorityPair(pki).cert;
    const [server, peer] = [serverPair(pki, member.name), peerPair(pki, member.name)];
    settings.set("cert-file", server.cert).set("key-file", server.key);
    settings.set("trusted-ca-file", ca).set("client-cert-auth", "true");
    settings.set("peer-cert-file", peer.cert).set("peer-key-file", peer.key);
    settings.set("peer-trusted-ca-file", ca).set("peer-client-cert-auth", "true");
  }
  return asFlags(settings);
}

/** Waits until every member answers a linearizable read. Throws DeployError with what a member said when it ended. */
export async function untilHealthy(context: Context, dir: string, cluster: LocalCluster): Promise<Look[]> {
  const tls = tlsOf(dir, cluster);
  return Promise.all(cluster.members.map((member) => memberHealthy(context, dir, cluster, member, tls)));
}

async function memberHealthy(
  { clock }: Context,
  dir: string,
  cluster: LocalCluster,
  member: LocalMember,
  tls: TlsOptions | undefined,
): Promise<Look> {
  const [{ connect }, { lookThrough }] = await Promise.all([
    import("../../client/raw.ts"),
    import("../common/look.ts"),
  ]);
  const client = connect(clientUrl(cluster, member), tls === undefined ? {} : { tls });
  const endMs = clock.nowMs() + HEALTHY_MS;
  try {
    // The client waits longer after each failed attempt, so the first one comes when it can succeed.
    while (runningPid(dir, member.name) !== undefined && clock.nowMs() < endMs && !(await listens(member.clientPort)))
      await pause(clock, RETRY_MS);
    for (;;) {
      let trouble: string | undefined;
      try {
        await client.ready(ATTEMPT_MS);
        const look = await lookThrough(client, ATTEMPT_MS, clock);
        if (look.tookMs !== undefined && look.status?.leader !== 0n) return look;
        trouble = look.trouble;
      } catch (error) {
        trouble = messageOf(error);
      }
      if (runningPid(dir, member.name) === undefined) {
        throw new DeployError(
          `${member.name} has ended. It said last:\n${lastWords(dir, member.name)}When that is repaired, repeat the command; kvorum down stops the others.`,
        );
      }
      if (clock.nowMs() > endMs) {
        throw new DeployError(
          `${member.name} is not healthy after ${HEALTHY_MS / 1000} s (${trouble}). It said last:\n${lastWords(dir, member.name)}`,
        );
      }
      await pause(clock, RETRY_MS);
    }
  } finally {
    client.close();
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp(port, "127.0.0.1");
    const end = (connected: boolean) => {
      socket.destroy();
      resolve(connected);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}

export function tlsOf(dir: string, { isSecure }: LocalCluster): TlsOptions | undefined {
  if (!isSecure) return undefined;
  const { ca, cert, key } = clientFiles(dir);
  const read = (path: string) => Buffer.from(readRequired(path, "a certificate of the cluster is gone"));
  return { ca: read(ca), cert: read(cert), key: read(key) };
}

export function clientFiles(dir: string): { readonly ca: string; readonly cert: string; readonly key: string } {
  return { ca: authorityPair(pkiDir(dir)).cert, ...clientPair(pkiDir(dir), CLIENT) };
}

/** Resolves with the names of the members that ran, and of those that had to be killed. */
export async function stopMembers(
  { clock }: Context,
  dir: string,
  { members }: LocalCluster,
): Promise<{ readonly stopped: string[]; readonly killed: string[] }> {
  const running = members.filter(({ name }) => runningPid(dir, name) !== undefined).map(({ name }) => name);
  const outcomes = await Promise.all(members.map(({ name }) => stopMember(dir, name, GRACE_MS, clock)));
  return { stopped: running, killed: members.filter((_, i) => outcomes[i]).map(({ name }) => name) };
}

export function deleteCluster(dir: string): void {
  rmSync(dir, { recursive: true, force: true });
}
