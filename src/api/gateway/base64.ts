import type { Rope } from "../../base/rope.ts";

const OUT_BYTES = 3 * 4096;
/** Characters read at once in a run. */
const RUN_BYTES = 8192;

/**
 * Base64 as protojson accepts it: either alphabet but not both, padded when the text's length is a multiple of four and
 * only then, with line ends anywhere. The text arrives in pieces; its bytes go into a rope. Pure.
 */
export class Base64Reader {
  readonly #out = Buffer.allocUnsafeSlow(OUT_BYTES);
  readonly #run = Buffer.allocUnsafeSlow((RUN_BYTES / 4) * 3);
  /** Kinds of characters so far. */
  #kinds = 0;
  /** Number of digits, of padding characters, and of all characters. */
  #digits = 0;
  #padding = 0;
  #length = 0;
  /** Bits of the last digits, not a full byte yet. */
  #bits = 0;

  reset(): void {
    this.#kinds = 0;
    this.#digits = 0;
    this.#padding = 0;
    this.#length = 0;
    this.#bits = 0;
  }

  push(buf: Uint8Array, start: number, end: number, into: Rope): void {
    const out = this.#out;
    let bits = this.#bits;
    let digits = this.#digits;
    let kinds = this.#kinds;
    let used = 0;
    this.#length += end - start;
    for (let pos = start; pos < end; pos++) {
      const entry = TABLE[buf[pos]!]!;
      kinds |= entry & ~63;
      if (entry < DIGIT) {
        if (entry === PADDING) this.#padding++;
        continue;
      }
      if (this.#padding > 0) kinds |= INVALID;
      bits = ((bits << 6) | (entry & 63)) & 0xffffff;
      if ((++digits & 3) !== 0) continue;
      out[used] = bits >>> 16;
      out[used + 1] = bits >>> 8;
      out[used + 2] = bits;
      used += 3;
      if (used < OUT_BYTES) continue;
      into.bytes(out, 0, used);
      used = 0;
    }
    if (used > 0) into.bytes(out, 0, used);
    this.#bits = bits;
    this.#digits = digits;
    this.#kinds = kinds;
  }

  /**
   * Reads as much of a long run as Node can decode at once, several times faster, and returns its length; -1 when some
   * characters must be checked one by one.
   */
  pushRun(buf: Buffer, start: number, end: number, into: Rope): number {
    const missing = (4 - (this.#digits & 3)) & 3;
    for (let pos = start; pos < start + missing; pos++) if (TABLE[buf[pos]!]! < DIGIT) return -1;
    if (this.#padding > 0) return -1;
    const from = start + missing;
    const length = Math.min((end - from) & ~3, RUN_BYTES);
    if (length <= 0) return 0;
    const run = buf.subarray(from, from + length);
    // Node skips or stops at non-digits, so the length shows them.
    if (this.#run.write(run.toString("latin1"), 0, "base64") !== (length / 4) * 3) return -1;
    this.push(buf, start, from, into);
    into.bytes(this.#run, 0, (length / 4) * 3);
    if (run.includes(0x2b) || run.includes(0x2f)) this.#kinds |= STANDARD;
    if (run.includes(0x2d) || run.includes(0x5f)) this.#kinds |= URL_SAFE;
    this.#digits += length;
    this.#length += length;
    this.#bits = 0;
    return missing + length;
  }

  /** Writes the last bytes. False when the text is not base64. */
  finish(into: Rope): boolean {
    const last = this.#digits & 3;
    const isPadded = this.#length % 4 === 0;
    const both = STANDARD | URL_SAFE;
    if ((this.#kinds & INVALID) !== 0 || (this.#kinds & both) === both || last === 1) return false;
    if (isPadded ? this.#padding !== (4 - last) % 4 : this.#padding > 0) return false;
    if (last >= 2) into.byte((last === 2 ? this.#bits >>> 4 : this.#bits >>> 10) & 255);
    if (last === 3) into.byte((this.#bits >>> 2) & 255);
    return true;
  }
}

const PADDING = 64;
const LINE_END = 128;
const INVALID = 256;
const DIGIT = 512;
const STANDARD = 1024;
const URL_SAFE = 2048;

/** The class of each byte: for a digit with its value in the lowest six bits. */
const TABLE = new Uint16Array(256).fill(INVALID);
for (const [value, digit] of [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"].entries()) {
  TABLE[digit.charCodeAt(0)] = DIGIT | value;
}
TABLE[0x2b] = DIGIT | STANDARD | 62;
TABLE[0x2f] = DIGIT | STANDARD | 63;
TABLE[0x2d] = DIGIT | URL_SAFE | 62;
TABLE[0x5f] = DIGIT | URL_SAFE | 63;
TABLE[0x3d] = PADDING;
TABLE[0x0a] = LINE_END;
TABLE[0x0d] = LINE_END;
