import { InvariantError } from "../../base/fatal.ts";
import { SliceBudget } from "../../base/slice-budget.ts";
import type { LongChanges } from "../index/long-changes.ts";
import type { KvEncoder } from "../model/kv-encoder.ts";
import {
  type ByteString,
  type Change,
  type ChangeList,
  type DecodedRangeResult,
  fromByteString,
  type KeyVisitor,
  keyCopy,
  keyString,
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
    const long = index.beginLong(this.#base + 1);
    for (const change of this.#changes) {
      const id = index.find(fromByteString(change.key));
      if (change.tombstone) long.addTombstone(id);
      else long.addPut(id, change, change.version === 1);
    }
    this.#long = long;
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
    let id = index.find(key);
    let version = 1;
    let created = main;
    let oldLease = 0n;
    if (id === 0) id = index.insert(key, 0, key.length, main, sub, 1, main);
    else {
      if (!leases.isEmpty && index.isLive(id)) oldLease = leases.leaseOf(toByteString(key));
      version = index.put(id, main, sub);
      created = index.created(id);
    }
    this.#encoder.put(key, created, main, version, value, lease);
    this.#record(id, main, sub, version, created, lease);
    if (oldLease === lease) return;
    const name = toByteString(key);
    if (oldLease !== 0n) leases.detach(oldLease, name);
    if (lease !== 0n && !leases.attach(lease, name)) {
      throw new InvariantError(`put with lease ${lease.toString(16)}, which does not exist`);
    }
  }

  /** Deletes the existing keys of the range, in order. Returns their number. */
  deleteRange(key: Uint8Array, rangeEnd: Uint8Array | null): number {
    this.#checkOpen();
    if (rangeEnd === null) {
      return this.#deleteOne(key, null) ? 1 : 0;
    }
    const before = this.#changeCount;
    this.deleteSlice(key, endOf(rangeEnd), UNLIMITED);
    return this.#changeCount - before;
  }

  /**
   * Deletes the existing keys of [start, end) (end null: to the last key), in order, until the budget is spent; each
   * key examined counts. Returns the key to continue from, or null when done.
   */
  deleteSlice(
    start: Uint8Array,
    end: Uint8Array | null,
    budget: SliceBudget,
    { attachedTo, detached }: LeasedKeys = {},
  ): Uint8Array | null {
    this.#checkOpen();
    const { index, leases } = this.#core;
    const hasOwners = !leases.isEmpty && !detached;
    let next: Uint8Array | null = null;
    index.visit(start, end, (id) => {
      const key = index.locate(id);
      if (budget.isSpent) {
        next = keyCopy(key);
        return false;
      }
      budget.spend(1, key.keyEnd - key.keyStart);
      if (!index.isLive(id)) return true;
      const name = hasOwners ? index.key(id) : null;
      const owner = name === null ? 0n : leases.leaseOf(name);
      if (attachedTo === undefined || owner === attachedTo) this.#delete(id, owner, name);
      return true;
    });
    return next;
  }

  /** Deletes one key; used for the keys attached to a lease. Returns whether it existed. */
  deleteKey(key: ByteString): boolean {
    this.#checkOpen();
    return this.#deleteOne(fromByteString(key), key);
  }

  /** `name`: the key as a byte string, if there is one already. */
  #deleteOne(key: Uint8Array, name: ByteString | null): boolean {
    const { index, leases } = this.#core;
    const id = index.find(key);
    if (id === 0 || !index.isLive(id)) return false;
    if (!leases.isEmpty) name ??= toByteString(key);
    this.#delete(id, name === null ? 0n : leases.leaseOf(name), name);
    return true;
  }

  /** Number of keys in [start, end), its own changes included; end null means to the last key. */
  countLive(start: Uint8Array, end: Uint8Array | null): number {
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
      this.#core.index.endLong();
      this.#core.backend.endLongWrite();
    }
    this.#onEnd(this.#long ?? this.#changes);
  }

  /** `lease`: the lease it is attached to, or 0n; then `name` is the key. */
  #delete(id: number, lease: bigint, name: ByteString | null): void {
    const { index, leases } = this.#core;
    const main = this.#base + 1;
    const sub = this.#changeCount;
    index.tombstone(id, main, sub);
    const { bytes, keyStart, keyEnd } = index.locate(id);
    this.#encoder.tombstone(bytes, keyStart, keyEnd);
    this.#record(id, main, sub, 0, 0, 0n);
    if (lease !== 0n) leases.detach(lease, name!);
  }

  /** Records what the encoder has just encoded. Version 0 is a tombstone. */
  #record(id: number, main: number, sub: number, version: number, created: number, lease: bigint): void {
    const { bytes, start, end } = this.#encoder;
    const tombstone = version === 0;
    this.#core.backend.putRevision(main, sub, tombstone, bytes, start, end);
    this.#changeCount++;
    this.#core.hasOpenChanges = true;
    if (tombstone && this.#long !== null) {
      this.#long.addTombstone(id);
      return;
    }
    const change = new EncodedChange(main, sub, version, created, lease, this.#encoder);
    if (this.#long === null) this.#changes.push(change);
    else this.#long.addPut(id, change, version === 1);
  }

  #checkOpen(): void {
    if (this.#ended) throw new InvariantError("the write transaction has ended");
  }
}

/** Which keys of a range are deleted, and what becomes of their leases. */
export interface LeasedKeys {
  /** Only those attached to this lease. */
  readonly attachedTo?: bigint;
  /** The caller detaches all of them. */
  readonly detached?: boolean;
}

const UNLIMITED = new SliceBudget(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);

const endOf = (rangeEnd: Uint8Array): Uint8Array | null =>
  rangeEnd.length === 1 && rangeEnd[0] === 0 ? null : rangeEnd;

/** A change as the encoder has encoded it. Most are seen by no watcher, so the key is made when it is asked for. */
class EncodedChange implements Change {
  readonly main: number;
  readonly sub: number;
  readonly version: number;
  readonly createRevision: number;
  readonly lease: bigint;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  readonly #keyStart: number;
  readonly #keyEnd: number;
  #key: ByteString | undefined = undefined;

  constructor(main: number, sub: number, version: number, created: number, lease: bigint, encoded: KvEncoder) {
    this.main = main;
    this.sub = sub;
    this.version = version;
    this.createRevision = created;
    this.lease = lease;
    this.bytes = encoded.bytes;
    this.start = encoded.start;
    this.end = encoded.end;
    this.#keyStart = encoded.keyStart;
    this.#keyEnd = encoded.keyEnd;
  }

  get tombstone(): boolean {
    return this.version === 0;
  }

  get key(): ByteString {
    return (this.#key ??= keyString({ bytes: this.bytes, keyStart: this.#keyStart, keyEnd: this.#keyEnd }));
  }
}
