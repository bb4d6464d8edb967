/**
 * Requests of the JSON gateway: a JSON value becomes the bytes of a message while it arrives. Follows Go's protojson with
 * DiscardUnknown, its words for errors included. What it keeps is the message and never the text. Pure.
 * Source: https://protobuf.dev/programming-guides/json/
 */
import { NESTING_DEPTH_MAX } from "../../base/protobuf.ts";
import { quote } from "../../base/quote.ts";
import { Rope, RopeLimit } from "../../base/rope.ts";
import { Base64Reader } from "./base64.ts";
import { type BadEscape, FOLLOWING_BYTES, JsonLexer, type JsonSink, type StringUse } from "./json.ts";
import { integer, numberAtStart } from "./number.ts";
import type { FieldShape, MessageShape } from "./schema.ts";

/** Of names, and of strings that stand for something else: longer ones are none that we know. */
const TEXT_BYTES_MAX = 64 * 1024;

/** A message that has begun. */
interface MessageFrame {
  readonly shape: MessageShape;
  readonly rope: Rope;
  /** A bit for each member that has come, by its place in the shape. */
  seen: number;
  oneofs: Set<string> | null;
  /** The member whose value comes next; null when it is not known. */
  field: FieldShape | null;
}

/** A list that has begun. */
interface ListFrame {
  readonly field: FieldShape;
  /** Where its elements go: the message's own, or for packed ones their own. */
  readonly rope: Rope;
}

/** What one JSON value came to. */
export type Decoded =
  | { readonly kind: "message"; readonly message: Uint8Array }
  /** It would have so many bytes, more than allowed. */
  | { readonly kind: "too large"; readonly bytes: number }
  /** Well-formed, but not of this message. The text names the place and what was wrong. */
  | { readonly kind: "error"; readonly error: string };

/** Reads one value as a message of a shape. */
export class MessageDecoder implements JsonSink {
  readonly #lexer = new JsonLexer(this);
  readonly #shape: MessageShape;
  readonly #limit: RopeLimit;
  readonly #frames: MessageFrame[] = [];
  /** The list that is open in the innermost message. Messages in it suspend it. */
  readonly #lists: (ListFrame | null)[] = [];
  /** Containers that are open inside of a value that is skipped, itself included. */
  #skipped = 0;
  #root: Rope | null = null;
  /** The first mistake. After it only the syntax is looked at, whose mistakes count for more. */
  #error: string | (() => string) | null = null;

  /** Where the name stood of the member of a oneof, until its value begins. */
  #oneofName: { readonly place: string; readonly raw: string } | null = null;

  /** The string that is being read. */
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

  /** Bytes that are kept of it. */
  get heldBytes(): number {
    return Math.min(this.#limit.bytes, this.#limit.bytesMax) + this.#text.length;
  }

  /** Reads on, and returns where it stopped: at the end, or behind the value. Throws JsonSyntaxError. */
  feed(buf: Buffer, start: number, end: number): number {
    return this.#lexer.feed(buf, start, end);
  }

  /** The text is over. False when there was no value. Throws JsonSyntaxError when it stops inside of it. */
  end(): boolean {
    return this.#lexer.end();
  }

  /** What the value came to, once it is done. */
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
    const { frame, list, field } = this.#place();
    if (frame !== undefined && field === null) return this.#skip();
    if (field?.repeated && list === null) return this.#unexpected();
    if (field !== null && field.message === undefined) return this.#invalid(field);
    if (this.#frames.length >= NESTING_DEPTH_MAX) return this.#fail("proto: exceeded max recursion depth");
    this.#frames.push({
      shape: field === null ? this.#shape : field.message!,
      rope: new Rope(this.#limit),
      seen: 0,
      oneofs: null,
      field: null,
    });
    this.#lists.push(null);
  }

