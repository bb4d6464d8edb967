import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import {
  type ByteString,
  type ChangeList,
  type ChangeSource,
  CompactedError,
  copyOf,
  fromByteString,
  MvccInvariantError,
} from "./types.ts";
import { type PrevKvLookup, WatchBatch, WatchEvent } from "./watch-batch.ts";
import { PAGE_LIMITS, type PageLimits, readPage } from "./watch-page.ts";
import { WatchStream } from "./watch-stream.ts";
import type { WatchSink } from "./watch-types.ts";
import {
  VARIANT_COUNT,
  variantBits,
  type Watcher,
  WatcherGroup,
  type WatcherOutlet,
  type WatcherSet,
  watcherStates,
} from "./watcher-group.ts";

/**
 * Hands the changes of a store to its watchers: every event once, in the order of revisions, each revision complete in one
 * batch.
 *
 * A *synced* watcher gets the changes of each transaction when it ends, from memory. One that starts in the past, or
 * whose stream is full, is behind: it keeps only the next revision that it needs, and reads what it missed from the
 * backend, page by page, in turns of the event loop. So a slow client costs no memory and no time of the apply loop, and
 * misses nothing but what is compacted before it comes back; then it is told so and ends.
 *
 * Semantics: etcd v3.7, server/storage/mvcc/watchable_store.go.
 */
export class WatchHub {
  readonly #store: ChangeSource;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #watchersPerStreamMax: number;
  readonly #page: PageLimits;
  readonly #lookup: PrevKvLookup;

  readonly #synced = new WatcherGroup();
  /** In the order of their turns. */
  readonly #unsynced = new Set<Watcher>();
  #blockedCount = 0;
  #streamCount = 0;
  #watcherCount = 0;
  #deliveredCount = 0;
  /** Synced watchers have all events up to this revision. */
  #revision: number;
  #turnPending = false;
  #delivering = false;
  #closed = false;
  /** Streams that drained and have watchers blocked still. */
  readonly #resuming = new Set<WatcherOutlet>();
  /** Sets that the change in hand matched, and those that all changes of the transaction matched; reused. */
  readonly #hits: WatcherSet[] = [];
  readonly #touched: WatcherSet[] = [];
  /** Batches of the set in hand by variant; null where the filters leave nothing; reused. */
  readonly #batches: (WatchBatch | null | undefined)[] = new Array(VARIANT_COUNT).fill(undefined);

