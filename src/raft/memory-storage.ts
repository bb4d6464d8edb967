/**
 * A RaftStorage in memory. Production uses it as the readable side of the write-ahead log: a Ready's contents are made
 * durable there first and then appended here. A restart fills it from the log.
 */
import { broken } from "../base/fatal.ts";
import { EMPTY_BYTES } from "../base/protobuf.ts";
import { ConfState, type Entry, type HardState, type Snapshot } from "../proto/raftpb.ts";
import { EntryList } from "./entry-list.ts";
import { ErrCompacted, ErrSnapOutOfDate, ErrUnavailable } from "./errors.ts";
import type { RaftStorage } from "./storage.ts";

export class MemoryStorage implements RaftStorage {
  #hardState: HardState | undefined;
  #snapshot: Snapshot = {
    data: EMPTY_BYTES,
    metadata: { confState: ConfState.create(), index: 0, term: 0 },
  };
  /** The entry before the first one held: compacted, except for its index and term. */
  #compactedIndex = 0;
  #compactedTerm = 0;
  readonly #entries = new EntryList();

  initialState(): { hardState: HardState | undefined; confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#snapshot.metadata?.confState ?? ConfState.create() };
  }

  setHardState(state: HardState): void {
    this.#hardState = state;
  }

  firstIndex(): number {
    return this.#compactedIndex + 1;
  }

  lastIndex(): number {
    return this.#compactedIndex + this.#entries.length;
  }

  term(index: number): number {
    if (index < this.#compactedIndex) throw ErrCompacted;
    if (index > this.lastIndex()) throw ErrUnavailable;
    return index === this.#compactedIndex
      ? this.#compactedTerm
      : this.#entries.at(index - this.#compactedIndex - 1).term;
  }

  entries(low: number, high: number, bytesMax: number): Entry[] {
    if (low <= this.#compactedIndex) throw ErrCompacted;
    if (high > this.lastIndex() + 1) broken(`entries' hi(${high}) is out of bound lastindex(${this.lastIndex()})`);
    if (this.#entries.length === 0) throw ErrUnavailable;
    const first = this.firstIndex();
    return this.#entries.sliceLimited(low - first, high - first, bytesMax);
  }

  snapshot(): Snapshot {
    return this.#snapshot;
  }

  /** Replaces the log by a snapshot. Throws ErrSnapOutOfDate if the current one is at least as new. */
  applySnapshot(snapshot: Snapshot): void {
    const index = snapshot.metadata?.index ?? 0;
    const held = this.#snapshot.metadata?.index ?? 0;
    // A snapshot at index 0 only carries the first configuration.
    if (held !== 0 && held >= index) throw ErrSnapOutOfDate;
    this.#snapshot = snapshot;
    this.#compactedIndex = index;
    this.#compactedTerm = snapshot.metadata?.term ?? 0;
    this.#entries.clear();
  }

  /**
   * Makes the snapshot that describes the applied state at `index`, with the configuration of the last
   * applyConfChange() if it changed since the last one. Compacts nothing. Throws ErrSnapOutOfDate.
   */
  createSnapshot(index: number, confState: ConfState | undefined, data: Uint8Array): Snapshot {
    const held = this.#snapshot.metadata;
    if (index <= (held?.index ?? 0)) throw ErrSnapOutOfDate;
    if (index > this.lastIndex()) broken(`snapshot ${index} is out of bound lastindex(${this.lastIndex()})`);
    this.#snapshot = {
      data,
      metadata: { confState: confState ?? held?.confState, index, term: this.term(index) },
    };
    return this.#snapshot;
  }

  /**
   * Drops the entries up to and including `index`, which must be applied. Throws ErrCompacted if they are compacted
   * already.
   */
  compact(index: number): void {
    if (index <= this.#compactedIndex) throw ErrCompacted;
    if (index > this.lastIndex()) broken(`compact ${index} is out of bound lastindex(${this.lastIndex()})`);
    const term = this.term(index);
    this.#entries.dropFirst(index - this.#compactedIndex);
    this.#compactedIndex = index;
    this.#compactedTerm = term;
  }

  /** Appends consecutive entries, replacing those held from the first one's index on. Compacted ones are skipped. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    const skipped = Math.max(0, this.firstIndex() - first.index);
    if (skipped >= entries.length) return;
    const start = first.index + skipped;
    const last = this.lastIndex();
    if (start > last + 1) broken(`missing log entry [last: ${last}, append at: ${first.index}]`);
    if (start <= last) this.#entries.truncate(start - this.firstIndex());
    this.#entries.push(entries, skipped);
  }
}
