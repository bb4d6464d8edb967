/**
 * One bucket of a bbolt file: look-ups and ordered walks over its B+tree.
 *
 * Promises: keys come in strictly ascending order or the walk throws; a walk reads no more pages than the file has.
 */
import { type BoltEntry, BUCKET_HEADER_BYTES, DEPTH_MAX, readUint64 } from "./format.ts";
import { TreePage } from "./page.ts";

/** The file access that a bucket needs. */
export interface PageSource {
  readonly path: string;
  readonly pageCount: number;
  page(id: number): TreePage;
  damaged(page: number, problem: string): never;
}

interface Position {
  readonly page: TreePage;
  index: number;
}

export class BoltBucket {
  /** The bucket's own counter, which etcd leaves at 0. */
  readonly sequence: number;
  /** Page of the tree's root; 0 for a bucket that lies within its parent's leaf. */
  readonly rootPage: number;
  readonly #source: PageSource;
  readonly #inline: TreePage | undefined;

  constructor(source: PageSource, rootPage: number, sequence: number, inline?: TreePage) {
    this.#source = source;
    this.rootPage = rootPage;
    this.sequence = sequence;
    this.#inline = inline;
  }

  /**
   * The value of a key; undefined when the key is absent or names a bucket. The value is a view that stays valid.
   * Throws BoltError.
   */
  get(key: Uint8Array): Buffer | undefined {
    const found = this.#find(key);
    return found && !found.page.isBucket(found.index) ? found.page.value(found.index) : undefined;
  }

  /** The nested bucket of that name. Throws BoltError. */
  bucket(name: Uint8Array): BoltBucket | undefined {
    const found = this.#find(name);
    return found?.page.isBucket(found.index) ? this.#open(found) : undefined;
  }

  /** The keys that hold values, from `from` on, ascending. Throws BoltError where the file is damaged. */
  *entries(from?: Uint8Array): Generator<BoltEntry, void, void> {
    for (const { page, index } of this.#walk(from)) {
      if (!page.isBucket(index)) yield { key: page.key(index), value: page.value(index) };
    }
  }

  /** The nested buckets, by name. Throws BoltError. */
  *buckets(): Generator<{ readonly name: Uint8Array; readonly bucket: BoltBucket }, void, void> {
    for (const position of this.#walk(undefined)) {
      const { page, index } = position;
      if (page.isBucket(index)) yield { name: page.key(index), bucket: this.#open(position) };
    }
  }

  /** The highest key that holds a value. Throws BoltError. */
  last(): BoltEntry | undefined {
    let page = this.rootTreePage();
    for (let depth = 0; !page.isLeaf; depth++) {
      if (depth === DEPTH_MAX) this.#tooDeep(page);
      page = this.#source.page(page.child(page.count - 1));
    }
    const index = page.count - 1;
    return index >= 0 && !page.isBucket(index) ? { key: page.key(index), value: page.value(index) } : undefined;
  }

  /** The root page of the tree. Throws BoltError. */
  rootTreePage(): TreePage {
    return this.#inline ?? this.#source.page(this.rootPage);
  }

  #find(key: Uint8Array): Position | undefined {
    let page = this.rootTreePage();
    for (let depth = 0; !page.isLeaf; depth++) {
      if (depth === DEPTH_MAX) this.#tooDeep(page);
      page = this.#source.page(page.child(page.childFor(key)));
    }
    const index = page.lowerBound(key);
    return index < page.count && page.key(index).equals(key) ? { page, index } : undefined;
  }

  #open({ page, index }: Position): BoltBucket {
    const value = page.value(index);
    if (value.length < BUCKET_HEADER_BYTES) {
      this.#source.damaged(page.id, `element ${index} is a bucket of ${value.length} bytes, shorter than its header`);
    }
    const root = readUint64(value, 0);
    const sequence = readUint64(value, 8);
    if (root !== 0) return new BoltBucket(this.#source, root, sequence);
    const inline = new TreePage(this.#source.path, page.id, value.subarray(BUCKET_HEADER_BYTES), 0);
    if (!inline.isLeaf) {
      this.#source.damaged(page.id, `element ${index} is an inline bucket that is not one leaf`);
    }
    return new BoltBucket(this.#source, 0, sequence, inline);
  }

  /** Every element from `from` on. The position is reused: take what is needed before the next step. */
  *#walk(from: Uint8Array | undefined): Generator<Position, void, void> {
    const stack: Position[] = [];
    let pagesLeft = this.#source.pageCount;
    let previous: Buffer | undefined;
    const descend = (start: TreePage, seek: Uint8Array | undefined): Position => {
      let page = start;
      for (; !page.isLeaf; page = this.#source.page(stack.at(-1)!.page.child(stack.at(-1)!.index))) {
        if (stack.length === DEPTH_MAX) this.#tooDeep(page);
        if (pagesLeft-- === 0) this.#source.damaged(page.id, "is reached more than once: the tree is not a tree");
        stack.push({ page, index: seek === undefined ? 0 : page.childFor(seek) });
      }
      if (pagesLeft-- === 0) this.#source.damaged(page.id, "is reached more than once: the tree is not a tree");
      return { page, index: seek === undefined ? 0 : page.lowerBound(seek) };
    };

    let leaf = descend(this.rootTreePage(), from);
    for (;;) {
      const { page } = leaf;
      // Keys ascend within a page; this checks it between pages.
      if (previous !== undefined && page.count > 0 && previous.compare(page.key(0)) >= 0) {
        this.#source.damaged(page.id, "its first key is not above the last of the leaf before it");
      }
      for (; leaf.index < page.count; leaf.index++) yield leaf;
      if (page.count > 0) previous = page.key(page.count - 1);
      while (stack.length > 0 && ++stack.at(-1)!.index >= stack.at(-1)!.page.count) stack.pop();
      const branch = stack.at(-1);
      if (branch === undefined) return;
      leaf = descend(this.#source.page(branch.page.child(branch.index)), undefined);
    }
  }

  #tooDeep(page: TreePage): never {
    return this.#source.damaged(page.id, `lies below ${DEPTH_MAX} branch pages: the tree is not a tree`);
  }
}
