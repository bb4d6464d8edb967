import type { KeyInPlace } from "../model/types.ts";
import type { KeyHistory } from "./key-history.ts";
import {
  createdAt,
  isLiveAt,
  mainAt,
  REVISION_WORDS,
  type RevisionInfo,
  readPacked,
  subAt,
  versionAt,
  writePacked,
} from "./packed-revision.ts";
import { OFFSET_BITS, OFFSET_MASK, WordChunks } from "./word-chunks.ts";

/**
 * The keys with their latest revisions, one record each, back to back in chunks of memory. A record's address is the
 * *id* of its key in table and tree: a number above 0, which changes only when it is moved (KeyIndex.tidy).
 *
 * A record: the latest revision (6 words), the address of its older ones in KeyHistory (1 word, 0 for none), the length
 * of the key (1 byte; from 255 bytes on 255 and 4 bytes more), the key. A key of 20 bytes takes 52. A freed record has
 * main revision 0 until its chunk is released.
 */
export class KeyRecords implements KeyInPlace {
  readonly #memory = new WordChunks();
  readonly #words = this.#memory.words;
  readonly #bytes = this.#memory.bytes;
  // The key that `locate` was called for.
  bytes: Buffer = Buffer.alloc(0);
  keyStart = 0;
  keyEnd = 0;

  /** Creates a record for the key `source[start .. end)`, which is copied. */
  add(
    source: Uint8Array,
    start: number,
    end: number,
    main: number,
    sub: number,
    version: number,
    created: number,
  ): number {
    const length = end - start;
    const id = this.#memory.allocate(recordWords(length));
    const words = this.#words[id >>> OFFSET_BITS]!;
    const bytes = this.#bytes[id >>> OFFSET_BITS]!;
    const at = id & OFFSET_MASK;
    writePacked(words, at, main, sub, version, created);
    words[at + OLDER_WORD] = 0;
    let pos = (at + KEY_WORD) << 2;
    if (length < LONG_KEY) bytes[pos++] = length;
    else {
      bytes[pos] = LONG_KEY;
      bytes.writeUInt32LE(length, pos + 1);
      pos += 5;
    }
    if (length < 64) for (let i = start; i < end; i++) bytes[pos++] = source[i]!;
    else bytes.set(source.subarray(start, end), pos);
    return id;
  }

  free(id: number): void {
    const words = this.#words[id >>> OFFSET_BITS]!;
    const at = id & OFFSET_MASK;
    words[at] = 0;
    words[at + 1] = 0;
    this.#memory.free(id, this.#wordsOf(id));
  }

  main(id: number): number {
    return mainAt(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK);
  }

  sub(id: number): number {
    return subAt(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK);
  }

  version(id: number): number {
    return versionAt(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK);
  }

  created(id: number): number {
    return createdAt(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK);
  }

  /** The latest revision is not a tombstone. */
  isLive(id: number): boolean {
    return isLiveAt(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK);
  }

  /** Copies the latest revision. */
  read(id: number, out: RevisionInfo): void {
    readPacked(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK, out);
  }

