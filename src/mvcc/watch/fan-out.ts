import type { ChangeList } from "../model/types.ts";
import { type PrevKvLookup, WatchBatch, WatchEvent } from "./batch.ts";
import { put } from "./page.ts";
import { Share } from "./share.ts";
import { VARIANT_COUNT } from "./variants.ts";
import { type Watcher, WatcherGroup, type WatcherSet } from "./watcher-group.ts";

/** The hub's handling of a watcher that is offered events. */
export interface Handover {
  /** False when its stream is full. */
  offer(watcher: Watcher, batch: WatchBatch): boolean;
  /** The watcher is in no group: it waits for its stream to drain, and needs the events from this revision on. */
  block(watcher: Watcher, nextRevision: number): void;
  /** The watcher is in no group: it continues from the backend. */
  fallBehind(watcher: Watcher): void;
}

export interface FanOutLimits {
  /** Work per turn for watchers, in units of about a microsecond: two units plus one per 2 KiB. */
  readonly unitsPerTurn: number;
  /** Matches of one turn's changes with watched ranges. */
  readonly matchesPerTurn: number;
  /** A transaction with more changes is not delivered from memory. */
  readonly changesMax: number;
  /** Limit on bytes of waiting events. */
  readonly waitingBytesMax: number;
}

export const FAN_OUT_LIMITS: FanOutLimits = {
  unitsPerTurn: 4096,
  matchesPerTurn: 32_768,
  changesMax: 1024,
  waitingBytesMax: 16 * 1024 * 1024,
};

/**
 * Delivers the changes of transactions to synced watchers, from memory: at once if there are few, otherwise in slices,
 * one per turn. Events of a range whose watchers wait are collected and sent to each of them in one response, so that a
 * key with very many watchers costs less the faster it changes, and no other watcher waits for it.
 */
export class FanOut {
  readonly #limits: FanOutLimits;
  readonly #lookup: PrevKvLookup;
  readonly #handover: Handover;
  readonly #onWork: () => void;
  #group = new WatcherGroup();
  /** The last revision whose changes it has processed. */
  revision: number;
  /** Sets with waiting events, in order of arrival. */
  readonly #queue = new Set<WatcherSet>();
  #waitingBytes = 0;
  #sweep: Sweep | undefined = undefined;
  #unitsLeft: number;
  #matchesLeft: number;
  /** Sets matched by the current change, and by all changes of the transaction; reused. */
  readonly #hits: WatcherSet[] = [];
  readonly #touched: WatcherSet[] = [];
  /** Batches of the current set by variant; null when the filters leave none; reused. */
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

  /** Events wait for the next turn. */
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

  /** Takes the changes of a transaction. False when there are too many: then call `detach`. */
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
   * Releases all watchers as a group that has everything before the returned revision, which is `next` unless something
   * older waits. New watchers are added to another group.
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

  /** Delivers waiting events, as many as fit into a turn. */
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

  /** Adds an event to the sets matched by its key. */
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

  /** Delivers the events of a set at once, or queues them. */
  #begin(set: WatcherSet, revision: number): void {
    // The set's delivery is in progress and will include the new events.
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

  /** The hot path: the events of one revision for all synced watchers of one key or range. */
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
      // Not for this watcher: filtered out, or it waits for a later revision.
      if (batch === null || watcher.minRevision > revision || handover.offer(watcher, batch)) i++;
      else {
        // The set's last watcher takes its place: check this index again.
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
      // The set stays marked: events during this delivery wait for the next.
      return { share: new Share(set, events!, this.revision), watchers: set.watchers.slice(), next: 0 };
    }
    return undefined;
  }

  /** True when all watchers were offered their events. */
  #goOn(sweep: Sweep): boolean {
    const { share, watchers } = sweep;
    const { set } = share;
    const units = unitsOf(bytesOf(share.events));
    while (sweep.next < watchers.length && this.#unitsLeft > 0) {
      const watcher = watchers[sweep.next++]!;
      // It may have been removed meanwhile.
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

/** Approximate memory of an event besides its bytes. */
const EVENT_BYTES = 256;

/** Events being delivered to the watchers that were in the set at the start. */
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
