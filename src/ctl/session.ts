/** Leases kept alive: for `lease keep-alive`, and as the session of a lock or an election. */
import type { Clock } from "../base/clock.ts";
import type { RawStream } from "../client/raw.ts";
import { type LeaseKeepAliveRequest, type LeaseKeepAliveResponse, LeaseService } from "../proto/etcdserverpb.ts";
import type { Cluster } from "./connection.ts";
import { ConnectionError, EXIT, ExitError, isRpcError, UNAVAILABLE } from "./exit.ts";

const RETRY_WAIT_MS = 500;
/** Extra time for the first answer, after connecting. */
const FIRST_ANSWER_MS = 1_000;

/** Renews a lease once. Rejects with RpcError, or ExitError when the lease is gone. */
export async function keepAliveOnce(cluster: Cluster, id: bigint, timeoutMs: number): Promise<LeaseKeepAliveResponse> {
  for await (const response of cluster.responses(LeaseService.LeaseKeepAlive, { id }, { timeoutMs })) {
    if (response.ttl > 0) return response;
    break;
  }
  throw new ExitError(EXIT.badConnection, "etcdserver: requested lease not found");
}

/**
 * Renews a lease three times per TTL, yielding each answer, until it is gone or `signal` fires. Rejects with
 * ConnectionError when no endpoint answers the first time within `--dial-timeout` plus one second.
 */
export async function* keepAlive(
  cluster: Cluster,
  id: bigint,
  clock: Clock,
  signal?: AbortSignal,
): AsyncGenerator<LeaseKeepAliveResponse, void, void> {
  let expiresAtMs = clock.nowMs() + cluster.dialTimeoutMs + FIRST_ANSWER_MS;
  let answered = false;
  while (clock.nowMs() < expiresAtMs && !signal?.aborted) {
    let stream: RawStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse> | undefined;
    try {
      const connectMs = expiresAtMs - clock.nowMs();
      stream = await cluster.stream(LeaseService.LeaseKeepAlive, { requireLeader: true, connectMs });
      await stream.send({ id });
      for await (const response of stream) {
        if (response.ttl <= 0) return;
        answered = true;
        expiresAtMs = clock.nowMs() + response.ttl * 1000;
        yield response;
        await pause(clock, (response.ttl * 1000) / 3, signal);
        if (signal?.aborted) return;
        await stream.send({ id });
      }
    } catch (error) {
      // A lease that was not renewed in time has expired.
      if (answered && error instanceof ConnectionError) return;
      if (!isRpcError(error)) throw error;
      if (await cluster.passOver(error, stream)) continue;
      if (error.code !== UNAVAILABLE) throw error;
    } finally {
      stream?.cancel();
    }
    cluster.moveOn();
    await pause(clock, RETRY_WAIT_MS, signal);
  }
}

/** Resolves after the time, or at once when the signal fires. */
function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = clock.after(ms, resolve);
    signal?.addEventListener("abort", () => {
      timer.cancel();
      resolve();
    });
  });
}

/** Rejects with etcdctl's text when the user's signal comes before the result. */
export function unlessInterrupted<T>(result: Promise<T>, interrupted: Promise<void>): Promise<T> {
  const refuse = interrupted.then(() => {
    throw new ExitError(EXIT.error, "context canceled");
  });
  return Promise.race([result, refuse]);
}

/** A lease owned by this process. */
export interface Session {
  readonly lease: bigint;
  /** Resolves when the lease is gone. */
  readonly ended: Promise<void>;
  /** Stops renewing the lease, which then expires. */
  abandon(): void;
}

/** Creates a lease and keeps it alive until it is abandoned. */
export async function openSession(cluster: Cluster, clock: Clock, ttlS: number): Promise<Session> {
  const { id } = await cluster.call(LeaseService.LeaseGrant, { ttl: ttlS });
  const abandoned = new AbortController();
  const renew = async () => {
    for await (const _ of keepAlive(cluster, id, clock, abandoned.signal));
  };
  return { lease: id, ended: renew().catch(() => {}), abandon: () => abandoned.abort() };
}
