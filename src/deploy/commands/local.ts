/** `kvorum up`, `ps` and `down`: a cluster on this machine. Standard output has only what a shell or a program reads. */
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";
import { renderTable } from "../../base/table.ts";
import { type Context, type DeployCommand, DeployError } from "../common/context.ts";
import { FORMAT, isJson } from "../common/flags.ts";
import { lookAt } from "../common/look.ts";
import {
  clientFiles,
  deleteCluster,
  makeCertificates,
  startMembers,
  stopMembers,
  tlsOf,
  untilHealthy,
} from "../local/cluster.ts";
import {
  checkClusterName,
  clientUrl,
  clusterDir,
  clusterNames,
  homeOf,
  type LocalCluster,
  OUR_ENGINE,
  readCluster,
  withLock,
  writeCluster,
} from "../local/home.ts";
import { choosePorts } from "../local/ports.ts";
import { runningPid } from "../local/process.ts";

const DEFAULT_NAME = "local";
const MEMBERS_MAX = 9;
const LOOK_MS = 2_000;
const VERSION_MS = 10_000;

const up: DeployCommand = {
  name: "up",
  usage: "[NAME]",
  short: "Starts a local cluster with TLS, and prints how etcdctl reaches it",
  long: `Starts a cluster on this machine, with TLS and a client certificate, and waits until every member is healthy.
A cluster that is there already is started again with its data; members that run are left alone. So the command can be
repeated at any time, also after it was interrupted. Its name is "local" unless another one is given.

Standard output has only the lines for the shell: eval "$(kvorum up)" sets them.`,
  example: `eval "$(kvorum up)" && etcdctl member list
kvorum up test --members 5
kvorum up stock --engine stock=/usr/local/bin/etcd`,
  flags: [
    { name: "members", kind: "uint", value: 3, usage: "how many members" },
    { name: "engine", kind: "string", value: OUR_ENGINE, usage: "kvorum, or stock=PATH for a stock etcd" },
    { name: "tls", kind: "bool", value: true, usage: "TLS between members and for clients; --tls=false for none" },
    {
      name: "port",
      kind: "uint",
      value: 0,
      usage: "first of consecutive ports; free ones are found when it is absent",
    },
    FORMAT,
  ],
  async run(context, { flags, args }) {
    const name = nameOf(args, "up");
    const dir = clusterDir(homeOf(context), name);
    const startMs = context.clock.nowMs();
    const json = isJson(flags);
    await withLock(dir, async () => {
      const cluster = existing(dir, flags) ?? (await found(context, dir, name, flags));
      await makeCertificates(context, dir, cluster);
      const started = await startMembers(context, dir, cluster);
      if (started.length > 0) context.err(`starting ${started.join(", ")} (${cluster.engine}) in ${dir}\n`);
      const looks = await untilHealthy(context, dir, cluster);
      const seconds = ((context.clock.nowMs() - startMs) / 1000).toFixed(1);
      const members = cluster.members.map((member, i) => {
        const { header, leader, version } = looks[i]!.status!;
        const id = header!.memberId;
        const pid = runningPid(dir, member.name);
        return {
          name: member.name,
          endpoint: clientUrl(cluster, member),
          id: id.toString(16),
          version,
          pid,
          isLeader: id === leader,
        };
      });
      if (json) {
        const environment = Object.fromEntries(environmentOf(dir, cluster));
        return context.out(`${JSON.stringify({ name, directory: dir, members, environment }, null, 2)}\n`);
      }
      const rows = members.map((each) => [
        each.name,
        each.endpoint,
        each.id,
        each.version,
        `${each.isLeader}`,
        `${each.pid}`,
      ]);
      context.err(renderTable(["name", "endpoint", "id", "version", "is leader", "pid"], rows));
      context.err(
        `cluster ${name} is healthy (${seconds} s). To stop it: kvorum down${name === DEFAULT_NAME ? "" : ` ${name}`}\n`,
      );
      for (const [variable, value] of environmentOf(dir, cluster))
        context.out(`export ${variable}=${shellQuoted(value)}\n`);
    });
  },
};

