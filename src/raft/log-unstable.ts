/**
 * The end of the log that is not known to be stable: entries, and a snapshot that came from the leader, which the owner
 * is writing or will write. The part given to the owner is "in progress".
 *
 * Invariant: offset <= offsetInProgress <= offset + entries.length. All indexes below `offset` are in the storage, or
 * in the snapshot.
 */
import { broken, invariant } from "../base/fatal.ts";
import type { Entry, Snapshot } from "../proto/raftpb.ts";
import { EntryList } from "./entry-list.ts";
import type { RaftLogger } from "./logger.ts";

export class UnstableLog {
  readonly #logger: RaftLogger;
  readonly #entries = new EntryList();
  #snapshot: Snapshot | undefined;
  #snapshotInProgress = false;
  /** Index of the first entry held. */
  #offset: number;
  /** Index after the last entry that is being written. */
  #offsetInProgress: number;

  constructor(offset: number, logger: RaftLogger) {
    this.#offset = offset;
    this.#offsetInProgress = offset;
    this.#logger = logger;
  }

  get offset(): number {
    return this.#offset;
  }

  get offsetInProgress(): number {
    return this.#offsetInProgress;
  }

  get length(): number {
    return this.#entries.length;
  }

  get snapshot(): Snapshot | undefined {
    return this.#snapshot;
  }

  /** First index of the log, if set by a snapshot. */
  firstIndex(): number | undefined {
    const index = this.#snapshotIndex();
    return index === undefined ? undefined : index + 1;
  }

  /** Last index of the log, if known here. */
  lastIndex(): number | undefined {
    const { length } = this.#entries;
    return length > 0 ? this.#offset + length - 1 : this.#snapshotIndex();
  }

  /** Term at an index, if it is known here. */
  term(index: number): number | undefined {
    if (index < this.#offset) {
      const metadata = this.#snapshot?.metadata;
      return metadata !== undefined && metadata.index === index ? metadata.term : undefined;
    }
    const position = index - this.#offset;
    return position < this.#entries.length ? this.#entries.at(position).term : undefined;
  }

  get hasNextEntries(): boolean {
    return this.#offset + this.#entries.length > this.#offsetInProgress;
  }

  /** Entries not yet being written. */
  nextEntries(): Entry[] {
    return this.#entries.slice(this.#offsetInProgress - this.#offset, this.#entries.length);
  }

  /** The snapshot, unless it is being written. */
  nextSnapshot(): Snapshot | undefined {
    return this.#snapshotInProgress ? undefined : this.#snapshot;
  }

  /** Marks everything held as being written. */
  acceptInProgress(): void {
    this.#offsetInProgress = this.#offset + this.#entries.length;
    if (this.#snapshot !== undefined) this.#snapshotInProgress = true;
  }

  /** Drops the entries up to `index`, now stable, unless entries of another term have replaced them. */
  stableTo(index: number, term: number): void {
    const held = this.term(index);
    if (held === undefined) {
      this.#logger.info?.(`entry at index ${index} missing from unstable log; ignoring`);
      return;
    }
    if (index < this.#offset) {
      this.#logger.info?.(`entry at index ${index} matched unstable snapshot; ignoring`);
      return;
    }
    if (held !== term) {
      this.#logger.info?.(
        `entry at (index,term)=(${index},${term}) mismatched with entry at (${index},${held}) in unstable log; ignoring`,
      );
      return;
    }
    this.#entries.dropFirst(index + 1 - this.#offset);
    this.#offset = index + 1;
    if (this.#offsetInProgress < this.#offset) this.#offsetInProgress = this.#offset;
    this.#check();
  }

  /** The snapshot up to `index` is stable. */
  stableSnapTo(index: number): void {
    if (this.#snapshotIndex() !== index) return;
    this.#snapshot = undefined;
    this.#snapshotInProgress = false;
  }

  /** Restarts from a snapshot. */
  restore(snapshot: Snapshot): void {
    this.#offset = (snapshot.metadata?.index ?? 0) + 1;
    this.#offsetInProgress = this.#offset;
    this.#entries.clear();
    this.#snapshot = snapshot;
    this.#snapshotInProgress = false;
  }

  /** Appends entries[from ..], dropping everything held from the first one's index on. */
  truncateAndAppend(entries: readonly Entry[], from: number): void {
    const index = entries[from]!.index;
    if (index < this.#offset + this.#entries.length) {
      if (index <= this.#offset) {
        this.#logger.info?.(`replace the unstable entries from index ${index}`);
        this.#entries.clear();
        this.#offset = index;
        this.#offsetInProgress = index;
      } else {
        this.#logger.info?.(`truncate the unstable entries before index ${index}`);
        this.#entries.truncate(index - this.#offset);
        // Writes in progress past this index will be overwritten by the next ones.
        if (this.#offsetInProgress > index) this.#offsetInProgress = index;
      }
    } else if (index > this.#offset + this.#entries.length) {
      broken(`unstable append at ${index} leaves a gap after ${this.#offset + this.#entries.length - 1}`);
    }
    this.#entries.push(entries, from);
    this.#check();
    const last = entries[entries.length - 1]!.index;
    invariant(last === this.lastIndex(), "appended entries have no gap", last, this.lastIndex());
  }

  /** Entries [low, high), all of which must be held, cut after `bytesMax` wire bytes but at least one. */
  slice(low: number, high: number, bytesMax: number): Entry[] {
    const end = this.#offset + this.#entries.length;
    if (low > high) broken(`invalid unstable.slice ${low} > ${high}`);
    if (low < this.#offset || high > end) {
      broken(`unstable.slice[${low},${high}) out of bound [${this.#offset},${end}]`);
    }
    return this.#entries.sliceLimited(low - this.#offset, high - this.#offset, bytesMax);
  }

  #check(): void {
    const end = this.#offset + this.#entries.length;
    invariant(this.#offset <= this.#offsetInProgress, "writing begins behind what is stable", this.#offsetInProgress);
    invariant(this.#offsetInProgress <= end, "only what is held is being written", this.#offsetInProgress, end);
  }

  #snapshotIndex(): number | undefined {
    return this.#snapshot === undefined ? undefined : (this.#snapshot.metadata?.index ?? 0);
  }
}
