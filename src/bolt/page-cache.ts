/**
 * Pages of a bbolt file kept in memory, up to a limit, and used in place.
 *
 * Branch pages and hot leaves stay; a scan of many pages reads them past the cache (`readRun`). A page is checked when
 * it is read, so using it needs no checks. Pages are read with `read`, not mapped: a truncated file or a failing disk
 * is then an error of one read, whereas access to mapped memory would end the process with SIGBUS.
 *
 * A frame is valid until the next call of `get`, unless it is held.
 */
import type { PageFile } from "./page-file.ts";
import { countOf, isLeafPage, treePageProblem } from "./raw-page.ts";

/** A page in memory: `bytes[at .. at + length)`. */
export class Frame {
  readonly bytes: Buffer;
  readonly at: number;
  readonly length: number;
  /** Its index among the frames. */
  readonly index: number;
  id = 0;
  isLeaf = false;
  count = 0;
  /** Used since the last pass of the clock hand. */
  isRecent = false;
  /** Readers that hold it. */
  holds = 0;

  constructor(bytes: Buffer, at: number, length: number, index: number) {
    this.bytes = bytes;
    this.at = at;
    this.length = length;
    this.index = index;
  }
}

const CHUNK_FRAMES = 64;
/**
 * Pages of large values that are kept, at most: some hot ones. A list of hundreds of megabytes would fill any room, and
 * be read from the kernel's memory the next time all the same.
 */
const LARGE_BYTES_MAX = 32 * 1024 * 1024;
const TABLE_BITS = 12;
const TABLE_MASK = (1 << TABLE_BITS) - 1;

export class PageCache {
  readonly #pages: PageFile;
  readonly #framesMax: number;
  readonly #largeBytesMax: number;
  readonly #frames: Frame[] = [];
  /** Page id to frame index plus one, in two levels, because a hash table would dominate the lookup time. */
  readonly #table: (Int32Array | undefined)[] = [];
  #unused: Buffer = Buffer.alloc(0);
  #unusedAt = 0;
  #hand = 0;
  /** Pages that span more than one, least recently used first. */
  readonly #large = new Map<number, Frame>();
  #largeBytes = 0;

  constructor(pages: PageFile, limitBytes: number) {
    this.#pages = pages;
    this.#framesMax = Math.max(CHUNK_FRAMES, Math.floor(limitBytes / pages.pageSize));
    this.#largeBytesMax = Math.min(LARGE_BYTES_MAX, Math.floor(limitBytes / 4));
  }

  get pageSize(): number {
    return this.#pages.pageSize;
  }

  /** Bytes of the pages that span more than one. */
  get largeBytes(): number {
    return this.#largeBytes;
  }

  get pages(): PageFile {
    return this.#pages;
  }

  /** The page, from memory or from the file. Throws BoltError. */
  get(id: number, bucket: string): Frame {
    return this.peek(id) ?? this.#load(id, bucket);
  }

  /** The page if it is in memory. */
  peek(id: number): Frame | undefined {
    const index = this.#table[id >>> TABLE_BITS]?.[id & TABLE_MASK];
    if (index === undefined || index === 0) return this.#large.size === 0 ? undefined : this.#largeFrame(id);
    const frame = this.#frames[index - 1]!;
    frame.isRecent = true;
    return frame;
  }