const ps: DeployCommand = {
  name: "ps",
  usage: "[NAME...]",
  short: "Shows the local clusters and their members",
  flags: [FORMAT],
  async run(context, { flags, args }) {
    const home = homeOf(context);
    const json = isJson(flags);
    const names = args.length > 0 ? args.map(checkClusterName) : clusterNames(home);
    const rows: Row[] = [];
    let failed: unknown;
    for (const outcome of await Promise.allSettled(names.map((name) => rowsOf(context, home, name)))) {
      if (outcome.status === "fulfilled") rows.push(...outcome.value);
      else failed ??= outcome.reason;
    }
    if (json) context.out(`${JSON.stringify(rows, null, 2)}\n`);
    else if (rows.length > 0) context.out(psTable(rows));
    else if (failed === undefined) context.err(`there are no local clusters in ${home}; kvorum up starts one\n`);
    // The others have been shown.
    if (failed !== undefined) throw failed;
  },
};

const down: DeployCommand = {
  name: "down",
  usage: "[NAME]",
  short: "Stops a local cluster; its data is kept unless --delete-data is given",
  flags: [
    { name: "delete-data", kind: "bool", value: false, usage: "delete data, certificates and logs of the cluster too" },
  ],
  async run(context, { flags, args }) {
    const name = nameOf(args, "down");
    const home = homeOf(context);
    const dir = clusterDir(home, name);
    if (readCluster(dir) === undefined) throw new DeployError(noCluster(home, name));
    await withLock(dir, async () => {
      const cluster = readCluster(dir);
      if (cluster === undefined) throw new DeployError(noCluster(home, name));
      const { stopped, killed } = await stopMembers(context, dir, cluster);
      for (const member of killed) context.err(`${member} did not stop in time and was killed\n`);
      context.err(stopped.length === 0 ? `${name} did not run\n` : `stopped ${stopped.join(", ")}\n`);
      if (flags.bool("delete-data")) {
        deleteCluster(dir);
        context.err(`deleted ${dir}\n`);
      } else
        context.err(`its data stays in ${dir}; kvorum up${name === DEFAULT_NAME ? "" : ` ${name}`} starts it again\n`);
    });
  },
};

export const localCommands: readonly DeployCommand[] = [up, ps, down];

type Flags = Parameters<NonNullable<DeployCommand["run"]>>[1]["flags"];

function nameOf(args: readonly string[], command: string): string {
  if (args.length > 1) throw new DeployError(`${command} takes one name of a cluster, not ${args.join(" ")}`);
  return checkClusterName(args[0] ?? DEFAULT_NAME);
}

function noCluster(home: string, name: string): string {
  const names = clusterNames(home);
  const others = names.length === 0 ? "there is none" : `there are ${names.join(", ")}`;
  return `there is no local cluster ${name} in ${home}; ${others}`;
}

/** What differs from the flags was decided when the cluster was made, and is not changed silently. */
function existing(dir: string, flags: Flags): LocalCluster | undefined {
  const cluster = readCluster(dir);
  if (cluster === undefined) return undefined;
  const { members, isSecure, engine, name } = cluster;
  const asked = flags.changed("engine") ? engineText(flags.string("engine")) : undefined;
  const differs =
    (flags.changed("members") && flags.number("members") !== members.length && `has ${members.length} members`) ||
    (flags.changed("tls") && flags.bool("tls") !== isSecure && `was made ${isSecure ? "with" : "without"} TLS`) ||
    (asked !== undefined && asked !== engine && !engine.endsWith(`/${asked}`) && `runs ${engine}`) ||
    (flags.changed("port") &&
      flags.number("port") !== members[0]!.clientPort &&
      `listens on ${members[0]!.clientPort}`);
  if (!differs) return cluster;
  throw new DeployError(
    `cluster ${name} ${differs}: leave the flag out, use another name, or delete it first (kvorum down ${name} --delete-data)`,
  );
}

