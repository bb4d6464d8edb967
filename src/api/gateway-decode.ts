/**
 * Requests of the JSON gateway: a JSON value becomes the bytes of a message. Follows Go's protojson with
 * DiscardUnknown, its words for errors included. Pure.
 * Source: https://protobuf.dev/programming-guides/json/
 */
import { NESTING_DEPTH_MAX, Writer } from "../base/protobuf.ts";
import type { JsonMember, JsonValue } from "./gateway-json.ts";
import type { FieldKind, FieldShape, MessageShape } from "./gateway-schema.ts";

/** The JSON is well-formed, but not of this message. The text names the place and what was wrong. */
export class JsonMessageError extends Error {
  override name = "JsonMessageError";
}

type Scalar = boolean | number | bigint | string | Uint8Array;

interface Content {
  readonly fields: readonly (readonly [FieldShape, readonly (Scalar | Content)[]])[];
}

/** Encodes `value`, a part of `text`, as a message of this shape. Throws JsonMessageError. */
export function decodeJson(shape: MessageShape, text: Uint8Array, value: JsonValue): Uint8Array {
  const content = new Decoder(text, value.start).message(shape, value);
  const writer = new Writer().reset();
  writeContent(writer, content);
  return writer.finish();
}

class Decoder {
  readonly #text: Buffer;
  /** Positions in errors count from here. */
  readonly #origin: number;
  #depth = 0;

  constructor(text: Uint8Array, origin: number) {
    this.#text = Buffer.from(text.buffer, text.byteOffset, text.length);
    this.#origin = origin;
  }

  message(shape: MessageShape, value: JsonValue): Content {
    if (++this.#depth > NESTING_DEPTH_MAX) throw new JsonMessageError("proto: exceeded max recursion depth");
    if (value.kind !== "object") this.#unexpected(value);
    const seen = new Set<FieldShape>();
    const oneofs = new Set<string>();
    const fields: [FieldShape, (Scalar | Content)[]][] = [];
    for (const member of value.members) {
      const field = shape.byName.get(this.#string(member.name));
      if (field === undefined) {
        this.#checkStrings(member.value);
        continue;
      }
      if (seen.has(field)) this.#fail(member.name, `duplicate field ${this.#raw(member.name)}`);
      seen.add(field);
      if (member.value.kind === "null") continue;
      if (field.oneof !== undefined) this.#takeOneof(oneofs, field.oneof, member);
      const values = field.repeated ? this.#list(field, member.value) : this.#single(field, member.value);
      if (values.length > 0) fields.push([field, values]);
    }
    this.#depth--;
    // The encoding has the fields in the order of their numbers.
    fields.sort(([a], [b]) => a.number - b.number);
    return { fields };
  }

  #takeOneof(taken: Set<string>, oneof: string, { name }: JsonMember): void {
    if (taken.has(oneof)) this.#fail(name, `error parsing ${this.#raw(name)}, oneof ${oneof} is already set`);
    taken.add(oneof);
  }

  #single(field: FieldShape, value: JsonValue): (Scalar | Content)[] {
    if (field.message !== undefined) return [this.message(field.message, value)];
    const scalar = this.#scalar(field, value);
    if (scalar === null || (field.oneof === undefined && isZero(scalar))) return [];
    return [scalar];
  }

  #list(field: FieldShape, value: JsonValue): (Scalar | Content)[] {
    if (value.kind !== "array") this.#unexpected(value);
    const out: (Scalar | Content)[] = [];
    for (const item of value.items) {
      const element = field.message === undefined ? this.#scalar(field, item) : this.message(field.message, item);
      if (element !== null) out.push(element);
    }
    return out;
  }

  /** Null for the unknown name of an enum, which is left out like any unknown field. */
  #scalar(field: FieldShape, value: JsonValue): Scalar | null {
    const scalar = this.#parse(field, value);
    if (scalar !== undefined) return scalar;
    return this.#fail(value, `invalid value for ${field.kind} field ${field.jsonName}: ${this.#token(value)}`);
  }

  #parse(field: FieldShape, value: JsonValue): Scalar | null | undefined {
    switch (field.kind) {
      case "bool":
        return value.kind === "bool" ? this.#raw(value) === "true" : undefined;
      case "string":
        return value.kind === "string" ? this.#string(value) : undefined;
      case "bytes":
        return value.kind === "string" ? base64(this.#string(value)) : undefined;
      case "enum":
        if (value.kind === "string") return field.values!.get(this.#string(value)) ?? null;
        return value.kind === "number" ? integer(this.#raw(value), "int32") : undefined;
      case "double": {
        const text = this.#numberText(value);
        return text === undefined ? undefined : Number(text);
      }
      default: {
        const text = this.#numberText(value);
        return text === undefined ? undefined : integer(text, field.kind);
      }
    }
  }

  /** A number may come as a string, as it must when it has more than 53 bits. */
  #numberText(value: JsonValue): string | undefined {
    if (value.kind === "number") return this.#raw(value);
    if (value.kind !== "string") return undefined;
    return /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?(?![-+._a-zA-Z0-9])/.exec(this.#string(value))?.[0];
  }

  #raw({ start, end }: JsonValue): string {
    return this.#text.toString("utf8", start, end);
  }

  /** The value as errors show it: of an object or array only the bracket. */
  #token(value: JsonValue): string {
    if (value.kind === "object") return "{";
    return value.kind === "array" ? "[" : this.#raw(value);
  }

  #string(value: JsonValue): string {
    let text: string;
    try {
      text = utf8.decode(this.#text.subarray(value.start, value.end));
    } catch {
      return this.#syntaxError(value, "invalid UTF-8 in string");
    }
    const parsed = JSON.parse(text) as string;
    // Half of a surrogate pair, which only an escape can bring.
    if (/\p{Surrogate}/u.test(parsed)) this.#syntaxError(value, `invalid escape code in string ${text}`);
    return parsed;
  }

  /** What is skipped must be text all the same. */
  #checkStrings(value: JsonValue): void {
    if (value.kind === "string") this.#string(value);
    for (const item of value.items) this.#checkStrings(item);
    for (const member of value.members) {
      this.#string(member.name);
      this.#checkStrings(member.value);
    }
  }

  #unexpected(value: JsonValue): never {
    return this.#syntaxError(value, `unexpected token ${this.#token(value)}`);
  }

  #syntaxError(value: JsonValue, what: string): never {
    throw new JsonMessageError(`proto: syntax error ${this.#place(value)}: ${what}`);
  }

  #fail(value: JsonValue, what: string): never {
    throw new JsonMessageError(`proto: ${this.#place(value)}: ${what}`);
  }

  #place({ start }: JsonValue): string {
    const lines = this.#text.toString("utf8", this.#origin, start).split("\n");
    return `(line ${lines.length}:${[...lines.at(-1)!].length + 1})`;
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const isZero = (value: Scalar): boolean => {
  if (typeof value === "object") return value.length === 0;
  return value === 0n || value === 0 || value === false || value === "";
};

