/**
 * Converts a message of any size to JSON while it arrives: each piece of bytes gives a piece of text, in time and
 * memory proportional to the piece, not the message. For this server's own responses, whose fields are in .proto order;
 * another order is refused (except inside small nested messages).
 */
import { ProtobufError, Reader } from "../../base/protobuf.ts";
import { asBuffer, encodeMessage, encodeString, encodeValue, isPackable, type StringStyle } from "./encode.ts";
import type { FieldShape, MessageShape } from "./schema.ts";

/** A nested message up to this size is encoded as a whole once it is complete. */
const WHOLE_BYTES_MAX = 16 * 1024;
const VARINT_BYTES_MAX = 10;

/** A message in progress. */
interface Frame {
  readonly shape: MessageShape;
  /** Offset in the outermost message. */
  readonly end: number;
  /** Position of the last field; -1 before the first. */
  last: number;
  /** A list of the last field's elements is open. */
  inList: boolean;
  isEmpty: boolean;
}

const frameOf = (shape: MessageShape, end: number): Frame => ({ shape, end, last: -1, inList: false, isEmpty: true });

export class JsonPieces {
  readonly #style: StringStyle;
  readonly #frames: Frame[];
  readonly #reader = new Reader();
  /** Offset in the message of the buffer's first byte. */
  #base = 0;
  /** Bytes that need more input. */
  #rest: Buffer = NOTHING;
  /** Bytes, a string, or a skipped field, of which `#left` bytes are missing. */
  #content: "bytes" | "string" | "skipped" | null = null;
  #left = 0;
  #begun = false;

  constructor(shape: MessageShape, style: StringStyle) {
    this.#style = style;
    this.#frames = [frameOf(shape, Number.POSITIVE_INFINITY)];
  }

  /** The text for the next piece of the message. Throws ProtobufError. */
  push(piece: Uint8Array): string {
    const buf = this.#rest.length === 0 ? asBuffer(piece) : Buffer.concat([this.#rest, piece]);
    let text = this.#begun ? "" : "{";
    this.#begun = true;
    let pos = 0;
    for (;;) {
      const left = buf.length - pos;
      if (this.#content !== null) {
        const taken = this.#takeable(buf, pos);
        if (taken === 0 && this.#left > 0) break;
        text += this.#contentText(buf, pos, pos + taken);
        pos += taken;
        continue;
      }
      text += this.#leaveEnded(this.#base + pos);
      if (left === 0) break;
      const next = this.#field(buf, pos);
      if (next < 0) break;
      text += this.#text;
      pos = next;
    }
    this.#base += pos;
    this.#rest = pos === buf.length ? NOTHING : Buffer.from(buf.subarray(pos));
    return text;
  }

  /** The text after the last piece. Throws ProtobufError when the message is not complete. */
  finish(): string {
    const frame = this.#frames[0]!;
    if (this.#frames.length > 1 || this.#rest.length > 0 || this.#content !== null) {
      throw new ProtobufError(`message ends inside a field at offset ${this.#base + this.#rest.length}`);
    }
    const close = frame.inList ? "]}" : "}";
    return this.#begun ? close : `{${close}`;
  }

  // ---- fields

  /** Output of `#field`. */
  #text = "";

  /** Reads the field at `pos` and returns where to continue; -1 when it is incomplete. */
  #field(buf: Buffer, pos: number): number {
    const tagEnd = varintEnd(buf, pos);
    if (tagEnd < 0) return -1;
    const reader = this.#reader.reset(buf, pos);
    const tag = reader.uint32();
    const frame = this.#frames.at(-1)!;
    const field = frame.shape.byNumber.get(tag >>> 3);
    this.#text = "";
    if ((tag & 7) === 2) return this.#lengthDelimited(buf, tagEnd, frame, field);
    if ((tag & 7) === 0 ? varintEnd(buf, tagEnd) < 0 : buf.length - tagEnd < 8 && (tag & 7) === 1) return -1;
    if ((tag & 7) === 5 && buf.length - tagEnd < 4) return -1;
    if (field === undefined) reader.skip(tag);
    else this.#member(frame, field, encodeValue(reader, field, this.#style));
    return reader.pos;
  }

