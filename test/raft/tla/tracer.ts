/**
 * Observes nodes of a raft group from outside and records what etcd's TLA+ specification of raft needs to follow them.
 * It wraps methods of the given nodes; the core does not know about it.
 *
 * The specification is simpler than etcd's raft in some points. Where a step has no counterpart but also no effect that
 * the specification can see, it is omitted, like a lost message. Where it has an effect, the trace ends before it, and
 * `endedBy` says why. Neither can hide a fault: every further event contains its node's state, and TLC rejects the
 * trace if that is not the specification's state.
 *
 * Omitted, or recorded differently:
 * - pre-votes; a pre-candidate is a follower, also if it was a candidate before;
 * - vote requests ignored because of the leader's lease, or refused because the term's leader is known: the
 *   specification would answer, or vote;
 * - the part of a commit index beyond the entries sent with it;
 * - the acknowledgement that makes a replaced leader step down is a rejection to the specification;
 * - a received snapshot is recorded as the entries it represents: the specification accepts snapshots only into empty
 *   logs, and does not recognise their acknowledgements.
 */
import {
  ConfChangeType,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  type Snapshot,
} from "../../../src/proto/raftpb.ts";
import { asV2, confChangeOf, entersJoint } from "../../../src/raft/confchange/change.ts";
import { NO_LIMIT } from "../../../src/raft/entry-size.ts";
import { isLocalMsgTarget, isResponseMsg, messageTypeName, NONE } from "../../../src/raft/messages.ts";
import type { Raft } from "../../../src/raft/raft.ts";
import type { RawNode } from "../../../src/raft/rawnode.ts";
import type { ProgressTracker } from "../../../src/raft/tracker/tracker.ts";
import {
  type EventName,
  kindOf,
  newEvent,
  newTraceMessage,
  roleOf,
  type TraceChange,
  type TraceEvent,
} from "./event.ts";

/** The known facts about a sent message, by object. */
interface Sent {
  readonly event: TraceEvent;
  /** What the receiver of a snapshot was known to have. */
  readonly match: number;
  received: boolean;
}

export class Tracer {
  readonly events: TraceEvent[] = [];
  /** Why nothing more is recorded: the specification does not model it. */
  endedBy: string | undefined;
  readonly #sent = new WeakMap<Message, Sent>();
  /** The same, by content: a network may carry messages encoded. Equal ones are the same to the specification too. */
  readonly #sentBySaying = new Map<string, Sent[]>();
  /** Answers to messages that the specification never received. */
  readonly #unsent = new WeakSet<Message>();
  readonly #unsentSayings = new Set<string>();
  readonly #started = new Set<string>();
  readonly #removed = new Set<bigint>();
  /** Terms of committed entries, by index. A group begins with entries of term 1. */
  readonly #committedTerms: number[] = [0];

  readonly #eventsMax: number;

  /** Records at most this many events. */
  constructor(eventsMax = Number.MAX_SAFE_INTEGER) {
    this.#eventsMax = eventsMax;
  }

