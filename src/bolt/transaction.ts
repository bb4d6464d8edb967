/**
 * A write transaction: buckets whose changes collect in memory, and the pages that result.
 *
 * One at a time. `prepare` makes the list of writes and syncs that applies it to the file; until the second to last of
 * them the file keeps its previous state. A transaction is never undone: when it fails, the engine accepts no more.
 */

import type { CommitStep } from "./commit.ts";
import {
  type BoltMeta,
  BUCKET_ELEMENT,
  BUCKET_HEADER_BYTES,
  FREELIST_PAGE,
  KEY_BYTES_MAX,
  PAGE_HEADER_BYTES,
  readUint64,
  VALUE_BYTES_MAX,
  writeMetaPage,
  writePageHeader,
  writeUint64,
} from "./format.ts";
import type { FreeList } from "./free-list.ts";
import type { LeafRows } from "./leaf-rows.ts";
import { type PageMemory, WRITE_BYTES_MAX } from "./page-memory.ts";
import { treePageProblem } from "./raw-page.ts";
import { type Entry, TreeNode, writeTreePage } from "./tree-node.ts";
import { type TreePages, WriteTree } from "./write-tree.ts";

/** The part of the file that a transaction needs. */
export interface TransactionFile {
  readonly path: string;
  readonly fileBytes: number;
  /** Pages of the stored free list. */
  readonly freeListSpan: number;
  /** A page with its overflow, in newly allocated memory, unchecked. Throws BoltError. */
  readPage(id: number): { readonly bytes: Buffer; readonly span: number };
  damaged(page: number, problem: string, bucket?: string): never;
  /** For pages until they are in the file. */
  readonly memory: PageMemory;
}

/** A committed state of the file, and the pages that the commit wrote. */
export interface Committed {
  readonly meta: BoltMeta;
  /** The pages it wrote, as runs: first page, number of pages, and so on. Cached copies of them are outdated. */
  readonly writtenRuns: readonly number[];
}

/** The file grows by this much at a time, once doubling would be more. */
const GROW_BYTES = 16 * 1024 * 1024;
const GROW_BYTES_MIN = 32 * 1024;

interface PendingPage {
  readonly id: number;
  readonly span: number;
  /** Either these entries, or what is written already at `bytes[at]`, or the free list. */
  readonly node: { isLeaf: boolean; entries: readonly Entry[]; from: number; to: number } | undefined;
  readonly bytes: Buffer | undefined;
  readonly at: number;
}

export class WriteTransaction {
  readonly txid: number;
  readonly #file: TransactionFile;
  readonly #before: BoltMeta;
  readonly #freeList: FreeList;
  readonly #pageSize: number;
  #pageCount: number;
  readonly #root: WriteTree;
  readonly #buckets = new Map<string, WriteBucket>();
  readonly #read = new Map<number, { readonly bytes: Uint8Array; readonly span: number }>();
  readonly #pages: PendingPage[] = [];
  /** Leaves that are written into memory already. */
  readonly #leaves = new Map<number, PendingPage>();
  #chunk: Buffer | undefined;
  #chunkAt = 0;
  #isPrepared = false;

  constructor(file: TransactionFile, before: BoltMeta, freeList: FreeList) {
    this.#file = file;
    this.#before = before;
    this.#freeList = freeList;
    this.#pageSize = before.pageSize;
    this.#pageCount = before.pageCount;
    this.txid = before.txid + 1;
    const pages = this.#pagesOf("");
    this.#root = new WriteTree(pages, WriteTree.rootAt(pages, before.rootPage), false);
  }

