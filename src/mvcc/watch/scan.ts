import type { ChangeSource } from "../model/types.ts";
import { type PrevKvLookup, WatchEvent } from "./batch.ts";
import { keyOf, type PageLimits } from "./page.ts";
import type { WatcherGroup, WatcherSet } from "./watcher-group.ts";

/**
 * Finds who of a group gets something of one revision that is too large to be kept, a bounded number of rows at a time. Who
 * gets little has it kept, as long as that is not much altogether; who comes too late for that has another round.
 */
export class RevisionScan {
  readonly revision: number;
  /** Sets that have all their events of the revision, at the end of a round. */
  kept: WatcherSet[] = [];
  /** Sets with too many events: each of their watchers reads the revision again. */
  large: WatcherSet[] = [];
  readonly #store: ChangeSource;
  readonly #group: WatcherGroup;
  readonly #limits: PageLimits;
  readonly #lookup: PrevKvLookup;
  #nextSub = 0;
  /** The mark of a set that has to wait for the next round. A set that needs nothing more has this scan for its mark. */
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

  /** Reads on. True at the end of the round: hand out what was found, then call `nextRound`. */
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

  /** Nothing of it is handed out. */
  giveUp(): void {
    for (const set of this.kept) this.#release(set);
  }

  /** False when nobody needs another round. */
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
      // It stays in the list of those kept, without events.
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

/** What an event takes beside its bytes, about. */
const EVENT_BYTES = 256;
const MATCHES_PER_STEP = 16_384;
