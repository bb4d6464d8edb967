/**
 * Explores everything that can happen to a small raft group within a number of steps: any node may start an election at
 * any time, any message in flight may arrive next, or twice, or never, nodes restart, the leader proposes and sends
 * heartbeats. Invariants are checked after every step; see invariants.ts.
 *
 * A node carries out a Ready at once: crashing before it is written is equivalent to losing the message that led to it,
 * and crashing before it is sent, to losing its messages. Nodes cannot be copied, so a state is reached again by
 * repeating the steps that led to it. States are distinguished by all the state of a group that affects what may
 * follow, and no state is explored again with as few steps left.
 */
import { EMPTY_BYTES } from "../../../src/base/protobuf.ts";
import { ConfState, type Entry, type Message, MessageType, type Snapshot } from "../../../src/proto/raftpb.ts";
import { NO_LIMIT } from "../../../src/raft/entry-size.ts";
import { MemoryStorage } from "../../../src/raft/memory-storage.ts";
import { isResponseMsg } from "../../../src/raft/messages.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import { Invariants } from "./invariants.ts";
import { SeededRandom } from "./random.ts";

export interface ExplorerOptions {
  readonly nodes: number;
  /** Steps from the start. */
  readonly depth: number;
  /** No election starts beyond this term. */
  readonly terms: number;
  readonly proposals: number;
  readonly restarts: number;
  readonly duplicates: number;
  readonly heartbeats: number;
  /** Called for a started node, for example to plant a bug. */
  readonly prepare?: (node: RawNode, storage: MemoryStorage) => void;
}

export interface Exploration {
  /** Different states reached, and steps taken to and between them. */
  readonly states: number;
  readonly steps: number;
  /** States with a leader, and the highest index committed in any. */
  readonly led: number;
  readonly committedMax: number;
}

/** Throws an invariant's error, with the steps that led to it. */
export function explore(options: ExplorerOptions): Exploration {
  const seen = new Map<string, number>();
  const total = { states: 0, steps: 0, led: 0, committedMax: 0 };
  const path: string[] = [];
  visit(new SmallGroup(options));
  return total;

  /** The group after `path`. It is consumed. */
  function visit(group: SmallGroup): void {
    const left = options.depth - path.length;
    const key = group.key();
    const before = seen.get(key);
    if (before !== undefined && before >= left) return;
    if (before === undefined) {
      total.states++;
      if (group.members.some(({ node }) => node.isLeader)) total.led++;
      for (const { node } of group.members) total.committedMax = Math.max(total.committedMax, node.committed);
    }
    seen.set(key, left);
    if (left === 0) return;
    let current: SmallGroup | undefined = group;
    for (const action of group.actions()) {
      current ??= replay();
      path.push(action);
      take(current, action);
      visit(current);
      path.pop();
      current = undefined;
    }
  }

  function replay(): SmallGroup {
    const group = new SmallGroup(options);
    for (const action of path) take(group, action);
    return group;
  }

  function take(group: SmallGroup, action: string): void {
    total.steps++;
    try {
      group.take(action);
    } catch (error) {
      throw new Error(`${error instanceof Error ? error.message : String(error)}; after ${path.join(", ")}`, {
        cause: error,
      });
    }
  }
}

interface SmallMember {
  readonly id: bigint;
  readonly storage: MemoryStorage;
  node: RawNode;
  applied: number;
  digest: number;
  votes: Map<bigint, boolean>;
}

class SmallGroup {
  readonly members: SmallMember[] = [];
  readonly #options: ExplorerOptions;
  readonly #invariants = new Invariants();
  /** Messages in flight, by content. */
  readonly #network = new Map<string, { message: Message; count: number }>();
  readonly #left: { proposals: number; restarts: number; duplicates: number; heartbeats: number };
  readonly #leaders = new Map<number, bigint>();
  #committed: string[] = [];