async function found(context: Context, dir: string, name: string, flags: Flags): Promise<LocalCluster> {
  const count = flags.number("members");
  if (count < 1 || count > MEMBERS_MAX) throw new DeployError(`--members is 1 to ${MEMBERS_MAX}, not ${count}`);
  if (count % 2 === 0)
    context.err(`warning: ${count} members bear the loss of no more than ${count - 1} do; take an odd number\n`);
  const engine = await findEngine(context, engineText(flags.string("engine")));
  const members = await choosePorts(count, flags.changed("port") ? flags.number("port") : undefined);
  const token = `${name}-${context.random.uint64().toString(16)}`;
  const cluster = { name, token, members, engine, isSecure: flags.bool("tls") };
  // Before anything is started, so that every repetition means the same cluster.
  writeCluster(dir, cluster);
  return cluster;
}

/** "kvorum", or what a stock etcd is called. */
function engineText(text: string): string {
  if (text === OUR_ENGINE) return text;
  const [, path] = /^stock(?:=(.+))?$/.exec(text) ?? [];
  if (!text.startsWith("stock")) throw new DeployError(`--engine is kvorum or stock=PATH, not ${text}`);
  return path ?? "etcd";
}

async function findEngine({ env, cwd }: Context, engine: string): Promise<string> {
  if (engine === OUR_ENGINE) return engine;
  const candidates = engine.includes("/")
    ? [resolve(cwd, engine)]
    : (env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, engine));
  const path = candidates.find(isExecutable);
  if (path === undefined)
    throw new DeployError(`there is no program ${engine}: give the path of a stock etcd, stock=PATH`);
  const { stdout } = await promisify(execFile)(path, ["--version"], { timeout: VERSION_MS }).catch(() => ({
    stdout: "",
  }));
  if (!/^etcd Version: 3\./m.test(stdout)) throw new DeployError(`${path} is not an etcd of version 3 (--version)`);
  return path;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function environmentOf(dir: string, cluster: LocalCluster): [string, string][] {
  const endpoints = cluster.members.map((member) => clientUrl(cluster, member)).join(",");
  if (!cluster.isSecure) return [["ETCDCTL_ENDPOINTS", endpoints]];
  const { ca, cert, key } = clientFiles(dir);
  return [
    ["ETCDCTL_ENDPOINTS", endpoints],
    ["ETCDCTL_CACERT", ca],
    ["ETCDCTL_CERT", cert],
    ["ETCDCTL_KEY", key],
  ];
}

const shellQuoted = (text: string): string =>
  /^[\w/.:,@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

interface Row {
  readonly cluster: string;
  readonly member: string;
  readonly state: "healthy" | "unhealthy" | "stopped";
  readonly endpoint: string;
  readonly version?: string;
  readonly isLeader?: boolean;
  readonly pid?: number;
  readonly trouble?: string;
}

function psTable(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.cluster,
    row.member,
    row.state,
    row.endpoint,
    row.version ?? "",
    row.isLeader === undefined ? "" : `${row.isLeader}`,
    row.pid === undefined ? "" : `${row.pid}`,
  ]);
  return renderTable(["cluster", "member", "state", "endpoint", "version", "is leader", "pid"], cells);
}

async function rowsOf({ clock }: Context, home: string, name: string): Promise<Row[]> {
  const dir = clusterDir(home, name);
  const cluster = readCluster(dir);
  if (cluster === undefined) throw new DeployError(noCluster(home, name));
  const pids = cluster.members.map((member) => runningPid(dir, member.name));
  const running = cluster.members.filter((_, i) => pids[i] !== undefined);
  const endpoints = running.map((member) => clientUrl(cluster, member));
  const looks = running.length === 0 ? [] : await lookAt(endpoints, tlsOf(dir, cluster), LOOK_MS, clock);
  return cluster.members.map((member, i): Row => {
    const endpoint = clientUrl(cluster, member);
    const row = { cluster: name, member: member.name, endpoint };
    const [pid, look] = [pids[i], looks.find((each) => each.endpoint === endpoint)];
    if (pid === undefined || look === undefined) return { ...row, state: "stopped" };
    const state = look.tookMs === undefined ? "unhealthy" : "healthy";
    const { status, trouble } = look;
    return {
      ...row,
      state,
      pid,
      ...(status && { version: status.version, isLeader: status.leader === status.header?.memberId }),
      ...(trouble === undefined ? {} : { trouble }),
    };
  });
}
