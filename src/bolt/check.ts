/**
 * Checks a bbolt file as `bbolt check` does: each page belongs to exactly one place, keys are in order, and the
 * freelist names the rest.
 *
 * One pass over the tree. Children that lie beside each other are read with one call, and used where they were read, so
 * that large files take about as long as reading them. Memory: one byte for each page of the file, and a window for each
 * level.
 */
import { BoltError, BUCKET_ELEMENT, BUCKET_HEADER_BYTES, DEPTH_MAX, readUint64 } from "./format.ts";
import type { PageFile } from "./page-file.ts";
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
import type { BoltReader } from "./reader.ts";

/** Pages read at once, and unneeded ones that may lie between two needed ones. */
const WINDOW_PAGES = 64;
const GAP_PAGES = 4;
/** Pages between two turns of the event loop: about a millisecond. */
const SLICE_PAGES = 256;

/**
 * Is shown the leaf at `bytes[at]` of a bucket (names of nested ones joined by "/"), which is valid. Returns what is wrong
 * with its entries, if anything.
 */
export type LeafCheck = (bucket: string, bytes: Buffer, at: number) => string | undefined;

/** Yields every problem, as one line of text each. */
export function* checkBolt(reader: BoltReader, leafCheck?: LeafCheck): Generator<string, void, void> {
  for (const step of new Check(reader, leafCheck).run()) if (step !== undefined) yield step;
}

/** The same for a large file: awaits `turn` between slices. Returns the first `problemsMax` problems. */
export async function checkBoltInSlices(
  reader: BoltReader,
  turn: () => Promise<void>,
  problemsMax = 20,
  leafCheck?: LeafCheck,
): Promise<readonly string[]> {
  const problems: string[] = [];
  let pages = 0;
  for (const step of new Check(reader, leafCheck).run()) {
    if (step !== undefined && problems.push(step) === problemsMax) break;
    if (step === undefined && ++pages % SLICE_PAGES === 0) await turn();
  }
  return problems;
}

/** One problem, or undefined for one checked page. */
type Step = string | undefined;

const FREE = 1;
const REACHED = 2;

/** A page in memory, with its overflow. */
interface Page {
  readonly bytes: Buffer;
  readonly at: number;
  readonly span: number;
}

/** A key of a parent, where it lies. */
interface Bound {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

interface Nested {
  readonly name: string;
  readonly rootPage: number;
}

class Check {
  readonly #reader: BoltReader;
  readonly #pages: PageFile;
  readonly #leafCheck: LeafCheck | undefined;
  readonly #state: Uint8Array;
  readonly #problems: string[] = [];

  constructor(reader: BoltReader, leafCheck: LeafCheck | undefined) {
    this.#reader = reader;
    this.#pages = reader.pages;
    this.#leafCheck = leafCheck;
    this.#state = new Uint8Array(reader.pageCount);
  }

  *run(): Generator<Step, void, void> {
    this.#state.fill(REACHED, 0, 2);
    this.#attempt(() => this.#freelist());
    yield* this.#drain();
    yield* this.#bucket({ name: "", rootPage: this.#reader.meta.rootPage }, 0);
    // Without a freelist, every unreachable page is free.
    if (this.#reader.meta.freelistPage === undefined) return;
    for (let id = 0; id < this.#state.length; id++) {
      if (this.#state[id] === 0) yield `page ${id}: unreachable unfreed`;
    }
  }

  *#drain(): Generator<string, void, void> {
    if (this.#problems.length > 0) yield* this.#problems.splice(0);
  }

  #attempt<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof BoltError)) throw error;
      this.#problems.push(error.message);
      return undefined;
    }
  }