  #lengthDelimited(buf: Buffer, pos: number, frame: Frame, field: FieldShape | undefined): number {
    const start = varintEnd(buf, pos);
    if (start < 0) return -1;
    const reader = this.#reader.reset(buf, pos);
    const length = reader.uint64();
    const end = this.#base + start + length;
    if (end > frame.end) throw new ProtobufError(`message overruns its length at offset ${frame.end}`);
    const isHere = start + length <= buf.length;
    if (field === undefined) {
      this.#begin("skipped", length);
      return start;
    }
    if (isPackable(field)) {
      if (!isHere) return -1;
      reader.reset(buf, start, start + length);
      while (reader.pos < start + length) this.#member(frame, field, encodeValue(reader, field, this.#style));
      return start + length;
    }
    if (field.kind !== "message") {
      if (length === 0) this.#member(frame, field, field.repeated || field.oneof !== undefined ? '""' : undefined);
      else {
        this.#member(frame, field, '"');
        this.#begin(field.kind === "bytes" ? "bytes" : "string", length);
      }
      return start;
    }
    if (length > WHOLE_BYTES_MAX) {
      this.#member(frame, field, "{");
      this.#frames.push(frameOf(field.message!, end));
      return start;
    }
    if (!isHere) return -1;
    reader.reset(buf, start, start + length);
    this.#member(frame, field, encodeMessage(reader, start + length, field.message!, this.#style));
    return start + length;
  }

  /** Adds a value with its separator and name. */
  #member(frame: Frame, field: FieldShape, value: string | undefined): void {
    const again = field.order === frame.last;
    if (field.order < frame.last || (again && !field.repeated)) {
      throw new ProtobufError(`${frame.shape.name}.${field.name} comes out of order, in a message that is not whole`);
    }
    if (frame.inList && !again) {
      this.#text += "]";
      frame.inList = false;
    }
    frame.last = field.order;
    if (value === undefined) return;
    if (frame.inList) this.#text += `,${value}`;
    else {
      this.#text += frame.isEmpty ? field.label : `,${field.label}`;
      this.#text += field.repeated ? `[${value}` : value;
      frame.inList = field.repeated;
    }
    frame.isEmpty = false;
  }

  #leaveEnded(offset: number): string {
    let text = "";
    for (let frame = this.#frames.at(-1)!; frame.end <= offset; frame = this.#frames.at(-1)!) {
      if (frame.end < offset) throw new ProtobufError(`message overruns its length at offset ${frame.end}`);
      text += frame.inList ? "]}" : "}";
      this.#frames.pop();
    }
    return text;
  }

  // ---- content

  #begin(content: "bytes" | "string" | "skipped", length: number): void {
    this.#content = content;
    this.#left = length;
  }

  /**
   * Bytes of the content that can be written now. The rest waits: base64 takes three at a time, UTF-8 whole characters.
   */
  #takeable(buf: Buffer, pos: number): number {
    const here = buf.length - pos;
    if (here >= this.#left) return this.#left;
    if (this.#content === "skipped") return here;
    if (this.#content === "bytes") return here - (here % 3);
    return lastCharacterEnd(buf, pos) - pos;
  }

  #contentText(buf: Buffer, start: number, end: number): string {
    const content = this.#content;
    this.#left -= end - start;
    const close = this.#left === 0;
    if (close) this.#content = null;
    if (content === "skipped") return "";
    const text =
      content === "bytes"
        ? buf.toString("base64", start, end)
        : encodeString(buf.toString("utf8", start, end), this.#style).slice(1, -1);
    return close ? `${text}"` : text;
  }
}

const NOTHING = Buffer.alloc(0);

/** End of the varint at `pos`; -1 when it is incomplete. */
function varintEnd(buf: Buffer, pos: number): number {
  for (let at = pos; at < buf.length; at++) if (buf[at]! < 128) return at + 1;
  if (buf.length - pos >= VARINT_BYTES_MAX) throw new ProtobufError("varint longer than 64 bits");
  return -1;
}

/** End of the last complete character in `buf[pos ..]`. */
function lastCharacterEnd(buf: Buffer, pos: number): number {
  const { length } = buf;
  for (let at = length - 1; at >= Math.max(pos, length - 4); at--) {
    const byte = buf[at]!;
    if ((byte & 0xc0) === 0x80) continue;
    const needed = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return at + needed > length ? at : length;
  }
  return length;
}
