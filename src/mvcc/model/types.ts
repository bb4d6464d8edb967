import type { KeyValue } from "../../proto/mvccpb.ts";

/**
 * The words that the parts of mvcc/ and its users share. No code but the errors and two converters.
 *
 * A key inside mvcc/ and lease/ is a *byte string*: a JavaScript string with one character (0..255) per byte, so that
 * `<` orders keys bytewise, `===` compares them, and a Map can hold them. It never shares memory with a socket buffer.
 */
export type ByteString = string;

const latin1Slice = Buffer.prototype.latin1Slice;

/** The bytes as a byte string of its own memory. */
export function toByteString(bytes: Uint8Array): ByteString {
  return latin1Slice.call(bytes as Buffer, 0, bytes.length);
}

/** Bytes of its own, made without the slice of Buffer, which is slow. */
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
export class CompactedError extends Error {
  override name = "CompactedError";
  readonly code = "ERR_MVCC_COMPACTED";
  readonly compactRevision: number;

  constructor(compactRevision: number) {
    super("mvcc: required revision has been compacted");
    this.compactRevision = compactRevision;
  }
}

/** The requested revision is above the current one. gRPC: OUT_OF_RANGE. */
export class FutureRevisionError extends Error {
  override name = "FutureRevisionError";
  readonly code = "ERR_MVCC_FUTURE_REVISION";
  readonly currentRevision: number;

  constructor(currentRevision: number) {
    super("mvcc: required revision is a future revision");
    this.currentRevision = currentRevision;
  }
}

/**
 * One change of the key space, as a write transaction makes it and a watcher gets it.
 *
 * `bytes[start .. end)` is the encoded mvccpb.KeyValue exactly as the backend stores it: for a put, ready to be copied
 * into an Event or a RangeResponse; for a tombstone it holds the key alone (the Event of a deletion also carries the
 * mod revision, so it has to be encoded anew). The memory behind `bytes` is written once and never reused, so it may be
 * kept, but keeping it pins up to 256 KiB.
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

/** The changes of one transaction, in order: an array, or what makes them when they are asked for. */
export interface ChangeList {
  readonly length: number;
  at(index: number): Change | undefined;
}

/** Called at the end of a write transaction that changed something, in the order of revisions. Must not throw. */
export type ChangeListener = (revision: number, changes: ChangeList) => void;

/** Gets one encoded mvccpb.KeyValue, `bytes[start .. end)`, valid until the visitor returns: copy or decode, do not keep. */
export type RawVisitor = (bytes: Uint8Array, start: number, end: number) => void;

/** Gets one key with the revision, create revision and version that a read sees. */
export type KeyVisitor = (key: ByteString, modRevision: number, createRevision: number, version: number) => void;

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
  /** Most keys to visit; 0 (or below) is no limit. Does not limit `count`. */
  readonly limit: number;
  /** Visit nothing, only count. */
  readonly countOnly: boolean;
  /** Stop at the limit: `count` is then what was visited. For reading on page by page. */
  readonly withoutCount?: boolean;
}

export interface RangeResult {
  /** Keys in the range at the revision, whatever the limit. */
  readonly count: number;
  /** Keys that the visitor got. */
  readonly visited: number;
  /** The store's current revision (inside a write transaction: the one its writes get, once it has written). */
  readonly revision: number;
}

export interface DecodedRangeResult extends RangeResult {
  /** Bytes of their own memory. */
  readonly kvs: KeyValue[];
}

/** What both a store and an open write transaction can be asked. `rangeEnd` null is the single key, [0] is from `key` on. */
export interface ReadView {
  /** Throws CompactedError, FutureRevisionError. */
  range(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: RawVisitor): RangeResult;
  /** Throws CompactedError, FutureRevisionError. */
  rangeDecoded(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions): DecodedRangeResult;
  /** Keys and revisions without values and leases, from memory alone. Throws CompactedError, FutureRevisionError. */
  rangeKeys(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: KeyVisitor): RangeResult;
}

/** What watch needs of a store. MvccStore is one. */
export interface ChangeSource extends ReadView {
  /** Revision of the last ended write transaction; 1 in an empty store. */
  readonly currentRevision: number;
  /** -1 before the first compaction. Reads and watches below it fail. */
  readonly compactRevision: number;
  /** Subscribes; `currentRevision` is already the new revision when it is told. Returns what ends that. */
  onChange(listener: ChangeListener): () => void;
  /** Subscribes to what happens after the content was replaced by a snapshot: everything known about revisions is void. */
  onRestore(listener: () => void): () => void;
  /**
   * Visits what is stored of the revisions `fromMain`, of that from `fromSub` on, to, but without, `toMain`, ascending: the
   * catching up of watchers.
   */
  forEachRevision(fromMain: number, toMain: number, fromSub: number, visit: RevisionVisitor): void;
}

/**
 * Where leases keep which key hangs on them; lease/ implements it. The store calls it in the order of the revisions:
 * from inside write transactions, and once for each key with a lease while it restores.
 */
export interface LeaseAttachments {
  /** The lease the key hangs on; 0n for none. */
  leaseOf(key: ByteString): bigint;
  /** False when there is no such lease. */
  attach(lease: bigint, key: ByteString): boolean;
  detach(lease: bigint, key: ByteString): void;
}

/** For stores without leases (tools, tests): nothing is ever attached. */
export const noLeases: LeaseAttachments = { leaseOf: () => 0n, attach: () => false, detach() {} };

/** HashKV as of etcd 3.7. */
export interface HashKvResult {
  /** crc32c, unsigned. */
  readonly hash: number;
  /** Compact revision that the hash was made under; -1 before the first compaction. */
  readonly compactRevision: number;
  readonly currentRevision: number;
  /** Revision that the hash covers. */
  readonly hashRevision: number;
  /** Some key was there at that revision. */
  readonly hasKeys: boolean;
}
