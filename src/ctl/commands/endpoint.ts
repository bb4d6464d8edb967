/** `etcdctl endpoint`: health, status and hash of each member. */
import { goDuration } from "../../base/duration.ts";
import type { Flag } from "../../base/flags.ts";
import { AlarmType, ClusterService, KVService, MaintenanceService } from "../../proto/etcdserverpb.ts";
import type { Cluster } from "../connection.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { describeError, EXIT, ExitError, isRpcError, PERMISSION_DENIED } from "../exit.ts";
import type { EndpointHashKv, EndpointHealth, EndpointStatus } from "../print/shown.ts";

export const CLUSTER_FLAG: Flag = {
  name: "cluster",
  kind: "bool",
  value: false,
  usage: "ask every member that the cluster lists instead of --endpoints",
};

const health: CtlCommand = {
  name: "health",
  short: "Tells whether members can commit",
  async run(ctl) {
    const cluster = await ctl.cluster();
    const list: EndpointHealth[] = [];
    const endpoints = await endpointsOf(ctl, cluster);
    await Promise.all(
      endpoints.map(async (endpoint) => {
        list.push(await healthOf(ctl, cluster.only(endpoint), endpoint));
      }),
    );
    await ctl.show("health", list);
    if (list.some(({ error }) => error !== "")) throw new ExitError(EXIT.error, "unhealthy cluster");
  },
};

async function healthOf(ctl: Ctl, cluster: Cluster, endpoint: string): Promise<EndpointHealth> {
  const { clock } = ctl.io;
  const { timeoutMs } = ctl;
  const startMs = clock.nowMs();
  let problem: unknown;
  try {
    await cluster.call(KVService.Range, { key: Buffer.from("health") }, { timeoutMs });
  } catch (error) {
    // A read that is denied went through consensus, like a permitted one.
    if (!isRpcError(error) || error.code !== PERMISSION_DENIED) problem = error;
  }
  const took = goDuration(clock.nowMs() - startMs);
  let error = problem === undefined ? "" : describeError(problem);
  if (problem === undefined) {
    try {
      const left = Math.max(0, timeoutMs - (clock.nowMs() - startMs));
      const { alarms } = await cluster.call(MaintenanceService.Alarm, {}, { timeoutMs: left });
      if (alarms.length > 0) error = `Active Alarm(s): ${alarms.map(({ alarm }) => `${alarmName(alarm)} `).join("")}`;
    } catch {
      error = "Unable to fetch the alarm list";
    }
  }
  await cluster.close();
  return { endpoint, health: error === "", took, error };
}

const alarmName = (alarm: AlarmType) =>
  alarm === AlarmType.NOSPACE ? "NOSPACE" : alarm === AlarmType.CORRUPT ? "CORRUPT" : "UNKNOWN";

const status: CtlCommand = {
  name: "status",
  short: "Prints version, size, leader and progress of members",
  long: `Prints version, size, leader and progress of members. The simple format has, for each endpoint: endpoint, id,
version, storage version, size of the database, size in use, share not in use, quota, is leader, is learner, raft term,
raft index, raft applied index, errors, downgrade target version, downgrade enabled.`,
  async run(ctl) {
    const cluster = await ctl.cluster();
    const list: EndpointStatus[] = [];
    const failure = await forEach(ctl, cluster, "status", async (member, endpoint) => {
      const response = await member.call(MaintenanceService.Status, {}, { timeoutMs: ctl.timeoutMs });
      list.push({ endpoint, response });
    });
    await ctl.show("status", list);
    if (failure !== undefined) throw new ExitError(EXIT.error, "");
  },
};

const hashKv: CtlCommand = {
  name: "hashkv",
  short: "Prints a hash over the history of keys",
  flags: [{ name: "rev", kind: "int", value: 0, usage: "last revision to hash (default: the latest)" }],
  async run(ctl) {
    const cluster = await ctl.cluster();
    const list: EndpointHashKv[] = [];
    const revision = ctl.flags.number("rev");
    const failure = await forEach(ctl, cluster, "hash", async (member, endpoint) => {
      const response = await member.call(MaintenanceService.HashKV, { revision }, { timeoutMs: ctl.timeoutMs });
      list.push({ endpoint, response });
    });
    await ctl.show("hashKv", list);
    if (failure !== undefined) throw failure;
  },
};

/** Asks members one at a time; prints failures and returns the last error. */
async function forEach(
  ctl: Ctl,
  cluster: Cluster,
  what: string,
  ask: (member: Cluster, endpoint: string) => Promise<void>,
): Promise<unknown> {
  let failure: unknown;
  for (const endpoint of await endpointsOf(ctl, cluster)) {
    const member = cluster.only(endpoint);
    try {
      await ask(member, endpoint);
    } catch (error) {
      failure = error;
      ctl.io.err(`Failed to get the ${what} of endpoint ${endpoint} (${describeError(error)})\n`);
    }
    await member.close();
  }
  return failure;
}

/** The given endpoints or, with `--cluster`, those of all members. */
export async function endpointsOf(ctl: Ctl, cluster: Cluster): Promise<readonly string[]> {
  if (!ctl.flags.bool("cluster")) return cluster.endpoints;
  try {
    const request = { linearizable: true };
    const { members } = await cluster.call(ClusterService.MemberList, request, { timeoutMs: ctl.timeoutMs });
    return members.flatMap(({ clientUrls }) => clientUrls);
  } catch (error) {
    const reason = describeError(error);
    throw new ExitError(EXIT.error, `failed to fetch endpoints from etcd cluster member list: ${reason}`);
  }
}

export const endpoint: CtlCommand = {
  name: "endpoint",
  short: "Asks members about health, status and data",
  sharedFlags: [CLUSTER_FLAG],
  commands: [health, status, hashKv],
};
