/**
 * The raft log: the stable part behind a RaftStorage and the unstable end, as one sequence; and how far it is
 * committed, being applied, and applied.
 *
 * Invariants: applied <= applying <= committed <= lastIndex.
 */
import { broken, invariant } from "../base/fatal.ts";
import type { Entry, Snapshot } from "../proto/raftpb.ts";
import { EntryType } from "../proto/raftpb.ts";
import { entriesSize } from "./entry-size.ts";
import { ErrCompacted } from "./errors.ts";
import { UnstableLog } from "./log-unstable.ts";
import type { RaftLogger } from "./logger.ts";
import type { RaftStorage } from "./storage.ts";

export class RaftLog {
  readonly storage: RaftStorage;
  readonly unstable: UnstableLog;
  /** Highest index known to be on a quorum. */
  committed: number;
  readonly #logger: RaftLogger;
  /** Bytes of entries that may be in application at a time. */
  readonly #applyingBytesMax: number;
  #applying: number;
  #applied: number;
  #applyingBytes = 0;
  /** No more entries are delivered until some of those in application are applied. */
  #applyingPaused = false;

  constructor(storage: RaftStorage, logger: RaftLogger, applyingBytesMax: number) {
    this.storage = storage;
    this.unstable = new UnstableLog(storage.lastIndex() + 1, logger);
    this.committed = storage.firstIndex() - 1;
    this.#applying = this.committed;
    this.#applied = this.committed;
    this.#logger = logger;
    this.#applyingBytesMax = applyingBytesMax;
  }

  /** Highest index delivered for applying. */
  get applying(): number {
    return this.#applying;
  }

  /** Highest index that the application has applied. */
  get applied(): number {
    return this.#applied;
  }

  firstIndex(): number {
    return this.unstable.firstIndex() ?? this.storage.firstIndex();
  }

  lastIndex(): number {
    return this.unstable.lastIndex() ?? this.storage.lastIndex();
  }

  lastTerm(): number {
    const index = this.lastIndex();
    return this.term(index) ?? broken(`the term of the last entry, at ${index}, is not available`);
  }

  /** Term of the entry at an index; undefined when it is compacted or not there yet. */
  term(index: number): number | undefined {
    const term = this.unstable.term(index);
    if (term !== undefined) return term;
    // The term just before the first entry is kept, to match logs by.
    if (index + 1 < this.firstIndex() || index > this.lastIndex()) return undefined;
    return this.storage.term(index);
  }

