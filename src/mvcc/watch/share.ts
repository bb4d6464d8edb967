import { WatchBatch, type WatchEvent } from "./batch.ts";
import { type LargeContext, StoredBatch } from "./large.ts";
import type { LargeBatch } from "./types.ts";
import { VARIANT_COUNT } from "./variants.ts";
import type { Watcher, WatcherSet } from "./watcher-group.ts";

/**
 * The events of one set up to a revision, delivered to its watchers over several turns. Watchers with the same share
 * get one batch.
 */
export class Share {
  readonly set: WatcherSet;
  /** At least one, ascending. */
  readonly events: readonly WatchEvent[];
  readonly revision: number;
  readonly #batches: (WatchBatch | null | undefined)[] = new Array(VARIANT_COUNT).fill(undefined);
  /** Bits of the variants whose batches exist. */
  #made = 0;
  readonly #larges = new Map<string, StoredBatch>();

  constructor(set: WatcherSet, events: readonly WatchEvent[], revision: number) {
    this.set = set;
    this.events = events;
    this.revision = revision;
  }

  /**
   * The events that a watcher of the set does not have yet; null for none, undefined when its first revision is too
   * large for a batch.
   */
  batchFor({ minRevision, variant }: Watcher): WatchBatch | null | undefined {
    const { events, revision } = this;
    if (minRevision <= events[0]!.revision) {
      const bit = 1 << variant;
      if ((this.#made & bit) === 0) {
        this.#made |= bit;
        this.#batches[variant] = WatchBatch.of(revision, events, variant);
      }
      return this.#batches[variant];
    }
    if (minRevision > events.at(-1)!.revision) return null;
    return WatchBatch.of(revision, events.slice(firstFrom(events, minRevision)), variant);
  }

  /** The first revision that `batchFor` found too large, alone. */
  largeFor(watcher: Watcher, context: LargeContext): LargeBatch {
    const { events } = this;
    const { revision } = events[firstFrom(events, watcher.minRevision)]!;
    const name = `${watcher.variant}@${revision}`;
    let large = this.#larges.get(name);
    if (large === undefined) this.#larges.set(name, (large = StoredBatch.of(watcher, revision, context)));
    return large;
  }
}

/** Index of the first event at or after the revision. */
function firstFrom(events: readonly WatchEvent[], revision: number): number {
  let low = 0;
  let high = events.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (events[middle]!.revision < revision) low = middle + 1;
    else high = middle;
  }
  return low;
}