  #freelist(): void {
    const freelist = this.#reader.freelist();
    const start = this.#reader.meta.freelistPage;
    if (freelist === undefined || start === undefined) return;
    this.#state.fill(REACHED, start, start + freelist.span);
    for (const id of freelist.ids) {
      if (!(id >= 2 && id < this.#state.length)) this.#problems.push(`page ${id}: free, but out of bounds`);
      else if (this.#state[id] === FREE) this.#problems.push(`page ${id}: already freed`);
      else this.#state[id] = FREE;
    }
  }

  *#bucket({ name, rootPage }: Nested, nesting: number): Generator<Step, void, void> {
    if (nesting > DEPTH_MAX) {
      yield `buckets nest deeper than ${DEPTH_MAX} levels`;
      return;
    }
    const nested: Nested[] = [];
    const about = (step: Step): Step => (step === undefined || name === "" ? step : `bucket "${name}": ${step}`);
    const page = this.#attempt(() => this.#readAlone(rootPage));
    if (page !== undefined && this.#takePage(rootPage, page, undefined, undefined)) {
      if (isLeafPage(page.bytes, page.at)) this.#leaf(rootPage, page, name, nested);
      else for (const step of this.#children(page, undefined, 0, name, nested)) yield about(step);
    }
    for (const problem of this.#drain()) yield about(problem);
    yield undefined;
    for (const child of nested) yield* this.#bucket(child, nesting + 1);
  }

  /** Checks all pages under the branch page `parent`, whose keys must be below `high`. */
  *#children(
    parent: Page,
    high: Bound | undefined,
    depth: number,
    name: string,
    nested: Nested[],
  ): Generator<Step, void, void> {
    const { bytes, at } = parent;
    const count = countOf(bytes, at);
    const window = new Window(this.#pages);
    for (let i = 0; i < count; i++) {
      const id = branchChild(bytes, elementAt(at, i));
      const next = i + 1 < count ? boundAt(parent, i + 1) : high;
      const page = this.#attempt(() => window.read(parent, i));
      if (page !== undefined && this.#takePage(id, page, boundAt(parent, i), next)) {
        if (isLeafPage(page.bytes, page.at)) this.#leaf(id, page, name, nested);
        else if (depth < DEPTH_MAX) yield* this.#children(this.#copyOf(page), next, depth + 1, name, nested);
      }
      if (this.#problems.length > 0) yield* this.#drain();
      yield undefined;
    }
  }

  /** Notes what is wrong with a page. True when its content can be checked. */
  #takePage(id: number, { bytes, at, span }: Page, low: Bound | undefined, high: Bound | undefined): boolean {
    const problem = treePageProblem(bytes, at, span * this.#pages.pageSize);
    if (problem !== undefined) {
      this.#problems.push(`page ${id}: ${problem}`);
      return false;
    }
    if (!this.#claim(id, span)) return false;
    const count = countOf(bytes, at);
    if (count === 0) return true;
    const isLeaf = isLeafPage(bytes, at);
    const start = (i: number): number => (isLeaf ? leafKeyStart : branchKeyStart)(bytes, elementAt(at, i));
    const length = (i: number): number => (isLeaf ? leafKeyBytes : branchKeyBytes)(bytes, elementAt(at, i));
    if (low !== undefined) {
      const first = start(0);
      if (compareBytes(low.bytes, low.start, low.end, bytes, first, first + length(0)) > 0) {
        this.#problems.push(`page ${id}: its first key is below its parent's`);
      }
    }
    if (high !== undefined) {
      const last = start(count - 1);
      if (compareBytes(high.bytes, high.start, high.end, bytes, last, last + length(count - 1)) <= 0) {
        this.#problems.push(`page ${id}: its last key is not below the next key of its parent`);
      }
    }
    return true;
  }

  /** Marks the pages as claimed; false when one of them already was. */
  #claim(first: number, span: number): boolean {
    let free = true;
    for (let id = first; id < first + span; id++) {
      if (this.#state[id] === REACHED) {
        this.#problems.push(`page ${id}: multiple references`);
        free = false;
      } else if (this.#state[id] === FREE) this.#problems.push(`page ${id}: reachable freed`);
      this.#state[id] = REACHED;
    }
    return free;
  }

  #leaf(id: number, { bytes, at }: Page, name: string, nested: Nested[]): void {
    const count = countOf(bytes, at);
    for (let i = 0; i < count; i++) {
      const element = elementAt(at, i);
      if ((leafFlags(bytes, element) & BUCKET_ELEMENT) === 0) continue;
      const start = leafKeyStart(bytes, element);
      const valueAt = start + leafKeyBytes(bytes, element);
      const key = bytes.toString("latin1", start, valueAt);
      const child = { name: name === "" ? key : `${name}/${key}`, rootPage: 0 };
      const problem = this.#nestedAt(bytes, valueAt, leafValueBytes(bytes, element), child, nested);
      if (problem !== undefined) this.#problems.push(`page ${id}: its bucket "${key}" ${problem}`);
    }
    const problem = this.#leafCheck?.(name, bytes, at);
    if (problem !== undefined) this.#problems.push(`page ${id}: ${problem}`);
  }

  /** An inline bucket is a leaf within the value, and contains no buckets. */
  #nestedAt(bytes: Buffer, at: number, length: number, child: Nested, nested: Nested[]): string | undefined {
    if (length < BUCKET_HEADER_BYTES) return `has ${length} bytes, fewer than its header`;
    const rootPage = readUint64(bytes, at);
    if (rootPage !== 0) {
      nested.push({ ...child, rootPage });
      return undefined;
    }
    const inlineAt = at + BUCKET_HEADER_BYTES;
    const problem = treePageProblem(bytes, inlineAt, length - BUCKET_HEADER_BYTES);
    if (problem !== undefined) return `has a page within it that ${problem}`;
    if (!isLeafPage(bytes, inlineAt)) return "is an inline bucket that is not one leaf";
    return this.#leafCheck?.(child.name, bytes, inlineAt);
  }

  #readAlone(id: number): Page {
    const { bytes, span } = this.#pages.read(id);
    return { bytes, at: 0, span };
  }

  /** A branch page stays while its children are read. */
  #copyOf({ bytes, at, span }: Page): Page {
    return { bytes: Buffer.from(bytes.subarray(at, at + span * this.#pages.pageSize)), at: 0, span };
  }
}

/** Reads the children of one branch page in order, several at once where they lie close together. */
class Window {
  readonly #pages: PageFile;
  #buffer: Buffer = EMPTY;
  #first = 0;
  #end = 0;

  constructor(pages: PageFile) {
    this.#pages = pages;
  }

  /** Child `index`; valid until the next call. Throws BoltError. */
  read({ bytes, at }: Page, index: number): Page {
    const id = branchChild(bytes, elementAt(at, index));
    this.#pages.checkId(id);
    const { pageSize } = this.#pages;
    if (id < this.#first || id >= this.#end) this.#fill(id, bytes, at, index);
    const pageAt = (id - this.#first) * pageSize;
    const span = this.#pages.spanOf(this.#buffer, pageAt, id);
    if (id + span <= this.#end) return { bytes: this.#buffer, at: pageAt, span };
    return { bytes: this.#pages.read(id).bytes, at: 0, span };
  }

  #fill(id: number, bytes: Buffer, at: number, index: number): void {
    const { pageSize, pageCount } = this.#pages;
    const count = countOf(bytes, at);
    let end = id + 1;
    for (let i = index + 1; i < count; i++) {
      const next = branchChild(bytes, elementAt(at, i));
      if (next < end || next - end > GAP_PAGES || next - id >= WINDOW_PAGES || next >= pageCount) break;
      end = next + 1;
    }
    const length = (end - id) * pageSize;
    if (this.#buffer.length < length) this.#buffer = Buffer.allocUnsafeSlow(length);
    // Nothing is left of the pages before if this fails.
    this.#end = 0;
    this.#pages.fill(this.#buffer.subarray(0, length), id, 0);
    this.#first = id;
    this.#end = end;
  }
}

const EMPTY = Buffer.alloc(0);

/** The key of element `index` of a branch page. */
function boundAt({ bytes, at }: Page, index: number): Bound {
  const element = elementAt(at, index);
  const start = branchKeyStart(bytes, element);
  return { bytes, start, end: start + branchKeyBytes(bytes, element) };
}
