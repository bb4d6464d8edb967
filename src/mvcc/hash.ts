import { crc32c } from "@node-rs/crc32";
import type { Clock } from "../base/clock.ts";
import type { BackendSnapshot, BucketName } from "./backend.ts";
import { isTombstone, mainOf, subOf, writeRevision } from "./revision.ts";
import type { RevisionSet } from "./revision-set.ts";

/**
 * etcd's two hashes: of the key bucket up to a revision (HashKV) and of the whole backend (Hash). Both are crc32c.
 * Source: etcd `server/storage/mvcc/hash.go`, `server/storage/backend/backend.go`.
 */

/** A hash of the key bucket and what it covers. */
export interface KvHash {
  readonly hash: number;
  readonly compactRevision: number;
  readonly revision: number;
}

/** Takes the rows of the key bucket in order and hashes those that a member compacted at the same revision also has. */
export class KvHasher {
  #hash = crc32c("key");
  readonly #compactRevision: number;
  readonly #revision: number;
  readonly #keep: RevisionSet;

  /** `keep` says which revisions at or below `compactRevision` are not (to be) deleted. */
  constructor(compactRevision: number, revision: number, keep: RevisionSet) {
    this.#compactRevision = compactRevision;
    this.#revision = revision;
    this.#keep = keep;
  }

  write(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void {
    if (main > this.#revision) return;
    if (main <= this.#compactRevision) {
      if (this.#keep.size > 0 && !this.#keep.has(main, sub)) return;
      // Old versions delete a tombstone at the compact revision and new ones do not: it never counts.
      if (main === this.#compactRevision && tombstone) return;
    }
    const keyEnd = writeRevision(rowKey, 0, main, sub, tombstone);
    this.#hash = crc32c(rowKey.subarray(0, keyEnd), this.#hash);
    this.#hash = crc32c(asBuffer(bytes, start, end), this.#hash);
  }

  finish(): KvHash {
    return { hash: this.#hash >>> 0, compactRevision: this.#compactRevision, revision: this.#revision };
  }
}

/** Keeps the hashes that compactions made: HashKV of such a revision must give the hash from before the compaction. */
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

/** Hashes the key bucket of the snapshot, giving the event loop a turn after every chunk. */
export async function hashKeyBucket(snapshot: BackendSnapshot, hasher: KvHasher, clock: Clock): Promise<KvHash> {
  for (const chunk of snapshot.entries("key", HASH_CHUNK_BYTES)) {
    for (const { key, value } of chunk) {
      hasher.write(mainOf(key), subOf(key), isTombstone(key), value, 0, value.length);
    }
    await nextTurn(clock);
  }
  return hasher.finish();
}

/** What the hash of the backend leaves out: what members need not have in common. */
export function defaultHashIgnores(bucket: BucketName, key: Uint8Array): boolean {
  return bucket === "meta" && ignoredMetaKeys.some((ignored) => ignored.equals(key));
}

const ignoredMetaKeys = ["term", "consistent_index", "storageVersion"].map((key) => Buffer.from(key));

/** Hashes all buckets of the snapshot, giving the event loop a turn after every chunk. */
export async function hashBackend(
  snapshot: BackendSnapshot,
  clock: Clock,
  ignores: (bucket: BucketName, key: Uint8Array) => boolean = defaultHashIgnores,
): Promise<number> {
  let hash = 0;
  for (const bucket of snapshot.buckets()) {
    hash = crc32c(bucket, hash);
    for (const chunk of snapshot.entries(bucket, HASH_CHUNK_BYTES)) {
      for (const { key, value } of chunk) {
        if (ignores(bucket, key)) continue;
        hash = crc32c(asBuffer(key, 0, key.length), hash);
        hash = crc32c(asBuffer(value, 0, value.length), hash);
      }
      await nextTurn(clock);
    }
  }
  return hash >>> 0;
}

/** About 2 ms of work. */
const HASH_CHUNK_BYTES = 256 * 1024;

const rowKey = Buffer.alloc(18);

function asBuffer(bytes: Uint8Array, start: number, end: number): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start);
}

export function nextTurn(clock: Clock): Promise<void> {
  return new Promise((resolve) => clock.defer(resolve));
}
