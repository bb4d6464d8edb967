/**
 * JSON texts as Go's encoding/json reads them, one value after the other, with its words for what is wrong. Numbers and
 * strings stay as they were written, since a 64-bit integer does not fit a number of JavaScript. Pure.
 */

export type JsonKind = "null" | "bool" | "number" | "string" | "object" | "array";

export interface JsonValue {
  readonly kind: JsonKind;
  /** Where it stands in the text. */
  readonly start: number;
  readonly end: number;
  /** Members of an object in their order, with the position of each name. */
  readonly members: readonly JsonMember[];
  /** Elements of an array. */
  readonly items: readonly JsonValue[];
}

export interface JsonMember {
  /** The name with its quotes, as a string value. */
  readonly name: JsonValue;
  readonly value: JsonValue;
}

/** The text is not JSON. */
export class JsonSyntaxError extends Error {
  override name = "JsonSyntaxError";
}

/** Deeper texts are refused before they use up the stack. */
const DEPTH_MAX = 1000;

const NO_MEMBERS: readonly JsonMember[] = [];
const NO_ITEMS: readonly JsonValue[] = [];

export class JsonScanner {
  readonly text: Uint8Array;
  #pos = 0;
  #depth = 0;

  constructor(text: Uint8Array) {
    this.text = text;
  }

  /** The next value; undefined at the end of the text. Throws JsonSyntaxError. */
  next(): JsonValue | undefined {
    this.#skipSpace();
    if (this.#pos >= this.text.length) return undefined;
    return this.#value();
  }

  #value(): JsonValue {
    this.#skipSpace();
    const start = this.#pos;
    const byte = this.#peek();
    switch (byte) {
      case 0x7b:
        return this.#object(start);
      case 0x5b:
        return this.#array(start);
      case 0x22:
        return this.#string();
      case 0x74:
        return this.#literal("true", "bool");
      case 0x66:
        return this.#literal("false", "bool");
      case 0x6e:
        return this.#literal("null", "null");
      default:
        if (byte === 0x2d || isDigit(byte)) return this.#number();
        return this.#unexpected("looking for beginning of value");
    }
  }

  #object(start: number): JsonValue {
    this.#enter();
    this.#skipSpace();
    if (this.#peek() === 0x7d) {
      this.#leave();
      return leaf("object", start, this.#pos);
    }
    const members: JsonMember[] = [];
    for (;;) {
      this.#skipSpace();
      if (this.#peek() !== 0x22) this.#unexpected("looking for beginning of object key string");
      const name = this.#string();
      this.#skipSpace();
      if (this.#peek() !== 0x3a) this.#unexpected("after object key");
      this.#pos++;
      members.push({ name, value: this.#value() });
      this.#skipSpace();
      const byte = this.#peek();
      if (byte === 0x7d) break;
      if (byte !== 0x2c) this.#unexpected("after object key:value pair");
      this.#pos++;
    }
    this.#leave();
    return { kind: "object", start, end: this.#pos, members, items: NO_ITEMS };
  }

  #array(start: number): JsonValue {
    this.#enter();
    this.#skipSpace();
    if (this.#peek() === 0x5d) {
      this.#leave();
      return leaf("array", start, this.#pos);
    }
    const items: JsonValue[] = [];
    for (;;) {
      items.push(this.#value());
      this.#skipSpace();
      const byte = this.#peek();
      if (byte === 0x5d) break;
      if (byte !== 0x2c) this.#unexpected("after array element");
      this.#pos++;
    }
    this.#leave();
    return { kind: "array", start, end: this.#pos, members: NO_MEMBERS, items };
  }

  #string(): JsonValue {
    const start = this.#pos++;
    for (;;) {
      const byte = this.#peek();
      if (byte === 0x22) break;
      if (byte < 0x20) this.#unexpected("in string literal");
      this.#pos++;
      if (byte === 0x5c) this.#escape();
    }
    this.#pos++;
    return leaf("string", start, this.#pos);
  }

  #escape(): void {
    const byte = this.#peek();
    if (byte === 0x75) {
      this.#pos++;
      for (let i = 0; i < 4; i++) {
        if (!isHex(this.#peek())) this.#unexpected("in \\u hexadecimal character escape");
        this.#pos++;
      }
    } else if (ESCAPED.includes(byte)) this.#pos++;
    else this.#unexpected("in string escape code");
  }

  #number(): JsonValue {
    const start = this.#pos;
    if (this.#peek() === 0x2d) {
      this.#pos++;
      if (!isDigit(this.#peek())) this.#unexpected("in numeric literal");
    }
    if (this.#peek() === 0x30) this.#pos++;
    else this.#digits();
    if (this.text[this.#pos] === 0x2e) {
      this.#pos++;
      if (!isDigit(this.#peek())) this.#unexpected("after decimal point in numeric literal");
      this.#digits();
    }
    const byte = this.text[this.#pos];
    if (byte === 0x65 || byte === 0x45) {
      this.#pos++;
      const sign = this.#peek();
      if (sign === 0x2b || sign === 0x2d) this.#pos++;
      if (!isDigit(this.#peek())) this.#unexpected("in exponent of numeric literal");
      this.#digits();
    }
    return leaf("number", start, this.#pos);
  }

  #digits(): void {
    while (this.#pos < this.text.length && isDigit(this.text[this.#pos]!)) this.#pos++;
  }

  #literal(word: string, kind: JsonKind): JsonValue {
    const start = this.#pos++;
    for (let i = 1; i < word.length; i++) {
      if (this.#peek() !== word.charCodeAt(i)) this.#unexpected(`in literal ${word} (expecting '${word[i]}')`);
      this.#pos++;
    }
    return leaf(kind, start, this.#pos);
  }

  #enter(): void {
    this.#pos++;
    if (++this.#depth > DEPTH_MAX) throw new JsonSyntaxError("exceeded max depth");
  }

  #leave(): void {
    this.#pos++;
    this.#depth--;
  }

  #skipSpace(): void {
    const { text } = this;
    while (this.#pos < text.length && isSpace(text[this.#pos]!)) this.#pos++;
  }

  #peek(): number {
    if (this.#pos >= this.text.length) throw new JsonSyntaxError("unexpected EOF");
    return this.text[this.#pos]!;
  }

  #unexpected(context: string): never {
    throw new JsonSyntaxError(`invalid character ${quoted(this.#peek())} ${context}`);
  }
}

const leaf = (kind: JsonKind, start: number, end: number): JsonValue => ({
  kind,
  start,
  end,
  members: NO_MEMBERS,
  items: NO_ITEMS,
});

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;
const isHex = (byte: number): boolean => isDigit(byte) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x66);
const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;
const ESCAPED = Buffer.from('bfnrt\\/"');

const NAMED: Readonly<Record<number, string>> = {
  7: "\\a",
  8: "\\b",
  9: "\\t",
  10: "\\n",
  11: "\\v",
  12: "\\f",
  13: "\\r",
  39: "\\'",
  92: "\\\\",
};

/** A byte in single quotes as Go writes it. */
function quoted(byte: number): string {
  const named = NAMED[byte];
  if (named !== undefined) return `'${named}'`;
  if (byte >= 0x20 && byte !== 0x7f && (byte < 0x80 || byte > 0xa0) && byte !== 0xad) {
    return `'${String.fromCharCode(byte)}'`;
  }
  const hex = byte.toString(16).padStart(2, "0");
  return byte < 0x80 ? `'\\x${hex}'` : `'\\u00${hex}'`;
}
