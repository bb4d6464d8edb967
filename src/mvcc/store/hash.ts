import type { Clock } from "../../base/clock.ts";
import { crc32c } from "../../base/crc32c.ts";
import { othersTurn } from "../../base/others-turn.ts";
import type { BackendSnapshot, BucketName } from "../backend/backend.ts";
import { TOMBSTONE_BYTES, writeRevision } from "../model/revision.ts";
import type { RevisionVisitor } from "../model/types.ts";

/**
 * etcd's two hashes: of the key bucket up to a revision (HashKV) and of the whole backend (Hash). Both are crc32c.
 * Source: etcd `server/storage/mvcc/hash.go`, `server/storage/backend/backend.go`.
 */

/** A hash of the key bucket and the range it covers. */
export interface KvHash {
  readonly hash: number;
  readonly compactRevision: number;
  readonly revision: number;
  /**
   * At least one key existed at `revision`. Otherwise a member that has compacted there has another hash than one that
   * has not.
   */
  readonly hasKeys: boolean;
}

/** Says which revisions to include; asked in ascending order. */
export interface RevisionFilter {
  has(main: number, sub: number): boolean;
}

/**
 * Takes the rows of the key bucket in order and hashes those that any member compacted at the same revision also has.
 */
export class KvHasher {
  readonly #hash = new RunningHash();
  readonly #compactRevision: number;
  readonly #revision: number;
  readonly #keep: RevisionFilter | undefined;
  readonly #hasKeys: boolean;

  /** `keep` says which revisions at or below `compactRevision` are included; undefined for all existing ones. */
  constructor(compactRevision: number, revision: number, keep: RevisionFilter | undefined, hasKeys: boolean) {
    this.#compactRevision = compactRevision;
    this.#revision = revision;
    this.#keep = keep;
    this.#hasKeys = hasKeys;
    this.#hash.writeText("key");
  }

  write(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void {
    if (main > this.#revision) return;
    if (main <= this.#compactRevision) {
      if (this.#keep !== undefined && !this.#keep.has(main, sub)) return;
      // Old versions delete a tombstone at the compact revision and new ones do not: it is never included.
      if (main === this.#compactRevision && tombstone) return;
    }
    this.#hash.writeRevision(main, sub, tombstone);
    this.#hash.write(bytes, start, end);
  }

  finish(): KvHash {
    return {
      hash: this.#hash.finish(),
      compactRevision: this.#compactRevision,
      revision: this.#revision,
      hasKeys: this.#hasKeys,
    };
  }
}

/** Stores the hashes made by compactions: HashKV of such a revision must return the hash from before the compaction. */
export class HashStorage {
  #hashes: KvHash[] = [];

  store(hash: KvHash): void {
    this.#hashes.push(hash);
    this.#hashes.sort((a, b) => a.revision - b.revision);
    if (this.#hashes.length > STORED_HASHES_MAX) this.#hashes = this.#hashes.slice(-STORED_HASHES_MAX);
  }

  find(revision: number): KvHash | undefined {
    return this.#hashes.find((hash) => hash.revision === revision);
  }

  /** Ascending by revision. */
  all(): readonly KvHash[] {
    return [...this.#hashes];
  }

  clear(): void {
    this.#hashes = [];
  }
}

const STORED_HASHES_MAX = 10;

/** Hashes the key bucket of the snapshot, yielding to the event loop after every slice. */
export async function hashKeyBucket(snapshot: BackendSnapshot, hasher: KvHasher, clock: Clock): Promise<KvHash> {
  await eachSlice(snapshot, clock, (...row) => {
    hasher.write(...row);
    return true;
  });
  return hasher.finish();
}

/** Excluded from the backend's hash: data that may differ between members. */
function defaultHashIgnores(bucket: BucketName, key: Uint8Array): boolean {
  return bucket === "meta" && ignoredMetaKeys.some((ignored) => ignored.equals(key));
}

const ignoredMetaKeys = ["term", "consistent_index", "storageVersion"].map((key) => Buffer.from(key));

/** Hashes all buckets of the snapshot, yielding to the event loop after every slice. */
export async function hashBackend(
  snapshot: BackendSnapshot,
  clock: Clock,
  ignores: (bucket: BucketName, key: Uint8Array) => boolean = defaultHashIgnores,
): Promise<number> {
  const hash = new RunningHash();
  for (const bucket of snapshot.buckets()) {
    hash.writeText(bucket);
    if (bucket === "key") {
      await eachSlice(snapshot, clock, (main, sub, tombstone, bytes, start, end) => {
        hash.writeRevision(main, sub, tombstone);
        hash.write(bytes, start, end);
        return true;
      });
      continue;
    }
    for (const chunk of snapshot.entries(bucket, SLICE_BYTES)) {
      for (const { key, value } of chunk) {
        if (ignores(bucket, key)) continue;
        hash.write(key, 0, key.length);
        hash.write(value, 0, value.length);
      }
      await othersTurn(clock);
    }
  }
  return hash.finish();
}

/** About a millisecond of work. */
const SLICE_BYTES = 512 * 1024;
const SLICE_ROWS = 1500;

/** Visits all rows of the key bucket; the visitor returns true. */
async function eachSlice(snapshot: BackendSnapshot, clock: Clock, visit: RevisionVisitor): Promise<void> {
  let fromMain = 0;
  let fromSub = 0;
  for (;;) {
    let rows = 0;
    let size = 0;
    snapshot.forEachRevision(fromMain, fromSub, (main, sub, tombstone, bytes, start, end) => {
      visit(main, sub, tombstone, bytes, start, end);
      fromMain = main;
      fromSub = sub + 1;
      size += end - start;
      return ++rows < SLICE_ROWS && size < SLICE_BYTES;
    });
    if (rows < SLICE_ROWS && size < SLICE_BYTES) return;
    await othersTurn(clock);
  }
}

/** crc32c of many small pieces, which are collected, because a library call costs more than hashing a row. */
export class RunningHash {
  readonly #buffer = Buffer.allocUnsafe(32 * 1024);
  #length = 0;
  #hash = 0;

  writeText(text: string): void {
    const bytes = Buffer.from(text);
    this.write(bytes, 0, bytes.length);
  }

  writeRevision(main: number, sub: number, tombstone: boolean): void {
    if (this.#length + TOMBSTONE_BYTES > this.#buffer.length) this.#flush();
    this.#length = writeRevision(this.#buffer, this.#length, main, sub, tombstone);
  }

  write(bytes: Uint8Array, start: number, end: number): void {
    if (end - start > this.#buffer.length - this.#length) {
      this.#flush();
      if (end - start > this.#buffer.length) {
        this.#hash = crc32c(bytes, this.#hash, start, end);
        return;
      }
    }
    this.#buffer.set(new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start), this.#length);
    this.#length += end - start;
  }

  finish(): number {
    this.#flush();
    return this.#hash >>> 0;
  }

  #flush(): void {
    if (this.#length > 0) this.#hash = crc32c(this.#buffer, this.#hash, 0, this.#length);
    this.#length = 0;
  }
}