  /** Replaces the latest revision. */
  write(id: number, main: number, sub: number, version: number, created: number): void {
    writePacked(this.#words[id >>> OFFSET_BITS]!, id & OFFSET_MASK, main, sub, version, created);
  }

  /** The address of the older revisions; 0 for none. */
  older(id: number): number {
    return this.#words[id >>> OFFSET_BITS]![(id & OFFSET_MASK) + OLDER_WORD]!;
  }

  setOlder(id: number, older: number): void {
    this.#words[id >>> OFFSET_BITS]![(id & OFFSET_MASK) + OLDER_WORD] = older;
  }

  /** Hands the latest revision to the history, and makes it the newest of the older ones. */
  pushOlder(id: number, history: KeyHistory): void {
    const words = this.#words[id >>> OFFSET_BITS]!;
    const at = id & OFFSET_MASK;
    words[at + OLDER_WORD] = history.push(words[at + OLDER_WORD]!, words, at);
  }

  /** Points `bytes`, `keyStart` and `keyEnd` at the key, until the next call. Returns this. */
  locate(id: number): KeyInPlace {
    const bytes = this.#bytes[id >>> OFFSET_BITS]!;
    const at = ((id & OFFSET_MASK) + KEY_WORD) << 2;
    const length = bytes[at]!;
    this.bytes = bytes;
    if (length < LONG_KEY) {
      this.keyStart = at + 1;
      this.keyEnd = at + 1 + length;
    } else {
      this.keyStart = at + 5;
      this.keyEnd = at + 5 + bytes.readUInt32LE(at + 1);
    }
    return this;
  }

  /** Whether the key is `source[start .. end)`. */
  equals(id: number, source: Uint8Array, start: number, end: number): boolean {
    const bytes = this.#bytes[id >>> OFFSET_BITS]!;
    let at = ((id & OFFSET_MASK) + KEY_WORD) << 2;
    const length = end - start;
    if (length < LONG_KEY) {
      if (bytes[at++] !== length) return false;
    } else {
      this.locate(id);
      at = this.keyStart;
      if (this.keyEnd - at !== length) return false;
    }
    for (let i = 0; i < length; i++) if (bytes[at + i] !== source[start + i]) return false;
    return true;
  }

  /**
   * Order of the record's key and `key[start .. end)`, bytewise: below 0, 0 or above 0. The first `common` bytes are
   * known to be equal; afterwards `this.common` says how many are.
   */
  compare(id: number, key: Uint8Array, start: number, end: number, common: number): number {
    const bytes = this.#bytes[id >>> OFFSET_BITS]!;
    const at = ((id & OFFSET_MASK) + KEY_WORD) << 2;
    let own = at + 1;
    let length = bytes[at]!;
    if (length === LONG_KEY) {
      own = at + 5;
      length = bytes.readUInt32LE(at + 1);
    }
    const most = Math.min(length, end - start);
    let i = common;
    for (; i < most; i++) {
      const difference = bytes[own + i]! - key[start + i]!;
      if (difference !== 0) {
        this.common = i;
        return difference;
      }
    }
    this.common = i;
    return length - (end - start);
  }

  /** Bytes that the keys of the last `compare` have in common at their beginning. */
  common = 0;

  /** Copies a record to where new ones go, and returns the copy's id. Free the old one when nothing refers to it. */
  copy(id: number): number {
    const length = this.#wordsOf(id);
    const to = this.#memory.allocate(length);
    const fromAt = id & OFFSET_MASK;
    const piece = this.#words[id >>> OFFSET_BITS]!.subarray(fromAt, fromAt + length);
    this.#words[to >>> OFFSET_BITS]!.set(piece, to & OFFSET_MASK);
    return to;
  }

  get allocatedBytes(): number {
    return this.#memory.allocatedBytes;
  }

  /** The address of a chunk that is worth emptying, so that freed memory stays a small part; 0 when none is. */
  wasteful(): number {
    const { usedWords, deadWords } = this.#memory;
    return deadWords > DEAD_WORDS_MIN && deadWords * 4 > usedWords ? this.#memory.emptiest() : 0;
  }

  /** The first record of a chunk that is not free; 0 when there is none. */
  firstIn(chunk: number): number {
    return this.#usedFrom(chunk, 0);
  }

  /** The next record in the same chunk that is not free; 0 when there is none. */
  nextInChunk(id: number): number {
    return this.#usedFrom(id - (id & OFFSET_MASK), (id & OFFSET_MASK) + this.#wordsOf(id));
  }

  #usedFrom(chunk: number, offset: number): number {
    const words = this.#words[chunk >>> OFFSET_BITS]!;
    const filled = this.#memory.filledAt(chunk);
    for (let at = offset; at < filled; at += this.#wordsOf(chunk + at)) if (mainAt(words, at) !== 0) return chunk + at;
    return 0;
  }

  #wordsOf(id: number): number {
    this.locate(id);
    return recordWords(this.keyEnd - this.keyStart);
  }
}

const OLDER_WORD = REVISION_WORDS;
const KEY_WORD = OLDER_WORD + 1;
const LONG_KEY = 255;
/** 256 KiB. */
const DEAD_WORDS_MIN = 65_536;

function recordWords(keyLength: number): number {
  return KEY_WORD + ((keyLength + (keyLength < LONG_KEY ? 1 : 5) + 3) >>> 2);
}
