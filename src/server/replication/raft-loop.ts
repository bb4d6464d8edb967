import type { Clock, Timer } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { spentOn } from "../../base/doing.ts";
import { type Entry, type Message, MessageType, type Snapshot } from "../../proto/raftpb.ts";
import type { MemoryStorage } from "../../raft/memory-storage.ts";
import { LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD } from "../../raft/messages.ts";
import type { RawNode, Ready } from "../../raft/rawnode.ts";
import type { Wal } from "../../wal/wal.ts";
import type { RequestTrace } from "../contract/trace.ts";
import { DurableIndex } from "./durable-index.ts";
import { LongProposals } from "./long-proposals.ts";
import { messageProblem } from "./message-check.ts";

/**
 * Batches up to this many entries are synced synchronously when there is nothing else to do: the shortest way to an
 * answer.
 */
const BLOCKING_SYNC_ENTRIES_MAX = 2;
/** A slower sync shows that the disk is busy or slow; then work that does not need it should not wait for it. */
const SLOW_SYNC_MS = 5;
/** This many quick syncs end that state. */
const QUICK_SYNCS = 20;
/** Messages that may wait for the loop, and followers' proposals that may wait for the disk. More are dropped. */
const INBOX_MAX = 16_384;
/** This many missing ticks mean that the process was paused. */
const PAUSE_TICKS = 3;

export interface RaftLoopHooks {
  /**
   * Committed entries, in order, once each. All are durable here. False when they take more than this turn: `done` is
   * called when all are applied, and no further entries are passed before.
   */
  apply(entries: readonly Entry[], done: () => void): boolean;
  /** The owner proposes what has been collected. */
  propose(): void;
  /** The owner requests read indexes. */
  askReads(): void;
  /** A linearizable read with this context may be served once `index` is applied. */
  readState(context: Uint8Array, index: number): void;
  /** Leader, term or role may have changed. */
  stateChanged(): void;
  /** Makes a received snapshot durable, with its record in the log. */
  saveSnapshot(snapshot: Snapshot): void;
  /** Replaces the state by that of a saved snapshot, then calls `done`. No entries are applied before. */
  installSnapshot(snapshot: Snapshot, done: () => void): void;
  /** For other members, in order. */
  send(messages: Message[]): void;
  /** A received message that is kept from raft. */
  refused(message: Message, problem: string): void;
  /** True while the applied state must not grow: entries are neither applied nor proposed until the next `run`. */
  blocked(): boolean;
  /** The log could not be written: the process must stop. */
  fail(error: unknown): void;
  /** Duration of one log sync. */
  observeSync(milliseconds: number): void;
  /** Duration of writing one batch, without its sync, and the bytes of its records. */
  observeWrite(milliseconds: number, bytes: number): void;
}

/**
 * Drives a RawNode with asynchronous storage writes: takes its Readys, writes and syncs the log, passes committed
 * entries on to be applied, and feeds it what arrives.
 *
 * Group commit: while one batch is synced on the thread pool, arriving proposals collect for the next, newly committed
 * entries are applied and answered, and messages are handled, so that acknowledgements of the previous batch need not
 * wait. What a follower appends meanwhile shares the next sync.
 */
export class RaftLoop {
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  readonly #wal: Wal;
  readonly #disk: Pick<Disk, "isSlow"> | undefined;
  readonly #clock: Clock;
  readonly #hooks: RaftLoopHooks;
  readonly #trace: RequestTrace | undefined;
  #tickTimer: Timer | null = null;
  #tickMs = 0;
  /** Clock time of the last tick. */
  #lastTickMs: number;
  /** Clock time at which the process continued after a pause. */
  #resumedMs = Number.NEGATIVE_INFINITY;
  #inbox: Message[] = [];
  readonly #unreachable = new Set<bigint>();
  /** Followers' proposals, which like our own wait for the sync in progress. */
  #heldProposals: Message[] = [];
  readonly #longProposals: LongProposals;
  /** Committed entries and received snapshots waiting to be applied, in order. */
  #toApply: Message[] = [];
  #installing = false;
  /** The message whose entries are being applied over many turns. */
  #applying: Message | null = null;
  /** Sent when everything written so far is durable. */
  #afterSync: Message[] = [];
  /** Written data is not durable, and no sync in progress covers it. */
  #needsSync = false;
  #unsyncedEntries = 0;
  readonly #durable: DurableIndex;
  #lastStable: Message | undefined;
  #syncing = false;
  /** Quick syncs needed before a synchronous one is used again. */
  #quickSyncsToCome = 0;
  #scheduled = false;
  #running = false;
  #stopped = false;
  #leader = 0n;
  #term = 0;
  /** Resolves when the running sync or installation is over and the loop is stopped. */
  #idle: (() => void) | null = null;

