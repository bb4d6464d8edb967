import { InvariantError } from "../../base/fatal.ts";
import { type ByteString, type KeyInPlace, keyString } from "../model/types.ts";
import { KeyHistory } from "./key-history.ts";
import { KeyRecords } from "./key-records.ts";
import { KeyTable } from "./key-table.ts";
import { KeyTree } from "./key-tree.ts";
import { LongChanges } from "./long-changes.ts";
import type { RevisionInfo } from "./packed-revision.ts";

/**
 * Every key of the store with its revisions that are not compacted: etcd's treeIndex. A key is named by its id, a number
 * above 0, which stays the same until `remove` or `tidy`.
 *
 * Keys and revisions are bytes outside V8's heap, so a million keys cost the garbage collector nothing: the records have
 * the keys with their latest revisions, the history the earlier ones; the table finds single keys, the tree has the order
 * and counts live keys. This class keeps them consistent. Reads and compaction are etcd's
 * (server/storage/mvcc/key_index.go): a read at R sees the latest revision with main <= R unless that is a tombstone.
 */
export class KeyIndex {
  readonly #records = new KeyRecords();
  readonly #history = new KeyHistory();
  readonly #table: KeyTable;
  readonly #tree = new KeyTree(this.#records);
  /**
   * Changes so far of a write transaction of many turns. The records already have them, each under a revision that is
   * not visible yet; counts have no revision and exclude them.
   */
  #pending: LongChanges | null = null;

  /** `secret` (64 bits) prevents clients from choosing keys that collide in the table. */
  constructor(secret: bigint) {
    this.#table = new KeyTable(this.#records, secret);
  }

  /** Keys, dead ones included. */
  get size(): number {
    return this.#table.size;
  }

  /** Keys that exist at the current revision. */
  get liveCount(): number {
    return this.#tree.liveCount - (this.#pending?.net ?? 0);
  }

  /** Memory of keys and revisions; table and tree take about 20 bytes a key more. */
  get allocatedBytes(): number {
    return this.#records.allocatedBytes + this.#history.allocatedBytes;
  }

  /** The id of the key `source[start .. end)`; 0 when it is not in the index. */
  find(source: Uint8Array, start = 0, end = source.length): number {
    return this.#table.find(source, start, end);
  }

  // ---- of one key

  /** The key where it is kept; the same object for all keys, valid until the next call. */
  locate(id: number): KeyInPlace {
    return this.#records.locate(id);
  }