  /** Becomes the store's change and restore listener. */
  constructor(options: WatchHubOptions) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#watchersPerStreamMax = options.watchersPerStreamMax ?? 100_000;
    this.#page = { ...PAGE_LIMITS, ...options.page };
    this.#lookup = (key, revision) => this.#previous(key, revision);
    this.#revision = this.#store.currentRevision;
    this.#store.setChangeListener((revision, changes) => this.#onChanges(revision, changes));
    this.#store.setRestoreListener(() => this.#onRestore());
  }

  newStream(sink: WatchSink): WatchStream {
    this.#streamCount++;
    return new WatchStream(this, sink, this.#watchersPerStreamMax);
  }

  /** Lets go of the store. Streams get nothing any more. */
  close(): void {
    this.#closed = true;
    this.#store.setChangeListener(null);
    this.#store.setRestoreListener(null);
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
    return this.#synced.size;
  }

  /** Watchers that are behind: unsynced and blocked ones. */
  get slowCount(): number {
    return this.#unsynced.size + this.#blockedCount;
  }

  /** Watchers whose stream is full. */
  get blockedCount(): number {
    return this.#blockedCount;
  }

  /** Events that sinks took since the start. */
  get deliveredCount(): number {
    return this.#deliveredCount;
  }

  /** For WatchStream: starts a new watcher. Its first event comes in a later turn, so answer the client first. */
  add(watcher: Watcher): void {
    this.#refuseReentry();
    const current = this.#store.currentRevision;
    this.#watcherCount++;
    if (watcher.startRevision === 0) watcher.minRevision = current + 1;
    this.#place(watcher, current);
  }

  /** For WatchStream: stops a watcher, whatever its state. */
  remove(watcher: Watcher): void {
    this.#refuseReentry();
    switch (watcher.state) {
      case watcherStates.synced:
        this.#synced.remove(watcher);
        break;
      case watcherStates.unsynced:
        this.#unsynced.delete(watcher);
        break;
      case watcherStates.blocked:
        watcher.outlet.blocked.delete(watcher);
        this.#blockedCount--;
        break;
      case watcherStates.compacted:
      case watcherStates.cancelled:
        // Not counted any more.
        this.#watcherCount++;
        break;
    }
    this.#watcherCount--;
    watcher.state = watcherStates.cancelled;
  }

  /** For WatchStream: the sink takes responses again. */
  resume(outlet: WatcherOutlet): void {
    this.#refuseReentry();
    if (outlet.blocked.size === 0) return;
    this.#resuming.add(outlet);
    this.#scheduleTurn();
  }

  /** For WatchStream. */
  streamClosed(outlet: WatcherOutlet): void {
    this.#resuming.delete(outlet);
    this.#streamCount--;
  }

  /** The revision up to which the watcher has everything, or 0 when it is behind or waits for a future revision. */
  progressOf(watcher: Watcher): number {
    return watcher.state === watcherStates.synced && this.#revision >= watcher.startRevision ? this.#revision : 0;
  }

  #place(watcher: Watcher, current: number): void {
    if (watcher.minRevision > current) {
      watcher.state = watcherStates.synced;
      this.#synced.add(watcher);
    } else {
      watcher.state = watcherStates.unsynced;
      this.#unsynced.add(watcher);
      this.#scheduleTurn();
    }
  }

  #onChanges(revision: number, changes: ChangeList): void {
    this.#revision = revision;
    if (this.#synced.size === 0) return;
    for (let i = 0; i < changes.length; i++) {
      const change = changes.at(i)!;
      this.#synced.match(change.key, this.#hits);
      if (this.#hits.length > 0) this.#assign(WatchEvent.fromChange(change, this.#lookup));
    }
    this.#delivering = true;
    for (const set of this.#touched) this.#fanOut(set, revision);
    this.#delivering = false;
    this.#touched.length = 0;
  }

  /** Puts an event on the sets that its key hit. */
  #assign(event: WatchEvent): void {
    for (const set of this.#hits) {
      if (set.events !== undefined) set.events.push(event);
      else {
        set.events = [event];
        this.#touched.push(set);
      }
    }
    this.#hits.length = 0;
  }

  /** The hot path: the events of one revision to all synced watchers of one key or range. */
  #fanOut(set: WatcherSet, revision: number): void {
    const { watchers } = set;
    const batches = this.#batches;
    const events = set.events!;
    set.events = undefined;
    for (let i = 0; i < watchers.length; ) {
      const watcher = watchers[i]!;
      let batch = batches[watcher.variant];
      if (batch === undefined) batch = batches[watcher.variant] = makeBatch(revision, events, watcher.variant);
      // Not for it: filtered out, or it waits for a later revision.
      if (batch === null || watcher.minRevision > revision) {
        i++;
        continue;
      }
      if (this.#offer(watcher, batch)) i++;
      else {
        // The last watcher of the set takes its place: look at this index again.
        this.#synced.remove(watcher);
        this.#block(watcher, revision);
      }
    }
    batches.fill(undefined);
  }

  #offer(watcher: Watcher, batch: WatchBatch): boolean {
    const { outlet } = watcher;
    if (outlet.full) return false;
    if (!outlet.sink.deliver(watcher, batch)) {
      outlet.full = true;
      return false;
    }
    watcher.quiet = false;
    this.#deliveredCount += batch.events.length;
    return true;
  }

  #block(watcher: Watcher, nextRevision: number): void {
    watcher.minRevision = nextRevision;
    watcher.state = watcherStates.blocked;
    watcher.outlet.blocked.add(watcher);
    this.#blockedCount++;
  }

  /** The content was replaced: what happened between the last change seen and the new revision must be read. */
  #onRestore(): void {
    const current = this.#store.currentRevision;
    const seen = this.#revision;
    this.#revision = current;
    this.#logger.debug("watchers go on from a restored store", { from: seen, to: current, synced: this.#synced.size });
    for (const watcher of this.#synced.watchers()) {
      watcher.minRevision = Math.max(watcher.minRevision, seen + 1);
      if (watcher.minRevision > current) continue;
      this.#synced.remove(watcher);
      this.#place(watcher, current);
    }
  }

  #scheduleTurn(): void {
    if (this.#turnPending) return;
    this.#turnPending = true;
    this.#clock.defer(() => {
      this.#turnPending = false;
      if (this.#closed) return;
      this.#resumeBlocked();
      this.#delivering = true;
      this.#takeTurn();
      this.#delivering = false;
      if (this.#unsynced.size > 0 || this.#resuming.size > 0) this.#scheduleTurn();
    });
  }

  /** Lets watchers of drained streams go on, only so many that a stream which fills up again at once costs little. */
  #resumeBlocked(): void {
    const current = this.#store.currentRevision;
    for (const outlet of this.#resuming) {
      let count = 0;
      for (const watcher of outlet.blocked) {
        if (outlet.full || count++ >= this.#page.watchersMax) break;
        outlet.blocked.delete(watcher);
        this.#blockedCount--;
        this.#place(watcher, current);
      }
      if (outlet.full || outlet.blocked.size === 0) this.#resuming.delete(outlet);
    }
  }

  /** Brings the watchers at the head of the queue, and those near them in time, one page further. */
  #takeTurn(): void {
    const current = this.#store.currentRevision;
    const chosen = this.#choose(current);
    if (chosen.length === 0) return;
    const group = new WatcherGroup();
    for (const watcher of chosen) group.add(watcher);
    const from = chosen[0]!.minRevision;
    const next = readPage(this.#store, group, from, current + 1, this.#page, this.#lookup);
    for (const set of group.sets()) {
      if (set.events !== undefined) this.#handOut(set, set.events, next - 1);
    }
    for (const watcher of chosen) {
      group.remove(watcher);
      if (watcher.state !== watcherStates.unsynced) continue;
      watcher.minRevision = Math.max(watcher.minRevision, next);
      // To the end of the queue, if it is still behind.
      this.#unsynced.delete(watcher);
      this.#place(watcher, current);
    }
  }

  /** The first watcher in the queue and those that can share its page. Ends watchers that are compacted. */
  #choose(current: number): Watcher[] {
    const { compactRevision } = this.#store;
    const chosen: Watcher[] = [];
    let from = 0;
    let examined = 0;
    for (const watcher of this.#unsynced) {
      const { minRevision } = watcher;
      if (minRevision < compactRevision) this.#endCompacted(watcher, compactRevision);
      else if (minRevision > current) {
        this.#unsynced.delete(watcher);
        this.#place(watcher, current);
      } else if (watcher.outlet.full) {
        this.#unsynced.delete(watcher);
        this.#block(watcher, minRevision);
      } else {
        if (chosen.length === 0) from = minRevision;
        if (minRevision >= from && minRevision < from + this.#page.entriesMax) chosen.push(watcher);
      }
      if (++examined >= EXAMINED_MAX || chosen.length >= this.#page.watchersMax) break;
    }
    return chosen;
  }

  #endCompacted(watcher: Watcher, compactRevision: number): void {
    this.#unsynced.delete(watcher);
    const { outlet } = watcher;
    if (outlet.full || !outlet.sink.deliverCompacted(watcher, compactRevision)) {
      outlet.full = true;
      this.#block(watcher, watcher.minRevision);
      return;
    }
    watcher.state = watcherStates.compacted;
    this.#watcherCount--;
  }

  /** Gives each watcher of the set what it has not yet of the set's events, which go up to `revision`. */
  #handOut(set: WatcherSet, events: readonly WatchEvent[], revision: number): void {
    const batches = this.#batches;
    for (const watcher of set.watchers) {
      const { variant, minRevision } = watcher;
      let batch: WatchBatch | null | undefined;
      if (minRevision <= events[0]!.revision) {
        batch = batches[variant];
        if (batch === undefined) batch = batches[variant] = makeBatch(revision, events, variant);
      } else {
        const missed = events.filter((event) => event.revision >= minRevision);
        batch = makeBatch(revision, missed, variant);
      }
      if (batch === null || this.#offer(watcher, batch)) continue;
      this.#unsynced.delete(watcher);
      this.#block(watcher, batch.events[0]!.revision);
    }
    batches.fill(undefined);
  }

  #previous(key: ByteString, revision: number): Uint8Array | undefined {
    if (revision <= 0) return undefined;
    let found: Uint8Array | undefined;
    try {
      this.#store.range(fromByteString(key), null, { revision, limit: 1, countOnly: false }, (bytes, start, end) => {
        found = copyOf(bytes, start, end);
      });
    } catch (error) {
      // A watcher that reads the past gets events whose predecessor is compacted: those have no previous value.
      if (!(error instanceof CompactedError)) throw error;
    }
    return found;
  }

  #refuseReentry(): void {
    if (this.#delivering)
      throw new MvccInvariantError("a watch sink called back into the hub while it took a response");
  }
}

export interface WatchHubOptions {
  readonly store: ChangeSource;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default 100,000. */
  readonly watchersPerStreamMax?: number;
  /** How much one turn of catching up may read and hand out. */
  readonly page?: Partial<PageLimits>;
}

/** Watchers of the queue that one turn looks at. */
const EXAMINED_MAX = 8_192;

/** Null when the filters leave nothing. */
function makeBatch(revision: number, events: readonly WatchEvent[], variant: number): WatchBatch | null {
  const prevKv = (variant & variantBits.prevKv) !== 0;
  const noPut = (variant & variantBits.noPut) !== 0;
  const noDelete = (variant & variantBits.noDelete) !== 0;
  const wanted = noPut || noDelete ? events.filter((event) => !(event.tombstone ? noDelete : noPut)) : events;
  return wanted.length === 0 ? null : new WatchBatch(revision, wanted, prevKv);
}
