/**
 * Responses of the JSON gateway: converts a complete message to JSON. Follows Go's protojson with UseProtoNames and
 * without EmitUnpopulated, in the order of the .proto file, without spaces (Go's spaces vary with the build). Pure.
 * Large messages use `JsonPieces` instead, which uses this for small parts. Source:
 * https://protobuf.dev/programming-guides/json/
 */
import { Reader } from "../../base/protobuf.ts";
import type { FieldShape, MessageShape } from "./schema.ts";

/** How strings are written: Go escapes `<`, `>` and `&` in the pieces of a stream, but not in a single answer. */
export type StringStyle = "single" | "stream";

/** The JSON of a message. Throws ProtobufError. */
export function encodeJson(shape: MessageShape, bytes: Uint8Array, style: StringStyle): string {
  return encodeMessage(sharedReader.reset(asBuffer(bytes)), bytes.length, shape, style);
}

const sharedReader = new Reader();

export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

/** The JSON of the message at the position of the reader, which reads a Buffer; the message ends at `end`. */
export function encodeMessage(reader: Reader, end: number, shape: MessageShape, style: StringStyle): string {
  const start = reader.pos;
  const outer = reader.end;
  reader.end = end;
  let text = "{";
  let last = -1;
  let inList = false;
  while (reader.pos < end) {
    const tag = reader.uint32();
    const field = shape.byNumber.get(tag >>> 3);
    if (field === undefined) {
      reader.skip(tag);
      continue;
    }
    if (field.order < last || (field.order === last && !field.repeated)) {
      reader.pos = start;
      text = encodeUnordered(reader, end, shape, style);
      reader.end = outer;
      return text;
    }
    const value =
      (tag & 7) === 2 && isPackable(field) ? packed(reader, field, style) : encodeValue(reader, field, style);
    if (inList && field.order !== last) {
      text += "]";
      inList = false;
    }
    last = field.order;
    if (value === undefined) continue;
    if (inList) text += `,${value}`;
    else {
      text += text.length > 1 ? `,${field.label}` : field.label;
      text += field.repeated ? `[${value}` : value;
      inList = field.repeated;
    }
  }
  if (reader.pos !== end) reader.overrun(end);
  reader.end = outer;
  return inList ? `${text}]}` : `${text}}`;
}

/** Fields may come in any order; the last value of a singular field wins. */
function encodeUnordered(reader: Reader, end: number, shape: MessageShape, style: StringStyle): string {
  const found = new Map<FieldShape, string[]>();
  while (reader.pos < end) {
    const tag = reader.uint32();
    const field = shape.byNumber.get(tag >>> 3);
    if (field === undefined) {
      reader.skip(tag);
      continue;
    }
    let texts = found.get(field);
    if (texts === undefined || !field.repeated) found.set(field, (texts = []));
    const value =
      (tag & 7) === 2 && isPackable(field) ? packed(reader, field, style) : encodeValue(reader, field, style);
    if (value !== undefined) texts.push(value);
  }
  if (reader.pos !== end) reader.overrun(end);
  const members: string[] = [];
  for (const field of shape.fields) {
    const texts = found.get(field);
    if (texts === undefined || texts.length === 0) continue;
    members.push(field.label + (field.repeated ? `[${texts.join(",")}]` : texts[0]!));
  }
  return `{${members.join(",")}}`;
}

export const isPackable = ({ kind }: FieldShape): boolean =>
  kind !== "string" && kind !== "bytes" && kind !== "message";

/** Packed scalars, separated by commas; undefined when there are none. */
function packed(reader: Reader, field: FieldShape, style: StringStyle): string | undefined {
  const stop = reader.nested();
  const texts: string[] = [];
  while (reader.pos < stop) {
    const value = encodeValue(reader, field, style);
    if (value !== undefined) texts.push(value);
  }
  reader.leave(stop);
  return texts.length === 0 ? undefined : texts.join(",");
}

/** The JSON of a value whose tag was read; undefined for a default scalar, which is omitted. */
export function encodeValue(reader: Reader, field: FieldShape, style: StringStyle): string | undefined {
  const keep = field.repeated || field.oneof !== undefined;
  switch (field.kind) {
    case "message": {
      const stop = reader.nested();
      const text = encodeMessage(reader, stop, field.message!, style);
      reader.leave(stop);
      return text;
    }
    case "bytes": {
      const start = reader.span();
      if (start === reader.pos && !keep) return undefined;
      return `"${(reader.buf as Buffer).toString("base64", start, reader.pos)}"`;
    }
    case "string": {
      const text = reader.string();
      return text === "" && !keep ? undefined : encodeString(text, style);
    }
    case "bool": {
      const flag = reader.bool();
      return flag || keep ? `${flag}` : undefined;
    }
    case "enum": {
      const number = reader.int32();
      if (number === 0 && !keep) return undefined;
      const name = field.names!.get(number);
      return name === undefined ? `${number}` : `"${name}"`;
    }
    case "int64":
    case "uint64": {
      const start = reader.pos;
      const number = reader.int64();
      if (number === 0 && !keep) return undefined;
      if (Number.isSafeInteger(number) && number >= 0) return `"${number}"`;
      reader.pos = start;
      return `"${field.kind === "int64" ? reader.int64Big() : reader.uint64Big()}"`;
    }
    default: {
      const number = field.kind === "int32" ? reader.int32() : reader.uint32();
      return number === 0 && !keep ? undefined : `${number}`;
    }
  }
}

/** A JSON string as Go writes it. */
export function encodeString(text: string, style: StringStyle): string {
  // JSON.stringify escapes exactly as Go does, and also lone surrogates, which decoded UTF-8 cannot contain.
  const json = JSON.stringify(text);
  if (style === "single") return json;
  return json.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
