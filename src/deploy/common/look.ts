/** One look at the members of a cluster over their client endpoints: is it healthy, and what does it say of itself. */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { type ConnectOptions, connect, type RawClient, type TlsOptions } from "../../client/raw.ts";
import { KVService, MaintenanceService, type StatusResponse } from "../../proto/etcdserverpb.ts";

export interface Look {
  readonly endpoint: string;
  /** Undefined when it does not answer. */
  readonly status: StatusResponse | undefined;
  /** Milliseconds that a linearizable read took; undefined when there was no answer, and `trouble` says why. */
  readonly tookMs: number | undefined;
  readonly trouble: string | undefined;
}

export function lookAt(
  endpoints: readonly string[],
  tls: TlsOptions | undefined,
  timeoutMs: number,
  clock: Clock,
): Promise<Look[]> {
  return Promise.all(
    endpoints.map(async (endpoint) => {
      const options: ConnectOptions = tls === undefined ? {} : { tls };
      const client = connect(endpoint, options);
      try {
        await client.ready(timeoutMs);
        return await lookThrough(client, timeoutMs, clock);
      } catch (error) {
        const trouble = await causeOf(endpoint, tls, timeoutMs, clock);
        return { endpoint, status: undefined, tookMs: undefined, trouble: trouble ?? messageOf(error) };
      } finally {
        client.close();
      }
    }),
  );
}

/** Of a member that is connected. Rejects when it does not give its status. */
export async function lookThrough(client: RawClient, timeoutMs: number, clock: Clock): Promise<Look> {
  const { endpoint } = client;
  const status = await client.unary(MaintenanceService.Status, {}, { timeoutMs });
  // A learner refuses reads that need the leader; its status is all there is to see.
  if (status.isLearner) return { endpoint, status, tookMs: 0, trouble: undefined };
  const startMs = clock.nowMs();
  try {
    await client.unary(KVService.Range, { key: HEALTH_KEY }, { timeoutMs });
    return { endpoint, status, tookMs: clock.nowMs() - startMs, trouble: undefined };
  } catch (error) {
    // Without the permission to read, the member has asked the leader nevertheless, as with etcdctl endpoint health.
    if (/permission denied|user name is empty/.test(messageOf(error)))
      return { endpoint, status, tookMs: clock.nowMs() - startMs, trouble: undefined };
    return { endpoint, status, tookMs: undefined, trouble: messageOf(error) };
  }
}

/** To say why a member does not answer must not take as long again as to find that out. */
const CAUSE_MS = 1_500;
const HEALTH_KEY = Buffer.from("health");

async function causeOf(endpoint: string, tls: TlsOptions | undefined, timeoutMs: number, clock: Clock) {
  const { findTrouble } = await import("../../client/probe.ts");
  return (await findTrouble(endpoint, tls, Math.min(timeoutMs, CAUSE_MS), clock))?.text;
}
