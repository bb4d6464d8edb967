/**
 * A raft group under a hostile network and hostile machines, all decided by one seed: messages are lost, duplicated and
 * reordered; nodes stop at any point and restart with what they had written; logs are compacted, members change.
 * Messages travel encoded. Invariants are checked throughout; see invariants.ts.
 */
import assert from "node:assert/strict";
import {
  ConfChangeTransition,
  ConfChangeType,
  ConfChangeV2,
  ConfState,
  type Entry,
  type HardState,
  Message,
  MessageType,
  type Snapshot,
} from "../../../src/proto/raftpb.ts";
import { asV2, confChangeOf } from "../../../src/raft/confchange/change.ts";
import type { RaftConfig } from "../../../src/raft/config.ts";
import { MemoryStorage } from "../../../src/raft/memory-storage.ts";
import { isLocalMsgTarget } from "../../../src/raft/messages.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import { Invariants } from "./invariants.ts";
import { SeededRandom } from "./random.ts";

export type SimulationOptions = Partial<
  Pick<
    RaftConfig,
    | "asyncStorageWrites"
    | "preVote"
    | "checkQuorum"
    | "messageBytesMax"
    | "committedBytesMax"
    | "uncommittedBytesMax"
    | "inflightMessagesMax"
    | "stepDownOnRemoval"
  >
>;

const NETWORK_MAX = 400;
const MEMBERS_MAX = 6;

/** Written state; survives a crash. A snapshot to send contains the state at that moment, as in etcd. */
class SimulatedStorage extends MemoryStorage {
  readonly #member: Member;

  constructor(member: Member) {
    super();
    this.#member = member;
  }

  override snapshot(): Snapshot {
    this.#member.makeSnapshot();
    return super.snapshot();
  }

  heldSnapshot(): Snapshot {
    return super.snapshot();
  }
}

export class Member {
  readonly id: bigint;
  readonly storage: SimulatedStorage;
  node: RawNode;
  readonly appendWork: Message[] = [];
  readonly applyWork: Message[] = [];
  /** The state machine: a digest of all entries up to `appliedIndex`. */
  digest = 0;
  appliedIndex = 0;
  confState: ConfState;
  readonly #options: SimulationOptions;
  readonly #random: SeededRandom;

  constructor(id: bigint, first: Snapshot | undefined, options: SimulationOptions, random: SeededRandom) {
    this.id = id;
    this.#options = options;
    this.#random = random;
    this.storage = new SimulatedStorage(this);
    if (first !== undefined) this.storage.applySnapshot(first);
    this.confState = ConfState.create();
    this.node = this.restart();
  }

  /** Loses unwritten state, and restarts from the last snapshot, as a member does. */
  restart(): RawNode {
    this.appendWork.length = 0;
    this.applyWork.length = 0;
    this.#load(this.storage.heldSnapshot());
    this.node = new RawNode({
      electionTicks: 5,
      heartbeatTicks: 1,
      inflightMessagesMax: 8,
      ...this.#options,
      id: this.id,
      storage: this.storage,
      random: this.#random,
      applied: this.appliedIndex,
    });
    return this.node;
  }

  write(hardState: HardState | undefined, entries: Entry[], snapshot: Snapshot | undefined): void {
    if (hardState !== undefined) {
      const held = this.storage.initialState().hardState?.commit ?? 0;
      this.storage.setHardState({ ...hardState, commit: Math.max(hardState.commit, held) });
    }
    if (snapshot !== undefined) this.storage.applySnapshot(snapshot);
    this.storage.append(entries);
  }

  applySnapshot(snapshot: Snapshot, invariants: Invariants): void {
    this.#load(snapshot);
    invariants.applied(this.id, this.appliedIndex, this.digest);
  }