  objectEnd(): void {
    if (this.#error !== null) return;
    if (this.#skipped > 0) return this.#unskip();
    const { rope } = this.#frames.pop()!;
    this.#lists.pop();
    const { frame, list, field } = this.#place();
    if (frame === undefined) {
      this.#root = rope;
      return;
    }
    this.#delimited((list ?? frame).rope, field!, rope);
  }

  arrayStart(): void {
    if (this.#skipped > 0) this.#skipped++;
    if (!this.#begins()) return;
    const { frame, list, field } = this.#place();
    if (frame === undefined) return this.#unexpected();
    if (field === null) return this.#skip();
    if (!field.repeated || list !== null) {
      return field.message === undefined ? this.#invalid(field) : this.#unexpected();
    }
    const rope = isPacked(field) ? new Rope(this.#limit) : frame.rope;
    this.#lists[this.#lists.length - 1] = { field, rope };
  }

  arrayEnd(): void {
    if (this.#error !== null) return;
    if (this.#skipped > 0) return this.#unskip();
    const { frame, list } = this.#place();
    this.#lists[this.#lists.length - 1] = null;
    const { field, rope } = list!;
    if (isPacked(field) && rope.length > 0) this.#delimited(frame!.rope, field, rope);
  }

  // ---- values

  literal(word: "true" | "false" | "null"): void {
    const isNull = word === "null" && this.#lists.at(-1) === null;
    if (isNull) this.#oneofName = null;
    if (isNull || !this.#begins()) return;
    const { frame, list, field } = this.#place();
    if (frame === undefined) return this.#unexpected();
    if (field === null) return;
    if (field.message !== undefined || (field.repeated && list === null)) return this.#unexpected();
    if (field.kind !== "bool" || word === "null") return this.#invalid(field);
    this.#scalar(field, word === "true" ? 1 : 0);
  }

  number(text: string | undefined): void {
    if (!this.#begins()) return;
    const { frame, list, field } = this.#place();
    if (frame === undefined) return this.#unexpected();
    if (field === null) return;
    if (field.message !== undefined || (field.repeated && list === null)) return this.#unexpected();
    this.#number(field, text);
  }

  stringStart(isName: boolean): StringUse {
    this.#use = this.#useOf(isName);
    this.#textBytes = 0;
    return this.#use === "nothing" ? "nothing" : "content";
  }

  #useOf(isName: boolean): "name" | "bytes" | "content" | "text" | "nothing" {
    if (isName) return this.#error !== null || this.#skipped > 0 ? "nothing" : "name";
    if (!this.#begins()) return "nothing";
    const { frame, list, field } = this.#place();
    if (frame === undefined || field === null || (field.repeated && list === null)) return "nothing";
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
    const { frame, list, field } = this.#place();
    if (frame === undefined) return this.#unexpected();
    if (field === null) return;
    if (field.message !== undefined || (field.repeated && list === null)) return this.#unexpected();
    if (this.#use === "bytes" && !this.#base64!.finish(this.#content)) return this.#invalid(field);
    if (this.#use === "bytes" || this.#use === "content") {
      const content = this.#content;
      if (content.length === 0 && !isKept(field)) return;
      this.#content = new Rope(this.#limit);
      return this.#delimited((list ?? frame).rope, field, content);
    }
    const text = this.#textBytes <= TEXT_BYTES_MAX ? this.#text.toString("utf8", 0, this.#textBytes) : undefined;
    if (field.kind === "bool") return this.#invalid(field);
    if (field.kind !== "enum") return this.#number(field, text === undefined ? undefined : numberAtStart(text));
    const value = text === undefined ? undefined : field.values!.get(text);
    // The unknown name of an enum is left out like any unknown field.
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

  // ---- inside

  /** Where the next value goes. */
  #place(): { frame: MessageFrame | undefined; list: ListFrame | null; field: FieldShape | null } {
    const frame = this.#frames.at(-1);
    if (frame === undefined) return { frame, list: null, field: null };
    return { frame, list: this.#lists.at(-1)!, field: frame.field };
  }

  #skip(): void {
    this.#skipped = 1;
  }

  #unskip(): void {
    this.#skipped--;
  }

  #member(): void {
    const frame = this.#frames.at(-1)!;
    const isShort = this.#textBytes <= TEXT_BYTES_MAX;
    const field = isShort ? frame.shape.byName.get(this.#text.toString("utf8", 0, this.#textBytes)) : undefined;
    frame.field = field ?? null;
    if (field === undefined) return;
    const bit = 1 << field.order;
    if ((frame.seen & bit) !== 0) return this.#fail(`proto: ${this.#lexer.place}: duplicate field ${this.#lexer.raw}`);
    frame.seen |= bit;
    this.#oneofName = field.oneof === undefined ? null : { place: this.#lexer.place, raw: this.#lexer.raw };
  }

  /** A value begins that sets something, as null does not. False when it may not, or nothing is looked at any more. */
  #begins(): boolean {
    if (this.#error !== null || this.#skipped > 0) return false;
    const name = this.#oneofName;
    if (name === null) return true;
    this.#oneofName = null;
    const frame = this.#frames.at(-1)!;
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
      this.#text.set(buf.subarray(start, end), this.#textBytes);
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
    const frame = this.#frames.at(-1)!;
    const list = this.#lists.at(-1)!;
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
    into.adopt(content);
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
    this.#frames.length = 0;
    this.#lists.length = 0;
  }
}

const NOTHING = Buffer.alloc(0);

const isPacked = ({ kind }: FieldShape): boolean => kind !== "string" && kind !== "bytes" && kind !== "message";

/** A value at its default counts here. */
const isKept = (field: FieldShape): boolean => field.repeated || field.oneof !== undefined;