  constructor(options: {
    node: RawNode;
    storage: MemoryStorage;
    wal: Wal;
    /** Of the log. */
    disk?: Pick<Disk, "isSlow">;
    clock: Clock;
    hooks: RaftLoopHooks;
    trace?: RequestTrace | undefined;
  }) {
    this.node = options.node;
    this.storage = options.storage;
    this.#wal = options.wal;
    this.#disk = options.disk;
    this.#clock = options.clock;
    this.#hooks = options.hooks;
    this.#longProposals = new LongProposals(options.clock, (message, problem) => this.#checked(message, problem));
    this.#trace = options.trace;
    this.#lastTickMs = options.clock.nowMs();
    this.#durable = new DurableIndex(options.storage.lastIndex());
  }

  start(tickMs: number): void {
    this.#tickMs = tickMs;
    this.#tickTimer = this.#clock.every(tickMs, () => {
      const nowMs = this.#clock.nowMs();
      if (nowMs - this.#lastTickMs >= PAUSE_TICKS * tickMs) this.#resumedMs = nowMs;
      this.#lastTickMs = nowMs;
      // Messages that have arrived must be handled before an election timeout takes effect.
      this.#drainInbox();
      this.node.tick();
      this.run();
    });
    this.run();
  }

  /**
   * True when this process has ticked continuously for the last `ms`. Only then is a leader by its own account really
   * leader, because check-quorum counts its ticks: while it is paused it may be replaced without knowing it.
   */
  hasTickedFor(ms: number): boolean {
    const nowMs = this.#clock.nowMs();
    return nowMs - this.#lastTickMs < PAUSE_TICKS * this.#tickMs && nowMs - this.#resumedMs >= ms;
  }

  /** Advances raft's time by `count` ticks at once. */
  advanceTicks(count: number): void {
    for (let i = 0; i < count; i++) this.node.tick();
    this.run();
  }

  /** Takes a message from another member. It is handled together with all that arrive in this turn. */
  receive(message: Message): void {
    if (this.#stopped || this.#inbox.length >= INBOX_MAX) return;
    this.#inbox.push(message);
    this.schedule();
  }

  /** The last message to a member was probably lost. */
  reportUnreachable(id: bigint): void {
    this.#unreachable.add(id);
    this.schedule();
  }

  /** The outcome of a snapshot that was sent. */
  reportSnapshot(id: bigint, received: boolean): void {
    if (this.#stopped) return;
    this.node.reportSnapshot(id, received);
    this.schedule();
  }

  /** Runs the loop after the I/O of this turn, so that everything arriving in it shares one batch. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.defer(this.#deferred);
  }

  readonly #deferred = (): void => {
    this.#scheduled = false;
    this.run();
  };

  /** Processes Readys until there is none. */
  run(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    try {
      this.#drainInbox();
      while (!this.#stopped) {
        this.#applyWaiting();
        this.#noticeLeader();
        // A leader collects what arrives during a sync; a follower has no reason to.
        if (!(this.#syncing && this.node.isLeader) && !this.#hooks.blocked()) {
          this.#proposeHeld();
          this.#hooks.propose();
          this.#trace?.proposed();
        }
        this.#hooks.askReads();
        if (!this.node.hasReady()) {
          if (!this.#needsSync || this.#syncing) break;
          this.#sync(false);
        } else this.#handle(this.node.ready());
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#running = false;
    }
  }

  #drainInbox(): void {
    if (this.#unreachable.size > 0) {
      for (const id of this.#unreachable) this.node.reportUnreachable(id);
      this.#unreachable.clear();
    }
    const messages = this.#inbox;
    if (messages.length === 0) return;
    this.#inbox = [];
    for (const message of messages) {
      // Checked against the current state, which earlier messages have changed.
      const problem = messageProblem(this.node.raft, message);
      if (problem !== undefined) this.#hooks.refused(message, problem);
      else if (message.type !== MessageType.MsgProp) this.node.step(message);
      else if (!this.#longProposals.take(message)) this.#hold(message);
    }
  }

  #hold(proposal: Message): void {
    if (this.#heldProposals.length < INBOX_MAX) this.#heldProposals.push(proposal);
  }

  #checked(proposal: Message, problem: string | undefined): void {
    // Its sender may have been removed meanwhile.
    const reason = problem ?? messageProblem(this.node.raft, proposal);
    if (reason !== undefined) this.#hooks.refused(proposal, reason);
    else {
      this.#hold(proposal);
      this.schedule();
    }
  }

  /** Without a leader, or during a leadership transfer, raft would drop proposals. */
  get takesProposals(): boolean {
    const { node } = this;
    return node.leader !== 0n && node.raft.leadTransferee === 0n;
  }

  #proposeHeld(): void {
    if (this.#heldProposals.length === 0 || !this.takesProposals) return;
    const messages = this.#heldProposals;
    this.#heldProposals = [];
    for (const message of messages) this.node.step(message);
  }

  /**
   * Messages may have changed the leader. Report that before anything is requested from it: those notified give up what
   * they requested from the previous one.
   */
  #noticeLeader(): void {
    const { leader, term } = this.node;
    if (leader === this.#leader && term === this.#term) return;
    this.#leader = leader;
    this.#term = term;
    this.#hooks.stateChanged();
  }

  #handle(ready: Ready): void {
    this.#noticeLeader();
    if (ready.softState !== undefined) this.#hooks.stateChanged();
    for (const state of ready.readStates) this.#hooks.readState(state.requestCtx, state.index);
    const { messages } = ready;
    // Messages to the local threads come last.
    const apply = messages.at(-1)?.to === LOCAL_APPLY_THREAD ? messages.pop() : undefined;
    const append = messages.at(-1)?.to === LOCAL_APPEND_THREAD ? messages.pop() : undefined;
    const replicates = this.node.isLeader && messages.length > 0;
    if (messages.length > 0) this.#hooks.send(messages);
    if (append !== undefined) this.#append(ready, append);
    if (apply !== undefined) this.#toApply.push(apply);
    // With other work to do meanwhile, or messages just queued that must not be delayed, the thread pool is worth its
    // overhead.
    if (this.#needsSync && !this.#syncing) this.#sync(!replicates && !this.#hasToApply);
    this.#applyWaiting();
  }

  #append(ready: Ready, append: Message): void {
    const { hardState, entries, snapshot } = ready;
    if (snapshot !== undefined) {
      this.#hooks.saveSnapshot(snapshot);
      this.storage.applySnapshot(snapshot);
      this.#durable.snapshotSaved(snapshot.metadata?.index ?? 0);
      this.#overtake(append);
    }
    if (entries.length > 0 || hardState !== undefined) {
      const startMs = this.#clock.nowMs();
      const startBytes = this.#wal.writtenBytes;
      this.#wal.append(hardState, entries);
      const tookMs = this.#clock.nowMs() - startMs;
      spentOn("write of the log", tookMs);
      this.#hooks.observeWrite(tookMs, this.#wal.writtenBytes - startBytes);
      this.#trace?.written();
    }
    this.storage.append(entries);
    this.#durable.wrote(entries);
    this.#unsyncedEntries += entries.length;
    this.#needsSync ||= ready.mustSync || snapshot !== undefined;
    if (append.responses.length === 0) return;
    if (this.#needsSync || this.#syncing) for (const response of append.responses) this.#afterSync.push(response);
    else this.#respond(append.responses);
  }

  /** A snapshot replaces the earlier entries that wait to be applied. */
  #overtake(append: Message): void {
    const waiting = this.#toApply;
    this.#toApply = [append];
    for (const { type, responses } of waiting) {
      if (type !== MessageType.MsgStorageApply) continue;
      for (const response of responses) this.node.step(response);
    }
  }

  #sync(mayBlock: boolean): void {
    const startMs = this.#clock.nowMs();
    const responses = this.#afterSync;
    const isSmall = this.#unsyncedEntries <= BLOCKING_SYNC_ENTRIES_MAX;
    this.#afterSync = [];
    this.#needsSync = false;
    this.#unsyncedEntries = 0;
    this.#durable.syncBegins();
    if (mayBlock && isSmall && this.#quickSyncsToCome === 0 && this.#disk?.isSlow !== true) {
      this.#wal.sync();
      this.#durable.syncEnded();
      const tookMs = this.#clock.nowMs() - startMs;
      spentOn("sync of the log", tookMs);
      this.#observeSync(tookMs);
      this.#respond(responses);
      return;
    }
    this.#syncing = true;
    this.#wal.syncAsync((error) => {
      this.#syncing = false;
      if (error !== null) this.#fail(error);
      else {
        this.#observeSync(this.#clock.nowMs() - startMs);
        this.#durable.syncEnded();
        try {
          this.#respond(responses);
          // A write that needed no sync only had to keep its place.
          if (!this.#needsSync && this.#afterSync.length > 0) this.#respond(this.#afterSync.splice(0));
        } catch (failure) {
          this.#fail(failure);
        }
      }
      this.#settleIdle();
      this.run();
    });
  }

  #observeSync(tookMs: number): void {
    if (tookMs >= SLOW_SYNC_MS) this.#quickSyncsToCome = QUICK_SYNCS;
    else if (this.#quickSyncsToCome > 0) this.#quickSyncsToCome--;
    this.#hooks.observeSync(tookMs);
    this.#trace?.synced(tookMs);
  }

  /** Delivers messages that promise durability: to this node, or to others. */
  #respond(responses: readonly Message[]): void {
    const outgoing: Message[] = [];
    for (const response of responses) {
      this.#durable.checkResponse(response, this.node.raft);
      if (response.to !== this.node.id) outgoing.push(response);
      else if (!this.#isRepeated(response)) this.node.step(response);
    }
    if (outgoing.length > 0 && !this.#stopped) this.#hooks.send(outgoing);
  }

  /** A write without entries repeats how far the log is stable; raft would log each repetition. */
  #isRepeated(response: Message): boolean {
    const { type, term, index, logTerm, snapshot } = response;
    if (type !== MessageType.MsgStorageAppendResp || snapshot !== undefined) return false;
    const last = this.#lastStable;
    if (last !== undefined && last.term === term && last.index === index && last.logTerm === logTerm) return true;
    this.#lastStable = response;
    return false;
  }

  get #hasToApply(): boolean {
    return this.#toApply.length > 0 || this.#applying !== null;
  }

  #applyWaiting(): void {
    while (this.#toApply.length > 0 && !this.#installing && this.#applying === null) {
      if (this.#stopped || this.#hooks.blocked()) return;
      const message = this.#toApply.shift()!;
      if (message.snapshot !== undefined) {
        this.#installing = true;
        this.#hooks.installSnapshot(message.snapshot, () => {
          this.#installing = false;
          this.#settleIdle();
          this.run();
        });
        return;
      }
      this.#durable.checkApply(message.entries);
      this.#trace?.committed(message.entries);
      if (!this.#hooks.apply(message.entries, this.#applied)) {
        this.#applying = message;
        return;
      }
      for (const response of message.responses) this.node.step(response);
    }
  }

  /** A multi-turn application has finished. */
  readonly #applied = (): void => {
    const { responses } = this.#applying!;
    this.#applying = null;
    if (this.#stopped) return;
    for (const response of responses) this.node.step(response);
    this.run();
  };

  #fail(error: unknown): void {
    this.#stopped = true;
    this.#hooks.fail(error);
  }

  #settleIdle(): void {
    if (!this.#syncing && !this.#installing) this.#idle?.();
  }

  /** Stops after the sync or installation in progress. */
  async stop(): Promise<void> {
    this.#tickTimer?.cancel();
    this.#stopped = true;
    this.#longProposals.stop();
    if (!this.#syncing && !this.#installing) return;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
  }
}
