import {
  copyPacked,
  isAtOrBelow,
  isLiveAt,
  mainAt,
  REVISION_WORDS,
  type RevisionInfo,
  readPacked,
} from "./packed-revision.ts";
import { OFFSET_BITS, OFFSET_MASK, WordChunks } from "./word-chunks.ts";

/**
 * The revisions of keys before their latest ones. Most keys have none.
 *
 * Those of one key are a chain of blocks from the newest to the oldest, each twice as long as the one before it up to
 * a limit, so that adding one copies none and finding one takes few steps. A block: the address of the next older
 * block, its length and its capacity (2 words), then the revisions, ascending.
 *
 * The address of a key's newest block is kept by the caller; 0 for none.
 */
export class KeyHistory {
  readonly #memory = new WordChunks();
  readonly #words = this.#memory.words;
  // Found by `#find`: a block and the offset of a revision in it.
  #block = 0;
  #at = 0;

  get allocatedBytes(): number {
    return this.#memory.allocatedBytes;
  }

  /** Adds the revision at `words[at]`, which is above all others of the chain. Returns the chain's new address. */
  push(chain: number, words: Uint32Array, at: number): number {
    return this.#push(chain, words, at, 1);
  }

  /** `capacity`: of the first block, if it is a new chain. */
  #push(chain: number, words: Uint32Array, at: number, capacity: number): number {
    let block = chain;
    if (block === 0) block = this.#newBlock(0, capacity);
    let target = this.#words[block >>> OFFSET_BITS]!;
    let head = block & OFFSET_MASK;
    if (target[head + 1]! >>> 16 === (target[head + 1]! & 0xffff)) {
      block = this.#newBlock(block, Math.min(2 * (target[head + 1]! >>> 16), BLOCK_LENGTH_MAX));
      target = this.#words[block >>> OFFSET_BITS]!;
      head = block & OFFSET_MASK;
    }
    const length = target[head + 1]! & 0xffff;
    copyPacked(words, at, target, head + HEAD_WORDS + length * REVISION_WORDS);
    target[head + 1] = target[head + 1]! + 1;
    return block;
  }

  /** Finds the last revision at or below (main, sub). False when there is none, or a tombstone. */
  read(chain: number, main: number, sub: number, out: RevisionInfo): boolean {
    if (!this.#find(chain, main, sub)) return false;
    const words = this.#words[this.#block >>> OFFSET_BITS]!;
    if (!isLiveAt(words, this.#at)) return false;
    readPacked(words, this.#at, out);
    return true;
  }

  /** Forgets a chain. */
  drop(chain: number): void {
    for (let block = chain; block !== 0; ) {
      const words = this.#words[block >>> OFFSET_BITS]!;
      const at = block & OFFSET_MASK;
      const next = words[at]!;
      this.#memory.free(block, blockWords(words[at + 1]! >>> 16));
      block = next;
    }
  }

  /** What follows is a compaction of all chains: what they keep goes to new memory, so that the old is released. */
  beginCompaction(): void {
    this.#memory.seal();
  }

  /**
   * Drops what a compaction at `atMain` makes unreadable, as KeyIndex.compact says. Returns the chain's new address;
   * `kept.main` is that of the revision at or below `atMain` that remains, or 0.
   */
  compact(chain: number, atMain: number, kept: RevisionInfo): number {
    kept.main = 0;
    let firstBlock = 0;
    let firstAt = 0;
    if (this.#find(chain, atMain, Number.POSITIVE_INFINITY)) {
      firstBlock = this.#block;
      firstAt = this.#at;
      const words = this.#words[firstBlock >>> OFFSET_BITS]!;
      if (isLiveAt(words, firstAt) || mainAt(words, firstAt) === atMain) readPacked(words, firstAt, kept);
      else firstAt += REVISION_WORDS;
    }
    const compacted = this.#copyFrom(chain, firstBlock, firstAt);
    this.drop(chain);
    return compacted;
  }

  /** Copies a chain from a revision on; from its oldest when `firstBlock` is 0. Returns the copy. */
  #copyFrom(chain: number, firstBlock: number, firstAt: number): number {
    const blocks: number[] = [];
    let count = 0;
    for (let block = chain; block !== 0; ) {
      const words = this.#words[block >>> OFFSET_BITS]!;
      const head = block & OFFSET_MASK;
      blocks.push(block);
      count += words[head + 1]! & 0xffff;
      if (block !== firstBlock) {
        block = words[head]!;
        continue;
      }
      count -= (firstAt - head - HEAD_WORDS) / REVISION_WORDS;
      break;
    }
    let copy = 0;
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks[i]!;
      const words = this.#words[block >>> OFFSET_BITS]!;
      const head = block & OFFSET_MASK;
      const end = head + HEAD_WORDS + (words[head + 1]! & 0xffff) * REVISION_WORDS;
      let at = block === firstBlock ? firstAt : head + HEAD_WORDS;
      for (; at < end; at += REVISION_WORDS) copy = this.#push(copy, words, at, Math.min(count, BLOCK_LENGTH_MAX));
    }
    return copy;
  }

  #find(chain: number, main: number, sub: number): boolean {
    for (let block = chain; block !== 0; ) {
      const words = this.#words[block >>> OFFSET_BITS]!;
      const head = block & OFFSET_MASK;
      const first = head + HEAD_WORDS;
      if (isAtOrBelow(words, first, main, sub)) {
        // The last one at or below is in [low, high).
        let low = 0;
        let high = words[head + 1]! & 0xffff;
        while (high - low > 1) {
          const middle = (low + high) >>> 1;
          if (isAtOrBelow(words, first + middle * REVISION_WORDS, main, sub)) low = middle;
          else high = middle;
        }
        this.#block = block;
        this.#at = first + low * REVISION_WORDS;
        return true;
      }
      block = words[head]!;
    }
    return false;
  }

  #newBlock(next: number, capacity: number): number {
    const block = this.#memory.allocate(blockWords(capacity));
    const words = this.#words[block >>> OFFSET_BITS]!;
    words[block & OFFSET_MASK] = next;
    words[(block & OFFSET_MASK) + 1] = capacity << 16;
    return block;
  }
}

const HEAD_WORDS = 2;
/** 24 KiB. */
const BLOCK_LENGTH_MAX = 1024;

function blockWords(capacity: number): number {
  return HEAD_WORDS + capacity * REVISION_WORDS;
}
