import { KvorumError } from "../../base/errors.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";

/**
 * The types shared by the parts of mvcc/ and its users. No code except the errors and a few converters.
 *
 * The index keeps keys as bytes. Where a Map needs them, or changes and leases hold them, a key is a *byte string*: a
 * JavaScript string with one character (0..255) per byte, so that `<` orders keys bytewise and `===` compares them. It
 * never shares memory with a socket buffer.
 */
export type ByteString = string;

const latin1Slice = Buffer.prototype.latin1Slice;

/** The bytes as a byte string, copied. */
export function toByteString(bytes: Uint8Array): ByteString {
  return latin1Slice.call(bytes as Buffer, 0, bytes.length);
}

/** A copy, made without Buffer's slow slice. */
export function copyOf(bytes: Uint8Array, start: number, end: number): Buffer {
  const copy = Buffer.allocUnsafe(end - start);
  copy.set(bytes.subarray(start, end));
  return copy;
}

export function fromByteString(key: ByteString): Buffer {
  return Buffer.from(key, "latin1");
}

/** Range end that means "every key from `key` on", as on the wire: one zero byte. */
export const FROM_KEY: Uint8Array = Buffer.from([0]);

/** The requested revision is below the compact revision. gRPC: OUT_OF_RANGE. */
export class CompactedError extends KvorumError {
  override name = "CompactedError";
  readonly code = "ERR_MVCC_COMPACTED";
  readonly compactRevision: number;

  constructor(compactRevision: number) {
    super("mvcc: required revision has been compacted");
    this.compactRevision = compactRevision;
  }
}

/** The requested revision is above the current one. gRPC: OUT_OF_RANGE. */
export class FutureRevisionError extends KvorumError {
  override name = "FutureRevisionError";
  readonly code = "ERR_MVCC_FUTURE_REVISION";
  readonly currentRevision: number;

  constructor(currentRevision: number) {
    super("mvcc: required revision is a future revision");
    this.currentRevision = currentRevision;
  }
}

/**
 * One change of the key space, as a write transaction makes it and a watcher receives it.
 *
 * `bytes[start .. end)` is the encoded mvccpb.KeyValue exactly as the backend stores it: for a put, ready to copy into
 * an Event or a RangeResponse; for a tombstone it holds only the key (the Event of a deletion also carries the mod
 * revision, so it is encoded again). The memory behind `bytes` is written once and never reused, so it may be kept, but
 * keeping it pins up to 256 KiB.
 */