/** Either alphabet, padded or not; undefined when it is not base64. */
function base64(text: string): Uint8Array | undefined {
  const urlSafe = /[-_]/.test(text);
  const body = text.replace(/[\r\n]/g, "");
  const padded = text.length % 4 === 0;
  const pattern = urlSafe
    ? /^(?:[-\w]{4})*(?:[-\w]{2}(?:==)?|[-\w]{3}=?)?$/
    : /^(?:[+/A-Za-z0-9]{4})*(?:[+/A-Za-z0-9]{2}(?:==)?|[+/A-Za-z0-9]{3}=?)?$/;
  if (!pattern.test(body)) return undefined;
  if (padded ? body.length % 4 !== 0 : body.includes("=")) return undefined;
  return Buffer.from(body, urlSafe ? "base64url" : "base64");
}

const RANGES: Partial<Record<FieldKind, readonly [bigint, bigint]>> = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
};
const DIGITS_MAX = 20;

/** The integer that a JSON number is, whatever its notation; undefined when it is none or does not fit. */
function integer(text: string, kind: FieldKind): number | bigint | undefined {
  const [, sign = "", whole = "", fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d*?)0*)?(?:[eE]([-+]?\d+))?$/.exec(text) ?? [];
  const digits = whole === "0" ? "" : whole;
  const shift = Number(exponent);
  let number: string;
  if (digits === "" && fraction === "") number = "0";
  else if (shift >= 0) {
    if (fraction.length > shift || digits.length + shift > DIGITS_MAX) return undefined;
    number = digits + fraction.padEnd(shift, "0");
  } else {
    const point = digits.length + shift;
    if (fraction !== "" || point < 0 || /[1-9]/.test(digits.slice(point))) return undefined;
    number = digits.slice(0, point);
    // What is left of "0.5e-1" and the like: Go reads no digits as no number.
    if (number === "") return undefined;
  }
  const value = BigInt(sign + number);
  const [least, most] = RANGES[kind]!;
  if (value < least || value > most) return undefined;
  return kind === "int32" || kind === "uint32" ? Number(value) : value;
}

/** From back to front, as the writer wants it. */
function writeContent(writer: Writer, content: Content): void {
  for (let i = content.fields.length - 1; i >= 0; i--) {
    const [field, values] = content.fields[i]!;
    if (field.repeated && isPacked(field.kind)) writePacked(writer, field, values);
    else for (let j = values.length - 1; j >= 0; j--) writeField(writer, field, values[j]!);
  }
}

const isPacked = (kind: FieldKind): boolean => kind !== "string" && kind !== "bytes" && kind !== "message";

function writePacked(writer: Writer, field: FieldShape, values: readonly (Scalar | Content)[]): void {
  const mark = writer.length;
  for (let i = values.length - 1; i >= 0; i--) writeScalar(writer, field.kind, values[i] as Scalar);
  writer.uint32(writer.length - mark);
  writer.tag(field.number * 8 + 2);
}

function writeField(writer: Writer, field: FieldShape, value: Scalar | Content): void {
  if (field.message !== undefined) {
    const mark = writer.length;
    writeContent(writer, value as Content);
    writer.uint32(writer.length - mark);
  } else writeScalar(writer, field.kind, value as Scalar);
  writer.tag(field.number * 8 + (isPacked(field.kind) ? (field.kind === "double" ? 1 : 0) : 2));
}

function writeScalar(writer: Writer, kind: FieldKind, value: Scalar): void {
  switch (kind) {
    case "bool":
      return writer.bool(value as boolean);
    case "int32":
    case "enum":
      return writer.int32(Number(value));
    case "uint32":
      return writer.uint32(value as number);
    case "double":
      return writer.double(value as number);
    case "string":
      return writer.string(value as string);
    case "bytes":
      return writer.bytes(value as Uint8Array);
    default:
      return writer.int64Big(value as bigint);
  }
}
