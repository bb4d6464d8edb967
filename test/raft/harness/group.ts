/**
 * An in-memory raft group whose owner's duties are done step by step by the test: the basis of the scenario commands.
 * Messages in flight are in one list, in order of sending. The state machine appends each entry to its content.
 */
import { EMPTY_BYTES } from "../../../src/base/protobuf.ts";
import {
  ConfState,
  type Entry,
  type HardState,
  type Message,
  MessageType,
  type Snapshot,
} from "../../../src/proto/raftpb.ts";
import { asV2, confChangeOf } from "../../../src/raft/confchange/change.ts";
import type { RaftConfig } from "../../../src/raft/config.ts";
import { describeMessage, describeReady } from "../../../src/raft/describe.ts";
import { MemoryStorage } from "../../../src/raft/memory-storage.ts";
import { isLocalMsgTarget } from "../../../src/raft/messages.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import type { Output } from "./output.ts";
import { SeededRandom } from "./random.ts";

/** A storage whose snapshot is always that of the last applied entry. */
class HistoryStorage extends MemoryStorage {
  readonly history: Snapshot[] = [];

  override snapshot(): Snapshot {
    return this.history.at(-1)!;
  }
}

export interface Member {
  readonly node: RawNode;
  readonly storage: HistoryStorage;
  readonly asyncStorageWrites: boolean;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly appendWork: Message[];
  readonly applyWork: Message[];
}

/** The snapshot that a node starts from, and its term then. */
export interface Start {
  readonly index: number;
  readonly term: number;
  readonly content: Uint8Array;
  readonly confState: ConfState;
}

/** Called for started nodes, and when a Ready's writes are done, or ordered in asynchronous mode. */
export interface GroupObserver {
  started(node: RawNode): void;
  persisted(node: RawNode): void;
}

/** More than any group needs to come to rest. */
const ROUNDS_MAX = 200;

export type MemberOptions = Partial<Omit<RaftConfig, "id" | "storage" | "random" | "logger">>;

export class Group {
  readonly members: Member[] = [];
  readonly output: Output;
  messages: Message[] = [];

  readonly #observer: GroupObserver | undefined;

  constructor(output: Output, observer?: GroupObserver) {
    this.output = output;
    this.#observer = observer;
  }

  member(id: bigint): Member {
    const member = this.members[Number(id) - 1];
    if (member === undefined) throw new RangeError(`there is no node ${id}`);
    return member;
  }

  /** Adds a node that starts from a snapshot of term 1, or from nothing. */
  add(options: MemberOptions, start: Start | undefined): void {
    const storage = new HistoryStorage();
    const first: Snapshot = {
      data: start?.content ?? EMPTY_BYTES,
      metadata: {
        confState: start?.confState ?? ConfState.create(),
        index: start?.index ?? 0,
        term: start === undefined ? 0 : 1,
      },
    };
    if (start !== undefined) storage.applySnapshot(first);
    if (start !== undefined && start.term > 0)
      storage.setHardState({ term: start.term, vote: 0n, commit: start.index });
    storage.history.push(first);
    const id = this.members.length + 1;
    const config: RaftConfig = {
      electionTicks: 3,
      heartbeatTicks: 1,
      inflightMessagesMax: 2 ** 31 - 1,
      applied: start?.index ?? 0,
      ...options,
      id: BigInt(id),
      storage,
      random: new SeededRandom(id),
      logger: this.output,
    };
    this.members.push({
      node: new RawNode(config),
      storage,
      asyncStorageWrites: config.asyncStorageWrites ?? false,
      electionTicks: config.electionTicks,
      heartbeatTicks: config.heartbeatTicks,
      appendWork: [],
      applyWork: [],
    });
    this.#observer?.started(this.members.at(-1)!.node);
  }

  processReady(member: Member): void {
    const ready = member.node.ready();
    this.output.write(describeReady(ready));
    if (!member.asyncStorageWrites) {
      append(member, ready.hardState, ready.entries, ready.snapshot);
    }
    this.#observer?.persisted(member.node);
    if (!member.asyncStorageWrites) apply(member, ready.committedEntries);
    for (const message of ready.messages) {
      if (!isLocalMsgTarget(message.to)) this.messages.push(message);
      else if (message.type === MessageType.MsgStorageAppend) member.appendWork.push(message);
      else member.applyWork.push(message);
    }
    if (!member.asyncStorageWrites) member.node.advance();
  }

