import { InvariantError } from "../../base/fatal.ts";
import { SliceBudget } from "../../base/slice-budget.ts";
import type { KeyEntry } from "../index/key-entry.ts";
import { KeyEntry as Entry } from "../index/key-entry.ts";
import { LongChanges } from "../index/long-changes.ts";
import type { KvEncoder } from "../model/kv-encoder.ts";
import {
  type ByteString,
  type Change,
  type ChangeList,
  type DecodedRangeResult,
  type KeyVisitor,
  type RangeOptions,
  type RangeResult,
  type RawVisitor,
  type ReadView,
  toByteString,
} from "../model/types.ts";
import type { StoreCore } from "./core.ts";
import type { ReadPoint } from "./range-cursor.ts";
import { rangeAt, rangeDecodedAt, rangeKeysAt } from "./read.ts";

/**
 * One write transaction: all its changes have the same main revision, and no reader sees them before `end`. There is
 * one at a time. It begins and ends in one event loop turn, unless it is declared long: then it may take many, and all
 * readers continue with the previous revision.
 *
 * Changes are applied to the index and the backend's batch at once and cannot be undone: check everything that may fail
 * before the first one. Source: etcd `server/storage/mvcc/kvstore_txn.go`.
 */
export class WriteTxn implements ReadView {
  /** Its changes, in order, while it is not long. */
  readonly #changes: Change[] = [];
  #long: LongChanges | null = null;
  #changeCount = 0;
  readonly #core: StoreCore;
  readonly #encoder: KvEncoder;
  readonly #onEnd: (changes: ChangeList) => void;
  readonly #base: number;
  #ended = false;

  constructor(core: StoreCore, encoder: KvEncoder, onEnd: (changes: ChangeList) => void) {
    this.#core = core;
    this.#encoder = encoder;
    this.#onEnd = onEnd;
    this.#base = core.currentRevision;
  }

  /** The revision of its changes, once it has made one; until then the current one. */
  get revision(): number {
    return this.#changeCount > 0 ? this.#base + 1 : this.#base;
  }

  /** Number of changes so far. */
  get changeCount(): number {
    return this.#changeCount;
  }

  /**
   * From now on it may take many turns. The caller ensures that nothing else is written meanwhile, and ends it in the
   * turn in which the applied index advances.
   */
  becomeLong(): void {
    this.#checkOpen();
    if (this.#long !== null) return;
    const { index, backend } = this.#core;
    const long = new LongChanges(this.#base + 1);
    for (const change of this.#changes) {
      if (change.tombstone) long.addTombstone(index.findString(change.key)!);
      else long.addPut(change, change.version === 1);
    }
    this.#long = long;
    index.pending = long;
    backend.beginLongWrite(long.main);
  }

  /** The point of a read inside it now: everything before it, and its changes so far. */
  get point(): ReadPoint {
    const sub = this.#changeCount;
    return sub > 0 ? { main: this.#base + 1, sub } : { main: this.#base, sub: Number.POSITIVE_INFINITY };
  }

  /** Writes a key. `lease` (0n for none) must exist. The arguments are copied. */
  put(key: Uint8Array, value: Uint8Array, lease: bigint): void {
    this.#checkOpen();
    const { index, leases } = this.#core;
    const main = this.#base + 1;
    const sub = this.#changeCount;
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
      throw new InvariantError(`put with lease ${lease.toString(16)}, which does not exist`);
    }
  }

  /** Deletes the existing keys of the range, in order. Returns their number. */
  deleteRange(key: Uint8Array, rangeEnd: Uint8Array | null): number {
    this.#checkOpen();
    const { index } = this.#core;
    if (rangeEnd === null) {
      const entry = index.find(key);
      if (entry === undefined || !entry.live) return 0;
      this.#delete(entry, this.#core.leases.leaseOf(entry.key));
      return 1;
    }
    const before = this.#changeCount;
    this.deleteSlice(toByteString(key), endOf(rangeEnd), UNLIMITED);
    return this.#changeCount - before;
  }

  /**
   * Deletes the existing keys of [start, end) (end null: to the last key), in order, until the budget is spent; each
   * key examined counts. Returns the key to continue from, or null when done. With a lease, only keys attached to it.
   */
  deleteSlice(start: ByteString, end: ByteString | null, budget: SliceBudget, lease = 0n): ByteString | null {
    this.#checkOpen();
    const { index, leases } = this.#core;
    let next: ByteString | null = null;
    index.visit(start, end, (entry) => {
      if (budget.isSpent) {
        next = entry.key;
        return false;
      }
      budget.spend(1, entry.key.length);
      if (!entry.live) return true;
      const owner = leases.leaseOf(entry.key);
      if (lease === 0n || owner === lease) this.#delete(entry, owner);
      return true;
    });
    return next;
  }

  /** Deletes one key; used for the keys attached to a lease. Returns whether it existed. */
  deleteKey(key: ByteString): boolean {
    this.#checkOpen();
    const entry = this.#core.index.findString(key);
    if (entry === undefined || !entry.live) return false;
    this.#delete(entry, this.#core.leases.leaseOf(entry.key));
    return true;
  }

  /** Number of keys in [start, end), its own changes included; end null means to the last key. */
  countLive(start: ByteString, end: ByteString | null): number {
    return this.#core.index.countLiveInside(start, end);
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
    this.#core.hasOpenChanges = false;
    if (this.#long !== null) {
      this.#core.index.pending = null;
      this.#core.backend.endLongWrite();
    }
    this.#onEnd(this.#long ?? this.#changes);
  }

  /** `lease`: the lease it is attached to, or 0n. */
  #delete(entry: KeyEntry, lease: bigint): void {
    const { index, leases } = this.#core;
    const main = this.#base + 1;
    const sub = this.#changeCount;
    index.tombstone(entry, main, sub);
    this.#encoder.tombstone(entry.key);
    this.#record(entry, main, sub, 0n);
    if (lease !== 0n) leases.detach(lease, entry.key);
  }

  #record(entry: KeyEntry, main: number, sub: number, lease: bigint): void {
    const { bytes, start, end } = this.#encoder;
    const tombstone = entry.version === 0;
    this.#core.backend.putRevision(main, sub, tombstone, bytes, start, end);
    this.#changeCount++;
    this.#core.hasOpenChanges = true;
    if (tombstone && this.#long !== null) {
      this.#long.addTombstone(entry);
      return;
    }
    const change = {
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
    };
    if (this.#long === null) this.#changes.push(change);
    else this.#long.addPut(change, entry.version === 1);
  }

  #checkOpen(): void {
    if (this.#ended) throw new InvariantError("the write transaction has ended");
  }
}

const UNLIMITED = new SliceBudget(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);

const endOf = (rangeEnd: Uint8Array): ByteString | null =>
  rangeEnd.length === 1 && rangeEnd[0] === 0 ? null : toByteString(rangeEnd);