  apply(entries: readonly Entry[], invariants: Invariants): void {
    for (const entry of entries) {
      // A snapshot overtook the apply thread.
      if (this.#options.asyncStorageWrites && entry.index <= this.appliedIndex) continue;
      assert.equal(entry.index, this.appliedIndex + 1, "entries come out to apply in order, without a gap");
      const change = confChangeOf(entry);
      if (change !== undefined) this.confState = this.node.applyConfChange(asV2(change));
      this.appliedIndex = entry.index;
      this.digest = digestOf(this.digest, entry);
      invariants.applied(this.id, this.appliedIndex, this.digest);
    }
  }

  makeSnapshot(): void {
    const { storage, appliedIndex } = this;
    if (appliedIndex <= storage.heldSnapshot().metadata!.index || appliedIndex > storage.lastIndex()) return;
    storage.createSnapshot(appliedIndex, this.confState, Buffer.from(String(this.digest)));
    // Entries may be applied before the commit index that covers them is written. A restart needs both.
    const { hardState } = storage.initialState();
    if (hardState !== undefined && hardState.commit < appliedIndex) {
      storage.setHardState({ ...hardState, commit: appliedIndex });
    }
  }

  /** Makes a snapshot of the state machine and drops the log it covers, except for `keep` entries. */
  compact(keep: number): void {
    const index = this.storage.snapshot().metadata!.index - keep;
    if (index >= this.storage.firstIndex()) this.storage.compact(index);
  }

  #load(snapshot: Snapshot): void {
    this.digest = Number(Buffer.from(snapshot.data).toString());
    this.appliedIndex = snapshot.metadata?.index ?? 0;
    this.confState = snapshot.metadata?.confState ?? ConfState.create();
  }
}

export class Simulation {
  readonly random: SeededRandom;
  readonly members: Member[] = [];
  readonly invariants: Invariants;
  readonly #options: SimulationOptions;
  /** Messages in flight, encoded. */
  #network: Uint8Array[] = [];
  /** Ids of partitioned nodes. */
  #isolated = new Set<bigint>();
  /**
   * Set when fewer than a majority of the voters remained voters in one change. The former voters may be the only ones
   * to know, cannot campaign any more, and have a longer log than the remaining ones.
   */
  #mayGetStuck = false;
  #proposals = 0;
  #reads = 0;

  constructor(seed: number, voters: number, options: SimulationOptions) {
    this.random = new SeededRandom(seed);
    this.#options = options;
    this.invariants = new Invariants();
    const confState = ConfState.create({ voters: Array.from({ length: voters }, (_, i) => BigInt(i + 1)) });
    const first: Snapshot = { data: Buffer.from("0"), metadata: { confState, index: 1, term: 1 } };
    for (let i = 0; i < voters; i++) this.#add(first);
  }

