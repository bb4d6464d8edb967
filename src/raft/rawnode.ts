/**
 * RawNode: one member of a raft group, driven by its owner.
 *
 * The node decides; it touches neither disk nor network nor clock. Its owner has these duties:
 *
 * 1. Call tick() at regular intervals, and step() with every message that arrives for this node.
 * 2. While hasReady(), take a Ready and, in this order:
 *    a. Write its entries, hard state and snapshot to stable storage; sync if `mustSync`. An entry written at an index
 *       replaces everything at or after that index. Then make them readable through the RaftStorage.
 *    b. Send its messages, in order, never before (a). A leader may send while it writes (thesis, section 10.2.1):
 *       its messages promise nothing about its own disk. A MsgSnap needs a reportSnapshot() when its fate is known,
 *       and a peer that cannot be reached a reportUnreachable().
 *    c. Apply its snapshot, then its committed entries. For each one that carries a configuration change, call
 *       applyConfChange(), or reject the change by giving it node id 0; that decision must follow from the replicated
 *       state alone, so that all members decide the same.
 *    d. Call advance(), once for each Ready. Another Ready may only be taken after that.
 * 3. After a restart, fill the storage with the last snapshot, hard state and entries first, and pass the applied
 *    index. It may not be above the hard state's commit. Entries may be applied before the hard state that commits them
 *    is written; then a snapshot of the state machine must wait for it, or raise the commit itself.
 *
 * With `asyncStorageWrites` step 2 differs, and more can be in progress at a time: of a Ready only `messages`,
 * `mustSync`, `softState` and `readStates` count, and there is no advance(). A message to LOCAL_APPEND_THREAD
 * (MsgStorageAppend: entries, snapshot, and the hard state as term, vote and commit unless all are 0) is to be written,
 * a message to LOCAL_APPLY_THREAD (MsgStorageApply) is to be applied; each thread works in order and loses nothing.
 * When a message is done, each of its `responses` goes to its addressee: step() if that is this node, else the network.
 * For an append, done means durable: synced if the Ready that brought it says `mustSync` or it has a snapshot; a commit
 * index alone needs no sync, only its place in the order. All other messages go out at once. A snapshot in a
 * MsgStorageAppend can overtake entries that wait to be applied: once it is loaded, the apply thread skips those that
 * it covers, configuration changes included, and responds.
 *
 * Messages from the network must not claim to come from one of the two local threads; refuse those before step().
 * Messages, entries and snapshots passed to or taken from the node must not be changed afterwards.
 */
import { broken, invariant } from "../base/fatal.ts";
import {
  ConfChange,
  type ConfState,
  type Entry,
  EntryType,
  type HardState,
  type Message,
  MessageType,
} from "../proto/raftpb.ts";
import { type AnyConfChange, asV2, confChangeEntry } from "./confchange/change.ts";
import type { RaftConfig } from "./config.ts";
import { entriesSize } from "./entry-size.ts";
import {
  ErrBootstrapNotEmpty,
  ErrBootstrapWithoutPeers,
  ErrStepLocalMsg,
  ErrStepPeerNotFound,
  type RaftError,
} from "./errors.ts";
import { applyConfChange } from "./membership.ts";
import { isLocalMsg, isLocalMsgTarget, isResponseMsg, NONE, newEntry, newMessage } from "./messages.ts";
import { Raft } from "./raft.ts";
import {
  needsStorageAppendResp,
  newStorageAppend,
  newStorageAppendResp,
  newStorageApply,
  newStorageApplyResp,
  type Ready,
  type SoftState,
} from "./ready.ts";
import { type BasicStatus, basicStatus, type Status, status } from "./status.ts";
import { step, tick } from "./step.ts";

export type { Ready, SoftState } from "./ready.ts";

/** A first member, and the data for the application in the change that adds it. */
export interface Peer {
  readonly id: bigint;
  readonly context: Uint8Array;
}

export class RawNode {
  /** The state machine itself, for tests and simulation to inspect. */
  readonly raft: Raft;
  readonly #async: boolean;
  /** The soft state of the last Ready. */
  #previousSoft: SoftState;
  #previousHard: HardState;
  /** Acknowledgements to this node itself that advance() delivers. */
  #stepsOnAdvance: Message[] = [];
  #advanceDue = false;

  /** Throws RaftConfigError; InvariantError or ConfChangeError if the storage holds no valid state. */
  constructor(config: RaftConfig) {
    this.raft = new Raft(config);
    this.#async = this.raft.config.asyncStorageWrites;
    this.#previousSoft = this.#softState();
    this.#previousHard = this.#hardState();
  }

  get id(): bigint {
    return this.raft.id;
  }

  /** The leader of the current term, as far as known; 0 without one. */
  get leader(): bigint {
    return this.raft.lead;
  }

