import type { Cluster } from "../../membership/cluster.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import type { Network } from "../contract/network.ts";
import { isActiveSince, quorumOf } from "../contract/network.ts";

/** Finds the likely reason of a timeout. Source: etcd `server/etcdserver/server.go`, `parseProposeCtxErr`. */
export class TimeoutReasons {
  readonly #cluster: Cluster;
  readonly #network: Network;
  readonly #electionMs: number;
  /** Clock time at which the current leader became known. */
  #electedMs = Number.NEGATIVE_INFINITY;

  constructor(options: { cluster: Cluster; network: Network; electionMs: number }) {
    this.#cluster = options.cluster;
    this.#network = options.network;
    this.#electionMs = options.electionMs;
  }

  leaderElected(nowMs: number): void {
    this.#electedMs = nowMs;
  }

  /** The error for an unanswered request made at `sinceMs`; `leader` is 0n for none. */
  errorFor(sinceMs: number, leader: bigint): EtcdError {
    const lostMs = this.#electedMs - 2 * this.#electionMs;
    if (sinceMs > lostMs && sinceMs < this.#electedMs) return errors.timeoutLeaderFailed;
    if (leader === 0n) return errors.timeout;
    const { localId } = this.#cluster;
    const isConnected = (id: bigint): boolean => id === localId || isActiveSince(this.#network, id, sinceMs);
    if (leader !== localId) return isConnected(leader) ? errors.timeout : errors.timeoutConnectionLost;
    const members = this.#cluster.members();
    const connected = members.filter(({ id }) => isConnected(id)).length;
    return connected >= quorumOf(members.length) ? errors.timeout : errors.timeoutConnectionLost;
  }
}