export interface Change {
  readonly key: ByteString;
  /** Revision of the transaction: the mod revision. */
  readonly main: number;
  /** Number of the change inside its transaction, from 0. */
  readonly sub: number;
  readonly tombstone: boolean;
  /** 0 for a tombstone. */
  readonly createRevision: number;
  /** 0 for a tombstone. */
  readonly version: number;
  /** 0n for none. */
  readonly lease: bigint;
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** The changes of one transaction, in order: an array, or a list that creates them on demand. */
export interface ChangeList {
  readonly length: number;
  at(index: number): Change | undefined;
}

/** Called at the end of a write transaction with changes, in order of revisions. Must not throw. */
export type ChangeListener = (revision: number, changes: ChangeList) => void;

/** Gets one encoded mvccpb.KeyValue, `bytes[start .. end)`, valid until the visitor returns: copy or decode, do not keep. */
export type RawVisitor = (bytes: Uint8Array, start: number, end: number) => void;

/** A key where it is kept, `bytes[keyStart .. keyEnd)`, valid until the visitor returns: copy it, do not keep it. */
export interface KeyInPlace {
  readonly bytes: Uint8Array;
  readonly keyStart: number;
  readonly keyEnd: number;
}

export function keyString({ bytes, keyStart, keyEnd }: KeyInPlace): ByteString {
  return latin1Slice.call(bytes as Buffer, keyStart, keyEnd);
}

/** A copy of the key. */
export function keyCopy({ bytes, keyStart, keyEnd }: KeyInPlace): Buffer {
  return copyOf(bytes, keyStart, keyEnd);
}

/** Gets one key with the revision, create revision and version that a read sees. */
export type KeyVisitor = (key: KeyInPlace, modRevision: number, createRevision: number, version: number) => void;

/**
 * Gets one stored revision, ascending by (main, sub). The bytes are the encoded mvccpb.KeyValue, valid until the visitor
 * returns. Returning false stops the scan after this one.
 */
export type RevisionVisitor = (
  main: number,
  sub: number,
  tombstone: boolean,
  bytes: Uint8Array,
  start: number,
  end: number,
) => boolean;

export interface RangeOptions {
  /** Revision to read at; 0 (or below) is the current one. */
  readonly revision: number;
  /** Maximum number of keys to visit; 0 (or below) is no limit. Does not limit `count`. */
  readonly limit: number;
  /** Only count, visit nothing. */
  readonly countOnly: boolean;
  /** Stop at the limit: `count` is then the number visited. For reading page by page. */
  readonly withoutCount?: boolean;
}

export interface RangeResult {
  /** Keys in the range at the revision, whatever the limit. */
  readonly count: number;
  /** Keys passed to the visitor. */
  readonly visited: number;
  /** The store's current revision (inside a write transaction that has written: the revision of its writes). */
  readonly revision: number;
}

export interface DecodedRangeResult extends RangeResult {
  /** Copied bytes. */
  readonly kvs: KeyValue[];
}

/** Queries of both a store and an open write transaction. `rangeEnd` null is the single key, [0] is from `key` on. */
export interface ReadView {
  /** Throws CompactedError, FutureRevisionError. */
  range(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: RawVisitor): RangeResult;
  /** Throws CompactedError, FutureRevisionError. */
  rangeDecoded(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions): DecodedRangeResult;
  /** Keys and revisions without values and leases, from memory only. Throws CompactedError, FutureRevisionError. */
  rangeKeys(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: KeyVisitor): RangeResult;
}

/** The part of a store that watch needs. MvccStore implements it. */
export interface ChangeSource extends ReadView {
  /** Revision of the last ended write transaction; 1 in an empty store. */
  readonly currentRevision: number;
  /** -1 before the first compaction. Reads and watches below it fail. */
  readonly compactRevision: number;
  /**
   * Subscribes; `currentRevision` is already the new revision when the listener is called. Returns a function that
   * unsubscribes.
   */
  onChange(listener: ChangeListener): () => void;
  /** Subscribes to the replacement of the content by a snapshot: everything known about revisions is then invalid. */
  onRestore(listener: () => void): () => void;
  /**
   * Visits the stored rows of the revisions from (`fromMain`, `fromSub`) up to, but excluding, `toMain`, ascending: for
   * watchers catching up.
   */
  forEachRevision(fromMain: number, toMain: number, fromSub: number, visit: RevisionVisitor): void;
}

/**
 * The attachments of keys to leases; lease/ implements it. The store calls it in order of revisions: from inside write
 * transactions, and once for each key with a lease while restoring.
 */
export interface LeaseAttachments {
  /** No key is attached to a lease: `leaseOf` need not be asked. */
  readonly isEmpty: boolean;
  /** The lease the key is attached to; 0n for none. */
  leaseOf(key: ByteString): bigint;
  /** False when there is no such lease. */
  attach(lease: bigint, key: ByteString): boolean;
  detach(lease: bigint, key: ByteString): void;
}

/** For stores without leases (tools, tests): nothing is ever attached. */
export const noLeases: LeaseAttachments = { isEmpty: true, leaseOf: () => 0n, attach: () => false, detach() {} };

/** HashKV as of etcd 3.7. */
export interface HashKvResult {
  /** crc32c, unsigned. */
  readonly hash: number;
  /** Compact revision that the hash was made under; -1 before the first compaction. */
  readonly compactRevision: number;
  readonly currentRevision: number;
  /** Revision covered by the hash. */
  readonly hashRevision: number;
  /** At least one key existed at that revision. */
  readonly hasKeys: boolean;
}
