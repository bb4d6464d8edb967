import type { Clock, Timer } from "../base/clock.ts";
import type { Entry, Message, Snapshot } from "../proto/raftpb.ts";
import type { MemoryStorage } from "../raft/memory-storage.ts";
import type { RawNode, Ready } from "../raft/rawnode.ts";
import type { Wal } from "../wal/wal.ts";

/** Batches up to this many entries are synced on the spot when nothing else is to do: the shortest way to an answer. */
const BLOCKING_SYNC_ENTRIES_MAX = 2;

export interface RaftLoopHooks {
  /** Committed entries, in order, once each. */
  apply(entries: readonly Entry[]): void;
  /** Called before each Ready: the owner hands in the proposals that have gathered. */
  propose(): void;
  /** A linearizable read with this context may be served once `index` is applied. */
  readState(context: Uint8Array, index: number): void;
  /** Leader, term or role may have changed. */
  stateChanged(): void;
  /** Raft received a snapshot that must replace the state. */
  installSnapshot(snapshot: Snapshot): void;
  send(messages: readonly Message[]): void;
  /** True while the applied state must not grow: the loop stops until `resume`. */
  blocked(): boolean;
  /** The log could not be written: the process must stop. */
  fail(error: unknown): void;
  /** How long one sync of the log took. */
  observeSync(milliseconds: number): void;
}

/**
 * Drives a RawNode: takes its Readys, writes and syncs the log, hands committed entries to be applied.
 *
 * Group commit: while one batch is being synced on the thread pool, the proposals that arrive gather for the next, and
 * the entries that the previous sync committed are applied and answered. Nothing is applied before it is durable here.
 */
export class RaftLoop {
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  readonly #wal: Wal;
  readonly #clock: Clock;
  readonly #hooks: RaftLoopHooks;
  #tickTimer: Timer | null = null;
  #syncing = false;
  #scheduled = false;
  #running = false;
  #stopped = false;
  #term = 0;
  /** Resolved when the running sync is over and the loop is stopped. */
  #idle: (() => void) | null = null;

  constructor(options: {
    node: RawNode;
    storage: MemoryStorage;
    wal: Wal;
    clock: Clock;
    hooks: RaftLoopHooks;
  }) {
    this.node = options.node;
    this.storage = options.storage;
    this.#wal = options.wal;
    this.#clock = options.clock;
    this.#hooks = options.hooks;
  }

  start(tickMs: number): void {
    this.#tickTimer = this.#clock.every(tickMs, () => {
      this.node.tick();
      this.run();
    });
    this.run();
  }

  /** Runs the loop after the I/O of this turn, so that what arrives with it shares one batch. */
  schedule(): void {
    if (this.#scheduled || this.#syncing) return;
    this.#scheduled = true;
    this.#clock.defer(this.#deferred);
  }

  readonly #deferred = (): void => {
    this.#scheduled = false;
    this.run();
  };

  /** Takes Readys until there is none, or until a sync runs in the background. */
  run(): void {
    if (this.#running || this.#syncing || this.#stopped) return;
    this.#running = true;
    try {
      while (!this.#stopped && !this.#hooks.blocked()) {
        this.#hooks.propose();
        if (!this.node.hasReady()) break;
        if (!this.#step(this.node.ready())) break;
      }
    } catch (error) {
      this.#stopped = true;
      this.#hooks.fail(error);
    } finally {
      this.#running = false;
    }
  }

  /** Handles one Ready; false when its end waits for the disk. */
  #step(ready: Ready): boolean {
    if (ready.softState !== undefined || this.node.term !== this.#term) {
      this.#term = this.node.term;
      this.#hooks.stateChanged();
    }
    for (const state of ready.readStates) this.#hooks.readState(state.requestCtx, state.index);
    if (ready.snapshot !== undefined) this.#hooks.installSnapshot(ready.snapshot);
    if (ready.entries.length > 0 || ready.hardState !== undefined) this.#wal.append(ready.hardState, ready.entries);
    // A leader may replicate what it is still writing; a follower's answers promise that it is written.
    if (this.node.isLeader && ready.messages.length > 0) this.#hooks.send(ready.messages);

    if (!ready.mustSync) return this.#finish(ready, true);
    // What a Ready commits may be among the entries that it still has to make durable: that part is applied after the sync.
    const lastCommitted = ready.committedEntries.at(-1)?.index ?? 0;
    const firstNew = ready.entries[0]?.index ?? Number.POSITIVE_INFINITY;
    const applyEarly = lastCommitted > 0 && lastCommitted < firstNew;
    if (!applyEarly && ready.entries.length <= BLOCKING_SYNC_ENTRIES_MAX) {
      const startMs = this.#clock.nowMs();
      this.#wal.sync();
      this.#hooks.observeSync(this.#clock.nowMs() - startMs);
      return this.#finish(ready, true);
    }
    this.#syncing = true;
    const startMs = this.#clock.nowMs();
    this.#wal.syncAsync((error) => {
      this.#syncing = false;
      if (error !== null) {
        this.#stopped = true;
        this.#idle?.();
        this.#hooks.fail(error);
        return;
      }
      this.#hooks.observeSync(this.#clock.nowMs() - startMs);
      try {
        this.#finish(ready, !applyEarly);
      } catch (failure) {
        this.#stopped = true;
        this.#hooks.fail(failure);
      }
      this.#idle?.();
      this.run();
    });
    if (applyEarly) this.#hooks.apply(ready.committedEntries);
    return false;
  }

  #finish(ready: Ready, apply: boolean): boolean {
    this.storage.append(ready.entries);
    if (!this.node.isLeader && ready.messages.length > 0) this.#hooks.send(ready.messages);
    if (apply && ready.committedEntries.length > 0) this.#hooks.apply(ready.committedEntries);
    this.node.advance();
    return true;
  }

  /** Stops after the sync that is under way. */
  async stop(): Promise<void> {
    this.#tickTimer?.cancel();
    this.#stopped = true;
    if (this.#syncing) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
  }
}
