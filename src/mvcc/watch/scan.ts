import type { ChangeSource } from "../model/types.ts";
import { type PrevKvLookup, WatchEvent } from "./batch.ts";
import { keyOf, type PageLimits } from "./page.ts";
import type { WatcherGroup, WatcherSet } from "./watcher-group.ts";

/**
 * Finds the watchers of a group that match one revision that is too large to keep, a bounded number of rows at a time.
 * The events of watchers that match few are kept, up to a total limit; watchers beyond the limit get another round.
 */
export class RevisionScan {
  readonly revision: number;
  /** At the end of a round: sets with all their events of the revision. */
  kept: WatcherSet[] = [];
  /** Sets with too many events: each of their watchers reads the revision again. */
  large: WatcherSet[] = [];
  readonly #store: ChangeSource;
  readonly #group: WatcherGroup;
  readonly #limits: PageLimits;
  readonly #lookup: PrevKvLookup;
  #nextSub = 0;
  /** The mark of a set that must wait for the next round. A set that needs nothing more is marked with this scan. */
  #round = {};
  #keptBytes = 0;
  #needsRound = false;

  constructor(store: ChangeSource, group: WatcherGroup, revision: number, limits: PageLimits, lookup: PrevKvLookup) {
    this.#store = store;
    this.#group = group;
    this.revision = revision;
    this.#limits = limits;
    this.#lookup = lookup;
  }

  /** Continues reading. True at the end of the round: deliver what was found, then call `nextRound`. */
  step(): boolean {
    const hits: WatcherSet[] = [];
    const { revision } = this;
    let rows = 0;
    let matches = 0;
    let bytesRead = 0;
    let isDone = true;
    this.#store.forEachRevision(revision, revision + 1, this.#nextSub, (_main, sub, tombstone, bytes, start, end) => {
      this.#nextSub = sub + 1;
      const key = keyOf(bytes, start, end);
      this.#group.match(key, hits);
      if (hits.length > 0) {
        const own = Buffer.from(bytes.subarray(start, end));
        const event = new WatchEvent(key, revision, tombstone, own, 0, own.length, this.#lookup);
        for (const set of hits) this.#keep(set, event);
        matches += hits.length;
        bytesRead += own.length;
        hits.length = 0;
      }
      isDone = !(
        ++rows >= this.#limits.entriesMax ||
        bytesRead >= this.#limits.bytesMax ||
        matches >= MATCHES_PER_STEP
      );
      return isDone;
    });
    return isDone;
  }

  /** Drops everything undelivered. */
  giveUp(): void {
    for (const set of this.kept) this.#release(set);
  }

  /** False when no set needs another round. */
  nextRound(): boolean {
    for (const set of this.kept) set.mark = this;
    this.kept = [];
    this.large = [];
    this.#round = {};
    this.#nextSub = 0;
    this.#keptBytes = 0;
    const needed = this.#needsRound;
    this.#needsRound = false;
    return needed;
  }

  #keep(set: WatcherSet, event: WatchEvent): void {
    // It was served, has too many already, or waits for the next round.
    if (set.mark === this || set.mark === this.#round) return;
    const { largeRows, largeBytes, keptBytesMax } = this.#limits;
    if (set.events === undefined) {
      if (this.#keptBytes >= keptBytesMax) {
        this.#postpone(set);
        return;
      }
      set.events = [];
      this.kept.push(set);
    }
    const bytes = event.byteCount + EVENT_BYTES;
    set.events.push(event);
    set.bytes += bytes;
    this.#keptBytes += bytes;
    if (set.events.length > largeRows || set.bytes > largeBytes) {
      this.#release(set);
      set.mark = this;
      this.large.push(set);
      // It stays in the list of kept sets, without events.
    }
    while (this.#keptBytes > 2 * keptBytesMax && this.kept.length > 1) {
      const last = this.kept.pop()!;
      if (last.events === undefined) continue;
      this.#release(last);
      this.#postpone(last);
    }
  }

  #release(set: WatcherSet): void {
    this.#keptBytes -= set.bytes;
    set.events = undefined;
    set.bytes = 0;
  }

  #postpone(set: WatcherSet): void {
    set.mark = this.#round;
    this.#needsRound = true;
  }
}

/** Approximate memory of an event besides its bytes. */
const EVENT_BYTES = 256;
const MATCHES_PER_STEP = 16_384;