  #largeFrame(id: number): Frame | undefined {
    const frame = this.#large.get(id);
    if (frame === undefined) return undefined;
    this.#large.delete(id);
    this.#large.set(id, frame);
    return frame;
  }

  #load(id: number, bucket: string): Frame {
    this.#pages.checkId(id, bucket);
    const frame = this.#freeFrame();
    const { bytes, at } = frame;
    const { pageSize } = this.#pages;
    this.#pages.fill(bytes.subarray(at, at + pageSize), id, 0);
    if (this.#pages.spanOf(bytes, at, id, bucket) > 1) return this.#loadLarge(id, bucket);
    this.#check(bytes, at, pageSize, id, bucket);
    this.#setUp(frame, id);
    const table = (this.#table[id >>> TABLE_BITS] ??= new Int32Array(1 << TABLE_BITS));
    table[id & TABLE_MASK] = frame.index + 1;
    return frame;
  }

  #loadLarge(id: number, bucket: string): Frame {
    const { bytes } = this.#pages.read(id, bucket);
    this.#check(bytes, 0, bytes.length, id, bucket);
    const frame = new Frame(bytes, 0, bytes.length, -1);
    this.#setUp(frame, id);
    if (bytes.length > this.#largeBytesMax / 4) return frame;
    this.#large.set(id, frame);
    this.#largeBytes += bytes.length;
    for (const [oldest, { length }] of this.#large) {
      if (this.#largeBytes <= this.#largeBytesMax) break;
      this.#large.delete(oldest);
      this.#largeBytes -= length;
    }
    return frame;
  }

  #setUp(frame: Frame, id: number): void {
    frame.id = id;
    frame.isLeaf = isLeafPage(frame.bytes, frame.at);
    frame.count = countOf(frame.bytes, frame.at);
    frame.isRecent = true;
  }

  #check(bytes: Buffer, at: number, length: number, id: number, bucket: string): void {
    const problem = treePageProblem(bytes, at, length);
    if (problem !== undefined) this.#pages.damaged(id, problem, bucket);
  }

  /** A free frame: a new one below the limit, otherwise one that was not used for long. */
  #freeFrame(): Frame {
    if (this.#frames.length < this.#framesMax) {
      const { pageSize } = this.#pages;
      if (this.#unusedAt === this.#unused.length) {
        this.#unused = Buffer.allocUnsafeSlow(CHUNK_FRAMES * pageSize);
        this.#unusedAt = 0;
      }
      const frame = new Frame(this.#unused, this.#unusedAt, pageSize, this.#frames.length);
      this.#unusedAt += pageSize;
      this.#frames.push(frame);
      return frame;
    }
    for (let passed = 0; ; passed++) {
      const frame = this.#frames[this.#hand]!;
      this.#hand = (this.#hand + 1) % this.#frames.length;
      if (frame.holds > 0 && passed < 2 * this.#frames.length) continue;
      if (frame.holds > 0) throw new Error(`${this.#pages.path}: every page in memory is held`);
      if (!frame.isRecent || frame.id === 0) {
        this.#drop(frame.id);
        frame.id = 0;
        return frame;
      }
      frame.isRecent = false;
    }
  }

  #drop(id: number): void {
    const table = this.#table[id >>> TABLE_BITS];
    if (id !== 0 && table !== undefined) table[id & TABLE_MASK] = 0;
  }

  /** The pages of these runs (first page, number of pages, and so on) were rewritten. */
  forget(runs: readonly number[]): void {
    for (let i = 0; i < runs.length; i += 2) {
      const end = runs[i]! + runs[i + 1]!;
      for (let id = runs[i]!; id < end; id++) {
        const table = this.#table[id >>> TABLE_BITS];
        const index = table?.[id & TABLE_MASK];
        if (index !== undefined && index !== 0) {
          table![id & TABLE_MASK] = 0;
          const frame = this.#frames[index - 1]!;
          frame.id = 0;
          frame.isRecent = false;
        }
        const large = this.#large.get(id);
        if (large !== undefined) {
          this.#large.delete(id);
          this.#largeBytes -= large.length;
        }
      }
    }
  }

  /** Reads adjacent leaves, past the cache, into `target`; returns how many of them are complete pages. */
  readRun(target: Buffer, first: number, count: number, bucket: string): number {
    const { pageSize } = this.#pages;
    this.#pages.checkId(first, bucket);
    this.#pages.fill(target.subarray(0, count * pageSize), first, 0);
    for (let i = 0; i < count; i++) {
      if (this.#pages.spanOf(target, i * pageSize, first + i, bucket) > 1) return i;
      this.#check(target, i * pageSize, pageSize, first + i, bucket);
    }
    return count;
  }
}
