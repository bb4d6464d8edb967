import type { ByteString } from "../model/types.ts";
import type { KeyEntry } from "./key-entry.ts";
import { KeyTable } from "./key-table.ts";
import { KeyTree } from "./key-tree.ts";
import type { LongChanges } from "./long-changes.ts";

/**
 * Every key of the store with its revisions: etcd's treeIndex. The table finds single keys, the tree has the order and
 * counts live keys; this class keeps both consistent.
 */
export class KeyIndex {
  readonly #table: KeyTable;
  readonly #tree = new KeyTree();
  /**
   * Changes so far of a write transaction of many turns. The entries already have them, each under a revision that is
   * not visible yet; counts have no revision and exclude them.
   */
  pending: LongChanges | null = null;

  /** `seed` (32 bits) prevents clients from choosing keys that collide in the table. */
  constructor(seed: number) {
    this.#table = new KeyTable(seed);
  }

  /** Keys, dead ones included. */
  get size(): number {
    return this.#table.size;
  }

  /** Keys that exist at the current revision. */
  get liveCount(): number {
    return this.#tree.liveCount - (this.pending?.net ?? 0);
  }

  find(key: Uint8Array): KeyEntry | undefined {
    return this.#table.find(key);
  }

  findString(key: ByteString): KeyEntry | undefined {
    return this.#table.findString(key);
  }

  /** Adds an entry whose key is not in the index. */
  insert(entry: KeyEntry): void {
    this.#table.insert(entry);
    this.#tree.insert(entry);
  }

  put(entry: KeyEntry, main: number, sub: number): void {
    if (entry.put(main, sub)) this.#tree.adjustLive(entry.key, 1);
  }

  tombstone(entry: KeyEntry, main: number, sub: number): void {
    entry.tombstone(main, sub);
    this.#tree.adjustLive(entry.key, -1);
  }

  /** Removes a dead entry. */
  remove(entry: KeyEntry): void {
    this.#table.remove(entry.key);
    this.#tree.remove(entry.key);
  }

  /**
   * See KeyTree.visit: [start, end), end null to the last key, until the visitor returns false; then returns false too.
   */
  visit(start: ByteString, end: ByteString | null, visitor: (entry: KeyEntry) => boolean): boolean {
    return this.#tree.visit(start, end, visitor);
  }

  /** Visits only keys that exist for the open write transaction, or without one at the current revision. */
  visitLive(start: ByteString, end: ByteString | null, visitor: (entry: KeyEntry) => boolean): boolean {
    return this.#tree.visitLive(start, end, visitor);
  }

  visitDescending(start: ByteString, end: ByteString | null, visitor: (entry: KeyEntry) => boolean): boolean {
    return this.#tree.visitDescending(start, end, visitor);
  }

  /** Keys in [start, end) that exist at the current revision. */
  countLive(start: ByteString, end: ByteString | null): number {
    const count = this.#tree.countLive(start, end);
    return this.pending === null ? count : count - this.pending.netIn(start, end);
  }

  /** Keys in [start, end) that exist for the open write transaction. */
  countLiveInside(start: ByteString, end: ByteString | null): number {
    return this.#tree.countLive(start, end);
  }
}
