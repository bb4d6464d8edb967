/**
 * One B+tree in a write transaction: changes collect in memory, and `finish` assigns a new page to every changed one.
 *
 * As in bbolt, nothing is moved while changes are made: a leaf may grow to any size and shrink to nothing. At the end
 * small pages are merged with a neighbour and large ones split, from the leaves up.
 *
 * Promises: every written branch page has at least two children, because bbolt fails when it deletes under one with
 * fewer; no page except a root is empty; a leaf of more than 32 KiB has one row.
 */
import { BUCKET_ELEMENT, DEPTH_MAX, ELEMENT_BYTES, isFullLeaf, PAGE_HEADER_BYTES } from "./format.ts";
import { LeafRows } from "./leaf-rows.ts";
import { compareBytes, countOf, elementAt, isLeafPage, leafKeyBytes, leafKeyStart, usedBytes } from "./raw-page.ts";
import { type Entry, entryBytes, TreeNode } from "./tree-node.ts";

/** The part of the transaction that a tree needs. */
export interface TreePages {
  readonly pageSize: number;
  /** The page with its overflow, checked, in memory that does not change during the transaction. */
  read(id: number): { readonly bytes: Uint8Array; readonly span: number };
  free(id: number, span: number): void;
  /** Writes a full leaf at once into memory that the transaction will write; returns its page. */
  writeLeaf(rows: LeafRows): number;
  /** Allocates a page for entries; returns its id. It is written with the transaction. */
  write(isLeaf: boolean, sizeBytes: number, entries: readonly Entry[], from: number, to: number): number;
  damaged(page: number, problem: string): never;
}

const ENTRIES_MAX = 0xfffe;
/** Fill of split pages, as etcd configures bbolt. */
const FILL = 0.5;
const FILL_SEQUENTIAL = 0.9;

export class WriteTree {
  readonly #pages: TreePages;
  readonly #isSequential: boolean;
  /** Fill of the pages of a split node. */
  readonly #splitBytes: number;
  readonly #mergeBytes: number;
  #root: TreeNode;
  /** The rightmost leaf, if something was appended to it, and its parent. */
  #tail: TreeNode | undefined;
  #tailBranch: TreeNode | undefined;
  /** Rows above the tail, of a leaf that has no node yet. */
  readonly #appended = new LeafRows();
  #lastBytes: Uint8Array = NO_BYTES;
  #lastStart = 0;
  #lastKeyEnd = 0;

  /** `isSequential`: its keys come in ascending order. */
  constructor(pages: TreePages, root: TreeNode, isSequential: boolean) {
    this.#pages = pages;
    this.#root = root;
    this.#isSequential = isSequential;
    this.#splitBytes = Math.floor(pages.pageSize * (isSequential ? FILL_SEQUENTIAL : FILL));
    // A quarter, as in bbolt.
    this.#mergeBytes = Math.floor(pages.pageSize / 4);
  }

  /** Uses page `id` as the root of a tree. */
  static rootAt(pages: TreePages, id: number): TreeNode {
    const { bytes, span } = pages.read(id);
    return TreeNode.read(bytes, 0, id, span);
  }

  get isChanged(): boolean {
    return this.#root.isChanged;
  }

  /** Call it before `finish`. */
  get root(): TreeNode {
    return this.#root;
  }

  /** The entry of a key. */
  get(bytes: Uint8Array, start: number, keyEnd: number): Entry | undefined {
    this.#settleAppended();
    let node = this.#root;
    for (let depth = 0; !node.isLeaf; depth++) node = this.#child(node, node.childFor(bytes, start, keyEnd), depth);
    const index = node.lowerBound(bytes, start, keyEnd);
    return node.isAt(index, bytes, start, keyEnd) ? node.entries[index] : undefined;
  }

