import type { Clock, Timer } from "../../base/clock.ts";
import { spentOn } from "../../base/doing.ts";
import { InvariantError, invariant } from "../../base/fatal.ts";
import type { Logger } from "../../base/log.ts";
import {
  type ByteString,
  type ChangeList,
  type ChangeSource,
  CompactedError,
  copyOf,
  fromByteString,
} from "../model/types.ts";
import type { PrevKvLookup, WatchBatch } from "./batch.ts";
import { CatchUp } from "./catch-up.ts";
import { FAN_OUT_LIMITS, FanOut, type FanOutLimits } from "./fan-out.ts";
import { PAGE_LIMITS, type PageLimits } from "./page.ts";
import { WatchStream } from "./stream.ts";
import type { LargeBatch, WatchSink } from "./types.ts";
import { type Watcher, type WatcherOutlet, watcherStates } from "./watcher-group.ts";

/**
 * Delivers the changes of a store to its watchers: every event once, in order of revisions, each revision complete in
 * one batch.
 *
 * A *synced* watcher gets the changes of each transaction when it ends, from memory (watch/fan-out.ts). A watcher that
 * starts in the past, or whose stream is full, is unsynced: it keeps only the next revision it needs, and reads the
 * missed events from the backend, page by page, together with all other unsynced watchers (watch/catch-up.ts). So a
 * slow client costs no memory and no time of the apply loop, and misses nothing except what is compacted before it
 * catches up; then it is notified and cancelled.
 *
 * Work for many watchers is done in slices of a few milliseconds per event loop turn.
 *
 * Semantics: etcd v3.7, server/storage/mvcc/watchable_store.go.
 */
export class WatchHub {
  readonly #store: ChangeSource;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #watchersPerStreamMax: number;
  readonly #watchersPerTurn: number;
  readonly #fanOut: FanOut;
  readonly #catchUp: CatchUp;

  #blockedCount = 0;
  #streamCount = 0;
  #watcherCount = 0;
  #deliveredCount = 0;
  #turnPending = false;
  /** Fires when the next pass may begin. */
  #timer: Timer | null = null;
  #delivering = false;
  #closed = false;
  /** Watchers of closed streams that may still be removed in this turn. */
  #closingLeft: number;
  /** Drained streams that still have blocked watchers. */
  readonly #resuming = new Set<WatcherOutlet>();
  /** Closed streams that still have watchers. */
  readonly #closing = new Set<WatchStream>();
  /** Streams that send progress to many watchers. */
  readonly #telling = new Set<WatchStream>();

  readonly #unsubscribe: readonly (() => void)[];

  constructor(options: WatchHubOptions) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#watchersPerStreamMax = options.watchersPerStreamMax ?? 500_000;
    const limits = { ...PAGE_LIMITS, ...options.page };
    this.#watchersPerTurn = limits.watchersMax;
    this.#closingLeft = CLOSED_PER_TURN;
    const lookup: PrevKvLookup = (key, revision) => this.#previous(key, revision);
    const onWork = (): void => this.#scheduleTurn();
    const outcomes = {
      offer: (watcher: Watcher, batch: WatchBatch) => this.#offer(watcher, batch),
      offerLarge: (watcher: Watcher, batch: LargeBatch) => this.#offerLarge(watcher, batch),
      block: (watcher: Watcher, next: number) => this.#block(watcher, next),
      fallBehind: (watcher: Watcher) => this.#place(watcher),
      catchUp: (watcher: Watcher) => this.#fanOut.add(watcher),
    };
    const { store } = options;
    const fanOutLimits = { ...FAN_OUT_LIMITS, ...options.fanOut };
    this.#fanOut = new FanOut(store.currentRevision, fanOutLimits, lookup, outcomes, onWork);
    const onDelivered = (count: number): void => {
      this.#deliveredCount += count;
    };
    const large = { store, lookup, onDelivered };
    this.#catchUp = new CatchUp(this.#clock, { store, limits, lookup, outcomes, large }, onWork);
    this.#unsubscribe = [
      store.onChange((revision, changes) => this.#onChanges(revision, changes)),
      store.onRestore(() => this.#onRestore()),
    ];
  }

