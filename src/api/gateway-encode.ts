/**
 * Answers of the JSON gateway: the bytes of a message become JSON. Follows Go's protojson with UseProtoNames and without
 * EmitUnpopulated, in the order of the .proto file, with no spaces (Go puts spaces or none, by build of the program). Pure.
 * Source: https://protobuf.dev/programming-guides/json/
 */
import { Reader } from "../base/protobuf.ts";
import type { FieldShape, MessageShape } from "./gateway-schema.ts";

/** How strings are written: Go escapes `<`, `>` and `&` in the pieces of a stream, but not in a single answer. */
export type StringStyle = "single" | "stream";

/** The JSON of a message. Throws ProtobufError. */
export function encodeJson(shape: MessageShape, bytes: Uint8Array, style: StringStyle): string {
  const reader = new Reader().reset(bytes);
  return message(reader, bytes.length, shape, style);
}

function message(reader: Reader, end: number, shape: MessageShape, style: StringStyle): string {
  const found = new Map<FieldShape, string[]>();
  const outer = reader.end;
  reader.end = end;
  while (reader.pos < end) {
    const tag = reader.uint32();
    const field = shape.byNumber.get(tag >>> 3);
    if (field === undefined) {
      reader.skip(tag);
      continue;
    }
    let texts = found.get(field);
    if (texts === undefined || !field.repeated) found.set(field, (texts = []));
    if ((tag & 7) === 2 && isPackable(field)) {
      const stop = reader.nested();
      while (reader.pos < stop) texts.push(value(reader, field, style)!);
      reader.leave(stop);
    } else {
      const text = value(reader, field, style);
      if (text !== undefined) texts.push(text);
    }
  }
  if (reader.pos !== end) reader.overrun(end);
  reader.end = outer;
  const members: string[] = [];
  for (const field of shape.fields) {
    const texts = found.get(field);
    if (texts === undefined || texts.length === 0) continue;
    const text = field.repeated ? `[${texts.join(",")}]` : texts[0]!;
    members.push(`"${field.name}":${text}`);
  }
  return `{${members.join(",")}}`;
}

const isPackable = ({ kind }: FieldShape): boolean => kind !== "string" && kind !== "bytes" && kind !== "message";

/** Undefined for a scalar at its default, which is left out. */
function value(reader: Reader, field: FieldShape, style: StringStyle): string | undefined {
  const keep = field.repeated || field.oneof !== undefined;
  switch (field.kind) {
    case "message": {
      const stop = reader.nested();
      const text = message(reader, stop, field.message!, style);
      reader.leave(stop);
      return text;
    }
    case "bytes": {
      const bytes = reader.bytes();
      if (bytes.length === 0 && !keep) return undefined;
      return `"${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64")}"`;
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
      const number = field.kind === "int64" ? reader.int64Big() : reader.uint64Big();
      return number === 0n && !keep ? undefined : `"${number}"`;
    }
    default: {
      const number =
        field.kind === "int32" ? reader.int32() : field.kind === "uint32" ? reader.uint32() : reader.double();
      return number === 0 && !keep ? undefined : `${number}`;
    }
  }
}

/** A JSON string as Go writes it. */
export function encodeString(text: string, style: StringStyle): string {
  // JSON.stringify escapes exactly what Go does, and half surrogates, which decoded UTF-8 does not have.
  const json = JSON.stringify(text);
  if (style === "single") return json;
  return json.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