  /** Does the next work of the append thread. */
  processAppend(member: Member): void {
    const work = member.appendWork.shift();
    if (work === undefined) {
      this.output.write("no append work to perform");
      return;
    }
    const { term, vote, commit } = work;
    this.#complete(work, () => {
      const changed = term !== 0 || vote !== 0n || commit !== 0;
      append(member, changed ? { term, vote, commit } : undefined, work.entries, work.snapshot);
    });
  }

  /** Does the next work of the apply thread. */
  processApply(member: Member): void {
    const work = member.applyWork.shift();
    if (work === undefined) {
      this.output.write("no apply work to perform");
      return;
    }
    this.#complete(work, () => apply(member, work.entries));
  }

  #complete(work: Message, run: () => void): void {
    const { responses } = work;
    work.responses = [];
    this.output.write(`Processing:\n${describeMessage(work)}\n`);
    run();
    this.output.write(`Responses:\n${responses.map((response) => `${describeMessage(response)}\n`).join("")}`);
    this.messages.push(...responses);
  }

  /** Removes the messages in flight to a node from the list. */
  takeMessages(to: bigint, type?: MessageType, drop = false): Message[] {
    const taken = this.messages.filter((message) => isFor(message, to, type, drop));
    this.messages = this.messages.filter((message) => !isFor(message, to, type, drop));
    return taken;
  }

  hasMessages(to: bigint): boolean {
    return this.messages.some((message) => message.to === to);
  }

  /** Delivers, or drops, messages to a node. Returns their number. */
  deliver(to: bigint, type?: MessageType, drop = false): number {
    const messages = this.takeMessages(to, type, drop);
    for (const message of messages) {
      this.output.write(`${drop ? "dropped: " : ""}${describeMessage(message)}\n`);
      const error = drop ? undefined : this.member(to).node.step(message);
      if (error !== undefined) this.output.write(`${error.message}\n`);
    }
    return messages.length;
  }

  /** Does all work of some nodes until none is left. */
  stabilize(ids: readonly bigint[]): void {
    const { output } = this;
    let rounds = 0;
    for (let done = false; !done; ) {
      if (++rounds > ROUNDS_MAX) throw new Error(`no rest after ${ROUNDS_MAX} rounds`);
      done = true;
      const each = (title: string, isDue: (id: bigint) => boolean, run: (id: bigint) => void): void => {
        for (const id of ids) {
          if (!isDue(id)) continue;
          output.write(`> ${id} ${title}\n`);
          run(id);
          done = false;
        }
      };
      const member = (id: bigint) => this.member(id);
      each(
        "handling Ready",
        (id) => member(id).node.hasReady(),
        (id) => output.indented(() => this.processReady(member(id))),
      );
      each(
        "receiving messages",
        (id) => this.hasMessages(id),
        (id) => output.indented(() => this.deliver(id)),
      );
      each(
        "processing append thread",
        (id) => member(id).appendWork.length > 0,
        (id) => {
          while (member(id).appendWork.length > 0) output.indented(() => this.processAppend(member(id)));
        },
      );
      each(
        "processing apply thread",
        (id) => member(id).applyWork.length > 0,
        (id) => {
          while (member(id).applyWork.length > 0) output.indented(() => this.processApply(member(id)));
        },
      );
    }
  }
}

/** Messages between a node and its own threads are never dropped. */
function isFor(message: Message, to: bigint, type: MessageType | undefined, drop: boolean): boolean {
  const isLocal = message.from === message.to || isLocalMsgTarget(message.from) || isLocalMsgTarget(message.to);
  return message.to === to && !(drop && isLocal) && (type === undefined || message.type === type);
}

function append(
  { storage }: Member,
  hardState: HardState | undefined,
  entries: Entry[],
  snapshot: Snapshot | undefined,
): void {
  if (hardState !== undefined) storage.setHardState(hardState);
  if (snapshot === undefined) storage.append(entries);
  else if (entries.length > 0) throw new Error("can't apply snapshot and entries at the same time");
  else storage.applySnapshot(snapshot);
}

function apply({ node, storage }: Member, entries: readonly Entry[]): void {
  for (const entry of entries) {
    const last = storage.history.at(-1)!;
    const change = confChangeOf(entry);
    const added = change === undefined ? entry.data : asV2(change).context;
    const confState = change === undefined ? last.metadata?.confState : node.applyConfChange(change);
    storage.history.push({
      data: Buffer.concat([last.data, added]),
      metadata: { confState, index: entry.index, term: entry.term },
    });
  }
}
