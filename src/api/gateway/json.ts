/**
 * Parses JSON as Go's encoding/json does, with its error texts. Input arrives in pieces of any size, and tokens go to a
 * sink as they are found: the text is not kept, so its size and depth cost neither memory nor stack, and each piece
 * takes its own time. Pure.
 */
import { Utf8Check } from "../../base/utf8-check.ts";
import {
  AFTER_ELEMENT,
  AFTER_MEMBER,
  COLON,
  ESCAPE,
  ESCAPES,
  HEX,
  hexDigit,
  INTEGER,
  isDigit,
  isNumberEnd,
  isSpace,
  LITERAL,
  MINUS,
  NAME,
  NAME_OR_END,
  numberState,
  PLAIN,
  STRING,
  VALUE,
  VALUE_OR_END,
  ZERO,
} from "./json-characters.ts";
import { JsonSyntaxError, unexpected } from "./json-errors.ts";
import { FOLLOWING_BYTES, type JsonSink } from "./json-sink.ts";

/** Go's limit. */
const DEPTH_MAX = 10_000;
/** Raw text kept of a token, for errors and numbers. */
const RAW_BYTES_MAX = 64 * 1024;

/** Shorter runs are not worth a try. */
const RUN_BYTES_MIN = 256;

const OBJECT = 1;
const ARRAY = 2;

/** Parses one value. Create a new one for the next. */
export class JsonLexer {
  /** The value is complete. */
  done = false;

  readonly #sink: JsonSink;
  #state = VALUE;
  #containers = new Uint8Array(64);
  #depth = 0;

  /**
   * Bytes of the value before the buffer, minus the buffer's start: adding a position gives the offset in the value.
   */
  #offset = 0;
  #consumed = 0;
  #line = 1;
  /** Start of the line, advanced by each byte that is not a character of its own. */
  #lineStart = 0;
  /** The value has begun; leading white space does not count. */
  #isBegun = false;

  /** Position of the current or last token. */
  #tokenLine = 1;
  #tokenColumn = 1;
  /** Its start in the buffer; -1: earlier, and `#rawHead` has the earlier part. */
  #tokenStart = -1;
  #tokenEnd = -1;
  #inToken = false;
  #rawHead: Buffer = NOTHING;
  #buf: Buffer = NOTHING;
  #end = 0;

  #literal: "true" | "false" | "null" = "null";
  #literalAt = 0;

  #isName = false;
  #wanted = false;
  /** Long runs of the string may be taken at once. */
  #hasRuns = false;
  #isBad = false;
  readonly #utf8 = new Utf8Check();
  #hexDigits = 0;
  #hexValue = 0;
  readonly #hexText: number[] = [];
  /** The first half of a surrogate pair; -1 for none. */
  #high = -1;
  readonly #scratch = Buffer.alloc(4);
  /** Collects the bytes after a bad escape. */
  #collecting: number[] | null = null;

  constructor(sink: JsonSink) {
    this.#sink = sink;
  }

  /** Line and column of the token, starting at one, as in errors. */
  get place(): string {
    return `(line ${this.#tokenLine}:${this.#tokenColumn})`;
  }