  get isLeader(): boolean {
    return this.raft.state === "StateLeader";
  }

  get term(): number {
    return this.raft.term;
  }

  get committed(): number {
    return this.raft.log.committed;
  }

  /** Highest index reported as applied, by advance() or MsgStorageApplyResp. */
  get applied(): number {
    return this.raft.log.applied;
  }

  /**
   * Starts a new group: puts one committed change for each first member into the empty log. All first members must do
   * the same. Returns ErrBootstrapWithoutPeers or ErrBootstrapNotEmpty.
   */
  bootstrap(peers: readonly Peer[]): RaftError | undefined {
    const { raft } = this;
    if (peers.length === 0) return ErrBootstrapWithoutPeers;
    if (raft.log.storage.lastIndex() !== 0) return ErrBootstrapNotEmpty;
    // The first Ready must carry the hard state.
    this.#previousHard = { term: 0, vote: NONE, commit: 0 };
    raft.becomeFollower(1, NONE);
    const changes = peers.map(({ id, context }) => ConfChange.create({ nodeId: id, context }));
    const entries = changes.map((change, i): Entry => {
      return { type: EntryType.EntryConfChange, term: 1, index: i + 1, data: ConfChange.encode(change) };
    });
    raft.log.append(entries);
    raft.log.committed = entries.length;
    // Applied now so that the node can campaign at once; applied again, without effect, when the entries are delivered.
    for (const change of changes) this.applyConfChange(change);
    return undefined;
  }

  tick(): void {
    tick(this.raft);
  }

  /** Starts an election now, if this node may. */
  campaign(): void {
    step(this.raft, newMessage(MessageType.MsgHup, NONE));
  }

  /** Proposes one normal entry. See proposeBatch(). */
  propose(data: Uint8Array): RaftError | undefined {
    return this.#propose([newEntry(data)]);
  }

  /**
   * Proposes normal entries, in order, all or none. Undefined when they are in this leader's log or on their way to the
   * leader; they may still not commit. ErrProposalDropped: nothing was done, because there is no leader, forwarding is
   * disabled, a transfer is in progress, or too much is uncommitted.
   */
  proposeBatch(datas: readonly Uint8Array[]): RaftError | undefined {
    const entries = new Array<Entry>(datas.length);
    for (let i = 0; i < datas.length; i++) entries[i] = newEntry(datas[i]!);
    return this.#propose(entries);
  }

  /**
   * Proposes a configuration change; the empty version-2 change leaves a joint one. A leader that finds it impossible
   * or untimely appends an empty entry instead. Errors as for proposeBatch().
   */
  proposeConfChange(change: AnyConfChange): RaftError | undefined {
    return this.#propose([confChangeEntry(change)]);
  }

  /**
   * Applies a committed change and returns the configuration. Throws ConfChangeError if it does not fit. While a
   * snapshot waits to be loaded it does nothing and returns the snapshot's configuration, which is already in force.
   */
  applyConfChange(change: AnyConfChange): ConfState {
    return applyConfChange(this.raft, asV2(change));
  }

  /**
   * Handles a message from another node or from a local storage thread. Returns ErrStepLocalMsg or ErrStepPeerNotFound
   * for messages that are not allowed here, ErrProposalDropped for a MsgProp that was dropped.
   */
  step(message: Message): RaftError | undefined {
    const { type, from } = message;
    if (!isLocalMsgTarget(from)) {
      if (isLocalMsg(type)) return ErrStepLocalMsg;
      if (isResponseMsg(type) && this.raft.tracker.get(from) === undefined) return ErrStepPeerNotFound;
    }
    if (type === MessageType.MsgProp) {
      // The log takes over proposed entries, and the sender may still use these.
      const copy = newMessage(type, message.to, from, message.term);
      copy.entries = message.entries.map((entry) => ({ ...entry }));
      return step(this.raft, copy);
    }
    return step(this.raft, message);
  }

  /** Asks for an index at which a read is linearizable; the answer is in a Ready's readStates, or never comes. */
  readIndex(requestCtx: Uint8Array): void {
    const message = newMessage(MessageType.MsgReadIndex, NONE);
    message.entries.push(newEntry(requestCtx));
    step(this.raft, message);
  }

  /** Asks the leader to hand over to a voter; it tries for one election timeout. */
  transferLeader(target: bigint): void {
    step(this.raft, newMessage(MessageType.MsgTransferLeader, NONE, target));
  }

  /** Makes a follower forget its leader, so that it can vote before its election timeout. */
  forgetLeader(): void {
    step(this.raft, newMessage(MessageType.MsgForgetLeader, NONE));
  }

  /** The last message to a node was probably lost. */
  reportUnreachable(id: bigint): void {
    step(this.raft, newMessage(MessageType.MsgUnreachable, NONE, id));
  }

