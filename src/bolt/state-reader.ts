/**
 * Reads one committed state of a bbolt file through the page cache. The state must stay: it is the newest one, or
 * pinned. Every read runs within one turn; a reader of many turns continues from its last position.
 */
import { type BoltMeta, BUCKET_ELEMENT, BUCKET_HEADER_BYTES, DEPTH_MAX, readUint64 } from "./format.ts";
import type { Frame, PageCache } from "./page-cache.ts";
import {
  branchChild,
  branchKeyBytes,
  branchKeyStart,
  compareBytes,
  countOf,
  elementAt,
  isLeafPage,
  leafFlags,
  leafKeyBytes,
  leafKeyStart,
  leafValueBytes,
  treePageProblem,
} from "./raw-page.ts";

/** Of a damaged name. etcd's are shorter. */
const NAME_BYTES_SHOWN = 64;

/** Maximum leaves that a long walk reads at once. */
const RUN_PAGES_MAX = 32;

/** Location of a bucket's tree: a page, or within the page of buckets. */
export interface BucketRoot {
  readonly name: string;
  readonly page: number;
  readonly inline: Buffer | undefined;
}

/**
 * Searches a page: returns the first element of a leaf at or above the target, or the child of a branch to descend to.
 */
export type Seek = (bytes: Uint8Array, at: number, count: number, isLeaf: boolean) => number;

/**
 * Receives the elements `from .. count` of the leaf at `bytes[at]`, which is `page` of the file; false stops the walk.
 */
export type LeafVisitor = (bytes: Buffer, at: number, from: number, count: number, page: number) => boolean;

interface Level {
  readonly page: number;
  index: number;
}

export class StateReader {
  readonly meta: BoltMeta;
  readonly #cache: PageCache;
  readonly #roots = new Map<string, BucketRoot | undefined>();

  constructor(cache: PageCache, meta: BoltMeta) {
    this.#cache = cache;
    this.meta = meta;
  }

  /** A top-level bucket; undefined when there is none. Throws BoltError. */
  bucket(name: string): BucketRoot | undefined {
    if (this.#roots.has(name)) return this.#roots.get(name);
    const root = this.#findBucket(name);
    this.#roots.set(name, root);
    return root;
  }

  /** All top-level buckets, ascending. Throws BoltError. */
  bucketNames(): string[] {
    const names: string[] = [];
    this.forEachLeaf({ name: "", page: this.meta.rootPage, inline: undefined }, undefined, (bytes, at, from, count) => {
      for (let i = from; i < count; i++) {
        const element = elementAt(at, i);
        const start = leafKeyStart(bytes, element);
        if (leafFlags(bytes, element) & BUCKET_ELEMENT) {
          names.push(bytes.toString("utf8", start, start + leafKeyBytes(bytes, element)));
        }
      }
      return true;
    });
    return names;
  }

  /**
   * Checks that every entry beside the buckets is one: if the name of one were damaged, it would only be missing, and a
   * new one would take its place. Throws BoltError.
   */
  checkBuckets(): void {
    const root = { name: "", page: this.meta.rootPage, inline: undefined };
    this.forEachLeaf(root, undefined, (bytes, at, from, count, page) => {
      for (let i = from; i < count; i++) this.#bucketAt(bytes, elementAt(at, i), page);
      return true;
    });
  }

  #findBucket(name: string): BucketRoot | undefined {
    const key = Buffer.from(name);
    const { bytes, at, count, id } = this.leafFor(
      { name: "", page: this.meta.rootPage, inline: undefined },
      seekKey(key),
    );
    const index = seekKey(key)(bytes, at, count, true);
    const value = valueAt(bytes, at, count, index, key);
    return value === undefined ? undefined : this.#bucketAt(bytes, elementAt(at, index), id);
  }

