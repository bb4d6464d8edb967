/**
 * Requests of the JSON gateway: converts a JSON value to the bytes of a message while it arrives. Follows Go's
 * protojson with DiscardUnknown, including its error texts. Keeps the message but never the text. Pure. Source:
 * https://protobuf.dev/programming-guides/json/
 */
import { NESTING_DEPTH_MAX } from "../../base/protobuf.ts";
import { quote } from "../../base/quote.ts";
import { Rope, RopeLimit } from "../../base/rope.ts";
import { Base64Reader } from "./base64.ts";
import { JsonLexer } from "./json.ts";
import { type BadEscape, FOLLOWING_BYTES, type JsonSink, type StringUse } from "./json-sink.ts";
import { integer, numberAtStart } from "./number.ts";
import type { FieldShape, MessageShape } from "./schema.ts";

/** For names, and for strings that represent other values: longer ones cannot be known. */
const TEXT_BYTES_MAX = 64 * 1024;
/** Shorter texts are copied in a loop. */
const SHORT_BYTES = 32;

/** A message in progress. */
interface MessageFrame {
  readonly shape: MessageShape;
  readonly rope: Rope;
  /** One bit for each field seen, by its position in the shape. */
  seen: number;
  oneofs: Set<string> | null;
  /** The field whose value comes next; null when unknown. */
  field: FieldShape | null;
  /** Its open list. Messages in the list suspend it. */
  list: ListFrame | null;
}

/** A list in progress. */
interface ListFrame {
  readonly field: FieldShape;
  /** Destination of its elements: the message's rope, or its own for packed ones. */
  readonly rope: Rope;
}

/** The result of one JSON value. */
export type Decoded =
  | { readonly kind: "message"; readonly message: Uint8Array }
  /** Its size, which exceeds the limit. */
  | { readonly kind: "too large"; readonly bytes: number }
  /** Well-formed, but not valid for this message. The text gives the place and the reason. */
  | { readonly kind: "error"; readonly error: string };

/** Decodes one value as a message of a shape. */
export class MessageDecoder implements JsonSink {
  readonly #lexer = new JsonLexer(this);
  readonly #shape: MessageShape;
  readonly #limit: RopeLimit;
  /** The outer messages of the innermost, which is separate; undefined: none has begun. */
  readonly #outer: (MessageFrame | undefined)[] = [];
  #frame: MessageFrame | undefined = undefined;
  /** Ropes copied into others, for reuse. */
  readonly #spare: Rope[] = [];
  /** Open containers inside a skipped value, including itself. */
  #skipped = 0;
  #root: Rope | null = null;
  /** The first error. After it only the syntax is checked, whose errors take precedence. */
  #error: string | (() => string) | null = null;

  /** Position of the name of a oneof member, until its value begins. */
  #oneofName: { readonly place: string; readonly raw: string } | null = null;

  /** How the current string is used. */
  #use: "name" | "bytes" | "content" | "text" | "nothing" = "nothing";
  #text: Buffer = NOTHING;
  #textBytes = 0;
  #content: Rope;
  #base64: Base64Reader | null = null;

  constructor(shape: MessageShape, bytesMax: number) {
    this.#shape = shape;
    this.#limit = new RopeLimit(bytesMax);
    this.#content = new Rope(this.#limit);
  }

  /** The value is complete. */
  get done(): boolean {
    return this.#lexer.done;
  }

