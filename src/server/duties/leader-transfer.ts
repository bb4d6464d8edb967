import type { Clock } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId } from "../../membership/member.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import type { Network } from "../contract/network.ts";

const NO_LEADER = 0n;

/** Transfers leadership to another member. Source: etcd `server/etcdserver/server.go`, `MoveLeader`. */
export class LeaderTransfer {
  readonly #cluster: Cluster;
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #leader: () => bigint;
  readonly #transfer: (target: bigint) => void;
  readonly #tickMs: number;
  readonly #electionMs: number;
  readonly #timeoutMs: number;

  constructor(options: {
    cluster: Cluster;
    network: Network;
    clock: Clock;
    logger: Logger;
    leader: () => bigint;
    /** Starts the transfer in raft. */
    transfer: (target: bigint) => void;
    tickMs: number;
    electionMs: number;
    timeoutMs: number;
  }) {
    this.#cluster = options.cluster;
    this.#network = options.network;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#leader = options.leader;
    this.#transfer = options.transfer;
    this.#tickMs = options.tickMs;
    this.#electionMs = options.electionMs;
    this.#timeoutMs = options.timeoutMs;
  }

  /** Resolves when the target is leader, or with the error. `isCancelled` ends the wait. */
  async moveTo(target: bigint, isCancelled: () => boolean = () => false): Promise<EtcdError | undefined> {
    const member = this.#cluster.member(target);
    if (member === undefined || member.isLearner) return errors.badLeaderTransferee;
    const startMs = this.#clock.nowMs();
    const local = formatId(this.#cluster.localId);
    const old = formatId(this.#leader());
    this.#logger.info("leadership transfer starting", {
      "local-member-id": local,
      "current-leader-member-id": old,
      "transferee-member-id": formatId(target),
    });
    this.#transfer(target);
    while (this.#leader() !== target) {
      if (isCancelled() || this.#clock.nowMs() - startMs >= this.#timeoutMs) return errors.timeoutLeaderTransfer;
      await new Promise<void>((resolve) => this.#clock.after(this.#tickMs, resolve));
    }
    this.#logger.info("leadership transfer finished", {
      "local-member-id": local,
      "old-leader-member-id": old,
      "new-leader-member-id": formatId(target),
      took: goDuration(this.#clock.nowMs() - startMs),
    });
    return undefined;
  }

  /**
   * Before a leader stops: transfers leadership to the member connected longest, so that there is no gap. A target that
   * disconnects meanwhile, as when the whole cluster stops, or that does not become leader within an election timeout,
   * is given up, and the next one is tried until there is none.
   */
  async handOver(): Promise<void> {
    const { localId } = this.#cluster;
    const skipped = { "local-member-id": formatId(localId), "current-leader-member-id": formatId(this.#leader()) };
    if (this.#leader() !== localId) {
      this.#logger.info("skipped leadership transfer; local server is not leader", skipped);
      return;
    }
    const voters = this.#cluster.votingMembers();
    if (voters.length <= 1) {
      this.#logger.info("skipped leadership transfer for single voting member cluster", skipped);
      return;
    }
    const error = await this.#handOverToAny(voters.map(({ id }) => id));
    if (error === undefined) {
      // Requests still sent here are forwarded to the new leader.
      await new Promise<void>((resolve) => this.#clock.after(this.#tickMs, resolve));
      return;
    }
    this.#logger.warn("leadership transfer failed", {
      "local-member-id": formatId(localId),
      error: error.message,
    });
  }

  async #handOverToAny(candidates: readonly bigint[]): Promise<EtcdError | undefined> {
    const { localId } = this.#cluster;
    const untried = new Set(candidates);
    const startMs = this.#clock.nowMs();
    let error: EtcdError | undefined = errors.unhealthy;
    // While the target is elected there is no leader for a moment: then the transfer goes on.
    const isOther = (): boolean => ![localId, NO_LEADER].includes(this.#leader());
    while (this.#leader() === localId && this.#clock.nowMs() - startMs < this.#timeoutMs) {
      const target = this.#longestConnected([...untried]);
      if (target === undefined) return error;
      untried.delete(target);
      const untilMs = this.#clock.nowMs() + this.#electionMs;
      const isOver = (): boolean => this.#network.activeSince(target) === undefined || this.#clock.nowMs() >= untilMs;
      error = await this.moveTo(target, () => isOther() || isOver());
      if (error === undefined) return undefined;
    }
    return isOther() ? undefined : error;
  }

  #longestConnected(ids: readonly bigint[]): bigint | undefined {
    let longest: bigint | undefined;
    let oldestMs = Number.POSITIVE_INFINITY;
    for (const id of ids) {
      const sinceMs = this.#network.activeSince(id);
      if (sinceMs === undefined || sinceMs >= oldestMs) continue;
      oldestMs = sinceMs;
      longest = id;
    }
    return longest;
  }
}
