import type { ChangeList } from "../model/types.ts";
import { type PrevKvLookup, WatchBatch, WatchEvent } from "./batch.ts";
import { put } from "./page.ts";
import { Share } from "./share.ts";
import { VARIANT_COUNT } from "./variants.ts";
import { type Watcher, WatcherGroup, type WatcherSet } from "./watcher-group.ts";

/** What the hub does with a watcher that is offered something. */
export interface Handover {
  /** False when its stream is full. */
  offer(watcher: Watcher, batch: WatchBatch): boolean;
  /** It is in no group: it waits for its stream to drain, and needs what comes from this revision on. */
  block(watcher: Watcher, nextRevision: number): void;
  /** It is in no group: it reads on from the backend. */
  fallBehind(watcher: Watcher): void;
}

export interface FanOutLimits {
  /** What may be given to watchers in one turn, in parts of some microsecond: two and one for each 2 KiB. */
  readonly unitsPerTurn: number;
  /** Places where the changes of one turn may match what is watched. */
  readonly matchesPerTurn: number;
  /** A transaction with more changes is not handed out from memory. */
  readonly changesMax: number;
  /** Bytes of events that may wait for their turn. */
  readonly waitingBytesMax: number;
}

export const FAN_OUT_LIMITS: FanOutLimits = {
  unitsPerTurn: 4096,
  matchesPerTurn: 32_768,
  changesMax: 1024,
  waitingBytesMax: 16 * 1024 * 1024,
};

/**
 * Hands the changes of transactions to the synced watchers, from memory: at once while that is little, and else in slices, one
 * each turn. What happens to a range while its watchers wait is gathered, and goes to each of them in one response, so that a
 * key with very many watchers costs less the faster it changes, and nobody else waits for it.
 */
export class FanOut {
  readonly #limits: FanOutLimits;
  readonly #lookup: PrevKvLookup;
  readonly #handover: Handover;
  readonly #onWork: () => void;
  #group = new WatcherGroup();
  /** The last revision whose changes it has seen. */
  revision: number;
  /** Sets whose events wait for their turn, in the order of these. */
  readonly #queue = new Set<WatcherSet>();
  #waitingBytes = 0;
  #sweep: Sweep | undefined = undefined;
  #unitsLeft: number;
  #matchesLeft: number;
  /** Sets that the change in hand matched, and those that all changes of the transaction matched; reused. */
  readonly #hits: WatcherSet[] = [];
  readonly #touched: WatcherSet[] = [];
  /** Batches of the set in hand by variant; null where the filters leave nothing; reused. */
  readonly #batches: (WatchBatch | null | undefined)[] = new Array(VARIANT_COUNT).fill(undefined);

  /** `onWork`: a turn is needed. */
  constructor(revision: number, limits: FanOutLimits, lookup: PrevKvLookup, handover: Handover, onWork: () => void) {
    this.revision = revision;
    this.#limits = limits;
    this.#lookup = lookup;
    this.#handover = handover;
    this.#onWork = onWork;
    this.#unitsLeft = limits.unitsPerTurn;
    this.#matchesLeft = limits.matchesPerTurn;
  }

  get size(): number {
    return this.#group.size;
  }

  /** Something waits for the next turn. */
  get hasWork(): boolean {
    return this.#sweep !== undefined || this.#queue.size > 0;
  }

  /** The watcher has all events up to the current revision. */
  add(watcher: Watcher): void {
    this.#group.add(watcher);
  }

  has(watcher: Watcher): boolean {
    return watcher.set !== undefined && watcher.set.group === this.#group;
  }

  /** It has all events up to `revision`. */
  isUpToDate(watcher: Watcher): boolean {
    return this.has(watcher) && !watcher.set!.queued;
  }

