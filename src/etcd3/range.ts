/** Ranges of keys. */
import { emptyKey, endRangeForPrefix, toBuffer, zeroKey } from "./util.ts";

export type Rangable =
  | Range
  | string
  | Buffer
  | { readonly start: string | Buffer; readonly end: string | Buffer }
  | { readonly prefix: string | Buffer };

/** From `start` to before `end`; without an end, one key; an end of one zero byte is the end of all keys. */
export class Range {
  readonly start: Buffer;
  readonly end: Buffer;

  constructor(start: Buffer | string, end: Buffer | string = emptyKey) {
    this.start = toBuffer(start);
    this.end = toBuffer(end);
  }

  static prefix(prefix: string | Buffer): Range {
    const start = toBuffer(prefix);
    return start.length === 0 ? new Range(zeroKey, zeroKey) : new Range(start, endRangeForPrefix(start));
  }

  static from(value: Rangable): Range {
    if (typeof value === "string" || Buffer.isBuffer(value)) return new Range(toBuffer(value));
    if (value instanceof Range) return value;
    return "prefix" in value ? Range.prefix(value.prefix) : new Range(value.start, value.end);
  }

  includes(value: string | Buffer): boolean {
    const key = toBuffer(value);
    const startsBefore = this.start.compare(key) <= 0;
    return this.end.length === 0 ? this.start.equals(key) : startsBefore && this.#endsAfter(key);
  }

  /** Negative when this range lies before the other, positive behind it, 0 when they have keys in common. */
  compare(other: Range): number {
    const [mine, others] = [this.#last, other.#last];
    if (mine !== null && mine.compare(other.start) <= 0) return -1;
    return others !== null && others.compare(this.start) <= 0 ? 1 : 0;
  }

  #endsAfter(key: Buffer): boolean {
    return this.end.equals(zeroKey) || this.end.compare(key) > 0;
  }

  /** The first key behind it; null when there is none. */
  get #last(): Buffer | null {
    if (this.end.length === 0) return Buffer.concat([this.start, zeroKey]);
    return this.end.equals(zeroKey) ? null : this.end;
  }
}