  key(id: number): ByteString {
    return keyString(this.#records.locate(id));
  }

  /** The key exists for the open write transaction, or without one at the current revision. */
  isLive(id: number): boolean {
    return this.#records.isLive(id);
  }

  /** Version of the key at its latest revision; 0 when that is a tombstone. */
  version(id: number): number {
    return this.#records.version(id);
  }

  /** Create revision of the key at its latest revision; 0 when it is not known, because it is not needed any more. */
  created(id: number): number {
    return this.#records.created(id);
  }

  /**
   * Finds the revision that a read at `atMain` sees. False when the key does not exist then; `out` is then undefined.
   */
  readAt(id: number, atMain: number, out: RevisionInfo): boolean {
    this.#records.read(id, out);
    if (out.main <= atMain) return out.version !== 0;
    return this.#history.read(this.#records.older(id), atMain, Number.POSITIVE_INFINITY, out);
  }

  /** The same for a read that sees only the changes of `main` before number `sub`. */
  readBefore(id: number, main: number, sub: number, out: RevisionInfo): boolean {
    this.#records.read(id, out);
    if (out.main < main || (out.main === main && out.sub < sub)) return out.version !== 0;
    return this.#history.read(this.#records.older(id), main, sub - 1, out);
  }

  // ---- changes

  /**
   * Adds the key `source[start .. end)`, which `find` has just looked for in vain, with its first revision; version 0 for
   * a tombstone. Returns its id.
   */
  insert(
    source: Uint8Array,
    start: number,
    end: number,
    main: number,
    sub: number,
    version: number,
    created: number,
  ): number {
    const id = this.#records.add(source, start, end, main, sub, version, created);
    this.#table.insert(id);
    this.#tree.insert(id, version !== 0);
    return id;
  }

  /** Adds a put. Returns the key's version. */
  put(id: number, main: number, sub: number): number {
    const records = this.#records;
    const version = records.version(id) + 1;
    const created = version === 1 ? main : records.created(id);
    this.#push(id, main, sub, version, created);
    if (version === 1) this.#tree.setLive(id, true);
    return version;
  }

  /** Adds a tombstone to a live key. */
  tombstone(id: number, main: number, sub: number): void {
    if (!this.#records.isLive(id)) throw new InvariantError(`tombstone ${main}.${sub} on a key that is not live`);
    this.#push(id, main, sub, 0, 0);
    this.#tree.setLive(id, false);
  }

  #push(id: number, main: number, sub: number, version: number, created: number): void {
    const records = this.#records;
    const last = records.main(id);
    if (main < last || (main === last && sub <= records.sub(id))) {
      throw new InvariantError(`revision ${main}.${sub} is not above ${last}.${records.sub(id)} of the same key`);
    }
    records.pushOlder(id, this.#history);
    records.write(id, main, sub, version, created);
  }

  /** Removes a key that is not live. */
  remove(id: number): void {
    this.#table.remove(id);
    this.#tree.remove(id);
    this.#history.drop(this.#records.older(id));
    this.#records.free(id);
  }

  /** A write transaction of many turns begins; `main` is the revision of its changes. */
  beginLong(main: number): LongChanges {
    this.#pending = new LongChanges(main, this.#records);
    return this.#pending;
  }

  /** It has ended: its changes are visible. */
  endLong(): void {
    this.#pending = null;
  }

  // ---- compaction

  /** Call it before `compact` is called for each key. */
  beginCompaction(): void {
    this.#history.beginCompaction();
  }

  /**
   * Drops the revisions that become unreadable when the store is compacted at `atMain`: all below the one that a read
   * at `atMain` sees. A tombstone exactly at `atMain` stays, as in etcd. `kept` is the revision at or below `atMain`
   * that remains; its main is 0 when there is none. Returns false when nothing of the key remains: then remove it.
   */
  compact(id: number, atMain: number, kept: RevisionInfo): boolean {
    const records = this.#records;
    const older = records.older(id);
    records.read(id, kept);
    if (kept.main > atMain) {
      kept.main = 0;
      if (older !== 0) records.setOlder(id, this.#history.compact(older, atMain, kept));
      return true;
    }
    this.#history.drop(older);
    records.setOlder(id, 0);
    if (kept.version !== 0 || kept.main === atMain) return true;
    kept.main = 0;
    return false;
  }

  /**
   * Moves at most `recordsMax` keys out of chunks of memory of which removed keys have left a small part, so that these
   * are released: about a quarter at most stays unused. Their ids change. Returns whether there is more to do.
   */
  tidy(recordsMax: number): boolean {
    const records = this.#records;
    // A transaction of many turns keeps ids.
    if (this.#pending !== null) return false;
    const chunk = records.wasteful();
    if (chunk === 0) return false;
    let id = records.firstIn(chunk);
    for (let moved = 0; id !== 0 && moved < recordsMax; moved++) {
      const next = records.nextInChunk(id);
      const to = records.copy(id);
      this.#table.replace(id, to);
      this.#tree.replace(id, to);
      records.free(id);
      id = next;
    }
    return true;
  }

  // ---- ranges

  /**
   * Visits the keys of [start, end), ascending, end null to the last one, until the visitor returns false; then returns
   * false too. The visitor may change revisions, but must not insert or remove any key.
   */
  visit(start: Uint8Array, end: Uint8Array | null, visitor: (id: number) => boolean): boolean {
    return this.#tree.visit(start, end, visitor);
  }

  /** Visits only keys that exist for the open write transaction, or without one at the current revision. */
  visitLive(start: Uint8Array, end: Uint8Array | null, visitor: (id: number) => boolean): boolean {
    return this.#tree.visitLive(start, end, visitor);
  }

  visitDescending(start: Uint8Array, end: Uint8Array | null, visitor: (id: number) => boolean): boolean {
    return this.#tree.visitDescending(start, end, visitor);
  }

  /** Keys in [start, end) that exist at the current revision. */
  countLive(start: Uint8Array, end: Uint8Array | null): number {
    const count = this.#tree.countLive(start, end);
    return this.#pending === null ? count : count - this.#pending.netIn(start, end);
  }

  /** Keys in [start, end) that exist for the open write transaction. */
  countLiveInside(start: Uint8Array, end: Uint8Array | null): number {
    return this.#tree.countLive(start, end);
  }
}
