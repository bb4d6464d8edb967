/**
 * A random raft group, from one seed, recorded for the specification: elections, lost and reordered messages,
 * partitioned nodes, crashes and restarts, compaction and snapshots, single membership changes. It meets the
 * specification's assumptions about an application: a Ready is written completely or not at all, and a node remembers
 * what it had applied, with the configuration, as of the last write.
 */
import { EMPTY_BYTES } from "../../../src/base/protobuf.ts";
import {
  ConfChange,
  ConfChangeType,
  ConfState,
  type Entry,
  type HardState,
  type Message,
  MessageType,
  type Snapshot,
} from "../../../src/proto/raftpb.ts";
import { asV2, confChangeOf } from "../../../src/raft/confchange/change.ts";
import { MemoryStorage } from "../../../src/raft/memory-storage.ts";
import { isLocalMsgTarget } from "../../../src/raft/messages.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import { SeededRandom } from "../harness/random.ts";
import { Tracer } from "./tracer.ts";

export interface RunOptions {
  readonly seed: number;
  /** First voters. */
  readonly voters: number;
  /** Nodes that start empty and may be added. */
  readonly spares: number;
  readonly asyncStorageWrites: boolean;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  readonly stepDownOnRemoval: boolean;
  /** Small messages and windows, so that logs are replicated in pieces. */
  readonly smallLimits: boolean;
  /** Ends with the first event past this. */
  readonly eventsMax: number;
}

/** Options of all kinds, chosen by the seed. */
export function runOptions(seed: number, eventsMax: number): RunOptions {
  const random = new SeededRandom(seed * 7919);
  const careful = random.oneIn(2);
  return {
    seed,
    voters: [1, 2, 3, 3, 3, 4, 5][random.below(7)]!,
    spares: random.oneIn(2) ? 2 : 0,
    asyncStorageWrites: random.oneIn(2),
    preVote: careful && random.oneIn(2),
    checkQuorum: careful,
    stepDownOnRemoval: random.oneIn(2),
    smallLimits: random.oneIn(3),
    eventsMax,
  };
}

/** Runs until the trace is long enough, or ended. */
export function recordRun(options: RunOptions): Tracer {
  const run = new Run(options);
  for (let step = 0; step < 40 * options.eventsMax && !run.isOver; step++) run.act();
  return run.tracer;
}

const NETWORK_MAX = 100;

class DurableStorage extends MemoryStorage {
  /** What the application has durably applied, with the configuration of that moment. */
  applied = 0;
  confState = ConfState.create();

  override initialState(): { hardState: HardState | undefined; confState: ConfState } {
    return { ...super.initialState(), confState: this.confState };
  }

  /** Created on request, from what is durably applied. */
  override snapshot(): Snapshot {
    if (this.applied > super.snapshot().metadata!.index) this.createSnapshot(this.applied, this.confState, EMPTY_BYTES);
    return super.snapshot();
  }

  /** Drops most of what the snapshot covers. */
  compactSome(): void {
    const index = this.snapshot().metadata!.index - 2;
    if (index >= this.firstIndex()) this.compact(index);
  }
}

class Node {
  readonly id: bigint;
  readonly storage: DurableStorage;
  raw: RawNode;
  applied = 0;
  confState = ConfState.create();
  readonly appends: Message[] = [];
  readonly applies: Message[] = [];
  readonly #options: RunOptions;
  readonly #random: SeededRandom;

  constructor(id: bigint, first: Snapshot | undefined, options: RunOptions, random: SeededRandom) {
    this.id = id;
    this.#options = options;
    this.#random = random;
    this.storage = new DurableStorage();
    if (first !== undefined) {
      this.storage.applySnapshot(first);
      this.storage.applied = first.metadata!.index;
      this.storage.confState = first.metadata!.confState!;
    }
    this.raw = this.start();
  }

  start(): RawNode {
    const { asyncStorageWrites, preVote, checkQuorum, stepDownOnRemoval, smallLimits } = this.#options;
    this.appends.length = 0;
    this.applies.length = 0;
    this.applied = this.storage.applied;
    this.confState = this.storage.confState;
    this.raw = new RawNode({
      id: this.id,
      electionTicks: 5,
      heartbeatTicks: 1,
      inflightMessagesMax: smallLimits ? 2 : 16,
      ...(smallLimits ? { messageBytesMax: 40, committedBytesMax: 60 } : {}),
      storage: this.storage,
      random: this.#random,
      applied: this.applied,
      asyncStorageWrites,
      preVote,
      checkQuorum,
      stepDownOnRemoval,
    });
    return this.raw;
  }

  write(hardState: HardState | undefined, entries: readonly Entry[], snapshot: Snapshot | undefined): void {
    const { storage } = this;
    if (hardState !== undefined) storage.setHardState(hardState);
    if (snapshot !== undefined) {
      storage.applySnapshot(snapshot);
      this.applied = snapshot.metadata!.index;
      this.confState = snapshot.metadata!.confState!;
      this.remember();
    }
    storage.append(entries);
  }

  /** Makes the applied state durable. */
  remember(): void {
    this.storage.applied = this.applied;
    this.storage.confState = this.confState;
  }

  apply(entries: readonly Entry[]): void {
    for (const entry of entries) {
      // A snapshot overtook the apply thread.
      if (entry.index <= this.applied) continue;
      const change = confChangeOf(entry);
      this.applied = entry.index;
      if (change !== undefined) this.confState = this.raw.applyConfChange(asV2(change));
    }
  }
}