  /** The token's raw text, truncated when very long. */
  get raw(): string {
    const { length } = this.#rawHead;
    const from = Math.max(0, this.#tokenStart);
    const here = this.#buf.subarray(from, Math.min(this.#tokenEnd, from + RAW_BYTES_MAX - length));
    return length === 0 ? here.toString() : Buffer.concat([this.#rawHead, here]).toString();
  }

  /** The raw text of the last number, or undefined when it is too long to be useful. */
  get numberText(): string | undefined {
    const length = this.#rawHead.length + Math.max(0, this.#tokenEnd - Math.max(0, this.#tokenStart));
    return length < RAW_BYTES_MAX ? this.raw : undefined;
  }

  /** Bytes of the value so far. */
  get length(): number {
    return this.#consumed;
  }

  /**
   * Continues with `buf[start .. end)` and returns where it stopped: the end, or the end of the value. Throws
   * JsonSyntaxError.
   */
  feed(buf: Buffer, start: number, end: number): number {
    this.#buf = buf;
    this.#end = end;
    this.#offset = this.#consumed - start;
    let pos = start;
    if (this.#collecting !== null) this.#collect(pos);
    while (pos < end && !this.done) {
      const state = this.#state;
      if (state < STRING) pos = this.#structure(pos);
      else if (state === STRING) pos = this.#string(pos);
      else if (state >= MINUS) pos = this.#number(pos);
      else pos = this.#byte(buf[pos]!, pos);
    }
    this.#consumed = this.#offset + pos;
    if (this.#inToken && !this.done) this.#keepRaw(pos);
    this.#buf = NOTHING;
    return pos;
  }

  /** End of input. False when it held only white space. Throws JsonSyntaxError inside the value. */
  end(): boolean {
    if (!this.#isBegun) return false;
    if (!this.done && this.#depth === 0 && isNumberEnd(this.#state)) this.#numberEnd(-1);
    if (!this.done) throw new JsonSyntaxError("unexpected EOF");
    return true;
  }

  // ---- structure

  /** Skips white space, and handles the next byte. */
  #structure(start: number): number {
    const buf = this.#buf;
    const end = this.#end;
    for (let pos = start; pos < end; pos++) {
      const byte = buf[pos]!;
      if (!isSpace(byte)) return this.#structural(byte, pos);
      this.#space(byte, pos);
    }
    return end;
  }

  #space(byte: number, pos: number): void {
    if (!this.#isBegun) this.#offset--;
    else if (byte === 0x0a) {
      this.#line++;
      this.#lineStart = this.#offset + pos + 1;
    }
  }

  #structural(byte: number, pos: number): number {
    this.#isBegun = true;
    switch (this.#state) {
      case VALUE_OR_END:
        if (byte === 0x5d) return this.#close(pos);
        return this.#value(byte, pos);
      case NAME_OR_END:
        if (byte === 0x7d) return this.#close(pos);
        return this.#name(byte, pos);
      case NAME:
        return this.#name(byte, pos);
      case COLON:
        if (byte !== 0x3a) unexpected(byte, "after object key");
        this.#state = VALUE;
        return pos + 1;
      case AFTER_MEMBER:
        if (byte === 0x7d) return this.#close(pos);
        if (byte !== 0x2c) unexpected(byte, "after object key:value pair");
        this.#state = NAME;
        return pos + 1;
      case AFTER_ELEMENT:
        if (byte === 0x5d) return this.#close(pos);
        if (byte !== 0x2c) unexpected(byte, "after array element");
        this.#state = VALUE;
        return pos + 1;
      default:
        return this.#value(byte, pos);
    }
  }

  #value(byte: number, pos: number): number {
    this.#startToken(pos);
    switch (byte) {
      case 0x7b:
        return this.#open(OBJECT, pos);
      case 0x5b:
        return this.#open(ARRAY, pos);
      case 0x22:
        return this.#stringStart(false, pos);
      case 0x74:
        return this.#literalStart("true", pos);
      case 0x66:
        return this.#literalStart("false", pos);
      case 0x6e:
        return this.#literalStart("null", pos);
      default:
        if (byte === 0x2d) this.#state = MINUS;
        else if (byte === 0x30) this.#state = ZERO;
        else if (isDigit(byte)) this.#state = INTEGER;
        else unexpected(byte, "looking for beginning of value");
        return this.#number(pos + 1);
    }
  }

  #name(byte: number, pos: number): number {
    if (byte !== 0x22) unexpected(byte, "looking for beginning of object key string");
    this.#startToken(pos);
    return this.#stringStart(true, pos);
  }

  #open(container: number, pos: number): number {
    if (this.#depth === this.#containers.length) this.#deeper();
    this.#containers[this.#depth++] = container;
    this.#endToken(pos + 1);
    if (container === OBJECT) {
      this.#state = NAME_OR_END;
      this.#sink.objectStart();
    } else {
      this.#state = VALUE_OR_END;
      this.#sink.arrayStart();
    }
    return pos + 1;
  }

  #deeper(): void {
    if (this.#depth >= DEPTH_MAX) throw new JsonSyntaxError("exceeded max depth");
    const grown = new Uint8Array(Math.min(DEPTH_MAX, this.#containers.length * 2));
    grown.set(this.#containers);
    this.#containers = grown;
  }

  #close(pos: number): number {
    const container = this.#containers[--this.#depth];
    if (container === OBJECT) this.#sink.objectEnd();
    else this.#sink.arrayEnd();
    this.#valueEnded();
    return pos + 1;
  }

  #valueEnded(): void {
    if (this.#depth === 0) this.done = true;
    else this.#state = this.#containers[this.#depth - 1] === OBJECT ? AFTER_MEMBER : AFTER_ELEMENT;
  }

  // ---- tokens

  #startToken(pos: number): void {
    this.#tokenLine = this.#line;
    this.#tokenColumn = this.#offset + pos - this.#lineStart + 1;
    this.#tokenStart = pos;
    this.#rawHead = NOTHING;
    this.#inToken = true;
  }

  #endToken(end: number): void {
    this.#tokenEnd = end;
    this.#inToken = false;
  }

  /** The token continues in the next piece. */
  #keepRaw(pos: number): void {
    const from = Math.max(0, this.#tokenStart);
    const here = this.#buf.subarray(from, Math.min(pos, from + RAW_BYTES_MAX - this.#rawHead.length));
    if (here.length > 0) this.#rawHead = Buffer.concat([this.#rawHead, here]);
    this.#tokenStart = -1;
  }

  #literalStart(word: "true" | "false" | "null", pos: number): number {
    this.#state = LITERAL;
    this.#literal = word;
    this.#literalAt = 1;
    return pos + 1;
  }

  /** Inside an escape or a word. */
  #byte(byte: number, pos: number): number {
    if (this.#state === LITERAL) return this.#literalByte(byte, pos);
    return this.#state === HEX ? this.#hex(byte, pos) : this.#escape(byte, pos);
  }

  #literalByte(byte: number, pos: number): number {
    const word = this.#literal;
    if (byte !== word.charCodeAt(this.#literalAt)) {
      unexpected(byte, `in literal ${word} (expecting '${word[this.#literalAt]}')`);
    }
    if (++this.#literalAt < word.length) return pos + 1;
    this.#endToken(pos + 1);
    this.#sink.literal(word);
    this.#valueEnded();
    return pos + 1;
  }

  #number(start: number): number {
    const buf = this.#buf;
    const end = this.#end;
    let state = this.#state;
    let pos = start;
    for (; pos < end; pos++) {
      const next = numberState(state, buf[pos]!);
      if (next === VALUE) break;
      state = next;
    }
    this.#state = state;
    if (pos === end) return end;
    this.#numberEnd(pos);
    return pos;
  }

  /** The number has ended before `pos`, or with the text. */
  #numberEnd(pos: number): void {
    this.#endToken(Math.max(0, pos));
    this.#sink.number();
    this.#valueEnded();
  }

  // ---- strings

  #stringStart(isName: boolean, pos: number): number {
    this.#isName = isName;
    this.#state = STRING;
    this.#isBad = false;
    this.#utf8.reset();
    this.#high = -1;
    this.#wanted = this.#sink.stringStart(isName) === "content";
    this.#hasRuns = this.#wanted && !isName;
    return this.#string(pos + 1);
  }

