import { type ByteString, type RevisionVisitor, toByteString } from "../model/types.ts";
import type { RawSlot, SmallBucket } from "./backend.ts";
import { RevisionRows } from "./revision-rows.ts";

/** Writes that are not durable yet, readable over the durable state. A batch is committed completely or not at all. */
export class Batch {
  readonly rows = new RevisionRows();
  readonly #deletedRows: DeletedRow[] = [];
  readonly #deletedKeys = new Set<string>();
  readonly #small = new Map<SmallBucket, Map<ByteString, Uint8Array | null>>();
  #opCount = 0;
  #byteCount = 0;

  /** Operations, as etcd's batch limit counts them. */
  get opCount(): number {
    return this.#opCount;
  }

  get byteCount(): number {
    return this.#byteCount;
  }

  get isEmpty(): boolean {
    return this.#opCount === 0;
  }

  put(bucket: SmallBucket, key: Uint8Array, value: Uint8Array): void {
    this.#set(bucket, key, Uint8Array.prototype.slice.call(value));
  }

  delete(bucket: SmallBucket, key: Uint8Array): void {
    this.#set(bucket, key, null);
  }

  #set(bucket: SmallBucket, key: Uint8Array, value: Uint8Array | null): void {
    let entries = this.#small.get(bucket);
    if (entries === undefined) this.#small.set(bucket, (entries = new Map()));
    entries.set(toByteString(key), value);
    this.#count(key.length + (value?.length ?? 0));
  }

  /** The batch's content for a small bucket: null for deleted. */
  small(bucket: SmallBucket): ReadonlyMap<ByteString, Uint8Array | null> | undefined {
    return this.#small.get(bucket);
  }

  get smallBuckets(): IterableIterator<[SmallBucket, ReadonlyMap<ByteString, Uint8Array | null>]> {
    return this.#small.entries();
  }

  putRevision(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void {
    this.rows.append(main, sub, tombstone, bytes, start, end);
    this.#count(end - start);
  }

  /** Removes the row from this batch, or records its deletion from the layer below. */
  deleteRevision(main: number, sub: number, tombstone: boolean): void {
    if (!this.rows.delete(main, sub, tombstone)) {
      this.#deletedRows.push({ main, sub, tombstone });
      this.#deletedKeys.add(`${main}.${sub}`);
    }
    this.#count(0);
  }

  get deletedRows(): readonly DeletedRow[] {
    return this.#deletedRows;
  }

  /** Whether the batch deletes this row of the layer below. */
  deletes(main: number, sub: number): boolean {
    return this.#deletedKeys.size > 0 && this.#deletedKeys.has(`${main}.${sub}`);
  }

  findRevision(main: number, sub: number, out: RawSlot): boolean {
    return main >= this.rows.firstMain && this.rows.find(main, sub, out);
  }

  /** Returns false when the visitor stopped it. */
  forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): boolean {
    return toMain <= this.rows.firstMain || this.rows.forEach(fromMain, fromSub, toMain, visit);
  }

  #count(bytes: number): void {
    this.#opCount++;
    this.#byteCount += bytes;
  }
}

export interface DeletedRow {
  readonly main: number;
  readonly sub: number;
  readonly tombstone: boolean;
}
