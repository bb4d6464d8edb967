import { InvariantError } from "../../base/fatal.ts";

/**
 * Memory outside V8's heap in chunks of 256 KiB, filled front to back: what grows in steps copies nothing, and the
 * garbage collector has nothing to visit. A piece is addressed by a number of 31 bits: chunk and offset in words.
 *
 * A chunk is released when nothing in it is used any more.
 */
export class WordChunks {
  /** The memory of each chunk, by number, as words and as bytes. The first is unused, so that no address is 0. */
  readonly words: Uint32Array[] = [NO_WORDS];
  readonly bytes: Buffer[] = [NO_BYTES];
  /** Words given out so far in each chunk, and those of them that are not free again. */
  readonly #filled: number[] = [0];
  readonly #used: number[] = [0];
  readonly #freeNumbers: number[] = [];
  /** The chunk that is being filled; 0 for none. */
  #open = 0;
  /** Memory of all chunks. */
  allocatedBytes = 0;
  /** Words in use, and those of freed pieces between them, in all chunks. */
  usedWords = 0;
  deadWords = 0;

  /** Memory of `length` words with any content, all in one chunk. */
  allocate(length: number): number {
    if (length > CHUNK_WORDS) return this.#fill(this.#newChunk(length), length);
    if (this.#open === 0 || this.#filled[this.#open]! + length > CHUNK_WORDS) {
      this.seal();
      this.#open = this.#newChunk(CHUNK_WORDS);
    }
    return this.#fill(this.#open, length);
  }

  free(address: number, length: number): void {
    const number = address >>> OFFSET_BITS;
    this.#used[number]! -= length;
    this.usedWords -= length;
    this.deadWords += length;
    if (this.#used[number] === 0 && number !== this.#open) this.#release(number);
  }

  /** Nothing more is put into the chunk that is being filled. */
  seal(): void {
    const number = this.#open;
    this.#open = 0;
    if (number !== 0 && this.#used[number] === 0) this.#release(number);
  }

  /** Words given out so far in the chunk of an address. */
  filledAt(address: number): number {
    return this.#filled[address >>> OFFSET_BITS]!;
  }

  /** The full chunk with the smallest part in use, as the address of its beginning; 0 when there is none. */
  emptiest(): number {
    let best = 0;
    let share = 1;
    for (let number = 1; number < this.words.length; number++) {
      const used = this.#used[number]!;
      if (used === 0 || number === this.#open || used / this.#filled[number]! >= share) continue;
      share = used / this.#filled[number]!;
      best = number;
    }
    return best << OFFSET_BITS;
  }

  #fill(number: number, length: number): number {
    const offset = this.#filled[number]!;
    this.#filled[number] = offset + length;
    this.#used[number]! += length;
    this.usedWords += length;
    return (number << OFFSET_BITS) | offset;
  }

  #newChunk(length: number): number {
    const number = this.#freeNumbers.pop() ?? this.words.length;
    if (number > CHUNKS_MAX) {
      throw new InvariantError(`the keys and their revisions take more than ${CHUNKS_MAX >> 2} MiB`);
    }
    const words = new Uint32Array(length);
    this.words[number] = words;
    this.bytes[number] = Buffer.from(words.buffer);
    this.#filled[number] = 0;
    this.#used[number] = 0;
    this.allocatedBytes += words.byteLength;
    return number;
  }

  #release(number: number): void {
    this.deadWords -= this.#filled[number]!;
    this.allocatedBytes -= this.words[number]!.byteLength;
    this.words[number] = NO_WORDS;
    this.bytes[number] = NO_BYTES;
    this.#filled[number] = 0;
    this.#freeNumbers.push(number);
  }
}

const NO_WORDS = new Uint32Array(0);
const NO_BYTES = Buffer.alloc(0);
export const OFFSET_BITS = 16;
export const OFFSET_MASK = (1 << OFFSET_BITS) - 1;
/** The uppermost bit of a word with an address is free for its owner. */
export const ADDRESS_MASK = 0x7fffffff;
/** What is larger has a chunk to itself. */
const CHUNK_WORDS = 1 << OFFSET_BITS;
/** 8 GiB: more keys than a member can serve. */
const CHUNKS_MAX = ADDRESS_MASK >>> OFFSET_BITS;
