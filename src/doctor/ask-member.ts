/** Asks one endpoint all that the doctor wants to know. Never rejects: what could not be learned is absent. */
import type { Clock } from "../base/clock.ts";
import { findTrouble } from "../client/probe.ts";
import type { TlsOptions } from "../client/raw.ts";
import type { Cluster } from "../ctl/connection.ts";
import { advice, tlsFor } from "../ctl/dial.ts";
import { describeError, isRpcError, PERMISSION_DENIED } from "../ctl/exit.ts";
import {
  ClusterService,
  type HashKVResponse,
  KVService,
  MaintenanceService,
  type Member,
  type StatusResponse,
} from "../proto/etcdserverpb.ts";
import { type HttpAnswer, httpGet } from "./http-get.ts";

export interface Answers {
  readonly endpoint: string;
  /** Why there is no connection, with advice. */
  readonly trouble?: string;
  readonly status?: StatusResponse;
  /** Why there is no status. */
  readonly refusal?: string;
  /** The members that this one knows of. */
  readonly members?: readonly Member[];
  /** Why a linearizable read failed, which needs a quorum. */
  readonly readFailure?: string;
  readonly metrics?: string;
  readonly http?: HttpAnswer;
}

export interface AskOptions {
  readonly cluster: Cluster;
  readonly clock: Clock;
  /** For each question. */
  readonly timeoutMs: number;
}

const PROBE_MS = 2_000;

export async function askMember(endpoint: string, options: AskOptions): Promise<Answers> {
  const { cluster, clock, timeoutMs } = options;
  const tls = tlsFor(endpoint, cluster.tls);
  const trouble = await findTrouble(endpoint, tls, Math.min(PROBE_MS, timeoutMs), clock);
  if (trouble !== undefined) return { endpoint, trouble: `${trouble.text}${advice(trouble, endpoint, "--")}` };
  const member = cluster.only(endpoint);
  try {
    const status = await askStatus(member, timeoutMs);
    // Without a leader a linearizable read only waits.
    const hasLeader = "status" in status && status.status?.leader !== 0n;
    const [members, readFailure, web] = await Promise.all([
      askMembers(member, timeoutMs),
      hasLeader ? readLinearizably(member, timeoutMs) : {},
      askHttp(endpoint, tls, timeoutMs, clock),
    ]);
    return { endpoint, ...status, ...members, ...readFailure, ...web };
  } finally {
    await member.close();
  }
}

async function askStatus(
  member: Cluster,
  timeoutMs: number,
): Promise<Pick<Answers, "status"> | Pick<Answers, "refusal">> {
  try {
    return { status: await member.call(MaintenanceService.Status, {}, { timeoutMs }) };
  } catch (error) {
    return { refusal: describeError(error) };
  }
}

async function askMembers(member: Cluster, timeoutMs: number): Promise<Pick<Answers, "members">> {
  try {
    // What this member knows: a linearizable answer would need a quorum.
    return { members: (await member.call(ClusterService.MemberList, { linearizable: false }, { timeoutMs })).members };
  } catch {
    return {};
  }
}

async function readLinearizably(member: Cluster, timeoutMs: number): Promise<Pick<Answers, "readFailure">> {
  try {
    await member.call(KVService.Range, { key: Buffer.from("health") }, { timeoutMs });
    return {};
  } catch (error) {
    // A read that is denied went through consensus, like a permitted one.
    return isRpcError(error) && error.code === PERMISSION_DENIED ? {} : { readFailure: describeError(error) };
  }
}

async function askHttp(
  endpoint: string,
  tls: TlsOptions | undefined,
  timeoutMs: number,
  clock: Clock,
): Promise<Pick<Answers, "http" | "metrics">> {
  try {
    const http = await httpGet(endpoint, "/metrics", tls, timeoutMs, clock);
    return { http, ...(http.status === 200 ? { metrics: http.body } : {}) };
  } catch {
    return {};
  }
}

/** The hash of the history up to a revision; a text when the member does not give it. */
export async function askHash(
  endpoint: string,
  revision: number,
  { cluster, timeoutMs }: AskOptions,
): Promise<HashKVResponse | string> {
  const member = cluster.only(endpoint);
  try {
    return await member.call(MaintenanceService.HashKV, { revision }, { timeoutMs });
  } catch (error) {
    return describeError(error);
  } finally {
    await member.close();
  }
}
