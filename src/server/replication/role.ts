import type { RawNode } from "../../raft/rawnode.ts";

/** What an update of the role found. */
export interface RoleChange {
  /** This member led, and does not any more. */
  readonly isDeposed: boolean;
  /** Another member leads than before, or this one. */
  readonly hasNewLeader: boolean;
}

/** What this member is in raft's present term: who leads, and what a leader may answer from its own state. */
export class Role {
  readonly #node: RawNode;
  readonly #memberId: bigint;
  #term = 0;
  #leader = 0n;
  #isLearner: boolean;
  /** This member leads and has applied an entry of its term: its state is at least as new as any earlier leader's. */
  #leadsInTerm = false;
  /** This member is the only voter: its committed index is the cluster's. */
  #isSolo = false;
  /** The last entry in the log when that began. */
  #soloFrom = 0;

  constructor(node: RawNode, memberId: bigint, isLearner: boolean) {
    this.#node = node;
    this.#memberId = memberId;
    this.#isLearner = isLearner;
  }

  get term(): number {
    return this.#term;
  }

  /** 0n when there is none. */
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
   * Whether a linearizable read may be served at once: this member alone decides what is committed, and has applied it. No
   * client knows of entries that it has not applied, except of those from a time when there were other voters.
   */
  canReadNow(appliedIndex: number): boolean {
    return (
      this.#isSolo && this.#leadsInTerm && (appliedIndex >= this.#soloFrom || appliedIndex === this.#node.committed)
    );
  }

  /** The first entry of a leader's term, which is empty, is applied, and so is everything before it. False for an old term. */
  termStarted(term: number): boolean {
    if (!this.isLeader || term !== this.#term) return false;
    this.#leadsInTerm = true;
    return true;
  }

  /** Looks at raft's state and configuration, which may have changed. */
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
