import type { RawNode } from "../../raft/rawnode.ts";

/** Source: etcd `server/etcdserver/api/v3rpc/grpc.go`, maxNoLeaderCnt. */
const LEADERLESS_MAX = 3;

/** The changes found by an update of the role. */
export interface RoleChange {
  /** This member was leader and no longer is. */
  readonly isDeposed: boolean;
  /** The leader changed; it may be this member now. */
  readonly hasNewLeader: boolean;
}

/** This member's role in raft's current term: who is leader, and what a leader may answer from its own state. */
export class Role {
  readonly #node: RawNode;
  readonly #memberId: bigint;
  #term = 0;
  #leader = 0n;
  #isLearner: boolean;
  /**
   * This member is leader and has applied an entry of its term: its state is at least as new as any earlier leader's.
   */
  #leadsInTerm = false;
  /** This member is the only voter: its commit index is the cluster's. */
  #isSolo = false;
  /** The last index in the log when that began. */
  #soloFrom = 0;
  /** Consecutive checks that found no leader. */
  #leaderless = 0;

  constructor(node: RawNode, memberId: bigint, isLearner: boolean) {
    this.#node = node;
    this.#memberId = memberId;
    this.#isLearner = isLearner;
  }

  get term(): number {
    return this.#term;
  }

  /** 0n for none. */
  get leader(): bigint {
    return this.#leader;
  }

  get isLeader(): boolean {
    return this.#leader === this.#memberId;
  }

  get leadsInTerm(): boolean {
    return this.#leadsInTerm && this.isLeader;
  }

  get isLearner(): boolean {
    return this.#isLearner;
  }

  get isSolo(): boolean {
    return this.#isSolo;
  }

  /**
   * Whether a linearizable read may be served at once: this member alone decides what is committed, and has applied it.
   * Clients know of no unapplied entries, except those from a time with other voters.
   */
  canReadNow(appliedIndex: number): boolean {
    return (
      this.#isSolo && this.#leadsInTerm && (appliedIndex >= this.#soloFrom || appliedIndex === this.#node.committed)
    );
  }

  /** Called once an election timeout: true from the third time in a row on that there is no leader. */
  missesLeader(): boolean {
    this.#leaderless = this.#leader === 0n ? this.#leaderless + 1 : 0;
    return this.#leaderless >= LEADERLESS_MAX;
  }

  /**
   * An empty entry is applied: the first of a leader's term is one, and so are membership changes that raft has refused.
   * True for that first one, with which everything of earlier terms is applied.
   */
  termStarted(term: number): boolean {
    if (!this.isLeader || term !== this.#term || this.#leadsInTerm) return false;
    this.#leadsInTerm = true;
    return true;
  }

  /** Reads raft's state and configuration, which may have changed. */
  update(voters: readonly bigint[], isLearner: boolean): RoleChange {
    const { leader, term, raft } = this.#node;
    const led = this.isLeader;
    if (leader !== this.#leader || term !== this.#term) this.#leadsInTerm = false;
    const hasNewLeader = leader !== 0n && leader !== this.#leader;
    this.#leader = leader;
    this.#term = term;
    const isSolo = voters.length === 1 && voters[0] === this.#memberId;
    if (isSolo && !this.#isSolo) this.#soloFrom = raft.log.lastIndex();
    this.#isSolo = isSolo;
    this.#isLearner = isLearner;
    return { isDeposed: led && !this.isLeader, hasNewLeader };
  }
}