class Run {
  readonly tracer = new Tracer();
  readonly #options: RunOptions;
  readonly #random: SeededRandom;
  readonly #nodes: Node[] = [];
  #network: Message[] = [];
  #isolated = new Set<bigint>();

  constructor(options: RunOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    const confState = ConfState.create({ voters: Array.from({ length: options.voters }, (_, i) => BigInt(i + 1)) });
    const first: Snapshot = { data: EMPTY_BYTES, metadata: { confState, index: 1, term: 1 } };
    for (let i = 1; i <= options.voters + options.spares; i++) {
      const node = new Node(BigInt(i), i <= options.voters ? first : undefined, options, this.#random);
      this.#nodes.push(node);
      this.tracer.attach(node.raw);
    }
  }

  get isOver(): boolean {
    return this.tracer.endedBy !== undefined || this.tracer.events.length >= this.#options.eventsMax;
  }

  act(): void {
    const random = this.#random;
    const node = this.#nodes[random.below(this.#nodes.length)]!;
    const dice = random.below(1000);
    if (dice < 350) for (let i = random.below(6); i >= 0; i--) this.#deliverAny();
    else if (dice < 680) this.#work(node);
    else if (dice < 840) node.raw.tick();
    else if (dice < 890) node.raw.propose(Buffer.from(`value ${dice}`));
    else if (dice < 902) this.#crash(node);
    else if (dice < 917) this.#isolate();
    else if (dice < 950) node.storage.compactSome();
    else if (dice < 984) this.#changeMembers(node);
    else if (dice < 988) node.raw.transferLeader(this.#anyId());
    else if (dice < 991) node.raw.reportUnreachable(this.#anyId());
    else if (dice < 994) node.raw.reportSnapshot(this.#anyId(), random.oneIn(2));
    else if (dice < 997) node.raw.forgetLeader();
    else node.raw.campaign();
  }

  #anyId(): bigint {
    return BigInt(1 + this.#random.below(this.#nodes.length));
  }

  #deliverAny(): void {
    if (this.#network.length === 0) return;
    const [message] = this.#network.splice(this.#random.below(Math.min(this.#network.length, 8)), 1);
    if (this.#random.oneIn(25) || this.#isolated.has(message!.from) || this.#isolated.has(message!.to)) return;
    this.#nodes[Number(message!.to) - 1]?.raw.step(message!);
    const sender = this.#nodes[Number(message!.from) - 1]!;
    if (message!.type === MessageType.MsgSnap) sender.raw.reportSnapshot(message!.to, true);
  }

  #work(node: Node): void {
    const work = [this.#takeReady, this.#append, this.#apply];
    const first = this.#random.below(work.length);
    for (let i = 0; i < work.length; i++) if (work[(first + i) % work.length]!.call(this, node)) return;
  }

  #takeReady(node: Node): boolean {
    const { raw } = node;
    if (!raw.hasReady()) return false;
    const isAsync = this.#options.asyncStorageWrites;
    const ready = raw.ready();
    if (!isAsync) node.write(ready.hardState, ready.entries, ready.snapshot);
    node.remember();
    this.tracer.persisted(raw);
    for (const message of ready.messages) {
      if (!isLocalMsgTarget(message.to)) this.#send(message);
      else if (message.type === MessageType.MsgStorageAppend) node.appends.push(message);
      else node.applies.push(message);
    }
    if (isAsync) return true;
    node.apply(ready.committedEntries);
    raw.advance();
    return true;
  }

  #append(node: Node): boolean {
    const work = node.appends.shift();
    if (work === undefined) return false;
    const { term, vote, commit } = work;
    const changed = term !== 0 || vote !== 0n || commit !== 0;
    node.write(changed ? { term, vote, commit } : undefined, work.entries, work.snapshot);
    this.#respond(node, work);
    return true;
  }

  #apply(node: Node): boolean {
    const work = node.applies.shift();
    if (work === undefined) return false;
    node.apply(work.entries);
    this.#respond(node, work);
    return true;
  }

  #respond(node: Node, work: Message): void {
    for (const response of work.responses) {
      if (response.to === node.id) node.raw.step(response);
      else this.#send(response);
    }
  }

  #send(message: Message): void {
    this.#network.push(message);
    if (this.#network.length > NETWORK_MAX) this.#network.shift();
  }

  /** Loses unwritten state. Ordered writes count as written: the specification has no state in between. */
  #crash(node: Node): void {
    if (node.appends.length > 0) return;
    node.start();
    this.tracer.attach(node.raw);
  }

  #isolate(): void {
    if (this.#random.oneIn(2)) this.#isolated.clear();
    else if (this.#isolated.size < this.#nodes.length / 2) this.#isolated.add(this.#anyId());
  }

  #changeMembers(node: Node): void {
    if (!node.raw.isLeader || this.#options.spares === 0) return;
    const { voters, learners } = node.raw.raft.tracker.config;
    const id = this.#anyId();
    const isVoter = voters.has(id);
    if (isVoter && voters.incoming.size === 1) return;
    const type = isVoter
      ? ConfChangeType.ConfChangeRemoveNode
      : learners.has(id) || this.#random.oneIn(2)
        ? ConfChangeType.ConfChangeAddNode
        : ConfChangeType.ConfChangeAddLearnerNode;
    if (isVoter && !this.#random.oneIn(3)) return;
    node.raw.proposeConfChange(ConfChange.create({ type, nodeId: id }));
  }
}
