/**
 * Finds the pages of a state of a bbolt file; all others are free. This is the cost of opening a file without a free
 * list: every branch and leaf page is read once, adjacent ones together.
 *
 * Promises: it ends, whatever the pages point at; a page reached twice, or an invalid one, is a BoltError.
 */
import { type BoltMeta, BUCKET_ELEMENT, BUCKET_HEADER_BYTES, readUint64 } from "./format.ts";
import type { PageFile } from "./page-file.ts";
import {
  branchChild,
  countOf,
  elementAt,
  isLeafPage,
  leafFlags,
  leafKeyBytes,
  leafKeyStart,
  leafValueBytes,
  treePageProblem,
} from "./raw-page.ts";

/** One byte per page: 1 if it is referenced. */
export function findReachable(pages: PageFile, meta: BoltMeta): Uint8Array {
  const walk = new Walk(pages, meta.pageCount);
  walk.reached.fill(1, 0, 2);
  walk.bucket(meta.rootPage, "");
  return walk.reached;
}

/** Maximum pages read at once, and unneeded pages allowed between two needed ones. */
const WINDOW_PAGES = 64;
const GAP_PAGES = 4;

class Walk {
  readonly reached: Uint8Array;
  readonly #pages: PageFile;

  constructor(pages: PageFile, pageCount: number) {
    this.#pages = pages;
    this.reached = new Uint8Array(pageCount);
  }

  /** Level by level; a page can only be entered once, so it ends. Nested buckets are walked afterwards. */
  bucket(rootPage: number, name: string): void {
    const found: { page: number; name: string }[] = [];
    let level = [rootPage];
    while (level.length > 0) {
      const next: number[] = [];
      level.sort((a, b) => a - b);
      this.#read(level, name, (id, bytes, at) => {
        const count = countOf(bytes, at);
        for (let i = 0; i < count; i++) {
          const element = elementAt(at, i);
          if (!isLeafPage(bytes, at)) next.push(branchChild(bytes, element));
          else if (leafFlags(bytes, element) & BUCKET_ELEMENT) {
            const child = this.#bucketAt(id, bytes, element, name);
            if (child.page !== 0) found.push(child);
          }
        }
      });
      level = next;
    }
    for (const child of found) this.bucket(child.page, child.name);
  }

  #bucketAt(id: number, bytes: Buffer, element: number, parent: string): { page: number; name: string } {
    const start = leafKeyStart(bytes, element);
    const valueStart = start + leafKeyBytes(bytes, element);
    const name = bytes.toString("latin1", start, valueStart);
    if (leafValueBytes(bytes, element) < BUCKET_HEADER_BYTES) {
      this.#pages.damaged(id, `holds bucket "${name}" without its header`, parent);
    }
    return { page: readUint64(bytes, valueStart), name: parent === "" ? name : `${parent}/${name}` };
  }

  /** Reads pages, ascending by id, and marks them. */
  #read(ids: readonly number[], bucket: string, visit: (id: number, bytes: Buffer, at: number) => void): void {
    const { pageSize } = this.#pages;
    let window: Buffer = Buffer.alloc(0);
    let first = 0;
    let end = 0;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      this.#pages.checkId(id, bucket);
      if (id >= end) {
        first = id;
        end = id + 1;
        for (let j = i + 1; j < ids.length && ids[j]! - end <= GAP_PAGES && ids[j]! - first < WINDOW_PAGES; j++) {
          end = Math.max(end, Math.min(ids[j]! + 1, this.#pages.pageCount));
        }
        window = Buffer.allocUnsafeSlow((end - first) * pageSize);
        this.#pages.fill(window, first, 0);
      }
      let at = (id - first) * pageSize;
      let bytes = window;
      const span = this.#pages.spanOf(bytes, at, id, bucket);
      if (span > 1) {
        bytes = this.#pages.read(id, bucket).bytes;
        at = 0;
      }
      const problem = treePageProblem(bytes, at, span * pageSize);
      if (problem !== undefined) this.#pages.damaged(id, problem, bucket);
      for (let page = id; page < id + span; page++) {
        if (this.reached[page] !== 0) this.#pages.damaged(page, "is reached twice: it belongs to two places", bucket);
        this.reached[page] = 1;
      }
      visit(id, bytes, at);
    }
  }
}