  /** The bucket of an element of a leaf, which is `leaf` of the file. */
  #bucketAt(bytes: Buffer, element: number, leaf: number): BucketRoot {
    const { pages } = this.#cache;
    const start = leafKeyStart(bytes, element);
    const keyEnd = start + leafKeyBytes(bytes, element);
    const name = bytes.toString("utf8", start, Math.min(keyEnd, start + NAME_BYTES_SHOWN));
    const value = bytes.subarray(keyEnd, keyEnd + leafValueBytes(bytes, element));
    if (!(leafFlags(bytes, element) & BUCKET_ELEMENT) || value.length < BUCKET_HEADER_BYTES) {
      pages.damaged(leaf, `its entry "${name}" is not a bucket`, "");
    }
    const page = readUint64(value, 0);
    if (page !== 0) {
      if (page >= 2 && page < this.meta.pageCount) return { name, page, inline: undefined };
      pages.damaged(leaf, `its bucket "${name}" is at page ${page}, outside 2 to ${this.meta.pageCount - 1}`, "");
    }
    const inline = Buffer.from(value.subarray(BUCKET_HEADER_BYTES));
    const problem = treePageProblem(inline, 0, inline.length);
    if (problem !== undefined) pages.damaged(leaf, `the page of bucket "${name}" within it ${problem}`, "");
    return { name, page: 0, inline };
  }

  /** The value of a key, in place: valid until the next call. Throws BoltError. */
  get(bucket: string, key: Uint8Array): Buffer | undefined {
    const root = this.bucket(bucket);
    if (root === undefined) return undefined;
    const seek = seekKey(key);
    const { inline } = root;
    if (inline !== undefined) {
      const count = countOf(inline, 0);
      return valueAt(inline, 0, count, seek(inline, 0, count, true), key);
    }
    const frame = this.leafFor(root, seek);
    return valueAt(frame.bytes, frame.at, frame.count, seek(frame.bytes, frame.at, frame.count, true), key);
  }

  /**
   * Visits the entries of a bucket from `from` on (all when absent), ascending. Key and value are valid during the
   * visit; false stops. Skips nested buckets. Throws BoltError.
   */
  forEach(bucket: string, from: Uint8Array | undefined, visit: (key: Buffer, value: Buffer) => boolean): void {
    const root = this.bucket(bucket);
    if (root === undefined) return;
    this.forEachLeaf(root, from === undefined ? undefined : seekKey(from), (bytes, at, first, count) => {
      for (let i = first; i < count; i++) {
        const element = elementAt(at, i);
        if (leafFlags(bytes, element) & BUCKET_ELEMENT) continue;
        const start = leafKeyStart(bytes, element);
        const keyEnd = start + leafKeyBytes(bytes, element);
        const value = bytes.subarray(keyEnd, keyEnd + leafValueBytes(bytes, element));
        if (!visit(bytes.subarray(start, keyEnd), value)) return false;
      }
      return true;
    });
  }

  /** The leaf that would contain a key, in a tree with its own page. Throws BoltError. */
  leafFor(root: BucketRoot, seek: Seek): Frame {
    let frame = this.#cache.get(root.page, root.name);
    for (let depth = 0; !frame.isLeaf; depth++) {
      if (depth === DEPTH_MAX) this.#tooDeep(frame.id, root.name);
      const index = seek(frame.bytes, frame.at, frame.count, false);
      frame = this.#cache.get(branchChild(frame.bytes, elementAt(frame.at, index)), root.name);
    }
    return frame;
  }

  /**
   * Visits the leaves of a tree, ascending, from the position given by `seek`. Leaves in memory are visited there; the
   * others are read many at once, and not kept. Returns false when the visitor stopped it. Throws BoltError.
   */
  forEachLeaf(root: BucketRoot, seek: Seek | undefined, visit: LeafVisitor): boolean {
    const { inline } = root;
    if (inline !== undefined) {
      const count = countOf(inline, 0);
      return visit(inline, 0, seek === undefined ? 0 : seek(inline, 0, count, true), count, this.meta.rootPage);
    }
    const walk = new LeafWalk(this.#cache, this.meta.pageCount, root.name, visit);
    return walk.run(root.page, seek);
  }

  /** For errors only the reader can detect: the content of a page is invalid. */
  damaged(page: number, problem: string, bucket: string): never {
    return this.#cache.pages.damaged(page, problem, bucket);
  }

  #tooDeep(page: number, bucket: string): never {
    return this.#cache.pages.damaged(page, `lies below ${DEPTH_MAX} branch pages: the tree is not a tree`, bucket);
  }
}