  constructor(options: ExplorerOptions) {
    this.#options = options;
    const { proposals, restarts, duplicates, heartbeats } = options;
    this.#left = { proposals, restarts, duplicates, heartbeats };
    const confState = ConfState.create({ voters: Array.from({ length: options.nodes }, (_, i) => BigInt(i + 1)) });
    const first: Snapshot = { data: EMPTY_BYTES, metadata: { confState, index: 1, term: 1 } };
    for (let i = 1; i <= options.nodes; i++) {
      const storage = new MemoryStorage();
      storage.applySnapshot(first);
      storage.setHardState({ term: 1, vote: 0n, commit: 1 });
      const id = BigInt(i);
      const member = { id, storage, node: this.#newNode(id, storage, 1), applied: 1, digest: 0, votes: new Map() };
      this.members.push(member);
      this.#watchVotes(member);
    }
  }

  /** Possible next steps. Nodes are identical at the start, so the first election is the first node's. */
  actions(): string[] {
    const actions: string[] = [];
    const isStart = this.#network.size === 0 && this.members.every(({ node }) => node.term === 1);
    for (const { id, node } of isStart ? this.members.slice(0, 1) : this.members) {
      if (!node.isLeader && node.term < this.#options.terms) actions.push(`campaign ${id}`);
      if (node.isLeader && this.#left.proposals > 0) actions.push(`propose ${id}`);
      if (node.isLeader && this.#left.heartbeats > 0) actions.push(`heartbeat ${id}`);
      if (this.#left.restarts > 0 && !isStart) actions.push(`restart ${id}`);
    }
    for (const key of this.#network.keys()) {
      actions.push(`deliver ${key}`);
      if (this.#left.duplicates > 0) actions.push(`duplicate ${key}`);
    }
    return actions;
  }

  take(action: string): void {
    const at = action.indexOf(" ");
    const what = action.slice(0, at);
    const object = action.slice(at + 1);
    if (what === "deliver" || what === "duplicate") this.#deliver(object, what === "duplicate");
    else this.#act(what, this.members[Number(object) - 1]!);
    this.#forget();
    this.#invariants.check(this.members);
    this.#checkLogs();
  }

  /** Messages without any possible effect need not arrive: those of earlier terms, and answers no longer waited for. */
  #forget(): void {
    for (const [key, { message }] of this.#network) {
      const { raft } = this.members[Number(message.to) - 1]!.node;
      const isOld = message.term < raft.term;
      const isAnswer = isResponseMsg(message.type) && message.term === raft.term;
      const isLate =
        message.type === MessageType.MsgVoteResp ? raft.state !== "StateCandidate" : raft.state === "StateFollower";
      if (isOld || (isAnswer && isLate)) this.#network.delete(key);
    }
  }

  /** All state that may affect what follows. */
  key(): string {
    const nodes = this.members.map((member) => {
      const { raft } = member.node;
      const progress =
        raft.state !== "StateLeader"
          ? []
          : raft.tracker.ordered.map((pr) => {
              let sentCommit = raft.log.committed;
              while (sentCommit > 0 && pr.canBumpCommit(sentCommit)) sentCommit--;
              return [
                pr.match,
                pr.next,
                pr.state,
                pr.msgAppFlowPaused,
                pr.inflights.count,
                pr.recentActive,
                sentCommit,
              ].join("/");
            });
      const votes = raft.state === "StateCandidate" ? [...member.votes].sort().join("/") : "";
      const log = entriesOf(member).map(({ term, data }) => `${term}${Buffer.from(data).toString()}`);
      return [
        raft.term,
        raft.vote,
        raft.state,
        raft.lead,
        log,
        raft.log.committed,
        member.applied,
        progress,
        votes,
      ].join(",");
    });
    const network = [...this.#network].map(([key, { count }]) => `${count}x${key}`).sort();
    return [
      nodes.join("|"),
      network.join("|"),
      Object.values(this.#left),
      [...this.#leaders].sort(),
      this.#committed,
    ].join(";");
  }

  #act(what: string, member: SmallMember): void {
    const { node } = member;
    if (what === "campaign") node.campaign();
    else if (what === "propose") node.propose(Buffer.from(`p${this.#left.proposals--}`));
    else if (what === "heartbeat") {
      this.#left.heartbeats--;
      node.tick();
    } else {
      this.#left.restarts--;
      this.#invariants.restarted(member.id);
      member.node = this.#newNode(member.id, member.storage, member.applied);
      this.#watchVotes(member);
    }
    this.#work(member);
  }

  #deliver(key: string, stays: boolean): void {
    const sent = this.#network.get(key)!;
    if (stays) this.#left.duplicates--;
    else if (--sent.count === 0) this.#network.delete(key);
    const member = this.members[Number(sent.message.to) - 1]!;
    member.node.step(sent.message);
    this.#work(member);
  }

  #work(member: SmallMember): void {
    const { node, storage } = member;
    while (node.hasReady()) {
      const ready = node.ready();
      if (ready.hardState !== undefined) storage.setHardState(ready.hardState);
      storage.append(ready.entries);
      for (const message of ready.messages) {
        const key = describe(message);
        const sent = this.#network.get(key);
        if (sent === undefined) this.#network.set(key, { message, count: 1 });
        else sent.count++;
      }
      for (const { index, term, data } of ready.committedEntries) {
        member.applied = index;
        member.digest = digestOf(member.digest, `${index} ${term} ${Buffer.from(data).toString()}`);
        this.#invariants.applied(member.id, index, member.digest);
      }
      node.advance();
    }
    if (node.isLeader) this.#leaders.set(node.term, member.id);
    const committed = entriesOf(member).slice(0, node.committed - 1);
    if (committed.length > this.#committed.length) this.#committed = committed.map(({ term }) => String(term));
  }

  /** Log matching: entries of the same index and term are the same, and so are all before them. */
  #checkLogs(): void {
    for (const a of this.members) {
      for (const b of this.members) {
        if (a.id >= b.id) continue;
        const [x, y] = [entriesOf(a), entriesOf(b)];
        let matches = false;
        for (let i = Math.min(x.length, y.length) - 1; i >= 0; i--) {
          const isSame = x[i]!.term === y[i]!.term;
          if (isSame && Buffer.compare(x[i]!.data, y[i]!.data) !== 0)
            throw new Error(`log matching: entry ${i + 2} differs`);
          if (matches && !isSame) throw new Error(`log matching: entries differ at ${i + 2} but match after it`);
          matches ||= isSame;
        }
      }
    }
  }

  #newNode(id: bigint, storage: MemoryStorage, applied: number): RawNode {
    const node = new RawNode({
      id,
      storage,
      applied,
      electionTicks: 1_000_000,
      heartbeatTicks: 1,
      inflightMessagesMax: 4,
      random: new SeededRandom(1),
    });
    this.#options.prepare?.(node, storage);
    return node;
  }

  /** The tracker reports the number of votes, but not the voters. */
  #watchVotes(member: SmallMember): void {
    const { tracker } = member.node.raft;
    const { recordVote, resetVotes } = tracker;
    member.votes = new Map();
    tracker.resetVotes = () => {
      member.votes = new Map();
      resetVotes.call(tracker);
    };
    tracker.recordVote = (id, granted) => {
      member.votes.set(id, granted);
      recordVote.call(tracker, id, granted);
    };
  }
}

/** Everything after the first entry, which all nodes begin with. */
function entriesOf({ node }: SmallMember): Entry[] {
  return node.raft.log.entriesFrom(2, NO_LIMIT)!;
}

function describe({ type, from, to, term, logTerm, index, commit, entries, reject, rejectHint }: Message): string {
  const logged = entries.map((entry) => `${entry.term}${Buffer.from(entry.data).toString()}`).join(".");
  return `${type}:${from}>${to}@${term}:${logTerm}/${index}c${commit}[${logged}]${reject ? `r${rejectHint}` : ""}`;
}

function digestOf(previous: number, text: string): number {
  let digest = previous;
  for (let i = 0; i < text.length; i++) digest = Math.imul(digest ^ text.charCodeAt(i), 0x01000193) | 0;
  return digest;
}