  /** Bytes kept of it. */
  get heldBytes(): number {
    return Math.min(this.#limit.bytes, this.#limit.bytesMax) + this.#text.length;
  }

  /** Continues, and returns where it stopped: at the end, or after the value. Throws JsonSyntaxError. */
  feed(buf: Buffer, start: number, end: number): number {
    return this.#lexer.feed(buf, start, end);
  }

  /** End of input. False when there was no value. Throws JsonSyntaxError inside a value. */
  end(): boolean {
    return this.#lexer.end();
  }

  /** The result of the value, once it is done. */
  result(): Decoded {
    const error = typeof this.#error === "function" ? this.#error() : this.#error;
    if (error !== null) return { kind: "error", error };
    const root = this.#root!;
    if (this.#limit.isExceeded) return { kind: "too large", bytes: root.length };
    return { kind: "message", message: root.finish() };
  }

  // ---- containers

  objectStart(): void {
    if (this.#skipped > 0) this.#skipped++;
    if (!this.#begins()) return;
    const frame = this.#frame;
    const field = frame === undefined ? null : frame.field;
    if (frame !== undefined && field === null) return this.#skip();
    if (field?.repeated && frame!.list === null) return this.#unexpected();
    if (field !== null && field.message === undefined) return this.#invalid(field);
    if (this.#outer.length >= NESTING_DEPTH_MAX) return this.#fail("proto: exceeded max recursion depth");
    this.#outer.push(frame);
    const shape = field === null ? this.#shape : field.message!;
    this.#frame = { shape, rope: this.#newRope(), seen: 0, oneofs: null, field: null, list: null };
  }

  objectEnd(): void {
    if (this.#error !== null) return;
    if (this.#skipped > 0) return this.#unskip();
    const { rope } = this.#frame!;
    const frame = this.#outer.pop();
    this.#frame = frame;
    if (frame === undefined) this.#root = rope;
    else this.#delimited((frame.list ?? frame).rope, frame.field!, rope);
  }

  arrayStart(): void {
    if (this.#skipped > 0) this.#skipped++;
    if (!this.#begins()) return;
    const frame = this.#frame;
    if (frame === undefined) return this.#unexpected();
    const { field } = frame;
    if (field === null) return this.#skip();
    if (!field.repeated || frame.list !== null) {
      return field.message === undefined ? this.#invalid(field) : this.#unexpected();
    }
    frame.list = { field, rope: isPacked(field) ? this.#newRope() : frame.rope };
  }

  arrayEnd(): void {
    if (this.#error !== null) return;
    if (this.#skipped > 0) return this.#unskip();
    const frame = this.#frame!;
    const { field, rope } = frame.list!;
    frame.list = null;
    if (isPacked(field) && rope.length > 0) this.#delimited(frame.rope, field, rope);
  }

  // ---- values

  literal(word: "true" | "false" | "null"): void {
    const isNull = word === "null" && this.#frame?.list === null;
    if (isNull) this.#oneofName = null;
    if (isNull || !this.#begins()) return;
    const field = this.#single();
    if (field === null) return;
    if (field.kind !== "bool" || word === "null") return this.#invalid(field);
    this.#scalar(field, word === "true" ? 1 : 0);
  }

  number(): void {
    if (!this.#begins()) return;
    const field = this.#single();
    if (field !== null) this.#number(field, this.#lexer.numberText);
  }

  stringStart(isName: boolean): StringUse {
    this.#use = this.#useOf(isName);
    this.#textBytes = 0;
    return this.#use === "nothing" ? "nothing" : "content";
  }

  #useOf(isName: boolean): "name" | "bytes" | "content" | "text" | "nothing" {
    if (isName) return this.#error !== null || this.#skipped > 0 ? "nothing" : "name";
    if (!this.#begins()) return "nothing";
    const frame = this.#frame;
    if (frame === undefined) return "nothing";
    const { field } = frame;
    if (field === null || (field.repeated && frame.list === null)) return "nothing";
    if (field.kind === "bytes") {
      this.#base64 ??= new Base64Reader();
      this.#base64.reset();
      return "bytes";
    }
    if (field.kind === "string") return "content";
    return field.kind === "message" || field.kind === "bool" ? "nothing" : "text";
  }

  stringPart(buf: Uint8Array, start: number, end: number): void {
    if (this.#use === "bytes") this.#base64!.push(buf, start, end, this.#content);
    else if (this.#use === "content") this.#content.bytes(buf, start, end);
    else this.#addText(buf, start, end);
  }

  stringRun(buf: Buffer, start: number, end: number): number {
    return this.#use === "bytes" ? this.#base64!.pushRun(buf, start, end, this.#content) : -1;
  }

  stringEnd(): void {
    if (this.#error !== null) return;
    if (this.#use === "name") return this.#member();
    if (this.#skipped > 0) return;
    const field = this.#single();
    if (field === null) return;
    if (this.#use === "bytes" && !this.#base64!.finish(this.#content)) return this.#invalid(field);
    if (this.#use === "bytes" || this.#use === "content") {
      const content = this.#content;
      if (content.length === 0 && !isKept(field)) return;
      this.#content = this.#newRope();
      const frame = this.#frame!;
      return this.#delimited((frame.list ?? frame).rope, field, content);
    }
    const text = this.#textBytes <= TEXT_BYTES_MAX ? this.#text.toString("utf8", 0, this.#textBytes) : undefined;
    if (field.kind === "bool") return this.#invalid(field);
    if (field.kind !== "enum") return this.#number(field, text === undefined ? undefined : numberAtStart(text));
    const value = text === undefined ? undefined : field.values!.get(text);
    // An unknown enum name is skipped like any unknown field.
    if (value !== undefined) this.#scalar(field, value);
  }

  badString(what: "invalid UTF-8" | BadEscape): void {
    const place = `proto: syntax error ${this.#lexer.place}`;
    if (what === "invalid UTF-8") return this.#fail(`${place}: invalid UTF-8 in string`);
    this.#fail(() => {
      if (this.#lexer.length < what.from + FOLLOWING_BYTES) return "proto: unexpected EOF";
      return `${place}: invalid escape code ${quote(Buffer.from(what.following))} in string`;
    });
  }

  // ---- internal

  /** The field of a value that is not a message or list; null: none, or not allowed here. */
  #single(): FieldShape | null {
    const frame = this.#frame;
    if (frame === undefined) {
      this.#unexpected();
      return null;
    }
    const { field } = frame;
    if (field === null) return null;
    if (field.message === undefined && (!field.repeated || frame.list !== null)) return field;
    this.#unexpected();
    return null;
  }

  #newRope(): Rope {
    return this.#spare.pop() ?? new Rope(this.#limit);
  }

  #skip(): void {
    this.#skipped = 1;
  }

  #unskip(): void {
    this.#skipped--;
  }

  #member(): void {
    const frame = this.#frame!;
    const field = this.#textBytes <= TEXT_BYTES_MAX ? frame.shape.find(this.#text, this.#textBytes) : undefined;
    frame.field = field ?? null;
    if (field === undefined) return;
    const bit = 1 << field.order;
    if ((frame.seen & bit) !== 0) return this.#fail(`proto: ${this.#lexer.place}: duplicate field ${this.#lexer.raw}`);
    frame.seen |= bit;
    this.#oneofName = field.oneof === undefined ? null : { place: this.#lexer.place, raw: this.#lexer.raw };
  }

  /** A value begins that sets something, which null does not. False when it is not allowed, or after an error. */
  #begins(): boolean {
    if (this.#error !== null || this.#skipped > 0) return false;
    const name = this.#oneofName;
    if (name === null) return true;
    this.#oneofName = null;
    const frame = this.#frame!;
    const oneof = frame.field!.oneof!;
    const oneofs = (frame.oneofs ??= new Set());
    if (oneofs.has(oneof)) {
      this.#fail(`proto: ${name.place}: error parsing ${name.raw}, oneof ${oneof} is already set`);
      return false;
    }
    oneofs.add(oneof);
    return true;
  }

  #addText(buf: Uint8Array, start: number, end: number): void {
    const bytes = this.#textBytes + end - start;
    if (bytes <= TEXT_BYTES_MAX) {
      if (bytes > this.#text.length) {
        const grown = Buffer.allocUnsafe(Math.max(64, bytes * 2));
        this.#text.copy(grown, 0, 0, this.#textBytes);
        this.#text = grown;
      }
      const text = this.#text;
      if (end - start > SHORT_BYTES) text.set(buf.subarray(start, end), this.#textBytes);
      else for (let from = start, to = this.#textBytes; from < end; from++, to++) text[to] = buf[from]!;
    }
    this.#textBytes = bytes;
  }

  #number(field: FieldShape, text: string | undefined): void {
    if (text === undefined || field.kind === "bytes" || field.kind === "string" || field.kind === "bool") {
      return this.#invalid(field);
    }
    if (/^\d{1,9}$/.test(text) && (text.length === 1 || text[0] !== "0")) return this.#scalar(field, Number(text));
    const value = integer(text, field.kind === "enum" ? "int32" : field.kind);
    if (value === undefined) this.#invalid(field);
    else this.#scalar(field, value);
  }

  #scalar(field: FieldShape, value: number | bigint): void {
    const frame = this.#frame!;
    const { list } = frame;
    if (list === null) {
      if (Number(value) === 0 && !isKept(field)) return;
      frame.rope.varint(field.number * 8);
    }
    const { rope } = list ?? frame;
    if (typeof value === "number" && value >= 0) rope.varint(value);
    else rope.varintBig(BigInt(value));
  }

  #delimited(into: Rope, field: FieldShape, content: Rope): void {
    into.varint(field.number * 8 + 2);
    into.varint(content.length);
    if (into.adopt(content)) this.#spare.push(content);
  }

  #invalid(field: FieldShape): void {
    const { place, raw } = this.#lexer;
    this.#fail(`proto: ${place}: invalid value for ${field.kind} field ${field.jsonName}: ${raw}`);
  }

  #unexpected(): void {
    this.#fail(`proto: syntax error ${this.#lexer.place}: unexpected token ${this.#lexer.raw}`);
  }

  #fail(error: string | (() => string)): void {
    this.#error ??= error;
    this.#frame = undefined;
    this.#outer.length = 0;
  }
}

const NOTHING = Buffer.alloc(0);

const isPacked = ({ kind }: FieldShape): boolean => kind !== "string" && kind !== "bytes" && kind !== "message";

/** A default value is kept here. */
const isKept = (field: FieldShape): boolean => field.repeated || field.oneof !== undefined;
