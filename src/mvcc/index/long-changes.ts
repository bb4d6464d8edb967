import { varintSize, writeVarint } from "../../base/varint.ts";
import { type Change, type ChangeList, keyString } from "../model/types.ts";
import type { KeyRecords } from "./key-records.ts";
import { KeyTree } from "./key-tree.ts";

/**
 * Changes so far of a write transaction of many turns. A deleted key costs two numbers: with one object each, a million
 * deletions would keep the garbage collector busier than all other work.
 *
 * The index already has the changes, and its counts include them. Readers meanwhile need the counts of the previous
 * revision, so this also counts, in trees of its own, the keys that the transaction has added and removed.
 */
export class LongChanges implements ChangeList {
  /** The revision of all changes. */
  readonly main: number;
  readonly #records: KeyRecords;
  #length = 0;
  /**
   * In order, in chunks so that no array copies millions of elements when it grows: a put as its change, a deletion as
   * the key's id.
   */
  readonly #chunks: (Change | number)[][] = [];
  /** Keys that exist now and did not before, and the reverse. */
  readonly #born: KeyTree;
  readonly #died: KeyTree;

  constructor(main: number, records: KeyRecords) {
    this.main = main;
    this.#records = records;
    this.#born = new KeyTree(records);
    this.#died = new KeyTree(records);
  }

  get length(): number {
    return this.#length;
  }

  /** Change in the number of live keys. */
  get net(): number {
    return this.#born.liveCount - this.#died.liveCount;
  }

  /** `isBirth`: the key was not live before. */
  addPut(id: number, change: Change, isBirth: boolean): void {
    this.#push(change);
    if (isBirth && !this.#removed(this.#died, id)) this.#born.insert(id, true);
  }

  addTombstone(id: number): void {
    this.#push(id);
    if (!this.#removed(this.#born, id)) this.#died.insert(id, true);
  }

  at(index: number): Change {
    const item = this.#chunks[Math.floor(index / CHUNK_LENGTH)]![index % CHUNK_LENGTH]!;
    if (typeof item !== "number") return item;
    const key = keyString(this.#records.locate(item));
    const bytes = this.#encodeTombstone(item);
    return {
      key,
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
  netIn(start: Uint8Array, end: Uint8Array | null): number {
    return this.#born.countLive(start, end) - this.#died.countLive(start, end);
  }

  #removed(tree: KeyTree, id: number): boolean {
    return tree.liveCount > 0 && tree.remove(id);
  }

  #push(item: Change | number): void {
    if (this.#length % CHUNK_LENGTH === 0) this.#chunks.push([]);
    this.#chunks.at(-1)!.push(item);
    this.#length++;
  }

  /** The backend's value for a deletion: a KeyValue with only the key. */
  #encodeTombstone(id: number): Buffer {
    const { bytes: source, keyStart, keyEnd } = this.#records.locate(id);
    const length = keyEnd - keyStart;
    if (length === 0) return Buffer.alloc(0);
    const bytes = Buffer.allocUnsafe(1 + varintSize(length) + length);
    bytes[0] = TAG_KEY;
    bytes.set(source.subarray(keyStart, keyEnd), writeVarint(bytes, 1, length));
    return bytes;
  }
}

const CHUNK_LENGTH = 8192;
const TAG_KEY = 0x0a;