  matchTerm(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends there is at least as up to date as this one: the condition for voting. */
  isUpToDate(index: number, term: number): boolean {
    const ours = this.lastTerm();
    return term > ours || (term === ours && index >= this.lastIndex());
  }

  /**
   * Takes entries that the leader says follow (prevIndex, prevTerm). Returns the index of the last of them, or
   * undefined if the log does not match there. Only what conflicts or is new is written.
   */
  maybeAppend(prevIndex: number, prevTerm: number, entries: readonly Entry[], commit: number): number | undefined {
    if (!this.matchTerm(prevIndex, prevTerm)) return undefined;
    const last = prevIndex + entries.length;
    const conflict = this.#findConflict(entries);
    if (conflict < entries.length) {
      const index = entries[conflict]!.index;
      if (index <= this.committed) {
        broken(`entry ${index} conflict with committed entry [committed(${this.committed})]`);
      }
      this.append(entries, conflict);
    }
    this.commitTo(Math.min(commit, last));
    return last;
  }

  /** Appends entries[from ..], replacing what the unstable log holds from their first index on. */
  append(entries: readonly Entry[], from = 0): void {
    if (from >= entries.length) return;
    const after = entries[from]!.index - 1;
    if (after < this.committed) broken(`after(${after}) is out of range [committed(${this.committed})]`);
    this.unstable.truncateAndAppend(entries, from);
  }

  /** Position of the first entry that is missing here or differs; entries.length if there is none. */
  #findConflict(entries: readonly Entry[]): number {
    for (let i = 0; i < entries.length; i++) {
      const { index, term } = entries[i]!;
      const held = this.term(index);
      if (held === term) continue;
      if (index <= this.lastIndex()) {
        this.#logger.info?.(
          `found conflict at index ${index} [existing term: ${held ?? 0}, conflicting term: ${term}]`,
        );
      }
      return i;
    }
    return entries.length;
  }

  /**
   * The highest index <= `index` whose term is <= `term`: the best guess where a log that has `term` at `index` matches
   * this one. An unknown term (compacted, or past the end) counts as a possible match.
   */
  findConflictByTerm(index: number, term: number): number {
    for (let at = index; at > 0; at--) {
      const ours = this.term(at);
      if (ours === undefined || ours <= term) return at;
    }
    return 0;
  }

  commitTo(index: number): void {
    if (index <= this.committed) return;
    const last = this.lastIndex();
    if (index > last) {
      broken(
        `tocommit(${index}) is out of range [lastIndex(${last})]. Was the raft log corrupted, truncated, or lost?`,
      );
    }
    this.committed = index;
  }

  /** A leader commits by counting only in its own term (Raft thesis, section 3.6.2). True if the index moved. */
  maybeCommit(index: number, term: number): boolean {
    if (term === 0 || index <= this.committed || !this.matchTerm(index, term)) return false;
    this.commitTo(index);
    return true;
  }

  /**
   * Next committed entries to apply, within the limit on bytes in application. `allowUnstable`: also those not yet
   * stable here.
   */
  nextCommittedEntries(allowUnstable: boolean): Entry[] {
    if (!this.hasNextCommittedEntries(allowUnstable)) return [];
    const bytesMax = this.#applyingBytesMax - this.#applyingBytes;
    const entries = this.slice(this.#applying + 1, this.#maxAppliable(allowUnstable) + 1, bytesMax);
    return entries ?? broken(`unapplied entries from ${this.#applying + 1} are compacted`);
  }

  hasNextCommittedEntries(allowUnstable: boolean): boolean {
    // A snapshot is applied before the entries that follow it.
    if (this.#applyingPaused || this.unstable.snapshot !== undefined) return false;
    return this.#applying < this.#maxAppliable(allowUnstable);
  }

  #maxAppliable(allowUnstable: boolean): number {
    return allowUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1);
  }

  /** Notes that entries up to `index`, of `bytes` wire bytes, are being applied. */
  acceptApplying(index: number, bytes: number, allowUnstable: boolean): void {
    if (index > this.committed) {
      broken(`applying(${index}) is out of range [prevApplying(${this.#applying}), committed(${this.committed})]`);
    }
    invariant(index >= this.#applying, "entries are given out for applying in order", index, this.#applying);
    this.#applying = index;
    this.#applyingBytes += bytes;
    // Fewer delivered than available means that the next one would cross the limit.
    this.#applyingPaused = this.#applyingBytes >= this.#applyingBytesMax || index < this.#maxAppliable(allowUnstable);
  }

  appliedTo(index: number, bytes: number): void {
    if (index > this.committed || index < this.#applied) {
      broken(`applied(${index}) is out of range [prevApplied(${this.#applied}), committed(${this.committed})]`);
    }
    invariant(this.committed <= this.lastIndex(), "what is committed is in the log", this.committed, this.lastIndex());
    this.#applied = index;
    if (this.#applying < index) this.#applying = index;
    this.#applyingBytes = Math.max(0, this.#applyingBytes - bytes);
    this.#applyingPaused = this.#applyingBytes >= this.#applyingBytesMax;
  }

  /** Whether a committed but unapplied entry changes the configuration. */
  hasUnappliedConfChange(): boolean {
    let low = this.#applied + 1;
    while (low <= this.committed) {
      // In pages, because the unapplied part can be large.
      const page = this.slice(low, this.committed + 1, this.#applyingBytesMax);
      if (page === undefined || page.length === 0) {
        return broken(`error scanning unapplied entries [${low}, ${this.committed + 1})`);
      }
      for (const entry of page) if (entry.type !== EntryType.EntryNormal) return true;
      low += page.length;
    }
    return false;
  }

  snapshot(): Snapshot {
    return this.unstable.snapshot ?? this.storage.snapshot();
  }

  restore(snapshot: Snapshot): void {
    const { index, term } = snapshot.metadata!;
    this.#logger.info?.(`log [${this}] starts to restore snapshot [index: ${index}, term: ${term}]`);
    invariant(index > this.committed, "a snapshot brings something new", index, this.committed);
    this.committed = index;
    this.unstable.restore(snapshot);
  }

  /** All entries from `index` on, cut after `bytesMax` wire bytes but at least one. Undefined if it is compacted. */
  entriesFrom(index: number, bytesMax: number): Entry[] | undefined {
    const last = this.lastIndex();
    return index > last ? [] : this.slice(index, last + 1, bytesMax);
  }

  /** Entries [low, high), cut after `bytesMax` wire bytes but at least one. Undefined if `low` is compacted. */
  slice(low: number, high: number, bytesMax: number): Entry[] | undefined {
    if (low > high) broken(`invalid slice ${low} > ${high}`);
    if (low < this.firstIndex()) return undefined;
    if (high > this.lastIndex() + 1) {
      broken(`slice[${low},${high}) out of bound [${this.firstIndex()},${this.lastIndex()}]`);
    }
    if (low === high) return [];
    const { offset } = this.unstable;
    if (low >= offset) return this.unstable.slice(low, high, bytesMax);

    const cut = Math.min(high, offset);
    const stable = this.#stableEntries(low, cut, bytesMax);
    if (stable === undefined || high <= offset || stable.length < cut - low) return stable;
    const bytes = entriesSize(stable);
    if (bytes >= bytesMax) return stable;
    const rest = this.unstable.slice(offset, high, bytesMax - bytes);
    // A slice is never empty, so its first entry alone may exceed the limit.
    if (rest.length === 1 && bytes + entriesSize(rest) > bytesMax) return stable;
    return stable.concat(rest);
  }

  #stableEntries(low: number, high: number, bytesMax: number): Entry[] | undefined {
    try {
      return this.storage.entries(low, high, bytesMax);
    } catch (error) {
      if (error === ErrCompacted) return undefined;
      throw error;
    }
  }

  toString(): string {
    const { unstable } = this;
    return (
      `committed=${this.committed}, applied=${this.#applied}, applying=${this.#applying}, ` +
      `unstable.offset=${unstable.offset}, unstable.offsetInProgress=${unstable.offsetInProgress}, ` +
      `len(unstable.Entries)=${unstable.length}`
    );
  }
}