  /** The outcome of a snapshot sent to a node. */
  reportSnapshot(id: bigint, received: boolean): void {
    const message = newMessage(MessageType.MsgSnapStatus, NONE, id);
    message.reject = !received;
    step(this.raft, message);
  }

  status(): Status {
    return status(this.raft);
  }

  basicStatus(): BasicStatus {
    return basicStatus(this.raft);
  }

  hasReady(): boolean {
    const { raft } = this;
    const { log } = raft;
    return (
      raft.messages.length > 0 ||
      raft.messagesAfterAppend.length > 0 ||
      raft.readStates.length > 0 ||
      log.unstable.hasNextEntries ||
      log.hasNextCommittedEntries(!this.#async) ||
      this.#softChanged() ||
      this.#hardChanged() ||
      log.unstable.nextSnapshot() !== undefined
    );
  }

  /** Returns the work that is due. The owner must handle it; see the head of this file. */
  ready(): Ready {
    if (this.#advanceDue) broken("two accepted Ready structs without call to Advance");
    const { raft } = this;
    const { log } = raft;
    const hardChanged = this.#hardChanged();
    const entries = log.unstable.hasNextEntries ? log.unstable.nextEntries() : [];
    const ready: Ready = {
      softState: this.#softChanged() ? this.#softState() : undefined,
      hardState: hardChanged ? this.#hardState() : undefined,
      readStates: raft.readStates,
      entries,
      snapshot: log.unstable.nextSnapshot(),
      committedEntries: log.nextCommittedEntries(!this.#async),
      messages: raft.messages,
      mustSync: entries.length > 0 || raft.vote !== this.#previousHard.vote || raft.term !== this.#previousHard.term,
    };
    if (this.#async) this.#orderStorageWrites(ready);
    else this.#deferOwnAcks(ready);
    this.#accept(ready);
    return ready;
  }

  /** Reports that the last Ready is handled. Only without asyncStorageWrites. */
  advance(): void {
    if (this.#async) broken("Advance must not be called when using AsyncStorageWrites");
    const steps = this.#stepsOnAdvance;
    this.#stepsOnAdvance = [];
    this.#advanceDue = false;
    for (const message of steps) this.step(message);
  }

  #propose(entries: Entry[]): RaftError | undefined {
    const message = newMessage(MessageType.MsgProp, NONE, this.raft.id);
    message.entries = entries;
    return step(this.raft, message);
  }

  /** Adds the messages to the local threads. */
  #orderStorageWrites(ready: Ready): void {
    const { raft } = this;
    if (
      ready.entries.length > 0 ||
      ready.hardState !== undefined ||
      ready.snapshot !== undefined ||
      raft.messagesAfterAppend.length > 0
    ) {
      ready.messages.push(newStorageAppend(raft, ready));
    }
    if (ready.committedEntries.length > 0) ready.messages.push(newStorageApply(raft, ready.committedEntries));
  }

  /** Adds the acknowledgements for other nodes, which go out after the writes anyway, and keeps this node's own. */
  #deferOwnAcks(ready: Ready): void {
    const { raft } = this;
    const steps = this.#stepsOnAdvance;
    for (const message of raft.messagesAfterAppend) (message.to === raft.id ? steps : ready.messages).push(message);
    if (needsStorageAppendResp(raft, ready)) steps.push(newStorageAppendResp(raft, ready));
    if (ready.committedEntries.length > 0) steps.push(newStorageApplyResp(raft, ready.committedEntries));
    this.#advanceDue = true;
  }

  #accept(ready: Ready): void {
    const { raft } = this;
    if (ready.softState !== undefined) this.#previousSoft = ready.softState;
    if (ready.hardState !== undefined) {
      const { term, commit } = ready.hardState;
      const previous = this.#previousHard;
      invariant(term >= previous.term && commit >= previous.commit, "term and commit index never fall", term, commit);
      this.#previousHard = ready.hardState;
    }
    if (raft.readStates.length > 0) raft.readStates = [];
    raft.messages = [];
    raft.messagesAfterAppend = [];
    raft.log.unstable.acceptInProgress();
    const last = ready.committedEntries.at(-1);
    if (last !== undefined) {
      raft.log.acceptApplying(last.index, entriesSize(ready.committedEntries), !this.#async);
    }
  }

  #softState(): SoftState {
    return { lead: this.raft.lead, state: this.raft.state };
  }

  #softChanged(): boolean {
    return this.raft.lead !== this.#previousSoft.lead || this.raft.state !== this.#previousSoft.state;
  }

  #hardState(): HardState {
    return { term: this.raft.term, vote: this.raft.vote, commit: this.raft.log.committed };
  }

  #hardChanged(): boolean {
    const { raft } = this;
    const previous = this.#previousHard;
    return raft.log.committed !== previous.commit || raft.term !== previous.term || raft.vote !== previous.vote;
  }
}