  newStream(sink: WatchSink): WatchStream {
    this.#streamCount++;
    return new WatchStream(this, sink, this.#watchersPerStreamMax);
  }

  /** Unsubscribes from the store. Streams get nothing any more. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
  }

  get revision(): number {
    return this.#store.currentRevision;
  }

  /** Open streams. */
  get streamCount(): number {
    return this.#streamCount;
  }

  /** Watchers that are neither cancelled nor compacted. */
  get watcherCount(): number {
    return this.#watcherCount;
  }

  get syncedCount(): number {
    return this.#fanOut.size;
  }

  /** Watchers that are unsynced or blocked. */
  get slowCount(): number {
    return this.#catchUp.size + this.#blockedCount;
  }

  /** Watchers whose stream is full. */
  get blockedCount(): number {
    return this.#blockedCount;
  }

  /** Events accepted by sinks since the start. */
  get deliveredCount(): number {
    return this.#deliveredCount;
  }

  /** For WatchStream: starts a new watcher. Its first event comes in a later turn, so answer the client first. */
  add(watcher: Watcher): void {
    this.#refuseReentry();
    this.#watcherCount++;
    if (watcher.startRevision === 0) watcher.minRevision = this.#store.currentRevision + 1;
    if (watcher.minRevision > this.#store.currentRevision) this.#fanOut.add(watcher);
    else this.#catchUp.add(watcher);
  }

  /** For WatchStream: stops a watcher, whatever its state. */
  remove(watcher: Watcher): void {
    this.#refuseReentry();
    switch (watcher.state) {
      case watcherStates.grouped:
        watcher.set!.group.remove(watcher);
        break;
      case watcherStates.waiting:
        this.#catchUp.remove(watcher);
        break;
      case watcherStates.blocked:
        watcher.outlet.blocked.delete(watcher);
        this.#blockedCount--;
        break;
      case watcherStates.compacted:
      case watcherStates.cancelled:
        // No longer counted.
        this.#watcherCount++;
        break;
    }
    this.#watcherCount--;
    watcher.state = watcherStates.cancelled;
  }

  /** For WatchStream: the sink accepts responses again. */
  resume(stream: WatchStream): void {
    this.#refuseReentry();
    if (stream.blocked.size > 0) this.#resuming.add(stream);
    if (stream.isTelling) this.#telling.add(stream);
    if (stream.blocked.size > 0 || stream.isTelling) this.#scheduleTurn();
  }

  /** For WatchStream: it accepts nothing any more. Its watchers are removed, over several turns if they are many. */
  streamClosed(stream: WatchStream): void {
    this.#resuming.delete(stream);
    this.#telling.delete(stream);
    this.#streamCount--;
    this.#closing.add(stream);
    // A sink may discover that its client is gone while it takes a response.
    if (!this.#delivering) this.#letGo();
    if (this.#closing.size > 0) this.#scheduleTurn();
  }

  /** For WatchStream: it sends progress to its watchers in the following turns. */
  tellProgress(stream: WatchStream): void {
    this.#telling.add(stream);
    this.#scheduleTurn();
  }

  /** The revision up to which the watcher has everything, or 0 when it is unsynced or waits for a future revision. */
  progressOf(watcher: Watcher): number {
    const { revision } = this.#fanOut;
    return this.#fanOut.isUpToDate(watcher) && revision >= watcher.startRevision ? revision : 0;
  }

  #onChanges(revision: number, changes: ChangeList): void {
    const seen = this.#fanOut.revision;
    invariant(revision === seen + 1, "changes come revision by revision", seen, revision);
    this.#delivering = true;
    const isTaken = this.#fanOut.take(revision, changes);
    this.#delivering = false;
    if (!isTaken) this.#detach(revision);
  }

  /** Makes the synced watchers continue from the backend. */
  #detach(next: number): void {
    const { group, position } = this.#fanOut.detach(next);
    this.#logger.debug("watchers go on from the backend", { from: position, watchers: group.size });
    this.#catchUp.adopt(group, position);
  }

  /** The content was replaced: the changes between the last one seen and the new revision must be read. */
  #onRestore(): void {
    const seen = this.#fanOut.revision;
    this.#fanOut.revision = this.#store.currentRevision;
    this.#detach(seen + 1);
  }

  #offer(watcher: Watcher, batch: WatchBatch): boolean {
    const { outlet } = watcher;
    if (outlet.full) return false;
    checkOffer(watcher, batch.events[0]!.revision);
    if (!outlet.sink.deliver(watcher, batch)) {
      outlet.full = true;
      return false;
    }
    watcher.quiet = false;
    watcher.minRevision = batch.revision + 1;
    this.#deliveredCount += batch.events.length;
    return true;
  }