  /**
   * The top-level bucket of that name, created if missing. `sequential`: its keys come in ascending order, so its pages
   * are filled more.
   */
  bucket(name: string, sequential = false): WriteBucket {
    let bucket = this.#buckets.get(name);
    if (bucket === undefined) {
      bucket = new WriteBucket(this.#pagesOf(name), name, this.#root, sequential);
      this.#buckets.set(name, bucket);
    }
    return bucket;
  }

  /**
   * The file operations, in order; buffers are created on demand. `writeFreeList` stores the free list in the file, so
   * that the next open need not search for free pages.
   */
  prepare(options: { readonly writeFreeList?: boolean } = {}): { steps: Iterable<CommitStep>; committed: Committed } {
    if (this.#isPrepared) throw new Error("the transaction is over");
    this.#isPrepared = true;
    for (const bucket of this.#buckets.values()) bucket.finish();
    this.#root.balance();
    const rootPage = this.#root.finish();
    this.#freeOldFreeList();
    const freelistPage = options.writeFreeList ? this.#allocateFreeList() : undefined;
    const { pageSize } = this.#before;
    const meta: BoltMeta = { pageSize, rootPage, freelistPage, pageCount: this.#pageCount, txid: this.txid };
    this.#pages.sort((a, b) => a.id - b.id);
    const writtenRuns: number[] = [];
    for (const run of this.#runs()) writtenRuns.push(run[0]!.id, spanOf(run));
    return { steps: this.#steps(meta), committed: { meta, writtenRuns } };
  }

  *#steps(meta: BoltMeta): Generator<CommitStep, void, void> {
    const neededBytes = this.#pageCount * this.#pageSize;
    if (neededBytes > this.#file.fileBytes) yield { kind: "resize", sizeBytes: grownSize(neededBytes) };
    for (const run of this.#runs()) {
      const first = run[0]!.id;
      const position = first * this.#pageSize;
      const { bytes: written, at: writtenAt } = run[0]!;
      if (written !== undefined) {
        yield { kind: "write", position, bytes: written.subarray(writtenAt, writtenAt + spanOf(run) * this.#pageSize) };
        continue;
      }
      const bytes = Buffer.alloc(spanOf(run) * this.#pageSize);
      for (const { id, span, node } of run) {
        const at = (id - first) * this.#pageSize;
        if (node === undefined) this.#fillFreeList(bytes, at, id, span);
        else writeTreePage(bytes, at, id, node.isLeaf, span - 1, node.entries, node.from, node.to);
      }
      yield { kind: "write", position, bytes };
    }
    yield { kind: "sync" };
    const page = Buffer.alloc(this.#pageSize);
    const metaPage = meta.txid % 2 === 0 ? 0 : 1;
    writeMetaPage(page, 0, metaPage, meta);
    yield { kind: "write", position: metaPage * this.#pageSize, bytes: page };
    yield { kind: "sync" };
  }

  /** The pages to write, as runs of adjacent pages; those that lie in memory already, as they lie there. */
  *#runs(): Generator<readonly PendingPage[], void, void> {
    let run: PendingPage[] = [];
    let end = 0;
    let pages = 0;
    for (const page of this.#pages) {
      const last = run.at(-1);
      if (
        last !== undefined &&
        (page.id !== end ||
          (pages + page.span) * this.#pageSize > WRITE_BYTES_MAX ||
          page.bytes !== last.bytes ||
          (page.bytes !== undefined && page.at !== last.at + last.span * this.#pageSize))
      ) {
        yield run;
        run = [];
        pages = 0;
      }
      run.push(page);
      pages += page.span;
      end = page.id + page.span;
    }
    if (run.length > 0) yield run;
  }

  #pagesOf(bucket: string): TreePages {
    return {
      pageSize: this.#pageSize,
      read: (id) => {
        let page = this.#read.get(id);
        if (page !== undefined) return page;
        const leaf = this.#leaves.get(id);
        if (leaf !== undefined) {
          return { bytes: leaf.bytes!.subarray(leaf.at, leaf.at + leaf.span * this.#pageSize), span: leaf.span };
        }
        page = this.#file.readPage(id);
        const problem = treePageProblem(page.bytes, 0, page.bytes.length);
        if (problem !== undefined) this.#file.damaged(id, problem, bucket);
        this.#read.set(id, page);
        return page;
      },
      free: (id, span) => this.#freeList.free(id, span, this.txid),
      write: (isLeaf, sizeBytes, entries, from, to) => {
        const span = Math.ceil(sizeBytes / this.#pageSize);
        const id = this.#allocate(span);
        this.#pages.push({ id, span, node: { isLeaf, entries, from, to }, bytes: undefined, at: 0 });
        return id;
      },
      writeLeaf: (rows) => this.#writeLeaf(rows),
      damaged: (page, problem) => this.#file.damaged(page, problem, bucket),
    };
  }

  #writeLeaf(rows: LeafRows): number {
    const span = Math.ceil(rows.sizeBytes / this.#pageSize);
    const id = this.#allocate(span);
    const bytes = span * this.#pageSize;
    if (this.#chunk === undefined || this.#chunkAt + bytes > this.#chunk.length) {
      this.#chunk = bytes > WRITE_BYTES_MAX ? Buffer.allocUnsafeSlow(bytes) : this.#file.memory.take();
      this.#chunkAt = 0;
    }
    const page = { id, span, node: undefined, bytes: this.#chunk, at: this.#chunkAt };
    rows.write(page.bytes, page.at, id, span, this.#pageSize);
    this.#chunkAt += bytes;
    this.#pages.push(page);
    this.#leaves.set(id, page);
    return id;
  }

  #allocate(span: number): number {
    const free = this.#freeList.allocate(span, this.txid);
    if (free !== 0) return free;
    const id = this.#pageCount;
    this.#pageCount += span;
    this.#freeList.noteAllocation(id, this.txid);
    return id;
  }

  #freeOldFreeList(): void {
    const id = this.#before.freelistPage;
    if (id !== undefined) this.#freeList.free(id, this.#file.freeListSpan, this.txid);
  }

  /** Space for all ids, and for their number if it does not fit into the header. */
  #allocateFreeList(): number {
    const count = this.#freeList.freeCount + this.#freeList.pendingCount;
    const span = Math.ceil((PAGE_HEADER_BYTES + 8 * (count + 1)) / this.#pageSize);
    const id = this.#allocate(span);
    this.#pages.push({ id, span, node: undefined, bytes: undefined, at: 0 });
    return id;
  }

  #fillFreeList(out: Buffer, at: number, id: number, span: number): void {
    const count = this.#freeList.freeCount + this.#freeList.pendingCount;
    writePageHeader(out, at, id, FREELIST_PAGE, Math.min(count, 0xffff), span - 1);
    let position = at + PAGE_HEADER_BYTES;
    if (count >= 0xffff) {
      writeUint64(out, position, count);
      position += 8;
    }
    for (const free of this.#freeList.ids()) {
      writeUint64(out, position, free);
      position += 8;
    }
  }
}

/** A top-level bucket in a write transaction. Keys and values are not copied: they must not change during it. */
export class WriteBucket {
  readonly #pages: TreePages;
  readonly #name: string;
  readonly #root: WriteTree;
  readonly #nameBytes: Buffer;
  readonly #sequence: number;
  readonly #tree: WriteTree;
  readonly #isNew: boolean;

  constructor(pages: TreePages, name: string, root: WriteTree, isSequential: boolean) {
    this.#pages = pages;
    this.#name = name;
    this.#root = root;
    this.#nameBytes = Buffer.from(name);
    const entry = root.get(this.#nameBytes, 0, this.#nameBytes.length);
    this.#isNew = entry === undefined;
    const header = entry === undefined ? undefined : this.#header(entry);
    this.#sequence = header?.sequence ?? 0;
    let node: TreeNode;
    if (header === undefined) node = new TreeNode(true, 0, 0);
    else if (header.page !== 0) node = WriteTree.rootAt(pages, header.page);
    else {
      const problem = treePageProblem(header.inline, 0, header.inline.length);
      if (problem !== undefined) pages.damaged(0, `its page within the page of buckets ${problem}`);
      node = TreeNode.read(header.inline, 0, 0, 0);
    }
    this.#tree = new WriteTree(pages, node, isSequential);
  }

  #header(entry: Entry): { readonly page: number; readonly sequence: number; readonly inline: Buffer } {
    const value = Buffer.from(entry.bytes.buffer, entry.bytes.byteOffset + entry.keyEnd, entry.end - entry.keyEnd);
    if (!(entry.flags & BUCKET_ELEMENT) || value.length < BUCKET_HEADER_BYTES) {
      this.#pages.damaged(0, `the entry "${this.#name}" of the bucket of buckets is not a bucket`);
    }
    return { page: readUint64(value, 0), sequence: readUint64(value, 8), inline: value.subarray(BUCKET_HEADER_BYTES) };
  }

  /** Sets a value: `bytes[start .. keyEnd)` is the key, followed by the value up to `end`. */
  put(bytes: Uint8Array, start: number, keyEnd: number, end: number): void {
    const keyBytes = keyEnd - start;
    if (keyBytes < 1 || keyBytes > KEY_BYTES_MAX || end - keyEnd > VALUE_BYTES_MAX) {
      throw new RangeError(`bucket ${this.#name} cannot hold a key of ${keyBytes} bytes with ${end - keyEnd} of value`);
    }
    this.#tree.put(bytes, start, keyEnd, end, 0);
  }

  /** Removes a key; false when it does not exist. */
  delete(bytes: Uint8Array, start: number, keyEnd: number): boolean {
    return this.#tree.delete(bytes, start, keyEnd);
  }

  /** Assigns pages to the tree, and the new root to the bucket of buckets. */
  finish(): void {
    if (!this.#tree.isChanged && !this.#isNew) return;
    this.#tree.balance();
    const { root } = this.#tree;
    const name = this.#nameBytes;
    if (this.#fitsInline(root)) {
      this.#tree.dissolve();
      const value = Buffer.alloc(name.length + BUCKET_HEADER_BYTES + root.sizeBytes);
      name.copy(value);
      writeUint64(value, name.length + 8, this.#sequence);
      writeTreePage(value, name.length + BUCKET_HEADER_BYTES, 0, true, 0, root.entries, 0, root.entries.length);
      this.#root.put(value, 0, name.length, value.length, BUCKET_ELEMENT);
      return;
    }
    const value = Buffer.alloc(name.length + BUCKET_HEADER_BYTES);
    name.copy(value);
    writeUint64(value, name.length, this.#tree.finish());
    writeUint64(value, name.length + 8, this.#sequence);
    this.#root.put(value, 0, name.length, value.length, BUCKET_ELEMENT);
  }

  /** bbolt's rule: one leaf of at most a quarter page, without buckets in it. */
  #fitsInline(root: TreeNode): boolean {
    if (!root.isLeaf || root.sizeBytes > this.#pages.pageSize / 4) return false;
    return root.entries.every(({ flags }) => (flags & BUCKET_ELEMENT) === 0);
  }
}

function spanOf(run: readonly PendingPage[]): number {
  let span = 0;
  for (const page of run) span += page.span;
  return span;
}

/** The file size for this many bytes. */
export function grownSize(neededBytes: number): number {
  if (neededBytes >= GROW_BYTES) return neededBytes + GROW_BYTES - (neededBytes % GROW_BYTES);
  let size = GROW_BYTES_MIN;
  while (size < neededBytes) size *= 2;
  return size;
}
