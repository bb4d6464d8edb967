import type { Clock } from "../../base/clock.ts";
import type { RawNode } from "../../raft/rawnode.ts";
import { errors } from "../contract/errors.ts";
import type { ProposalQueue } from "../log/proposal-queue.ts";

/** Bytes of proposals that a follower forwards in one message. */
const FORWARD_BYTES_MAX = 1024 * 1024;

export interface ProposalFeedOptions {
  readonly node: RawNode;
  readonly clock: Clock;
  readonly proposals: ProposalQueue;
  /** Runs raft's loop in the turn of the next batch. */
  readonly onTurn: () => void;
}

/**
 * Feeds waiting proposals to raft, one batch per turn: a leader appends them to its log, a follower forwards them to
 * the leader.
 */
export class ProposalFeed {
  readonly #options: ProposalFeedOptions;
  /** This turn has had its batch, and more proposals wait. */
  #isFed = false;

  constructor(options: ProposalFeedOptions) {
    this.#options = options;
  }

  propose(): void {
    const { node, proposals } = this.#options;
    proposals.refuseOutdated(node.isLeader ? node.term : 0, errors.leaderChanged);
    if (proposals.waitingCount === 0 || this.#isFed) return;
    const datas = proposals.encodeWaiting();
    if (node.isLeader) {
      if (node.proposeBatch(datas) !== undefined) return;
      proposals.proposed(node.raft.log.lastIndex(), node.term);
    } else {
      if (!this.#forward(datas)) return;
      proposals.forwarded();
    }
    if (proposals.waitingCount > 0) this.#continueLater();
  }

  /** The next batch waits until all other work of this turn is done. */
  #continueLater(): void {
    const { clock, onTurn } = this.#options;
    this.#isFed = true;
    clock.defer(() => {
      this.#isFed = false;
      onTurn();
    });
  }

  /**
   * False when the leader is unknown. The state does not change between the messages, so raft takes all of them or
   * none.
   */
  #forward(datas: readonly Uint8Array[]): boolean {
    const { node } = this.#options;
    let start = 0;
    let bytes = 0;
    for (let i = 0; i < datas.length; i++) {
      bytes += datas[i]!.length;
      if (bytes < FORWARD_BYTES_MAX && i < datas.length - 1) continue;
      if (node.proposeBatch(datas.slice(start, i + 1)) !== undefined) return false;
      start = i + 1;
      bytes = 0;
    }
    return true;
  }
}
