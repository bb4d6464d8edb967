import type { KeyEntry } from "./key-entry.ts";
import { KeyEntry as Entry } from "./key-entry.ts";
import type { KvEncoder } from "./kv-encoder.ts";
import { rangeAt, rangeDecodedAt, rangeKeysAt } from "./read.ts";
import type { StoreCore } from "./store-core.ts";
import {
  type ByteString,
  type Change,
  type DecodedRangeResult,
  type KeyVisitor,
  MvccInvariantError,
  type RangeOptions,
  type RangeResult,
  type RawVisitor,
  type ReadView,
  toByteString,
} from "./types.ts";

/**
 * One write transaction: all its changes get the same main revision, and no reader sees them before `end`. There is one
 * at a time, and it begins and ends in one turn of the event loop.
 *
 * Changes go into the index and the backend's batch at once and cannot be taken back: check everything that may fail
 * before the first one.
 * Source: etcd `server/storage/mvcc/kvstore_txn.go`.
 */
export class WriteTxn implements ReadView {
  /** What it changed so far, in order. */
  readonly changes: Change[] = [];
  readonly #core: StoreCore;
  readonly #encoder: KvEncoder;
  readonly #onEnd: (changes: readonly Change[]) => void;
  readonly #base: number;
  #ended = false;

  constructor(core: StoreCore, encoder: KvEncoder, onEnd: (changes: readonly Change[]) => void) {
    this.#core = core;
    this.#encoder = encoder;
    this.#onEnd = onEnd;
    this.#base = core.currentRevision;
  }

  /** The revision that its changes get, once it has made one; until then the current one. */
  get revision(): number {
    return this.changes.length > 0 ? this.#base + 1 : this.#base;
  }

  /** Writes a key. `lease` (0n for none) must exist. The arguments are copied. */
  put(key: Uint8Array, value: Uint8Array, lease: bigint): void {
    this.#checkOpen();
    const { index, leases } = this.#core;
    const main = this.#base + 1;
    const sub = this.changes.length;
    let entry = index.find(key);
    let oldLease = 0n;
    if (entry === undefined) {
      entry = new Entry(toByteString(key), main, sub, 1, main);
      index.insert(entry);
    } else {
      if (entry.live) oldLease = leases.leaseOf(entry.key);
      index.put(entry, main, sub);
    }
    this.#encoder.put(entry.key, entry.created, main, entry.version, value, lease);
    this.#record(entry, main, sub, lease);
    if (oldLease === lease) return;
    if (oldLease !== 0n) leases.detach(oldLease, entry.key);
    if (lease !== 0n && !leases.attach(lease, entry.key)) {
      throw new MvccInvariantError(`put with lease ${lease.toString(16)}, which does not exist`);
    }
  }

  /** Deletes the keys of the range that exist, in order. Returns how many. */
  deleteRange(key: Uint8Array, rangeEnd: Uint8Array | null): number {
    this.#checkOpen();
    const { index } = this.#core;
    if (rangeEnd === null) {
      const entry = index.find(key);
      if (entry === undefined || !entry.live) return 0;
      this.#delete(entry);
      return 1;
    }
    const end = rangeEnd.length === 1 && rangeEnd[0] === 0 ? null : toByteString(rangeEnd);
    const entries: KeyEntry[] = [];
    index.visit(toByteString(key), end, (entry) => {
      if (entry.live) entries.push(entry);
      return true;
    });
    for (const entry of entries) this.#delete(entry);
    return entries.length;
  }

  /** Deletes one key; what a lease does with those attached to it. Returns whether it existed. */
  deleteKey(key: ByteString): boolean {
    this.#checkOpen();
    const entry = this.#core.index.findString(key);
    if (entry === undefined || !entry.live) return false;
    this.#delete(entry);
    return true;
  }

  range(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: RawVisitor): RangeResult {
    return rangeAt(this.#core, this.revision, key, rangeEnd, options, visit);
  }

  rangeKeys(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: KeyVisitor): RangeResult {
    return rangeKeysAt(this.#core, this.revision, key, rangeEnd, options, visit);
  }

  rangeDecoded(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions): DecodedRangeResult {
    return rangeDecodedAt(this.#core, this.revision, key, rangeEnd, options);
  }

  /** Publishes the changes, if there are any, under the next revision. */
  end(): void {
    this.#checkOpen();
    this.#ended = true;
    this.#onEnd(this.changes);
  }

  #delete(entry: KeyEntry): void {
    const { index, leases } = this.#core;
    const main = this.#base + 1;
    const sub = this.changes.length;
    index.tombstone(entry, main, sub);
    this.#encoder.tombstone(entry.key);
    this.#record(entry, main, sub, 0n);
    const lease = leases.leaseOf(entry.key);
    if (lease !== 0n) leases.detach(lease, entry.key);
  }

  #record(entry: KeyEntry, main: number, sub: number, lease: bigint): void {
    const { bytes, start, end } = this.#encoder;
    const tombstone = entry.version === 0;
    this.#core.backend.putRevision(main, sub, tombstone, bytes, start, end);
    this.changes.push({
      key: entry.key,
      main,
      sub,
      tombstone,
      createRevision: tombstone ? 0 : entry.created,
      version: entry.version,
      lease,
      bytes,
      start,
      end,
    });
  }

  #checkOpen(): void {
    if (this.#ended) throw new MvccInvariantError("the write transaction has ended");
  }
}
