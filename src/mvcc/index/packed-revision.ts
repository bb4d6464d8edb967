/**
 * A revision of one key in six words of 32 bits: main 53, version 53 and created 53 bits, sub 32.
 *
 * Words: main, low half | main, high 21 bits, and 11 of the version's | created, low half | created, high 21 bits, and
 * 10 of the version's | sub | version, low half.
 *
 * A revision with version 0 is a tombstone: it ends a generation, and the next revision begins the next one.
 */
export const REVISION_WORDS = 6;

const TWO_32 = 2 ** 32;
const HIGH_BITS = 21;
const HIGH_MASK = (1 << HIGH_BITS) - 1;
const VERSION_BITS = 32 - HIGH_BITS;

/** One revision of a key, for the caller. */
export interface RevisionInfo {
  main: number;
  sub: number;
  /** Version of the key at this revision; 0 for a tombstone. */
  version: number;
  /** Main revision of the generation's first revision; 0 when its beginning was compacted before a restart. */
  created: number;
}

export function revisionInfo(): RevisionInfo {
  return { main: 0, sub: 0, version: 0, created: 0 };
}

export function writePacked(
  words: Uint32Array,
  at: number,
  main: number,
  sub: number,
  version: number,
  created: number,
): void {
  // Storing a number into a word keeps its low 32 bits.
  const versionHigh = version < TWO_32 ? 0 : version / TWO_32;
  words[at] = main;
  words[at + 1] = (main / TWO_32) | (versionHigh << HIGH_BITS);
  words[at + 2] = created;
  words[at + 3] = (created / TWO_32) | ((versionHigh >>> VERSION_BITS) << HIGH_BITS);
  words[at + 4] = sub;
  words[at + 5] = version;
}

export function readPacked(words: Uint32Array, at: number, out: RevisionInfo): void {
  out.main = mainAt(words, at);
  out.sub = words[at + 4]!;
  out.version = versionAt(words, at);
  out.created = createdAt(words, at);
}

export function mainAt(words: Uint32Array, at: number): number {
  return words[at]! + (words[at + 1]! & HIGH_MASK) * TWO_32;
}

export function createdAt(words: Uint32Array, at: number): number {
  return words[at + 2]! + (words[at + 3]! & HIGH_MASK) * TWO_32;
}

export function subAt(words: Uint32Array, at: number): number {
  return words[at + 4]!;
}

export function versionAt(words: Uint32Array, at: number): number {
  const high = (words[at + 1]! >>> HIGH_BITS) | ((words[at + 3]! >>> HIGH_BITS) << VERSION_BITS);
  return words[at + 5]! + high * TWO_32;
}

/** It is not a tombstone. */
export function isLiveAt(words: Uint32Array, at: number): boolean {
  return words[at + 5] !== 0 || (words[at + 1]! | words[at + 3]!) >>> HIGH_BITS !== 0;
}

/** Whether the revision is at or below (main, sub). */
export function isAtOrBelow(words: Uint32Array, at: number, main: number, sub: number): boolean {
  const own = mainAt(words, at);
  return own < main || (own === main && words[at + 4]! <= sub);
}

export function copyPacked(from: Uint32Array, fromAt: number, to: Uint32Array, toAt: number): void {
  for (let i = 0; i < REVISION_WORDS; i++) to[toAt + i] = from[fromAt + i]!;
}
