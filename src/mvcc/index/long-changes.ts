import { varintSize, writeVarint } from "../../base/varint.ts";
import type { ByteString, Change, ChangeList } from "../model/types.ts";
import { KeyEntry } from "./key-entry.ts";

/**
 * Changes so far of a write transaction of many turns. A deleted key costs one reference: with one object each, a
 * million deletions would keep the garbage collector busier than all other work.
 *
 * The index already has the changes, and its counts include them. Readers meanwhile need the counts of the previous
 * revision, so this also knows how many keys of a range the transaction has added and removed.
 */
export class LongChanges implements ChangeList {
  /** The revision of all changes. */
  readonly main: number;
  #length = 0;
  /** Change in the number of live keys. */
  #net = 0;
  /**
   * In order, in chunks so that no array copies millions of elements when it grows: a put as its change, a deletion as
   * the entry.
   */
  readonly #chunks: (Change | KeyEntry)[][] = [];
  /** Consecutive deletions in key order, as positions. */
  readonly #runs: { readonly from: number; to: number }[] = [];
  /** Keys that were not live before. At most the number of puts in one request. */
  readonly #born: ByteString[] = [];
  #lastDeleted: ByteString | undefined = undefined;

  constructor(main: number) {
    this.main = main;
  }

  get length(): number {
    return this.#length;
  }

  get net(): number {
    return this.#net;
  }

  /** `isBirth`: the key was not live before. */
  addPut(change: Change, isBirth: boolean): void {
    this.#push(change);
    this.#lastDeleted = undefined;
    if (!isBirth) return;
    this.#born.push(change.key);
    this.#net++;
  }

  addTombstone(entry: KeyEntry): void {
    if (this.#lastDeleted !== undefined && this.#lastDeleted < entry.key) this.#runs.at(-1)!.to++;
    else this.#runs.push({ from: this.#length, to: this.#length + 1 });
    this.#push(entry);
    this.#lastDeleted = entry.key;
    this.#net--;
  }

  at(index: number): Change {
    const item = this.#itemAt(index);
    if (!(item instanceof KeyEntry)) return item;
    const bytes = encodeTombstone(item.key);
    return {
      key: item.key,
      main: this.main,
      sub: index,
      tombstone: true,
      createRevision: 0,
      version: 0,
      lease: 0n,
      bytes,
      start: 0,
      end: bytes.length,
    };
  }

  /** Change in the number of live keys in [start, end); end null means to the last key. */
  netIn(start: ByteString, end: ByteString | null): number {
    let net = 0;
    for (const key of this.#born) if (key >= start && (end === null || key < end)) net++;
    for (const { from, to } of this.#runs) {
      const first = this.#lowerBound(from, to, start);
      net -= (end === null ? to : Math.max(first, this.#lowerBound(first, to, end))) - first;
    }
    return net;
  }

  #push(item: Change | KeyEntry): void {
    if (this.#length % CHUNK_LENGTH === 0) this.#chunks.push([]);
    this.#chunks.at(-1)!.push(item);
    this.#length++;
  }

  #itemAt(index: number): Change | KeyEntry {
    return this.#chunks[Math.floor(index / CHUNK_LENGTH)]![index % CHUNK_LENGTH]!;
  }

  /** First position in [from, to) whose key is not below `key`. */
  #lowerBound(from: number, to: number, key: ByteString): number {
    let low = from;
    let high = to;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#itemAt(middle).key < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const CHUNK_LENGTH = 8192;
const TAG_KEY = 0x0a;

/** The backend's value for a deletion: a KeyValue with only the key. */
function encodeTombstone(key: ByteString): Buffer {
  if (key.length === 0) return Buffer.alloc(0);
  const bytes = Buffer.allocUnsafe(1 + varintSize(key.length) + key.length);
  bytes[0] = TAG_KEY;
  bytes.write(key, writeVarint(bytes, 1, key.length), "latin1");
  return bytes;
}
