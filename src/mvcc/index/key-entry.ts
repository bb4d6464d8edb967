import { InvariantError } from "../../base/fatal.ts";
import type { ByteString } from "../model/types.ts";

/**
 * The revisions of one key that are not compacted: etcd's keyIndex, flat.
 *
 * A revision with version 0 is a tombstone: it ends a generation, and the next revision begins the next one. The latest
 * revision is in the fields; earlier ones, which most keys do not have, are in one array, four numbers each. Reads and
 * compaction are etcd's (server/storage/mvcc/key_index.go): a read at R sees the latest revision with main <= R unless
 * that is a tombstone.
 */
export class KeyEntry {
  readonly key: ByteString;
  main: number;
  sub: number;
  /** Version of the key at the latest revision; 0 when that is a tombstone. */
  version: number;
  /** Main revision of the generation's first revision; 0 when its beginning was compacted before a restart. */
  created: number;
  /** Earlier revisions, ascending: main, sub, version, created, main, … */
  older: number[] | null = null;

  constructor(key: ByteString, main: number, sub: number, version: number, created: number) {
    this.key = key;
    this.main = main;
    this.sub = sub;
    this.version = version;
    this.created = created;
  }

  get live(): boolean {
    return this.version !== 0;
  }

  /** Adds a put. Returns whether it began a generation, that is, the key was not live before. */
  put(main: number, sub: number): boolean {
    const began = this.version === 0;
    this.#push(main, sub);
    if (began) this.created = main;
    this.version++;
    return began;
  }

  /** Adds a tombstone to a live key. */
  tombstone(main: number, sub: number): void {
    if (this.version === 0) throw new InvariantError(`tombstone ${main}.${sub} on a key that is not live`);
    this.#push(main, sub);
    this.version = 0;
  }

  #push(main: number, sub: number): void {
    if (main < this.main || (main === this.main && sub <= this.sub)) {
      throw new InvariantError(`revision ${main}.${sub} is not above ${this.main}.${this.sub} of the same key`);
    }
    if (this.older === null) this.older = [this.main, this.sub, this.version, this.created];
    else this.older.push(this.main, this.sub, this.version, this.created);
    this.main = main;
    this.sub = sub;
  }

  /**
   * Finds the revision that a read at `atMain` sees. False when the key does not exist then; `out` is then undefined.
   */
  readAt(atMain: number, out: RevisionInfo): boolean {
    if (this.main <= atMain) {
      if (this.version === 0) return false;
      out.main = this.main;
      out.sub = this.sub;
      out.version = this.version;
      out.created = this.created;
      return true;
    }
    const { older } = this;
    if (older === null) return false;
    return copyRevision(older, lastAtOrBelow(older, atMain), out);
  }

  /** The same for a read that sees only the changes of `main` before number `sub`. */
  readBefore(main: number, sub: number, out: RevisionInfo): boolean {
    if (this.main < main || (this.main === main && this.sub < sub)) return this.readAt(main, out);
    const { older } = this;
    if (older === null) return false;
    let at = lastAtOrBelow(older, main);
    while (at >= 0 && older[at] === main && older[at + 1]! >= sub) at -= 4;
    return copyRevision(older, at, out);
  }

  /**
   * Drops the revisions that become unreadable when the store is compacted at `atMain`: all below the one that a read
   * at `atMain` sees. A tombstone exactly at `atMain` stays, as in etcd. When a revision at or below `atMain` remains,
   * stores it in `kept` and returns true. An entry without revisions is left with main 0: remove it.
   */
  compact(atMain: number, kept: RevisionInfo): boolean {
    if (this.main <= atMain) {
      this.older = null;
      if (this.version === 0 && this.main < atMain) {
        this.main = 0;
        return false;
      }
      kept.main = this.main;
      kept.sub = this.sub;
      kept.version = this.version;
      return true;
    }
    const { older } = this;
    if (older === null) return false;
    const at = lastAtOrBelow(older, atMain);
    if (at < 0) return false;
    const keeps = older[at + 2] !== 0 || older[at] === atMain;
    const from = keeps ? at : at + 4;
    if (keeps) {
      kept.main = older[at]!;
      kept.sub = older[at + 1]!;
      kept.version = older[at + 2]!;
    }
    if (from === older.length) this.older = null;
    else if (from > 0) this.older = older.slice(from);
    return keeps;
  }
}

/** One revision of a key, found by `readAt`. */
export interface RevisionInfo {
  main: number;
  sub: number;
  version: number;
  created: number;
}

export function revisionInfo(): RevisionInfo {
  return { main: 0, sub: 0, version: 0, created: 0 };
}

/** Copies the revision at an offset of an `older` array. False when there is none, or a tombstone. */
function copyRevision(older: readonly number[], at: number, out: RevisionInfo): boolean {
  if (at < 0 || older[at + 2] === 0) return false;
  out.main = older[at]!;
  out.sub = older[at + 1]!;
  out.version = older[at + 2]!;
  out.created = older[at + 3]!;
  return true;
}

/** Offset of the last revision with main <= atMain in an `older` array, or -1. */
function lastAtOrBelow(older: readonly number[], atMain: number): number {
  let low = 0;
  let high = older.length >> 2;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (older[middle << 2]! <= atMain) low = middle + 1;
    else high = middle;
  }
  return (low - 1) << 2;
}