/** Buffers for leaves read past the cache; a walk within another's visit takes one more. */
const windows: Buffer[] = [];

class LeafWalk {
  readonly #cache: PageCache;
  readonly #bucket: string;
  readonly #visit: LeafVisitor;
  readonly #stack: Level[] = [];
  #pagesLeft: number;
  #previous: Buffer = Buffer.alloc(0);
  /** Leaves visited; the more, the more are read at once. */
  #leaves = 0;

  constructor(cache: PageCache, pageCount: number, bucket: string, visit: LeafVisitor) {
    this.#cache = cache;
    this.#pagesLeft = pageCount;
    this.#bucket = bucket;
    this.#visit = visit;
  }

  run(rootPage: number, seek: Seek | undefined): boolean {
    const { pageSize } = this.#cache;
    let window: Buffer | undefined;
    let windowFirst = 0;
    let windowEnd = 0;
    try {
      let page = this.#descend(rootPage, seek);
      let from = -1;
      for (;;) {
        let goesOn: boolean;
        if (page >= windowFirst && page < windowEnd) {
          goesOn = this.#leaf(window!, (page - windowFirst) * pageSize, page, 0);
        } else {
          const run = this.#cache.peek(page) === undefined ? this.#runFrom(page) : 0;
          // Pages that a long walk needs once must not replace cached ones.
          if (run > 1 || (run === 1 && this.#leaves > RUN_PAGES_MAX)) {
            window ??= takeWindow(RUN_PAGES_MAX * pageSize);
            windowFirst = page;
            windowEnd = page + this.#cache.readRun(window, page, run, this.#bucket);
            if (windowEnd > page) continue;
          }
          const frame = this.#cache.get(page, this.#bucket);
          frame.holds++;
          try {
            if (from < 0) from = seek === undefined ? 0 : seek(frame.bytes, frame.at, frame.count, true);
            goesOn = this.#leaf(frame.bytes, frame.at, page, from);
          } finally {
            frame.holds--;
          }
        }
        from = 0;
        if (!goesOn) return false;
        const next = this.#next();
        if (next === undefined) return true;
        page = next;
      }
    } finally {
      if (window !== undefined && windows.length < 4) windows.push(window);
    }
  }

  #leaf(bytes: Buffer, at: number, page: number, from: number): boolean {
    this.#spend(page);
    this.#leaves++;
    if (!isLeafPage(bytes, at)) this.#cache.pages.damaged(page, "is a branch where a leaf belongs", this.#bucket);
    const count = countOf(bytes, at);
    if (count === 0) return true;
    const first = elementAt(at, 0);
    const start = leafKeyStart(bytes, first);
    const previous = this.#previous;
    if (
      previous.length > 0 &&
      compareBytes(previous, 0, previous.length, bytes, start, start + leafKeyBytes(bytes, first)) >= 0
    ) {
      this.#cache.pages.damaged(page, "its first key is not above the last of the leaf before it", this.#bucket);
    }
    const last = elementAt(at, count - 1);
    const lastStart = leafKeyStart(bytes, last);
    const length = leafKeyBytes(bytes, last);
    if (previous.length !== length) this.#previous = Buffer.allocUnsafe(length);
    bytes.copy(this.#previous, 0, lastStart, lastStart + length);
    return from >= count || this.#visit(bytes, at, from, count, page);
  }

  /** Descends to the first leaf; returns its page. */
  #descend(page: number, seek: Seek | undefined): number {
    for (;;) {
      const frame = this.#cache.get(page, this.#bucket);
      if (frame.isLeaf) return page;
      this.#enter(page, seek === undefined ? 0 : seek(frame.bytes, frame.at, frame.count, false));
      page = branchChild(frame.bytes, elementAt(frame.at, this.#stack.at(-1)!.index));
    }
  }

  #enter(page: number, index: number): void {
    this.#spend(page);
    if (this.#stack.length === DEPTH_MAX) {
      this.#cache.pages.damaged(page, `lies below ${DEPTH_MAX} branch pages: the tree is not a tree`, this.#bucket);
    }
    this.#stack.push({ page, index });
  }

  #spend(page: number): void {
    if (this.#pagesLeft-- > 0) return;
    this.#cache.pages.damaged(page, "is reached more than once: the tree is not a tree", this.#bucket);
  }

  /** The page of the next leaf; undefined after the last. */
  #next(): number | undefined {
    const depth = this.#stack.length;
    for (;;) {
      const level = this.#stack.at(-1);
      if (level === undefined) return undefined;
      const frame = this.#cache.get(level.page, this.#bucket);
      if (++level.index >= frame.count) {
        this.#stack.pop();
        continue;
      }
      let page = branchChild(frame.bytes, elementAt(frame.at, level.index));
      // All leaves are at the same depth, so pages above it are branches.
      while (this.#stack.length < depth) {
        const child = this.#cache.get(page, this.#bucket);
        if (child.isLeaf) this.#cache.pages.damaged(page, "is a leaf where a branch belongs", this.#bucket);
        this.#enter(page, 0);
        page = branchChild(child.bytes, elementAt(child.at, 0));
      }
      return page;
    }
  }