  /** Takes bytes that need no individual check: up to the next quote, escape or end of the piece. */
  #string(start: number): number {
    const buf = this.#buf;
    const end = this.#end;
    const utf8 = this.#utf8;
    const from = this.#hasRuns ? this.#runs(start) : start;
    let pos = from;
    while (pos < end) {
      const byte = buf[pos]!;
      if (PLAIN[byte] === 1 && utf8.needs === 0) {
        pos++;
        continue;
      }
      if (byte === 0x22 || byte === 0x5c) break;
      if (byte < 0x20) unexpected(byte, "in string literal");
      if (!utf8.take(byte)) this.#badUtf8();
      else if ((byte & 0xc0) === 0x80) this.#lineStart++;
      pos++;
    }
    if (pos > from) {
      if (this.#high >= 0) this.#badEscape([], from);
      if (this.#wanted && !this.#isBad) this.#sink.stringPart(buf, from, pos);
    }
    if (pos === end) return pos;
    if (utf8.needs > 0) this.#badUtf8();
    if (buf[pos] === 0x5c) {
      this.#state = ESCAPE;
      return pos + 1;
    }
    if (this.#high >= 0) this.#badEscape([], pos);
    this.#endToken(pos + 1);
    this.#sink.stringEnd();
    if (this.#isName) this.#state = COLON;
    else this.#valueEnded();
    return pos + 1;
  }

  #runs(start: number): number {
    const buf = this.#buf;
    const near = start + RUN_BYTES_MIN;
    if (near > this.#end || this.#high >= 0 || this.#utf8.needs > 0) return start;
    for (let pos = start; pos < near; pos++) if (buf[pos] === 0x22) return start;
    const length = buf.subarray(near, this.#end).indexOf(0x22);
    const end = length < 0 ? this.#end : near + length;
    let pos = start;
    while (end - pos >= RUN_BYTES_MIN) {
      const taken = this.#sink.stringRun(buf, pos, end);
      if (taken < 0) this.#hasRuns = false;
      if (taken <= 0) break;
      pos += taken;
    }
    return pos;
  }

  #badUtf8(): void {
    this.#utf8.reset();
    // An earlier lone surrogate was found first.
    if (this.#isBad || this.#high >= 0) return;
    this.#isBad = true;
    this.#sink.badString("invalid UTF-8");
  }

  #escape(byte: number, pos: number): number {
    if (byte === 0x75) {
      this.#state = HEX;
      this.#hexDigits = 0;
      this.#hexValue = 0;
      this.#hexText.length = 0;
      return pos + 1;
    }
    const character = ESCAPES[byte];
    if (character === undefined) unexpected(byte, "in string escape code");
    this.#state = STRING;
    if (this.#high >= 0) this.#badEscape([0x5c, byte], pos + 1);
    this.#character(character);
    return pos + 1;
  }

  #hex(byte: number, pos: number): number {
    const digit = hexDigit(byte);
    if (digit < 0) unexpected(byte, "in \\u hexadecimal character escape");
    this.#hexValue = this.#hexValue * 16 + digit;
    this.#hexText.push(byte);
    if (++this.#hexDigits < 4) return pos + 1;
    this.#state = STRING;
    const unit = this.#hexValue;
    const isLow = unit >= 0xdc00 && unit < 0xe000;
    if (this.#high >= 0) {
      if (isLow && this.#high !== NO_FIRST_HALF) {
        const character = 0x10000 + ((this.#high - 0xd800) << 10) + (unit - 0xdc00);
        this.#high = -1;
        this.#character(character);
      } else this.#badEscape([0x5c, 0x75, ...this.#hexText], pos + 1);
    } else if (unit >= 0xd800 && unit < 0xe000) {
      // A second half alone is equally wrong, and is also reported with the following bytes.
      this.#high = isLow ? NO_FIRST_HALF : unit;
    } else this.#character(unit);
    return pos + 1;
  }

  #character(code: number): void {
    if (!this.#wanted || this.#isBad) return;
    const scratch = this.#scratch;
    if (code < 0x80) {
      scratch[0] = code;
      this.#sink.stringPart(scratch, 0, 1);
    } else this.#sink.stringPart(scratch, 0, scratch.write(String.fromCodePoint(code)));
  }

  /** `taken`: bytes after the bad escape that were already read; the others begin at `pos`. */
  #badEscape(taken: number[], pos: number): void {
    this.#high = -1;
    if (this.#isBad) return;
    this.#isBad = true;
    this.#collecting = taken;
    this.#sink.badString({ from: this.#offset + pos - taken.length, following: taken });
    this.#collect(pos);
  }

  #collect(pos: number): void {
    const into = this.#collecting!;
    for (let at = pos; at < this.#end && into.length < FOLLOWING_BYTES; at++) into.push(this.#buf[at]!);
    if (into.length >= FOLLOWING_BYTES) this.#collecting = null;
  }
}

const NOTHING = Buffer.alloc(0);
/** Matches no second half. */
const NO_FIRST_HALF = 0x110000;