  /** Takes the changes of a transaction. False when they are too many: then `detach`. */
  take(revision: number, changes: ChangeList): boolean {
    this.revision = revision;
    const group = this.#group;
    if (group.size === 0) return true;
    if (changes.length > this.#limits.changesMax || this.#matchesLeft <= 0) return false;
    for (let i = 0; i < changes.length; i++) {
      const change = changes.at(i)!;
      group.match(change.key, this.#hits);
      if (this.#hits.length > 0) this.#assign(WatchEvent.fromChange(change, this.#lookup));
    }
    for (const set of this.#touched) this.#begin(set, revision);
    this.#touched.length = 0;
    if (this.#unitsLeft < this.#limits.unitsPerTurn / 2) this.#onWork();
    return this.#waitingBytes <= this.#limits.waitingBytesMax;
  }

  /**
   * Lets go of all watchers: a group that has everything before the revision returned, which is `next` unless something older
   * waits. New watchers gather in another group.
   */
  detach(next: number): { group: WatcherGroup; position: number } {
    const group = this.#group;
    const events = this.#sweep?.share.events ?? this.#queue.values().next().value?.events;
    const position = events === undefined ? next : Math.min(events[0]!.revision, next);
    for (const set of this.#queue) forget(set);
    if (this.#sweep !== undefined) forget(this.#sweep.share.set);
    this.#queue.clear();
    this.#sweep = undefined;
    this.#waitingBytes = 0;
    this.#group = new WatcherGroup();
    return { group, position };
  }

  /** Hands out what waits, as much as fits a turn. */
  step(): void {
    const { unitsPerTurn, matchesPerTurn } = this.#limits;
    this.#unitsLeft = unitsPerTurn;
    this.#matchesLeft = matchesPerTurn;
    while (this.#unitsLeft > 0) {
      this.#sweep ??= this.#nextSweep();
      if (this.#sweep === undefined) return;
      if (this.#goOn(this.#sweep)) this.#sweep = undefined;
    }
  }

  /** Puts an event on the sets that its key hit. */
  #assign(event: WatchEvent): void {
    this.#matchesLeft -= this.#hits.length;
    for (const set of this.#hits) {
      if (set.queued) this.#wait(set, event.byteCount);
      put(set, event, this.#touched);
    }
    this.#hits.length = 0;
  }

  #wait(set: WatcherSet, bytes: number): void {
    set.bytes += bytes + EVENT_BYTES;
    this.#waitingBytes += bytes + EVENT_BYTES;
  }

  /** Hands out the events of a set at once, or lets them wait. */
  #begin(set: WatcherSet, revision: number): void {
    // In the middle of its sweep, which comes back to it.
    if (set.queued) return;
    const events = set.events!;
    const bytes = bytesOf(events);
    const units = set.watchers.length * unitsOf(bytes);
    if (units > this.#unitsLeft) {
      set.queued = true;
      this.#wait(set, bytes);
      this.#queue.add(set);
      this.#onWork();
      return;
    }
    this.#unitsLeft -= units;
    set.events = undefined;
    this.#fanOut(set, events, revision);
  }

  /** The hot path: the events of one revision to all synced watchers of one key or range. */
  #fanOut(set: WatcherSet, events: readonly WatchEvent[], revision: number): void {
    const { watchers } = set;
    const batches = this.#batches;
    const handover = this.#handover;
    for (let i = 0; i < watchers.length; ) {
      const watcher = watchers[i]!;
      const { variant } = watcher;
      let batch = batches[variant];
      if (batch === undefined) {
        batch = WatchBatch.of(revision, events, variant);
        if (batch === undefined) {
          this.#leave(watcher);
          handover.fallBehind(watcher);
          continue;
        }
        batches[variant] = batch;
      }
      // Not for it: filtered out, or it waits for a later revision.
      if (batch === null || watcher.minRevision > revision || handover.offer(watcher, batch)) i++;
      else {
        // The last watcher of the set takes its place: look at this index again.
        this.#leave(watcher);
        handover.block(watcher, revision);
      }
    }
    batches.fill(undefined);
  }

  #leave(watcher: Watcher): void {
    this.#group.remove(watcher);
  }

  #nextSweep(): Sweep | undefined {
    for (const set of this.#queue) {
      this.#queue.delete(set);
      const { events } = set;
      set.events = undefined;
      this.#waitingBytes -= set.bytes;
      set.bytes = 0;
      // It stays marked: what happens during the sweep waits for the next.
      return { share: new Share(set, events!, this.revision), watchers: set.watchers.slice(), next: 0 };
    }
    return undefined;
  }

  /** True when all have been offered what they get. */
  #goOn(sweep: Sweep): boolean {
    const { share, watchers } = sweep;
    const { set } = share;
    const units = unitsOf(bytesOf(share.events));
    while (sweep.next < watchers.length && this.#unitsLeft > 0) {
      const watcher = watchers[sweep.next++]!;
      // It may have left meanwhile.
      if (watcher.set !== set) continue;
      this.#unitsLeft -= units;
      this.#hand(share, watcher);
    }
    if (sweep.next < watchers.length) return false;
    if (set.events === undefined) set.queued = false;
    else this.#queue.add(set);
    return true;
  }

  #hand(share: Share, watcher: Watcher): void {
    const batch = share.batchFor(watcher);
    if (batch === null) return;
    if (batch !== undefined && !this.#handover.offer(watcher, batch)) {
      this.#leave(watcher);
      this.#handover.block(watcher, batch.events[0]!.revision);
    } else if (batch === undefined || batch.revision < share.revision) {
      this.#leave(watcher);
      this.#handover.fallBehind(watcher);
    }
  }
}

/** What an event takes beside its bytes, about. */
const EVENT_BYTES = 256;

/** Events on their way to the watchers that were in the set when it began. */
interface Sweep {
  readonly share: Share;
  readonly watchers: readonly Watcher[];
  next: number;
}

function bytesOf(events: readonly WatchEvent[]): number {
  let bytes = 0;
  for (let i = 0; i < events.length; i++) bytes += events[i]!.byteCount;
  return bytes;
}

export function unitsOf(bytes: number): number {
  return 2 + (bytes >>> 11);
}

function forget(set: WatcherSet): void {
  set.events = undefined;
  set.bytes = 0;
  set.queued = false;
}