  /**
   * Observes a node driven elsewhere, with asynchronous writes, that loses at a restart what the specification does not
   * allow to be lost.
   */
  attachDriven(node: RawNode): void {
    if (this.#started.has(String(node.id))) this.#end("a restart");
    this.attach(node);
    const { ready } = node;
    node.ready = () => {
      const work = ready.call(node);
      this.persisted(node);
      return work;
    };
  }

  /** Observes a node from its start or restart. */
  attach(node: RawNode): void {
    const { raft } = node;
    if (!this.#started.has(String(raft.id)) && raft.tracker.config.learners.size > 0) {
      this.#end("a group that begins with learners");
    }
    this.record("InitState", raft);
    this.#started.add(String(raft.id));
    new Watch(this, node);
  }

  /**
   * A Ready of the node is written, or in asynchronous mode being written: its messages may be sent now. To the
   * specification that is one step; a crash must not come between.
   */
  persisted(node: RawNode): void {
    this.record("Ready", node.raft);
  }

  /** The whole trace. The specification requires every node mentioned to have started. */
  finish(): readonly TraceEvent[] {
    const missing = new Set<string>();
    for (const { prop } of this.events) for (const { nid } of prop?.cc.changes ?? []) missing.add(nid);
    for (const nid of missing) {
      if (this.#started.has(nid)) continue;
      this.#started.add(nid);
      this.events.push({
        name: "InitState",
        nid,
        state: { term: 0, vote: "0", commit: 0 },
        role: "StateFollower",
        log: 0,
        conf: [[], []],
      });
    }
    return this.events;
  }

  record(name: EventName, raft: Raft, more: Partial<TraceEvent> = {}): TraceEvent {
    const event = { ...newEvent(name, raft), ...more };
    const terms = this.#committedTerms;
    for (let index = terms.length; index <= raft.log.committed; index++) terms.push(raft.log.term(index) ?? 1);
    if (this.endedBy === undefined && this.events.length < this.#eventsMax) this.events.push(event);
    return event;
  }

  #end(reason: string): void {
    if (this.events.length < this.#eventsMax) this.endedBy ??= reason;
  }

  /** For Watch: facts about more than one node. */
  readonly shared = {
    end: (reason: string): void => this.#end(reason),
    removed: this.#removed,
    committedTerms: this.#committedTerms,
    /** The known facts about an arriving message; "unsent" if the specification never saw it sent. */
    sentOf: (message: Message): Sent | "unsent" | undefined => {
      const sent = this.#sent.get(message);
      if (sent !== undefined) return sent;
      if (this.#unsent.has(message)) return "unsent";
      const saying = sayingOf(message);
      return this.#sentBySaying.get(saying)?.pop() ?? (this.#unsentSayings.has(saying) ? "unsent" : undefined);
    },
    sends: (message: Message, sent: Sent | "unsent"): void => {
      if (this.endedBy !== undefined || this.events.length >= this.#eventsMax) return;
      const saying = sayingOf(message);
      if (sent === "unsent") {
        this.#unsent.add(message);
        this.#unsentSayings.add(saying);
        return;
      }
      this.#sent.set(message, sent);
      const others = this.#sentBySaying.get(saying);
      if (others === undefined) this.#sentBySaying.set(saying, [sent]);
      else others.push(sent);
    },
  };
}

/** Equal for messages that are equal to the specification, or would be. */
function sayingOf(message: Message): string {
  return `${JSON.stringify(newTraceMessage(message))} ${message.context.length}`;
}

/** One node, from start to end. */
class Watch {
  readonly #tracer: Tracer;
  readonly #raft: Raft;
  /** The message being handled, if the specification receives it too. */
  #receiving: Message | undefined;
  /** The message being handled, if the specification does not. */
  #ignoring: Message | undefined;
  #becomesLeader = false;
  /** The specification's pendingConfChangeIndex. A follower that applies the change does not clear it there. */
  #pendingChange = 0;
  #tracker: ProgressTracker | undefined;

  constructor(tracer: Tracer, node: RawNode) {
    this.#tracer = tracer;
    const { raft } = node;
    const { log } = raft;
    this.#raft = raft;
    this.#watchTracker();

    const { step } = node;
    node.step = (message) => {
      this.#receive(message);
      try {
        return step.call(node, message);
      } finally {
        this.#receiving = undefined;
        this.#ignoring = undefined;
        this.#watchTracker();
      }
    };
    const { send, becomeFollower, becomePreCandidate, becomeCandidate, becomeLeader } = raft;
    raft.send = (message) => {
      send.call(raft, message);
      this.#sends(message);
    };
    raft.becomeFollower = (term, lead) => {
      const before = { role: roleOf(raft), term: raft.term };
      becomeFollower.call(raft, term, lead);
      this.#becameFollower(before.role, before.term);
    };
    raft.becomePreCandidate = () => {
      const before = roleOf(raft);
      becomePreCandidate.call(raft);
      if (before === "StateCandidate") tracer.record("BecomeFollower", raft);
    };
    raft.becomeCandidate = () => {
      becomeCandidate.call(raft);
      tracer.record("BecomeCandidate", raft);
    };
    raft.becomeLeader = () => {
      this.#becomesLeader = true;
      becomeLeader.call(raft);
    };
    const { append, maybeCommit, restore } = log;
    log.append = (entries, from) => {
      if (raft.state === "StateLeader") this.#appendsAsLeader(entries);
      append.call(log, entries, from);
    };
    log.maybeCommit = (index, term) => {
      const moved = maybeCommit.call(log, index, term);
      tracer.record("Commit", raft);
      return moved;
    };
    log.restore = (snapshot) => {
      restore.call(log, snapshot);
      tracer.record("ApplyConfChange", raft, { prop: { cc: { newconf: votersOf(snapshot) } } });
    };
  }

  /** A snapshot brings a new tracker. */
  #watchTracker(): void {
    const { tracker } = this.#raft;
    if (tracker === this.#tracker) return;
    this.#tracker = tracker;
    const { use } = tracker;
    tracker.use = (config, progress) => {
      if (config.voters.isJoint) this.#end("a joint configuration");
      const event = newEvent("ApplyConfChange", this.#raft);
      use.call(tracker, config, progress);
      const newconf = config.voters.incoming.sorted().map(String);
      this.#tracer.record("ApplyConfChange", this.#raft, { conf: event.conf, prop: { cc: { newconf } } });
      if (this.#raft.state === "StateLeader" && this.#pendingChange >= this.#lastCommittedChange())
        this.#pendingChange = 0;
    };
  }

  #receive(message: Message): void {
    const raft = this.#raft;
    const kind = kindOf(message.type);
    if (kind === undefined || this.#tracer.endedBy !== undefined) return;
    // RawNode ignores answers from non-members.
    if (isResponseMsg(message.type) && !isLocalMsgTarget(message.from) && raft.tracker.get(message.from) === undefined)
      return;
    const sent = this.#tracer.shared.sentOf(message);
    if (sent === "unsent" || this.#isBeyondSpecification(message)) {
      this.#ignoring = message;
      return;
    }
    if (sent === undefined) {
      this.#end(`a ${messageTypeName(message.type)} that no node sent`);
      return;
    }
    if (sent.received) {
      this.#end("a message that came twice");
      return;
    }
    sent.received = true;
    if (message.type === MessageType.MsgSnap && !this.#expandSnapshot(message, sent)) return;
    if (message.type === MessageType.MsgHeartbeat && raft.log.committed === 0 && message.commit > 0) {
      this.#end("a heartbeat that commits the first entries");
      return;
    }
    this.#receiving = message;
    this.#tracer.record(`Receive${kind}`, raft, { msg: { ...sent.event.msg! } });
  }

  /** Whether the specification would treat the message differently, so that it should count as lost. */
  #isBeyondSpecification(message: Message): boolean {
    const raft = this.#raft;
    const { type, term } = message;
    if (type === MessageType.MsgVote) {
      const isLeaderKnown = raft.lead !== NONE;
      if (term === raft.term) return isLeaderKnown && raft.vote === NONE;
      const inLease = raft.config.checkQuorum && isLeaderKnown && raft.electionElapsed < raft.config.electionTicks;
      // Only a transfer's request has a context, and the specification has no lease.
      return term > raft.term && inLease && message.context.length === 0;
    }
    if (type === MessageType.MsgSnap) {
      const { index = 0, confState } = message.snapshot?.metadata ?? {};
      const knowsNode = [confState?.voters, confState?.learners, confState?.votersOutgoing].some((ids) =>
        ids?.includes(raft.id),
      );
      return index > raft.log.committed && !knowsNode;
    }
    return false;
  }

  /** Converts a snapshot, where it was sent, to the entries it represents. */
  #expandSnapshot(message: Message, sent: Sent): boolean {
    const { log } = this.#raft;
    const { index = 0 } = message.snapshot?.metadata ?? {};
    if (message.term < this.#raft.term) return true;
    const previous = Math.max(sent.match, index > log.committed ? log.committed : 0);
    const logTerm = previous === 0 ? 0 : (this.#tracer.shared.committedTerms[previous] ?? log.term(previous));
    if (logTerm === undefined || (previous > log.committed && previous >= index)) {
      this.#end("a snapshot that does not follow what the node has");
      return false;
    }
    const entries = Math.max(0, index - previous);
    Object.assign(sent.event.msg!, { type: "MsgApp", index: previous, logTerm, entries, commit: previous + entries });
    return true;
  }

  #sends(message: Message): void {
    const raft = this.#raft;
    const kind = kindOf(message.type);
    if (kind === undefined) return;
    const { sends } = this.#tracer.shared;
    if (this.#ignoring?.from === message.to && isResponseMsg(message.type)) {
      sends(message, "unsent");
      return;
    }
    const msg = newTraceMessage(message);
    if (message.type === MessageType.MsgAppResp && this.#receiving !== undefined && this.#receiving.term < raft.term) {
      msg.reject = true;
    }
    const event = this.#tracer.record(`Send${kind}`, raft, { msg });
    sends(message, { event, match: raft.tracker.get(message.to)?.match ?? 0, received: false });
  }

  #becameFollower(roleBefore: TraceEvent["role"], termBefore: number): void {
    const raft = this.#raft;
    if (raft.term !== termBefore) {
      // A term comes with a message, which the specification must have received too.
      if (this.#receiving?.term !== raft.term) {
        this.#end("a term that came with a message of no part in the specification");
        return;
      }
    } else if (roleBefore === "StateFollower") return;
    this.#tracer.record("BecomeFollower", raft);
  }

  #appendsAsLeader(entries: readonly Entry[]): void {
    const raft = this.#raft;
    if (this.#becomesLeader) {
      this.#becomesLeader = false;
      this.#tracer.record("BecomeLeader", raft);
    }
    for (const entry of entries) {
      if (entry.type === EntryType.EntryNormal) this.#tracer.record("Replicate", raft);
      else this.#changesConfiguration(entry);
    }
  }

  #changesConfiguration(entry: Entry): void {
    const change = asV2(confChangeOf(entry)!);
    const [single] = change.changes;
    if (single === undefined || entersJoint(change) !== undefined) {
      this.#end("a change by joint consensus");
      return;
    }
    const objection = this.#objectionTo(single.type, single.nodeId);
    if (objection !== undefined) {
      this.#end(objection);
      return;
    }
    if (single.type === ConfChangeType.ConfChangeRemoveNode) this.#tracer.shared.removed.add(single.nodeId);
    const changes: TraceChange[] = [{ nid: String(single.nodeId), action: actions.get(single.type)! }];
    this.#tracer.record("ChangeConf", this.#raft, { prop: { cc: { changes } } });
    this.#pendingChange = entry.index;
  }

  /** Why the specification rejects a change that raft accepts. */
  #objectionTo(type: ConfChangeType, id: bigint): string | undefined {
    const { voters, learners } = this.#raft.tracker.config;
    const isMember = voters.has(id) || learners.has(id);
    if (!actions.has(type)) return "an update of a member";
    if (this.#pendingChange !== 0) return "a change after one that was lost with an earlier leadership";
    if (type === ConfChangeType.ConfChangeRemoveNode) return isMember ? undefined : "the removal of no member";
    if (this.#tracer.shared.removed.has(id)) return "a member that comes back";
    if (type === ConfChangeType.ConfChangeAddNode) return voters.has(id) ? "a voter added again" : undefined;
    return isMember ? "a member made a learner" : undefined;
  }

  /** Index of the last committed change, as far as the log still has it. */
  #lastCommittedChange(): number {
    const { log } = this.#raft;
    const entries = log.slice(log.firstIndex(), log.committed + 1, NO_LIMIT) ?? [];
    return entries.findLast(({ type }) => type !== EntryType.EntryNormal)?.index ?? 0;
  }

  #end(reason: string): void {
    this.#tracer.shared.end(reason);
  }
}

const actions: ReadonlyMap<ConfChangeType, TraceChange["action"]> = new Map([
  [ConfChangeType.ConfChangeAddNode, "AddNewServer"],
  [ConfChangeType.ConfChangeRemoveNode, "RemoveServer"],
  [ConfChangeType.ConfChangeAddLearnerNode, "AddLearner"],
]);

function votersOf(snapshot: Snapshot): string[] {
  return (snapshot.metadata?.confState?.voters ?? []).map(String).sort();
}
