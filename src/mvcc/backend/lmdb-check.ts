import * as fs from "node:fs";
import type { Clock } from "../../base/clock.ts";
import { othersTurn } from "../../base/others-turn.ts";
import type { BackendError } from "./backend.ts";
import { corrupt, latestMeta } from "./lmdb-file.ts";

/**
 * Checks the pages of an LMDB file before the library opens it. LMDB trusts what it reads: a damaged page crashes the
 * process in its C code, or silently hides some of the keys. Only properties of every file that LMDB writes are
 * checked: each page is where its parent says and has the expected kind, its entries lie within it, and each tree has
 * as many entries as its root counts. Values are not checked; the layers above decode them.
 *
 * Layout: LMDB's `MDB_page`, `MDB_node` and `MDB_db` of its 64-bit version, little endian.
 */
const PAGE_HEADER_BYTES = 24;
const NODE_HEADER_BYTES = 8;
const TREE_BYTES = 48;

const BRANCH = 0x01;
const LEAF = 0x02;
const OVERFLOW = 0x04;
const KINDS = BRANCH | LEAF | OVERFLOW;
const BIG_DATA = 0x01;
const SUB_TREE = 0x02;
const DUPLICATES = 0x04;

/** "No page" as a root: the tree is empty. */
const NO_PAGE = 0xffff_ffff_ffff_ffffn;
/** Pages between two turns of the event loop: about a millisecond. */
const SLICE_PAGES = 400;

interface Tree {
  readonly depth: number;
  readonly entries: number;
  readonly root: bigint;
}

/** Resolves when the file is valid, absent or empty. Rejects with ERR_BACKEND_CORRUPT, which names the page. */
export async function checkPages(path: string, clock: Clock): Promise<void> {
  const meta = latestMeta(path);
  if (meta === undefined) return;
  const fd = fs.openSync(path, "r");
  try {
    const walk = new Walk(path, fd, meta.pageSize, meta.lastPage);
    const trees = [readTree(meta.bytes, 48), readTree(meta.bytes, 96)];
    for (let tree = trees.pop(); tree !== undefined; tree = trees.pop()) await walk.over(tree, trees, clock);
  } finally {
    fs.closeSync(fd);
  }
}

function readTree(bytes: Buffer, at: number): Tree {
  return {
    depth: bytes.readUInt16LE(at + 6),
    entries: Number(bytes.readBigUInt64LE(at + 32)),
    root: bytes.readBigUInt64LE(at + 40),
  };
}

class Walk {
  readonly #path: string;
  readonly #fd: number;
  readonly #pageSize: number;
  readonly #lastPage: number;
  readonly #page: Buffer;
  #pages = 0;

  constructor(path: string, fd: number, pageSize: number, lastPage: number) {
    this.#path = path;
    this.#fd = fd;
    this.#pageSize = pageSize;
    this.#lastPage = lastPage;
    this.#page = Buffer.alloc(pageSize);
  }

  /** Visits all pages of a tree; adds trees in its entries to `found`. */
  async over(tree: Tree, found: Tree[], clock: Clock): Promise<void> {
    if (tree.root === NO_PAGE) return;
    const waiting = [{ page: Number(tree.root), level: 1 }];
    let entries = 0;
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const { page, level } = next;
      const kind = this.#read(page);
      if (kind !== (level < tree.depth ? BRANCH : LEAF))
        throw this.#damaged(page, "is of another kind than it must be");
      const count = this.#count(page);
      for (let i = 0; i < count; i++) {
        const at = this.#node(page, i);
        if (kind === BRANCH) waiting.push({ page: this.#child(at), level: level + 1 });
        else this.#entry(page, at, found);
      }
      if (kind === LEAF) entries += count;
      // A page that is its own descendant would cause an endless loop.
      if (waiting.length > this.#lastPage) throw this.#damaged(page, "leads to more pages than there are");
      if (++this.#pages % SLICE_PAGES === 0) await othersTurn(clock);
    }
    if (entries !== tree.entries) {
      throw this.#damaged(Number(tree.root), `leads to ${entries} entries, though ${tree.entries} were written`);
    }
  }

  /** Reads a page; returns its kind. */
  #read(page: number): number {
    if (page < 2 || page > this.#lastPage) throw this.#damaged(page, "is outside of the file");
    const size = fs.readSync(this.#fd, this.#page, 0, this.#pageSize, page * this.#pageSize);
    if (size < this.#pageSize) throw this.#damaged(page, "is not there");
    if (this.#page.readBigUInt64LE(0) !== BigInt(page)) throw this.#damaged(page, "is not the page that belongs there");
    return this.#page.readUInt16LE(18) & KINDS;
  }

  #count(page: number): number {
    const lower = this.#page.readUInt16LE(20);
    const upper = this.#page.readUInt16LE(22);
    // Both are relative to the end of the header.
    const room = this.#pageSize - PAGE_HEADER_BYTES;
    if (lower > upper || upper > room || lower % 2 !== 0) throw this.#damaged(page, "has impossible bounds");
    return lower / 2;
  }

  /** Offset of an entry in the page. */
  #node(page: number, index: number): number {
    const at = PAGE_HEADER_BYTES + this.#page.readUInt16LE(PAGE_HEADER_BYTES + 2 * index);
    const end = at + NODE_HEADER_BYTES;
    if (end > this.#pageSize || end + this.#page.readUInt16LE(at + 6) > this.#pageSize) {
      throw this.#damaged(page, `has an entry outside of it (its number ${index})`);
    }
    return at;
  }

  #child(at: number): number {
    return this.#page.readUInt32LE(at) + this.#page.readUInt16LE(at + 4) * 2 ** 32;
  }

  #entry(page: number, at: number, found: Tree[]): void {
    const flags = this.#page.readUInt16LE(at + 4);
    const data = at + NODE_HEADER_BYTES + this.#page.readUInt16LE(at + 6);
    const size = flags & BIG_DATA ? 8 : this.#page.readUInt32LE(at);
    if (data + size > this.#pageSize) throw this.#damaged(page, "has a value outside of it");
    if (flags & BIG_DATA) this.#overflow(Number(this.#page.readBigUInt64LE(data)));
    else if (flags & SUB_TREE && !(flags & DUPLICATES) && size >= TREE_BYTES) found.push(readTree(this.#page, data));
  }

  /** A value on its own pages: the first has a header. */
  #overflow(page: number): void {
    if (page < 2 || page > this.#lastPage) throw this.#damaged(page, "is outside of the file");
    fs.readSync(this.#fd, overflowHeader, 0, overflowHeader.length, page * this.#pageSize);
    if (overflowHeader.readBigUInt64LE(0) !== BigInt(page) || !(overflowHeader.readUInt16LE(18) & OVERFLOW)) {
      throw this.#damaged(page, "is not the value that belongs there");
    }
  }

  #damaged(page: number, what: string): BackendError {
    return corrupt(this.#path, `page ${page}, at byte ${page * this.#pageSize}, ${what}`);
  }
}

const overflowHeader = Buffer.alloc(PAGE_HEADER_BYTES);