  #offerLarge(watcher: Watcher, batch: LargeBatch): boolean {
    const { outlet } = watcher;
    if (outlet.full) return false;
    checkOffer(watcher, batch.revision);
    outlet.full = true;
    if (!outlet.sink.deliverLarge(watcher, batch)) return false;
    watcher.quiet = false;
    watcher.minRevision = batch.revision + 1;
    return true;
  }

  #block(watcher: Watcher, nextRevision: number): void {
    watcher.minRevision = Math.max(watcher.minRevision, nextRevision);
    watcher.state = watcherStates.blocked;
    watcher.outlet.blocked.add(watcher);
    this.#blockedCount++;
  }

  /** Places a watcher that is in no group and waits for nothing. */
  #place(watcher: Watcher): void {
    const { compactRevision, currentRevision } = this.#store;
    if (watcher.outlet.full) this.#block(watcher, watcher.minRevision);
    else if (watcher.minRevision > currentRevision) this.#fanOut.add(watcher);
    else if (watcher.minRevision >= compactRevision) this.#catchUp.add(watcher);
    else this.#endCompacted(watcher, compactRevision);
  }

  #endCompacted(watcher: Watcher, compactRevision: number): void {
    const { outlet } = watcher;
    if (!outlet.sink.deliverCompacted(watcher, compactRevision)) {
      outlet.full = true;
      this.#block(watcher, watcher.minRevision);
      return;
    }
    watcher.state = watcherStates.compacted;
    this.#watcherCount--;
  }

  #scheduleTurn(): void {
    if (this.#turnPending) return;
    this.#turnPending = true;
    this.#clock.defer(this.#takeTurn);
  }

  readonly #takeTurn = (): void => {
    this.#turnPending = false;
    if (this.#closed) return;
    const startMs = this.#clock.nowMs();
    this.#closingLeft = CLOSED_PER_TURN;
    this.#letGo();
    this.#delivering = true;
    this.#resumeBlocked();
    this.#fanOut.step();
    this.#catchUp.step();
    this.#delivering = false;
    this.#tell();
    if (this.#fanOut.hasWork || this.#resuming.size > 0 || this.#closing.size > 0 || this.#telling.size > 0) {
      this.#scheduleTurn();
    } else this.#planCatchUp();
    spentOn("events of watchers", this.#clock.nowMs() - startMs);
  };

  /** Schedules the next step for unsynced watchers: at once, or when it is due. */
  #planCatchUp(): void {
    const { delayMs } = this.#catchUp;
    if (delayMs === 0) this.#scheduleTurn();
    else if (delayMs !== Number.POSITIVE_INFINITY && this.#timer === null) {
      this.#timer = this.#clock.after(Math.ceil(delayMs), () => {
        this.#timer = null;
        this.#scheduleTurn();
      });
    }
  }

  #letGo(): void {
    for (const stream of this.#closing) {
      if (this.#closingLeft <= 0) return;
      this.#closingLeft -= stream.letGo(this.#closingLeft);
      if (stream.size === 0) this.#closing.delete(stream);
    }
  }

  /**
   * Resumes watchers of drained streams, few at a time, so that a stream that fills up again immediately costs little.
   */
  #resumeBlocked(): void {
    let left = this.#watchersPerTurn;
    for (const outlet of this.#resuming) {
      this.#resuming.delete(outlet);
      for (const watcher of outlet.blocked) {
        if (outlet.full) break;
        if (left-- <= 0) {
          // After the others.
          this.#resuming.add(outlet);
          return;
        }
        outlet.blocked.delete(watcher);
        this.#blockedCount--;
        this.#place(watcher);
      }
    }
  }

  #tell(): void {
    let left = TOLD_PER_TURN;
    for (const stream of this.#telling) {
      if (left <= 0) return;
      this.#telling.delete(stream);
      left -= stream.goOnTelling(left);
      if (stream.isTelling && !stream.full) this.#telling.add(stream);
    }
  }

  #previous(key: ByteString, revision: number): Uint8Array | undefined {
    if (revision <= 0) return undefined;
    let found: Uint8Array | undefined;
    try {
      this.#store.range(fromByteString(key), null, { revision, limit: 1, countOnly: false }, (bytes, start, end) => {
        found = copyOf(bytes, start, end);
      });
    } catch (error) {
      // An unsynced watcher may get events whose previous value is compacted: they have none.
      if (!(error instanceof CompactedError)) throw error;
    }
    return found;
  }

  #refuseReentry(): void {
    if (this.#delivering) throw new InvariantError("a watch sink called back into the hub while it took a response");
  }
}

/** A watcher gets every event once: none that it already had, and none from before its start. */
function checkOffer({ minRevision }: Watcher, revision: number): void {
  invariant(revision >= minRevision, "a watcher gets no revision twice", minRevision, revision);
}

export interface WatchHubOptions {
  readonly store: ChangeSource;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default 500,000. */
  readonly watchersPerStreamMax?: number;
  /** Limits on one turn of catching up. */
  readonly page?: Partial<PageLimits>;
  /** Limits on one turn of fan-out. */
  readonly fanOut?: Partial<FanOutLimits>;
}

/** Watchers of closed streams removed in one turn. */
const CLOSED_PER_TURN = 2048;
/** Watchers checked for progress in one turn. */
const TOLD_PER_TURN = 512;