  /** Takes `count` random steps. */
  run(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#act();
      this.invariants.check(this.members);
    }
  }

  /**
   * Ends all faults and lets the group come to rest. Every member of the configuration must end with the same state,
   * unless membership changes can leave a group permanently without a leader.
   */
  settle(): void {
    this.#isolated.clear();
    const isDone = () => {
      const leader = this.#leader();
      if (leader === undefined) return false;
      const { config, progress, commit } = leader.node.status();
      const ids = [...config.voters.ids(), ...config.learners];
      return (
        !config.voters.isJoint &&
        progress.size === ids.length &&
        commit === leader.storage.lastIndex() &&
        ids.every((id) => this.#member(id).appliedIndex === commit)
      );
    };
    let proposed = false;
    for (let round = 0; round < (this.#mayGetStuck ? 200 : 3000); round++) {
      for (const member of this.members) {
        member.node.tick();
        if (round % 5 === 0) this.#leaveJoint(member);
        if (round % 50 === 0) this.#reportLostSnapshots(member);
        // A removed member is shut down, which matters if it is still leader.
        if (member.node.isLeader && member.node.raft.tracker.get(member.id) === undefined) this.#restart(member);
      }
      // Everything arrives, in order.
      for (let busy = true; busy; ) {
        busy = false;
        for (const member of this.members) busy = this.#work(member) || busy;
        const messages = this.#network;
        this.#network = [];
        for (const message of messages) this.#deliver(Message.decode(message));
        busy ||= messages.length > 0;
      }
      this.invariants.check(this.members);
      if (!isDone()) continue;
      if (proposed) return;
      // At rest. New proposals must still reach every member.
      const leader = this.#leader()!;
      proposed = leader.node.propose(Buffer.from("last")) === undefined;
    }
    assert.ok(this.#mayGetStuck, "the group came to no rest after its troubles ended");
  }

  /** The leader of the latest term; one that was deposed or removed may not know it. */
  #leader(): Member | undefined {
    const leaders = this.members.filter(({ node }) => node.isLeader);
    return leaders.sort((a, b) => b.node.term - a.node.term)[0];
  }

  #act(): void {
    const { random } = this;
    const member = this.members[random.below(this.members.length)]!;
    const dice = random.below(1000);
    if (dice < 300) for (let i = random.below(8); i >= 0; i--) this.#deliverAny();
    else if (dice < 550) this.#workSome(member);
    else if (dice < 800) member.node.tick();
    else if (dice < 900) this.#propose(member);
    else if (dice < 930) this.#read(member);
    else if (dice < 940) this.#crash(member);
    else if (dice < 960) this.#isolateAny();
    else if (dice < 970) member.compact(random.below(4));
    else if (dice < 980) this.#changeConfiguration(member);
    else if (dice < 985) this.#leaveJoint(member);
    else if (dice < 990) member.node.transferLeader(this.#anyId());
    else if (dice < 993) member.node.reportUnreachable(this.#anyId());
    else if (dice < 997) member.node.reportSnapshot(this.#anyId(), random.oneIn(2));
    else member.node.campaign();
  }

  #add(first: Snapshot | undefined): void {
    this.members.push(new Member(BigInt(this.members.length + 1), first, this.#options, this.random));
  }

  #member(id: bigint): Member {
    return this.members[Number(id) - 1]!;
  }

  #anyId(): bigint {
    return BigInt(1 + this.random.below(this.members.length));
  }

  #propose(member: Member): void {
    const count = 1 + this.random.below(3);
    const datas = Array.from({ length: count }, () => Buffer.from(`proposal ${++this.#proposals}`));
    member.node.proposeBatch(datas);
  }

  #read(member: Member): void {
    const name = String(++this.#reads);
    this.invariants.readStarted(name);
    member.node.readIndex(Buffer.from(name));
  }

  #crash(member: Member): void {
    // Some crash after taking work but before doing it, some after writing but before sending.
    if (!this.#options.asyncStorageWrites && member.node.hasReady() && this.random.oneIn(2)) {
      const ready = member.node.ready();
      if (this.random.oneIn(2)) member.write(ready.hardState, ready.entries, ready.snapshot);
    }
    this.#restart(member);
  }

  #restart(member: Member): void {
    this.invariants.restarted(member.id);
    member.restart();
  }

  #isolateAny(): void {
    if (this.random.oneIn(2)) this.#isolated.clear();
    else if (this.#isolated.size < this.members.length / 2) this.#isolated.add(this.#anyId());
  }

  #changeConfiguration(member: Member): void {
    const { random } = this;
    if (!member.node.isLeader) return;
    const types = [
      ConfChangeType.ConfChangeAddNode,
      ConfChangeType.ConfChangeAddNode,
      ConfChangeType.ConfChangeAddLearnerNode,
      ConfChangeType.ConfChangeRemoveNode,
    ];
    if (this.members.length < MEMBERS_MAX && random.oneIn(3)) this.#add(undefined);
    const changes = Array.from({ length: 1 + random.below(3) }, () => {
      return { type: types[random.below(types.length)]!, nodeId: this.#anyId() };
    });
    const before = member.node.status().config.voters.incoming;
    const voters = new Set(before.ids);
    for (const { type, nodeId } of changes) {
      if (type === ConfChangeType.ConfChangeAddNode) voters.add(nodeId);
      else voters.delete(nodeId);
    }
    // A change that leaves no voters may be proposed but must not be applied.
    if (voters.size === 0) return;
    const transition = random.oneIn(2)
      ? ConfChangeTransition.ConfChangeTransitionJointExplicit
      : ConfChangeTransition.ConfChangeTransitionJointImplicit;
    member.node.proposeConfChange(ConfChangeV2.create({ transition, changes }));
    const kept = [...before.ids].filter((id) => voters.has(id)).length;
    if (kept <= before.size / 2) this.#mayGetStuck = true;
  }

  #leaveJoint(member: Member): void {
    const { config } = member.node.status();
    if (member.node.isLeader && config.voters.isJoint) member.node.proposeConfChange(ConfChangeV2.create());
  }

  /** A transport eventually knows that a snapshot did not arrive, and reports it. */
  #reportLostSnapshots({ node }: Member): void {
    for (const [id, { state }] of node.status().progress) if (state === "StateSnapshot") node.reportSnapshot(id, false);
  }

  #deliverAny(): void {
    if (this.#network.length === 0) return;
    const at = this.random.below(Math.min(this.#network.length, 20));
    const encoded = this.#network[at]!;
    if (!this.random.oneIn(20)) this.#network.splice(at, 1);
    if (!this.random.oneIn(20)) this.#deliver(Message.decode(encoded));
  }

  #deliver(message: Message): void {
    if (this.#isolated.has(message.from) || this.#isolated.has(message.to)) return;
    const member = this.members[Number(message.to) - 1];
    member?.node.step(message);
    if (message.type === MessageType.MsgSnap) this.#member(message.from).node.reportSnapshot(message.to, true);
  }

  /** Does all of a member's work. False if there was none. */
  #work(member: Member): boolean {
    let worked = false;
    while (this.#workSome(member)) worked = true;
    return worked;
  }

  /** Does one piece of a member's work. */
  #workSome(member: Member): boolean {
    const kinds = [this.#takeReady, this.#writeSome, this.#applySome];
    const first = this.random.below(kinds.length);
    for (let i = 0; i < kinds.length; i++) {
      if (kinds[(first + i) % kinds.length]!.call(this, member)) return true;
    }
    return false;
  }

  #takeReady(member: Member): boolean {
    const { node } = member;
    if (!node.hasReady()) return false;
    const ready = node.ready();
    for (const { index, requestCtx } of ready.readStates) {
      this.invariants.readDone(Buffer.from(requestCtx).toString(), index);
    }
    if (!this.#options.asyncStorageWrites) {
      member.write(ready.hardState, ready.entries, ready.snapshot);
      if (ready.snapshot !== undefined) member.applySnapshot(ready.snapshot, this.invariants);
    }
    for (const message of ready.messages) {
      if (!isLocalMsgTarget(message.to)) this.#send(message);
      else if (message.type === MessageType.MsgStorageAppend) member.appendWork.push(message);
      else member.applyWork.push(message);
    }
    if (!this.#options.asyncStorageWrites) {
      member.apply(ready.committedEntries, this.invariants);
      node.advance();
    }
    return true;
  }

  #writeSome(member: Member): boolean {
    const work = member.appendWork.shift();
    if (work === undefined) return false;
    const { term, vote, commit } = work;
    const changed = term !== 0 || vote !== 0n || commit !== 0;
    member.write(changed ? { term, vote, commit } : undefined, work.entries, work.snapshot);
    if (work.snapshot !== undefined) member.applySnapshot(work.snapshot, this.invariants);
    this.#respond(member, work);
    return true;
  }

  #applySome(member: Member): boolean {
    const work = member.applyWork.shift();
    if (work === undefined) return false;
    member.apply(work.entries, this.invariants);
    this.#respond(member, work);
    return true;
  }

  #respond(member: Member, work: Message): void {
    for (const response of work.responses) {
      if (response.to === member.id) member.node.step(response);
      else this.#send(response);
    }
  }

  #send(message: Message): void {
    this.#network.push(Message.encode(message));
    // The oldest are lost first, as in a real network queue.
    if (this.#network.length > NETWORK_MAX) this.#network.shift();
  }
}

/** 32 bits that depend on all applied entries, in order. */
function digestOf(previous: number, entry: Entry): number {
  let digest = Math.imul(previous ^ entry.index, 0x01000193) ^ Math.imul(entry.term, 0x85ebca6b);
  for (const byte of entry.data) digest = Math.imul(digest ^ byte, 0x01000193);
  return digest | 0;
}