  /** Sets the value of a key, both in `bytes`, which must not change during the transaction. */
  put(bytes: Uint8Array, start: number, keyEnd: number, end: number, flags: number): void {
    const tail = this.#tail;
    if (tail !== undefined) {
      if (compareBytes(this.#lastBytes, this.#lastStart, this.#lastKeyEnd, bytes, start, keyEnd) < 0) {
        this.#append(tail, bytes, start, keyEnd, end, flags);
        return;
      }
      this.#settleAppended();
    }
    const entry: Entry = { bytes, start, keyEnd, end, flags, child: 0, node: undefined };
    let branch: TreeNode | undefined;
    let node = this.#root;
    let isTail = true;
    for (let depth = 0; !node.isLeaf; depth++) {
      node.isChanged = true;
      const index = node.childFor(bytes, start, keyEnd);
      if (index < node.entries.length - 1) isTail = false;
      else if (isTail && this.#startLeaf(node, entry)) return;
      branch = node;
      node = this.#child(node, index, depth);
    }
    node.isChanged = true;
    const index = node.lowerBound(bytes, start, keyEnd);
    const replaces = node.isAt(index, bytes, start, keyEnd);
    if (replaces && node.entries[index]!.flags !== flags) this.#wrongKind(node, index);
    node.put(index, entry, replaces);
    if (isTail) this.#setTail(node, branch);
  }

  #setTail(leaf: TreeNode, branch: TreeNode | undefined): void {
    this.#tail = leaf;
    this.#tailBranch = branch;
    const { bytes, start, keyEnd } = leaf.entries.at(-1)!;
    this.#setLast(bytes, start, keyEnd);
  }

  #setLast(bytes: Uint8Array, start: number, keyEnd: number): void {
    this.#lastBytes = bytes;
    this.#lastStart = start;
    this.#lastKeyEnd = keyEnd;
  }

