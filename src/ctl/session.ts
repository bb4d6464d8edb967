/** Leases that are kept alive: by `lease keep-alive`, and as the session beneath a lock or an election. */
import type { Clock } from "../base/clock.ts";
import type { RawStream } from "../client/raw.ts";
import { type LeaseKeepAliveRequest, type LeaseKeepAliveResponse, LeaseService } from "../proto/etcdserverpb.ts";
import type { Cluster } from "./connection.ts";
import { EXIT, ExitError, isRpcError, UNAVAILABLE } from "./exit.ts";

const RETRY_WAIT_MS = 500;

/** Renews a lease once. Rejects with RpcError, or ExitError when the lease is gone. */
export async function keepAliveOnce(cluster: Cluster, id: bigint, timeoutMs: number): Promise<LeaseKeepAliveResponse> {
  const stream = await cluster.stream(LeaseService.LeaseKeepAlive, { timeoutMs });
  await stream.send({ id });
  for await (const response of stream) {
    if (response.ttl > 0) return response;
    break;
  }
  throw new ExitError(EXIT.badConnection, "etcdserver: requested lease not found");
}

/** Renews a lease three times in its life, yielding each answer, until it is gone. */
export async function* keepAlive(
  cluster: Cluster,
  id: bigint,
  clock: Clock,
): AsyncGenerator<LeaseKeepAliveResponse, void, void> {
  let expiresAtMs = Number.POSITIVE_INFINITY;
  while (clock.nowMs() < expiresAtMs) {
    let stream: RawStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse> | undefined;
    try {
      stream = await cluster.stream(LeaseService.LeaseKeepAlive, { requireLeader: true });
      await stream.send({ id });
      for await (const response of stream) {
        if (response.ttl <= 0) return;
        expiresAtMs = clock.nowMs() + response.ttl * 1000;
        yield response;
        await new Promise<void>((resolve) => clock.after((response.ttl * 1000) / 3, resolve));
        await stream.send({ id });
      }
    } catch (error) {
      if (!isRpcError(error) || error.code !== UNAVAILABLE) throw error;
    } finally {
      stream?.cancel();
    }
    cluster.moveOn();
    await new Promise<void>((resolve) => clock.after(RETRY_WAIT_MS, resolve));
  }
}

/** A lease of this process. */
export interface Session {
  readonly lease: bigint;
  /** Resolves when the lease is gone. */
  readonly ended: Promise<void>;
}

/** Creates a lease and keeps it alive for as long as the process lives. */
export async function openSession(cluster: Cluster, clock: Clock, ttlS: number): Promise<Session> {
  const { id } = await cluster.call(LeaseService.LeaseGrant, { ttl: ttlS });
  const renew = async () => {
    for await (const _ of keepAlive(cluster, id, clock));
  };
  return { lease: id, ended: renew().catch(() => {}) };
}