  /** How many of the next leaves are adjacent from `page` on, up to the current limit of reading at once. */
  #runFrom(page: number): number {
    const level = this.#stack.at(-1);
    if (level === undefined || this.#leaves < 2) return 1;
    const { bytes, at, count } = this.#cache.get(level.page, this.#bucket);
    const most = Math.min(RUN_PAGES_MAX, this.#leaves);
    let run = 1;
    while (
      run < most &&
      level.index + run < count &&
      branchChild(bytes, elementAt(at, level.index + run)) === page + run
    ) {
      run++;
    }
    return run;
  }
}

function takeWindow(bytes: number): Buffer {
  const at = windows.findIndex(({ length }) => length === bytes);
  return at < 0 ? Buffer.allocUnsafeSlow(bytes) : windows.splice(at, 1)[0]!;
}

/** Searches for a key, bytewise. */
export function seekKey(key: Uint8Array): Seek {
  return (bytes, at, count, isLeaf) => {
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const element = elementAt(at, middle);
      const start = isLeaf ? leafKeyStart(bytes, element) : branchKeyStart(bytes, element);
      const end = start + (isLeaf ? leafKeyBytes(bytes, element) : branchKeyBytes(bytes, element));
      const order = compareBytes(bytes, start, end, key, 0, key.length);
      // In a branch: the last child whose first key is not above.
      if (isLeaf ? order < 0 : order <= 0) low = middle + 1;
      else high = middle;
    }
    return isLeaf ? low : Math.max(0, low - 1);
  };
}

/** The value of element `index` if it has this key. */
function valueAt(bytes: Buffer, at: number, count: number, index: number, key: Uint8Array): Buffer | undefined {
  if (index >= count) return undefined;
  const element = elementAt(at, index);
  const start = leafKeyStart(bytes, element);
  const keyEnd = start + leafKeyBytes(bytes, element);
  if (compareBytes(bytes, start, keyEnd, key, 0, key.length) !== 0) return undefined;
  return bytes.subarray(keyEnd, keyEnd + leafValueBytes(bytes, element));
}