  /** Adds a row above all others: to the last leaf while it has room, then to leaves that are written when they are full. */
  #append(tail: TreeNode, bytes: Uint8Array, start: number, keyEnd: number, end: number, flags: number): void {
    this.#setLast(bytes, start, keyEnd);
    const rows = this.#appended;
    const rowBytes = ELEMENT_BYTES + end - start;
    const isFull = rows.count > 0 || isFullLeaf(tail.entries.length, tail.sizeBytes + rowBytes, this.#splitBytes);
    if (!isFull || !this.#isSequential || this.#tailBranch === undefined) {
      if (rows.count > 0) this.#settleAppended();
      (this.#tail ?? tail).push({ bytes, start, keyEnd, end, flags, child: 0, node: undefined });
      return;
    }
    if (isFullLeaf(rows.count, rows.sizeBytes + rowBytes, this.#splitBytes)) {
      const first = rows.entry(0);
      this.#tailBranch.push({ ...first, end: first.keyEnd, child: this.#pages.writeLeaf(rows) });
      rows.clear();
    }
    rows.push(bytes, start, keyEnd, end);
  }

  /** Makes a leaf like others of the rows above the tail. */
  #settleAppended(): void {
    const rows = this.#appended;
    if (rows.count === 0) return;
    const leaf = new TreeNode(true, 0, 0);
    leaf.isChanged = true;
    for (let i = 0; i < rows.count; i++) leaf.push(rows.entry(i));
    rows.clear();
    const first = leaf.entries[0]!;
    this.#tailBranch!.push({ ...first, end: first.keyEnd, node: leaf });
    this.#tail = leaf;
  }

  /**
   * Puts an entry above all others into a new leaf when the last one, under `branch`, is full: then that need not be
   * rewritten.
   */
  #startLeaf(branch: TreeNode, entry: Entry): boolean {
    const last = branch.entries.at(-1)!;
    if (last.node !== undefined) return false;
    const { bytes } = this.#pages.read(last.child);
    if (!isLeafPage(bytes, 0)) return false;
    const count = countOf(bytes, 0);
    if (!isFullLeaf(count, usedBytes(bytes, 0) + entryBytes(entry), this.#splitBytes)) return false;
    const element = elementAt(0, count - 1);
    const keyStart = leafKeyStart(bytes, element);
    const keyEnd = keyStart + leafKeyBytes(bytes, element);
    if (compareBytes(bytes, keyStart, keyEnd, entry.bytes, entry.start, entry.keyEnd) >= 0) return false;
    const leaf = new TreeNode(true, 0, 0);
    leaf.isChanged = true;
    leaf.push(entry);
    branch.push({ ...entry, end: entry.keyEnd, flags: 0, node: leaf });
    this.#setTail(leaf, branch);
    return true;
  }

  /** Removes a key that holds a value; false when there is none. */
  delete(bytes: Uint8Array, start: number, keyEnd: number): boolean {
    this.#settleAppended();
    this.#tail = undefined;
    const path: TreeNode[] = [];
    let node = this.#root;
    for (; !node.isLeaf; node = this.#child(node, node.childFor(bytes, start, keyEnd), path.length)) path.push(node);
    const index = node.lowerBound(bytes, start, keyEnd);
    if (!node.isAt(index, bytes, start, keyEnd)) return false;
    if (node.entries[index]!.flags & BUCKET_ELEMENT) this.#wrongKind(node, index);
    node.remove(index);
    node.hasLost = true;
    node.isChanged = true;
    for (const branch of path) branch.isChanged = true;
    return true;
  }

  /** Merges nodes that have become too small. `root` then has its final form. */
  balance(): void {
    this.#settleAppended();
    this.#tail = undefined;
    if (!this.#root.isChanged) return;
    if (!this.#root.isLeaf) this.#settle(this.#root, 0);
    while (!this.#root.isLeaf && this.#root.entries.length < 2) {
      const old = this.#root;
      this.#root = old.entries.length === 0 ? new TreeNode(true, 0, 0) : this.#child(old, 0, 0);
      if (old.entries.length === 0) this.#root.isChanged = true;
      this.#free(old);
    }
  }

  /** After `balance`: assigns pages to the changed nodes, and returns the root's page. */
  finish(): number {
    if (!this.#root.isChanged) return this.#root.page;
    let entries = this.#write(this.#root);
    while (entries.length > 1) {
      const above = new TreeNode(false, 0, 0);
      above.setEntries(entries);
      above.isChanged = true;
      entries = this.#write(above);
    }
    return entries[0]!.child;
  }

  /** After `balance`, when the tree's only leaf is stored in its parent: it needs no page. */
  dissolve(): void {
    this.#free(this.#root);
  }

  /**
   * Balances the children of a branch. Afterwards none of them is empty or a branch with one child, unless this is the
   * branch's only child: then the branch is too small itself, and its own parent merges it with a neighbour.
   */
  #settle(branch: TreeNode, depth: number): void {
    if (depth === DEPTH_MAX) this.#tooDeep(branch);
    for (let i = 0; i < branch.entries.length; ) {
      const child = branch.entries[i]!.node;
      if (child === undefined || !child.isChanged) {
        i++;
        continue;
      }
      if (!child.isLeaf) this.#settle(child, depth + 1);
      if (child.entries.length === 0) this.#removeChild(branch, i);
      else if (!child.hasLost || !this.#isSmall(child)) i++;
      else i = this.#merge(branch, i, depth);
    }
  }

  #isSmall(node: TreeNode): boolean {
    return node.sizeBytes <= this.#mergeBytes || (!node.isLeaf && node.entries.length < 2);
  }

  /** Merges child `i` with a neighbour if useful or necessary. Returns the next index to examine. */
  #merge(branch: TreeNode, i: number, depth: number): number {
    const child = branch.entries[i]!.node!;
    const mustMerge = !child.isLeaf && child.entries.length < 2;
    for (const left of [i - 1, i]) {
      if (left < 0 || left + 1 >= branch.entries.length) continue;
      const a = this.#child(branch, left, depth);
      const b = this.#child(branch, left + 1, depth);
      if (a.isLeaf !== b.isLeaf) this.#pages.damaged(branch.page, "has both leaves and branches for children");
      // The right neighbour may not have been examined yet.
      if (left === i && !b.isLeaf && b.isChanged) this.#settle(b, depth + 1);
      if (b.entries.length === 0) {
        this.#removeChild(branch, left + 1);
        return i;
      }
      if (!mustMerge && a.sizeBytes + b.sizeBytes - PAGE_HEADER_BYTES > this.#pages.pageSize) continue;
      a.append(b);
      a.isChanged = true;
      a.hasLost ||= b.hasLost;
      this.#removeChild(branch, left + 1);
      // A child that had no neighbour may have one now.
      if (!a.isLeaf) this.#settle(a, depth + 1);
      return this.#isSmall(a) && branch.entries.length > 1 ? left : left + 1;
    }
    return i + 1;
  }

  /** Removes a child, whose entries are gone or elsewhere, from its branch. */
  #removeChild(branch: TreeNode, index: number): void {
    this.#free(branch.entries[index]!.node!);
    branch.remove(index);
    branch.hasLost = true;
    branch.isChanged = true;
  }

  #free(node: TreeNode): void {
    if (node.page !== 0) this.#pages.free(node.page, node.span);
  }

  /** Writes a changed node; returns its entries for the parent. */
  #write(node: TreeNode): Entry[] {
    if (!node.isLeaf) {
      const entries: Entry[] = [];
      for (const entry of node.entries) {
        if (entry.node?.isChanged) for (const written of this.#write(entry.node)) entries.push(written);
        else entries.push(entry);
      }
      node.setEntries(entries);
    }
    this.#free(node);
    const pages: Entry[] = [];
    const { entries } = node;
    let from = 0;
    do {
      const { to, sizeBytes } = this.#cut(node, from);
      const child = this.#pages.write(node.isLeaf, sizeBytes, entries, from, to);
      const first = entries[from];
      pages.push(
        first === undefined
          ? { bytes: NO_BYTES, start: 0, keyEnd: 0, end: 0, flags: 0, child, node: undefined }
          : {
              bytes: first.bytes,
              start: first.start,
              keyEnd: first.keyEnd,
              end: first.keyEnd,
              flags: 0,
              child,
              node: undefined,
            },
      );
      from = to;
    } while (from < entries.length);
    return pages;
  }

  /** End and size of the page that starts with entry `from`. */
  #cut(node: TreeNode, from: number): { to: number; sizeBytes: number } {
    const { entries } = node;
    if (from === 0 && node.sizeBytes <= this.#pages.pageSize && entries.length <= ENTRIES_MAX) {
      return { to: entries.length, sizeBytes: node.sizeBytes };
    }
    const least = node.isLeaf ? 1 : 2;
    let sizeBytes = PAGE_HEADER_BYTES;
    let to = from;
    for (; to < entries.length; to++) {
      const bytes = entryBytes(entries[to]!);
      // The rest needs its minimum too.
      const count = to - from;
      const mayEnd = count >= least && entries.length - to >= least;
      const isFull = node.isLeaf
        ? isFullLeaf(count, sizeBytes + bytes, this.#splitBytes)
        : sizeBytes + bytes > this.#splitBytes;
      if (mayEnd && (isFull || count === ENTRIES_MAX)) break;
      sizeBytes += bytes;
    }
    return { to, sizeBytes };
  }

  #child(branch: TreeNode, index: number, depth: number): TreeNode {
    const entry = branch.entries[index]!;
    if (entry.node !== undefined) return entry.node;
    if (depth >= DEPTH_MAX) this.#tooDeep(branch);
    const { bytes, span } = this.#pages.read(entry.child);
    const node = TreeNode.read(bytes, 0, entry.child, span);
    this.#checkPlace(branch, index, node);
    entry.node = node;
    return node;
  }

  /** A page whose keys contradict its parent belongs elsewhere: changing it would make the damage worse. */
  #checkPlace(branch: TreeNode, index: number, node: TreeNode): void {
    const first = node.entries[0];
    const last = node.entries.at(-1);
    if (first === undefined || last === undefined)
      this.#pages.damaged(node.page, "is empty, though it is not the only one");
    const entry = branch.entries[index]!;
    if (compareBytes(first.bytes, first.start, first.keyEnd, entry.bytes, entry.start, entry.keyEnd) < 0) {
      this.#pages.damaged(node.page, "its first key is below its parent's");
    }
    const next = branch.entries[index + 1];
    if (next && compareBytes(last.bytes, last.start, last.keyEnd, next.bytes, next.start, next.keyEnd) >= 0) {
      this.#pages.damaged(node.page, "its last key is not below the next key of its parent");
    }
  }

  #tooDeep(node: TreeNode): never {
    return this.#pages.damaged(node.page, `lies below ${DEPTH_MAX} branch pages: the tree is not a tree`);
  }

  #wrongKind(node: TreeNode, index: number): never {
    const { bytes, start, keyEnd } = node.entries[index]!;
    const key = Buffer.from(bytes.subarray(start, keyEnd)).toString("hex");
    return this.#pages.damaged(node.page, `key ${key} holds a bucket where a value belongs, or the reverse`);
  }
}

const NO_BYTES = new Uint8Array(0);
